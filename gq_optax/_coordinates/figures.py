# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The figures of one step of `grad_queue`, carried in its state when `track=True`."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gq_optax import _axes
from gq_optax._coordinates import norms
from gq_optax._coordinates.forms import Batch


class Figures(NamedTuple):
  """Figures of the last accepted step.

  Attributes:
    effective_length: int32 `[]`, how many entries of the queue the statistics are of.
    mean_weight: float32 `[]`, mean coordinate weight over all coordinates, groups by their share.
    amplified: float32 `[]`, share of coordinates with a weight above 1.
    damped: float32 `[]`, share of coordinates with a weight below 1.
    cosine: float32 `[]`, between the update and the raw mean gradient; 1 where one of them is 0.
    norm_ratio: float32 `[]`, norm of the update over that of the raw mean gradient, or 1.
    group_counts: float32 `[K]`, examples in each group; 0 where nothing is grouped.
    inertia: float32 `[]`, of the K-means; 0 where none was run.
    skipped: int32 `[]`, steps so far that were not queued (not finite, or empty).
  """

  effective_length: jax.Array
  mean_weight: jax.Array
  amplified: jax.Array
  damped: jax.Array
  cosine: jax.Array
  norm_ratio: jax.Array
  group_counts: jax.Array
  inertia: jax.Array
  skipped: jax.Array


def init(num_clusters: int) -> Figures:
  """The figures before the first step: no weighting, no groups."""
  # Every field an array of its own: a buffer that occurs twice could not be donated.
  return Figures(
    effective_length=jnp.zeros([], jnp.int32),
    mean_weight=jnp.ones([], jnp.float32),
    amplified=jnp.zeros([], jnp.float32),
    damped=jnp.zeros([], jnp.float32),
    cosine=jnp.ones([], jnp.float32),
    norm_ratio=jnp.ones([], jnp.float32),
    group_counts=jnp.zeros(num_clusters, jnp.float32),
    inertia=jnp.zeros([], jnp.float32),
    skipped=jnp.zeros([], jnp.int32),
  )


def measure(
  previous: Figures,
  batch: Batch,
  update: optax.Updates,
  weights: list[list[jax.Array]],
  length: jax.Array,
  accept: jax.Array,
  axis_name: _axes.AxisName | None = None,
) -> Figures:
  """The figures of this step; of a step that is not accepted only its number is kept."""
  size = _axes.total(jnp.float32(max(sum(leaf[0].size for leaf in weights), 1)), axis_name)
  largest = jnp.finfo(jnp.float32).max

  def mean(function):
    total = jnp.zeros([], jnp.float32)
    for leaf in weights:
      for share, weight in zip(batch.shares, leaf, strict=True):
        total += share * jnp.sum(function(weight), dtype=jnp.float32)
    return _axes.total(total, axis_name) / size

  raw_scale, raw_norm = norms.safe_norm(batch.raw, axis_name)
  scale, norm = norms.safe_norm(update, axis_name)
  comparable = jnp.logical_and(raw_norm > 0.0, norm > 0.0)
  safe_raw = jnp.where(comparable, raw_norm, 1.0)
  product = optax.tree.vdot(_scaled(batch.raw, raw_scale), _scaled(update, scale))
  product = _axes.total(product, axis_name)
  cosine = product / (safe_raw * jnp.where(comparable, norm, 1.0))
  # Groups may cancel to next to nothing: then the ratio is beyond what float32 holds.
  ratio = jnp.minimum(norm / safe_raw * (scale / raw_scale), largest)
  figures = Figures(
    effective_length=length,
    mean_weight=mean(lambda w: w),
    amplified=mean(lambda w: (w > 1.0).astype(w.dtype)),
    damped=mean(lambda w: (w < 1.0).astype(w.dtype)),
    cosine=jnp.where(comparable, jnp.clip(cosine, -1.0, 1.0), 1.0),
    norm_ratio=jnp.where(raw_norm > 0.0, jnp.where(comparable, ratio, 0.0), 1.0),
    group_counts=batch.counts,
    inertia=jnp.minimum(batch.inertia, largest),
    skipped=previous.skipped,
  )
  skipped = previous._replace(skipped=optax.safe_increment(previous.skipped))
  return jax.tree.map(lambda new, old: jnp.where(accept, new, old), figures, skipped)


def _scaled(tree, scale):
  return jax.tree.map(lambda x: x / scale, optax.tree.cast(tree, jnp.float32))
