# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The runs of a trial: one for every arm, batch size, rate and seed; a finished run is kept."""

import dataclasses
import json
import math
import re
import subprocess
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich import progress

import gq_optax as gq
from gq_optax.trial import arms, optimizers, recipes, timing, training
from gq_optax.trial.protocol import tune

MAX_EXTENSIONS = 6
DEFAULT_ARMS = ("SGDM", "Adam", "class weights", "group scarcity, outputs", "GQ, K=B/64")


@dataclasses.dataclass(frozen=True)
class Trial:
  """What is compared, on what, and for how long.

  Attributes:
    data: a public data set, see `data.load`.
    npz: the user's own arrays in its stead, see `own_data.load_npz`.
    model: "mlp", "logistic", "cnn", or "module:function", see `networks.make`.
    arm_names: see `arms.ARMS`; the first is the baseline.
    batch_sizes: the mini-batches.
    rates: the grid of learning rates for all arms; each optimizer has its own by default.
    fixed_rate: one learning rate for all arms and batch sizes, and nothing tuned.
    decay: False keeps the rate; it falls to 0 along a cosine by default.
    seeds: of the final runs: start, order of the batches.
    tuning_seeds: the first seeds, which choose the rate.
    epochs: passes over the training examples.
    updates: train for about this many updates in place of `epochs`, whatever the batch size.
    imbalance: make a long tail of the classes, the first this many times as frequent as the last.
    largest: examples of its first class; as many as the smallest class has by default.
    hidden: seed of two superclasses that hide the classes; quality is that of the hidden ones.
    noise: "symmetric" or "asymmetric" label noise in training.
    noise_rate: share of the labels that it hits.
    figure: what counts: "mean" accuracy over kinds, "accuracy" or "macro_f1" of the classes.
    evaluations: of the validation split in the course of a run.
    target: mean accuracy over kinds on validation to count the steps to; by default what the
      baseline reaches at all batch sizes, with .01 to spare.
    side_by_side: runs at once under vmap; by default 5 for "mlp" and "logistic", else 1.
    cost_rounds: of the timing of a step; 0 for none.
    out: folder of the trial.
  """

  data: str = "fashion_mnist"
  npz: Path | None = None
  model: str = "mlp"
  arm_names: tuple[str, ...] = DEFAULT_ARMS
  batch_sizes: tuple[int, ...] = (64, 256, 1024)
  rates: tuple[float, ...] | None = None
  fixed_rate: float | None = None
  decay: bool = True
  seeds: int = 10
  tuning_seeds: int = 2
  epochs: int = 10
  updates: int | None = None
  imbalance: float | None = None
  largest: int | None = None
  hidden: int | None = None
  noise: str | None = None
  noise_rate: float = 0.2
  figure: str = "mean"
  evaluations: int = 20
  target: float | None = None
  side_by_side: int | None = None
  cost_rounds: int = 15
  out: Path = Path("out/trial")


@dataclasses.dataclass(frozen=True)
class Bench:
  """A trial with its data at hand.

  Attributes:
    trial: what was asked for.
    task: the arrays.
    num_classes: of the labels.
    classes_of: the class of each kind.
    bar: of the progress.
    environment: versions and commit.
  """

  trial: Trial
  task: training.Task
  num_classes: int
  classes_of: np.ndarray
  bar: progress.Progress
  environment: dict[str, str]


def environment() -> dict[str, str]:
  """Versions, backend, and the commit if there is one."""
  folder = str(Path(__file__).parent)
  command = ["git", "-C", folder, "describe", "--always", "--dirty", "--abbrev=40"]
  try:
    commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
  except (OSError, subprocess.CalledProcessError):
    commit = "unknown"
  versions = {m.__name__: m.__version__ for m in (gq, jax, optax, np)}
  return {**versions, "backend": jax.default_backend(), "commit": commit}


