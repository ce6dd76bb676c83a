# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""One training run of a convolutional network, some epochs at a time, as one compiled program.

The way to weigh, the rate, the seed and the number of steps are traced: every run of an optimizer
on a task is the same program.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.cost.workloads import WideResNet
from benchmarks.harness import arms, optimizers, weighing
from benchmarks.rarity import images

WARMUP = 0.05  # part of the steps over which the rate rises
# Weight decay shrinks kernels by about 5e-4 a step at a rate of .1 with momentum .9, as is usual
# for SGD; by 2e-4 at Muon's .02.
DECAY = {"SGDM": 5e-4, "Muon": 0.01}
ADAM_RATE = 0.1  # of Muon's own: for scales and biases, which are no matrices
RATES = {"SGDM": (0.0125, 0.025, 0.05, 0.1), "Muon": (0.01, 0.02, 0.04, 0.08)}


class Sizes(NamedTuple):
  """What is static of a run."""

  optimizer: str  # of `RATES`
  ways: tuple[str, ...]  # names of `arms.ARMS`
  num_classes: int
  num_kinds: int
  batch_size: int
  epochs: int  # of a chunk
  width: int = 4
  blocks: int = 2

  @property
  def arms(self) -> tuple[arms.Arm, ...]:
    """The ways to weigh."""
    return tuple(arms.find(way) for way in self.ways)


class Carry(NamedTuple):
  """What goes from step to step.

  Attributes:
    params: float32.
    opt_state: of the optimizer.
    watch: the queue of example scarcity, which runs of the other ways fill as well.
  """

  params: Any
  opt_state: Any
  watch: weighing.Watch


class Plan(NamedTuple):
  """What is traced of a run.

  Attributes:
    way: int32 `[]`, which of `Sizes.ways`.
    rate: float32 `[]`, the highest learning rate.
    seed: int32 `[]`; parameters, batches and crops hang on it alone.
    epochs: int32 `[]`, of the whole run.
  """

  way: jax.Array
  rate: jax.Array
  seed: jax.Array
  epochs: jax.Array


def plan(way: int, rate: float, seed: int, epochs: int) -> Plan:
  """A run's numbers as arrays."""
  whole = (jnp.asarray(n, jnp.int32) for n in (way, seed, epochs))
  first, *rest = whole
  return Plan(first, jnp.asarray(rate, jnp.float32), *rest)


def network(sizes: Sizes) -> WideResNet:
  """WRN-16-4, or less of it."""
  return WideResNet(sizes.width, sizes.blocks, sizes.num_classes)


def steps_an_epoch(sizes: Sizes, task: images.Images) -> int:
  """Whole batches; what is left over is left out."""
  return len(task.labels) // sizes.batch_size


def make_optimizer(
  name: str, rate: jax.Array, steps: jax.Array
) -> optax.GradientTransformationExtraArgs:
  """SGD with momentum, or Muon on all kernels: a linear rise, then cosine decay to 0."""

  def schedule(step):
    step, total = step.astype(jnp.float32), steps.astype(jnp.float32)
    rise = (step + 1.0) / jnp.maximum(1.0, WARMUP * total)
    return rate * jnp.minimum(rise, 0.5 + 0.5 * jnp.cos(math.pi * step / total))

  kernels = lambda params: jax.tree.map(lambda p: p.ndim > 1, params)
  if name == "SGDM":
    decay = optax.add_decayed_weights(DECAY[name], kernels)
    return optax.with_extra_args_support(optax.chain(decay, optax.sgd(schedule, momentum=0.9)))
  return optax.with_extra_args_support(
    optax.contrib.muon(
      schedule,
      weight_decay=DECAY[name],
      adam_learning_rate=lambda step: ADAM_RATE * schedule(step),
      muon_weight_dimension_numbers=lambda params: jax.tree.map(optimizers.as_matrix, params),
    )
  )


def batch_key(key: jax.Array, number: jax.Array) -> jax.Array:
  """That of a step, for crops."""
  return jax.random.fold_in(jax.random.fold_in(key, 2), number)


