# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Who finds the rare kinds of examples? Every arm on every task, its learning rate tuned.

    python -m benchmarks.rarity.experiments --task-names LT100 --batch-sizes 1024 --arm-names SGDM
    python -m benchmarks.rarity.experiments --preset optimizers

One line for each task, batch size and arm in `out/PRESET.jsonl`; what is there is not run again.
The rate is the best on validation over two seeds, out of a grid that grows until the best lies
inside it. At that rate all seeds are run, and the test split is read. With `decays` the weight
decay of a plain optimizer is chosen too, out of three or of more while the largest is best, and its
arms keep it. On tables of people the rate is also chosen by the lowest accuracy of a class, for
which nobody has to know the groups.
"""

import dataclasses
import functools
import platform
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

import gq_optax as gq
from benchmarks.harness import arms, optimizers, records, training
from benchmarks.harness.arms import AT_RANDOM, COMBINED, ORACLE, RECOMMENDED
from benchmarks.harness.protocol import figures, tune
from benchmarks.harness.recipes import RECIPES, default_epochs, make_task

MAX_EXTENSIONS, MAX_DECAYS = 6, 6
FIGURES = ("mean", "worst", "accuracy", "macro_f1")  # kept of the test split
FEATURES, OUTPUTS = RECOMMENDED
POOLED, GROUPS = "group scarcity, features, pooled", "group scarcity, outputs"
FASHION, MNIST = ("hidden5", "hidden6", "hidden7"), tuple(f"mnist hidden{s}" for s in (5, 6, 7))
STRONG = ("SGDM", "AdamW", "Muon", "SGDM, one length")
TOLD = ("logit adjustment", "class weights")  # how frequent the classes are
ON_BOTH = (*TOLD, *RECOMMENDED, *COMBINED, *(name + AT_RANDOM for name in COMBINED), ORACLE)


@dataclasses.dataclass(frozen=True)
class Experiment:
  """Which cells are run, and how.

  Attributes:
    task_names: of `RECIPES`.
    batch_sizes: the mini-batches.
    arm_names: of `arms.ARMS`; options may follow, and an optimizer, see `arms.find`.
    seeds: of the final runs.
    tuning_seeds: the first ones, which choose the rate.
    fixed_rate: one rate for all, and nothing tuned.
    decays: whether the weight decay is chosen as well.
    longer: times the epochs of the task.
    figure: what chooses the rate.
    width: runs side by side; ten suit an accelerator.
  """

  task_names: tuple[str, ...] = ("LT100",)
  batch_sizes: tuple[int, ...] = (256, 1024, 4096)
  arm_names: tuple[str, ...] = ("SGDM", "class weights", GROUPS, OUTPUTS)
  seeds: int = 10
  tuning_seeds: int = 2
  fixed_rate: float | None = None
  decays: bool = False
  longer: int = 1
  figure: str = "mean"
  width: int = 5


def on_each(names: tuple[str, ...], plain: tuple[str, ...]) -> tuple[str, ...]:
  """The optimizers, and every arm on each of them."""
  return (*plain, *(arms.on(name, optimizer) for optimizer in plain for name in names))


# fmt: off
_part = dataclasses.replace
_SIX = Experiment(decays=True, batch_sizes=(1024, 4096))
_FIVE = _part(_SIX, seeds=5, batch_sizes=(1024,))
_GROUPS = Experiment(batch_sizes=(1024,))
_KINDS, _CLASSES = ("class weights", POOLED, FEATURES, ORACLE), ("class weights", GROUPS, OUTPUTS)
_TRIED = ("class weights", "JTT", FEATURES, OUTPUTS, ORACLE, "group DRO (oracle)")
_GQ = ("GQ, K=1", "GQ, K=B/64")


def _figure6(fixed: bool) -> tuple[Experiment, ...]:
  """The paper's Figure 6 at one fixed rate, or tuned."""
  base = Experiment(seeds=3, tuning_seeds=1, figure="accuracy", batch_sizes=(64, 128, 256, 512),
                    arm_names=("SGDM", *_GQ), fixed_rate=0.03 if fixed else None)
  return (
    _part(base, task_names=("MNIST", "Reuters-46")),
    _part(base, task_names=("CIFAR-10",), batch_sizes=(64, 128, 256, 384)),
    _part(base, task_names=("Reuters-46",), fixed_rate=0.001 if fixed else None,
          arm_names=("Adam", "GQ-Adam, K=1", "GQ-Adam, K=B/64")),
  )


