# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Blocks of examples of one group, and the sums of what is left open over each group."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gq_optax import _dtypes
from gq_optax._gradients import linear


class Blocks(NamedTuple):
  """Examples by blocks; those of a block are of one group.

  Attributes:
    rows: int32 `[blocks, size]`, examples. A block that is not full repeats one of its own.
    valid: bool `[blocks, size]`, which of them count.
    owner: int32 `[blocks]`, the group; K if the block is empty.
  """

  rows: jax.Array
  valid: jax.Array
  owner: jax.Array


def members(labels: jax.Array, num_groups: int) -> jax.Array:
  """Who belongs to which group, bool `[K, B]`."""
  return labels[None] == jnp.arange(num_groups, dtype=jnp.int32)[:, None]


def take(rows: jax.Array) -> Callable[[jax.Array], jax.Array]:
  """Picks rows that are known to be there."""
  return lambda x: x.at[rows].get(mode="promise_in_bounds")


def masked(rows: jax.Array, valid: jax.Array) -> jax.Array:
  """Rows with zeros in the place of those that do not count, whatever stands there."""
  return jnp.where(valid.reshape(-1, *(1,) * (rows.ndim - 1)), rows, jnp.zeros((), rows.dtype))


def sums(part: linear.Part, labels: jax.Array, num_groups: int, size: int) -> list[jax.Array]:
  """The sums of a part over the examples of each group, `[K, *p]` in float32 or wider."""
  # Small blocks waste little on groups that do not fill them. But each makes a whole gradient, and
  # where an example uses a weight only once, writing that is what costs.
  size = size if part.often else max(1, -(-len(labels) // num_groups))
  first, others = cut(labels, num_groups, size)

  def block(rows, valid):
    some = valid[0]  # of an empty block all examples are made up
    # As flat rows: a GPU would otherwise transpose what it gathers, by strided reads.
    flat = lambda x: take(rows)(x.reshape(len(x), math.prod(x.shape[1:])))
    shaped = lambda flat, x: flat.reshape(size, *x.shape[1:])
    held = lambda x: flat(x) if part.whole else jnp.where(some, flat(x), jnp.ones((), x.dtype))
    kept = lambda x: shaped(held(x), x)
    only = lambda x: shaped(masked(flat(x), valid), x)
    sums = part.contract(list(map(kept, part.kept)), list(map(only, part.cotangents)))
    if part.whole:
      sums = [jnp.where(some, s, jnp.zeros_like(s)) for s in sums]
    return [s.astype(_dtypes.at_least_float32(s.dtype)) for s in sums]

  def together(sums):
    more = jax.vmap(block)(others.rows, others.valid)
    to = jnp.minimum(others.owner, num_groups - 1)  # an empty block adds zeros
    return [s.at[to].add(m) for s, m in zip(sums, more, strict=True)]

  def one_by_one(sums):
    def add(j, sums):
      more = block(others.rows[j], others.valid[j])
      return [s.at[others.owner[j]].add(m) for s, m in zip(sums, more, strict=True)]

    return jax.lax.fori_loop(0, jnp.sum(others.owner < num_groups), add, sums)

  begun = jax.vmap(block)(first.rows, first.valid)
  # On CPU memory is slow: only the blocks that are there, in place. Accelerators are slow to loop.
  return jax.lax.platform_dependent(begun, cpu=one_by_one, default=together)


def by_label(labels: jax.Array, num_groups: int) -> jax.Array:
  """The rows of labels up to K, int32 `[B]`: by their labels, then as they come."""
  rows = jnp.arange(len(labels), dtype=jnp.int32)
  if (num_groups + 1) * len(labels) > jnp.iinfo(jnp.int32).max:
    return jnp.argsort(labels, stable=True).astype(jnp.int32)
  # Label and row as one number: a CPU sorts one array much faster than two.
  return jnp.sort(labels * len(labels) + rows) % len(labels)


def cut(labels: jax.Array, num_groups: int, size: int) -> tuple[Blocks, Blocks]:
  """The first block of each group, and blocks enough for what is left of groups of any sizes."""
  batch_size = len(labels)
  counts = jnp.sum(members(labels, num_groups), axis=1, dtype=jnp.int32)
  most = range(1, min(num_groups, batch_size // (size + 1)) + 1)  # groups that have a second block
  number = max((n + (batch_size - n * (size + 1)) // size for n in most), default=1)
  order = by_label(labels, num_groups)
  group = labels[order]
  before = lambda n: jnp.pad(jnp.cumsum(n, dtype=jnp.int32), (1, 0))[group]
  rank = jnp.arange(batch_size, dtype=jnp.int32) - before(counts)
  behind = before(jnp.maximum(counts - 1, 0) // size) * size + rank - size
  ends = num_groups * size, (num_groups + number) * size
  place = jnp.where(rank < size, group * size + rank, ends[0] + behind)
  place = jnp.where(group < num_groups, place, ends[1])
  slots = jnp.full(ends[1] + 1, batch_size, jnp.int32).at[place].set(order)[: ends[1]]

  def filled(slots):
    slots = slots.reshape(-1, size)
    valid = slots < batch_size
    # An example of the same group, where there is none: no other's NaN gets in.
    rows = jnp.minimum(jnp.where(valid, slots, slots[:, :1]), batch_size - 1)
    return Blocks(rows, valid, jnp.where(valid[:, 0], labels[rows[:, 0]], num_groups))

  return filled(slots[: ends[0]]), filled(slots[ends[0] :])
