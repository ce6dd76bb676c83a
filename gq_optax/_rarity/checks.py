# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What comes in: embeddings of any shape as rows, first centroids, and states."""

import math
import numbers
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gq_optax import _validate
from gq_optax._rarity import lloyd

_WAY_OUT = "Make one by scarcity.init(d): the queue fills again in a few steps."


def embedding_dim(template: Any, metric: str) -> int:
  """The d of an int, or of what `update` will get, `[B, ...]`."""
  shape = tuple(getattr(template, "shape", ()))
  if shape == () and isinstance(template, jax.Array) and not isinstance(template, jax.core.Tracer):
    template = template.item()
  is_int = shape == () and isinstance(template, numbers.Integral | jax.Array)
  rule = "be [B, ...], what update gets, or the length of an embedding as an int"
  _validate.require(
    *(is_int or len(shape) > 1, "embedding_dim_or_template as the template of init", rule),
    f"shape {shape}" if shape else type(template).__name__,
    "Weights for examples are no gradient transformation: init takes no parameters, and they stand"
    " beside the optimizer, not in optax.chain.",
  )
  name = "embedding_dim_or_template" if is_int else "the numbers of an embedding"
  dim = _validate.static_int(name, template if is_int else math.prod(shape[1:]), 1)
  _check_width(dim, metric)
  return dim


def as_rows(embeddings: Any, dim: int, metric: str) -> jax.Array:
  """Embeddings `[B, ...]` as float32 rows `[B, d]`, cut off from differentiation."""
  embeddings = _validate.floating("embeddings", embeddings)
  found = embeddings.shape
  _validate.static_shape("embeddings", found)
  _validate.on_auto_axes("embeddings", embeddings)
  filled, wide = found[:1] != (0,), len(found) > 1 and math.prod(found[1:]) == dim
  rule, hint = "be [B, ...] with B at least 1", "Leave out the step of an empty batch."
  _validate.require(filled, "embeddings", rule, f"shape {found}", hint)
  rule = f"be [B, ...] with {dim} numbers for each example, as the state was made for"
  hint = f"For embeddings of another width: {_WAY_OUT}"
  _validate.require(wide, "embeddings", rule, f"shape {found}", hint)
  _check_width(dim, metric)
  return jax.lax.stop_gradient(embeddings).reshape(found[0], dim).astype(jnp.float32)


def first_centroids(centroids: Any, num_groups: int, metric: str) -> jax.Array:
  """Where groups begin, float32 `[K, d]`; rows of length one under the cosine metric."""
  _validate.shape("centroids", centroids, f"[K, d] = [{num_groups}, d]", (num_groups, None))
  rows = _validate.real("centroids", centroids).astype(jnp.float32)
  finite = jnp.all(jnp.isfinite(rows), axis=1)
  if not isinstance(finite, jax.core.Tracer):
    found = f"NaN or Inf in {int(jnp.sum(~finite))} of {num_groups} rows"
    way_out = "Compute them from embeddings that are finite."
    _validate.require(jnp.all(finite), "centroids", "be finite", found, way_out)
  rows = jax.lax.stop_gradient(jnp.where(finite[:, None], rows, 0.0))
  return lloyd.unit_rows(rows)[0] if metric == "cosine" else rows


def check_centroids(centroids: jax.Array | None, dim: int) -> None:
  """Raises ValueError unless the centroids, if there are any, are as wide as embeddings."""
  if centroids is not None:
    rule = f"be [K, d] with the {dim} numbers of an embedding"
    found, way_out = f"shape {centroids.shape}", "Compute them from embeddings of the same kind."
    _validate.require(centroids.shape[1] == dim, "centroids", rule, found, way_out)


def state_of(
  name: str, kind: Any, state: Any, options: Callable[[Any], list[tuple[str, Any, Any]]]
) -> Any:
  """The state as JAX arrays; raises ValueError with the name of an option that is not the state's.

  Args:
    name: the function that makes states of that kind.
    kind: their class.
    state: what `update` was given.
    options: from a state to rows of an option, what it is, and what was found in the state.
  """
  _validate.instance("state", state, kind)
  for option, wanted, found in options(state):
    rule = f"have been made with the options of this {name}, {option}={wanted}"
    _validate.require(wanted == found, "state", rule, found, _WAY_OUT)
  return jax.lax.stop_gradient(_validate.state("state", state))


def _check_width(dim: int, metric: str) -> None:
  """One number has no direction but its sign: rare and frequent would be the same."""
  name, rule = "embeddings of metric='cosine'", "have 2 numbers or more for each example"
  way_out = (
    "All of one sign have the same direction: use metric='euclidean', or embeddings of more."
  )
  _validate.require(metric != "cosine" or dim > 1, name, rule, 1, way_out)
