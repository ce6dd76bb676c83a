# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""One training run of one arm, pure, so that seeds and learning rates run side by side."""

import dataclasses
import functools
from collections.abc import Callable
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
PART = 8192  # examples of which the logits are taken at once
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


def start(
  arm: arms.Arm, sizes: Sizes, task: Task, seed: jax.Array, rate: jax.Array
) -> tuple[Any, jax.Array, jax.Array]:
  """What a run starts with; all but the states hangs on the seed alone, for all arms and rates.

  Returns:
    What changes from step to step (parameters, optimizer state, state of the weights), the rows of
    each batch, int32 `[steps, B]`, and the key of the run.
  """
  first, shuffle, key = jax.random.split(jax.random.key(seed), 3)
  rows = len(task.x)
  used = rows - rows % sizes.batch_size  # what is left over of an epoch is left out
  order = jax.vmap(lambda k: jax.random.permutation(k, rows)[:used])(
    jax.random.split(shuffle, sizes.epochs)
  )
  batches = order.reshape(-1, sizes.batch_size)
  network = make_network(sizes, task.x.shape[1:])
  params = network.init(first, task.x[:1])
  opt_state = arms.make_optimizer(arm, rate, len(batches)).init(params)
  num_features = jax.eval_shape(network.apply, params, task.x[:1])[1].shape[1]
  weights_state = weighing.init_state(
    arm, num_features, sizes.num_classes, key, len(task.x), sizes.num_kinds
  )
  return (params, opt_state, weights_state), batches, key


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
  counts = jnp.zeros(sizes.num_classes).at[task.labels].add(1.0)
  context = weighing.Context(
    labels=task.labels[batch],
    kinds=task.kinds[batch],
    importance=importance[batch],
    prior=counts / len(task.labels),
    num_kinds=sizes.num_kinds,
    key=jax.random.fold_in(key, number),
    progress=number / num_steps(sizes, task),
  )

  def loss(params):
    logits, features = apply(params, x, sizes)
    weights, seen = weighing.weigh(arm, logits, features, context, state, key)
    losses = weighing.losses(arm, logits, context)
    return jnp.mean(jax.lax.stop_gradient(weights) * losses), seen

  if arm.clusters == "none":
    gradient, state = jax.grad(loss, has_aux=True)(params)
  else:
    gradient = clustered(arm, sizes, params, x, context)
  optimizer = arms.make_optimizer(arm, rate, num_steps(sizes, task))
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


Loop = Callable[..., Any]  # all steps of an arm from its start: `(arm, sizes, task, ...)` of `step`


def scanned(arm, sizes, task, importance, rate, key, carry, batches) -> Any:
  """All steps as one scan."""
  body = lambda carry, xs: (step(arm, sizes, task, importance, rate, key, carry, *xs), None)
  return jax.lax.scan(body, carry, (batches, jnp.arange(len(batches))))[0]


def one_by_one(arm, sizes, task, importance, rate, key, carry, batches) -> Any:
  """All steps as a loop of Python: for convolutions, which are slow in loops on CPU."""
  for number, batch in enumerate(batches):
    carry = _step(arm, sizes, task, importance, rate, key, carry, batch, jnp.int32(number))
  return carry


def train(
  arm: arms.Arm, sizes: Sizes, task: Task, seed: jax.Array, rate: jax.Array, loop: Loop = scanned
) -> Any:
  """The last parameters of a whole run.

  JTT trains its optimizer alone for half the epochs before; what is then wrong counts more.
  """
  importance = jnp.ones(len(task.x))
  if arm.weights == "errors":
    plain = arms.Arm(optimizer=arm.optimizer, weight_decay=arm.weight_decay)
    short = sizes._replace(epochs=max(1, sizes.epochs // 2))
    params = train(plain, short, task, seed, rate, loop)
    parts = jnp.split(task.x, [*range(PART, len(task.x), PART)])
    logits = jnp.concatenate([_logits(params, part, sizes) for part in parts])
    importance = jnp.where(jnp.argmax(logits, axis=1) != task.labels, UPWEIGHT, 1.0)
  carry, batches, key = start(arm, sizes, task, seed, rate)
  return loop(arm, sizes, task, importance, rate, key, carry, batches)[0]


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


@functools.partial(jax.jit, static_argnums=(0, 1))
def side_by_side(arm, sizes, task, seeds, rates, weight_decay=None) -> tuple[Any, Any]:
  """Trains for all pairs of seeds `[n]` and rates `[n]` at once.

  A weight decay is a number of the program like the rates.

  Returns:
    The confusions `[n, kinds, classes]` of validation, and of test.
  """
  decayed = dataclasses.replace(arm, weight_decay=weight_decay)

  def one(seed, rate):
    params = train(decayed, sizes, task, seed, rate)
    return judge(params, task.validation, sizes), judge(params, task.test, sizes)

  return jax.vmap(one)(seeds, rates)


def step_by_step(arm, sizes, task, seeds, rates, weight_decay=None) -> tuple[Any, Any]:
  """The same, run by run and step by step."""
  if weight_decay is not None:
    raise ValueError(f"weight_decay must be None for images, but {weight_decay} was found.")
  results = []
  for seed, rate in zip(seeds, rates, strict=True):
    params = train(arm, sizes, task, seed, rate, one_by_one)
    results.append([np.asarray(_judge(params, s, sizes)) for s in (task.validation, task.test)])
  validation, test = zip(*results, strict=True)
  return np.stack(validation), np.stack(test)


_step = jax.jit(step, static_argnums=(0, 1), donate_argnums=6)
_judge = jax.jit(judge, static_argnums=2)
_logits = jax.jit(lambda params, x, sizes: apply(params, x, sizes)[0], static_argnums=2)
