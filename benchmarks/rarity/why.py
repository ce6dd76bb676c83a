# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Are rare kinds drowned by the average, or starved by shrinking steps? Curves over the steps.

    python -m benchmarks.rarity.why --tuned out/optimizers.jsonl

At the rates and decays that the preset "optimizers" of `benchmarks.rarity.experiments` found. The
rare kinds are the half of the kinds with the fewest examples in training. One line for each task
and arm in `out/why.jsonl`; what is there is not run again.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from benchmarks.harness import arms, records, training, weighing
from benchmarks.harness.recipes import RECIPES, default_epochs, make_task

BATCH_SIZE, POINTS = 1024, 50
PLAIN = ("SGDM", "SGDM, one length", "Muon")
TASKS = {"hidden7": arms.RECOMMENDED[0], "LT100": arms.RECOMMENDED[1]}


def rare_kinds(kinds: jax.Array, number: int) -> jax.Array:
  """Bool `[kinds]`: the half with the fewest examples in training."""
  rare = np.zeros(number, bool)
  rare[
    np.argsort(np.bincount(np.asarray(kinds), minlength=number), kind="stable")[: number // 2]
  ] = 1
  return jnp.asarray(rare)


def judged(
  split: Any, params: Any, sizes: training.Sizes, rare: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Loss and accuracy on the rare kinds of a split, each kind counting once."""
  x, labels, kinds = split
  logits, _ = training.apply(params, x, sizes)
  hits = (jnp.argmax(logits, axis=1) == labels).astype(jnp.float32)
  number = jnp.zeros(len(rare)).at[kinds].add(1.0)
  by_kind = lambda values: jnp.zeros(len(rare)).at[kinds].add(values) / jnp.maximum(number, 1.0)
  both = weighing.cross_entropy(logits, labels), hits
  loss, accuracy = (jnp.mean(by_kind(v), where=rare & (number > 0.0)) for v in both)
  return loss, accuracy


def gradients(
  arm: arms.Arm,
  sizes: training.Sizes,
  task: training.Task,
  rare: jax.Array,
  key: jax.Array,
  carry: Any,
  batch: jax.Array,
) -> list[Any]:
  """What the rare and what the frequent examples add to the weighted mean gradient of a step."""
  params, _, state = carry
  importance = jnp.ones(len(task.x))
  context = training.context_of(sizes, task, importance, key, batch, jnp.int32(0))
  x = task.x[batch]
  weights, _ = weighing.weigh(arm, *training.apply(params, x, sizes), context, state, key)
  both = jnp.stack([rare[context.kinds], ~rare[context.kinds]]).astype(jnp.float32)

  def losses(params):
    logits, _ = training.apply(params, x, sizes)
    return (both * weights / len(batch)) @ weighing.losses(arm, logits, context)

  found = jax.jacrev(losses)(params)
  return [jax.tree.map(lambda g, row=row: g[row], found) for row in range(2)]


@functools.partial(jax.jit, static_argnums=(0, 1))
@functools.partial(jax.vmap, in_axes=(None, None, None, None, 0, None, None))
def curves(arm, sizes, task, rare, seed, rate, weight_decay) -> dict[str, jax.Array]:
  """Figures of every step `[steps]`, of each seed."""
  arm = dataclasses.replace(arm, weight_decay=weight_decay)
  run = training.start(arm, sizes, task, seed, rate)
  importance = jnp.ones(len(task.x))

  def body(carry, xs):
    of_rare, of_frequent = gradients(arm, sizes, task, rare, run.key, carry, xs[0])
    total = optax.tree.add(of_rare, of_frequent)
    after = training.step(arm, sizes, task, importance, rate, run.key, carry, *xs)
    training_split = task.x, task.labels, task.kinds
    return after, {
      "share of rare": optax.tree.vdot(of_rare, total)
      / jnp.maximum(optax.tree.vdot(total, total), 1e-20),
      "step": optax.tree.norm(optax.tree.sub(after[0], carry[0])),
      "training loss, rare": judged(training_split, carry[0], sizes, rare)[0],
      "validation accuracy, rare": judged(task.validation, carry[0], sizes, rare)[1],
    }

  return jax.lax.scan(body, run.carry, (run.batches, jnp.arange(len(run.batches))))[1]


def run_one(name: str, arm: str, seeds: int, epochs: int | None, tuned: Any) -> dict[str, Any]:
  """The row of a task and an arm."""
  task, classes_of = make_task(RECIPES[name])
  epochs = epochs or default_epochs(RECIPES[name], BATCH_SIZE)
  kinds = len(classes_of)
  sizes = training.Sizes(BATCH_SIZE, epochs, int(classes_of.max()) + 1, kinds)
  rare = rare_kinds(task.kinds, kinds)
  rate, decay = (
    None if tuned[k] is None else jnp.float32(tuned[k]) for k in ("rate", "weight_decay")
  )
  found = curves(arms.find(arm), sizes, task, rare, jnp.arange(seeds), rate, decay)
  steps = training.num_steps(sizes, task)
  points = np.unique(np.linspace(0, steps - 1, min(POINTS, steps)).round().astype(int))
  mean = lambda values: np.asarray(values).mean(axis=0)[points]
  return {
    "task": name,
    "arm": arm,
    "updates": steps,
    "steps": points.tolist(),
    "curves": {k: [float(f"{x:.5g}") for x in mean(v)] for k, v in found.items()},
  }


def main(
  tuned: Path = Path("benchmarks/results/optimizers.jsonl"),
  seeds: int = 3,
  epochs: int | None = None,
  out: Path = Path("out/why.jsonl"),
) -> None:
  """Runs what has not been run yet.

  Args:
    tuned: the rows with the rates.
    seeds: of the means.
    epochs: of the training; those of the task by default.
    out: the results.
  """
  rows = {(r["task"], r["arm"]): r for r in records.read(tuned) if r["longer"] == 1}
  for task, weights in TASKS.items():
    for arm in (*PLAIN, *(arms.on(weights, plain) for plain in PLAIN)):
      if (task, arm) in {(row["task"], row["arm"]) for row in records.read(out)}:
        continue
      with jax.default_matmul_precision("highest"):
        records.append(out, run_one(task, arm, seeds, epochs, rows[task, arm]))
      print(task, arm, flush=True)


if __name__ == "__main__":
  tyro.cli(main)