def sizes_of(bench: Bench, batch_size: int) -> training.Sizes:
  """What is static of the runs at a batch size."""
  trial, number = bench.trial, len(bench.task.x)
  if not 1 <= batch_size <= number:
    raise ValueError(
      f"batch_sizes must be 1 to the {number} training examples, but {batch_size} was found."
    )
  epochs = trial.epochs
  if trial.updates is not None:
    epochs = max(1, math.ceil(trial.updates / (number // batch_size)))
  return training.Sizes(
    batch_size,
    epochs,
    bench.num_classes,
    len(bench.classes_of),
    trial.model,
    trial.decay,
    trial.evaluations,
  )


def run_pairs(
  bench: Bench, name: str, batch_size: int, pairs: list[tuple[int, float]]
) -> list[dict[str, Any]]:
  """The runs of an arm for pairs of a seed and a rate: read if they are there, else run."""
  trial = bench.trial
  stem = re.sub(r"[^\w=]+", "_", f"{name} B={batch_size}")
  path = lambda s, r: trial.out / "runs" / f"{stem}_rate={r:.6g}_seed={s}.json"
  missing = [pair for pair in pairs if not path(*pair).exists()]
  dense = trial.model in ("mlp", "logistic")
  width = trial.side_by_side or (5 if dense else 1)
  train: Any = training.side_by_side if width > 1 else training.step_by_step
  sizes = sizes_of(bench, batch_size)
  job = bench.bar.add_task(f"{name}, B={batch_size}", total=len(pairs))
  bench.bar.advance(job, len(pairs) - len(missing))
  for i in range(0, len(missing), width):
    part = missing[i : i + width]
    filled = part + [part[-1]] * (width - len(part))  # one shape, one compilation
    seeds, rates = (jnp.array(values) for values in zip(*filled, strict=True))
    outcome = train(arms.find(name), sizes, bench.task, seeds, rates.astype(jnp.float32))
    steps = training.evaluated(sizes, training.num_steps(sizes, bench.task))
    for j, (seed, rate) in enumerate(part):
      record = {
        "arm": name,
        "batch_size": batch_size,
        "rate": rate,
        "seed": seed,
        "steps": training.num_steps(sizes, bench.task),
        "validation": recipes.figures(np.asarray(outcome.validation[j]), bench.classes_of),
        "test": recipes.figures(np.asarray(outcome.test[j]), bench.classes_of),
        "curve": [
          [s + 1, round(float(v), 5)] for s, v in zip(steps, outcome.curve[j], strict=True)
        ],
        "environment": bench.environment,
      }
      # Whole or not at all: an interrupted write must not look like a finished run.
      unfinished = trial.out / "unfinished.json"
      unfinished.write_text(json.dumps(record))
      unfinished.replace(path(seed, rate))
    bench.bar.advance(job, len(part))
  bench.bar.remove_task(job)
  return [json.loads(path(*pair).read_text()) for pair in pairs]


def run_arm(bench: Bench, name: str, batch_size: int) -> dict[str, Any]:
  """Tunes the rate of one arm at one batch size, then runs all seeds at the best."""
  trial = bench.trial
  known: dict[float, list[dict[str, Any]]] = {}
  grid = trial.rates or optimizers.RATES[arms.find(name).optimizer]

  def score(rate: float) -> float:
    if rate not in known:
      wanted = [r for r in grid if r not in known] if rate in grid else [rate]
      tuning = range(trial.tuning_seeds)
      runs = run_pairs(bench, name, batch_size, [(s, r) for r in wanted for s in tuning])
      for run in runs:
        known.setdefault(run["rate"], []).append(run)
    return float(np.mean([run["validation"][trial.figure] for run in known[rate]]))

  if trial.fixed_rate is None:
    best, scores, inside = tune(score, grid, MAX_EXTENSIONS)
  else:
    best, scores, inside = trial.fixed_rate, {}, None
  runs = run_pairs(bench, name, batch_size, [(s, best) for s in range(trial.seeds)])
  return {
    "arm": name,
    "batch_size": batch_size,
    "rate": best,
    "rate_inside_grid": inside,
    "validation_by_rate": {f"{r:.6g}": round(s, 5) for r, s in scores.items()},
    "steps": runs[0]["steps"],
    "validation": [run["validation"][trial.figure] for run in runs],
    "test": [run["test"] for run in runs],
    "curves": {
      f"{r:.6g}": np.mean([[v for _, v in run["curve"]] for run in found], axis=0).round(5).tolist()
      for r, found in (known or {best: runs}).items()
    },
    "curve_steps": [s for s, _ in runs[0]["curve"]],
    "curves_at_rate": [[v for _, v in run["curve"]] for run in runs],
  }


def step_costs(bench: Bench) -> dict[str, Any]:
  """Seconds of a step of every arm, taken in turn at each batch size."""
  trial = bench.trial
  path = trial.out / "cost.json"
  costs: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
  for batch_size in trial.batch_sizes if trial.cost_rounds else ():
    if set(trial.arm_names) <= set(costs.get(str(batch_size), {})):
      continue
    sizes = sizes_of(bench, batch_size)
    steps = {}
    for name in trial.arm_names:
      arm, rate = arms.find(name), jnp.float32(0.01)
      run = training.start(arm, sizes, bench.task, jnp.int32(0), rate)
      earlier = training.Earlier(jnp.ones(len(bench.task.x)), run.carry[0] if arm.teacher else None)

      def one(carry, task, batch, arm=arm, rate=rate, key=run.key, earlier=earlier, sizes=sizes):
        return (training.step(arm, sizes, task, earlier, rate, key, carry, batch, jnp.int32(0)),)

      steps[name] = timing.compile_step(one, run.carry, bench.task, run.batches[0])
    timed = timing.interleaved(steps, trial.arm_names[0], trial.cost_rounds)
    costs[str(batch_size)] = {name: result._asdict() for name, result in timed.items()}
    path.write_text(json.dumps(costs, indent=1))
  return costs
