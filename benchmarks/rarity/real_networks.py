# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Weights by rarity on a convolutional network: WRN-16-4 on CIFAR-10 with a long tail, on a GPU.

    python -m benchmarks.rarity.real_networks

Every way to weigh gets its own rate: the best of four on validation after 15 epochs. At that rate
60 epochs are run with three seeds, and the test split is read. What is in the results is not run
again. Images are bytes on the device, cropped and mirrored inside the program; the way to weigh,
the rate, the seed and the number of steps are traced, so that every run of an optimizer is the same
program.
"""

import functools
import math
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from benchmarks.harness import arms, data, networks, optimizers, records, tasks, weighing
from benchmarks.harness.protocol import figures

WAYS = ("SGDM", "class weights", "logit adjustment", arms.RECOMMENDED[1])
IMBALANCE, LARGEST, CLASSES, PADDING = 100.0, 5000, 10, 4
WARMUP = 0.05  # part of the steps over which the rate rises
# Weight decay shrinks kernels by about 5e-4 a step at a rate of .1 with momentum .9, as is usual
# for SGD; by 2e-4 at Muon's .02.
DECAY = {"SGDM": 5e-4, "Muon": 0.01}
ADAM_RATE = 0.1  # of Muon's own: for scales and biases, which are no matrices
RATES = {"Muon": (0.01, 0.02, 0.04, 0.08), "SGDM": (0.0125, 0.025, 0.05, 0.1)}


class Scale(NamedTuple):
  """How large it all is."""

  batch_size: int = 1024
  chunk: int = 5  # epochs of one call; those below are multiples of it
  tuning_epochs: int = 15
  epochs: int = 60
  seeds: int = 3
  width: int = 4
  blocks: int = 2


FULL = Scale()


class Images(NamedTuple):
  """The task on the device.

  Attributes:
    padded: uint8 `[n, h + 8, w + 8, c]`, training, with a black edge.
    labels: int32 `[n]`.
    mean: float32 `[c]`, of the training pixels.
    std: float32 `[c]`.
    splits: validation, to choose rates on, and test: uint8 images and labels of each.
  """

  padded: jax.Array
  labels: jax.Array
  mean: jax.Array
  std: jax.Array
  splits: tuple[tuple[jax.Array, jax.Array], ...]


def make(source: data.Data) -> Images:
  """Class c keeps `5000 * 100 ** (-c / 9)` examples of training; the test set is halved."""
  rows = tasks.long_tail(source.y_train, IMBALANCE, LARGEST, seed=0)
  x = source.x_train[rows]
  pixels, edge = x.astype(np.float64), ((0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0))
  put = lambda y: jnp.asarray(y, jnp.int32)
  halves = tasks.halves(source.y_test, seed=0)
  return Images(
    jnp.asarray(np.pad(x, edge)),
    put(source.y_train[rows]),
    jnp.asarray(pixels.mean((0, 1, 2)), jnp.float32),
    jnp.asarray(pixels.std((0, 1, 2)), jnp.float32),
    tuple((jnp.asarray(source.x_test[half]), put(source.y_test[half])) for half in halves),
  )


def normalise(images: Images, x: jax.Array) -> jax.Array:
  """Bytes as float32 with mean 0 and deviation 1 over the training pixels."""
  return (x.astype(jnp.float32) - images.mean) / images.std


def augmented(images: Images, rows: jax.Array, key: jax.Array) -> jax.Array:
  """The examples `rows`, each cropped anywhere within its edge and mirrored or not; float32."""
  _, height, width, _ = images.padded.shape
  shift_key, flip_key = jax.random.split(key)
  shifts = jax.random.randint(shift_key, (len(rows), 2), 0, 2 * PADDING + 1)
  mirrored = jax.random.bernoulli(flip_key, shape=(len(rows), 1))
  down = shifts[:, :1] + jnp.arange(height - 2 * PADDING)
  forwards = jnp.arange(width - 2 * PADDING)
  across = shifts[:, 1:] + jnp.where(mirrored, forwards[::-1], forwards)
  return normalise(images, images.padded[rows[:, None, None], down[:, :, None], across[:, None, :]])


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


class Plan(NamedTuple):
  """What is traced of a run: the way of `WAYS`, the highest rate, the seed, all its epochs."""

  way: jax.Array
  rate: jax.Array
  seed: jax.Array
  epochs: jax.Array


def network(scale: Scale) -> networks.WideResNet:
  """WRN-16-4, or less of it."""
  return networks.WideResNet(scale.width, scale.blocks, CLASSES)


@functools.partial(jax.jit, static_argnums=(0, 1))
def start(name: str, scale: Scale, images: Images, plan: Plan) -> Any:
  """Parameters, optimizer state and the queue of example scarcity, which every way fills."""
  key = jax.random.key(plan.seed)
  x = normalise(images, images.splits[0][0][:1])
  params = network(scale).init(jax.random.fold_in(key, 0), x)
  steps = plan.epochs * (len(images.labels) // scale.batch_size)
  num_features = jax.eval_shape(network(scale).apply, params, x)[1].shape[1]
  state = weighing.init_state(arms.find(WAYS[-1]), num_features, CLASSES, key, len(images.labels))
  return params, make_optimizer(name, plan.rate, steps).init(params), state


def mean_loss(scale, images, plan, state, params, rows, key) -> tuple[jax.Array, Any]:
  """The loss of the run's own way, out of those of all ways; and the queue after the batch."""
  outputs: Any = network(scale).apply(params, augmented(images, rows, key))
  logits, features = outputs
  prior = jnp.zeros(CLASSES).at[images.labels].add(1.0) / len(images.labels)
  labels, ones = images.labels[rows], jnp.ones(len(rows))
  context = weighing.Context(labels, labels, ones, prior, CLASSES, key, jnp.float32(0.0))
  means, after = [], state
  for arm in map(arms.find, WAYS):
    seen = state if "examples" in arm.weights else None
    weights, seen = weighing.weigh(arm, logits, features, context, seen, key)
    after = after if seen is None else seen
    losses = weighing.losses(arm, logits, context)
    means.append(jnp.mean(jax.lax.stop_gradient(weights) * losses))
  return jnp.stack(means)[plan.way], after


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=4)
def train_chunk(
  name: str, scale: Scale, images: Images, plan: Plan, carry: Any, first: jax.Array
) -> Any:
  """`scale.chunk` epochs from epoch `first` on, in one scan."""
  key, rows = jax.random.key(plan.seed), len(images.labels)
  each = rows // scale.batch_size  # whole batches; what is left over is left out
  optimizer = make_optimizer(name, plan.rate, plan.epochs * each)

  def order(epoch):
    shuffle = jax.random.fold_in(jax.random.fold_in(key, 1), epoch)
    return jax.random.permutation(shuffle, rows)[: each * scale.batch_size]

  batches = jax.vmap(order)(first + jnp.arange(scale.chunk)).reshape(-1, scale.batch_size)
  numbers = first * each + jnp.arange(scale.chunk * each)

  def step(carry, batch):
    params, opt_state, state = carry
    rows, number = batch
    crop = jax.random.fold_in(jax.random.fold_in(key, 2), number)
    loss = functools.partial(mean_loss, scale, images, plan, state)
    gradient, state = jax.grad(loss, has_aux=True)(params, rows, crop)
    updates, opt_state = optimizer.update(gradient, opt_state, params)
    return (optax.apply_updates(params, updates), opt_state, state), None

  return jax.lax.scan(step, carry, (batches, numbers))[0]


