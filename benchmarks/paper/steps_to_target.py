# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Steps to a target against batch size (Shallue et al. 2018), with and without Grad Queue.

    python -m benchmarks.paper.steps_to_target

While twice the batch needs half the steps, large batches are useful; the question is whether
Grad Queue keeps them so for longer. At every batch size and for every arm the learning rate is the
one that reaches the target in the fewest steps, out of a grid that grows until that one lies
inside; it is held, for a schedule would tie the steps to a budget. The target is a mean accuracy
over kinds on the validation split. Beside it stands the gradient noise scale at the target
(McCandlish et al. 2018), about the batch size from which on larger ones should bring little.
"""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
import tyro

import gq_optax as gq
from benchmarks.harness import arms, networks, optimizers, recipes, training, weighing
from benchmarks.harness.protocol import tune
from gq_optax.trial import command, report
from gq_optax.trial.runs import Trial, environment

_TRIAL = Trial(
  arm_names=("SGDM", "GQ, K=B/64", "group scarcity, outputs"),
  batch_sizes=(64, 256, 1024, 4096),
  decay=False,
  seeds=3,
  epochs=10,
  evaluations=60,
)
# As many training examples in both, so that an epoch is as many steps.
TRIALS = {
  "LT100": (dataclasses.replace(_TRIAL, imbalance=100.0, largest=6000), 0.74),
  "balanced": (dataclasses.replace(_TRIAL, imbalance=1.0, largest=1488), 0.82),
}
MAX_EXTENSIONS = 5
UPDATES = 240  # at least, so that a large batch has a chance to arrive


def epochs(trial: Trial, number: int, batch_size: int) -> int:
  """Those of the trial, or as many as `UPDATES` take."""
  return max(trial.epochs, math.ceil(UPDATES / (number // batch_size)))


def first_step(curve: np.ndarray, steps: list[int], target: float) -> float:
  """The first evaluated step at or above the target; infinite if there is none."""
  there = np.flatnonzero(curve >= target)
  return float(steps[there[0]] + 1) if len(there) else math.inf


def search(
  trial: Trial, made: tuple[training.Task, int], arm: str, batch_size: int, target: float
) -> dict[str, Any]:
  """The fewest steps of an arm at a batch size: median over seeds, at the best rate for that."""
  task, num_classes = made
  sizes = training.Sizes(
    batch_size,
    epochs(trial, len(task.x), batch_size),
    num_classes,
    len(recipes.classes_of_kinds(task)),
    trial.model,
    trial.decay,
    trial.evaluations,
  )
  marks = training.evaluated(sizes, training.num_steps(sizes, task))
  known: dict[float, list[float]] = {}

  def score(rate: float) -> float:
    if rate not in known:
      rates = jnp.full(trial.seeds, rate, jnp.float32)
      found = training.side_by_side(arms.find(arm), sizes, task, jnp.arange(trial.seeds), rates)
      known[rate] = [first_step(curve, marks, target) for curve in np.asarray(found.curve)]
    return -float(np.median(known[rate]))

  best, scores, inside = tune(score, optimizers.RATES[arms.find(arm).optimizer], MAX_EXTENSIONS)
  steps = known[best]
  return {
    "arm": arm,
    "batch_size": batch_size,
    "steps": [None if math.isinf(s) else s for s in steps],
    "rate": best,
    "rate_inside_grid": inside,
    "looked_every": training.num_steps(sizes, task) / len(marks),
    "updates": training.num_steps(sizes, task),
    "by_rate": {f"{r:g}": None if math.isinf(s) else -s for r, s in scores.items()},
  }


def noise_scale(made: tuple[training.Task, int], trial: Trial, target: float) -> list[float]:
  """The noise scale where SGDM at B=256 and rate .12 reaches the target, one number a seed."""
  task, num_classes = made
  sizes = training.Sizes(
    256, trial.epochs, num_classes, len(recipes.classes_of_kinds(task)), trial.model, trial.decay
  )
  arm, rate = arms.find("SGDM"), jnp.float32(0.12)
  network = networks.make(trial.model, num_classes)
  one = jax.jit(training.step, static_argnums=(0, 1))
  score = jax.jit(
    lambda p: training.mean_over_kinds(training.judge(p, task.validation, sizes), task)
  )
  losses = lambda params, batch: weighing.cross_entropy(
    network.apply(params, batch[0])[0], batch[1]
  )
  grouped = jax.jit(gq.grouped_value_and_grad(losses, 32))
  earlier, found = training.Earlier(jnp.ones(len(task.x)), None), []
  for seed in range(trial.seeds):
    run = training.start(arm, sizes, task, jnp.int32(seed), rate)
    carry = run.carry
    for number, batch in enumerate(run.batches):
      if number % 5 == 0 and score(carry[0]) >= target:
        break
      carry = one(arm, sizes, task, earlier, rate, run.key, carry, batch, jnp.int32(number))
    key = jax.random.fold_in(run.key, 1)
    rows = jax.random.permutation(key, len(task.x))[:8192]
    labels = gq.random_groups(key, len(rows), 32)
    _, groups = grouped(carry[0], (task.x[rows], task.labels[rows]), labels)
    found.append(float(gq.noise_scale(groups).noise_scale))
  return found


def table(results: dict[str, Any]) -> report.Rows:
  """Median steps for each batch size, and in brackets the rate."""
  sizes = sorted({r["batch_size"] for task in results.values() for r in task["runs"]})
  rows = [["task, arm", *(f"B={b}" for b in sizes), f"B={sizes[0]} to {sizes[-1]}: fewer by"]]
  for name, task in results.items():
    for arm in dict.fromkeys(r["arm"] for r in task["runs"]):
      runs = {r["batch_size"]: r for r in task["runs"] if r["arm"] == arm}
      cells = []
      for b in sizes:
        steps = median(runs[b])
        edge = "" if runs[b]["rate_inside_grid"] else " *"
        text = "not reached" if math.isinf(steps) else f"{steps:.0f}"
        cells.append(f"{text} ({runs[b]['rate']:g}{edge})")
      ends = median(runs[sizes[0]]) / median(runs[sizes[-1]])
      rows.append([f"{name}, {arm}", *cells, f"{ends:.1f} times" if 0 < ends < math.inf else "-"])
  return rows


def median(run: dict[str, Any]) -> float:
  """Median steps over seeds; infinite where a seed has not arrived."""
  return float(np.median([math.inf if s is None else s for s in run["steps"]]))


def plot(results: dict[str, Any], path: Path) -> None:
  """Steps against batch size on two logarithmic axes; a dotted line halves with every doubling."""
  figure = matplotlib.figure.Figure(figsize=(6 * len(results), 4.6), layout="constrained")
  axes = figure.subplots(1, len(results), squeeze=False)[0]
  for ax, (name, task) in zip(axes, results.items(), strict=True):
    for arm in dict.fromkeys(r["arm"] for r in task["runs"]):
      runs = [r for r in task["runs"] if r["arm"] == arm and not math.isinf(median(r))]
      ax.plot([r["batch_size"] for r in runs], [median(r) for r in runs], "o-", label=arm)
    first = next(r for r in task["runs"] if r["arm"] == "SGDM")
    sizes = np.unique([r["batch_size"] for r in task["runs"]])
    ax.plot(sizes, median(first) * sizes[0] / sizes, ":", color="grey", label="perfect scaling")
    scale = float(np.median(task["noise_scale"]))
    ax.axvline(scale, color="grey", linewidth=0.8, label=f"noise scale, {scale:.0f}")
    ax.set_xscale("log", base=2)
    ax.set_yscale("log", base=2)
    ax.set_title(f"{name}: steps to {100 * task['target']:.0f} %")
    ax.set_xlabel("batch size")
    ax.set_ylabel("steps")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(fontsize=8)
  figure.savefig(path, dpi=120)


def main(
  names: tuple[str, ...] = tuple(TRIALS), out: Path = Path("out/steps_to_target.json")
) -> None:
  """Runs what is missing; what is there is kept.

  Args:
    names: see `TRIALS`.
    out: the JSON; the plot lies beside it.
  """
  results: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
  out.parent.mkdir(parents=True, exist_ok=True)
  for name in names:
    if name not in TRIALS:
      raise ValueError(f"names must be of {', '.join(TRIALS)}, but {name!r} was found.")
    trial, target = TRIALS[name]
    made = command.load(trial)
    task = results.setdefault(name, {"target": target, "environment": environment(), "runs": []})
    if "noise_scale" not in task:
      task["noise_scale"] = noise_scale(made, trial, target)
    done = {(r["arm"], r["batch_size"]) for r in task["runs"]}
    for arm in trial.arm_names:
      for batch_size in trial.batch_sizes:
        if (arm, batch_size) not in done:
          task["runs"].append(search(trial, made, arm, batch_size, target))
          out.write_text(json.dumps(results, indent=1))
          print(name, arm, batch_size, task["runs"][-1]["steps"], flush=True)
  plot(results, out.with_suffix(".png"))


if __name__ == "__main__":
  tyro.cli(main)
