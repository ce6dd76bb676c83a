# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The effective queue length: for how long has the loss been falling?"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class LossWindow(NamedTuple):
  """The most recent losses, newest first.

  Attributes:
    values: float32 `[longest + 2]`; entries not yet seen are 0.
    count: int32 `[]`, how many entries are filled.
  """

  values: jax.Array
  count: jax.Array  # type: ignore[assignment]  # shadows a method of tuple, as optax does


def init(longest: int) -> LossWindow:
  """An empty window for queue lengths up to `longest`."""
  return LossWindow(jnp.zeros(longest + 2, jnp.float32), jnp.zeros([], jnp.int32))


def push(losses: LossWindow, value: jax.Array) -> LossWindow:
  """Puts `value` in front; a loss that is not finite changes nothing."""
  accept = jnp.isfinite(value)
  shifted = jnp.concatenate([value[None], losses.values[:-1]])
  count = jnp.minimum(losses.count + 1, losses.values.shape[0])
  return LossWindow(
    jnp.where(accept, shifted, losses.values), jnp.where(accept, count, losses.count)
  )


def effective_length(losses: LossWindow, shortest: int, longest: int) -> jax.Array:
  r"""How far a window of two losses slides back while its sum grows, bounded.

  .. math:: S_j = l_{t-j} + l_{t-j-1}, \qquad
            d = \max\{j : S_0 < S_1 < \dots < S_j\}, \qquad L = \mathrm{clip}(d, shortest, longest)

  Args:
    losses: the recent losses, this step's included.
    shortest: lower bound.
    longest: upper bound.

  Returns:
    int32 `[]`.

  Reference: Al Hasib, Grad Queue (arXiv 2404.16917), page 5, "variable queue length".
  """
  sums = losses.values[:-1] + losses.values[1:]
  seen = jnp.arange(2, losses.values.shape[0], dtype=jnp.int32) < losses.count
  growing = jnp.logical_and(sums[1:] > sums[:-1], seen)
  distance = jnp.sum(jnp.cumprod(growing.astype(jnp.int32)), dtype=jnp.int32)
  return jnp.clip(distance, shortest, longest)
