# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The queue: a ring of the last L raw gradients `[L, *p]`, its mean and its deviation."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gq_optax import _boxes, _dtypes, _masks
from gq_optax._grad_queue import norms


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


def push(queue: Queue, gradient: list[jax.Array], accept: jax.Array) -> Queue:
  """Writes a gradient into the oldest slot; with `accept` False the queue stays as it was."""
  length = _length(queue)
  slots, structure = jax.tree.flatten(queue.slots)
  pairs = zip(slots, gradient, strict=True)
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
  return (newest(queue) - jnp.arange(total, dtype=jnp.int32)) % total < length


class Statistics(NamedTuple):
  r"""Mean and deviation of one leaf of the queue, in units in which squares are harmless.

  The newest entry :math:`q_0` is the origin, so that equal entries give exactly 0 for both. The
  scale is a power of two, one of two for each coordinate: squares then neither vanish (gradients of
  1e-25) nor overflow (spikes of 1e30). A division by the largest deviation would take a third more
  time on a CPU.

  Attributes:
    origin: `[*p]`, a quarter of the newest entry.
    scale: `[*p]`, what a quarter of a deviation is multiplied with.
    mean: `[*p]`, that of :math:`q_i - q_0`, scaled.
    std: `[*p]`, its deviation, scaled.
  """

  origin: jax.Array
  scale: jax.Array
  mean: jax.Array
  std: jax.Array


# A quarter of the difference of two finite numbers is always finite.
_QUARTER = 0.25
_LARGE = 2.0**13  # deviations from here on are in units of 2^66, smaller ones in units of 2^-48


@jax.jit  # leaves of one shape are traced once
def statistics(
  slots: jax.Array, newest_slot: jax.Array, in_window: jax.Array | None = None
) -> Statistics:
  r"""Mean and population standard deviation of one leaf over the window, in two passes.

  .. math:: \mu = q_0 + \tfrac1n \sum_i (q_i - q_0), \qquad
            \sigma^2 = \tfrac1n \sum_i (q_i - \mu)^2

  Args:
    slots: `[L, *p]`, any float dtype.
    newest_slot: int32 `[]`, that of the newest entry.
    in_window: bool `[L]`; None when every slot counts.

  Returns:
    `Statistics` in float32 or wider.
  """
  dtype = _dtypes.at_least_float32(slots.dtype)
  length = slots.shape[0]
  # The loop over the L slots is unrolled: XLA makes one pass over memory of it, while a reduction
  # over the leading axis is ten times slower on CPU and needs temporaries.
  origin = slots.at[newest_slot].get(mode="promise_in_bounds").astype(dtype) * _QUARTER
  deviations = [slots[i].astype(dtype) * _QUARTER - origin for i in range(length)]
  # A scalar to multiply by: dividing arrays, XLA would write all the deviations out first.
  share: jax.Array | float = 1.0 / length
  among = lambda parts: parts
  if in_window is not None:
    among = lambda parts: [jnp.where(in_window[i], part, 0.0) for i, part in enumerate(parts)]
    share = 1.0 / jnp.maximum(jnp.sum(in_window, dtype=dtype), 1.0)
  deviations = among(deviations)
  largest = functools.reduce(jnp.maximum, map(jnp.abs, deviations))
  scale = jnp.where(largest < _LARGE, 2.0**48, 2.0**-66).astype(dtype)
  scaled = [d * scale for d in deviations]
  mean = functools.reduce(jnp.add, scaled) * share
  squares = among([jnp.square(d - mean) for d in scaled])
  std = norms.root(functools.reduce(jnp.add, squares) * share)
  return Statistics(origin, scale, mean, std)


def distance(past: Statistics, g: jax.Array) -> jax.Array:
  """How far g lies from the mean, scaled; infinite if that overflows."""
  return jnp.abs((g * _QUARTER - past.origin) * past.scale - past.mean)


def mean_and_std(past: Statistics) -> tuple[jax.Array, jax.Array]:
  """Both in the units of the gradient."""
  return (past.origin + past.mean / past.scale) / _QUARTER, past.std / past.scale / _QUARTER


def narrowed(queue: Queue, gradients: list[jax.Array], shares: jax.Array | None) -> list[jax.Array]:
  """Gradients as the queue would hold them, where its dtype holds less: they may overflow there.

  Args:
    queue: its slots have the dtypes.
    gradients: leaves `[*p]`, or `[K, *p]`.
    shares: float32 `[K]`; what stands in a group of share 0 is not read. None for `[*p]`.
  """
  found = []
  for slots, g in zip(jax.tree.leaves(queue.slots), gradients, strict=True):
    if not _dtypes.holds(slots.dtype, g.dtype):
      if shares is not None:
        g = _masks.masked(g, shares > 0.0)
      found.append(g.astype(slots.dtype))
  return found


def newest(queue: Queue) -> jax.Array:
  """The slot that was written last, int32 `[]`."""
  return (queue.index - 1) % _length(queue)


def _length(queue: Queue) -> int:
  leaves = jax.tree.leaves(queue.slots)
  # A tree without parameters (everything masked out) has a queue of nothing.
  return leaves[0].shape[0] if leaves else 1
