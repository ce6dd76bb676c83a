# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The network of a trial, by name or out of the user's own module, as two pure functions."""

import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from flax import nnx

from gq_optax.trial import models

LAYOUTS = {"mlp": "flat", "logistic": "flat", "cnn": "images"}
HIDDEN = 128


class Network(NamedTuple):
  """A network without its parameters.

  Attributes:
    init: key and examples `[n, ...]` to parameters.
    apply: parameters and examples to logits `[n, C]` and features `[n, d]`.
  """

  init: Callable[[jax.Array, jax.Array], Any]
  apply: Callable[[Any, jax.Array], tuple[jax.Array, jax.Array]]


@functools.cache
def make(name: str, num_classes: int) -> Network:
  """A network by its name.

  Args:
    name: "logistic", "mlp" (one hidden layer of 128), "cnn" (`models.SmallCNN`), or
      "module:function" of the user's: a function of the number of classes that returns a Linen
      module, or of that and `rngs` that returns an NNX module. Called with examples `[n, ...]` the
      module returns logits, or logits and features; without features the logits are grouped.
    num_classes: C.

  Returns:
    The network.

  Raises:
    ValueError: if there is no such network, or if it has state beside its parameters.
  """
  if name == "logistic":
    return _linen(models.MLP((), num_classes))
  if name == "mlp":
    return _linen(models.MLP((HIDDEN,), num_classes))
  if name == "cnn":
    return _linen(models.SmallCNN(num_classes))
  function = _find(name)
  if "rngs" in inspect.signature(function).parameters:
    return _nnx(name, function, num_classes)
  module = function(num_classes)
  if not isinstance(module, nn.Module):
    raise ValueError(
      f"model {name!r} must return a Linen module, or an NNX one and take rngs, but"
      f" {type(module).__name__} was found."
    )
  return _linen(module)


def _find(name: str) -> Callable[..., Any]:
  module, colon, function = name.partition(":")
  if not colon:
    raise ValueError(
      f"model must be {', '.join(LAYOUTS)} or module:function, but {name!r} was found."
    )
  try:
    found = getattr(importlib.import_module(module), function, None)
  except ImportError as error:
    raise ValueError(f"model {name!r} must be importable from here: {error}.") from error
  if not callable(found):
    raise ValueError(f"model {name!r} must name a function of {module}, but there is none.")
  return found


def _linen(module: nn.Module) -> Network:
  def init(key, x):
    variables = module.init(key, x)
    _refuse(set(variables) - {"params"})
    return variables

  return Network(init, lambda params, x: _outputs(module.apply(params, x)))


def _nnx(name: str, function: Callable[..., Any], num_classes: int) -> Network:
  make_one = lambda key: function(num_classes, rngs=nnx.Rngs(key))
  shapes = nnx.eval_shape(lambda: make_one(jax.random.key(0)))
  if not isinstance(shapes, nnx.Module):
    raise ValueError(f"model {name!r} must return an NNX module, as it takes rngs.")
  parts: Any = nnx.split(shapes, nnx.Param, ...)
  graph, _, rest = parts
  _refuse({type(v).__name__ for v in jax.tree.leaves(rest, is_leaf=_is_variable)})

  def init(key, x):
    del x  # an NNX module knows its shapes
    return nnx.split(make_one(key), nnx.Param, ...)[1]

  return Network(init, lambda params, x: _outputs(nnx.merge(graph, params, rest)(x)))


def _is_variable(leaf: Any) -> bool:
  return isinstance(leaf, nnx.Variable)


def _refuse(state: set[str]) -> None:
  if state:
    raise ValueError(
      f"model must have parameters alone, but {', '.join(sorted(state))} was found: what a batch"
      " leaves behind (BatchNorm) or what is drawn (dropout) is not carried from step to step here."
    )


def _outputs(found: Any) -> tuple[jax.Array, jax.Array]:
  logits, features = found if isinstance(found, tuple) else (found, found)
  if logits.ndim != 2:
    raise ValueError(f"model must return logits [n, C], but shape {logits.shape} was found.")
  return logits, features.reshape(len(features), -1)


def layout(name: str) -> str:
  """How `recipes.make_task` is to lay out the examples for it."""
  return LAYOUTS.get(name, "as is")
