# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""K-means with a fixed number of steps: one compilation, a known cost, never a NaN."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gq_optax import _validate
from gq_optax._rarity import lloyd


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
  metric a zero vector has cosine 0 with everything. Under the Euclidean one, rows that are closer
  than 3e-4 of their distance from the mean of all may change places in rounding. Many rows (2048,
  or 12 K if that is more) have their seeds chosen among 6 K candidates, drawn in three rounds; from
  K = 32 on several at once.

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

  Reference: Lloyd (1982); Arthur and Vassilvitskii, k-means++ (2007); Bahmani et al., Scalable
  k-means++ (2012). The grouping of Al Hasib, Grad Queue (arXiv 2404.16917), Algorithm 1.
  """
  x = _validate.real("x", x)
  _validate.shape("x", x, "[n, d]", (None, None))
  _validate.static_shape("x", x.shape)
  _validate.on_auto_axes("x", x)
  rows, dim = x.shape
  _validate.require(dim > 0, "x", "be [n, d] with d at least 1", f"shape {x.shape}")
  num_clusters = _validate.static_int("num_clusters", num_clusters, 1)
  num_iters = _validate.static_int("num_iters", num_iters, 0)
  _validate.one_of("metric", metric, ("euclidean", "cosine"))
  rule = f"be at most the rows of x ({rows})"
  _validate.require(num_clusters <= rows, "num_clusters", rule, num_clusters)
  if sample_weight is None:
    weight = jnp.ones(rows, jnp.float32)
  else:
    _validate.shape("sample_weight", sample_weight, f"[n] = [{rows}]", (rows,))
    weight = _validate.real("sample_weight", sample_weight).astype(jnp.float32)
  if init is not None:
    _validate.shape("init", init, f"[K, d] = [{num_clusters}, {dim}]", (num_clusters, dim))
    init = _validate.real("init", init).astype(jnp.float32)
  prng = _validate.prng_key("key", 0 if key is None else key)
  return _kmeans(x.astype(jnp.float32), weight, prng, init, num_clusters, metric, num_iters)


def kmeans_padded(
  x: jax.Array, num_clusters: int, *, sample_weight: jax.Array, **options: Any
) -> KMeansResult:
  """As `kmeans`, but of fewer rows than groups too, as in the last batch: the surplus is empty."""
  rows = len(x)
  missing = max(num_clusters - rows, 0)
  if missing:
    x, sample_weight = jnp.pad(x, ((0, missing), (0, 0))), jnp.pad(sample_weight, (0, missing))
  result = kmeans(x, num_clusters, sample_weight=sample_weight, **options)
  return result._replace(labels=result.labels[:rows])


@functools.partial(jax.jit, static_argnames=("num_clusters", "metric", "num_iters"))
def _kmeans(x, weight, key, init, num_clusters, metric, num_iters):
  finite = jnp.isfinite(jnp.max(jnp.abs(x), axis=1))
  weight = jnp.where((weight > 0.0) & jnp.isfinite(weight), weight, 0.0)
  unit = lloyd.power_of_two(jnp.max(weight))
  weight = jnp.where(finite, weight / unit, 0.0)
  # A zero vector under the cosine metric counts, but pulls no centroid and seeds no group.
  x, pull, frame = lloyd.enter(x, weight, metric)
  if init is None:
    start = lloyd.seed(key, x, pull, num_clusters)
  else:
    start, _, _ = lloyd.enter(init, jnp.ones_like(init[:, 0]), metric, frame)
  centroids, before = lloyd.iterations(x, pull, start, metric, num_iters)
  labels = lloyd.nearest(x, centroids, metric)
  # On the unit sphere half the squared distance is 1 - cosine; a zero vector is 1 away from all.
  if metric == "cosine":
    distance = jnp.maximum(1.0 - jnp.sum(x * centroids[labels], axis=1), 0.0)
  else:
    distance = lloyd.distance(x, labels, centroids)
  apart = jnp.sum(jnp.where(weight > 0.0, weight * distance, 0.0))
  counted = (weight > 0.0).astype(jnp.int32)
  return KMeansResult(
    centroids=lloyd.leave(frame, centroids),
    labels=labels,
    counts=jnp.zeros(num_clusters, jnp.int32).at[labels].add(counted),
    # Scaled back by one factor at a time: the square may overflow, and 0 * inf is NaN.
    inertia=apart * unit * frame.scale * frame.scale,
    converged=jnp.all(labels == before),
  )
