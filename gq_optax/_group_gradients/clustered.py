# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""From a batch to the mean gradients of its clusters."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gq_optax import _axes, _validate
from gq_optax._group_gradients import checks, grouped, linear
from gq_optax._group_gradients.group_gradients import GroupGradients
from gq_optax._rarity.kmeans import KMeansResult, kmeans_padded


def clustered_value_and_grad(
  loss_fn: Callable[..., Any],
  num_groups: int,
  *,
  metric: str = "euclidean",
  num_iters: int = 5,
) -> Callable[..., tuple[tuple[jax.Array, KMeansResult], GroupGradients]]:
  r"""The whole way from a batch to the mean gradients of its clusters.

  A forward pass yields losses and embeddings; K-means groups the examples; and what the forward
  pass kept makes the gradient of each group, as in `grouped_value_and_grad`.

  Args:
    loss_fn: `(params, batch) -> (losses [b], embeddings [b, d])` for any b. The paper takes the
      features of a dense layer in the middle. No gradient flows through the embeddings.
    num_groups: K.
    metric: "euclidean" or "cosine", see `kmeans`.
    num_iters: Lloyd iterations of K-means, see `kmeans`.

  Returns:
    A function `(params, batch, key=None, mask=None) -> ((mean_loss, clusters), GroupGradients)`:
    `key` for k-means++, `mask` bool `[B]`, False for padding; `clusters` is the `KMeansResult`.

  Raises:
    ValueError: as `grouped_value_and_grad` and `kmeans`.

  Example:
    >>> import jax.numpy as jnp
    >>> import gq_optax as gq
    >>> loss_fn = lambda w, x: (0.5 * (x @ w) ** 2, x)
    >>> step = gq.clustered_value_and_grad(loss_fn, num_groups=2)
    >>> x = jnp.array([[1., 0.], [0., 9.], [0., 8.]])
    >>> (loss, clusters), groups = step(jnp.ones(2), x)
    >>> print(sorted(groups.counts.tolist()))
    [1, 2]

  Reference: Al Hasib, Grad Queue (arXiv 2404.16917), Algorithm 1.
  """
  _validate.function("loss_fn", loss_fn)
  num_groups = _validate.static_int("num_groups", num_groups, 1)
  _validate.one_of("metric", metric, ("euclidean", "cosine"))
  num_iters = _validate.static_int("num_iters", num_iters, 0)

  def value_and_grad(params, batch, key=None, mask=None):
    params, batch, size = checks.inputs(loss_fn, params, batch, "embeddings")
    mask = _validate.mask("mask", mask, size)
    key = _validate.prng_key("key", 0 if key is None else key)
    params, batch = _axes.alike((params, batch), mask, key)

    losses, embeddings, parts = linear.run(loss_fn, params, batch, has_aux=True)
    _validate.shape("embeddings", embeddings, f"[B, d] with B = {size}", (size, None))
    weight = mask.astype(jnp.float32)
    clusters = kmeans_padded(
      embeddings, num_groups, key=key, metric=metric, num_iters=num_iters, sample_weight=weight
    )
    labels = jnp.where(mask, clusters.labels, num_groups)
    value, groups = grouped.by_group(params, losses, parts, labels, num_groups)
    return (value, clusters), groups

  return value_and_grad
