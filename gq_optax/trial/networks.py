# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What is trained: a dense network, one for series, one for images, or the user's own module."""

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

WIDTH = 128
# Arguments that tell a Linen module whether it trains, and what they are then.
MODES = {"train": True, "training": True, "deterministic": False, "use_running_average": False}


class Network(NamedTuple):
  """A network as pure functions.

  Attributes:
    init: `(key, x) -> variables`, of which `variables[0]` is trained and `variables[1]` is not.
    train: `(variables, x, key) -> ((logits, features), variables[1])`.
    apply: `(variables, x) -> (logits [B, C], features [B, d])`.
  """

  init: Callable[..., Any]
  train: Callable[..., Any]
  apply: Callable[..., Any]


def patches(x: jax.Array, size: int, stride: int) -> jax.Array:
  """Windows over all inner axes of `[B, *places, channels]`, each as one vector of channels.

  A convolution is a dense layer on them. Written so, it trains side by side at the speed of matrix
  products, also on a CPU.
  """
  for axis in range(1, x.ndim - 1):
    pad = [(0, 0)] * x.ndim
    pad[axis] = (size // 2, size // 2)
    padded = jnp.pad(x, pad)
    last = x.shape[axis] - 1
    take = lambda i, a=padded, axis=axis, last=last: jax.lax.slice_in_dim(
      a, i, i + last // stride * stride + 1, stride, axis
    )
    x = jnp.concatenate([take(i) for i in range(size)], axis=-1)
  return x


class Dense(nn.Module):
  """One hidden layer."""

  num_classes: int

  @nn.compact
  def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns logits and features."""
    features = nn.relu(nn.Dense(WIDTH)(x.reshape(len(x), -1)))
    return nn.Dense(self.num_classes)(features), features


class Convolutional(nn.Module):
  """Three convolutions of stride 2 and a dense layer, over series `[B, T]` or images."""

  num_classes: int
  size: int  # of a window: 5 of a series, 3 by 3 of an image
  widths: tuple[int, ...] = (8, 16, 32)

  @nn.compact
  def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns logits and features."""
    if x.ndim < 3 or (x.ndim == 3 and self.size == 3):  # one channel that is not written
      x = x[..., None]
    for width in self.widths:
      x = nn.relu(nn.Dense(width)(patches(x, self.size, 2)))
    features = nn.relu(nn.Dense(WIDTH // 2)(x.reshape(len(x), -1)))
    return nn.Dense(self.num_classes)(features), features


def make(name: str, num_classes: int) -> Network:
  """A network by its name.

  Args:
    name: "dense", "series", "images", or "module:function".
    num_classes: C.

  Raises:
    ValueError: if there is no such network, or it is no module of Flax.
  """
  if name == "dense":
    return _linen(Dense(num_classes), num_classes)
  if name in ("series", "images"):
    return _linen(Convolutional(num_classes, 5 if name == "series" else 3), num_classes)
  function = _find(name)
  wants_rngs = (
    "rngs"
    in inspect.signature(function.__init__ if inspect.isclass(function) else function).parameters
  )
  try:
    if wants_rngs:
      return _nnx(function, num_classes)
    module = function(num_classes)
  except Exception as error:  # whatever the user's code raises
    raise ValueError(f"model {name!r} must make a module, but {_line(error)}") from error
  if not isinstance(module, nn.Module):
    raise ValueError(
      f"model {name!r} must return a Linen module, or an NNX one and take rngs, but"
      f" {type(module).__name__} was found."
    )
  return _linen(module, num_classes)


def _find(name: str) -> Callable[..., Any]:
  module, colon, function = name.partition(":")
  if not colon or module.endswith(".py"):
    raise ValueError(
      "model must be dense, series, images, or module:function without .py, but"
      f" {name!r} was found."
    )
  try:
    found = getattr(importlib.import_module(module), function, None)
  except Exception as error:  # whatever the user's code raises
    raise ValueError(
      f"model {name!r} must be importable from {Path.cwd()}, but {_line(error)}"
    ) from error
  if not callable(found) or isinstance(found, nn.Module | nnx.Module):
    raise ValueError(
      f"model {name!r} must name a function that makes a module, but"
      f" {type(found).__name__} was found."
    )
  return found


def _line(error: Exception) -> str:
  """What another's code raised, in one line."""
  return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"


def _linen(module: nn.Module, num_classes: int) -> Network:
  flags = [f for f in inspect.signature(type(module).__call__).parameters if f in MODES]
  mode = lambda train: {flag: MODES[flag] == train for flag in flags}

  def init(key, x):
    variables = dict(module.init(key, x, **mode(False)))
    params = variables.pop("params", {})
    variables.pop("intermediates", None)
    return params, variables

  def apply(variables, x):
    params, state = variables
    return outputs(module.apply({"params": params, **state}, x, **mode(False)), len(x), num_classes)

  def train(variables, x, key):
    params, state = variables
    found, new = module.apply(
      {"params": params, **state}, x, **mode(True), rngs={"dropout": key}, mutable=list(state)
    )
    return outputs(found, len(x), num_classes), dict(new)

  return Network(init, train, apply)


def _nnx(function: Callable[..., Any], num_classes: int) -> Network:
  make_one = lambda key: function(num_classes, rngs=nnx.Rngs(key))
  graph = _parts(nnx.eval_shape(lambda: make_one(jax.random.key(0))))[0]

  def init(key, x):
    del x  # an NNX module knows its shapes
    return _parts(make_one(key))[1:]

  def call(variables, x, training):
    module = nnx.merge(graph, *variables, copy=True)
    module.train() if training else module.eval()
    found = outputs(module(x), len(x), num_classes)
    return found, _parts(module)[2]

  return Network(
    init,
    lambda variables, x, key: call(variables, x, True),
    lambda variables, x: call(variables, x, False)[0],
  )


def _parts(module: Any) -> Any:
  """The graph of an NNX module, its parameters, and the rest of its state."""
  return nnx.split(module, nnx.Param, ...)


def outputs(found: Any, n: int, num_classes: int) -> tuple[jax.Array, jax.Array]:
  """Logits `[n, C]` and features `[n, d]` of what a module returned.

  That is logits, `(logits, features)`, or a dict with "logits" and maybe "features". Without
  features the logits stand for them. Two classes may share one logit, that of the second.
  """
  features = None
  if isinstance(found, dict):
    found, features = found.get("logits"), found.get("features")
  elif isinstance(found, tuple | list):
    found, features = found
  if not isinstance(found, jax.Array):
    raise ValueError(f"model must return an array of logits, but {type(found).__name__} was found.")
  logits = found.astype(jnp.float32)
  if num_classes == 2 and logits.shape in ((n,), (n, 1)):
    logits = jnp.stack([jnp.zeros(n), logits.reshape(n)], axis=1)
  if logits.shape != (n, num_classes):
    raise ValueError(
      f"model must return a logit for each of {num_classes} classes, but shape"
      f" {('n', *found.shape[1:])} was found."
    )
  return logits, (logits if features is None else features).reshape(n, -1)


def check(name: str, num_classes: int, x: jax.Array) -> None:
  """Runs a model once on a few examples, so that what does not fit is said in one line.

  Raises:
    ValueError: whatever goes wrong inside, or if it returns probabilities.
  """
  network = make(name, num_classes)
  try:
    variables = jax.eval_shape(network.init, jax.random.key(0), x)
    jax.eval_shape(network.train, variables, x, jax.random.key(0))
    if ":" not in name:  # of ours nothing but the shapes is to be known
      return
    logits = network.apply(network.init(jax.random.key(0), x), x)[0]
  except Exception as error:  # whatever the user's code raises
    line = _line(error).removeprefix("ValueError: ")
    if line.startswith("model must"):
      raise ValueError(line) from error
    raise ValueError(
      f"model {name!r} must take float32 examples of shape {('n', *x.shape[1:])}, but {line}"
    ) from error
  if bool(jnp.all(logits >= 0) & jnp.allclose(logits.sum(axis=1), 1.0, atol=1e-3)):
    raise ValueError(
      f"model {name!r} must return logits, but its outputs are probabilities: at least 0, and 1 in"
      " sum. The loss takes softmax itself, and twice it learns little. Leave out the last softmax."
    )
