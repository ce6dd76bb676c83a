# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The pieces of K-means: seeding, assignment, means, and the search for far rows."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gq_optax import _axes, _masks

# Of a row's squared length: a squared distance of less is the rounding of a mean of equal rows.
_SAME = 1e-12
# Of the squared lengths of two rows: an expanded squared distance of less is too coarse.
_ROUNDED = 1e-4
# Squares of this, and their sums over any dimension met, are finite in float32.
FAR = 1e15
# Up to so many iterations stand one after the other. Five compile as fast as a loop; ten take half
# a second more, and run no faster.
_UNROLLED = 5
# Turns of the seeding that stand one after the other on a GPU.
_UNROLLED_SEEDS = 16
# Among candidates at most so many seeds are chosen of one draw, and at least so many draws made.
# With half as many draws some runs lose a rare kind; more seeds of a draw take more comparisons.
_AT_ONCE, _DRAWS = 4, 16
# From so many rows on, seeds are found among candidates: this many rounds of 2 K of them. Two
# rounds lose rare kinds: 16 % more inertia after ten iterations where three lose nothing.
_MANY, _ROUNDS = 2048, 3


def power_of_two(largest):
  """The power of two just above `largest`, or 1 for 0."""
  exponent = jnp.clip(jnp.frexp(largest)[1], -120, 120)
  return jnp.ldexp(jnp.ones_like(largest), exponent)


class Frame(NamedTuple):
  """The units of the rows that are computed with: `x / scale - center`.

  Attributes:
    center: float32 `[d]`, in scaled units; 0 under the cosine metric.
    scale: float32 `[]`, a power of two; 1 under the cosine metric.
  """

  center: jax.Array
  scale: jax.Array


def enter(
  x: jax.Array, weight: jax.Array, metric: str, frame: Frame | None = None
) -> tuple[jax.Array, jax.Array, Frame]:
  """Rows in their frame or in a given one, their weight, and the frame.

  Under the cosine metric rows get length one, under the Euclidean one they are centred and scaled
  (by a power of two, which is exact): squares neither cancel against a common offset nor overflow.
  What is not finite, or has no direction under the cosine metric, gets weight 0.

  Args:
    x: float32 `[n, d]`.
    weight: float32 `[n]`, at most 1.
    metric: "euclidean" or "cosine".
    frame: that of other rows; None makes one, in which rows without weight have no say.
  """
  if metric == "cosine":
    x, lengths = unit_rows(x)
    frame = Frame(jnp.zeros_like(x[0]), jnp.ones_like(x[0, 0]))
    return x, jnp.where(lengths > 0.0, weight, 0.0), frame
  largest = jnp.max(jnp.abs(x), axis=1)
  finite = jnp.isfinite(largest)  # with a NaN in it, the largest is NaN
  x, largest = jnp.where(finite[:, None], x, 0.0), jnp.where(finite, largest, 0.0)
  weight = jnp.where(finite, weight, 0.0)
  if frame is None:
    scale = power_of_two(jnp.max(jnp.where(weight > 0.0, largest, 0.0)))
    sums = jnp.einsum("n,nd->d", weight / scale, x, precision=jax.lax.Precision.HIGHEST)
    total = jnp.sum(weight)
    # The mean, but on a coarse grid: the shift is then exact for data of few digits, and ties stay.
    center = jnp.round(sums / jnp.where(total > 0.0, total, 1.0) * 2.0**11) * 2.0**-11
    frame = Frame(center, scale)
  # A row without weight may be far from all others: it stays far, but its square does not overflow.
  shrink = jnp.minimum(1.0, FAR / jnp.maximum(largest / frame.scale, 1.0)) / frame.scale
  return x * shrink[:, None] - frame.center[None], weight, frame


def enter_centroids(frame: Frame, centroids: jax.Array) -> jax.Array:
  """Centroids in the frame of other rows; one far from these stays far, without overflow."""
  return jnp.clip(centroids * (1.0 / frame.scale) - frame.center[None], -FAR, FAR)


