# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The figures of one step of `grad_queue`, carried in its state when `track=True`."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gq_optax._grad_queue.norms import Norms


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
  accept: jax.Array,
  effective_length: jax.Array,
  weights: jax.Array,
  norms: Norms,
  factor: jax.Array,
  group_counts: jax.Array,
  inertia: jax.Array,
) -> Figures:
  """The figures of this step; of a step that is not accepted only its number is kept.

  Args:
    previous: those of the step before.
    accept: bool `[]`, whether the step is queued.
    effective_length: int32 `[]`.
    weights: float32 `[3]`: their mean, and the shares of those above and below 1.
    norms: of raw gradient and update.
    factor: float32 `[]`, what the update was multiplied with afterwards.
    group_counts: float32 `[K]`.
    inertia: float32 `[]`.
  """
  most = jnp.finfo(jnp.float32).max
  raw = jnp.where(norms.raw > 0.0, norms.raw, 1.0)
  both = jnp.logical_and(norms.raw > 0.0, norms.update > 0.0)
  cosine = norms.product / raw / jnp.where(both, norms.update, 1.0)
  # Groups may cancel to next to nothing: then the ratio is beyond what float32 holds.
  ratio = jnp.minimum(norms.update / raw * jnp.exp2(-norms.octaves) * factor, most)
  figures = Figures(
    effective_length=effective_length,
    mean_weight=weights[0],
    amplified=weights[1],
    damped=weights[2],
    cosine=jnp.where(both, jnp.clip(cosine, -1.0, 1.0), 1.0),
    norm_ratio=jnp.where(norms.raw > 0.0, ratio, 1.0),
    group_counts=group_counts,
    inertia=jnp.minimum(inertia, most),
    skipped=previous.skipped,
  )
  skipped = previous._replace(skipped=optax.safe_increment(previous.skipped))
  return jax.tree.map(lambda new, old: jnp.where(accept, new, old), figures, skipped)
