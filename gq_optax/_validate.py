# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What comes in, checked when a program is traced, and made into JAX arrays.

NumPy arrays, lists of numbers and Python numbers are as good as JAX arrays; behind the entrance
there are only those. A message names the parameter, the rule, what was found, and the way out.
"""

import math
import numbers
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType

from gq_optax import _boxes

_LARGEST = float(np.finfo(np.float32).max)


def require(holds: Any, name: str, rule: str, found: Any, way_out: str = "", verb="was") -> None:
  """Raises ValueError where a rule does not hold."""
  if not holds:
    raise ValueError(f"{name} must {rule}, but {found} {verb} found.{' ' * bool(way_out)}{way_out}")


# Options, known when a program is traced.


def static_int(name: str, value: Any, minimum: int) -> int:
  """A Python integer of at least `minimum`."""
  traced = isinstance(value, jax.Array)
  found = f"a JAX array of type {jax.typeof(value)}" if traced else ""
  way_out = "Under optax.inject_hyperparams list it in static_args."
  require(not traced, f"{name} fixes array shapes and", "be a Python int", found, way_out)
  integral = isinstance(value, numbers.Integral) and not isinstance(value, bool)
  require(integral, name, "be an int", repr(value))
  require(value >= minimum, name, f"be at least {minimum}", value)
  return int(value)


def number(name: str, value: Any, low: float, high: float = math.inf, *, open_low=False) -> None:
  """A number within bounds. Arrays may be traced: they pass, and are clamped where used."""
  if isinstance(value, np.ndarray) and value.ndim == 0:
    value = value.item()
  if isinstance(value, jax.Array):
    require(value.ndim == 0, name, "be a scalar", f"shape {value.shape}")
    return
  is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
  require(is_number, name, "be a real number", repr(value))
  above = float(value) > low if open_low else float(value) >= low
  interval = f"{'(' if open_low else '['}{low}, {high}{')' if high == math.inf else ']'}"
  # What float32 does not hold would be infinite. Written so that NaN fails.
  require(above and float(value) <= min(high, _LARGEST), name, f"be in {interval}", value)


def is_zero(value: Any) -> bool:
  """Whether a number is known to be 0 when a program is traced; arrays of JAX are not looked at."""
  return not isinstance(value, jax.Array) and float(value) == 0.0


def flag(name: str, value: Any) -> None:
  """True or False."""
  require(isinstance(value, bool | np.bool_), name, "be True or False", repr(value))


def one_of(name: str, value: Any, choices: tuple[str, ...]) -> None:
  """One of the given strings."""
  known = isinstance(value, str) and value in choices
  require(known, name, f"be one of {choices}", repr(value))


def function(name: str, value: Any) -> None:
  """A callable."""
  require(callable(value), name, "be a function", repr(value))


def instance(name: str, value: Any, kind: type) -> None:
  """An instance of one of our classes."""
  rule = f"be {'an' if kind.__name__[0] in 'AEIOU' else 'a'} {kind.__name__}, as init returns it"
  require(isinstance(value, kind), name, rule, type(value).__name__)


def axis_name(name: str, value: Any) -> None:
  """None, the name of an axis, or a tuple of names."""
  names = value if isinstance(value, tuple) and value else (value,)
  known = value is None or all(isinstance(n, str) and n for n in names)
  require(known, name, "be the name of an axis or a tuple of names", repr(value))


def storage_dtype(name: str, value: Any) -> None:
  """A real floating dtype with zero and sign."""
  if isinstance(value, jax.Array | np.ndarray):
    found = f"an array {value.dtype}{list(value.shape)}"
    way_out = "Under optax.inject_hyperparams list it in static_args."
    require(False, name, "be a dtype", found, way_out)
  try:
    dtype: Any = jnp.dtype(value)
  except TypeError:
    dtype = None
  real = dtype is not None and jnp.issubdtype(dtype, jnp.floating)
  require(real, name, "be a real floating dtype", value if dtype is None else dtype)
  signed = np.array([0.0, -1.0]).astype(dtype).astype(np.float64).tolist() == [0.0, -1.0]
  require(signed, name, "hold 0 and negative numbers", dtype)


# Words of a raw key, and the implementation that makes it where it is not the default one.
_RAW_KEYS = {2: "threefry2x32", 4: "rbg"}


def key(name: str, value: Any) -> None:
  """An int (also a traced one), a typed PRNG key, or a raw uint32 key. Makes no array."""
  if isinstance(value, jax.Array | np.ndarray | np.generic):
    typed = jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
    scalar = value.shape == () and (typed or jnp.issubdtype(value.dtype, jnp.integer))
    raw = value.ndim == 1 and value.shape[0] in _RAW_KEYS and value.dtype == jnp.uint32
    known = scalar or raw
  else:
    known = type(value) is int and -(2**63) <= value < 2**63
  # Only where it is refused: what an array holds would have to come from the device.
  require(known, name, "be an int or one PRNG key", "" if known else repr(value))


def prng_key(name: str, value: Any) -> jax.Array:
  """A typed PRNG key out of anything that `key` accepts."""
  key(name, value)
  if getattr(value, "ndim", 0) == 1:
    default = jax.random.key(0)
    same = jax.random.key_data(default).shape == value.shape
    kind = jax.random.key_impl(default) if same else _RAW_KEYS[value.shape[0]]
    return jax.random.wrap_key_data(jnp.asarray(value), impl=kind)
  if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
    return value
  return jax.random.key(value)


# Arrays.


def array(name: str, value: Any) -> jax.Array:
  """A JAX array of an array, of a number, or of lists of numbers."""
  if isinstance(value, jax.Array):
    return value
  listed = isinstance(value, list | tuple) and any(isinstance(v, str) for v in value)
  text = listed or getattr(getattr(value, "dtype", None), "kind", "") in ("U", "S")
  try:
    if not text:  # JAX may take it for the name of a dtype
      # By way of NumPy a number has a dtype of its own, as arrays have, and not a weak one.
      return jnp.asarray(np.asarray(value) if isinstance(value, bool | int | float) else value)
  except (TypeError, ValueError, OverflowError):
    pass
  is_array = isinstance(value, np.ndarray | np.generic)
  found = f"an array of dtype {value.dtype}" if is_array else type(value).__name__
  labels = "np.unique(labels, return_inverse=True)[1] numbers them."
  require(False, name, "be numbers", found, labels if text and name == "labels" else "")
  raise AssertionError


def _of_kind(name: str, value: Any, rule: str, *kinds: Any) -> jax.Array:
  # A `jax.ShapeDtypeStruct` passes as it is.
  result: Any = value if isinstance(value, jax.ShapeDtypeStruct) else array(name, value)
  known = any(jnp.issubdtype(result.dtype, kind) for kind in kinds)
  require(known, name, rule, result.dtype)
  return result


def floating(name: str, value: Any) -> jax.Array:
  """A JAX array of real floating dtype."""
  return _of_kind(name, value, "have a real floating dtype", jnp.floating)


def real(name: str, value: Any) -> jax.Array:
  """A JAX array of real numbers: floating, integer or bool."""
  return _of_kind(name, value, "be real", jnp.floating, jnp.integer, jnp.bool_)


def integer(name: str, value: Any) -> jax.Array:
  """A JAX array of integer dtype, of 32 bits or more: uint8 could not be compared with 256."""
  result = _of_kind(name, value, "have an integer dtype", jnp.integer)
  return result.astype(jnp.int32) if result.dtype.itemsize < 4 else result


def shape(name: str, value: Any, rule: str, expected: tuple[int | None, ...]) -> None:
  """An array of the expected shape, where None stands for any size."""
  found = jnp.shape(array(name, value))
  fits = len(found) == len(expected) and all(
    e is None or e == f for e, f in zip(expected, found, strict=True)
  )
  require(fits, name, f"be {rule}", f"shape {found}")


def mask(name: str, value: Any, *expected: int) -> jax.Array:
  """Which of the examples are there, bool `[B]` or of any shape; all where it is None."""
  if value is None:
    return jnp.ones(expected, bool)
  rule = f"[B] with B = {expected[0]}" if len(expected) == 1 else f"of shape {expected}"
  shape(name, value, rule, expected)
  result = array(name, value)
  require(result.dtype == jnp.bool_, name, "be bool", result.dtype)
  return result


def counts(name: str, value: Any) -> jax.Array:
  """How many examples each class has, or its share, float32 `[C]`; above zero, as is documented."""
  result = real(name, value).astype(jnp.float32)
  is_row = result.ndim == 1 and result.size > 0
  require(is_row, name, "be [C], one for each class", f"shape {result.shape}")
  if not isinstance(value, jax.core.Tracer):  # NumPy's also inside of a program that is traced
    for count in np.asarray(value).tolist():
      require(0.0 <= count < np.inf, name, "be finite and at least 0", count)
  seen = jnp.logical_and(jnp.isfinite(result), result > 0.0)
  rarest = jnp.min(jnp.where(seen, result, jnp.inf))
  return jnp.where(seen, result, jnp.minimum(rarest, 1.0))


def static_shape(name: str, found: tuple[Any, ...]) -> None:
  """No symbolic size of `jax.export`."""
  static = all(isinstance(size, int) for size in found)
  require(static, name, "have a static shape", found, "Export for a batch of fixed size.")


def explicit_axes(x: Any) -> list[str]:
  """The explicit axes of a mesh that an array is cut over; XLA does not divide the work there."""
  sharding: Any = jax.typeof(x).sharding
  kinds = dict(zip(sharding.mesh.axis_names, sharding.mesh.axis_types, strict=True))
  cut_over = jax.tree.leaves(tuple(sharding.spec))
  return [axis for axis in cut_over if kinds.get(axis) == AxisType.Explicit]


def on_auto_axes(name: str, tree: Any) -> None:
  """No array that is cut over explicit axes of a mesh."""
  found = sorted({axis for x in jax.tree.leaves(tree) for axis in explicit_axes(x)})
  require(
    *(not found, name, "lie on axes of AxisType.Auto", f"cut over explicit axes {found}"),
    "Use jax.make_mesh(shape, names, axis_types=(AxisType.Auto, ...)), or jax.sharding.auto_axes"
    " around the call.",
  )


# Trees of arrays.


def path_name(path: tuple[Any, ...]) -> str:
  """A path as it stands in messages."""
  return jax.tree_util.keystr(path) or "the root"


def _map(rule: Callable[[str, Any], Any], name: str, tree: Any) -> Any:
  """Every leaf by its rule and name; boxes of Flax leave no trace in the paths."""
  inside = lambda path, node: jax.tree.map(lambda x: rule(f"{name} at {path_name(path)}", x), node)
  return jax.tree_util.tree_map_with_path(inside, tree, is_leaf=_boxes.is_box)


def parameters(name: str, tree: Any) -> Any:
  """A pytree of real floating leaves; `jax.ShapeDtypeStruct`s pass as they are."""
  try:
    return _map(floating, f"{name}: the parameter", tree)
  except ValueError as error:
    hint = "Filter the model: a transformation takes its trained arrays alone."
    raise ValueError(f"{error} {hint}") from None


def gradients(name: str, tree: Any) -> Any:
  """A pytree of real floating leaves, for the parameters."""
  return _map(floating, f"{name}: the update", tree)


def state(name: str, tree: Any) -> Any:
  """A state whose leaves may be NumPy's, as after some ways of loading it."""
  return _map(array, name, tree)


def batch(name: str, tree: Any) -> Any:
  """A pytree of arrays of any dtype, random keys among them; or of `jax.ShapeDtypeStruct`s."""
  is_sparse = lambda node: hasattr(type(node), "todense")  # of `jax.experimental.sparse`
  for path, node in jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_sparse):
    found = f"{type(node).__name__} at {path_name(path)}"
    require(not is_sparse(node), name, "hold dense arrays", found, "Give its todense().")
  leaf = lambda name, x: x if isinstance(x, jax.ShapeDtypeStruct) else array(name, x)
  return _map(leaf, name, tree)
