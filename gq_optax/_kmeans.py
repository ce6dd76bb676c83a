# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""K-means with a fixed number of steps: one compilation, a known cost, never a NaN."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gq_optax import _validate


class KMeansResult(NamedTuple):
  """What `kmeans` returns.

  Attributes:
    centroids: float32 `[K, d]`; unit rows (or zeros) under the cosine metric.
    labels: int32 `[n]`, the nearest centroid of every row; ties go to the lowest index.
    counts: int32 `[K]`, rows of positive weight per group.
    inertia: float32 `[]`, weighted sum of squared distances (Euclidean) or of 1 - cosine.
    converged: bool `[]`, whether the last iteration changed no label.
  """

  centroids: jax.Array
  labels: jax.Array
  counts: jax.Array
  inertia: jax.Array
  converged: jax.Array


def kmeans(
  x: jax.Array,
  num_clusters: int,
  *,
  key: jax.Array | int | None = None,
  init: jax.Array | None = None,
  metric: str = "euclidean",
  num_iters: int = 10,
  sample_weight: jax.Array | None = None,
) -> KMeansResult:
  r"""Lloyd's algorithm, seeded by greedy k-means++ or warm-started from `init`.

  .. math:: \min_{c, k(\cdot)} \sum_i w_i \| x_i - c_{k(i)} \|^2
            \quad\text{or}\quad \min_{c, k(\cdot)} \sum_i w_i (1 - \cos(x_i, c_{k(i)}))

  An empty group takes the row farthest from its own centroid, as in scikit-learn. With fewer
  distinct rows than groups the surplus groups stay empty. Rows of weight 0 (padding) get a label
  but move nothing. A row that is not finite counts as the zero vector of weight 0. Under the cosine
  metric a zero vector has cosine 0 with everything.

  Args:
    x: `[n, d]`, real; computed in float32.
    num_clusters: K, with `1 <= K <= n`.
    key: int or PRNG key for the seeding; None means key 0. Unused with `init`.
    init: first centroids `[K, d]`, to continue from an earlier result.
    metric: "euclidean" or "cosine" (spherical K-means).
    num_iters: Lloyd iterations, always that many; 0 only assigns.
    sample_weight: `[n]`, not negative; None weighs every row the same.

  Returns:
    A `KMeansResult`, whose labels are those of its centroids.

  Raises:
    ValueError: if a shape, `num_clusters`, `num_iters` or `metric` is out of its range.

  Example:
    >>> import jax.numpy as jnp
    >>> import gq_optax as gq
    >>> x = jnp.array([[0.], [1.], [10.], [11.]])
    >>> result = gq.kmeans(x, 2, init=jnp.array([[0.], [11.]]))
    >>> print(result.labels, result.centroids.ravel(), result.inertia)
    [0 0 1 1] [ 0.5 10.5] 1.0

  Reference: Lloyd (1982); Arthur and Vassilvitskii, k-means++ (2007). The grouping of Al Hasib,
  Grad Queue (arXiv 2404.16917), Algorithm 1.
  """
  x = jnp.asarray(x)
  _validate.shape("x", x, "[n, d]", (None, None))
  rows, dim = x.shape
  num_clusters = _validate.static_int("num_clusters", num_clusters, 1)
  num_iters = _validate.static_int("num_iters", num_iters, 0)
  _validate.one_of("metric", metric, ("euclidean", "cosine"))
  if num_clusters > rows:
    raise ValueError(
      f"num_clusters must be at most the rows of x ({rows}), but {num_clusters} was found."
    )
  if sample_weight is None:
    weight = jnp.ones(rows, jnp.float32)
  else:
    _validate.shape("sample_weight", sample_weight, f"[n] = [{rows}]", (rows,))
    weight = jnp.asarray(sample_weight).astype(jnp.float32)
  if init is not None:
    _validate.shape("init", init, f"[K, d] = [{num_clusters}, {dim}]", (num_clusters, dim))
    init = jnp.asarray(init).astype(jnp.float32)
  prng = _validate.prng_key("key", 0 if key is None else key)
  return _kmeans(x.astype(jnp.float32), weight, prng, init, num_clusters, metric, num_iters)


