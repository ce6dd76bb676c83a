# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Embeddings of any shape as rows, at the entrance of this room."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from gq_optax import _inputs, _validate

# What the errors about a state of other options say.
WAY_OUT = "gq.resize_queue(state, scarcity.init(d)) makes one that fits."


def embedding_dim(template: Any, metric: str) -> int:
  """The d of an int, or of what `update` will get, `[B, ...]`."""
  if hasattr(template, "shape"):
    if len(template.shape) < 2:
      raise ValueError(
        "embedding_dim_or_template: the template of init must be [B, ...], or the length of an"
        f" embedding as an int, but shape {tuple(template.shape)} was found."
      )
    dim = max(math.prod(template.shape[1:]), 1)
  else:
    dim = _validate.static_int("embedding_dim_or_template", template, 1)
  _check_width(dim, metric)
  return dim


def as_rows(embeddings: Any, dim: int, metric: str) -> jax.Array:
  """Embeddings `[B, ...]` as float32 rows `[B, d]`, cut off from differentiation."""
  embeddings = _inputs.floating("embeddings", embeddings)
  found = embeddings.shape
  if len(found) < 2 or found[0] == 0 or math.prod(found[1:]) != dim:
    raise ValueError(
      f"embeddings must be [B, ...] with {dim} numbers for each example, as the state was made for,"
      f" but shape {found} was found. For embeddings of another width: {WAY_OUT}"
    )
  _check_width(dim, metric)
  x = jax.lax.stop_gradient(embeddings)
  return x.reshape(found[0], dim).astype(jnp.float32)


def _check_width(dim: int, metric: str) -> None:
  """One number has no direction but its sign: rare and frequent would be the same."""
  if metric == "cosine" and dim == 1:
    raise ValueError(
      "embeddings of metric='cosine' must have 2 numbers or more for each example, but 1 was found:"
      " all of one sign have the same direction. Use metric='euclidean', or embeddings of more."
    )
