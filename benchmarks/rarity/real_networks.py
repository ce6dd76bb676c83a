# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Weights by rarity on a convolutional network: WRN-16-4 on CIFAR-10 with a long tail, on a GPU.

    python -m benchmarks.rarity.real_networks                        # what is missing, 3.5 minutes
    python -m benchmarks.rarity.real_networks --tasks LT100 --optimizers SGDM

Every way to weigh gets its own rate: the best of four on validation after 15 epochs. At that rate
60 epochs are run with three seeds, and the test split is read. SGD with momentum alone, and with
the weights that did best on validation, also runs 200 epochs. Every finished run is a row of
`out/real_networks.jsonl` and is not run again. What is unfinished when the minutes are over lies
in `out/real_networks.npz`, and goes on there with the next call.
"""

import argparse  # an image for accelerators may hold nothing but JAX, Flax, Optax and Rich
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import gq_optax as gq
from benchmarks.harness import records, tables
from benchmarks.harness.recipes import figures
from benchmarks.rarity import images, network_runs
from gq_optax.trial.own_data import Data

Row = dict[str, Any]
# The recommended weights of a task, and what else is done about rare examples. On LT100 the true
# kinds are the classes, so that the oracle's weights are class weights.
WAYS = {
  "LT100": ("SGDM", "class weights", "logit adjustment", "example scarcity, outputs"),
  "hidden": (
    "SGDM", "class weights", "logit adjustment", "example scarcity, features",
    "true kinds (oracle)",
  ),
}  # fmt: skip
PLAIN, ORACLE = "SGDM", "true kinds (oracle)"
LONG_TASK, LONG_OPTIMIZER = "LT100", "SGDM"
STAGES = ("rate", "final", "long")
OUT = Path("out/real_networks.jsonl")
SAVE_EVERY = 20.0  # seconds


class Scale(NamedTuple):
  """How large it all is."""

  batch_size: int
  chunk: int  # epochs of one call; those of every stage are a multiple of it
  epochs: tuple[int, int, int]  # of `STAGES`
  rates: int
  seeds: int
  width: int
  blocks: int


FULL = Scale(1024, 5, (15, 60, 200), 4, 3, 4, 2)
TINY = Scale(10, 1, (1, 2, 3), 2, 2, 1, 1)


class Job(NamedTuple):
  """A run: its row's identity."""

  stage: str
  task: str
  optimizer: str
  way: str
  rate: float
  seed: int
  epochs: int
  tiny: bool


def sizes_of(job: Job, scale: Scale) -> network_runs.Sizes:
  """What is static of a run."""
  num_classes = 10 if job.task == "LT100" else 2
  return network_runs.Sizes(
    job.optimizer, WAYS[job.task], num_classes, 10,
    scale.batch_size, scale.chunk, scale.width, scale.blocks,
  )  # fmt: skip


def done(rows: Sequence[Row]) -> dict[Job, Row]:
  """The finished runs."""
  return {Job(**{key: row[key] for key in Job._fields}): row for row in rows}


def missing(
  rows: Sequence[Row], tasks: Sequence[str], optimizers: Sequence[str], tiny: bool
) -> Job | None:
  """The next run, or None if all are there."""
  there = done(rows)
  for task in tasks:
    for optimizer in optimizers:
      for job in wanted(list(there.items()), task, optimizer, tiny):
        if job not in there:
          return job
  return None


def wanted(there: list[tuple[Job, Row]], task: str, optimizer: str, tiny: bool) -> list[Job]:
  """All runs of an optimizer on a task, as far as the finished ones let us know them."""
  scale = TINY if tiny else FULL
  rates, ways = network_runs.RATES[optimizer][: scale.rates], WAYS[task]
  job = lambda stage, way, rate, seed: Job(
    stage, task, optimizer, way, rate, seed, scale.epochs[STAGES.index(stage)], tiny
  )
  jobs = [job("rate", way, rate, 0) for way in ways for rate in rates]
  score = {key: row["validation"]["mean"] for key, row in there}
  if any(key not in score for key in jobs):
    return jobs
  best = {way: max(rates, key=lambda r: score[job("rate", way, r, 0)]) for way in ways}
  seeds = range(scale.seeds)
  final = [job("final", way, best[way], seed) for seed in seeds for way in ways]
  jobs += final
  if (task, optimizer) != (LONG_TASK, LONG_OPTIMIZER) or any(key not in score for key in final):
    return jobs
  mean = lambda way: np.mean([score[key] for key in final if key.way == way])
  winner = max((way for way in ways if way not in (PLAIN, ORACLE)), key=mean)
  return jobs + [job("long", w, best[w], seed) for seed in seeds for w in (PLAIN, winner)]


# What is unfinished, on disk


