# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Per-example gradients [B, *p] clustered inside the transformation, and their means."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from gq_optax import _dtypes, _inputs, _validate
from gq_optax._group_gradients import GroupGradients
from gq_optax._rarity.embeddings import unit_sketch
from gq_optax._rarity.kmeans import KMeansResult, kmeans_padded


def cluster(
  per_example: optax.Updates,
  num_clusters: int,
  count: jax.Array,
  *,
  embeddings: jax.Array | None,
  embed: Callable[[optax.Updates], jax.Array] | None,
  key: jax.Array | int,
  mask: jax.Array | None,
) -> KMeansResult:
  """K-means over a batch of per-example gradients.

  Args:
    per_example: pytree of `[B, *p]` leaves.
    num_clusters: K; of more than B the surplus is empty.
    count: int32 `[]`, the steps so far: every step is seeded anew.
    embeddings: `[B, d]`, or None: they are made of the gradients.
    embed: the function that makes them; None: a sketch of each gradient.
    key: int or PRNG key.
    mask: bool `[B]`, the examples that count, or None: all. The others get the label K.
  """
  batch_size = jax.tree.leaves(per_example)[0].shape[0]
  # A clone: it is on purpose that every step begins from the same key.
  sketch_key, kmeans_key = jax.random.split(jax.random.clone(_validate.prng_key("key", key)))
  if embeddings is None:
    embeddings = unit_sketch(per_example, sketch_key) if embed is None else embed(per_example)
    embeddings = _inputs.floating("the result of embed", embeddings)
  _validate.shape("embeddings", embeddings, f"[B, d] with B = {batch_size}", (batch_size, None))
  # Labels have no derivative; without this, the loops that find them would be differentiated.
  embeddings = jax.lax.stop_gradient(embeddings)
  weight = None if mask is None else mask.astype(jnp.float32)
  prng = jax.random.fold_in(kmeans_key, count)
  result = kmeans_padded(embeddings, num_clusters, sample_weight=weight, key=prng)
  if mask is None:
    return result
  return result._replace(labels=jnp.where(mask, result.labels, num_clusters))


def group_means(
  per_example: optax.Updates, labels: jax.Array, num_groups: int, mask: jax.Array | None
) -> tuple[GroupGradients, optax.Updates]:
  r"""The mean gradient of each group, and that of the batch, out of per-example gradients.

  .. math:: c_k = \tfrac{1}{n_k} \sum_{i: k(i) = k} g_i

  Args:
    per_example: pytree of `[B, *p]` leaves.
    labels: int `[B]`; a label outside `[0, K)` belongs to no group.
    num_groups: K.
    mask: bool `[B]`, the examples that count, or None: all.

  Returns:
    `GroupGradients` in float32 or wider, and the mean over all examples in the gradients' dtype.
  """
  per_example, everyone = masked(per_example, mask)
  member = jax.nn.one_hot(labels, num_groups, dtype=jnp.float32)
  # A last group of all: in the mean made of the others, 0 times infinity would be NaN.
  member = jnp.concatenate([member, everyone[:, None]], axis=1)
  counts = jnp.sum(member, axis=0)
  divisor = jnp.maximum(counts, 1.0)

  def leaf(g):
    dtype = _dtypes.at_least_float32(g.dtype)
    sums = jax.lax.dot_general(
      member.astype(g.dtype),  # zeros and ones are exact in any dtype
      g,
      (((0,), (0,)), ((), ())),
      precision=jax.lax.Precision.HIGHEST,
      preferred_element_type=dtype,
    )
    return sums / divisor.astype(dtype).reshape(-1, *(1,) * (g.ndim - 1))

  means = jax.tree.map(leaf, per_example)
  groups = GroupGradients(jax.tree.map(lambda x: x[:-1], means), counts[:-1])
  return groups, jax.tree.map(lambda x, g: x[-1].astype(g.dtype), means, per_example)


def masked(per_example: optax.Updates, mask: jax.Array | None) -> tuple[optax.Updates, jax.Array]:
  """The gradients with zeros for what is masked, NaN too; and who counts, float32 `[B]`."""
  if mask is None:
    return per_example, jnp.ones(jax.tree.leaves(per_example)[0].shape[0], jnp.float32)
  rows = lambda g: mask.reshape(-1, *(1,) * (g.ndim - 1))
  kept = jax.tree.map(lambda g: jnp.where(rows(g), g, jnp.zeros_like(g)), per_example)
  return kept, mask.astype(jnp.float32)


def mean(per_example: optax.Updates, mask: jax.Array | None) -> tuple[optax.Updates, jax.Array]:
  """The mean over the batch, summed in float32 or wider, in the gradients' dtype; and its size."""
  kept, everyone = masked(per_example, mask)
  size = jnp.sum(everyone)

  def leaf(g):
    dtype = _dtypes.at_least_float32(g.dtype)
    if mask is None:
      return jnp.mean(g, axis=0, dtype=dtype).astype(g.dtype)
    return (jnp.sum(g, axis=0, dtype=dtype) / jnp.maximum(size, 1.0).astype(dtype)).astype(g.dtype)

  return jax.tree.map(leaf, kept), size
