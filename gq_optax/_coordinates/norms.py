# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Norms of whole gradients that neither vanish nor overflow, and the test for NaN and Inf."""

import jax
import jax.numpy as jnp
import optax


def all_finite(tree: optax.Updates) -> jax.Array:
  """Is every number of the tree finite?"""
  # As a maximum, which NaN passes through: several times cheaper than `isfinite` and `all`.
  largest = [jnp.max(jnp.abs(x), initial=0) for x in jax.tree.leaves(tree)]
  # Some narrow dtypes have no infinity to compare with; in them overflow is NaN.
  finite = [x <= jnp.finfo(x.dtype).max.astype(x.dtype) for x in largest]
  return jnp.all(jnp.stack(finite)) if finite else jnp.asarray(True)


def safe_norm(tree: optax.Updates) -> tuple[jax.Array, jax.Array]:
  """The global norm as `(scale, norm / scale)`, so that squares neither vanish nor overflow."""
  tree = optax.tree.cast(tree, jnp.float32)
  largest = optax.tree.norm(tree, ord=jnp.inf) if jax.tree.leaves(tree) else jnp.zeros([])
  scale = jnp.where(largest > 0.0, largest, 1.0)
  return scale, optax.tree.norm(jax.tree.map(lambda x: x / scale, tree))


def rescale(
  update_norm: str | jax.typing.ArrayLike | None, update: optax.Updates, raw: optax.Updates
) -> optax.Updates:
  """The update brought to the norm of `raw` ("match"), or to at most so many times that norm."""
  if update_norm is None:
    return update
  raw_scale, raw_norm = safe_norm(raw)
  scale, norm = safe_norm(update)
  match = raw_norm / jnp.where(norm > 0.0, norm, 1.0) * (raw_scale / scale)
  match = jnp.where(jnp.logical_and(norm > 0.0, jnp.isfinite(match)), match, 1.0)
  if not isinstance(update_norm, str):
    match = jnp.minimum(1.0, jnp.maximum(jnp.asarray(update_norm, jnp.float32), 0.0) * match)
  return jax.tree.map(lambda u: u * match.astype(u.dtype), update)
