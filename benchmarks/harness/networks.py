# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The network of a trial, by name or out of the user's own module, as two pure functions."""

import functools
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks.harness import models

LAYOUTS = {"mlp": "flat", "logistic": "flat", "cnn": "images"}
HIDDEN = 128
# Arguments by which a module is told whether it trains, and what they are then.
FLAGS = {
  "train": True,
  "training": True,
  "is_training": True,
  "deterministic": False,
  "use_running_average": False,
}


class Variables(NamedTuple):
  """What a network holds.

  Attributes:
    params: what is trained.
    state: all else: running means of BatchNorm, streams of random numbers; empty for most.
  """

  params: Any
  state: Any


class Network(NamedTuple):
  """A network without its variables.

  Attributes:
    init: key and examples `[n, ...]` to variables.
    apply: variables and examples to logits `[n, C]` and features `[n, d]`, as when it is used.
    train: variables, examples and a key to logits and features as in training, and the next state.
    plain: whether training and use are the same function: no BatchNorm, no dropout.
    answer: like `apply`, but what the module itself returns.
  """

  init: Callable[[jax.Array, jax.Array], Variables]
  apply: Callable[[Variables, jax.Array], tuple[jax.Array, jax.Array]]
  train: Callable[[Variables, jax.Array, jax.Array], tuple[tuple[jax.Array, jax.Array], Any]]
  plain: bool
  answer: Callable[[Variables, jax.Array], Any]


@functools.cache
def make(name: str, num_classes: int) -> Network:
  """A network by its name.

  Args:
    name: "logistic", "mlp" (one hidden layer of 128), "cnn" (`models.SmallCNN`), or
      "module:function" of the user's: a function of the number of classes that returns a Linen
      module, or of that and `rngs` that returns an NNX module. Called with examples `[n, ...]` the
      module returns what `_outputs` takes. If its call has one of the arguments in `FLAGS`, that
      says whether it trains; an NNX module is also set by its own `train()` and `eval()`.
    num_classes: C.

  Returns:
    The network.

  Raises:
    ValueError: if there is no such network.
  """
  if name == "logistic":
    return _linen(models.MLP((), num_classes), num_classes)
  if name == "mlp":
    return _linen(models.MLP((HIDDEN,), num_classes), num_classes)
  if name == "cnn":
    return _linen(models.SmallCNN(num_classes), num_classes)
  function = _find(name)
  try:
    # The signature of an NNX class is that of its metaclass, which takes anything.
    of_class = inspect.isclass(function)
    parameters = inspect.signature(function.__init__ if of_class else function)
    rngs = {"rngs": None} if "rngs" in parameters.parameters else {}
    parameters.bind(*([None] if of_class else []), num_classes, **rngs)
  except (TypeError, ValueError) as error:
    raise ValueError(
      f"model {name!r} must be called as make(num_classes) for a Linen module or as"
      f" make(num_classes, rngs) for an NNX one, but: {error}."
    ) from error
  try:
    if rngs:
      return _nnx(name, function, num_classes)
    module = function(num_classes)
  except ValueError:
    raise
  except Exception as error:  # whatever the user's code raises
    raise ValueError(f"model {name!r} must make a module, but {_line(error)}") from error
  if isinstance(module, nnx.Module):
    raise ValueError(f"model {name!r} returns an NNX module, so it must take (num_classes, rngs).")
  if not isinstance(module, nn.Module):
    raise ValueError(
      f"model {name!r} must return a Linen module, or an NNX one and take rngs, but"
      f" {type(module).__name__} was found."
    )
  return _linen(module, num_classes)


def _find(name: str) -> Callable[..., Any]:
  module, colon, function = name.partition(":")
  if not colon:
    raise ValueError(
      f"model must be {', '.join(LAYOUTS)} or module:function, but {name!r} was found."
    )
  if module.endswith(".py"):
    raise ValueError(f"model {name!r} must name a module, no file: drop .py.")
  if not all(part.isidentifier() for part in module.split(".")):
    raise ValueError(
      f"model {name!r} must name a module with dots, no path: sub.other:make is make of"
      f" sub/other.py in the current folder, {Path.cwd()}."
    )
  try:
    found = getattr(importlib.import_module(module), function, None)
  except ModuleNotFoundError as error:
    raise ValueError(
      f"model {name!r} must be importable from here: {error}. Its file must lie in the current"
      f" folder, {Path.cwd()}, or be installed; in a folder below, write sub.other:make."
    ) from error
  except Exception as error:  # whatever the user's code raises
    raise ValueError(f"model {name!r} must be importable from here: {_line(error)}") from error
  if isinstance(found, nn.Module | nnx.Module):
    raise ValueError(
      f"model {name!r} must name a function that makes a module, but a module was found: write"
      " make(num_classes), or make(num_classes, rngs) for NNX, that returns it."
    )
  if not callable(found):
    raise ValueError(f"model {name!r} must name a function of {module}, but there is none.")
  return found


def _line(error: Exception) -> str:
  """What another's code raised, in one line."""
  return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"


def _mode(call: Callable[..., Any]) -> Callable[[bool], dict[str, Any]]:
  """From "does it train?" to the arguments that tell a module so."""
  flags = [name for name in inspect.signature(call).parameters if name in FLAGS]
  return lambda train: {name: FLAGS[name] == train for name in flags}


