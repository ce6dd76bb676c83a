# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Per-example gradients `[B, *p]` clustered inside the transformation, and their means."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from gq_optax import _dtypes, _masks, _validate
from gq_optax._group_gradients import GroupGradients
from gq_optax._rarity.embeddings import unit_sketch
from gq_optax._rarity.kmeans import kmeans_padded


def cluster_means(
  per_example: optax.Updates,
  num_clusters: int,
  queued: jax.Array,
  *,
  embeddings: jax.Array | None,
  embed: Callable[[optax.Updates], jax.Array] | None,
  key: jax.Array | int,
  mask: jax.Array | None,
) -> tuple[GroupGradients, list[jax.Array], jax.Array]:
  r"""The mean gradients of the clusters, that of the batch leaf by leaf, and the K-means' inertia.

  .. math:: c_k = \tfrac{1}{n_k} \sum_{i: k(i) = k} g_i

  Args:
    per_example: pytree of `[B, *p]` leaves.
    num_clusters: K; of more than B the surplus is empty. One cluster is the whole batch.
    queued: int32 `[]`, the gradients queued so far: each number seeds anew.
    embeddings: `[B, d]`, or None: they are made of the gradients.
    embed: the function that makes them; None: a sketch of each gradient.
    key: int or PRNG key.
    mask: bool `[B]`, the examples that count, or None: all.
  """
  batch_size = jax.tree.leaves(per_example)[0].shape[0]
  everyone = jnp.ones(batch_size, bool) if mask is None else mask
  inertia = jnp.zeros([], jnp.float32)
  member = everyone[None]
  if num_clusters > 1:
    # A clone: it is on purpose that every step begins from the same key.
    sketch_key, kmeans_key = jax.random.split(jax.random.clone(_validate.prng_key("key", key)))
    if embeddings is None:
      embeddings = unit_sketch(per_example, sketch_key) if embed is None else embed(per_example)
      embeddings = _validate.floating("the result of embed", embeddings)
    _validate.shape("embeddings", embeddings, f"[B, d] with B = {batch_size}", (batch_size, None))
    result = kmeans_padded(
      # Labels have no derivative; without this, the loops that find them would be differentiated.
      jax.lax.stop_gradient(embeddings),
      num_clusters,
      sample_weight=everyone.astype(jnp.float32),
      key=jax.random.fold_in(kmeans_key, queued),
    )
    member = jnp.logical_and(_masks.members(result.labels, num_clusters), everyone[None])
    inertia = result.inertia
  # The last group is the whole batch: a mean made of the others would make NaN of 0 * Inf.
  member = jnp.concatenate([member, everyone[None]])
  counts = jnp.sum(member, axis=1, dtype=jnp.float32)

  def means(g):
    dtype = _dtypes.at_least_float32(g.dtype)
    if mask is not None:  # a pass more over the gradients
      g = _masks.masked(g, mask)
    if num_clusters == 1:
      sums = jnp.repeat(jnp.sum(g, axis=0, dtype=dtype, keepdims=True), 2, axis=0)
    else:
      sums = jax.lax.dot_general(
        member.astype(g.dtype),  # zeros and ones are exact in any dtype
        g,
        (((1,), (0,)), ((), ())),
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=dtype,
      )
    return sums / _masks.over(jnp.maximum(counts, 1.0).astype(dtype), sums)

  every = jax.tree.map(means, per_example)
  groups = GroupGradients(jax.tree.map(lambda x: x[:-1], every), counts[:-1])
  leaves = zip(jax.tree.leaves(every), jax.tree.leaves(per_example), strict=True)
  return groups, [x[-1].astype(g.dtype) for x, g in leaves], inertia
