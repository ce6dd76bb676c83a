# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""One training run of one arm, pure, so that seeds and learning rates run side by side."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import arms, models

HIDDEN = 128
# JTT (Liu et al. 2021): a first training of half the epochs; its errors then count this much.
UPWEIGHT = 3.0


class Task(NamedTuple):
  """A data set with kinds of examples, some of them rare in training.

  Attributes:
    x: float32 `[n, ...]`, training.
    labels: int32 `[n]`, maybe noisy.
    kinds: int32 `[n]`, the true kinds; the classes themselves, or subgroups hidden in them.
    validation: `(x, labels, kinds)` to choose learning rates on.
    test: `(x, labels, kinds)`.
  """

  x: jax.Array
  labels: jax.Array
  kinds: jax.Array
  validation: tuple[jax.Array, jax.Array, jax.Array]
  test: tuple[jax.Array, jax.Array, jax.Array]


class Sizes(NamedTuple):
  """What is static of a run."""

  batch_size: int
  epochs: int
  num_classes: int
  num_kinds: int


def make_model(example: tuple[int, ...], num_classes: int) -> Any:
  """A dense network for vectors, convolutions for images with channels."""
  if len(example) == 3:
    return models.SmallCNN(num_classes)
  return models.MLP((HIDDEN,), num_classes)


class Earlier(NamedTuple):
  """What a first training leaves behind for the second.

  Attributes:
    importance: float `[n]`: what its errors count (JTT), else 1.
    teacher: its parameters, if their features are grouped; else None.
  """

  importance: jax.Array
  teacher: Any


class Run(NamedTuple):
  """The parts of a run: what changes from step to step, and the order of the batches.

  Attributes:
    carry: parameters, optimizer state, state of the groups.
    batches: int32 `[steps, B]`.
    key: of the run.
  """

  carry: Any
  batches: jax.Array
  key: jax.Array


def start(arm: arms.Arm, sizes: Sizes, task: Task, seed: jax.Array, rate: jax.Array) -> Run:
  """Parameters and batches hang on the seed alone: they are the same for all arms and rates."""
  first, shuffle, key = jax.random.split(jax.random.key(seed), 3)
  rows = len(task.x)
  used = rows - rows % sizes.batch_size  # what is left over of an epoch is left out
  order = jax.vmap(lambda k: jax.random.permutation(k, rows)[:used])(
    jax.random.split(shuffle, sizes.epochs)
  )
  batches = order.reshape(-1, sizes.batch_size)
  model = make_model(task.x.shape[1:], sizes.num_classes)
  params = model.init(first, task.x[:1])
  opt_state = arms.make_optimizer(arm, rate, len(batches)).init(params)
  watch = arms.init_watch(arm, HIDDEN, sizes.num_classes, key)
  return Run((params, opt_state, watch), batches, key)


def step(
  arm: arms.Arm,
  sizes: Sizes,
  task: Task,
  earlier: Earlier,
  rate: jax.Array,
  key: jax.Array,
  carry: Any,
  batch: jax.Array,
  number: jax.Array,
) -> Any:
  """One step on the rows `batch`."""
  params, opt_state, watch = carry
  model = make_model(task.x.shape[1:], sizes.num_classes)
  steps = sizes.epochs * (len(task.x) // sizes.batch_size)
  counts = jnp.zeros(sizes.num_classes).at[task.labels].add(1.0)
  context = arms.Context(
    labels=task.labels[batch],
    kinds=task.kinds[batch],
    importance=earlier.importance[batch],
    prior=counts / len(task.labels),
    num_kinds=sizes.num_kinds,
    key=jax.random.fold_in(key, number),
  )

  def loss(params):
    logits, features = model.apply(params, task.x[batch])
    if earlier.teacher is not None:
      features = model.apply(earlier.teacher, task.x[batch])[1]
    weights, state = arms.weigh(arm, logits, features, context, watch, key)
    return jnp.mean(jax.lax.stop_gradient(weights) * arms.losses(arm, logits, context)), state

  gradient, watch = jax.grad(loss, has_aux=True)(params)
  optimizer = arms.make_optimizer(arm, rate, steps, watch)
  updates, opt_state = optimizer.update(gradient, opt_state, params)
  return optax.apply_updates(params, updates), opt_state, watch


def train(arm: arms.Arm, sizes: Sizes, task: Task, seed: jax.Array, rate: jax.Array) -> Any:
  """A whole run as one scan (two if there is a first training); returns the last parameters."""
  earlier = Earlier(jnp.ones(len(task.x)), None)
  if arm.weights == "errors" or arm.teacher:
    half = sizes._replace(epochs=max(1, sizes.epochs // 2))
    params = train(arms.Arm(), half, task, seed, rate)
    wrong = predict(task.x, params, sizes) != task.labels
    importance = jnp.where(wrong, UPWEIGHT, 1.0)
    earlier = Earlier(importance, params if arm.teacher else None)
  run = start(arm, sizes, task, seed, rate)
  one = functools.partial(step, arm, sizes, task, earlier, rate, run.key)
  body = lambda carry, xs: (one(carry, *xs), None)
  carry, _ = jax.lax.scan(body, run.carry, (run.batches, jnp.arange(len(run.batches))))
  return carry[0]


def predict(x: jax.Array, params: Any, sizes: Sizes) -> jax.Array:
  """The predicted class of each example."""
  return jnp.argmax(make_model(x.shape[1:], sizes.num_classes).apply(params, x)[0], axis=1)


def judge(params: Any, split: Any, sizes: Sizes) -> jax.Array:
  """How often each class is predicted for each kind, `[kinds, classes]`."""
  x, _, kinds = split
  confusion = jnp.zeros((sizes.num_kinds, sizes.num_classes))
  return confusion.at[kinds, predict(x, params, sizes)].add(1.0)


@functools.partial(jax.jit, static_argnums=(0, 1))
@functools.partial(jax.vmap, in_axes=(None, None, None, 0, 0))
def confusions(arm, sizes, task, seed, rate) -> tuple[jax.Array, jax.Array]:
  """Trains for all pairs of seeds `[n]` and rates `[n]` side by side.

  Returns:
    The confusion `[n, kinds, classes]` on validation and on test.
  """
  params = train(arm, sizes, task, seed, rate)
  return judge(params, task.validation, sizes), judge(params, task.test, sizes)


def confusions_in_steps(arm, sizes, task, seed, rate) -> tuple[np.ndarray, np.ndarray]:
  """The same, run by run and step by step: for convolutions, which are slow in loops on CPU."""
  first = jax.jit(start, static_argnums=(0, 1))
  one = jax.jit(step, static_argnums=(0, 1), donate_argnums=6)
  judged = jax.jit(judge, static_argnums=2)
  results = []
  for s, r in zip(seed, rate, strict=True):
    if arm.weights == "errors" or arm.teacher:
      raise ValueError("arms that train twice are not run step by step.")
    run = first(arm, sizes, task, s, r)
    carry, earlier = run.carry, Earlier(jnp.ones(len(task.x)), None)
    for number, batch in enumerate(run.batches):
      carry = one(arm, sizes, task, earlier, r, run.key, carry, batch, jnp.int32(number))
    splits = (task.validation, task.test)
    results.append([np.asarray(judged(carry[0], split, sizes)) for split in splits])
  validation, test = zip(*results, strict=True)
  return np.stack(validation), np.stack(test)
