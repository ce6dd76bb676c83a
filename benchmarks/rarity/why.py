# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Are rare kinds drowned by the average, or starved by shrinking steps? Curves over the steps.

    python -m benchmarks.rarity.why --results out/optimizers

At the rates and decays that `benchmarks.rarity.optimizers` found, whose folder is read. The rare
kinds are the half of the kinds with the fewest examples in training. One line for each task and arm
in `out/why`; what is there is not run again.
"""

import argparse
import dataclasses
import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.harness import arms, training, weighing
from benchmarks.harness.recipes import RECIPES, default_epochs
from benchmarks.rarity import optimizers, shared_folder

PLAIN = ("SGDM", "SGDM, one length", "Muon")
POINTS = 50
OUT = Path("out/why")


def rare_kinds(task: training.Task, num_kinds: int) -> jax.Array:
  """Bool `[kinds]`: the half with the fewest examples in training."""
  counts = np.bincount(np.asarray(task.kinds), minlength=num_kinds)
  rare = np.zeros(num_kinds, bool)
  rare[np.argsort(counts, kind="stable")[: num_kinds // 2]] = True
  return jnp.asarray(rare)


def judged(
  split: Any, variables: Any, sizes: training.Sizes, rare: jax.Array, name: str
) -> dict[str, jax.Array]:
  """Loss and accuracy on a split: means over rare and over frequent kinds, each counting once."""
  x, labels, kinds = split
  logits = training.logits_of(x, variables, sizes)
  hits = (jnp.argmax(logits, axis=1) == labels).astype(jnp.float32)
  number = jnp.zeros(len(rare)).at[kinds].add(1.0)
  found = {}
  for what, values in (("loss", weighing.cross_entropy(logits, labels)), ("accuracy", hits)):
    by_kind = jnp.zeros(len(rare)).at[kinds].add(values) / jnp.maximum(number, 1.0)
    for which, half in (("rare", rare), ("frequent", ~rare)):
      found[f"{name} {what}, {which}"] = jnp.mean(by_kind, where=half & (number > 0.0))
  return found


def gradients(
  arm: arms.Arm,
  sizes: training.Sizes,
  task: training.Task,
  rare: jax.Array,
  key: jax.Array,
  carry: Any,
  batch: jax.Array,
) -> list[Any]:
  """The gradients of a step by kinds.

  Returns:
    What the rare and what the frequent examples add to the weighted mean gradient; then the
    gradients of their own mean losses, without weights.
  """
  variables, _, watch = carry
  network = training.make_network(sizes, task.x.shape[1:])
  x, labels, kinds = task.x[batch], task.labels[batch], task.kinds[batch]
  prior = jnp.zeros(sizes.num_classes).at[task.labels].add(1.0) / len(task.labels)
  ones = jnp.ones(len(batch))
  context = weighing.Context(labels, kinds, ones, prior, sizes.num_kinds, key, jnp.float32(0.0))
  weights, _ = weighing.weigh(arm, *network.apply(variables, x), context, watch, key)
  both = jnp.stack([rare[kinds], ~rare[kinds]]).astype(jnp.float32)
  alone = both / jnp.maximum(jnp.sum(both, axis=1, keepdims=True), 1.0)
  shares = jnp.concatenate([both * weights / len(batch), alone])

  def losses(params):
    logits, _ = network.apply(variables._replace(params=params), x)
    return shares @ weighing.losses(arm, logits, context)

  found = jax.jacrev(losses)(variables.params)
  return [jax.tree.map(lambda g, row=row: g[row], found) for row in range(4)]


@functools.partial(jax.jit, static_argnums=(0, 1))
@functools.partial(jax.vmap, in_axes=(None, None, None, None, 0, None, None))
def curves(arm, sizes, task, rare, seed, rate, weight_decay) -> dict[str, jax.Array]:
  """Figures of every step `[steps]`, of each seed."""
  arm = dataclasses.replace(arm, weight_decay=weight_decay)
  run = training.start(arm, sizes, task, seed, rate)
  earlier = training.Earlier(jnp.ones(len(task.x)), None)
  dot, norm = optax.tree.vdot, optax.tree.norm

  def body(carry, xs):
    of_rare, of_frequent, alone_rare, alone_frequent = gradients(
      arm, sizes, task, rare, run.key, carry, xs[0]
    )
    total = optax.tree.add(of_rare, of_frequent)
    after = training.step(arm, sizes, task, earlier, rate, run.key, carry, *xs)
    update = optax.tree.sub(after[0].params, carry[0].params)
    row = {
      "gradient": norm(total),
      "gradient, rare": norm(of_rare),
      "gradient, frequent": norm(of_frequent),
      "share of rare": dot(of_rare, total) / jnp.maximum(dot(total, total), 1e-20),
      "step": norm(update),
      # What the step takes off the losses of the batch, to first order.
      "descent, rare": -dot(update, alone_rare),
      "descent, frequent": -dot(update, alone_frequent),
    }
    row |= judged((task.x, task.labels, task.kinds), carry[0], sizes, rare, "training")
    return after, row | judged(task.validation, carry[0], sizes, rare, "validation")

  return jax.lax.scan(body, run.carry, (run.batches, jnp.arange(len(run.batches))))[1]


def run_one(seeds: int, tiny: bool, tuned: dict[tuple[str, str], Any], key: Any, _: Any) -> Any:
  """The row of a task and an arm."""
  name, batch_size, arm = key
  row = tuned[name, arm]
  task, num_classes, classes_of = optimizers.made(name)
  epochs = 1 if tiny else default_epochs(RECIPES[name], batch_size)
  sizes = training.Sizes(batch_size, epochs, num_classes, len(classes_of))
  rare = rare_kinds(task, sizes.num_kinds)
  rate, decay = (None if row[k] is None else jnp.float32(row[k]) for k in ("rate", "weight_decay"))
  found = curves(arms.find(arm), sizes, task, rare, jnp.arange(seeds), rate, decay)
  steps = training.num_steps(sizes, task)
  points = np.unique(np.linspace(0, steps - 1, min(POINTS, steps)).round().astype(int))
  mean = lambda values: np.asarray(values).mean(axis=0)[points]
  return {
    "task": name,
    "batch_size": batch_size,
    "arm": arm,
    "seeds": seeds,
    "rate": row["rate"],
    "weight_decay": row["weight_decay"],
    "updates": steps,
    "rare_kinds": np.flatnonzero(np.asarray(rare)).tolist(),
    "steps": points.tolist(),
    "curves": {k: [float(f"{x:.5g}") for x in mean(v)] for k, v in found.items()},
    "environment": optimizers.environment(),
  }


def main(argv: Sequence[str] | None = None, emit: Callable[[str], None] = print) -> int:
  """Runs what has not been run yet; returns 0 if nothing failed."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=optimizers.AS_WRITTEN)
  parser.add_argument("--results", type=Path, default=optimizers.OUT, help="the tuned rates")
  parser.add_argument("--task-names", nargs="+", choices=RECIPES, default=("LT100", "hidden7"))
  parser.add_argument("--batch-size", type=int, default=1024)
  parser.add_argument("--optimizers", nargs="+", default=PLAIN)
  parser.add_argument("--seeds", type=int, default=3)
  parser.add_argument("--out", type=Path, default=OUT)
  parser.add_argument("--jobs", type=int, default=1, help="processes")
  parser.add_argument("--tiny", action="store_true", help="one epoch, to try this out")
  options = parser.parse_args(argv)
  if options.jobs > 1:
    module = "benchmarks.rarity.why"  # not "__main__"
    return optimizers.spread(module, sys.argv[1:] if argv is None else argv, options.jobs)
  tuned = {
    (row["task"], row["arm"]): row
    for row in shared_folder.read(options.results)
    if row["batch_size"] == options.batch_size and row["longer"] == 1
  }
  wanted = []
  for task in options.task_names:
    scarcity = arms.RECOMMENDED[RECIPES[task].hidden is None]
    names = [(plain, optimizers.on(scarcity, plain)) for plain in options.optimizers]
    wanted += [(task, options.batch_size, arm) for pair in names for arm in pair]
  for task, _, arm in wanted:
    if (task, arm) not in tuned:
      raise ValueError(
        f"results must hold the rate of every arm, but {arm!r} on {task} is not in"
        f" {options.results}. Run benchmarks.rarity.optimizers first."
      )
  with jax.default_matmul_precision("highest"):
    failed = shared_folder.share(
      wanted,
      options.out,
      lambda row: (row["task"], row["batch_size"], row["arm"]),
      lambda _: None,
      functools.partial(run_one, options.seeds, options.tiny, tuned),
      lambda row: emit(f"{row['task']}, {row['arm']}: {row['updates']} steps"),
    )
  return min(1, len(failed))


if __name__ == "__main__":
  sys.exit(main())
