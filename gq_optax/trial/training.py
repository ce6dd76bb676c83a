# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""One training run of one arm, pure, so that seeds and learning rates run side by side."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gq_optax as gq
from gq_optax.trial import arms, networks, weighing

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
  network: str = "auto"  # see `networks.make`; convolutions for images with channels, else dense
  decay: bool = True
  evaluations: int = 0  # of the validation split, evenly over the steps
  scores: bool = False  # `Outcome.test` holds the logits of every example, not confusions


def make_network(sizes: Sizes, example: tuple[int, ...]) -> networks.Network:
  """The network of a run."""
  name = sizes.network
  if name == "auto":
    name = "cnn" if len(example) == 3 else "mlp"
  return networks.make(name, sizes.num_classes)


def num_steps(sizes: Sizes, task: Task) -> int:
  """Updates of a whole run."""
  return sizes.epochs * (len(task.x) // sizes.batch_size)


class Earlier(NamedTuple):
  """What a first training leaves behind for the second.

  Attributes:
    importance: float `[n]`: what its errors count (JTT), else 1.
  """

  importance: jax.Array


class Run(NamedTuple):
  """The parts of a run: what changes from step to step, and the order of the batches.

  Attributes:
    carry: `networks.Variables`, optimizer state, state of the groups.
    batches: int32 `[steps, B]`.
    key: of the run.
  """

  carry: Any
  batches: jax.Array
  key: jax.Array


def start(arm: arms.Arm, sizes: Sizes, task: Task, seed: jax.Array, rate: jax.Array) -> Run:
  """Variables and batches hang on the seed alone: they are the same for all arms and rates."""
  first, shuffle, key = jax.random.split(jax.random.key(seed), 3)
  rows = len(task.x)
  used = rows - rows % sizes.batch_size  # what is left over of an epoch is left out
  order = jax.vmap(lambda k: jax.random.permutation(k, rows)[:used])(
    jax.random.split(shuffle, sizes.epochs)
  )
  batches = order.reshape(-1, sizes.batch_size)
  network = make_network(sizes, task.x.shape[1:])
  variables = network.init(first, task.x[:1])
  opt_state = arms.make_optimizer(arm, rate, len(batches), sizes.decay).init(variables.params)
  num_features = jax.eval_shape(network.apply, variables, task.x[:1])[1].shape[1]
  watch = weighing.init_watch(arm, num_features, sizes.num_classes, key, len(task.x))
  return Run((variables, opt_state, watch), batches, key)


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
  (params, state), opt_state, watch = carry
  network = make_network(sizes, task.x.shape[1:])
  counts = jnp.zeros(sizes.num_classes).at[task.labels].add(1.0)
  context = weighing.Context(
    labels=task.labels[batch],
    kinds=task.kinds[batch],
    importance=earlier.importance[batch],
    prior=counts / len(task.labels),
    num_kinds=sizes.num_kinds,
    key=jax.random.fold_in(key, number),
  )

  def loss(params):
    variables = networks.Variables(params, state)
    drawn = jax.random.fold_in(context.key, 1)  # dropout's
    (logits, features), after = network.train(variables, task.x[batch], drawn)
    weights, seen = weighing.weigh(arm, logits, features, context, watch, key)
    mean = jnp.mean(jax.lax.stop_gradient(weights) * weighing.losses(arm, logits, context))
    return mean, (seen, after)

  if arm.clusters == "none":
    gradient, (watch, state) = jax.grad(loss, has_aux=True)(params)
  else:
    gradient = clustered(arm, sizes, network, params, task.x[batch], context)
  optimizer = arms.make_optimizer(arm, rate, num_steps(sizes, task), sizes.decay)
  again = lambda params, _: jax.grad(lambda p: loss(p)[0])(params)  # SAM asks for it elsewhere
  updates, opt_state = optimizer.update(gradient, opt_state, params, grad_fn=again)
  return networks.Variables(optax.apply_updates(params, updates), state), opt_state, watch


def clustered(
  arm: arms.Arm,
  sizes: Sizes,
  network: networks.Network,
  params: Any,
  x: jax.Array,
  context: weighing.Context,
) -> gq.GroupGradients:
  """The gradients of the paper's clusters, or of random groups of the same number."""
  number = arms.num_clusters(arm, sizes.batch_size)
  batch = (x, context.labels)

  def losses(params, batch):
    logits, features = network.apply(networks.Variables(params, {}), batch[0])
    return weighing.cross_entropy(logits, batch[1]), features

  if arm.clusters == "features":
    return gq.clustered_value_and_grad(losses, number)(params, batch, context.key)[1]
  labels = gq.random_groups(context.key, sizes.batch_size, number)
  alone = lambda params, batch: losses(params, batch)[0]
  return gq.grouped_value_and_grad(alone, number)(params, batch, labels)[1]


def trains_twice(arm: arms.Arm) -> bool:
  """Whether a first, plain training comes before that of the arm."""
  return arm.weights == "errors"


def first_sizes(sizes: Sizes) -> Sizes:
  """Those of a first training."""
  return sizes._replace(epochs=max(1, sizes.epochs // 2), evaluations=0)


def first_arm(arm: arms.Arm) -> arms.Arm:
  """What is trained first: nothing but the arm's optimizer."""
  return arms.Arm(optimizer=arm.optimizer, weight_decay=arm.weight_decay)


def look_back(predicted: jax.Array, task: Task) -> Earlier:
  """What an arm takes from the first training's predictions `[n]`."""
  return Earlier(jnp.where(predicted != task.labels, UPWEIGHT, 1.0))


def train(
  arm: arms.Arm, sizes: Sizes, task: Task, seed: jax.Array, rate: jax.Array
) -> tuple[Any, jax.Array]:
  """A whole run as one scan (two if there is a first training).

  Returns:
    The last variables, and the mean accuracy over kinds on validation at `evaluated` steps.
  """
  earlier = Earlier(jnp.ones(len(task.x)))
  if trains_twice(arm):
    first, _ = train(first_arm(arm), first_sizes(sizes), task, seed, rate)
    predicted = jnp.argmax(logits_of(task.x, first, sizes), axis=1)
    earlier = look_back(predicted, task)
  run = start(arm, sizes, task, seed, rate)
  marks = evaluated(sizes, len(run.batches))
  due = jnp.zeros(len(run.batches), bool).at[jnp.array(marks, int)].set(True)

  def body(carry, xs):
    batch, number, now = xs
    carry = one(carry, batch, number)
    if not marks:
      return carry, None
    look = lambda variables: mean_over_kinds(judge(variables, task.validation, sizes), task)
    return carry, jax.lax.cond(now, look, lambda _: jnp.float32(0.0), carry[0])

  one = functools.partial(step, arm, sizes, task, earlier, rate, run.key)
  carry, scores = jax.lax.scan(body, run.carry, (run.batches, jnp.arange(len(due)), due))
  return carry[0], jnp.zeros(0) if scores is None else scores[jnp.array(marks, int)]


def evaluated(sizes: Sizes, steps: int) -> list[int]:
  """The steps, counted from 0, after which validation is looked at; the last is one of them."""
  number = min(sizes.evaluations, steps)
  return [(i + 1) * steps // number - 1 for i in range(number)]


def logits_of(x: jax.Array, variables: Any, sizes: Sizes) -> jax.Array:
  """The logits of each example, `[n, classes]`."""
  return make_network(sizes, x.shape[1:]).apply(variables, x)[0]


def judge(variables: Any, split: Any, sizes: Sizes) -> jax.Array:
  """How often each class is predicted for each kind, `[kinds, classes]`.

  A run that diverged recognises nothing: where logits are NaN or Inf, another class counts.
  """
  x, labels, kinds = split
  logits = logits_of(x, variables, sizes)
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
    test: the same on the test split; or its logits `[n, m, classes]` with `Sizes.scores`.
    curve: mean accuracy over kinds on validation in the course of training, `[n, evaluations]`.
  """

  validation: Any
  test: Any
  curve: Any


def one_run(arm, sizes, task, seed, rate) -> Outcome:
  """A run and what it gives."""
  variables, curve = train(arm, sizes, task, seed, rate)
  look = logits_of(task.test[0], variables, sizes) if sizes.scores else None
  test = judge(variables, task.test, sizes) if look is None else look
  return Outcome(judge(variables, task.validation, sizes), test, curve)


@functools.partial(jax.jit, static_argnums=(0, 1))
@functools.partial(jax.vmap, in_axes=(None, None, None, 0, 0))
def side_by_side(arm, sizes, task, seed, rate) -> Outcome:
  """Trains for all pairs of seeds `[n]` and rates `[n]` at once."""
  return one_run(arm, sizes, task, seed, rate)


@functools.partial(jax.jit, static_argnums=(0, 1))
@functools.partial(jax.vmap, in_axes=(None, None, 0, 0, 0))
def each_on_its_own(arm, sizes, tasks, seed, rate) -> Outcome:
  """The same, each pair on another split: every array of `tasks` has one axis more, in front."""
  return one_run(arm, sizes, tasks, seed, rate)


def step_by_step(arm, sizes, task, seed, rate) -> Outcome:
  """The same, run by run and step by step: for convolutions, which are slow in loops on CPU."""
  results = []
  for s, r in zip(seed, rate, strict=True):
    earlier = Earlier(jnp.ones(len(task.x)))
    if trains_twice(arm):
      first, _ = steps(first_arm(arm), first_sizes(sizes), task, s, r, earlier)
      predicted = jnp.argmax(in_parts(task.x, first, sizes), axis=1)
      earlier = look_back(predicted, task)
    variables, curve = steps(arm, sizes, task, s, r, earlier)
    look = lambda split, variables=variables: np.asarray(_judge(variables, split, sizes))
    scores = in_parts(task.test[0], variables, sizes) if sizes.scores else look(task.test)
    results.append(Outcome(look(task.validation), np.asarray(scores), np.array(curve)))
  return Outcome(*(np.stack(part) for part in zip(*results, strict=True)))


def in_parts(x: jax.Array, variables: Any, sizes: Sizes) -> jax.Array:
  """`logits_of`, a batch at a time."""
  parts = jnp.split(x, [*range(sizes.batch_size, len(x), sizes.batch_size)])
  return jnp.concatenate([_logits(part, variables, sizes) for part in parts])


def steps(arm, sizes, task, seed, rate, earlier) -> tuple[Any, list[float]]:
  """One training as a Python loop: the last variables, and the curve on validation."""
  run = _start(arm, sizes, task, seed, rate)
  carry, marks, curve = run.carry, set(evaluated(sizes, len(run.batches))), []
  for number, batch in enumerate(run.batches):
    carry = _step(arm, sizes, task, earlier, rate, run.key, carry, batch, jnp.int32(number))
    if number in marks:
      curve.append(float(mean_over_kinds(_judge(carry[0], task.validation, sizes), task)))
  return carry[0], curve


_start = jax.jit(start, static_argnums=(0, 1))
_step = jax.jit(step, static_argnums=(0, 1), donate_argnums=6)
_judge = jax.jit(judge, static_argnums=2)
_logits = jax.jit(logits_of, static_argnums=2)
