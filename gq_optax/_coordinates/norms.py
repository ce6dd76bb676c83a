# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Norms of whole gradients that neither vanish nor overflow, and the test for NaN and Inf.

With an axis name they are of what all devices hold together.
"""

import jax
import jax.numpy as jnp
import optax

from gq_optax import _axes


def all_finite(tree: optax.Updates, axis_name: _axes.AxisName | None = None) -> jax.Array:
  """Is every number of the tree finite?"""
  # As a maximum, which NaN passes through: several times cheaper than `isfinite` and `all`.
  largest = [jnp.max(jnp.abs(x), initial=0) for x in jax.tree.leaves(tree)]
  # Some narrow dtypes have no infinity to compare with; in them overflow is NaN.
  finite = [x <= jnp.finfo(x.dtype).max.astype(x.dtype) for x in largest]
  all_of_them = jnp.all(jnp.stack(finite)) if finite else jnp.asarray(True)
  return _axes.everywhere(all_of_them, axis_name)


def root(square: jax.Array) -> jax.Array:
  """The square root, whose derivative at 0 counts as 0: where all is equal, nothing spreads."""
  positive = square > 0.0
  return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1.0)), square)


def safe_norm(
  tree: optax.Updates, axis_name: _axes.AxisName | None = None
) -> tuple[jax.Array, jax.Array]:
  """The global norm as `(scale, norm / scale)`, so that squares neither vanish nor overflow."""
  tree = optax.tree.cast(tree, jnp.float32)
  largest = optax.tree.norm(tree, ord=jnp.inf) if jax.tree.leaves(tree) else jnp.zeros([])
  largest = _axes.largest(largest, axis_name)
  scale = jnp.where(largest > 0.0, largest, 1.0)
  square = optax.tree.norm(jax.tree.map(lambda x: x / scale, tree), squared=True)
  return scale, root(_axes.total(square, axis_name))


def rescale(
  update_norm: str | jax.typing.ArrayLike | None,
  update: optax.Updates,
  raw: optax.Updates,
  axis_name: _axes.AxisName | None = None,
) -> optax.Updates:
  """The update brought to the norm of `raw` ("match"), or to at most so many times that norm."""
  if update_norm is None:
    return update
  raw_scale, raw_norm = safe_norm(raw, axis_name)
  scale, norm = safe_norm(update, axis_name)
  match = raw_norm / jnp.where(norm > 0.0, norm, 1.0) * (raw_scale / scale)
  match = jnp.where(jnp.logical_and(norm > 0.0, jnp.isfinite(match)), match, 1.0)
  if not isinstance(update_norm, str):
    match = jnp.minimum(1.0, jnp.maximum(jnp.asarray(update_norm, jnp.float32), 0.0) * match)
  return jax.tree.map(lambda u: u * match.astype(u.dtype), update)
