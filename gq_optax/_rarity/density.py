# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""How many examples resemble this one: kernel sums, and the weights that come of them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gq_optax._rarity import recent

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


def distances(x: jax.Array, rows: jax.Array) -> jax.Array:
  """Squared distances of every row of x `[n, d]` to every one of the rows, `[n, r]`."""
  product = jnp.einsum("nd,rd->nr", x, rows, precision=jax.lax.Precision.HIGHEST)
  own, others = (jnp.sum(jnp.square(part), axis=1) for part in (x, rows))
  return jnp.maximum(own[:, None] + others[None] - 2.0 * product, 0.0)


def sample(x: jax.Array, live: jax.Array, order: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Live rows at even stride, over the whole of a batch that may be sorted, and which there are.

  Args:
    x: `[n, d]`.
    live: bool `[n]`.
    order: int32 `[n]` or longer, the live rows first.
  """
  size = min(len(x), _SAMPLE)
  number = jnp.sum(live, dtype=jnp.int32)
  rows = jnp.minimum(order[recent.stride(number, size)], len(x) - 1)
  return x[rows], jnp.arange(size, dtype=jnp.int32) < number


def moments(
  x: jax.Array, rows: jax.Array, live_x: jax.Array, live_rows: jax.Array
) -> tuple[jax.Array, jax.Array]:
  r"""Sums over pairs of live rows of :math:`d^2` and :math:`d^3`, for `reach`."""
  live = jnp.logical_and(live_x[:, None], live_rows[None])
  d = jnp.where(live, distances(x, rows), 0.0)
  square = jnp.square(d)
  return jnp.sum(square), jnp.sum(square * d)


def reach(squares: jax.Array, cubes: jax.Array, bandwidth: jax.Array, length: jax.Array):
  r"""The distance :math:`h \sum d^3 / \sum d^2` at which two examples begin to differ.

  The quotient is the mean distance of a pair that is drawn with a chance of :math:`d^2`. The plain
  mean over pairs would shrink to the width of one kind where nearly all examples are of that kind.

  Args:
    squares: of `moments`.
    cubes: of `moments`.
    bandwidth: h.
    length: the largest squared length of a row.
  """
  wide = jnp.where(squares > 0.0, cubes / jnp.where(squares > 0.0, squares, 1.0), 0.0)
  reach = bandwidth * wide
  floor = _SAME * length
  return jnp.where(reach > floor, reach, jnp.where(floor > 0.0, floor, 1.0))


def similarity(x: jax.Array, rows: jax.Array, reach: jax.Array) -> jax.Array:
  """How alike rows are, `[n, r]`: 1 where equal, .61 at the reach, .01 at three times it."""
  return jnp.exp(-0.5 * jnp.square(distances(x, rows) / reach))


def neighbours(
  x: jax.Array,
  rows: jax.Array,
  live: jax.Array,
  reach: jax.Array,
  losses: jax.Array | None = None,
  itself: jax.Array | None = None,
) -> jax.Array:
  """The live rows that resemble each row of x, `[n, 1]`, and the sum of their losses, `[n, 2]`.

  Args:
    x: `[n, d]`.
    rows: `[r, d]`.
    live: bool `[r]`.
    reach: float32 `[]`.
    losses: float32 `[r]`, or None.
    itself: int32 `[n]`, the row that each row of x is, and that is not its neighbour; or None.
  """
  live = live[None]
  if itself is not None:
    live = jnp.logical_and(live, itself[:, None] != jnp.arange(len(rows), dtype=jnp.int32)[None])
  alike = jnp.where(live, similarity(x, rows, reach), 0.0)
  if losses is None:
    return jnp.sum(alike, axis=1, keepdims=True)
  columns = jnp.stack([jnp.ones_like(losses), losses], axis=1)
  return jnp.einsum("nr,rc->nc", alike, columns, precision=jax.lax.Precision.HIGHEST)


def weigh(
  found: jax.Array,
  counted: jax.Array,
  neighbours: jax.Array,
  exponent: jax.Array,
  loss_ratio: jax.Array | None = None,
) -> jax.Array:
  r"""Weights before their bounds: :math:`1 + r (u - 1)` out of the neighbours found, `[n]`.

  Args:
    found: float32 `[n]`, s.
    counted: bool `[n]`, whose mean weight is to be 1.
    neighbours: m.
    exponent: a.
    loss_ratio: float32 `[n]`, a factor of u, or None.
  """
  scarce = jnp.maximum(found + neighbours, 0.5) ** -exponent
  if loss_ratio is not None:
    scarce = scarce * loss_ratio
  # An example without neighbours is no kind, and may be a mistake: it counts as the mean does.
  parts = jnp.where(found > 0.0, 0.5 * neighbours / jnp.where(found > 0.0, found, 1.0), jnp.inf)
  trust = 1.0 / (1.0 + jnp.square(parts))
  trust = jnp.where(counted, trust, 0.0)
  total = jnp.sum(trust * scarce)
  unit = jnp.sum(trust) / jnp.where(total > 0.0, total, 1.0)
  return 1.0 + trust * (unit * scarce - 1.0)


def loss_ratio(found: jax.Array, mean: jax.Array) -> jax.Array:
  """The loss around each example over the mean loss, with one neighbour of mean loss added.

  Args:
    found: float32 `[n, 2]`, of `neighbours`.
    mean: float32 `[]`, of the losses of all examples.
  """
  around = (found[:, 1] + mean) / (found[:, 0] + 1.0)
  ratio = jnp.clip(around / jnp.where(mean > 0.0, mean, 1.0), 0.02, 50.0)
  return jnp.where(mean > 0.0, ratio, 1.0)


def effective(weights: jax.Array) -> jax.Array:
  """As many examples of equal weight give a mean as certain (Kish)."""
  squares = jnp.sum(jnp.square(weights))
  return jnp.square(jnp.sum(weights)) / jnp.where(squares > 0.0, squares, 1.0)
