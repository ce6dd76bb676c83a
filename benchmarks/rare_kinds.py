# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Who finds the rare kinds of examples? Group scarcity beside what else is done about them.

    python -m benchmarks.rare_kinds --tasks hidden5 --batch-sizes 1024
    python -m benchmarks.rare_kinds --report-only

One file per task, batch size and arm in `out/rare_kinds`; what is there is not run again. Every arm
gets its own learning rate: the best on validation over two seeds, out of a grid that grows until
the best lies inside it. At that rate all seeds are run, and the test split is read.
"""

import dataclasses
import json
import math
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import rich
import tyro

import gq_optax as gq
from benchmarks import arms, data, tasks, training
from benchmarks.protocol import tune

TUNING_SEEDS = 2
WIDTH = 5  # runs side by side
MAX_EXTENSIONS = 6


@dataclasses.dataclass(frozen=True)
class Recipe:
  """How a task is made of a data set, and how long it is trained."""

  source: str
  imbalance: float | None = 100.0
  largest: int = 6000
  hidden: int | None = None  # seed of the superclasses
  noise: str | None = None  # "symmetric" or "asymmetric"
  rate: float = 0.0
  epochs: int = 10


RECIPES = {
  **{f"hidden{s}": Recipe("fashion_mnist", hidden=s) for s in (5, 6, 7)},
  **{f"mnist hidden{s}": Recipe("mnist", hidden=s, largest=5400) for s in (5, 6, 7)},
  "LT100": Recipe("fashion_mnist"),
  "LT100, 20 % noise": Recipe("fashion_mnist", noise="symmetric", rate=0.2),
  "LT100, 40 % noise": Recipe("fashion_mnist", noise="symmetric", rate=0.4),
  "LT100, 30 % asymmetric": Recipe("fashion_mnist", noise="asymmetric", rate=0.3),
  "hidden5, 20 % noise": Recipe("fashion_mnist", hidden=5, noise="symmetric", rate=0.2),
  "balanced": Recipe("fashion_mnist", imbalance=None, epochs=5),
  "CIFAR-10 LT100": Recipe("cifar10", largest=5000, epochs=15),
  "Reuters": Recipe("reuters", imbalance=None, epochs=20),
  "page_blocks0": Recipe("page_blocks0", imbalance=None, epochs=40),
  "japanese_vowels": Recipe("japanese_vowels", imbalance=10.0, largest=30, epochs=150),
}


def make_task(recipe: Recipe) -> tuple[training.Task, int]:
  """The arrays of a task, and its number of classes.

  The published test set is cut in halves, stratified: one to choose learning rates on, one to
  report. Labels are noisy in training only.
  """
  source = data.load(recipe.source)
  kinds, rows = source.y_train, np.arange(len(source.y_train))
  if recipe.imbalance is not None:
    rows = tasks.long_tail(kinds, recipe.imbalance, recipe.largest, seed=0)
  images = source.x_train.dtype == np.uint8
  x, x_test = source.x_train[rows], source.x_test
  if source.x_train.dtype == np.uint8 and x.ndim == 4:
    x, x_test = tasks.standardise(x, x_test)
  else:
    flat = [part.reshape(len(part), -1) for part in (x, x_test)]
    sparse = recipe.source == "reuters"  # zeros and ones stay what they are
    x, x_test = flat if sparse else tasks.standardise(*flat, per_feature=not images)
  name = lambda k: k if recipe.hidden is None else tasks.superclasses(k, recipe.hidden)
  num_classes = int(name(kinds).max()) + 1
  labels = name(kinds[rows])
  if recipe.noise == "symmetric":
    labels, _ = tasks.symmetric_noise(labels, recipe.rate, num_classes, seed=0)
  elif recipe.noise == "asymmetric":
    mapping = tasks.next_class(num_classes)
    labels, _ = tasks.asymmetric_noise(labels, recipe.rate, mapping, seed=0)
  put = lambda k: jnp.asarray(k, jnp.int32)
  splits = []
  for half in tasks.halves(source.y_test, seed=0):
    y = source.y_test[half]
    splits.append((jnp.asarray(x_test[half], jnp.float32), put(name(y)), put(y)))
  return training.Task(
    jnp.asarray(x, jnp.float32), put(labels), put(kinds[rows]), splits[0], splits[1]
  ), num_classes


def figures(confusion: np.ndarray, label_of_kind: np.ndarray) -> dict[str, Any]:
  """Accuracy of each kind, their mean and lowest; accuracy and macro-F1 of the classes."""
  number = confusion.sum(axis=1)
  present = number > 0
  hits = confusion[np.arange(len(confusion)), label_of_kind]
  by_kind = hits[present] / number[present]
  classes = confusion.shape[1]
  by_class = np.zeros((classes, classes))
  np.add.at(by_class, label_of_kind, confusion)
  true_positive, found = np.diag(by_class), by_class.sum(axis=0)
  exists = by_class.sum(axis=1)
  f1 = 2 * true_positive[exists > 0] / (found + exists)[exists > 0]
  return {
    "mean": float(by_kind.mean()),
    "worst": float(by_kind.min()),
    "accuracy": float(hits.sum() / number.sum()),
    "macro_f1": float(f1.mean()),
    "by_kind": [round(float(a), 4) for a in by_kind],
  }


def run_arm(
  arm: arms.Arm,
  sizes: training.Sizes,
  task: training.Task,
  label_of_kind: np.ndarray,
  seeds: int,
) -> dict[str, Any]:
  """Tunes the rate of one arm, then runs all seeds at the best."""
  images = task.x.ndim == 4
  confusions: Any = training.confusions_in_steps if images else training.confusions
  width = 1 if images else WIDTH

  def run(pairs: list[tuple[int, float]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Figures on validation and on test of each pair of a seed and a rate."""
    results = []
    for i in range(0, len(pairs), width):
      part = pairs[i : i + width]
      filled = part + [part[-1]] * (width - len(part))  # one shape, one compilation
      seed, rate = jnp.array([s for s, _ in filled]), jnp.array([r for _, r in filled])
      both = [np.asarray(c) for c in confusions(arm, sizes, task, seed, rate.astype(jnp.float32))]
      for j in range(len(part)):
        validation, test = (figures(c[j], label_of_kind) for c in both)
        results.append((validation, test))
    return results

  tuning, grid = min(TUNING_SEEDS, seeds), arms.RATES[arm.optimizer]
  known: dict[float, float] = {}

  def score(rate: float) -> float:
    if rate not in known:
      wanted = [r for r in grid if r not in known] if rate in grid else [rate]
      results = run([(s, r) for r in wanted for s in range(tuning)])
      for k, r in enumerate(wanted):
        part = [validation["mean"] for validation, _ in results[k * tuning : (k + 1) * tuning]]
        known[r] = float(np.mean(part))
    return known[rate]

  best, scores, inside = tune(score, grid, MAX_EXTENSIONS)
  results = run([(s, best) for s in range(seeds)])
  return {
    "rate": best,
    "rate_inside_grid": inside,
    "validation_by_rate": scores,
    "validation": [validation["mean"] for validation, _ in results],
    "test": [test for _, test in results],
  }


