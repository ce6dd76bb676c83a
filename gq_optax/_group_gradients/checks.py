# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What a loss function of single examples must take and return, checked when it is traced."""

import contextlib
import itertools
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from gq_optax import _axes, _dtypes, _validate
from gq_optax._group_gradients import jaxprs
from gq_optax._validate import require


def inputs(loss_fn: Any, params: Any, batch: Any, second: str = "") -> tuple[Any, Any, int]:
  """Parameters and batch as JAX arrays, and the batch size B; or refused, as the loss may be.

  Under `shard_map` the parameters are made this device's own: of parameters that all devices share,
  JAX would add up the gradients of all devices.

  Args:
    loss_fn: `(params, batch) -> losses [B]`, or `(losses, second)`.
    params: pytree of floating arrays.
    batch: pytree of `[B, ...]` arrays.
    second: what `loss_fn` returns beside the losses, if it does.
  """
  batch = _validate.batch("batch", batch)
  leaves, structure = jax.tree.flatten(params)
  require(leaves, "params", "hold at least one array", structure)
  params = _axes.alike(_validate.parameters("params", params), batch)
  shapes = [jnp.shape(x) for x in jax.tree.leaves(batch)]
  fits = len({s[:1] for s in shapes}) == 1 and shapes[0][:1] not in ((), (0,))
  rule = "have the same leading axis B > 0"
  require(fits, "every leaf of batch", rule, f"shapes {shapes}", verb="were")
  size, losses = shapes[0][0], jax.eval_shape(loss_fn, params, batch)
  is_pair = isinstance(losses, tuple) and len(losses) == 2
  hint = "For (losses, aux) there is has_aux=True of gq.grouped_value_and_grad." if is_pair else ""
  if second:
    require(is_pair, "loss_fn", f"return a pair (losses, {second})", losses)
    losses, more = losses
    rule = f"have one entry per example, leading axis {size}"
    for path, x in jax.tree_util.tree_leaves_with_path(more):
      where = jax.tree_util.keystr(path) or "the root"
      require(x.shape[:1] == (size,), f"{second} of loss_fn", rule, f"at {where} shape {x.shape}")
  rule = f"return one floating loss per example, shape ({size},)"
  require(isinstance(losses, jax.ShapeDtypeStruct), "loss_fn", rule, losses, hint)
  fits = losses.shape == (size,) and jnp.issubdtype(losses.dtype, jnp.floating)
  require(fits, "loss_fn", rule, f"{losses.dtype} of shape {losses.shape}")
  _warn_of_pairs(loss_fn, params, batch)
  return params, batch, size


def _warn_of_pairs(loss_fn, params, batch):
  """Warns where the loss compares the examples of a batch with each other, as contrastive ones do.

  Such a loss has an array with two axes of the size of the batch.
  """
  leaves = jax.tree.leaves((params, batch))
  if any(_axes.varies_over(x) or _validate.explicit_axes(x) for x in leaves):
    return  # of no use where arrays have no plain type that another size could have
  sizes = {n for x in leaves for n in x.shape}
  size = next(n for n in itertools.count(97, 2) if n not in sizes)  # that of no other axis
  like = jax.tree.map(lambda x: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype), batch)
  eqns = jaxprs.all_equations(jax.make_jaxpr(loss_fn)(params, like).eqns)
  if any(getattr(v.aval, "shape", ()).count(size) > 1 for e in eqns for v in e.outvars):
    warnings.warn(
      "loss_fn seems to compare the examples of a batch with each other. Every example is run as a"
      " batch of one here: a contrastive loss is then constant, and its gradient 0. Use weights of"
      " examples instead: gq.example_scarcity.",
      stacklevel=4,
    )


def no_collectives(program: core.Jaxpr) -> None:
  """Refuses a linearized loss that exchanges tangents: each device has groups of its own."""
  names = ("psum", "pmax", "pmin", "ppermute", "all_gather", "all_to_all", "reduce_scatter")
  found = ", ".join(sorted(n for n in jaxprs.operations(program.eqns) if n.startswith(names)))
  rule = "not exchange between devices what hangs on the parameters"
  hint = "Gather parameters before, and put statistics of the batch in jax.lax.stop_gradient."
  require(not found, "loss_fn", rule, found, hint)


def of_one(loss_fn: Callable[..., Any], has_aux: bool = False) -> Callable[..., tuple[Any, Any]]:
  """`(params, example) -> (loss, aux)` of a batch of one."""

  def loss(params, example):
    result = loss_fn(params, jax.tree.map(lambda x: x[None], example))
    losses, aux = result if has_aux else (result, None)
    rule = "return one loss per example of any batch, shape (1,) of a batch of one"
    hint = "jnp.squeeze without axis= is a frequent cause."
    require(losses.shape == (1,), "loss_fn", rule, f"shape {losses.shape}", hint)
    dtype = _dtypes.at_least_float32(losses.dtype)
    return losses[0].astype(dtype), jax.tree.map(lambda x: x[0], aux)

  return loss


@contextlib.contextmanager
def batched():
  """Around what runs the loss under `jax.vmap`, since every example is run as a batch of one."""
  try:
    yield
  except NotImplementedError as error:
    rule, hint = "loss_fn must be one that jax.vmap can batch", "gq.example_scarcity does without."
    raise ValueError(f"{rule}, but JAX has no rule: {error}. {hint}") from error


def labels(labels: Any, size: int, num_groups: int) -> jax.Array:
  """Labels `[B]` as int32 in `[0, K]`, K for an example of no group."""
  _validate.shape("labels", labels, f"[B] with B = {size}", (size,))
  labels = _validate.integer("labels", labels)
  inside = (labels >= 0) & (labels < num_groups)
  return jnp.where(inside, labels, num_groups).astype(jnp.int32)
