# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Blocks of examples of one group, and the sums of what is left open over each group."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gq_optax import _dtypes, _masks, _validate
from gq_optax._group_gradients import linear


class Blocks(NamedTuple):
  """Examples by blocks; those of a block are of one group.

  Attributes:
    examples: int32 `[blocks, size]`. A block that is not full repeats one of its own.
    valid: bool `[blocks, size]`, which of them count.
    group: int32 `[blocks]`; K if the block is empty.
  """

  examples: jax.Array
  valid: jax.Array
  group: jax.Array


def take(examples: jax.Array) -> Callable[[jax.Array], jax.Array]:
  """Picks examples that are known to be there."""
  return lambda x: x.at[examples].get(mode="promise_in_bounds")


def sizes(labels: jax.Array, num_groups: int) -> jax.Array:
  """How many examples each group has, int32 `[K]`."""
  return jnp.sum(_masks.members(labels, num_groups), axis=1, dtype=jnp.int32)


def scaled(cotangents: jax.Array, block: Blocks, counts: jax.Array) -> jax.Array:
  """The share of each example in the mean of its group; 0 for those that do not count.

  Behind the way back of an example: in front of it a scale would change what a backward rule does
  that is not linear, such as one that clips. In float32, and float16 stays there: it would vanish.

  Args:
    cotangents: `[size, ...]`.
    block: one block, `[size]`.
    counts: int32 `[K + 1]` or longer, the sizes of the groups.
  """
  dtype = _dtypes.at_least_float32(cotangents.dtype)
  count = counts.at[block.group].get(mode="promise_in_bounds")
  share = 1.0 / jnp.maximum(count, 1).astype(dtype)
  result = (cotangents.astype(dtype) * share).astype(linear.wide(cotangents.dtype))
  return _masks.masked(result, block.valid)


def add_means(
  sums: optax.Updates, parts: list[linear.Part], labels: jax.Array, counts: jax.Array
) -> optax.Updates:
  """Adds the mean gradient of each group, in parts, to sums `[K, *p]` in float32 or wider."""
  leaves, structure = jax.tree.flatten(sums)
  for part in parts:
    for n, means in zip(part.leaves, _means(part, labels, counts), strict=True):
      leaves[n] = leaves[n] + means.astype(leaves[n].dtype)
  return jax.tree.unflatten(structure, leaves)


def _means(part, labels, counts):
  num_groups = len(counts)
  # Small blocks waste little on groups that do not fill them. But each makes a whole gradient, and
  # where an example uses a weight only once, writing that is what costs.
  size = -(-len(labels) // (4 * num_groups if part.often else num_groups))
  first, others = cut(labels, num_groups, size)
  counts = jnp.pad(counts, (0, 1))

  def one(block):
    # As flat rows: a GPU would otherwise transpose what it gathers, by strided reads. Not where JAX
    # would have to be told how the rows are cut over devices.
    flat = lambda x: x if _validate.explicit_axes(x) else x.reshape(len(x), -1)
    rows = lambda x: take(block.examples)(flat(x))
    # Of an empty block all examples are made up.
    held = lambda x: x if part.ruled else jnp.where(block.valid[0], x, jnp.ones((), x.dtype))
    kept = [held(rows(x)).reshape(size, *x.shape[1:]) for x in part.kept]
    of_one = [scaled(rows(x), block, counts).reshape(size, *x.shape[1:]) for x in part.cotangents]
    result = [s.astype(_dtypes.at_least_float32(s.dtype)) for s in part.contract(kept, of_one)]
    return [_masks.masked(s, block.valid[0]) for s in result] if part.ruled else result

  def together(sums):
    more = jax.vmap(one)(others)
    return [s.at[others.group].add(m, mode="drop") for s, m in zip(sums, more, strict=True)]

  def one_by_one(sums):
    def add(j, sums):
      block = jax.tree.map(lambda x: x[j], others)
      return [s.at[block.group].add(m) for s, m in zip(sums, one(block), strict=True)]

    return jax.lax.fori_loop(0, jnp.sum(others.group < num_groups), add, sums)

  # On CPU memory is slow: only the blocks that are there, in place. Accelerators are slow to loop.
  begun = jax.vmap(one)(first)
  return jax.lax.platform_dependent(begun, cpu=one_by_one, default=together)


def cut(labels: jax.Array, num_groups: int, size: int) -> tuple[Blocks, Blocks]:
  """The first block of each group, and blocks enough for what is left of groups of any sizes."""
  batch_size = len(labels)
  counts = sizes(labels, num_groups)
  order = jnp.argsort(labels, stable=True).astype(jnp.int32)
  group = labels[order]
  before = lambda n: jnp.pad(jnp.cumsum(n, dtype=jnp.int32), (1, 0))[group]
  rank = jnp.arange(batch_size, dtype=jnp.int32) - before(counts)
  behind = num_groups + before(jnp.maximum(counts - 1, 0) // size) - 1
  place = jnp.where(rank < size, group, behind) * size + rank
  # One group of all examples leaves the most.
  ends = num_groups * size, (num_groups + max(1, (batch_size - 1) // size)) * size
  place = jnp.where(group < num_groups, place, ends[1])
  slots = jnp.full(ends[1], batch_size, jnp.int32).at[place].set(order, mode="drop")

  def filled(slots):
    slots = slots.reshape(-1, size)
    valid = slots < batch_size
    # An example of the same group, where there is none: no other's NaN gets in.
    examples = jnp.minimum(jnp.where(valid, slots, slots[:, :1]), batch_size - 1)
    return Blocks(examples, valid, jnp.where(valid[:, 0], labels[examples[:, 0]], num_groups))

  return filled(slots[: ends[0]]), filled(slots[ends[0] :])