def run_one(name: str, batch_size: int, arm: str, seeds: int, epochs: int, made: Any) -> Any:
  """One file's worth: an arm on a task at a batch size."""
  task, num_classes = made
  num_kinds = int(task.test[2].max()) + 1
  label_of_kind = np.zeros(num_kinds, int)
  label_of_kind[np.asarray(task.test[2])] = np.asarray(task.test[1])
  sizes = training.Sizes(batch_size, epochs, num_classes, num_kinds)
  began = time.perf_counter()
  result = run_arm(arms.find(arm), sizes, task, label_of_kind, seeds)
  return {
    "task": name,
    "batch_size": batch_size,
    "arm": arm,
    "options": dataclasses.asdict(arms.find(arm)),
    "recipe": dataclasses.asdict(RECIPES[name]),
    "epochs": epochs,
    "updates": epochs * (len(task.x) // batch_size),
    "training_examples": len(task.x),
    **result,
    "seconds": time.perf_counter() - began,
    "environment": {
      **{m.__name__: m.__version__ for m in (gq, jax, optax)},
      "python": platform.python_version(),
      "backend": jax.default_backend(),
    },
  }


def default_epochs(recipe: Recipe, batch_size: int) -> int:
  """Twice as many in the largest batches, where an epoch has few updates."""
  return recipe.epochs * (2 if batch_size >= 4096 else 1)


def main(
  task_names: tuple[str, ...] = ("hidden5", "hidden6", "hidden7", "LT100", "balanced"),
  batch_sizes: tuple[int, ...] = (256, 1024, 4096),
  arm_names: tuple[str, ...] = tuple(arms.ARMS),
  seeds: int = 10,
  updates: int | None = None,
  out: Path = Path("out/rare_kinds"),
  emit: Callable[[str], None] = rich.print,
) -> None:
  """Runs what has not been run yet.

  Args:
    task_names: see `RECIPES`.
    batch_sizes: the mini-batches.
    arm_names: see `arms.ARMS`; options of its groups may follow, as in "NAME; num_groups=40".
    seeds: of the final runs; the first two choose the learning rate.
    updates: train for about this many updates, whatever the batch size; default: equal epochs.
    out: folder of the results.
    emit: where a line for every finished file goes.
  """
  for name in task_names:
    if name not in RECIPES:
      raise ValueError(f"a task must be one of {', '.join(RECIPES)}, but {name!r} was found.")
  for name in arm_names:
    arms.find(name)
  out.mkdir(parents=True, exist_ok=True)
  for name in task_names:
    made = None
    for batch_size in batch_sizes:
      for arm in arm_names:
        length = "" if updates is None else f", {updates} updates"
        path = out / f"{name}, {batch_size}{length}, {arm}.json".replace(" ", "_").replace(
          "%", "pct"
        )
        if path.exists():
          continue
        made = made or make_task(RECIPES[name])
        epochs = default_epochs(RECIPES[name], batch_size)
        if updates is not None:
          epochs = max(1, math.ceil(updates / (len(made[0].x) // batch_size)))
        result = run_one(name, batch_size, arm, seeds, epochs, made) | {"length": length}
        path.write_text(json.dumps(result, indent=1))
        mean = np.mean([t["mean"] for t in result["test"]])
        emit(f"{path.stem}: {mean:.4f} at {result['rate']:g} ({result['seconds']:.0f} s)")


if __name__ == "__main__":
  tyro.cli(main)
