# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The queue of recent examples: what may enter it, in which units it is compared, how it fills."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gq_optax._rarity import lloyd

Reduce = Callable[[jax.Array], jax.Array]


def queueable(
  x: jax.Array,
  unmasked: jax.Array,
  losses: jax.Array | None,
  state: Any,
  rounding: float,
  metric: str,
  most: Reduce = jnp.max,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
  """Rows as the queue holds them, which of them may enter it, their lengths and losses.

  Args:
    x: float32 `[n, d]`.
    unmasked: bool `[n]`.
    losses: float32 `[n]`, or None.
    state: an `ExampleScarcityState`.
    rounding: the spacing at 1 of the dtype that x had.
    metric: "cosine" or "euclidean".
    most: the maximum, over all devices.
  """
  x, finite, tallest = lloyd.readable(x)
  live = jnp.logical_and(unmasked, finite)
  if losses is not None:
    live = jnp.logical_and(live, jnp.isfinite(losses))
  x, tallest = jnp.where(live[:, None], x, 0.0), jnp.where(live, tallest, 0.0)
  scaled = x / jnp.where(tallest > 0.0, tallest, 1.0)[:, None]
  lengths = jnp.sqrt(jnp.sum(jnp.square(scaled), axis=1)) * jnp.minimum(tallest, 1e30)
  if metric == "cosine":
    # As short as the rounding of the longest: what is left has no direction of its own.
    longest = most(jnp.stack([jnp.max(lengths), jnp.max(state.lengths)]))
    live = jnp.logical_and(live, lengths > rounding * longest)
    x = lloyd.unit_rows(x, tallest)
  if state.queue.dtype != x.dtype:  # what is finite in float32 may not be in the queue's dtype
    # The barrier: on a GPU XLA keeps the excess precision, and what overflows would look finite.
    x = jax.lax.optimization_barrier(x.astype(state.queue.dtype)).astype(jnp.float32)
    live = jnp.logical_and(live, jnp.all(jnp.isfinite(x), axis=1))
  zeros = jnp.zeros_like(lengths)
  losses = zeros if losses is None else jnp.clip(losses, -1e30, 1e30)
  keep = lambda part: jnp.where(live, part, zeros)
  return jnp.where(live[:, None], x, 0.0), live, keep(lengths), keep(losses)


class Frame(NamedTuple):
  """The units that distances are computed in: of float32 `[]`.

  Attributes:
    scale: one of them in units of the embeddings; 1 under the cosine metric.
    largest: the largest squared length of a row.
  """

  scale: jax.Array
  largest: jax.Array


def framed(
  x: jax.Array,
  live: jax.Array,
  state: Any,
  metric: str,
  total: Reduce = lambda part: part,
  most: Reduce = jnp.max,
) -> tuple[jax.Array, jax.Array, Frame]:
  """Rows of batch and queue where their squares neither overflow nor cancel, and the frame.

  Args:
    x: `[n, d]`, of `queueable`.
    live: bool `[n]`, of `queueable`.
    state: an `ExampleScarcityState`.
    metric: "cosine" or "euclidean".
    total: the sum over all devices.
    most: the maximum, over all devices.
  """
  queue, one = state.queue.astype(jnp.float32), jnp.ones([], jnp.float32)
  if metric == "cosine":
    return x, queue, Frame(one, one)
  scale = lloyd.power_of_two(most(jnp.stack([jnp.max(jnp.abs(x)), jnp.max(jnp.abs(queue))])))
  number = jnp.maximum(total(jnp.sum(live, dtype=jnp.float32)), 1.0)
  # On a coarse grid, as in `lloyd.frame`: the shift is then exact for data of few digits.
  mean = total(jnp.sum(x / scale, axis=0)) / number
  center = jnp.round(mean * 2.0**11) * 2.0**-11
  both = (live, state.filled)
  moved = lambda parts, by: [
    jnp.where(there[:, None], rows - by[None], 0.0) for rows, there in zip(parts, both, strict=True)
  ]
  x, queue = moved((x / scale, queue / scale), center)
  # What the grid leaves may still be many times as far as the examples are apart.
  x, queue = moved((x, queue), total(jnp.sum(x, axis=0)) / number)
  square = lambda rows: jnp.max(jnp.sum(jnp.square(rows), axis=1))
  return x, queue, Frame(scale, most(jnp.stack([square(x), square(queue)])))


def there_first(there: jax.Array) -> jax.Array:
  """The rows that are there, then those that are not, int32 `[n]`."""
  return jnp.argsort(jnp.logical_not(there), stable=True).astype(jnp.int32)


def stride(number: jax.Array, size: int) -> jax.Array:
  """The first `size` places, int32; at even stride below `number` where that is more."""
  place = jnp.arange(size, dtype=jnp.int32)
  # floor(place * number / size), without a product that could overflow.
  strided = place * (number // size) + (place * (number % size)) // size
  return jnp.where(number > size, strided, place)


def pushed(
  state: Any,
  x: jax.Array,
  live: jax.Array,
  lengths: jax.Array,
  losses: jax.Array,
  order: jax.Array,
) -> Any:
  """The queue with the live rows in front; where they are too many, at even stride.

  Args:
    state: an `ExampleScarcityState`.
    x: `[n, d]`.
    live: bool `[n]`.
    lengths: float32 `[n]`.
    losses: float32 `[n]`.
    order: int32 `[n + M]`, `there_first` of batch and queue.
  """
  there = jnp.concatenate([live, state.filled])
  taken = order[stride(jnp.sum(live, dtype=jnp.int32), len(state.queue))]
  behind = lambda new, old: jnp.concatenate([new.astype(old.dtype), old])[taken]
  return state._replace(
    queue=behind(x, state.queue),
    filled=there[taken],
    lengths=behind(lengths, state.lengths),
    losses=behind(losses, state.losses),
  )
