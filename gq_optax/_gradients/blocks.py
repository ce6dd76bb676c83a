# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""A batch cut into blocks of one static size, each of examples of one group."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core


class Blocks(NamedTuple):
  """Which examples each block holds.

  Attributes:
    counts: int32 `[K]`, examples in each group.
    order: int32 `[B]`, the examples sorted by group, those of no group last.
    first: int32 `[K]`, where each group starts in `order`.
    last: int32 `[K]`, how many blocks the groups up to this one need together.
  """

  counts: jax.Array
  order: jax.Array
  first: jax.Array
  last: jax.Array


def cut(labels: jax.Array, num_groups: int, block_size: int) -> Blocks:
  """Sorts a batch by group; a label outside `[0, K)` belongs to none."""
  inside = jnp.logical_and(labels >= 0, labels < num_groups)
  labels = jnp.where(inside, labels, num_groups).astype(jnp.int32)
  member = labels[:, None] == jnp.arange(num_groups, dtype=jnp.int32)[None]
  counts = jnp.sum(member, axis=0, dtype=jnp.int32)
  ends = jnp.cumsum(counts, dtype=jnp.int32)
  needed = (counts + block_size - 1) // block_size
  order = jnp.argsort(labels, stable=True).astype(jnp.int32)
  return Blocks(counts, order, ends - counts, jnp.cumsum(needed, dtype=jnp.int32))


def most_blocks(batch_size: int, num_groups: int, block_size: int) -> int:
  """Blocks enough for any sizes of the groups."""
  # Worst is one example in each group, and all others in full blocks.
  return num_groups + max(batch_size - num_groups, 0) // block_size


def members(blocks: Blocks) -> jax.Array:
  """Which examples of the batch are counted in a group, bool `[B]`."""
  place = jnp.arange(blocks.order.shape[0], dtype=jnp.int32)[None]
  first = blocks.first[:, None]
  inside = jnp.logical_and(place >= first, place < first + blocks.counts[:, None])
  return jnp.zeros(place.shape[1], bool).at[blocks.order].set(jnp.any(inside, axis=0))


def portion(blocks: Blocks, size: int, *, full: bool) -> tuple[Blocks, Blocks]:
  """The blocks of `size` in what is left, only full ones or all; and what they leave."""
  number = blocks.counts // size if full else (blocks.counts + size - 1) // size
  taken = jnp.minimum(number * size, blocks.counts)
  rest = blocks._replace(counts=blocks.counts - taken, first=blocks.first + taken)
  return blocks._replace(last=jnp.cumsum(number, dtype=jnp.int32)), rest


def firsts(blocks: Blocks, size: int) -> tuple[jax.Array, jax.Array, Blocks]:
  """The first block of every group: examples `[K, size]`, which of them count, and what is left."""
  steps = jnp.arange(size, dtype=jnp.int32)[None]
  valid = steps < blocks.counts[:, None]
  place = blocks.first[:, None] + jnp.where(valid, steps, 0)
  taken = jnp.minimum(blocks.counts, size)
  rest = blocks._replace(counts=blocks.counts - taken, first=blocks.first + taken)
  return blocks.order[jnp.minimum(place, blocks.order.shape[0] - 1)], valid, rest


def block(blocks: Blocks, number: jax.Array, size: int) -> tuple[jax.Array, jax.Array, jax.Array]:
  """One block.

  Args:
    blocks: a cut batch.
    number: int32 `[]`.
    size: examples of a block.

  Returns:
    Its group `[]`, or K if no example counts; the examples `[size]`; which of them count `[size]`.
  """
  num_groups = blocks.counts.shape[0]
  owner = jnp.searchsorted(blocks.last, number, side="right").astype(jnp.int32)
  group = jnp.minimum(owner, num_groups - 1)
  before = jnp.where(group > 0, blocks.last[group - 1], 0)
  start = blocks.first[group] + (number - before) * size
  place = start + jnp.arange(size, dtype=jnp.int32)
  end = blocks.first[group] + blocks.counts[group]
  valid = jnp.logical_and(place < end, owner < num_groups)
  owner = jnp.where(valid[0], owner, num_groups)
  # A block that is not full repeats an example of its own group: no other's NaN gets in.
  place = jnp.where(valid, place, jnp.minimum(start, blocks.order.shape[0] - 1))
  return owner, blocks.order[place], valid


# Multiplications of each weight per example that make a gradient's work outweigh writing it.
_OFTEN = 8.0


def default_size(work: "Work", batch_size: int, num_groups: int) -> int:
  """The block size that measured best: small where each weight works often for an example.

  Small blocks waste little on groups that do not fill them. But each block makes a whole gradient,
  and where a weight is used only once per example, as in dense layers, that is what costs.
  """
  parts = 4 * num_groups if work.reuse >= _OFTEN else num_groups
  return max(1, -(-batch_size // parts))


def default_design(work: "Work") -> str:
  """The design that measured best on CPU; on accelerators loops are natural."""
  if work.reuse < _OFTEN:
    return "batched"
  return "unrolled" if work.convolves and jax.default_backend() == "cpu" else "loop"


class Work(NamedTuple):
  """What one example asks of a network.

  Attributes:
    reuse: how often a weight is multiplied for an example, on average.
    convolves: are there convolutions in it?
  """

  reuse: float
  convolves: bool


def work(jaxpr: core.Jaxpr, num_params: int) -> Work:
  """Counts multiplications, those in nested functions and loops included."""
  products, convolves = _count(jaxpr)
  return Work(products / max(num_params, 1), convolves)


def _count(jaxpr: Any) -> tuple[float, bool]:
  products, convolves = 0.0, False
  for eqn in jaxpr.eqns:
    name, params = eqn.primitive.name, eqn.params
    out = eqn.outvars[0].aval
    if name == "dot_general":
      contracting = params["dimension_numbers"][0][0]
      products += out.size * math.prod(eqn.invars[0].aval.shape[d] for d in contracting)
    elif name == "conv_general_dilated":
      kernel, spec = eqn.invars[1].aval, params["dimension_numbers"].rhs_spec
      products += out.size * kernel.size / kernel.shape[spec[0]]
      convolves = True
    times = params.get("length", 1) if name == "scan" else 1
    for inner in jax.tree.leaves(
      list(params.values()), is_leaf=lambda x: isinstance(x, core.Jaxpr | core.ClosedJaxpr)
    ):
      if isinstance(inner, core.Jaxpr | core.ClosedJaxpr):
        inner_products, inner_convolves = _count(getattr(inner, "jaxpr", inner))
        products += times * inner_products
        convolves |= inner_convolves
  return products, convolves
