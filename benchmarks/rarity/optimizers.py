# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Do weights by rarity add to the best optimizers? Every arm on each of them, tuned.

    python -m benchmarks.rarity.optimizers --stage 1
    python -m benchmarks.rarity.optimizers --stage 1 --jobs 14      # on one accelerator

The rate of a cell is the best on validation over two seeds, out of a grid that grows until the best
lies inside it. The weight decay is the best of three for the optimizer without weights, or of more
while the best is the largest, and its arms keep it. What is in the folder is not run again.
Processes that are given the same folder share the work.
"""

import argparse  # an image for accelerators may hold nothing but JAX, Flax, Optax and Rich
import concurrent.futures
import dataclasses
import functools
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gq_optax as gq
from benchmarks.harness import arms, optimizers, training
from benchmarks.harness.protocol import tune
from benchmarks.harness.recipes import (
  RECIPES,
  classes_of_kinds,
  default_epochs,
  figures,
  make_task,
)
from benchmarks.rarity import shared_folder

TUNING_SEEDS = 2
MAX_EXTENSIONS = 6
MAX_DECAYS = 6
# By weight decay: the best rate, the scores by rate, and whether the best lies inside.
Tuned = dict[float | None, tuple[float, dict[float, float], bool]]
PLAIN = ("SGDM", "AdamW", "Muon", "SGDM, one length")
HIDDEN = ("hidden5", "hidden6", "hidden7", "mnist hidden5", "mnist hidden6", "mnist hidden7")
# Where the kinds are the classes, true kinds weigh as class weights do.
CLASSES = ("class weights", "group scarcity, outputs", "example scarcity, outputs")
KINDS = (
  "class weights",
  "group scarcity, features, pooled",
  "example scarcity, features",
  arms.ORACLE,
)
# Labels that name a part of what is rare: classes of several sizes, of two kinds each.
BOTH = ("both5", "both6", "both7")
ON_BOTH = (
  *arms.TOLD,
  *arms.RECOMMENDED,
  *arms.COMBINED,
  *(name + arms.AT_RANDOM for name in arms.COMBINED),
)
STAGES: dict[int, dict[str, Any]] = {
  1: {"task_names": ("balanced", "LT100", "hidden5", "mnist hidden6", "hidden7"), "seeds": 5},
  2: {"task_names": ("LT100", *HIDDEN), "batch_sizes": (1024, 4096), "seeds": 10},
  3: {"task_names": ("LT100", "hidden7"), "seeds": 10, "longer": 4},
  4: {
    "task_names": (*BOTH, "LT100"),
    "batch_sizes": (1024, 4096),
    "seeds": 10,
    "arm_names": ("SGDM", *(f"{arm} on Muon" for arm in (*ON_BOTH, arms.ORACLE))),
  },
}
OUT = Path("out/optimizers")
AS_WRITTEN = argparse.RawTextHelpFormatter  # the description


class Cell(NamedTuple):
  """What one row is of.

  Attributes:
    task: of `RECIPES`.
    batch_size: B.
    arm: its name, and of its optimizer, see `arms.find`.
    seeds: of the final runs.
    longer: times the epochs of the task.
  """

  task: str
  batch_size: int
  arm: str
  seeds: int
  longer: int


def optimizer_of(arm: str) -> str:
  """The name of an arm's optimizer alone."""
  optimizer = arms.find(arm).optimizer
  names = (*PLAIN, *(name for name, known in arms.ARMS.items() if arms.is_plain(known)))
  return next(name for name in names if arms.find(name).optimizer == optimizer)


def on(arm: str, optimizer: str) -> str:
  """The name of an arm on an optimizer."""
  return arm if optimizer == "SGDM" else f"{arm} on {optimizer}"


def cells(options: argparse.Namespace) -> list[Cell]:
  """Plain optimizers first, which the others wait for."""
  wanted = []
  for task in options.task_names:
    weights = CLASSES if RECIPES[task].hidden is None else KINDS
    names = options.arm_names or (
      *options.optimizers,
      *(on(arm, optimizer) for optimizer in options.optimizers for arm in weights),
    )
    names = (*dict.fromkeys(optimizer_of(name) for name in names), *names)
    for batch_size in options.batch_sizes:
      rest = options.seeds, options.longer
      wanted += [Cell(task, batch_size, name, *rest) for name in dict.fromkeys(names)]
  return sorted(wanted, key=lambda cell: plain_of(cell) is not None)  # keeps the order of the rest


def plain_of(cell: Cell) -> Cell | None:
  """The cell whose weight decay this one takes; None if it is without weights itself."""
  plain = optimizer_of(cell.arm)
  return None if cell.arm == plain else cell._replace(arm=plain)