def _linen(module: nn.Module, num_classes: int) -> Network:
  mode = _mode(type(module).__call__)

  def init(key, x):
    variables = dict(module.init(key, x, **mode(False)))
    params = variables.pop("params", {})
    variables.pop("intermediates", None)  # what is sown for a look, and never read
    return Variables(params, variables)

  def answer(variables, x):
    return module.apply({"params": variables.params, **variables.state}, x, **mode(False))

  def apply(variables, x):
    return _outputs(answer(variables, x), len(x), num_classes)

  def train(variables, x, key):
    found, state = module.apply(
      {"params": variables.params, **variables.state},
      x,
      **mode(True),
      rngs={"params": key, "dropout": key},
      mutable=list(variables.state),
    )
    return _outputs(found, len(x), num_classes), dict(state)

  return Network(init, apply, train, not mode(True), answer)


def _nnx(name: str, function: Callable[..., Any], num_classes: int) -> Network:
  make_one = lambda key: function(num_classes, rngs=nnx.Rngs(key))
  shapes = nnx.eval_shape(lambda: make_one(jax.random.key(0)))
  if not isinstance(shapes, nnx.Module):
    raise ValueError(f"model {name!r} must return an NNX module, as it takes rngs.")
  parts: Any = nnx.split(shapes, nnx.Param, ...)
  graph, _, rest = parts
  mode = _mode(type(shapes).__call__)

  def init(key, x):
    del x  # an NNX module knows its shapes
    parts: Any = nnx.split(make_one(key), nnx.Param, ...)
    return Variables(*parts[1:])

  def call(variables, x, training):
    module = nnx.merge(graph, variables.params, variables.state, copy=True)
    module.train() if training else module.eval()
    found = module(x, **mode(training))
    parts: Any = nnx.split(module, nnx.Param, ...)
    return found, parts[2]

  def train(variables, x, key):
    del key
    found, state = call(variables, x, True)
    return _outputs(found, len(x), num_classes), state

  # Its random streams are part of its state, and go on from step to step.
  return Network(
    init,
    lambda variables, x: _outputs(call(variables, x, False)[0], len(x), num_classes),
    train,
    not jax.tree.leaves(rest) and not mode(True),
    lambda variables, x: call(variables, x, False)[0],
  )


def _outputs(found: Any, n: int, num_classes: int) -> tuple[jax.Array, jax.Array]:
  """Logits `[n, C]` and features `[n, d]` of what a module returned.

  That is logits, `(logits, features)`, or a dict with "logits" and maybe "features". Without
  features the logits stand for them. Two classes may share one logit, `[n, 1]` or `[n]`: that of
  class 1.
  """
  features = None
  if isinstance(found, dict):
    if "logits" not in found:
      keys = ", ".join(map(str, found))
      raise ValueError(f'model must return logits, as "logits" in a dict, but {keys} was found.')
    if others := [str(key) for key in found if key not in ("logits", "features")]:
      raise ValueError(
        'model must return "logits" and maybe "features" in a dict, but also'
        f" {', '.join(others)} was found."
      )
    found, features = found["logits"], found.get("features")
  elif isinstance(found, tuple | list):
    if len(found) != 2:
      raise ValueError(f"model must return logits and features, but {len(found)} were found.")
    found, features = found
  if not isinstance(found, jax.Array):
    raise ValueError(f"model must return an array of logits, but {type(found).__name__} was found.")
  logits = found.astype(jnp.float32)
  if num_classes == 2 and logits.shape in ((n,), (n, 1)):
    logits = jnp.stack([jnp.zeros(n), logits.reshape(n)], axis=1)
  if logits.shape != (n, num_classes):
    raise ValueError(
      f"model must return a logit for each of {num_classes} classes, [n, {num_classes}], but shape"
      f" {('n', *found.shape[1:])} was found."
    )
  features = logits if features is None else features
  return logits, features.reshape(n, -1)


def check(name: str, num_classes: int, example: tuple[int, ...]) -> bool:
  """Traces a user's model once, so that what does not fit is said in one line.

  Args:
    name: see `make`.
    num_classes: C.
    example: shape of an example.

  Returns:
    Whether it returns features; if not, the logits stand for them.

  Raises:
    ValueError: whatever goes wrong inside.
  """
  network = make(name, num_classes)
  x = jax.ShapeDtypeStruct((3, *example), jnp.float32)
  key = jax.eval_shape(lambda: jax.random.key(0))
  try:
    variables = jax.eval_shape(network.init, key, x)
    jax.eval_shape(network.train, variables, x, key)
    jax.eval_shape(network.apply, variables, x)
    answer = jax.eval_shape(network.answer, variables, x)
  except Exception as error:  # whatever the user's code raises
    line = str(error).strip().partition("\n")[0] or type(error).__name__
    if line.startswith("model must"):
      raise ValueError(line) from error
    raise ValueError(
      f"model {name!r} must take float32 examples of shape {('n', *example)}, in training and in"
      f" use (BatchNorm and dropout by an argument `train`), but: {line[:200]}"
    ) from error
  if isinstance(answer, dict):
    return answer.get("features") is not None
  return isinstance(answer, tuple | list) and answer[1] is not None


def layout(name: str) -> str:
  """How `recipes.make_task` is to lay out the examples for it."""
  return LAYOUTS.get(name, "as is")
