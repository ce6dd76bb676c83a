# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The runs of a trial: one for every arm, batch size, rate and seed; a finished run is kept."""

import dataclasses
import json
import math
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich import progress

import gq_optax as gq
from gq_optax.trial import arms, optimizers, recipes, splits, timing, training
from gq_optax.trial.protocol import tune

MAX_EXTENSIONS = 6
SIDE_BY_SIDE_BYTES = 2**30  # of the splits of runs that train side by side


@dataclasses.dataclass(frozen=True)
class Trial:
  """What is compared, on what, and for how long.

  Attributes:
    data: a public data set: "digits", "fashion_mnist" and others.
    npz: the file of your own arrays in its stead.
    model: "mlp", "logistic", "cnn", or "my_module:make" for make in my_module.py, in the current
      folder or installed.
    arm_names: what is compared, out of the list above. Of the plain ones, which are an optimizer
      and nothing else, the best on validation is the baseline; the others are trained with its
      optimizer.
    batch_sizes: the mini-batches.
    rates: the grid of learning rates for all arms; each optimizer has its own by default. One
      alone is run as it is.
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
    standardise: whether the examples of an .npz are shifted and scaled to mean 0 and deviation 1.
    out: folder of the trial.
  """

  data: str = "fashion_mnist"
  npz: Path | None = None
  model: str = "mlp"
  arm_names: tuple[str, ...] = arms.DEFAULT
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
  standardise: bool = True
  out: Path = Path("out/trial")


@dataclasses.dataclass(frozen=True)
class Bench:
  """A trial with its data at hand.

  Attributes:
    trial: what was asked for.
    material: the arrays and their splits.
    bar: of the progress.
    environment: versions and commit.
  """

  trial: Trial
  material: splits.Material
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
  trial, material = bench.trial, bench.material
  number = len(material.task_of(0).x)
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
    material.pool.num_classes,
    material.num_kinds,
    trial.model,
    trial.decay,
    trial.evaluations,
    scores=True,
  )


def path_of(bench: Bench, name: str, batch_size: int, rate: float, seed: int) -> Path:
  """Where a run is kept: its figures in this .json, its scores beside it in an .npz."""
  stem = re.sub(r"[^\w=.]+", "_", f"{name} B={batch_size}")
  return bench.trial.out / "runs" / f"{stem}_rate={rate:.6g}_seed={seed}.json"


def write(path: Path, save: Callable[[Path], Any]) -> None:
  """Writes a file whole or not at all: an interrupted write must not look like a finished one."""
  unfinished = path.with_name(f"unfinished{path.suffix}")
  save(unfinished)
  unfinished.replace(path)


