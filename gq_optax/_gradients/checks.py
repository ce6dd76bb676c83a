# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What a per-example loss function must return, checked when it is traced."""

import contextlib
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.extend import core

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
  warn_of_pairs(loss_fn, params, batch)
  return _dtypes.at_least_float32(losses.dtype), aux


@contextlib.contextmanager
def batched():
  """Around what runs the loss under `jax.vmap`."""
  try:
    yield
  except NotImplementedError as error:
    raise ValueError(
      "loss_fn must be one that jax.vmap can batch, since every example is run as a batch of one,"
      f" but JAX has no rule: {error}. Weights for examples do without: gq.example_scarcity."
    ) from error


# A size that no other axis of a batch or of parameters has.
_PRIMES = (97, 101, 103, 107, 109, 113, 127, 131)


def warn_of_pairs(loss_fn: Callable[..., Any], params: optax.Params, batch: Any) -> None:
  """Warns where the loss compares the examples of a batch with each other, as contrastive ones do.

  Such a loss has an array with two axes of the size of the batch.
  """
  leaves = jax.tree.leaves((params, batch))
  if any(_axes.varies_over(x) or _inputs.explicit_axes(x) for x in leaves):
    return  # of no use where arrays have no plain type that another size could have
  sizes = {n for x in leaves for n in x.shape}
  size = next(n for n in _PRIMES if n not in sizes)
  rows = jax.tree.map(lambda x: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype), batch)

  def pairs(program):
    made = [getattr(v.aval, "shape", ()) for e in program.eqns for v in e.outvars]
    return any(shape.count(size) > 1 for shape in made) or any(
      map(pairs, (inner for e in program.eqns for inner in programs(e)))
    )

  if pairs(jax.make_jaxpr(loss_fn)(params, rows).jaxpr):
    warnings.warn(
      "loss_fn seems to compare the examples of a batch with each other. Every example is run as a"
      " batch of one here: a contrastive loss is then constant, and its gradient 0. Use weights of"
      " examples instead: gq.example_scarcity.",
      stacklevel=4,
    )


def programs(eqn: Any) -> list[Any]:
  """The programs in an equation: bodies of loops, branches, what is computed again."""
  is_program = lambda x: isinstance(x, core.Jaxpr | core.ClosedJaxpr)
  found = jax.tree.leaves(list(eqn.params.values()), is_leaf=is_program)
  return [getattr(x, "jaxpr", x) for x in found if is_program(x)]


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
  # Compared as int32 or wider: uint8 holds no 256. Of wider ones a cast would wrap.
  wide = (
    labels if labels.dtype.itemsize > 4 or labels.dtype == jnp.uint32 else labels.astype(jnp.int32)
  )
  inside = jnp.logical_and(wide >= 0, wide < num_groups)
  return jnp.where(inside, wide.astype(jnp.int32), num_groups)