def leave(frame: Frame, rows: jax.Array) -> jax.Array:
  """The way back out of the frame."""
  return (rows + frame.center[None]) * frame.scale


def iterations(
  x: jax.Array,
  weight: jax.Array,
  centroids: jax.Array,
  metric: str,
  num_iters: int,
  dead: jax.Array | bool = True,
) -> tuple[jax.Array, jax.Array]:
  """Lloyd iterations `-> (centroids, labels)`; the labels are -1 for no iteration.

  Args:
    x: `[n, d]`, in the frame.
    weight: `[n]`, at most 1.
    centroids: `[K, d]`, in the frame.
    metric: "euclidean" or "cosine".
    num_iters: how many.
    dead: bool `[K]`, or one for all of them: which groups take another row when they are empty.
  """

  def step(_, carry):
    centroids, _ = carry
    labels = nearest(x, centroids, metric)
    if dead is not False:
      labels = reseed(x, labels, weight, centroids, dead)
    return means(x, labels, weight, centroids, metric), labels

  carry = centroids, jnp.full(x.shape[0], -1, jnp.int32)
  if num_iters > _UNROLLED:
    return jax.lax.fori_loop(0, num_iters, step, _axes.alike(carry, x, weight, dead))
  for i in range(num_iters):
    carry = step(i, carry)
  return carry