def cell_of(row: shared_folder.Row) -> Cell:
  """The cell of a row."""
  return Cell(*(row[field] for field in Cell._fields))


@functools.partial(jax.jit, static_argnums=(0, 1))
@functools.partial(jax.vmap, in_axes=(None, None, None, 0, 0, None))
def train(arm, sizes, task, seed, rate, weight_decay) -> training.Outcome:
  """`training.side_by_side`, and the weight decay is a number of the program like the rate."""
  decayed = dataclasses.replace(arm, weight_decay=weight_decay)
  return training.one_run(decayed, sizes, task, seed, rate)


def made(name: str) -> tuple[training.Task, int, np.ndarray]:
  """A task, its number of classes, and the class of each kind; made once, by whichever thread."""
  with _MAKING:
    return _made(name)


_MAKING = threading.Lock()


@functools.cache
def _made(name: str) -> tuple[training.Task, int, np.ndarray]:
  task, num_classes = make_task(RECIPES[name])
  return task, num_classes, classes_of_kinds(task)


class Trainer:
  """Trains pairs of seeds and rates, always as many at once: one compilation."""

  def __init__(self, cell: Cell, tiny: bool) -> None:
    self.arm = arms.find(cell.arm)
    self.grid = optimizers.RATES[self.arm.optimizer]
    self.seeds = min(TUNING_SEEDS, cell.seeds)
    self.width = max(len(self.grid) * self.seeds, cell.seeds)
    self.task, num_classes, self.classes_of = made(cell.task)
    epochs = 1 if tiny else default_epochs(RECIPES[cell.task], cell.batch_size) * cell.longer
    self.sizes = training.Sizes(cell.batch_size, epochs, num_classes, len(self.classes_of))
    self.calls: list[float] = []  # seconds; the first compiles

  def run(self, pairs: Sequence[tuple[int, float]], decay: float | None) -> list[tuple[Any, Any]]:
    """Figures on validation and on test of each pair."""
    filled = [*pairs, *[pairs[-1]] * (self.width - len(pairs))]
    seed, rate = (jnp.array(part) for part in zip(*filled, strict=True))
    began = time.perf_counter()
    traced = None if decay is None else jnp.float32(decay)
    found = train(self.arm, self.sizes, self.task, seed, rate.astype(jnp.float32), traced)
    both = np.asarray(found.validation), np.asarray(found.test)
    self.calls.append(time.perf_counter() - began)
    look = lambda confusion: figures(confusion, self.classes_of)
    return [(look(both[0][j]), look(both[1][j])) for j in range(len(pairs))]

  def tune(self, decay: float | None) -> tuple[float, dict[float, float], bool]:
    """See `tune`. The rates beyond the one that is asked for are trained in the same call."""
    known: dict[float, float] = {}

    def score(rate: float) -> float:
      if rate not in known:
        beyond = 0.5 if known and rate < min(known) else 2.0
        more = [rate * beyond**k for k in range(self.width // self.seeds)]
        rates = more if known else self.grid
        results = self.run([(s, r) for r in rates for s in range(self.seeds)], decay)
        for k, r in enumerate(rates):
          part = results[k * self.seeds : (k + 1) * self.seeds]
          known[r] = float(np.mean([validation["mean"] for validation, _ in part]))
      return known[rate]

    return tune(score, self.grid, MAX_EXTENSIONS)


def run_cell(tiny: bool, cell: Cell, plain: shared_folder.Row | None) -> shared_folder.Row:
  """Tunes a cell, then runs all its seeds."""
  began = time.perf_counter()
  trainer = Trainer(cell, tiny)
  decays: tuple[float | None, ...] = optimizers.DECAYS.get(trainer.arm.optimizer, (None,))
  if plain is not None:
    decays = (plain["weight_decay"],)
  tuned = {decay: trainer.tune(decay) for decay in decays}
  decay = best_decay(tuned)
  while plain is None and decay and largest_is_best(tuned) and len(tuned) < MAX_DECAYS:
    tuned[3 * decay] = trainer.tune(3 * decay)
    decay = best_decay(tuned)
  rate, _, inside = tuned[decay]
  results = trainer.run([(seed, rate) for seed in range(cell.seeds)], decay)
  arm, sizes = dataclasses.replace(trainer.arm, weight_decay=decay), trainer.sizes
  return {
    **cell._asdict(),
    "options": dataclasses.asdict(arm),
    "recipe": dataclasses.asdict(RECIPES[cell.task]),
    "epochs": sizes.epochs,
    "updates": training.num_steps(sizes, trainer.task),
    "rate": rate,
    "rate_inside_grid": inside,
    "weight_decay": decay,
    "validation_by_decay": [
      {"weight_decay": d, "rate": best, "inside": within, "validation_by_rate": scores}
      for d, (best, scores, within) in tuned.items()
    ],
    "validation": [validation["mean"] for validation, _ in results],
    "test": [test for _, test in results],
    "seconds": time.perf_counter() - began,
    "seconds_of_calls": [round(seconds, 2) for seconds in trainer.calls],
    "environment": environment(),
  }


def largest_is_best(tuned: Tuned) -> bool:
  """Whether a larger weight decay than those that were tried may be better."""
  return best_decay(tuned) == max(decay or 0.0 for decay in tuned)


def best_decay(tuned: Tuned) -> float | None:
  """The weight decay whose best rate scores highest."""
  return max(tuned, key=lambda decay: max(tuned[decay][1].values()))


def environment() -> dict[str, str]:
  """What a run ran on."""
  return {
    **{m.__name__: m.__version__ for m in (gq, jax, optax)},
    "python": platform.python_version(),
    "device": jax.devices()[0].device_kind,
  }


def line(row: shared_folder.Row) -> str:
  """What is printed of a row."""
  mean, worst = (100 * np.mean([test[key] for test in row["test"]]) for key in ("mean", "worst"))
  calls = row["seconds_of_calls"]
  took = f"{row['seconds']:.0f} s, calls of {calls[0]:.1f} to {calls[-1]:.1f}"
  at = f"rate {row['rate']:g}, decay {row['weight_decay']}"
  edge = "" if row["rate_inside_grid"] else ", RATE AT THE EDGE"
  tried = [part["weight_decay"] for part in row["validation_by_decay"]]
  if row["weight_decay"] and len(tried) > 1 and row["weight_decay"] == max(tried):
    edge += ", DECAY AT THE EDGE"
  longer = f" x {row['longer']}" if row["longer"] > 1 else ""
  where = f"{row['task']}, {row['batch_size']}{longer}"
  return f"{where}, {row['arm']}: {mean:.1f} ({worst:.0f}); {at}{edge} ({took})"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
  """The options; those of a stage can be given one by one."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=AS_WRITTEN)
  parser.add_argument("--stage", type=int, choices=STAGES, default=1, help="sets the next six")
  parser.add_argument("--task-names", nargs="+", choices=RECIPES, metavar="TASK")
  parser.add_argument("--batch-sizes", nargs="+", type=int)
  parser.add_argument("--seeds", type=int)
  parser.add_argument("--longer", type=int, help="times the epochs of the task")
  parser.add_argument("--optimizers", nargs="+", choices=PLAIN, help="default: all")
  parser.add_argument(
    "--arm-names", nargs="+", metavar="ARM", help="in place of all weights on --optimizers"
  )
  parser.add_argument("--out", type=Path, default=OUT)
  parser.add_argument("--jobs", type=int, default=1, help="processes")
  parser.add_argument(
    "--threads", type=int, default=1, help="of each process; they compile at once"
  )
  parser.add_argument("--tiny", action="store_true", help="one epoch, to try this out")
  options = parser.parse_args(argv)
  defaults = {"batch_sizes": (1024,), "longer": 1, "optimizers": PLAIN, **STAGES[options.stage]}
  for name, value in defaults.items():
    if getattr(options, name) is None:
      setattr(options, name, value)
  for name in options.arm_names or ():
    arms.find(name)
  return options


def spread(module: str, argv: Sequence[str], jobs: int) -> int:
  """Runs a script's command in several processes; 0 if all went well."""
  command = [sys.executable, "-m", module, *argv, "--jobs", "1"]
  started = [subprocess.Popen(command) for _ in range(jobs)]
  try:
    return max(abs(process.wait()) for process in started)
  finally:
    for process in started:
      process.kill()


def main(argv: Sequence[str] | None = None, emit: Callable[[str], None] = print) -> int:
  """Runs what has not been run yet; returns 0 if nothing failed."""
  options = parse(argv)
  if options.jobs > 1:
    module = "benchmarks.rarity.optimizers"  # not "__main__"
    return spread(module, sys.argv[1:] if argv is None else argv, options.jobs)

  def work() -> list[Cell]:
    with jax.default_matmul_precision("highest"):  # an accelerator then gives what a CPU does
      return shared_folder.share(
        cells(options),
        options.out,
        cell_of,
        plain_of,
        functools.partial(run_cell, options.tiny),
        lambda row: emit(line(row)),
      )

  with concurrent.futures.ThreadPoolExecutor(options.threads) as pool:
    started = [pool.submit(work) for _ in range(options.threads)]
  return int(any(failed.result() for failed in started))


if __name__ == "__main__":
  sys.exit(main())
