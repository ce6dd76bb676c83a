# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Who counts: members of groups, and zeros in the place of what does not count."""

import jax
import jax.numpy as jnp


def over(part: jax.Array, x: jax.Array) -> jax.Array:
  """A part `[B]` with axes of one behind its own, as many as x `[B, ...]` has."""
  return part.reshape(part.shape + (1,) * (x.ndim - part.ndim))


def masked(x: jax.Array, valid: jax.Array) -> jax.Array:
  """Zeros in the place of what does not count, whatever stands there: 0 times NaN is NaN."""
  return jnp.where(over(valid, x), x, jnp.zeros_like(x))


def members(labels: jax.Array, num_groups: int) -> jax.Array:
  """Who belongs to which group, bool `[K, B]`."""
  return labels[None] == jnp.arange(num_groups, dtype=labels.dtype)[:, None]