def unit_rows(x: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Rows of length one, and how long they were; both 0 for zeros and for what is not finite."""
  largest = jnp.max(jnp.abs(x), axis=1)
  there = jnp.logical_and(jnp.isfinite(largest), largest > 0.0)
  # In units of the largest of each row no square overflows.
  x = jnp.where(there[:, None], x, 0.0) / jnp.where(there, largest, 1.0)[:, None]
  length = jnp.sqrt(jnp.sum(jnp.square(x), axis=1))
  there = length > 0.0  # NaN where the largest is too small to divide by
  units = jnp.where(there[:, None], x / jnp.where(there, length, 1.0)[:, None], 0.0)
  return units, jnp.where(there, length * jnp.minimum(largest, 1e30), 0.0)


def nearest(x, centroids, metric):
  """The nearest centroid of every row (lowest index on ties)."""
  relative = -2.0 * products(centroids, x)
  if metric == "euclidean":
    relative += jnp.sum(jnp.square(centroids), axis=1)[:, None]
  return jnp.argmin(relative, axis=0).astype(jnp.int32)


def products(rows, x):
  """Every row times every row of x, `[rows, n]`."""
  product = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
  wide = functools.partial(product, "kd,nd->kn")
  # A CPU puts the second factor in another order first. That should be the few rows, not the many.
  tall = lambda rows, x: jax.lax.optimization_barrier(product("nd,kd->nk", x, rows)).T
  return jax.lax.platform_dependent(rows, x, cpu=tall, default=wide)


def distance(x, labels, centroids):
  """Squared, to the centroid of every row; the expanded square would cancel close to it."""
  return jnp.sum(jnp.square(x - centroids[labels]), axis=1)


def reseed(x, labels, weight, centroids, dead):
  """Gives each empty group the farthest row that is still free; ties go to the lowest index.

  No loop, and on accelerators no branch, though most often no group is empty: a device that waits
  for the answer loses more. A CPU does not wait. There a branch saves a pass over the rows, except
  under `vmap`, where both sides are run.
  """
  num_clusters = len(centroids)
  member = _masks.members(labels, num_clusters) & (weight > 0.0)[None]
  empty = jnp.logical_and(jnp.logical_not(jnp.any(member, axis=1)), dead)

  def move(labels):
    away = distance(x, labels, centroids)
    apart = away > _SAME * jnp.sum(jnp.square(x), axis=1)
    far, rows = farthest(jnp.where(apart & (weight > 0.0), away, 0.0), min(num_clusters, len(x)))
    # The j-th empty group takes the j-th of those rows, if there is one.
    turn = jnp.cumsum(empty, dtype=jnp.int32) - 1
    place = jnp.clip(turn, 0, len(rows) - 1)
    takes = empty & (turn < len(rows)) & (far[place] > 0.0)
    # Compared, not scattered: a scatter is a loop on some devices.
    places = jnp.arange(len(labels), dtype=jnp.int32)
    groups = jnp.arange(num_clusters, dtype=labels.dtype)
    taken = takes[:, None] & (rows[place][:, None] == places[None])
    taker = jnp.max(jnp.where(taken, groups[:, None], -1), axis=0)
    return jnp.where(taker >= 0, taker, labels)

  labels = _axes.alike(labels, x, weight, centroids, empty)
  if_any = lambda labels: jax.lax.cond(jnp.any(empty), move, lambda labels: labels, labels)
  return jax.lax.platform_dependent(labels, cpu=if_any, default=move)


def farthest(away, number):
  """The largest numbers and their rows; ties go to the lowest index.

  On one GPU the search for ten among a thousand takes five times as long as to sort them.
  """

  def by_sorting(away):
    order = jnp.arange(len(away), dtype=jnp.int32)
    near, rows = jax.lax.sort((-away, order), num_keys=1, is_stable=True)
    return -near[:number], rows[:number]

  search = lambda away: tuple(jax.lax.top_k(away, number))
  return jax.lax.platform_dependent(away, cuda=by_sorting, default=search)


def means(x, labels, weight, centroids, metric):
  """The weighted mean of every group; a group without weight stays where it was."""
  member = jnp.where(_masks.members(labels, len(centroids)), weight[None], 0.0)
  sums = jnp.einsum("kn,nd->kd", member, x, precision=jax.lax.Precision.HIGHEST)
  if metric == "cosine":
    # Sums of rows of length one, with weights of at most 1: no square overflows.
    length = jnp.sqrt(jnp.sum(jnp.square(sums), axis=1))
    alive = length > 0.0  # members that cancel leave no direction
  else:
    length = jnp.sum(member, axis=1)
    alive = length > 0.0
  return jnp.where(alive[:, None], sums / jnp.where(alive, length, 1.0)[:, None], centroids)


def draw(noise, mass):
  """Draws rows with a chance in proportion to their mass, one for each column of the noise.

  The rows fill a square: drawn are a line of it, by its mass, and a place in that line. That takes
  the root of the random numbers that one for each row would. With no mass left every logarithm is
  -inf, and row 0 wins.

  Args:
    noise: Gumbel noise `[2, draws, side]`, `side * side` at least n.
    mass: `[n]`, not negative.
  """
  side = noise.shape[2]
  square = jnp.pad(mass, (0, side * side - mass.shape[0])).reshape(side, side)
  line = jnp.argmax(jnp.log(jnp.sum(square, axis=1))[None] + noise[0], axis=1)
  return line * side + jnp.argmax(jnp.log(square[line]) + noise[1], axis=1)


def seed(key, x, weight, num_clusters):
  """First centroids by greedy k-means++, among candidates where there are many rows."""
  size = 2 * num_clusters
  if len(x) < max(_MANY, 2 * _ROUNDS * size):
    return greedy(key, x, weight, num_clusters)
  key, draws = jax.random.split(key)
  x, weight = candidates(draws, x, weight, size)
  at_once = min(_AT_ONCE, max(1, num_clusters // _DRAWS))
  return greedy(key, x, weight, num_clusters, at_once)


def candidates(key, x, weight, size):
  """Rows drawn by squared distance, `size` a round, and the weight that is nearest to each.

  Reference: Bahmani et al., Scalable k-means++ (2012).
  """
  norms = jnp.sum(jnp.square(x), axis=1)
  noise = jax.random.gumbel(key, (_ROUNDS, len(x)), jnp.float32)
  found, owner, mass = x[:0], jnp.zeros(len(x), jnp.int32), weight
  least = jnp.full(len(x), jnp.inf, x.dtype)
  for i in range(_ROUNDS):
    # Padding is drawn only once every row that weighs something is drawn, or equal to one that is.
    rows = farthest(jnp.log(mass) + noise[i], size)[1]
    squares = norms[rows][:, None] + norms[None] - 2.0 * products(x[rows], x)
    nearer = jnp.min(squares, axis=0)
    place = jnp.argmin(squares, axis=0).astype(jnp.int32) + len(found)
    owner = jnp.where(nearer < least, place, owner)
    least = jnp.minimum(nearer, least)
    found = jnp.concatenate([found, x[rows]])
    mass = weight * distance(x, owner, found)
  owned = jnp.where(_masks.members(owner, len(found)), weight[None], 0.0)
  return found, jnp.sum(owned, axis=1)


def greedy(key, x, weight, num_clusters, at_once=1):
  """Greedy k-means++: of a few rows drawn by squared distance, the one that helps most.

  Of one draw `at_once` rows are chosen, one after the other. A draw has as many times the rows.
  """
  draws = at_once * (2 + int(math.log(num_clusters)))
  turns = 1 + -(-(num_clusters - 1) // at_once)  # the last may choose more than are needed
  side = math.isqrt(len(x) - 1) + 1
  # Drawn in one row: of four axes XLA on CPU compiles them for ten times as long.
  noise = jax.random.gumbel(key, (turns * 2 * draws * side,), jnp.float32)
  noise = noise.reshape(turns, 2, draws, side)
  norms = jnp.sum(jnp.square(x), axis=1)
  exact = lambda rows: jnp.sum(jnp.square(x[None] - x[rows][:, None]), axis=2)
  expanded = lambda rows: norms[None] + norms[rows][:, None] - 2.0 * products(x[rows], x)

  def settled(square, row):
    """Equal rows must get no mass, and the expanded square leaves them its rounding."""
    near = square <= _ROUNDED * (norms + norms[row])
    alone = lambda: jnp.where(near, 0.0, square)
    return jax.lax.cond(jnp.sum(near) > 1, lambda: exact(row[None])[0], alone)

  def add(apart, turn, carry):
    chosen, nearest = carry
    drawn = draw(noise[turn], weight * nearest)
    squares, found = apart(drawn), []
    for _ in range(at_once):
      best = jnp.argmin(jnp.sum(weight[None] * jnp.minimum(squares, nearest[None]), axis=1))
      found.append(drawn[best])
      own = squares[best] if apart is exact else settled(squares[best], found[-1])
      nearest = jnp.minimum(nearest, own)
    place = (turn - 1) * at_once + 1
    return jax.lax.dynamic_update_slice(chosen, jnp.stack(found), (place,)), nearest

  first = draw(noise[0], weight)[0]
  chosen = jnp.zeros(1 + (turns - 1) * at_once, first.dtype).at[0].set(first)
  start = _axes.alike((chosen, exact(first[None])[0]), x, weight, noise)

  run = lambda unroll, apart: (
    lambda start: jax.lax.fori_loop(1, turns, functools.partial(add, apart), start, unroll=unroll)
  )
  # A GPU waits for the host at every turn of a loop, and few kernels are best. A CPU is quick at
  # products.
  ways = {"cpu": run(1, expanded), "cuda": run(_UNROLLED_SEEDS, exact)}
  chosen, _ = jax.lax.platform_dependent(start, **ways, default=run(1, exact))
  chosen = chosen[:num_clusters]
  # With no mass left row 0 is drawn, which may weigh nothing.
  return x[jnp.where(weight[chosen] > 0.0, chosen, jnp.argmax(weight > 0.0))]
