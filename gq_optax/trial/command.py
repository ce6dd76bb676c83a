# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""A small A/B trial: does Grad Queue, or group scarcity, help on these data?

    gq-trial --data digits --batch-sizes 64 256
    gq-trial --npz my.npz --model my_package.my_module:make_model

Every training run is one JSON in `out/runs`; what is there is not run again, so that a trial that
was interrupted, or gets more arms, batch sizes or seeds, goes on where it stopped. Each arm gets
its own learning rate at each batch size: the best on validation over the first seeds, out of a grid
that grows until the best lies inside it. At that rate all seeds are run; only then the test split
counts. It ends in a report: report.md, report.html and summary.json in `out`.
"""

import dataclasses
import json
import math
import sys
from typing import Any

import jax.numpy as jnp
import tyro
from rich import progress

from gq_optax.trial import arms, data, networks, own_data, recipes, report, runs, training
from gq_optax.trial.runs import Bench, Trial, environment

# What may grow from one call to the next; all else makes another trial.
_GROWS = {"arm_names", "batch_sizes", "rates", "seeds", "target", "cost_rounds", "out"}
_GROWS |= {"side_by_side"}


def check(trial: Trial) -> None:
  """Says what is wrong with a trial before anything is loaded."""
  for name in trial.arm_names:
    arms.find(name)
  if not trial.arm_names or not trial.batch_sizes or trial.epochs < 1:
    raise ValueError("a trial must have an arm, a batch size and an epoch at least.")
  if trial.noise not in (None, "symmetric", "asymmetric"):
    raise ValueError(f"noise must be symmetric or asymmetric, but {trial.noise!r} was found.")
  if trial.figure not in report.FIGURES:
    known = ", ".join(report.FIGURES)
    raise ValueError(f"figure must be one of {known}, but {trial.figure!r} was found.")
  if not 1 <= trial.tuning_seeds <= trial.seeds:
    raise ValueError(
      f"tuning_seeds must be 1 to seeds={trial.seeds}, but {trial.tuning_seeds} was found."
    )
  for rate in (*(trial.rates or ()), trial.fixed_rate or 1.0):
    if not 0.0 < rate < math.inf:
      raise ValueError(f"a learning rate must be positive and finite, but {rate} was found.")


def keep_config(trial: Trial) -> None:
  """Writes what the runs have in common, or refuses a folder that holds runs of another trial."""
  fixed = {k: v for k, v in dataclasses.asdict(trial).items() if k not in _GROWS}
  text = json.dumps(fixed, indent=1, default=str)
  path = trial.out / "config.json"
  if path.exists():
    old, new = json.loads(path.read_text()), json.loads(text)
    changed = [f"{k} was {old.get(k)}, now {new[k]}" for k in new if old.get(k) != new[k]]
    if changed:
      raise ValueError(
        f"out must be another folder: {trial.out} holds runs of another trial"
        f" ({'; '.join(changed)})."
      )
  (trial.out / "runs").mkdir(parents=True, exist_ok=True)
  path.write_text(text)


def load(trial: Trial) -> tuple[training.Task, int]:
  """The arrays of a trial, and its number of classes."""
  source = data.load(trial.data) if trial.npz is None else own_data.load_npz(trial.npz)
  recipe = recipes.Recipe(
    trial.data if trial.npz is None else "npz",
    trial.imbalance,
    trial.largest,
    trial.hidden,
    trial.noise,
    trial.noise_rate,
    trial.epochs,
  )
  return recipes.make_task(recipe, source, networks.layout(trial.model))


def run(trial: Trial) -> dict[str, Any]:
  """Runs what is missing of a trial and writes its report.

  Args:
    trial: see `Trial`.

  Returns:
    What is in summary.json.

  Raises:
    ValueError: if the trial, the data or the model break a rule.
    FileNotFoundError: if there is no such file.
  """
  check(trial)
  task, num_classes = load(trial)
  with progress.Progress(
    progress.TextColumn("{task.description}"),
    progress.BarColumn(),
    progress.MofNCompleteColumn(),
    progress.TimeRemainingColumn(),
  ) as bar:
    bench = Bench(trial, task, num_classes, recipes.classes_of_kinds(task), bar, environment())
    for batch_size in trial.batch_sizes:  # all shapes before the first long run
      training.start(
        arms.Arm(), runs.sizes_of(bench, batch_size), task, jnp.int32(0), jnp.float32(0.0)
      )
    keep_config(trial)
    cells = [(name, b) for b in trial.batch_sizes for name in trial.arm_names]
    total = bar.add_task("arms and batch sizes", total=len(cells))
    results = []
    for name, batch_size in cells:
      results.append(runs.run_arm(bench, name, batch_size))
      bar.advance(total)
  summary = {
    "trial": json.loads(json.dumps(dataclasses.asdict(trial), default=str)),
    "training_examples": len(task.x),
    "classes": num_classes,
    "kinds": len(bench.classes_of),
    "environment": bench.environment,
    "results": results,
    "cost": runs.step_costs(bench),
  }
  (trial.out / "summary.json").write_text(json.dumps(summary, indent=1))
  report.write(summary, trial.out)
  return summary


def main() -> None:
  """The command line."""
  trial = tyro.cli(Trial, description=__doc__)
  try:
    run(trial)
  except (ValueError, FileNotFoundError) as problem:
    print(f"error: {problem}", file=sys.stderr)
    sys.exit(2)
  print(f"report: {trial.out / 'report.html'}")
