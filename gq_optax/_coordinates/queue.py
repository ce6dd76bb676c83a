# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The queue: a ring of the last L raw gradients, kept as one pytree `[L, *p]`."""

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
  # An index past the end drops the write: nothing is read back and the donated buffer stays.
  target = jnp.where(accept, queue.index, length)
  slots, structure = jax.tree.flatten(queue.slots)
  gradients = jax.tree.leaves(gradient)
  written = [
    s.at[target].set(g.astype(s.dtype), mode="drop") for s, g in zip(slots, gradients, strict=True)
  ]
  return Queue(
    slots=jax.tree.unflatten(structure, written),
    index=jnp.where(accept, (queue.index + 1) % length, queue.index),
    count=jnp.where(accept, optax.safe_increment(queue.count), queue.count),
  )


def window(queue: Queue, length: jax.Array) -> list[jax.Array]:
  """For each slot, in order: is it among the `length` newest entries?"""
  total = _length(queue)
  return [(queue.index - 1 - slot) % total < length for slot in range(total)]


def mean_and_std(
  slots: jax.Array, newest: jax.Array, in_window: list[jax.Array] | None
) -> tuple[jax.Array, jax.Array]:
  r"""Mean and population standard deviation of one leaf over the window, in two passes.

  .. math:: \mu = q_0 + \tfrac1n \sum_i (q_i - q_0), \qquad
            \sigma^2 = \tfrac1n \sum_i (q_i - \mu)^2

  Deviations are taken from the newest entry :math:`q_0`, so that equal entries give exactly
  :math:`\sigma = 0` and :math:`\mu = q_0`. They are scaled by a power of two, so that their squares
  neither vanish (gradients of 1e-25) nor overflow (spikes of 1e30).

  Args:
    slots: `[L, *p]`, any float dtype.
    newest: int32 `[]`, the slot of the newest entry.
    in_window: L booleans `[]`; None when every slot counts.

  Returns:
    `(mean, std)`, each `[*p]`, in float32 or wider.
  """
  dtype = _dtypes.at_least_float32(slots.dtype)
  length = slots.shape[0]
  # The loop over the L slots is unrolled: XLA makes one pass over memory of it, while a reduction
  # over the leading axis is ten times slower on CPU and needs temporaries. A quarter of the
  # difference of two finite numbers is always finite.
  entries = [slots[i].astype(dtype) * 0.25 for i in range(length)]
  reference = slots.at[newest].get(mode="promise_in_bounds").astype(dtype) * 0.25
  deviations = [entry - reference for entry in entries]
  # A scalar to multiply by: dividing arrays, XLA would write all the deviations out first.
  share: jax.Array | float = 1.0 / length
  if in_window is not None:
    deviations = [jnp.where(i, d, 0.0) for i, d in zip(in_window, deviations, strict=True)]
    share = 1.0 / jnp.maximum(jnp.sum(jnp.stack(in_window), dtype=dtype), 1.0)

  largest = jnp.abs(deviations[0])
  for deviation in deviations[1:]:
    largest = jnp.maximum(largest, jnp.abs(deviation))
  large = largest >= 2.0**13
  scale = jnp.where(large, 2.0**-66, 2.0**48).astype(dtype)
  unscale = jnp.where(large, 2.0**66, 2.0**-48).astype(dtype)

  scaled = [d * scale for d in deviations]
  mean = sum(scaled) * share
  squares = [jnp.square(d - mean) for d in scaled]
  if in_window is not None:
    squares = [jnp.where(i, s, 0.0) for i, s in zip(in_window, squares, strict=True)]
  std = norms.root(jnp.asarray(sum(squares) * share))
  return (reference + mean * unscale) * 4.0, std * unscale * 4.0


def _length(queue: Queue) -> int:
  leaves = jax.tree.leaves(queue.slots)
  # A tree without parameters (everything masked out) has a queue of nothing.
  return leaves[0].shape[0] if leaves else 1