def start(sizes: Sizes, task: images.Images, run: Plan) -> Carry:
  """Nothing learnt yet."""
  key = jax.random.key(run.seed)
  x = images.normalise(task, task.validation.x[:1])
  params = network(sizes).init(jax.random.fold_in(key, 0), x)
  steps = run.epochs * steps_an_epoch(sizes, task)
  opt_state = make_optimizer(sizes.optimizer, run.rate, steps).init(params)
  num_features = jax.eval_shape(network(sizes).apply, params, x)[1].shape[1]
  for arm in sizes.arms:
    if watch := weighing.init_watch(arm, num_features, sizes.num_classes, key, len(task.labels)):
      return Carry(params, opt_state, watch)
  raise ValueError(f"ways must hold example scarcity, but {sizes.ways} was found.")


def mean_loss(
  sizes: Sizes,
  task: images.Images,
  run: Plan,
  watch: weighing.Watch,
  params: Any,
  rows: jax.Array,
  key: jax.Array,
) -> tuple[jax.Array, weighing.Watch]:
  """The loss of the run's own way, out of those of all ways; and the queue after the batch."""
  outputs: Any = network(sizes).apply(params, images.augmented(task, rows, key))
  logits, features = outputs
  prior = jnp.zeros(sizes.num_classes).at[task.labels].add(1.0) / len(task.labels)
  context = weighing.Context(
    labels=task.labels[rows],
    kinds=task.kinds[rows],
    importance=jnp.ones(len(rows)),
    prior=prior,
    num_kinds=sizes.num_kinds,
    key=key,
    progress=jnp.float32(0.0),  # no way here asks for it
  )
  means, after = [], watch
  for arm in sizes.arms:
    seen = watch if "examples" in arm.weights else None
    weights, seen = weighing.weigh(arm, logits, features, context, seen, key)
    after = after if seen is None else seen
    losses = weighing.losses(arm, logits, context)
    means.append(jnp.mean(jax.lax.stop_gradient(weights) * losses))
  return jnp.stack(means)[run.way], after


@functools.partial(jax.jit, static_argnums=0, donate_argnums=3)
def train_chunk(
  sizes: Sizes, task: images.Images, run: Plan, carry: Carry, first_epoch: jax.Array
) -> Carry:
  """`sizes.epochs` epochs from `first_epoch` on, in one scan."""
  key, rows = jax.random.key(run.seed), len(task.labels)
  each = steps_an_epoch(sizes, task)
  optimizer = make_optimizer(sizes.optimizer, run.rate, run.epochs * each)

  def order(epoch):
    shuffle = jax.random.fold_in(jax.random.fold_in(key, 1), epoch)
    return jax.random.permutation(shuffle, rows)[: each * sizes.batch_size]

  batches = jax.vmap(order)(first_epoch + jnp.arange(sizes.epochs))
  numbers = first_epoch * each + jnp.arange(sizes.epochs * each)

  def step(carry, batch):
    rows, number = batch
    loss = functools.partial(mean_loss, sizes, task, run, carry.watch)
    gradient, watch = jax.grad(loss, has_aux=True)(carry.params, rows, batch_key(key, number))
    updates, opt_state = optimizer.update(gradient, carry.opt_state, carry.params)
    return Carry(optax.apply_updates(carry.params, updates), opt_state, watch), None

  return jax.lax.scan(step, carry, (batches.reshape(-1, sizes.batch_size), numbers))[0]


@functools.partial(jax.jit, static_argnums=0)
def judge(sizes: Sizes, task: images.Images, params: Any, split: images.Split) -> jax.Array:
  """How often each class is predicted for each kind, `[kinds, classes]`."""
  one = lambda x: network(sizes).apply(params, images.normalise(task, x[None]))[0][0]
  number = len(split.x)
  part = math.ceil(number / math.ceil(number / sizes.batch_size))  # equal parts: one program
  found = jnp.argmax(jax.lax.map(one, split.x, batch_size=part), axis=1)
  return jnp.zeros((sizes.num_kinds, sizes.num_classes)).at[split.kinds, found].add(1.0)


def classes_of_kinds(sizes: Sizes, task: images.Images) -> np.ndarray:
  """The class that each kind belongs to."""
  found = np.zeros(sizes.num_kinds, int)
  found[np.asarray(task.test.kinds)] = np.asarray(task.test.labels)
  return found


begin = jax.jit(start, static_argnums=0)
