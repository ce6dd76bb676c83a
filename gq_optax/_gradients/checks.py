# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What a per-example loss function must return, checked when it is traced."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gq_optax import _axes, _dtypes, _inputs, _validate


def arrays(params: optax.Params, batch: Any) -> tuple[optax.Params, Any]:
  """Parameters and batch as JAX arrays, or refused by path.

  Under `shard_map` the parameters are made this device's own: of parameters that all devices share,
  JAX would add up the gradients of all devices.
  """
  batch = _inputs.batch("batch", batch)
  if not jax.tree.leaves(params):
    raise ValueError(f"params must hold at least one array, but {params!r} was found.")
  return _axes.alike(_inputs.parameters("params", params), batch), batch


def batch_size(batch: Any) -> int:
  """The leading axis B that all leaves of a batch share."""
  shapes = {jnp.shape(x)[:1] for x in jax.tree.leaves(batch)}
  if len(shapes) != 1 or shapes <= {(), (0,)}:
    found = [jnp.shape(x) for x in jax.tree.leaves(batch)]
    raise ValueError(
      f"every leaf of batch must have the same leading axis B > 0, but shapes {found} were found."
    )
  return shapes.pop()[0]


def check(
  loss_fn: Callable[..., Any], params: optax.Params, batch: Any, has_aux: bool, second: str = "aux"
) -> tuple[jnp.dtype, Any]:
  """Checks parameters and result of `loss_fn`.

  Returns:
    The dtype that its losses are summed in, float32 or wider, and the shapes of `aux` or None.
  """
  _inputs.parameters("params", params)
  size = batch_size(batch)
  result = jax.eval_shape(loss_fn, params, batch)
  rule = f"loss_fn must return one floating loss per example, shape ({size},)"
  losses, aux = result, None
  if has_aux:
    if not isinstance(result, tuple) or len(result) != 2:
      raise ValueError(f"loss_fn must return a pair (losses, {second}), but {result} was found.")
    losses, aux = result
    for path, leaf in jax.tree_util.tree_leaves_with_path(aux):
      if leaf.shape[:1] != (size,):
        raise ValueError(
          f"{second} of loss_fn must have one entry per example, leading axis {size}, but at"
          f" {jax.tree_util.keystr(path) or 'the root'} shape {leaf.shape} was found."
        )
  if not isinstance(losses, jax.ShapeDtypeStruct):
    pair = isinstance(losses, tuple) and len(losses) == 2
    hint = " For (losses, aux) there is has_aux=True of gq.grouped_value_and_grad." if pair else ""
    raise ValueError(f"{rule}, but {losses} was found.{hint}")
  if losses.shape != (size,) or not jnp.issubdtype(losses.dtype, jnp.floating):
    raise ValueError(f"{rule}, but {losses.dtype} of shape {losses.shape} was found.")
  return _dtypes.at_least_float32(losses.dtype), aux


def of_one(losses: jax.Array) -> jax.Array:
  """The loss of the one example of a batch."""
  if losses.shape != (1,):
    raise ValueError(
      "loss_fn must return one loss per example of any batch, shape (1,) of a batch of one, but"
      f" shape {losses.shape} was found. jnp.squeeze without axis= is a frequent cause."
    )
  return losses[0].astype(_dtypes.at_least_float32(losses.dtype))


def labels(labels: Any, size: int, num_groups: int) -> jax.Array:
  """Labels `[B]` as int32 in `[0, K]`, K for an example of no group."""
  _validate.shape("labels", labels, f"[B] with B = {size}", (size,))
  labels = _inputs.integer("labels", labels)
  inside = jnp.logical_and(labels >= 0, labels < num_groups)
  return jnp.where(inside, labels.astype(jnp.int32), num_groups)
