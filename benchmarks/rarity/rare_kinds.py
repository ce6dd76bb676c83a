# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Who finds the rare kinds of examples? Group scarcity beside what else is done about them.

    python -m benchmarks.rarity.rare_kinds --task-names hidden5 --batch-sizes 1024

One file per task in `out/rare_kinds`, a line for every batch size and arm; what is there is not run
again. Every arm
gets its own learning rate: the best on validation over two seeds, out of a grid that grows until
the best lies inside it. At that rate all seeds are run, and the test split is read. On tables of
people the rate is also chosen by the lowest accuracy of a class, for which nobody has to know the
groups; what that gives is "by_worst_class".
"""

import dataclasses
import functools
import math
import platform
import re
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
from benchmarks.harness import arms, optimizers, records, training
from benchmarks.harness.protocol import tune
from benchmarks.harness.recipes import (
  RECIPES,
  classes_of_kinds,
  default_epochs,
  figures,
  make_task,
)
from gq_optax.trial.own_data import KEYS, Data, open_npz

TUNING_SEEDS = 2
WIDTH = 5  # runs side by side
MAX_EXTENSIONS = 6


def run_arm(
  arm: arms.Arm,
  sizes: training.Sizes,
  task: training.Task,
  classes_of: np.ndarray,
  seeds: int,
  by_class: bool = False,
) -> dict[str, Any]:
  """Tunes the rate of one arm, then runs all seeds at the best; again by the worst class."""
  images = task.x.ndim == 4
  train: Any = training.step_by_step if images else training.side_by_side
  width = 1 if images else WIDTH

  def run(pairs: list[tuple[int, float]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Figures on validation and on test of each pair of a seed and a rate."""
    results = []
    for i in range(0, len(pairs), width):
      part = pairs[i : i + width]
      filled = part + [part[-1]] * (width - len(part))  # one shape, one compilation
      seed, rate = jnp.array([s for s, _ in filled]), jnp.array([r for _, r in filled])
      outcome = train(arm, sizes, task, seed, rate.astype(jnp.float32))
      both = [np.asarray(c) for c in (outcome.validation, outcome.test)]
      for j in range(len(part)):
        validation, test = (figures(c[j], classes_of) for c in both)
        results.append((validation, test))
    return results

  tuning, grid = min(TUNING_SEEDS, seeds), optimizers.RATES[arm.optimizer]
  known: dict[float, list[dict[str, Any]]] = {}

  def score(rate: float, figure: str) -> float:
    if rate not in known:
      wanted = [r for r in grid if r not in known] if rate in grid else [rate]
      results = run([(s, r) for r in wanted for s in range(tuning)])
      for k, r in enumerate(wanted):
        known[r] = [validation for validation, _ in results[k * tuning : (k + 1) * tuning]]
    return float(np.mean([validation[figure] for validation in known[rate]]))

  @functools.cache
  def final(rate: float) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return run([(s, rate) for s in range(seeds)])

  def choose(figure: str) -> dict[str, Any]:
    best, scores, inside = tune(functools.partial(score, figure=figure), grid, MAX_EXTENSIONS)
    return {
      "rate": best,
      "rate_inside_grid": inside,
      "validation_by_rate": scores,
      "validation": [validation[figure] for validation, _ in final(best)],
      "test": [test for _, test in final(best)],
    }

  found = choose("mean")
  return found | {"by_worst_class": choose("worst_class")} if by_class else found


def run_one(name: str, batch_size: int, arm: str, seeds: int, epochs: int, made: Any) -> Any:
  """One file's worth: an arm on a task at a batch size."""
  task, num_classes = made
  classes_of = classes_of_kinds(task)
  sizes = training.Sizes(batch_size, epochs, num_classes, len(classes_of))
  began = time.perf_counter()
  result = run_arm(arms.find(arm), sizes, task, classes_of, seeds, RECIPES[name].people)
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


def file_name(task: str) -> str:
  """The file of a task's runs."""
  return re.sub(r"\W+", "_", task.replace("%", "pct")) + ".jsonl"


def main(
  task_names: tuple[str, ...] = ("hidden5", "hidden6", "hidden7", "LT100", "balanced"),
  batch_sizes: tuple[int, ...] = (256, 1024, 4096),
  arm_names: tuple[str, ...] = tuple(arms.ARMS),
  seeds: int = 10,
  updates: int | None = None,
  source: Path | None = None,
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
    source: an .npz file in place of the tasks' data set: "x_train", "y_train", "x_test", "y_test".
    out: folder of the results.
    emit: where a line for every finished run goes.
  """
  for name in task_names:
    if name not in RECIPES:
      raise ValueError(f"a task must be one of {', '.join(RECIPES)}, but {name!r} was found.")
  for name in arm_names:
    arms.find(name)
  for name in task_names:
    path, made = out / file_name(name), None
    length = "" if updates is None else f", {updates} updates"
    done = {(r["batch_size"], r["arm"], r["length"]) for r in records.read(path)}
    for batch_size in batch_sizes:
      for arm in arm_names:
        if (batch_size, arm, length) in done:
          continue
        given = None if source is None else Data(**open_npz(source, KEYS))
        made = made or make_task(RECIPES[name], given)
        epochs = default_epochs(RECIPES[name], batch_size)
        if updates is not None:
          epochs = max(1, math.ceil(updates / (len(made[0].x) // batch_size)))
        result = run_one(name, batch_size, arm, seeds, epochs, made) | {"length": length}
        records.append(path, result)
        mean = np.mean([t["mean"] for t in result["test"]])
        took = f"at {result['rate']:g} ({result['seconds']:.0f} s)"
        emit(f"{name}, {batch_size}{length}, {arm}: {mean:.4f} {took}")


if __name__ == "__main__":
  tyro.cli(main)