# What each table of the pages was made of, in parts.
PRESETS: dict[str, tuple[Experiment, ...]] = {
  "tasks": (Experiment((*FASHION, *MNIST, "LT100", "balanced"), arm_names=(
    "SGDM", "Adam", "focal loss", *TOLD, "JTT", "random groups", POOLED, GROUPS, *RECOMMENDED,
    ORACLE)),),
  "optimizers": (
    _part(_FIVE, task_names=("hidden5", "hidden7", "mnist hidden6"),
          arm_names=on_each(_KINDS, STRONG)),
    _part(_FIVE, longer=4, arm_names=on_each(_CLASSES, ("SGDM", "Muon"))),
    _part(_FIVE, longer=4, task_names=("hidden7",), arm_names=on_each((FEATURES,), STRONG[:3:2])),
  ),
  "ten_seeds": (
    _part(_SIX, task_names=(*FASHION, *MNIST), arm_names=(
      *on_each((FEATURES, ORACLE), ("Muon", "SGDM, one length")), "Delta_rho on Muon")),
    _part(_SIX, arm_names=on_each((*TOLD, OUTPUTS, GROUPS), ("SGDM", "Muon"))),
  ),
  "in_part": (_part(_SIX, task_names=("both5", "both6", "both7", "LT100"),
                    arm_names=("SGDM", *on_each(ON_BOTH, ("Muon",)))),),
  "people": (
    _part(_GROUPS, task_names=("adult",),
          arm_names=on_each((*_TRIED, "logit adjustment", POOLED), STRONG[:3])),
    _part(_GROUPS, task_names=("celeba",), seeds=5, arm_names=on_each(_TRIED, STRONG[:3])),
  ),
  "long_tail": (_part(_GROUPS, arm_names=(
    "SGDM", "Nesterov", "Adam", "LAMB", "Muon", "SAM", "class weights", GROUPS,
    f"{GROUPS}, Delta_rho", *(name for name in arms.ARMS if name.startswith("GQ")))),),
  "figure6_fixed": _figure6(True),
  "figure6_tuned": _figure6(False),
}
# fmt: on

Row = dict[str, Any]
Tuned = tuple[float, dict[float, float], bool]  # best rate, scores by rate, whether it is inside
_made = functools.lru_cache(1)(lambda name: make_task(RECIPES[name]))


class Trainer:
  """Trains one arm on one task at one batch size for pairs of seeds and rates."""

  def __init__(self, experiment: Experiment, made: Any, name: str, batch_size: int, arm: str):
    self.experiment, self.arm = experiment, arms.find(arm)
    self.task, self.classes_of = made
    epochs = default_epochs(RECIPES[name], batch_size) * experiment.longer
    kinds = len(self.classes_of)
    self.sizes = training.Sizes(batch_size, epochs, int(self.classes_of.max()) + 1, kinds)
    self.grid = optimizers.RATES[self.arm.optimizer]
    self.known: dict[Any, list[Row]] = {}

  def run(self, pairs: list[tuple[int, float]], decay: float | None) -> list[tuple[Row, Row]]:
    """Figures on validation and on test of each pair of a seed and a rate."""
    images, results = self.task.x.ndim == 4, []
    train: Any = training.step_by_step if images else training.side_by_side
    width = 1 if images else self.experiment.width
    traced = None if decay is None else jnp.float32(decay)
    for i in range(0, len(pairs), width):
      part = pairs[i : i + width]
      filled = part + [part[-1]] * (width - len(part))  # one shape, one compilation
      seeds, rates = (jnp.array(values) for values in zip(*filled, strict=True))
      found = train(self.arm, self.sizes, self.task, seeds, rates.astype(jnp.float32), traced)
      for confusions in list(zip(*map(np.asarray, found), strict=True))[: len(part)]:
        validation, test = (figures(confusion, self.classes_of) for confusion in confusions)
        results.append((validation, test))
    return results

  def tune(self, decay: float | None, figure: str) -> Tuned:
    """The best rate on validation by a figure."""
    tuning = min(self.experiment.tuning_seeds, self.experiment.seeds)

    def score(rate: float) -> float:
      if (decay, rate) not in self.known:
        wanted = [r for r in self.grid if (decay, r) not in self.known]
        wanted = wanted if rate in self.grid else [rate]
        results = self.run([(s, r) for r in wanted for s in range(tuning)], decay)
        for k, r in enumerate(wanted):
          part = results[k * tuning : (k + 1) * tuning]
          self.known[decay, r] = [validation for validation, _ in part]
      return float(np.mean([validation[figure] for validation in self.known[decay, rate]]))

    return tune(score, self.grid, MAX_EXTENSIONS)

  def tune_decay(self, figure: str) -> tuple[float | None, Tuned]:
    """The best weight decay and the best rate with it; the decays grow while the largest wins."""
    tuned = {d: self.tune(d, figure) for d in optimizers.DECAYS.get(self.arm.optimizer, (None,))}
    best = lambda: max(tuned, key=lambda d: max(tuned[d][1].values()))
    while (
      (decay := best()) and decay == max(tuned, key=lambda d: d or 0.0) and len(tuned) < MAX_DECAYS
    ):
      tuned[3 * decay] = self.tune(3 * decay, figure)
    return decay, tuned[decay]

  def finish(self, decay: float | None, tuned: Tuned) -> Row:
    """All seeds at the best rate."""
    rate, scores, inside = tuned
    results = self.run([(s, rate) for s in range(self.experiment.seeds)], decay)
    return {
      "rate": rate,
      "inside": inside,
      "validation_by_rate": {f"{r:g}": round(s, 5) for r, s in scores.items()},
      "validation": round(float(np.mean([v[self.experiment.figure] for v, _ in results])), 6),
      **{key: [round(test[key], 8) for _, test in results] for key in FIGURES},
    }


