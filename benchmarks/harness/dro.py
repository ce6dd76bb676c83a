# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Group DRO, which reads the true kinds: an oracle that leans to those of high loss."""

import jax
import jax.numpy as jnp

RATE = 0.01  # as in the paper


def worst_kinds(
  losses: jax.Array, kinds: jax.Array, shares: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Weights `[B]` of mean 1 that lean to the kinds of high loss (group DRO, Sagawa et al. 2020).

  Args:
    losses: `[B]`.
    kinds: int `[B]`, the true ones.
    shares: `[kinds]` of sum 1, what each kind counts.

  Returns:
    The weights, and the shares times `exp(RATE * mean loss)`, of sum 1.
  """
  sums, counts = (jnp.zeros(len(shares)).at[kinds].add(x) for x in (losses, 1.0))
  shares = jax.nn.softmax(jnp.log(shares) + RATE * sums / jnp.maximum(counts, 1.0))
  weights = shares[kinds] / counts[kinds]
  return weights / jnp.mean(weights), shares
