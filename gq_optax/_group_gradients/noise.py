# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""How noisy are the gradients of a batch? Noise scale out of group gradients."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gq_optax import _masks, _validate
from gq_optax._group_gradients.group_gradients import GroupGradients, arrays, shares, sizes


class NoiseScale(NamedTuple):
  """What `noise_scale` returns; all NaN where it can't be told.

  Attributes:
    noise_scale: float32 `[]`, `trace / squared_norm`: about the batch size beyond which larger
      batches bring little; infinite where the noise hides the gradient.
    trace: float32 `[]`, unbiased estimate of the trace of the covariance of one example's gradient.
    squared_norm: float32 `[]`, unbiased estimate of the squared norm of the true gradient.
  """

  noise_scale: jax.Array
  trace: jax.Array
  squared_norm: jax.Array


def random_groups(key: jax.Array | int, batch_size: int, num_groups: int) -> jax.Array:
  """Random labels with group sizes that differ by at most one.

  Args:
    key: int or PRNG key; a new one every step.
    batch_size: B.
    num_groups: K, with `1 <= K <= B`.

  Returns:
    int32 `[B]`, labels in `[0, K)`.

  Raises:
    ValueError: if `num_groups` is not within `[1, B]`.

  Example:
    >>> import jax.numpy as jnp
    >>> import gq_optax as gq
    >>> print(jnp.bincount(gq.random_groups(0, 10, 4)))
    [3 3 2 2]
  """
  batch_size = _validate.static_int("batch_size", batch_size, 1)
  num_groups = _validate.static_int("num_groups", num_groups, 1)
  rule = f"be at most the batch size ({batch_size})"
  _validate.require(num_groups <= batch_size, "num_groups", rule, num_groups)
  labels = jnp.arange(batch_size, dtype=jnp.int32) % num_groups
  return jax.random.permutation(_validate.prng_key("key", key), labels)


def noise_scale(group_gradients: GroupGradients) -> NoiseScale:
  r"""The simple gradient noise scale, from the mean gradients of *random* groups.

  .. math:: \mathrm{tr}\,\Sigma = \frac{B}{K - 1} \sum_k \frac{n_k}{B} \| c_k - G_B \|^2, \qquad
            |G|^2 = \| G_B \|^2 - \frac{\mathrm{tr}\,\Sigma}{B}, \qquad
            B_{simple} = \mathrm{tr}\,\Sigma / |G|^2

  the unbiased estimates of McCandlish et al. with the groups as small batches and their mean
  :math:`G_B` as the large one. The ratio of two noisy estimates is noisy and biased: average
  `trace` and `squared_norm` over some steps, then divide.

  Only for groups drawn at random, by `gq.random_groups`. K-means puts similar gradients together:
  their group means differ by selection, not by noise, and the estimate would be far too large. As
  a check on how the labels were made, sizes that differ by more than one give NaN.

  Args:
    group_gradients: K >= 2 groups, `[K, *p]`.

  Returns:
    A `NoiseScale`.

  Raises:
    ValueError: if there are fewer than two groups, or it is not a `GroupGradients`.

  Example:
    >>> import jax.numpy as jnp
    >>> import gq_optax as gq
    >>> groups = gq.GroupGradients(jnp.array([[1.5], [0.5]]), jnp.array([8, 8]))
    >>> estimate = gq.noise_scale(groups)
    >>> print(estimate.trace, estimate.squared_norm)
    4.0 0.75

  Reference: McCandlish, Kaplan, Amodei, An empirical model of large-batch training (arXiv
  1812.06162), appendix A.1.
  """
  is_ours, found = isinstance(group_gradients, GroupGradients), type(group_gradients).__name__
  _validate.require(is_ours, "group_gradients", "be GroupGradients", found)
  grads, counts, _ = arrays("group_gradients", group_gradients)
  groups, counts, share = len(counts), sizes(counts), shares(counts)
  _validate.require(groups >= 2, "group_gradients", "have at least 2 groups", groups)
  squared_norm, between = jnp.zeros([], jnp.float32), jnp.zeros([], jnp.float32)
  for leaf in jax.tree.leaves(grads):
    rule = f"[K, *p] with K = {groups}"
    _validate.shape("group_gradients: grads", leaf, rule, (groups, *leaf.shape[1:]))
    filled, part = _masks.masked(leaf.astype(jnp.float32), counts > 0.0), _masks.over(share, leaf)
    mean = jnp.sum(part * filled, axis=0, keepdims=True)
    squared_norm += jnp.sum(jnp.square(mean))
    between += jnp.sum(part * jnp.square(filled - mean))
  batch = jnp.sum(counts)
  trace = between * batch / (groups - 1)
  unbiased = squared_norm - trace / batch
  scale = jnp.where(unbiased > 0.0, trace / jnp.where(unbiased > 0.0, unbiased, 1.0), jnp.inf)
  balanced = jnp.logical_and(jnp.max(counts) - jnp.min(counts) <= 1.0, jnp.min(counts) > 0.0)
  estimate = NoiseScale(scale, trace, unbiased)
  return jax.tree.map(lambda x: jnp.where(balanced, x, jnp.nan), estimate)


def suggest_num_clusters(batch_size: int, noise_scale: float | jax.Array) -> int:
  """How many groups of about one noise scale a batch holds.

  The paper sets `K = B / B_opt` with the best batch size `B_opt` found by trial (64 in its
  figures); the noise scale is an estimate of it that needs no trial. It grows in training: take the
  value of the phase that matters.

  Args:
    batch_size: B.
    noise_scale: an average of `gq.noise_scale`, as a concrete number.

  Returns:
    K between 1 and B; 1 where the noise scale is infinite or NaN.

  Raises:
    ValueError: if `batch_size` is below 1.

  Example:
    >>> import gq_optax as gq
    >>> gq.suggest_num_clusters(512, 64.0)
    8

  Reference: Al Hasib, Grad Queue (arXiv 2404.16917), section 3.3; McCandlish, Kaplan, Amodei
  (arXiv 1812.06162).
  """
  batch_size = _validate.static_int("batch_size", batch_size, 1)
  try:
    scale = float(np.asarray(noise_scale).astype(np.float64, casting="same_kind"))
  except (TypeError, ValueError):
    rule = f"noise_scale must be a concrete number, but {noise_scale!r} was found"
    raise ValueError(f"{rule}: it fixes the shape of arrays. Call it outside jit.") from None
  if math.isnan(scale):
    return 1
  # Without noise (0) every example is a group of its own.
  return max(1, round(batch_size / max(scale, 1.0)))
