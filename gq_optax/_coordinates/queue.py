# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The queue: a ring of the last L raw gradients, kept as one pytree `[L, *p]`."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gq_optax import _boxes, _dtypes
from gq_optax._coordinates import norms


class Queue(NamedTuple):
  """The last L raw gradients.

  Attributes:
    slots: pytree with a leaf `[L, *p]` for every parameter `[*p]`, in the storage dtype; boxes of
      Flax around it have a None for the axis of L.
    index: int32 `[]`, the slot that the next push writes, always in `[0, L)`.
    count: int32 `[]`, how many gradients were pushed so far; saturates instead of wrapping.
  """

  slots: optax.Updates
  index: jax.Array  # type: ignore[assignment]  # shadows a method of tuple, as optax does
  count: jax.Array  # type: ignore[assignment]  # shadows a method of tuple, as optax does


def init(params: optax.Updates, length: int, dtype: jax.typing.DTypeLike | None) -> Queue:
  """An empty queue for `params` (arrays or `ShapeDtypeStruct`s)."""

  def empty(leaf):
    # From `zeros_like`, so that the slots are sharded as the parameter is.
    zeros = jnp.zeros_like(leaf, dtype=dtype)
    return jnp.broadcast_to(zeros, (length, *zeros.shape))

  stack = lambda node: _boxes.behind_an_axis(jax.tree.map(empty, node))
  slots = jax.tree.map(stack, params, is_leaf=_boxes.is_box)
  return Queue(slots, jnp.zeros([], jnp.int32), jnp.zeros([], jnp.int32))


def push(queue: Queue, gradient: optax.Updates, accept: jax.Array) -> Queue:
  """Writes `gradient` into the oldest slot; with `accept` False the queue stays as it was."""
  length = _length(queue)
  slots, structure = jax.tree.flatten(queue.slots)
  pairs = zip(slots, jax.tree.leaves(gradient), strict=True)
  return Queue(
    slots=jax.tree.unflatten(structure, [_write(s, g, queue.index, accept) for s, g in pairs]),
    index=jnp.where(accept, (queue.index + 1) % length, queue.index),
    count=jnp.where(accept, optax.safe_increment(queue.count), queue.count),
  )


@jax.jit  # leaves of one shape are traced once
def _write(slots, gradient, index, accept):
  """The gradient in place of a slot; what is not accepted is the slot itself, read back."""
  start = (index, *(jnp.zeros([], index.dtype),) * gradient.ndim)
  old = jax.lax.dynamic_slice(slots, start, (1, *gradient.shape), allow_negative_indices=False)
  new = jnp.where(accept, gradient[None].astype(slots.dtype), old)
  return jax.lax.dynamic_update_slice(slots, new, start, allow_negative_indices=False)


def window(queue: Queue, length: jax.Array) -> jax.Array:
  """Which of the slots are among the `length` newest entries? bool `[L]`."""
  total = _length(queue)
  return (queue.index - 1 - jnp.arange(total, dtype=jnp.int32)) % total < length


class Spread(NamedTuple):
  r"""Mean and deviation of one leaf of the queue, in units in which squares are harmless.

  The newest entry :math:`q_0` is the origin, so that equal entries give exactly 0 for both. The
  unit is a power of two: squares then neither vanish (gradients of 1e-25) nor overflow (spikes of
  1e30).

  Attributes:
    origin: `[*p]`, a quarter of the newest entry.
    large: bool `[*p]`, in which of the two units this coordinate is.
    mean: `[*p]`, that of a quarter of :math:`q_i - q_0`, in this unit.
    std: `[*p]`, its deviation, in this unit.
  """

  origin: jax.Array
  large: jax.Array
  mean: jax.Array
  std: jax.Array


# A quarter of the difference of two finite numbers is always finite.
_QUARTER = 0.25
_LARGE = 2.0**13  # deviations from here on are in units of 2^66, smaller ones in units of 2^-48


def _scaled(x: jax.Array, large: jax.Array, direction: int = 1) -> jax.Array:
  """Into the unit, or out of it."""
  return x * jnp.where(large, 2.0 ** (-66 * direction), 2.0 ** (48 * direction)).astype(x.dtype)


def spread(slots: jax.Array, newest: jax.Array, in_window: jax.Array | None) -> Spread:
  r"""Mean and population standard deviation of one leaf over the window, in two passes.

  .. math:: \mu = q_0 + \tfrac1n \sum_i (q_i - q_0), \qquad
            \sigma^2 = \tfrac1n \sum_i (q_i - \mu)^2

  Args:
    slots: `[L, *p]`, any float dtype.
    newest: int32 `[]`, the slot of the newest entry.
    in_window: bool `[L]`; None when every slot counts.

  Returns:
    A `Spread` in float32 or wider.
  """
  dtype = _dtypes.at_least_float32(slots.dtype)
  length = slots.shape[0]
  # The loop over the L slots is unrolled: XLA makes one pass over memory of it, while a reduction
  # over the leading axis is ten times slower on CPU and needs temporaries.
  origin = slots.at[newest].get(mode="promise_in_bounds").astype(dtype) * _QUARTER
  deviations = [slots[i].astype(dtype) * _QUARTER - origin for i in range(length)]
  # A scalar to multiply by: dividing arrays, XLA would write all the deviations out first.
  share: jax.Array | float = 1.0 / length
  among = lambda parts: parts
  if in_window is not None:
    if in_window.shape != (length,):
      raise ValueError(f"in_window must be [L] = [{length}], but {in_window.shape} was found.")
    among = lambda parts: [jnp.where(in_window[i], part, 0.0) for i, part in enumerate(parts)]
    share = 1.0 / jnp.maximum(jnp.sum(in_window, dtype=dtype), 1.0)
  deviations = among(deviations)
  large = functools.reduce(jnp.maximum, map(jnp.abs, deviations)) >= _LARGE
  scaled = [_scaled(d, large) for d in deviations]
  mean = functools.reduce(jnp.add, scaled) * share
  squares = among([jnp.square(d - mean) for d in scaled])
  return Spread(origin, large, mean, norms.root(functools.reduce(jnp.add, squares) * share))


def distance(found: Spread, g: jax.Array) -> jax.Array:
  """How far a quarter of g lies from that of the mean, in the unit; infinite if that overflows."""
  return jnp.abs(_scaled(g * _QUARTER - found.origin, found.large) - found.mean)


def in_units(found: Spread) -> tuple[jax.Array, jax.Array]:
  """Mean and deviation in the units of the gradient."""
  mean, std = (_scaled(x, found.large, -1) for x in (found.mean, found.std))
  return (found.origin + mean) / _QUARTER, std / _QUARTER


def _length(queue: Queue) -> int:
  leaves = jax.tree.leaves(queue.slots)
  # A tree without parameters (everything masked out) has a queue of nothing.
  return leaves[0].shape[0] if leaves else 1