@functools.partial(jax.jit, static_argnames=("num_clusters", "metric", "num_iters"))
def _kmeans(x, weight, key, init, num_clusters, metric, num_iters):
  usable = jnp.all(jnp.isfinite(x), axis=1)
  x = jnp.where(usable[:, None], x, 0.0)
  weight = jnp.where(jnp.logical_and(usable, weight > 0.0), weight, 0.0)
  weight = jnp.where(jnp.isfinite(weight), weight, 0.0)

  if metric == "cosine":
    x, center, scale = unit_rows(x), jnp.zeros_like(x[0]), jnp.ones_like(x[0, 0])
    # A zero vector has no direction: it neither moves a centroid nor seeds a group.
    pull = jnp.where(jnp.any(x != 0.0, axis=1), weight, 0.0)
  else:
    # Centred and scaled (by a power of two, which is exact): the squares below neither cancel
    # against a large common offset nor overflow.
    scale = _power_of_two(jnp.max(jnp.abs(x)))
    x = x / scale
    # The mean, but on a coarse grid: the shift is then exact for data of few digits, and ties stay.
    total = jnp.maximum(jnp.sum(weight), _TINY)
    center = jnp.round(jnp.einsum("n,nd->d", weight, x) / total * 2.0**11) * 2.0**-11
    x, pull = x - center[None], weight

  if init is None:
    start = _seed(key, x, pull, num_clusters)
  else:
    start = jnp.where(jnp.all(jnp.isfinite(init), axis=1, keepdims=True), init, 0.0)
    start = unit_rows(start) if metric == "cosine" else start / scale - center[None]

  def iterate(_, carry):
    centroids, _ = carry
    labels = _nearest(x, centroids, metric)
    labels = _reseed(x, labels, pull, centroids)
    return _means(x, labels, pull, centroids, metric), labels

  nobody = jnp.full(x.shape[0], -1, jnp.int32)
  centroids, before = jax.lax.fori_loop(0, num_iters, iterate, (start, nobody))
  labels = _nearest(x, centroids, metric)
  # On the unit sphere half the squared distance is 1 - cosine; a zero vector is 1 away from all.
  if metric == "cosine":
    distance = 1.0 - jnp.sum(x * centroids[labels], axis=1)
  else:
    distance = _distance(x, labels, centroids)
    centroids = (centroids + center[None]) * scale
  counted = (weight > 0.0).astype(jnp.int32)
  return KMeansResult(
    centroids=centroids,
    labels=labels,
    counts=jnp.zeros(num_clusters, jnp.int32).at[labels].add(counted),
    # Scaled back by one factor at a time: the square may overflow, and 0 * inf is NaN.
    inertia=jnp.sum(jnp.where(weight > 0.0, weight * distance, 0.0)) * scale * scale,
    converged=jnp.all(labels == before),
  )


_TINY = float(jnp.finfo(jnp.float32).tiny)
# Rows are scaled to at most 1. A squared distance of less is the rounding of a mean of equal rows.
_SAME = 1e-12


def _power_of_two(largest):
  """The power of two just above `largest`, or 1 for 0."""
  exponent = jnp.frexp(largest)[1]
  return jnp.where(
    largest > 0.0, jnp.ldexp(jnp.ones_like(largest), jnp.clip(exponent, -120, 120)), 1.0
  )


def unit_rows(x):
  """Rows of length one; zero rows stay zero."""
  x = x / jnp.maximum(jnp.max(jnp.abs(x), axis=1, keepdims=True), _TINY)
  norm = jnp.sqrt(jnp.sum(jnp.square(x), axis=1, keepdims=True))
  return jnp.where(norm > 0.0, x / jnp.where(norm > 0.0, norm, 1.0), 0.0)