def run_cell(experiment: Experiment, cell: Row, made: Any, plain: Row | None) -> Row:
  """The row of a cell; `plain` is that of its optimizer alone, whose weight decay it takes."""
  trainer = Trainer(experiment, made, cell["task"], cell["batch_size"], cell["arm"])
  decay, began = None, time.perf_counter()
  if experiment.fixed_rate is not None:
    tuned: Tuned = experiment.fixed_rate, {}, True
  elif experiment.decays and plain is None:
    decay, tuned = trainer.tune_decay(experiment.figure)
  else:
    decay = plain["weight_decay"] if plain else None
    tuned = trainer.tune(decay, experiment.figure)
  row = {**cell, "weight_decay": decay, **trainer.finish(decay, tuned)}
  if RECIPES[cell["task"]].people:
    row["by_worst_class"] = trainer.finish(decay, trainer.tune(decay, "worst_class"))
  versions = {m.__name__: m.__version__ for m in (gq, jax, optax)}
  device = jax.devices()[0].device_kind
  return row | {
    "updates": training.num_steps(trainer.sizes, trainer.task),
    "seconds": round(time.perf_counter() - began, 1),
    "environment": {**versions, "python": platform.python_version(), "device": device},
  }


def key_of(row: Row) -> tuple[Any, ...]:
  """What a row is of."""
  return tuple(row.get(k) for k in ("task", "batch_size", "arm", "seeds", "longer"))


def run(experiment: Experiment, out: Path) -> None:
  """Runs what has not been run yet, the optimizers alone first."""
  names = experiment.arm_names
  if experiment.decays:
    names = (*(arms.optimizer_of(name) for name in names), *names)
  for task in experiment.task_names:
    for batch_size in experiment.batch_sizes:
      for arm in dict.fromkeys(names):
        cell = {"task": task, "batch_size": batch_size, "arm": arm}
        cell |= {"seeds": experiment.seeds, "longer": experiment.longer}
        done = {key_of(row): row for row in records.read(out)}
        if key_of(cell) in done:
          continue
        alone = arms.optimizer_of(arm)
        plain = done[key_of(cell | {"arm": alone})] if experiment.decays and arm != alone else None
        row = run_cell(experiment, cell, _made(task), plain)
        records.append(out, row)
        mean, edge = 100 * np.mean(row["mean"]), "" if row["inside"] else ", AT THE EDGE"
        print(f"{task}, {batch_size}, {arm}: {mean:.2f} at {row['rate']:g}{edge}", flush=True)


def main(
  experiment: tyro.conf.OmitArgPrefixes[Experiment],
  preset: str | None = None,
  out: Path | None = None,
) -> None:
  """Runs what has not been run yet.

  Args:
    experiment: what is run, if no preset is named.
    preset: a table of the pages, see `PRESETS`.
    out: the results; `out/PRESET.jsonl` by default.
  """
  if preset is not None and preset not in PRESETS:
    raise ValueError(f"preset must be one of {', '.join(PRESETS)}, but {preset!r} was found.")
  out = out or Path("out") / f"{preset or 'experiments'}.jsonl"
  with jax.default_matmul_precision("highest"):  # an accelerator then gives what a CPU does
    for part in (experiment,) if preset is None else PRESETS[preset]:
      if unknown := set(part.task_names) - set(RECIPES):
        raise ValueError(f"a task must be one of {', '.join(RECIPES)}, but {unknown} was found.")
      for name in part.arm_names:
        arms.find(name)
      run(part, out)


if __name__ == "__main__":
  tyro.cli(main)