def save(path: Path, job: Job, epoch: int, carry: network_runs.Carry) -> None:
  """Writes the state after `epoch` epochs, whole or not at all."""
  path.parent.mkdir(parents=True, exist_ok=True)
  written = path.with_suffix(".new")
  arrays = {f"leaf{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(carry))}
  with written.open("wb") as file:
    arrays |= {"job": np.asarray(json.dumps(job)), "epoch": np.asarray(epoch)}
    np.savez(file, allow_pickle=False, **arrays)
  os.replace(written, path)


def restore(path: Path, job: Job, new: network_runs.Carry) -> tuple[int, network_runs.Carry]:
  """The epochs that are over and the state; `new` if what lies there is of another run."""
  if not path.exists():
    return 0, new
  with np.load(path, allow_pickle=False) as file:
    if str(file["job"]) != json.dumps(job):
      return 0, new
    leaves, structure = jax.tree.flatten(new)
    stored = [jnp.asarray(file[f"leaf{i}"]) for i in range(len(leaves))]
    return int(file["epoch"]), jax.tree.unflatten(structure, stored)


def run(
  job: Job, scale: Scale, task: images.Images, state: Path, over: Callable[[], bool]
) -> Row | None:
  """Goes on with a run to its end, or None if the time was over first."""
  sizes = sizes_of(job, scale)
  plan = network_runs.plan(WAYS[job.task].index(job.way), job.rate, job.seed, job.epochs)
  began = saved = time.perf_counter()
  epoch, carry = restore(state, job, network_runs.begin(sizes, task, plan))
  first = epoch
  while epoch < job.epochs:
    carry = network_runs.train_chunk(sizes, task, plan, carry, jnp.asarray(epoch, jnp.int32))
    jax.block_until_ready(carry)
    epoch += scale.chunk
    if epoch < job.epochs and over():
      save(state, job, epoch, carry)
      return None
    if time.perf_counter() - saved > SAVE_EVERY:
      save(state, job, epoch, carry)
      saved = time.perf_counter()
  classes_of = network_runs.classes_of_kinds(sizes, task)
  look = lambda split: figures(
    np.asarray(network_runs.judge(sizes, task, carry.params, split)), classes_of
  )
  row = {**job._asdict(), "validation": look(task.validation)}
  if job.stage != "rate":
    row["test"] = look(task.test)
  device = jax.devices()[0].device_kind
  versions = {"gq_optax": gq.__version__, "jax": jax.__version__, "device": device}
  state.unlink(missing_ok=True)
  seconds = time.perf_counter() - began
  return {**row, "seconds": seconds, "resumed_after": first, "environment": versions}


# The tables


def cell(rows: Sequence[Row], figure: str) -> str:
  """Mean and spread over the seeds, in percent."""
  values = [100.0 * row["test"][figure] for row in rows]
  spread = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
  return f"{np.mean(values):.1f}{spread}"


def report(rows: Sequence[Row]) -> str:
  """The final runs and the long ones: mean and lowest accuracy of the kinds, on test."""
  lines = []
  for stage in STAGES[1:]:
    found = [row for row in rows if row["stage"] == stage]
    names = list(dict.fromkeys((r["task"], r["optimizer"], r["way"]) for r in found))
    if not names:
      continue
    body = [["task", "optimizer", "way", "mean", "worst kind", "rate", "at the end", "seeds"]]
    for name in names:
      own = [r for r in found if (r["task"], r["optimizer"], r["way"]) == name]
      grid = network_runs.RATES[name[1]][: (TINY if own[0]["tiny"] else FULL).rates]
      edge = "yes" if own[0]["rate"] in (grid[0], grid[-1]) else "no"
      way = "none" if name[2] == PLAIN else name[2]
      columns = cell(own, "mean"), cell(own, "worst"), f"{own[0]['rate']:g}", edge, f"{len(own)}"
      body.append([name[0], name[1], way, *columns])
    lines += [f"## {found[0]['epochs']} epochs", tables.markdown(body)]
  return "\n\n".join(lines) + "\n" if lines else "No final run has ended yet.\n"


def main(
  tasks: Sequence[str] = images.TASKS,
  optimizers: Sequence[str] = tuple(network_runs.RATES),
  minutes: float = 3.5,
  tiny: bool = False,
  out: Path = OUT,
  data: Path | None = None,
) -> list[Row]:
  """Runs what is missing, and reports all that is there.

  Args:
    tasks: some of `images.TASKS`.
    optimizers: some of `network_runs.RATES`.
    minutes: no further chunk of epochs is begun after that, except for a first one.
    tiny: sizes that a CPU does in seconds, to see that the script runs.
    out: one JSON a line and run.
    data: what `images` has packed; by default CIFAR-10 as `gq_optax.trial.data` finds it.

  Returns:
    All finished runs of this scale.
  """
  scale, started = TINY if tiny else FULL, time.perf_counter()
  over = lambda: time.perf_counter() - started > 60.0 * minutes
  here = lambda: [row for row in records.read(out) if row["tiny"] == tiny]
  source: Data | None = None
  made: dict[str, images.Images] = {}
  while job := missing(here(), tasks, optimizers, tiny):
    if source is None:
      source = images.few(images.load(data)) if tiny else images.load(data)
    made = {job.task: made.get(job.task) or images.make(source, job.task)}
    row = run(job, scale, made[job.task], out.with_suffix(".npz"), over)
    if row is not None:
      records.append(out, row)
      name = f"{job.stage}: {job.task}, {job.optimizer}, {job.way}, {job.rate:g}, seed {job.seed}"
      print(f"{row['seconds']:6.1f} s  {name}: {row['validation']['mean']:.4f}", flush=True)
    if over():
      print(f"{minutes:g} minutes are over: call again for the rest.")
      break
  rows = here()
  text = report(rows)
  print(text)
  out.parent.mkdir(parents=True, exist_ok=True)
  out.with_suffix(".md").write_text(text)
  return rows


def arguments() -> argparse.Namespace:
  """From the command line."""
  parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
  parser.add_argument("--tasks", nargs="+", choices=images.TASKS, default=images.TASKS)
  optimizers = tuple(network_runs.RATES)
  parser.add_argument("--optimizers", nargs="+", choices=optimizers, default=optimizers)
  parser.add_argument("--minutes", type=float, default=3.5, help="then no further chunk begins")
  parser.add_argument("--tiny", action="store_true", help="sizes that a CPU does in seconds")
  parser.add_argument("--out", type=Path, default=OUT, help="one JSON a line and run")
  parser.add_argument("--data", type=Path, help="what benchmarks.rarity.images has packed")
  return parser.parse_args()


if __name__ == "__main__":
  main(**vars(arguments()))
