# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What comes in, made into JAX arrays at the entrance, or refused by name and path.

NumPy arrays, lists of numbers and Python numbers are as good as JAX arrays; behind the entrance
there are only those.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType

from gq_optax import _boxes


def array(name: str, value: Any) -> jax.Array:
  """A JAX array of an array, of a number, or of lists of numbers."""
  if isinstance(value, jax.Array):
    return value
  dtype = getattr(value, "dtype", None)
  listed = isinstance(value, list | tuple) and any(isinstance(v, str) for v in value)
  text = listed or getattr(dtype, "kind", "") in ("U", "S")
  try:
    if not text:  # JAX may take it for the name of a dtype
      # By way of NumPy a number has a dtype of its own, as arrays have, and not a weak one.
      return jnp.asarray(np.asarray(value) if isinstance(value, bool | int | float) else value)
  except (TypeError, ValueError, OverflowError):
    pass
  is_array = isinstance(value, np.ndarray | np.generic)
  found = f"an array of dtype {dtype}" if is_array else type(value).__name__
  numbered = text and name == "labels"
  hint = " np.unique(labels, return_inverse=True)[1] numbers them." if numbered else ""
  raise ValueError(f"{name} must be numbers, but {found} was found.{hint}")


def floating(name: str, value: Any) -> jax.Array:
  """A JAX array of real floating dtype; a `jax.ShapeDtypeStruct` passes as it is."""
  result: Any = value if isinstance(value, jax.ShapeDtypeStruct) else array(name, value)
  if not jnp.issubdtype(result.dtype, jnp.floating):
    raise ValueError(f"{name} must have a real floating dtype, but {result.dtype} was found.")
  return result


def explicit_axes(x: Any) -> list[str]:
  """The explicit axes of a mesh that an array is cut over; XLA does not divide the work there."""
  sharding: Any = jax.typeof(x).sharding
  kinds = dict(zip(sharding.mesh.axis_names, sharding.mesh.axis_types, strict=True))
  cut_over = jax.tree.leaves(tuple(sharding.spec))
  return [axis for axis in cut_over if kinds.get(axis) == AxisType.Explicit]


def on_auto_axes(name: str, tree: Any) -> None:
  """Refuses arrays that are cut over explicit axes of a mesh."""
  found = sorted({axis for x in jax.tree.leaves(tree) for axis in explicit_axes(x)})
  if found:
    raise ValueError(
      f"{name} must lie on axes of AxisType.Auto, but explicit axes {found} were found. Use"
      " jax.make_mesh(shape, names, axis_types=(AxisType.Auto, ...)), or jax.sharding.auto_axes"
      " around the call."
    )


def static(name: str, shape: tuple[Any, ...]) -> None:
  """Refuses the symbolic sizes of `jax.export`."""
  if not all(isinstance(size, int) for size in shape):
    raise ValueError(
      f"{name} must have a static shape, but {shape} was found. Export for a batch of fixed size."
    )


def real(name: str, value: Any) -> jax.Array:
  """A JAX array of real numbers: floating, integer or bool."""
  result = array(name, value)
  if not any(jnp.issubdtype(result.dtype, kind) for kind in (jnp.bool_, jnp.integer, jnp.floating)):
    raise ValueError(f"{name} must be real, but {result.dtype} was found.")
  return result


def integer(name: str, value: Any) -> jax.Array:
  """A JAX array of integer dtype."""
  result = array(name, value)
  if not jnp.issubdtype(result.dtype, jnp.integer):
    raise ValueError(f"{name} must have an integer dtype, but {result.dtype} was found.")
  return result


def counts(name: str, value: Any) -> jax.Array:
  """How many examples each class has, or its share, float32 `[C]`; above zero, as is documented."""
  result = real(name, value).astype(jnp.float32)
  if result.ndim != 1 or result.size == 0:
    raise ValueError(f"{name} must be [C], one for each class, but shape {result.shape} was found.")
  if not isinstance(value, jax.core.Tracer):  # NumPy's also inside of a program that is traced
    for count in np.asarray(value).tolist():
      if not 0.0 <= count < np.inf:
        raise ValueError(f"{name} must be finite and at least 0, but {count} was found.")
  good = jnp.logical_and(jnp.isfinite(result), result >= 0.0)
  seen = jnp.logical_and(good, result > 0.0)
  rarest = jnp.min(jnp.where(seen, result, jnp.inf))
  return jnp.where(seen, result, jnp.minimum(rarest, 1.0))


def mask(name: str, value: Any, *shape: int) -> jax.Array:
  """Which of the examples are there, bool `[B]` or of any shape; all where it is None."""
  if value is None:
    return jnp.ones(shape, bool)
  result = array(name, value)
  if result.shape != shape:
    rule = f"[B] with B = {shape[0]}" if len(shape) == 1 else f"of shape {shape}"
    raise ValueError(f"{name} must be {rule}, but shape {result.shape} was found.")
  if result.dtype != jnp.bool_:
    raise ValueError(f"{name} must be bool, but {result.dtype} was found.")
  return result


def parameters(name: str, tree: Any) -> Any:
  """A pytree of real floating leaves; `jax.ShapeDtypeStruct`s pass as they are."""

  def leaf(path, value):
    try:
      return floating(f"{name}: the parameter at {place(path)}", value)
    except ValueError as error:
      hint = "Filter the model: a transformation takes its trained arrays alone."
      raise ValueError(f"{error} {hint}") from None

  return _map(leaf, tree)


def gradients(name: str, tree: Any) -> Any:
  """A pytree of real floating leaves, for the parameters."""
  return _map(lambda path, value: floating(f"{name}: the update at {place(path)}", value), tree)


def batch(name: str, tree: Any) -> Any:
  """A pytree of arrays of any dtype, random keys among them; or of `jax.ShapeDtypeStruct`s."""

  def leaf(path, value):
    is_shape = isinstance(value, jax.ShapeDtypeStruct)
    return value if is_shape else array(f"{name} at {place(path)}", value)

  for path, node in jax.tree_util.tree_leaves_with_path(tree, is_leaf=_is_sparse):
    if _is_sparse(node):
      raise ValueError(
        f"{name} must hold dense arrays, but {type(node).__name__} was found at {place(path)}. Give"
        " its todense()."
      )
  return _map(leaf, tree)


def state(name: str, tree: Any) -> Any:
  """A state whose leaves may be NumPy's, as after some ways of loading it."""
  return _map(lambda path, value: array(f"{name} at {place(path)}", value), tree)


def _is_sparse(node):
  """An array of `jax.experimental.sparse`, which is not imported for that."""
  return hasattr(type(node), "todense")


def _map(leaf, tree):
  """`tree_map_with_path`, but boxes of Flax leave no trace in the paths."""
  inside = lambda path, node: jax.tree.map(lambda value: leaf(path, value), node)
  return jax.tree_util.tree_map_with_path(inside, tree, is_leaf=_boxes.is_box)


def place(path: tuple[Any, ...]) -> str:
  """A path as it stands in messages."""
  return jax.tree_util.keystr(path) or "the root"
