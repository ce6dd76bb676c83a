# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Steps to a target against batch size (Shallue et al. 2018), with and without Grad Queue.

    python -m benchmarks.paper.steps_to_target

While twice the batch needs half the steps, large batches are useful; the question is whether
Grad Queue keeps them so for longer. At every batch size and for every arm the learning rate is the
one that reaches the target in the fewest steps, out of a grid that grows until that one lies
inside; it is held, for a schedule would tie the steps to a budget. The target is a mean accuracy
over kinds on the validation split.
"""

import math
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks.harness import arms, optimizers, recipes, records, training
from benchmarks.harness.protocol import tune

TARGETS = {"LT100": 0.74, "balanced, cut": 0.82}  # as many training examples in both
ARMS = ("SGDM", "GQ, K=B/64", "group scarcity, outputs")
BATCH_SIZES, SEEDS, EPOCHS, EVALUATIONS = (64, 256, 1024, 4096), 3, 10, 60
MAX_EXTENSIONS = 5
UPDATES = 240  # at least, so that a large batch has a chance to arrive
Made = tuple[training.Task, np.ndarray]


def first_step(curve: np.ndarray, steps: list[int], target: float) -> float:
  """The first evaluated step at or above the target; infinite if there is none."""
  there = np.flatnonzero(curve >= target)
  return float(steps[there[0]] + 1) if len(there) else math.inf


def search(made: Made, arm: str, batch_size: int, target: float) -> dict[str, Any]:
  """The fewest steps of an arm at a batch size: median over seeds, at the best rate for that."""
  task = made[0]
  epochs = max(EPOCHS, math.ceil(UPDATES / (len(task.x) // batch_size)))
  kinds, classes = len(made[1]), int(made[1].max()) + 1
  sizes = training.Sizes(batch_size, epochs, classes, kinds, False, EVALUATIONS)
  marks = training.evaluated(sizes, training.num_steps(sizes, task))
  known: dict[float, list[float]] = {}

  def score(rate: float) -> float:
    if rate not in known:
      rates = jnp.full(SEEDS, rate, jnp.float32)
      found = training.side_by_side(arms.find(arm), sizes, task, jnp.arange(SEEDS), rates)
      known[rate] = [first_step(curve, marks, target) for curve in np.asarray(found.curve)]
    return -float(np.median(known[rate]))

  best, _, inside = tune(score, optimizers.RATES[arms.find(arm).optimizer], MAX_EXTENSIONS)
  steps = [None if math.isinf(s) else s for s in known[best]]
  return {"steps": steps, "rate": best, "inside": inside}


def main(
  names: tuple[str, ...] = tuple(TARGETS),
  batch_sizes: tuple[int, ...] = BATCH_SIZES,
  out: Path = Path("out/steps_to_target.jsonl"),
) -> None:
  """Runs what is missing.

  Args:
    names: see `TARGETS`.
    batch_sizes: the mini-batches.
    out: one JSON a line and run.
  """
  for name in names:
    made = recipes.make_task(recipes.RECIPES[name])
    for arm, size in ((arm, size) for arm in ARMS for size in batch_sizes):
      cell = {"task": name, "arm": arm, "batch_size": size}
      if any(cell.items() <= row.items() for row in records.read(out)):
        continue
      row = search(made, arm, size, TARGETS[name])
      records.append(out, cell | row)
      print(cell | row, flush=True)


if __name__ == "__main__":
  tyro.cli(main)