@functools.partial(jax.jit, static_argnums=0)
def judge(scale: Scale, images: Images, params: Any, split: Any) -> jax.Array:
  """How often each class is predicted for each class, `[classes, classes]`."""
  x, labels = split
  one = lambda x: network(scale).apply(params, normalise(images, x[None]))[0][0]
  part = math.ceil(len(x) / math.ceil(len(x) / scale.batch_size))  # equal parts: one program
  found = jnp.argmax(jax.lax.map(one, x, batch_size=part), axis=1)
  return jnp.zeros((CLASSES, CLASSES)).at[labels, found].add(1.0)


def run(name: str, scale: Scale, images: Images, way: str, rate: float, seed: int, epochs: int):
  """Figures of a run on validation and on test."""
  plan = Plan(jnp.int32(WAYS.index(way)), jnp.float32(rate), jnp.int32(seed), jnp.int32(epochs))
  carry = start(name, scale, images, plan)
  for epoch in range(0, epochs, scale.chunk):
    carry = train_chunk(name, scale, images, plan, carry, jnp.int32(epoch))
  look = lambda split: np.asarray(judge(scale, images, carry[0], split))
  return [figures(look(split), np.arange(CLASSES)) for split in images.splits]


def main(
  optimizer_names: tuple[str, ...] = tuple(RATES),
  scale: Scale = FULL,
  out: Path = Path("out/real_networks.jsonl"),
) -> None:
  """Runs what is missing.

  Args:
    optimizer_names: some of `RATES`.
    scale: for a try on a CPU, smaller.
    out: one JSON a line, for each optimizer and way.
  """
  images = make(data.load("cifar10"))
  for name in optimizer_names:
    for way in WAYS:
      cell, rates = {"optimizer": name, "arm": way}, RATES[name]
      if any(cell.items() <= row.items() for row in records.read(out)):
        continue
      began, one = time.perf_counter(), functools.partial(run, name, scale, images, way)
      scores = {rate: one(rate, 0, scale.tuning_epochs)[0]["mean"] for rate in rates}
      rate = max(rates, key=lambda r: scores[r])
      tests = [one(rate, seed, scale.epochs)[1] for seed in range(scale.seeds)]
      row = cell | {
        "rate": rate,
        "inside": min(rates) < rate < max(rates),
        "validation_by_rate": {f"{r:g}": round(s, 6) for r, s in scores.items()},
        **{key: [round(test[key], 8) for test in tests] for key in ("mean", "worst")},
        "seconds": round(time.perf_counter() - began, 1),
        "device": jax.devices()[0].device_kind,
      }
      records.append(out, row)
      print(row, flush=True)


if __name__ == "__main__":
  tyro.cli(main)
