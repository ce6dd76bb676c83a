# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Norms of whole gradients that neither vanish nor overflow, and the test for NaN and Inf.

With an axis name they are of what all devices hold together.
"""

import functools
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gq_optax import _axes

# Up to this size leaves of a kind are looked at together, so many of them at once. Alone, each bias
# and scale would take a reduction or two: most of the kernels of a step, and of their compilation.
# Larger leaves stay apart, as they may be spread over devices in different ways.
_SMALL, _TOGETHER = 2**14, 32


def families(*trees: list[jax.Array]) -> list[list[int]]:
  """The numbers of the leaves that are looked at together; they are alike in each of the lists."""
  found: dict[Any, list[int]] = {}
  for n, leaves in enumerate(zip(*trees, strict=True)):
    small = max(x.size for x in leaves) <= _SMALL
    found.setdefault(tuple(str(jax.typeof(x)) for x in leaves) if small else n, []).append(n)
  cut = lambda numbers: range(0, len(numbers), _TOGETHER)
  return [numbers[i : i + _TOGETHER] for numbers in found.values() for i in cut(numbers)]


def pick(leaves: list[jax.Array], numbers: list[int]) -> list[jax.Array]:
  """The leaves with these numbers."""
  return [leaves[n] for n in numbers]


@jax.jit  # leaves of one shape are traced once
def _largest(family):
  # NaN passes through a maximum: several times cheaper than `isfinite` and `all`.
  return jnp.max(functools.reduce(jnp.maximum, map(jnp.abs, family)), initial=0)


def add_rows(rows: list[tuple[jax.Array, ...]]) -> jax.Array:
  """The sum of rows of three scalars, float32 `[3]`; zeros without rows."""
  nothing = (jnp.zeros([], jnp.float32),) * 3
  return jnp.stack([jnp.sum(jnp.stack(column)) for column in zip(nothing, *rows, strict=True)])


def all_finite(leaves: list[jax.Array], axis_name: _axes.AxisName | None = None) -> jax.Array:
  """Is every number finite?"""
  # Some narrow dtypes have no infinity to compare with; in them overflow is NaN.
  sizes = [_largest(pick(leaves, numbers)) for numbers in families(leaves)]
  finite = [size <= jnp.finfo(size.dtype).max.astype(size.dtype) for size in sizes]
  all_of_them = jnp.all(jnp.stack(finite)) if finite else jnp.asarray(True)
  # XLA computes cheap values again in each kernel that reads them, here one kernel for each leaf.
  # It does not do so for a root.
  once = jnp.sqrt(all_of_them.astype(jnp.float32)) > 0.5
  return _axes.everywhere(once, axis_name)


def root(square: jax.Array) -> jax.Array:
  """The square root, whose derivative at 0 counts as 0: where all is equal, nothing spreads."""
  positive = square > 0.0
  return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1.0)), square)


class Norms(NamedTuple):
  """Norms of raw gradient and update, each in a unit in which squares are harmless; float32 `[]`.

  Attributes:
    raw: of the raw mean gradient.
    update: of the weighted update.
    product: the scalar product of both.
    octaves: by how many the unit of `raw` is larger than that of `update`.
  """

  raw: jax.Array
  update: jax.Array
  product: jax.Array
  octaves: jax.Array


def norms(
  raw: list[jax.Array], update: list[jax.Array], axis_name: _axes.AxisName | None = None
) -> Norms:
  """Measures raw gradient and update."""
  # Of one unit for both XLA on CPU writes the scaled update to memory, for another pass over it.
  sizes = _axes.largest(jnp.stack([_size(raw), _size(update)]), axis_name)
  octaves = jnp.round(jnp.log2(jnp.clip(sizes, 2.0**-120, 2.0**120)))
  # A power of two is exact, and as an exponential it is computed once, as said in `all_finite`.
  inverses = jnp.exp2(-octaves)
  parts = [_products(pick(raw, n), pick(update, n), inverses) for n in families(raw, update)]
  squares = _axes.total(add_rows(parts), axis_name)
  # No root of 0, for its derivative's sake. In these units nothing but zero is so short.
  lengths = jnp.sqrt(squares[:2] + 1e-37)
  lengths = jnp.where(lengths > 1e-9, lengths, 0.0)
  return Norms(lengths[0], lengths[1], squares[2], octaves[0] - octaves[1])


def _size(leaves):
  sizes = [_largest(pick(leaves, n)).astype(jnp.float32) for n in families(leaves)]
  return jnp.max(jnp.stack([jnp.zeros([], jnp.float32), *sizes]))


@jax.jit
def _products(raws, updates, inverses):
  def products(raw, update):
    raw, update = (x.astype(jnp.float32) * i for x, i in zip((raw, update), inverses, strict=True))
    return [jnp.square(raw), jnp.square(update), raw * update]

  return sum_each(map(products, raws, updates))


def sum_each(leaves: Iterable[list[jax.Array]]) -> tuple[jax.Array, ...]:
  """The sums of arrays of one shape: leaf by leaf added up first, then over all coordinates."""
  add = lambda some, more: list(map(jnp.add, some, more))
  return tuple(jnp.sum(x, dtype=jnp.float32) for x in functools.reduce(add, leaves))


def factor(update_norm: str | jax.typing.ArrayLike, found: Norms) -> jax.Array:
  """What brings the update to the norm of `raw` ("match"), or to at most so many times that."""
  match = found.raw / jnp.where(found.update > 0.0, found.update, 1.0) * jnp.exp2(found.octaves)
  match = jnp.where(jnp.logical_and(found.update > 0.0, jnp.isfinite(match)), match, 1.0)
  if not isinstance(update_norm, str):
    match = jnp.minimum(1.0, jnp.maximum(jnp.asarray(update_norm, jnp.float32), 0.0) * match)
  return match
