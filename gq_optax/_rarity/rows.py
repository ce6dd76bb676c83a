# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Embeddings of any shape as rows, at the entrance of this room."""

import math
import numbers
from typing import Any

import jax
import jax.numpy as jnp

from gq_optax import _inputs, _validate
from gq_optax._rarity import lloyd

# What the errors about a state of other options say.
WAY_OUT = "Make one by scarcity.init(d): the queue fills again in a few steps."


def embedding_dim(template: Any, metric: str) -> int:
  """The d of an int, or of what `update` will get, `[B, ...]`."""
  if isinstance(template, jax.Array) and template.shape == ():
    template = template if isinstance(template, jax.core.Tracer) else template.item()
  if getattr(template, "shape", ()) != ():
    if len(template.shape) < 2:
      raise ValueError(
        "embedding_dim_or_template: the template of init must be [B, ...], or the length of an"
        f" embedding as an int, but shape {tuple(template.shape)} was found."
      )
    dim = _validate.static_int("the numbers of an embedding", math.prod(template.shape[1:]), 1)
  else:
    if not isinstance(template, bool | numbers.Integral | jax.Array):
      raise ValueError(
        "embedding_dim_or_template must be the length of an embedding as an int, or an array"
        f" [B, ...] such as update gets, but {type(template).__name__} was found. Weights for"
        " examples are no gradient transformation: init takes no parameters, and they stand beside"
        " the optimizer, not in optax.chain."
      )
    dim = _validate.static_int("embedding_dim_or_template", template, 1)
  _check_width(dim, metric)
  return dim


def as_rows(embeddings: Any, dim: int, metric: str) -> jax.Array:
  """Embeddings `[B, ...]` as float32 rows `[B, d]`, cut off from differentiation."""
  embeddings = _inputs.floating("embeddings", embeddings)
  found = embeddings.shape
  _inputs.static("embeddings", found)
  _inputs.on_auto_axes("embeddings", embeddings)
  if len(found) >= 2 and found[0] == 0:
    raise ValueError(
      f"embeddings must be [B, ...] with B at least 1, but shape {found} was found. Leave out the"
      " step of an empty batch."
    )
  if len(found) < 2 or math.prod(found[1:]) != dim:
    raise ValueError(
      f"embeddings must be [B, ...] with {dim} numbers for each example, as the state was made for,"
      f" but shape {found} was found. For embeddings of another width: {WAY_OUT}"
    )
  _check_width(dim, metric)
  x = jax.lax.stop_gradient(embeddings)
  return x.reshape(found[0], dim).astype(jnp.float32)


def first_centroids(centroids: Any, num_groups: int, metric: str) -> jax.Array:
  """Where groups begin, float32 `[K, d]`; rows of length one under the cosine metric."""
  _validate.shape("centroids", centroids, f"[K, d] = [{num_groups}, d]", (num_groups, None))
  rows = _inputs.real("centroids", centroids).astype(jnp.float32)
  finite = jnp.all(jnp.isfinite(rows), axis=1)
  if not isinstance(finite, jax.core.Tracer) and not jnp.all(finite):
    raise ValueError(
      f"centroids must be finite, but NaN or Inf was found in {int(jnp.sum(~finite))} of"
      f" {num_groups} rows. Compute them from embeddings that are finite."
    )
  rows = jax.lax.stop_gradient(jnp.where(finite[:, None], rows, 0.0))
  return lloyd.unit_rows(rows) if metric == "cosine" else rows


def check_centroids(centroids: jax.Array | None, dim: int) -> None:
  """Raises ValueError unless the centroids, if there are any, are as wide as embeddings."""
  if centroids is not None and centroids.shape[1] != dim:
    raise ValueError(
      f"centroids must be [K, d] with the {dim} numbers of an embedding, but shape"
      f" {centroids.shape} was found. Compute them from embeddings of the same kind."
    )


def _check_width(dim: int, metric: str) -> None:
  """One number has no direction but its sign: rare and frequent would be the same."""
  if metric == "cosine" and dim == 1:
    raise ValueError(
      "embeddings of metric='cosine' must have 2 numbers or more for each example, but 1 was found:"
      " all of one sign have the same direction. Use metric='euclidean', or embeddings of more."
    )