def width_of(bench: Bench) -> int:
  """How many runs train side by side."""
  trial, material = bench.trial, bench.material
  width = trial.side_by_side or (5 if trial.model in ("mlp", "logistic") else 1)
  if material.repeated and width > 1:
    task = material.task_of(0)
    size = sum(part.nbytes for part in (task.x, task.validation[0], task.test[0]))
    width = min(width, max(1, SIDE_BY_SIDE_BYTES // size))
  return width


def run_pairs(
  bench: Bench, name: str, batch_size: int, pairs: list[tuple[int, float]], scores: bool = False
) -> list[dict[str, Any]]:
  """The runs of an arm for pairs of a seed and a rate: read if they are there, else run.

  With `scores` a run is there only if its scores are, too.
  """
  material = bench.material
  path = lambda pair: path_of(bench, name, batch_size, pair[1], pair[0])
  there = lambda p: p.exists() and (not scores or p.with_suffix(".npz").exists())
  missing = [pair for pair in pairs if not there(path(pair))]
  width = width_of(bench)
  sizes = sizes_of(bench, batch_size)
  job = bench.bar.add_task(f"{name}, B={batch_size}", total=len(pairs))
  bench.bar.advance(job, len(pairs) - len(missing))
  for i in range(0, len(missing), width):
    part = missing[i : i + width]
    filled = part + [part[-1]] * (width - len(part))  # one shape, one compilation
    seeds, rates = (jnp.array(values) for values in zip(*filled, strict=True))
    train: Any = training.side_by_side if width > 1 else training.step_by_step
    task = material.task_of(part[0][0])
    if material.repeated and width > 1:
      train = training.each_on_its_own
      task = jax.tree.map(lambda *x: jnp.stack(x), *(material.task_of(s) for s, _ in filled))
    outcome = train(arms.find(name), sizes, task, seeds, rates.astype(jnp.float32))
    for j, pair in enumerate(part):
      keep_run(bench, path(pair), name, sizes, pair, jax.tree.map(lambda a, j=j: a[j], outcome))
    bench.bar.advance(job, len(part))
  bench.bar.remove_task(job)
  found = [json.loads(path(pair).read_text()) for pair in pairs]
  for pair, run in zip(pairs, found, strict=True):
    if run["arm"] != name:
      raise ValueError(
        f"out must hold runs of {name!r} in {path(pair)}, but those of {run['arm']!r} were found:"
        " both names make, or made in an older version, the same file name. Write the numbers"
        " alike, or take another folder."
      )
  return found


def keep_run(
  bench: Bench,
  path: Path,
  name: str,
  sizes: training.Sizes,
  pair: tuple[int, float],
  outcome: training.Outcome,
) -> None:
  """Writes what a run gave: the scores of every test example, then its figures."""
  (seed, rate), material = pair, bench.material
  pool, rows = material.pool, material.rows_of(seed)
  logits = np.asarray(outcome.test)
  finite = np.isfinite(logits).all(axis=1)
  # What diverged recognises nothing, as in `training.judge`.
  wrong = np.eye(pool.num_classes)[(pool.labels[rows] + 1) % pool.num_classes]
  logits = np.where(finite[:, None], logits, 1e5 * wrong)
  # Below the largest: what float16 resolves best is what is close to being predicted.
  scores = np.maximum(logits - logits.max(axis=1, keepdims=True), -6e4).astype(np.float16)
  write(path.with_suffix(".npz"), lambda p: np.savez(p, scores=scores))
  confusion = np.zeros((pool.num_kinds, pool.num_classes))
  np.add.at(confusion, (pool.kinds[rows], scores.argmax(axis=1)), 1.0)
  classes_of = np.zeros(pool.num_kinds, int)
  classes_of[pool.kinds] = pool.labels
  steps = training.num_steps(sizes, material.task_of(seed))
  marks, curve = training.evaluated(sizes, steps), np.asarray(outcome.curve)
  record = {
    "arm": name,
    "batch_size": sizes.batch_size,
    "rate": rate,
    "seed": seed,
    "steps": steps,
    "diverged": not finite.all(),
    "validation": recipes.figures(np.asarray(outcome.validation), material.classes_of),
    "test": recipes.figures(confusion, classes_of),
    "curve": [[s + 1, round(float(v), 5)] for s, v in zip(marks, curve, strict=True)],
    "environment": bench.environment,
  }
  write(path, lambda p: p.write_text(json.dumps(record)))


def run_arm(bench: Bench, name: str, batch_size: int) -> dict[str, Any]:
  """Tunes the rate of one arm at one batch size, then runs all seeds at the best.

  Only the scores of the best rate are kept: of the others the test set is never read.
  """
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

  fixed = grid[0] if len(grid) == 1 else trial.fixed_rate
  if fixed is None:
    best, scores, inside = tune(score, grid, MAX_EXTENSIONS)
  else:
    best, scores, inside = fixed, {}, None
  runs = run_pairs(bench, name, batch_size, [(s, best) for s in range(trial.seeds)], scores=True)
  for rate in known.keys() - {best}:
    for seed in range(trial.tuning_seeds):
      path_of(bench, name, batch_size, rate, seed).with_suffix(".npz").unlink(missing_ok=True)
  made = [run.get("environment", {}) for run in runs]
  return {
    "arm": name,
    "batch_size": batch_size,
    "rate": best,
    "rate_inside_grid": inside,
    "validation_by_rate": {f"{r:.6g}": round(s, 5) for r, s in scores.items()},
    "steps": runs[0]["steps"],
    "first_steps": first_steps(bench, name, batch_size),
    "environments": [e for i, e in enumerate(made) if e not in made[:i]],
    "diverged": sum(run.get("diverged", False) for run in runs),
    "validation": [run["validation"][trial.figure] for run in runs],
    "test": [run["test"] for run in runs],
    "curves": {
      f"{r:.6g}": np.mean([[v for _, v in run["curve"]] for run in found], axis=0).round(5).tolist()
      for r, found in (known or {best: runs}).items()
    },
    "curve_steps": [s for s, _ in runs[0]["curve"]],
    "curves_at_rate": [[v for _, v in run["curve"]] for run in runs],
  }


def first_steps(bench: Bench, name: str, batch_size: int) -> int:
  """Steps of the plain training that comes before that of an arm; 0 where none does."""
  if not training.trains_twice(arms.find(name)):
    return 0
  sizes = training.first_sizes(sizes_of(bench, batch_size))
  return training.num_steps(sizes, bench.material.task_of(0))


def read_scores(bench: Bench, result: dict[str, Any]) -> list[tuple[np.ndarray, np.ndarray]]:
  """For every seed of a result of `run_arm` the rows of the pool and their scores `[m, C]`."""
  found = []
  for seed in range(bench.trial.seeds):
    path = path_of(bench, result["arm"], result["batch_size"], result["rate"], seed)
    with np.load(path.with_suffix(".npz")) as file:
      # Which rows of the pool these are hangs on how many seeds there are: it is not kept.
      found.append((bench.material.rows_of(seed), file["scores"].astype(np.float32)))
  return found


def step_costs(bench: Bench, names: list[str]) -> dict[str, Any]:
  """Seconds of a step of every arm, the first the reference, taken in turn at each batch size."""
  trial = bench.trial
  path = trial.out / "cost.json"
  costs: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
  task = bench.material.task_of(0)
  for batch_size in trial.batch_sizes if trial.cost_rounds else ():
    there = costs.get(str(batch_size), {})
    if set(names) <= set(there) and there[names[0]]["ratio"] == 1.0:
      continue
    sizes = sizes_of(bench, batch_size)
    steps = {}
    for name in names:
      arm, rate = arms.find(name), jnp.float32(0.01)
      run = training.start(arm, sizes, task, jnp.int32(0), rate)
      earlier = training.Earlier(jnp.ones(len(task.x)))

      def one(carry, task, batch, arm=arm, rate=rate, key=run.key, earlier=earlier, sizes=sizes):
        return (training.step(arm, sizes, task, earlier, rate, key, carry, batch, jnp.int32(0)),)

      steps[name] = timing.compile_step(one, run.carry, task, run.batches[0])
    timed = timing.interleaved(steps, names[0], trial.cost_rounds)
    costs[str(batch_size)] = {name: result._asdict() for name, result in timed.items()}
    path.write_text(json.dumps(costs, indent=1))
  known = lambda timed: timed.get(names[0], {}).get("ratio") == 1.0  # of another baseline else
  return {batch_size: timed for batch_size, timed in costs.items() if known(timed)}
