# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Many networks trained side by side, as one compiled function for all arms of an optimizer."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gq_optax as gq
from gq_optax.trial import networks

RATES = {  # where the search for a learning rate begins
  "SGDM": (0.03, 0.1, 0.3),
  "Adam": (0.001, 0.003, 0.01),
  "Muon": (0.006, 0.02, 0.06),
}
PARTS = 10  # of a run, between which progress is told
ROWS = 1024  # that are predicted at once


class Setup(NamedTuple):
  """What is static of a training.

  Attributes:
    network: see `networks.make`.
    num_classes: C.
    optimizer: a key of `RATES`.
    steps: of a run, a multiple of `PARTS`.
    scarcity: "", or what the weights look at: "features", "outputs", "groups".
    queue_size: of the examples held.
  """

  network: str
  num_classes: int
  optimizer: str
  steps: int
  scarcity: str = ""
  queue_size: int = 1024


class Lanes(NamedTuple):
  """What differs between networks trained side by side; every array has a first axis of lanes.

  Attributes:
    batches: int32 `[W, steps, B]`, rows of the data.
    rate: `[W]`, the first learning rate; it falls to 0 along a cosine.
    seed: int32 `[W]`.
    shift: what is taken off the examples, so that those trained on have mean 0.
    scale: what they are divided by, so that those have deviation 1.
    weights: `[W, n]`, of the examples, 1 where plain.
    offset: `[W, C]`, added to the logits in training, 0 where plain.
  """

  batches: Any
  rate: Any
  seed: Any
  shift: Any
  scale: Any
  weights: Any
  offset: Any


def make_optimizer(name: str, rate: jax.Array, steps: int) -> optax.GradientTransformation:
  """An optimizer whose rate falls to 0 along a cosine."""
  schedule = lambda step: rate * (0.5 + 0.5 * jnp.cos(step * (math.pi / steps)))
  if name == "SGDM":
    return optax.sgd(schedule, momentum=0.9)
  return optax.adam(schedule) if name == "Adam" else optax.contrib.muon(schedule)


def _scarcity(setup: Setup) -> Any:
  if setup.scarcity == "groups":
    return gq.group_scarcity(20, pooling=0.5)
  return gq.example_scarcity(setup.queue_size)


@functools.partial(jax.jit, static_argnums=0)
def _init(setup: Setup, x: jax.Array, lanes: Lanes) -> Any:
  """The networks of all lanes, one after the other, which compiles in a third of the time."""
  network = networks.make(setup.network, setup.num_classes)
  one = lambda lane: network.init(jax.random.key(lane.seed), _standardised(x[:1], lane))
  return jax.lax.map(one, lanes)


@functools.partial(jax.jit, static_argnums=0)
@functools.partial(jax.vmap, in_axes=(None, None, 0, 0))
def _begin(setup: Setup, x: jax.Array, lane: Lanes, variables: Any) -> Any:
  """A network with the states of optimizer and scarcity."""
  state = make_optimizer(setup.optimizer, lane.rate, setup.steps).init(variables[0])
  memory = None
  if setup.scarcity:
    apply = networks.make(setup.network, setup.num_classes).apply
    features = jax.eval_shape(apply, variables, _standardised(x[:1], lane))[1].shape[1]
    dim = setup.num_classes if setup.scarcity == "outputs" else features
    memory = _scarcity(setup).init(dim)
  return variables, state, memory, jnp.zeros((), jnp.int32)


def start(setup: Setup, x: Any, lanes: Lanes) -> Any:
  """What all lanes begin with."""
  return _begin(setup, x, lanes, _init(_of_network(setup), x, lanes))


def _of_network(setup: Setup) -> Setup:
  """What its network hangs on: all arms share one compilation."""
  return setup._replace(optimizer="", steps=0, scarcity="", queue_size=0)


def _standardised(x: jax.Array, lane: Lanes) -> jax.Array:
  return (x.astype(jnp.float32) - lane.shift) / lane.scale


def _advance(
  setup: Setup, x: jax.Array, labels: jax.Array, lane: Lanes, carry: Any, part: jax.Array
) -> Any:
  """A tenth of a run."""
  network = networks.make(setup.network, setup.num_classes)
  optimizer = make_optimizer(setup.optimizer, lane.rate, setup.steps)
  cross_entropy = optax.softmax_cross_entropy_with_integer_labels

  def step(carry, rows):
    variables, state, memory, number = carry
    key = jax.random.fold_in(jax.random.key(lane.seed), number)
    y = labels[rows]

    def loss(params):
      found, rest = network.train((params, variables[1]), _standardised(x[rows], lane), key)
      logits, features = found[0] + lane.offset, found[1]
      losses = cross_entropy(logits, y)
      weights, held = lane.weights[rows], memory
      if setup.scarcity:
        outputs = setup.scarcity == "outputs"
        seen = gq.output_gradients(cross_entropy, found[0], y) if outputs else features
        by_rarity, held = _scarcity(setup).update(seen, memory)
        weights = weights * by_rarity
      return gq.weighted_mean(losses, jax.lax.stop_gradient(weights)), (rest, held)

    gradient, (rest, memory) = jax.grad(loss, has_aux=True)(variables[0])
    updates, state = optimizer.update(gradient, state, variables[0])
    params = optax.apply_updates(variables[0], updates)
    return ((params, rest), state, memory, number + 1), None

  length = setup.steps // PARTS
  batches = jax.lax.dynamic_slice_in_dim(lane.batches, part * length, length)
  return jax.lax.scan(step, carry, batches)[0]


advance = jax.jit(
  jax.vmap(_advance, in_axes=(None, None, None, 0, 0, None)), static_argnums=0, donate_argnums=4
)


@functools.partial(jax.jit, static_argnums=0)
@functools.partial(jax.vmap, in_axes=(None, None, 0, 0))
def _predict(setup: Setup, x: jax.Array, lane: Lanes, variables: Any) -> Any:
  network = networks.make(setup.network, setup.num_classes)
  return network.apply(variables, _standardised(x, lane))[0]


def train(
  setup: Setup,
  x: jax.Array,
  labels: jax.Array,
  lanes: Lanes,
  tell: Callable[[], None] = lambda: None,
) -> Any:
  """The variables of all lanes after training; `tell` is called after each of `PARTS`."""
  lanes = jax.tree.map(jnp.asarray, lanes)
  carry = start(setup, x, lanes)
  for part in range(PARTS):
    carry = jax.block_until_ready(advance(setup, x, labels, lanes, carry, jnp.int32(part)))
    tell()
  return carry[0]


def predict(setup: Setup, x: np.ndarray, lanes: Lanes, variables: Any) -> np.ndarray:
  """Logits `[W, n, C]` of all examples by all lanes, on the host."""
  n, parts = len(x), []
  for i in range(0, n, ROWS):
    part = x[i : i + ROWS]
    if n > ROWS:  # one shape
      part = np.concatenate([part, np.repeat(part[-1:], ROWS - len(part), axis=0)])
    found = _predict(_of_network(setup), jnp.asarray(part), lanes, variables)
    parts.append(np.asarray(found)[:, : min(ROWS, n - i)])
  return np.concatenate(parts, axis=1)
