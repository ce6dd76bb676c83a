# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""One training run of one arm, pure, so that seeds and learning rates run side by side."""

import dataclasses
import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import gq_optax as gq
from benchmarks.harness import arms, networks, weighing

# JTT (Liu et al. 2021): a first training of half the epochs; its errors then count this much.
UPWEIGHT = 3.0
HIDDEN = 128


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
  decay: bool = True
  evaluations: int = 0  # of the validation split, evenly over the steps


def make_network(sizes: Sizes, example: tuple[int, ...]) -> nn.Module:
  """Convolutions for images with channels, else one hidden layer."""
  if len(example) == 3:
    return networks.SmallCNN(sizes.num_classes)
  return networks.MLP((HIDDEN,), sizes.num_classes)


def apply(params: Any, x: jax.Array, sizes: Sizes) -> tuple[jax.Array, jax.Array]:
  """Logits `[n, classes]` and features `[n, d]`."""
  outputs: Any = make_network(sizes, x.shape[1:]).apply(params, x)
  return outputs


def num_steps(sizes: Sizes, task: Task) -> int:
  """Updates of a whole run."""
  return sizes.epochs * (len(task.x) // sizes.batch_size)


class Run(NamedTuple):
  """The parts of a run: what changes from step to step, and the order of the batches.

  Attributes:
    carry: parameters, optimizer state, state of the weights.
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
  network = make_network(sizes, task.x.shape[1:])
  params = network.init(first, task.x[:1])
  opt_state = arms.make_optimizer(arm, rate, len(batches), sizes.decay).init(params)
  num_features = jax.eval_shape(network.apply, params, task.x[:1])[1].shape[1]
  weights_state = weighing.init_state(
    arm, num_features, sizes.num_classes, key, len(task.x), sizes.num_kinds
  )
  return Run((params, opt_state, weights_state), batches, key)


def context_of(
  sizes: Sizes, task: Task, importance: jax.Array, key: jax.Array, batch: jax.Array, number: Any
) -> weighing.Context:
  """What a loss may know of the rows `batch`, in step `number`."""
  counts = jnp.zeros(sizes.num_classes).at[task.labels].add(1.0)
  return weighing.Context(
    labels=task.labels[batch],
    kinds=task.kinds[batch],
    importance=importance[batch],
    prior=counts / len(task.labels),
    num_kinds=sizes.num_kinds,
    key=jax.random.fold_in(key, number),
    progress=number / num_steps(sizes, task),
  )


def step(
  arm: arms.Arm,
  sizes: Sizes,
  task: Task,
  importance: jax.Array,
  rate: jax.Array,
  key: jax.Array,
  carry: Any,
  batch: jax.Array,
  number: jax.Array,
) -> Any:
  """One step on the rows `batch`; `importance` `[n]` is what a first training says (JTT)."""
  params, opt_state, state = carry
  x = task.x[batch]
  context = context_of(sizes, task, importance, key, batch, number)

  def loss(params):
    logits, features = apply(params, x, sizes)
    weights, seen = weighing.weigh(arm, logits, features, context, state, key)
    losses = weighing.losses(arm, logits, context)
    return jnp.mean(jax.lax.stop_gradient(weights) * losses), seen

  if arm.clusters == "none":
    gradient, state = jax.grad(loss, has_aux=True)(params)
  else:
    gradient = clustered(arm, sizes, params, x, context)
  optimizer = arms.make_optimizer(arm, rate, num_steps(sizes, task), sizes.decay)
  again = lambda params, _: jax.grad(lambda p: loss(p)[0])(params)  # SAM asks for it elsewhere
  updates, opt_state = optimizer.update(gradient, opt_state, params, grad_fn=again)
  return optax.apply_updates(params, updates), opt_state, state


def clustered(
  arm: arms.Arm, sizes: Sizes, params: Any, x: jax.Array, context: weighing.Context
) -> gq.GroupGradients:
  """The gradients of the paper's clusters, or of random groups of the same number."""
  number = arms.num_clusters(arm, sizes.batch_size)
  batch = (x, context.labels)

  def losses(params, batch):
    logits, features = apply(params, batch[0], sizes)
    return weighing.cross_entropy(logits, batch[1]), features

  if arm.clusters == "features":
    return gq.clustered_value_and_grad(losses, number)(params, batch, context.key)[1]
  labels = gq.random_groups(context.key, sizes.batch_size, number)
  alone = lambda params, batch: losses(params, batch)[0]
  return gq.grouped_value_and_grad(alone, number)(params, batch, labels)[1]


def first_of(arm: arms.Arm, sizes: Sizes) -> tuple[arms.Arm, Sizes] | None:
  """What is trained before an arm, if anything: its optimizer alone, half the epochs (JTT)."""
  if arm.weights != "errors":
    return None
  plain = arms.Arm(optimizer=arm.optimizer, weight_decay=arm.weight_decay)
  return plain, sizes._replace(epochs=max(1, sizes.epochs // 2), evaluations=0)


def importance_of(logits: jax.Array, task: Task) -> jax.Array:
  """What each example counts after a first training with these logits, `[n]`."""
  return jnp.where(jnp.argmax(logits, axis=1) != task.labels, UPWEIGHT, 1.0)


def train(
  arm: arms.Arm, sizes: Sizes, task: Task, seed: jax.Array, rate: jax.Array
) -> tuple[Any, jax.Array]:
  """A whole run as one scan (two if there is a first training).

  Returns:
    The last parameters, and the mean accuracy over kinds on validation at `evaluated` steps.
  """
  importance = jnp.ones(len(task.x))
  if first := first_of(arm, sizes):
    params, _ = train(*first, task, seed, rate)
    importance = importance_of(apply(params, task.x, sizes)[0], task)
  run = start(arm, sizes, task, seed, rate)
  marks = evaluated(sizes, len(run.batches))
  due = jnp.zeros(len(run.batches), bool).at[jnp.array(marks, int)].set(True)

  def body(carry, xs):
    batch, number, now = xs
    carry = step(arm, sizes, task, importance, rate, run.key, carry, batch, number)
    if not marks:
      return carry, None
    look = lambda params: mean_over_kinds(judge(params, task.validation, sizes), task)
    return carry, jax.lax.cond(now, look, lambda _: jnp.float32(0.0), carry[0])

  carry, scores = jax.lax.scan(body, run.carry, (run.batches, jnp.arange(len(due)), due))
  return carry[0], jnp.zeros(0) if scores is None else scores[jnp.array(marks, int)]


def evaluated(sizes: Sizes, steps: int) -> list[int]:
  """The steps, counted from 0, after which validation is looked at; the last is one of them."""
  number = min(sizes.evaluations, steps)
  return [(i + 1) * steps // number - 1 for i in range(number)]


def judge(params: Any, split: Any, sizes: Sizes) -> jax.Array:
  """How often each class is predicted for each kind, `[kinds, classes]`.

  A run that diverged recognises nothing: where logits are NaN or Inf, another class counts.
  """
  x, labels, kinds = split
  logits, _ = apply(params, x, sizes)
  finite = jnp.all(jnp.isfinite(logits), axis=1)
  predicted = jnp.where(finite, jnp.argmax(logits, axis=1), (labels + 1) % sizes.num_classes)
  confusion = jnp.zeros((sizes.num_kinds, sizes.num_classes))
  return confusion.at[kinds, predicted].add(1.0)


def mean_over_kinds(confusion: jax.Array, task: Task) -> jax.Array:
  """Accuracy, every kind that is there counting the same."""
  _, labels, kinds = task.validation
  own = jnp.zeros(len(confusion), jnp.int32).at[kinds].set(labels)
  number = jnp.sum(confusion, axis=1)
  hits = confusion[jnp.arange(len(confusion)), own]
  return jnp.sum(hits / jnp.maximum(number, 1.0)) / jnp.sum(number > 0.0)


class Outcome(NamedTuple):
  """What runs give, one row each.

  Attributes:
    validation: confusions `[n, kinds, classes]`.
    test: the same on the test split.
    curve: mean accuracy over kinds on validation in the course of training, `[n, evaluations]`.
  """

  validation: Any
  test: Any
  curve: Any


@functools.partial(jax.jit, static_argnums=(0, 1))
def side_by_side(arm, sizes, task, seeds, rates, weight_decay=None) -> Outcome:
  """Trains for all pairs of seeds `[n]` and rates `[n]` at once.

  A weight decay is a number of the program like the rates.
  """
  decayed = dataclasses.replace(arm, weight_decay=weight_decay)

  def one(seed, rate):
    params, curve = train(decayed, sizes, task, seed, rate)
    return Outcome(judge(params, task.validation, sizes), judge(params, task.test, sizes), curve)

  return jax.vmap(one)(seeds, rates)


def step_by_step(arm, sizes, task, seeds, rates, weight_decay=None) -> Outcome:
  """The same, run by run and step by step: for convolutions, which are slow in loops on CPU."""
  if weight_decay is not None:
    raise ValueError(f"weight_decay must be None for images, but {weight_decay} was found.")
  results = []
  for seed, rate in zip(seeds, rates, strict=True):
    importance = jnp.ones(len(task.x))
    if first := first_of(arm, sizes):
      params = steps(*first, task, seed, rate, importance)
      parts = jnp.split(task.x, [*range(sizes.batch_size, len(task.x), sizes.batch_size)])
      logits = jnp.concatenate([_logits(params, part, sizes) for part in parts])
      importance = importance_of(logits, task)
    params = steps(arm, sizes, task, seed, rate, importance)
    look = lambda split, params=params: np.asarray(_judge(params, split, sizes))
    results.append(Outcome(look(task.validation), look(task.test), np.zeros(0)))
  return Outcome(*(np.stack(part) for part in zip(*results, strict=True)))


def steps(arm, sizes, task, seed, rate, importance) -> Any:
  """One training as a Python loop: the last parameters."""
  run = _start(arm, sizes, task, seed, rate)
  carry = run.carry
  for number, batch in enumerate(run.batches):
    carry = _step(arm, sizes, task, importance, rate, run.key, carry, batch, jnp.int32(number))
  return carry[0]


_start = jax.jit(start, static_argnums=(0, 1))
_step = jax.jit(step, static_argnums=(0, 1), donate_argnums=6)
_judge = jax.jit(judge, static_argnums=2)
_logits = jax.jit(lambda params, x, sizes: apply(params, x, sizes)[0], static_argnums=2)
