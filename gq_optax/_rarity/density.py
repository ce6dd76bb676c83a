# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""How many examples resemble this one: kernel sums, and the weights that come of them."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gq_optax._rarity import lloyd

Reduce = Callable[[jax.Array], jax.Array]

# Of the largest squared length: what lies closer than this may be rounding, and counts as equal.
_SAME = 1e-4
# Rows of the batch whose distances set the scale; all pairs would cost as much as the kernel.
_SAMPLE = 64
# Up to so many rows are compared with all others at once; more of them in blocks, whose pairs are
# as many as these have among themselves. A GPU waits for the host at every turn of a loop.
_AT_ONCE = 4096


def in_blocks(compare: Callable[..., Any], rows: Any, others: int) -> Any:
  """`compare(*rows)` of rows `[n, ...]` with so many others, few at a time where n is large."""
  size = max(1, _AT_ONCE * _AT_ONCE // others)
  if len(rows[0]) <= max(_AT_ONCE, size):
    return compare(*rows)
  one = lambda row: jax.tree.map(lambda x: x[0], compare(*(part[None] for part in row)))
  return jax.lax.map(one, rows, batch_size=size)


def centred(
  rows: jax.Array,
  live: jax.Array,
  counted: jax.Array,
  metric: str,
  total: Reduce = lambda part: part,
  most: Reduce = jnp.max,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Rows whose squares neither overflow nor cancel, their unit, and the largest squared length.

  Args:
    rows: `[r, d]`, 0 where not live; of length one under the cosine metric.
    live: bool `[r]`.
    counted: bool `[r]`, the live rows that set the unit, and whose mean becomes 0.
    metric: "cosine" or "euclidean".
    total: the sum over all devices.
    most: the maximum, over all devices.
  """
  if metric == "cosine":
    return rows, jnp.ones([], jnp.float32), jnp.ones([], jnp.float32)
  unit = lloyd.power_of_two(most(jnp.where(counted[:, None], jnp.abs(rows), 0.0)))
  rows = jnp.clip(rows / unit, -lloyd.FAR, lloyd.FAR)
  number = jnp.maximum(total(jnp.sum(counted, dtype=jnp.float32)), 1.0)
  # Twice: what rounding leaves of a far mean may be many times as far as the examples are apart.
  for _ in range(2):
    mean = total(jnp.sum(jnp.where(counted[:, None], rows, 0.0), axis=0)) / number
    rows = jnp.where(live[:, None], rows - mean[None], 0.0)
  return rows, unit, most(jnp.sum(jnp.square(rows), axis=1))


def distances(x: jax.Array, rows: jax.Array) -> jax.Array:
  """Squared distances of every row of x `[n, d]` to every one of the rows, `[n, r]`."""
  product = jnp.einsum("nd,rd->nr", x, rows, precision=jax.lax.Precision.HIGHEST)
  own, others = (jnp.sum(jnp.square(part), axis=1) for part in (x, rows))
  return jnp.maximum(own[:, None] + others[None] - 2.0 * product, 0.0)


def live_first(live: jax.Array) -> jax.Array:
  """The places of the live rows in their order, then those of the others, int32 `[n]`."""
  return jnp.argsort(jnp.logical_not(live), stable=True).astype(jnp.int32)


def stride(number: jax.Array, size: int) -> jax.Array:
  """The first `size` places, int32; at even stride below `number` where that is more."""
  place = jnp.arange(size, dtype=jnp.int32)
  # floor(place * number / size), without a product that could overflow.
  strided = place * (number // size) + (place * (number % size)) // size
  return jnp.where(number > size, strided, place)


def squared_reach(
  x: jax.Array,
  live_x: jax.Array,
  order: jax.Array,
  others: Any,
  bandwidth: jax.Array,
  largest: jax.Array,
  total: Reduce,
) -> jax.Array:
  r"""The squared distance :math:`h \sum d^3 / \sum d^2` at which two examples begin to differ.

  The quotient is the mean distance of a pair that is drawn with a chance of :math:`d^2`. The plain
  mean over pairs would shrink to the width of one kind where nearly all examples are of that kind.
  The pairs are those of a sample of x, at even stride since a batch may be sorted, with others.

  Args:
    x: `[n, d]`.
    live_x: bool `[n]`.
    order: int32, `live_first` of x, or of x and more behind it.
    others: pairs of rows `[r, d]` and bool `[r]`, which of them are live.
    bandwidth: h.
    largest: the largest squared length of a row.
    total: the sum over all devices.
  """
  size, number = min(len(x), _SAMPLE), jnp.sum(live_x, dtype=jnp.int32)
  places = jnp.minimum(order[stride(number, size)], len(x) - 1)
  picked = (jnp.arange(size, dtype=jnp.int32) < number)[:, None]
  apart = [jnp.where(picked & live[None], distances(x[places], rows), 0.0) for rows, live in others]
  power = lambda p: total(functools.reduce(jnp.add, [jnp.sum(d**p) for d in apart]))
  squares, cubes = power(2), power(3)
  wide = bandwidth * (cubes / jnp.where(squares > 0.0, squares, 1.0))
  floor = _SAME * largest
  return jnp.where(wide > floor, wide, jnp.where(floor > 0.0, floor, 1.0))


def neighbours(
  x: jax.Array,
  ids: jax.Array,
  rows: jax.Array,
  live: jax.Array,
  ids_of_rows: jax.Array,
  squared_reach: jax.Array,
  losses: jax.Array | None = None,
) -> jax.Array:
  """The live rows that resemble each row of x, `[n, 1]`, and the sum of their losses, `[n, 2]`.

  The similarity is 1 for equal rows, .61 at the squared reach, .01 at three times it.

  Args:
    x: `[n, d]`.
    ids: int32 `[n]`; a row of the same id is the row itself, and not its neighbour.
    rows: `[r, d]`.
    live: bool `[r]`.
    ids_of_rows: int32 `[r]`.
    squared_reach: float32 `[]`.
    losses: float32 `[r]`, or None.
  """
  others = jnp.logical_and(live[None], ids[:, None] != ids_of_rows[None])
  alike = jnp.exp(-0.5 * jnp.square(distances(x, rows) / squared_reach))
  alike = jnp.where(others, alike, 0.0)
  parts = [alike] if losses is None else [alike, alike * losses[None]]
  return jnp.stack([jnp.sum(part, axis=1) for part in parts], axis=1)


def loss_ratio(found: jax.Array, mean: jax.Array) -> jax.Array:
  """The loss around each example over the mean loss, with one neighbour of mean loss added.

  Args:
    found: float32 `[n, 2]`, of `neighbours`.
    mean: float32 `[]`, of the losses of all examples.
  """
  around = (found[:, 1] + mean) / (found[:, 0] + 1.0)
  ratio = jnp.clip(around / jnp.where(mean > 0.0, mean, 1.0), 0.02, 50.0)
  return jnp.where(mean > 0.0, ratio, 1.0)


def weigh(
  found: jax.Array,
  live: jax.Array,
  neighbours: jax.Array,
  exponent: jax.Array | float = 1.0,
  ratio: jax.Array | float = 1.0,
) -> jax.Array:
  r"""Weights before their bounds: :math:`1 + r (u - 1)` out of the neighbours found, `[n]`.

  Args:
    found: float32 `[n]`, s.
    live: bool `[n]`, whose mean weight is to be 1.
    neighbours: m.
    exponent: a.
    ratio: float32 `[n]` or `[]`, a factor of u.
  """
  scarce = jnp.maximum(found + neighbours, 0.5) ** -exponent * ratio
  # An example without neighbours is no kind, and may be a mistake: it counts as the mean does.
  there = jnp.logical_and(live, found > 0.0)
  parts = 0.5 * neighbours / jnp.where(there, found, 1.0)
  trust = jnp.where(there, 1.0 / (1.0 + jnp.square(parts)), 0.0)
  total = jnp.sum(trust * scarce)
  unit = jnp.sum(trust) / jnp.where(total > 0.0, total, 1.0)
  return 1.0 + trust * (unit * scarce - 1.0)
