# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Checks at trace time. A message names the parameter, the rule, and what was found."""

import math
import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gq_optax import _inputs
from gq_optax._inputs import floating as floating
from gq_optax._inputs import integer as integer

_LARGEST = float(np.finfo(np.float32).max)


def static_int(name: str, value: Any, minimum: int) -> int:
  """A Python integer of at least `minimum`."""
  if isinstance(value, jax.Array):
    raise ValueError(
      f"{name} fixes array shapes and must be a Python int, but a JAX array of type"
      f" {jax.typeof(value)} was found. Under optax.inject_hyperparams list it in static_args."
    )
  if isinstance(value, bool) or not isinstance(value, numbers.Integral):
    raise ValueError(f"{name} must be an int, but {value!r} was found.")
  if value < minimum:
    raise ValueError(f"{name} must be at least {minimum}, but {value} was found.")
  return int(value)


def real(name: str, value: Any, low: float, high: float = math.inf, *, open_low=False) -> None:
  """A number within bounds. Arrays may be traced: they pass, and are clamped where used."""
  if isinstance(value, np.ndarray) and value.ndim == 0:
    value = value.item()
  if isinstance(value, jax.Array):
    if value.ndim:
      raise ValueError(f"{name} must be a scalar, but shape {value.shape} was found.")
    return
  if isinstance(value, bool) or not isinstance(value, numbers.Real):
    raise ValueError(f"{name} must be a real number, but {value!r} was found.")
  number = float(value)
  above = number > low if open_low else number >= low
  # What float32 does not hold would be infinite. Written so that NaN fails.
  if not (above and number <= min(high, _LARGEST)):
    interval = f"{'(' if open_low else '['}{low}, {high}{')' if high == math.inf else ']'}"
    raise ValueError(f"{name} must be in {interval}, but {value} was found.")


def is_zero(value: Any) -> bool:
  """Whether a number is known to be 0 when a program is traced; arrays of JAX are not looked at."""
  return not isinstance(value, jax.Array) and float(value) == 0.0


def flag(name: str, value: Any) -> None:
  """True or False."""
  if not isinstance(value, bool | np.bool_):
    raise ValueError(f"{name} must be True or False, but {value!r} was found.")


def one_of(name: str, value: Any, choices: tuple[str, ...]) -> None:
  """One of the given strings."""
  if not isinstance(value, str) or value not in choices:
    raise ValueError(f"{name} must be one of {choices}, but {value!r} was found.")


def shape(name: str, value: Any, rule: str, expected: tuple[int | None, ...]) -> None:
  """An array of the expected shape, where None stands for any size."""
  found = jnp.shape(_inputs.array(name, value))
  fits = len(found) == len(expected) and all(
    e is None or e == f for e, f in zip(expected, found, strict=True)
  )
  if not fits:
    raise ValueError(f"{name} must be {rule}, but shape {found} was found.")


def storage_dtype(name: str, value: Any) -> None:
  """A real floating dtype with zero and sign."""
  if isinstance(value, jax.Array | np.ndarray):
    raise ValueError(
      f"{name} must be a dtype, but an array {value.dtype}{list(value.shape)} was found. Under"
      " optax.inject_hyperparams list it in static_args."
    )
  try:
    dtype = jnp.dtype(value)
  except TypeError:
    raise ValueError(f"{name} must be a real floating dtype, but {value} was found.") from None
  if not jnp.issubdtype(dtype, jnp.floating):
    raise ValueError(f"{name} must be a real floating dtype, but {dtype} was found.")
  if np.array([0.0, -1.0]).astype(dtype).astype(np.float64).tolist() != [0.0, -1.0]:
    raise ValueError(f"{name} must hold 0 and negative numbers, but {dtype} was found.")


def instance(name: str, value: Any, kind: type) -> None:
  """An instance of one of our classes."""
  if not isinstance(value, kind):
    article, found = "an" if kind.__name__[0] in "AEIOU" else "a", type(value).__name__
    raise ValueError(
      f"{name} must be {article} {kind.__name__}, as init returns it, but {found} was found."
    )


def function(name: str, value: Any) -> None:
  """A callable."""
  if not callable(value):
    raise ValueError(f"{name} must be a function, but {value!r} was found.")


# Words of a raw key, and the implementation that makes it where it is not the default one.
_RAW_KEYS = {2: "threefry2x32", 4: "rbg"}


def key(name: str, value: Any) -> None:
  """An int (also a traced one), a typed PRNG key, or a raw uint32 key. Makes no array."""
  if isinstance(value, jax.Array | np.ndarray | np.generic):
    typed = jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
    scalar = value.shape == () and (typed or jnp.issubdtype(value.dtype, jnp.integer))
    raw = value.ndim == 1 and value.shape[0] in _RAW_KEYS and value.dtype == jnp.uint32
    if scalar or raw:
      return
  elif isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63:
    return
  raise ValueError(f"{name} must be an int or one PRNG key, but {value!r} was found.")


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