def _nearest(x, centroids, metric):
  """The nearest centroid of every row (lowest index on ties)."""
  relative = -2.0 * _products(centroids, x)
  if metric == "euclidean":
    relative += jnp.sum(jnp.square(centroids), axis=1)[:, None]
  return jnp.argmin(relative, axis=0).astype(jnp.int32)


def _products(rows, x):
  """Every row times every row of x, `[rows, n]`."""
  return jnp.einsum("kd,nd->kn", rows, x, precision=jax.lax.Precision.HIGHEST)


def _distance(x, labels, centroids):
  """Squared, to the centroid of every row; the expanded square would cancel close to it."""
  return jnp.sum(jnp.square(x - centroids[labels]), axis=1)


def _reseed(x, labels, weight, centroids):
  """Gives each empty group the farthest row that is still free; ties go to the lowest index."""
  num_clusters = centroids.shape[0]
  filled = jnp.any(_members(labels, num_clusters) & (weight > 0.0)[None], axis=1)

  def move(labels):
    # The j-th empty group takes the j-th farthest row.
    order = jnp.cumsum(jnp.logical_not(filled)) - 1
    distance = jnp.where(weight > 0.0, _distance(x, labels, centroids), 0.0)
    far, rows = jax.lax.top_k(distance, num_clusters)
    takes = jnp.logical_and(jnp.logical_not(filled), far[order] > _SAME)
    target = jnp.where(takes, rows[order], labels.shape[0])
    return labels.at[target].set(jnp.arange(num_clusters, dtype=jnp.int32), mode="drop")

  return jax.lax.cond(jnp.all(filled), lambda labels: labels, move, labels)


def _members(labels, num_clusters):
  """Who belongs to which group, bool `[K, n]`."""
  return labels[None] == jnp.arange(num_clusters, dtype=labels.dtype)[:, None]


def _means(x, labels, weight, centroids, metric):
  """The weighted mean of every group; a group without weight stays where it was."""
  member = jnp.where(_members(labels, centroids.shape[0]), weight[None], 0.0)
  total = jnp.sum(member, axis=1)
  sums = jnp.einsum("kn,nd->kd", member, x, precision=jax.lax.Precision.HIGHEST)
  if metric == "cosine":
    means = unit_rows(sums)
    alive = jnp.any(sums != 0.0, axis=1)  # members that cancel leave no direction
  else:
    means = sums / jnp.where(total > 0.0, total, 1.0)[:, None]
    alive = total > 0.0
  return jnp.where(alive[:, None], means, centroids)


def _draw(noise, mass):
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


def _seed(key, x, weight, num_clusters):
  """Greedy k-means++: of a few rows drawn by squared distance, the one that helps most."""
  trials = 2 + int(math.log(num_clusters))
  rows, dim = x.shape
  norms = jnp.sum(jnp.square(x), axis=1)
  side = math.isqrt(rows - 1) + 1
  noise = jax.random.gumbel(key, (num_clusters, 2, trials, side))

  first = x[_draw(noise[0], weight)[0]]
  centroids = jnp.zeros((num_clusters, dim), x.dtype).at[0].set(first)
  nearest = jnp.sum(jnp.square(x - first[None]), axis=1)

  def add(i, carry):
    centroids, nearest = carry
    chosen = _draw(noise[i], weight * nearest)
    candidates = x[chosen]
    squares = norms[None] + norms[chosen][:, None] - 2.0 * _products(candidates, x)
    left = jnp.sum(weight[None] * jnp.minimum(squares, nearest[None]), axis=1)
    best = candidates[jnp.argmin(left)]
    # Exactly: equal rows must get no mass, and the expanded square leaves them its rounding.
    nearest = jnp.minimum(nearest, jnp.sum(jnp.square(x - best[None]), axis=1))
    return centroids.at[i].set(best), nearest

  return jax.lax.fori_loop(1, num_clusters, add, (centroids, nearest))[0]
