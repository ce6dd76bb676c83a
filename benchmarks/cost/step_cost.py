# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What the gradients of K groups cost, as ratios to a plain gradient of the same batch.

    python -m benchmarks.cost.step_cost                    # all workloads; resumes where it stopped
    python -m benchmarks.cost.step_cost --workloads cnn

One file per workload in `out/step_cost`, then one table and one plot of all that are there.
"""

import functools
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
import optax
import rich
import rich.table
import tyro

import gq_optax as gq
from benchmarks.cost.workloads import Workload, make_labels, sizes
from benchmarks.harness import models, records, timing

WORKLOADS = {
  "cnn": Workload("CNN 32x32x3", models.CNN(), 512, 8, (32, 32, 3), 10),
  "mlp": Workload("MLP 784-256-256-10", models.MLP(), 1024, 16, (784,), 10),
  "reuters": Workload("MLP 10,000-512-46", models.MLP((512,), 46), 512, 8, (10_000,), 46),
  "encoder": Workload("Encoder, 2 layers", models.Encoder(), 256, 4, (64,), 10, 1000),
}

QUEUED = "plain, grad_queue K=1"
# As those before, but into the memory of the group gradients of the step before.
DONATED = ("grouped, donated", "whole step, donated")
# What takes more than this many times a plain gradient is timed once.
SLOW = 6.0


def make_steps(workload: Workload) -> tuple[dict[str, Callable[..., Any]], tuple[Any, ...]]:
  """The ways to a gradient, by name, and the arguments of each: `(params, batch, labels)`."""
  key = jax.random.key(0)
  shape = (workload.batch_size, *workload.example)
  x = (
    jax.random.randint(key, shape, 0, workload.tokens)
    if workload.tokens
    else jax.random.normal(key, shape)
  )
  y = jax.random.randint(key, shape[:1], 0, workload.classes)
  params = workload.model.init(key, x[:1])
  num_groups = workload.num_groups

  def loss_fn(params, batch):
    logits, features = workload.model.apply(params, batch[0])
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]), features

  losses = lambda params, batch: loss_fn(params, batch)[0]

  def plain(params, batch, labels):
    del labels
    return jax.value_and_grad(lambda p: jnp.mean(losses(p, batch)))(params)

  def masked(params, batch, labels):
    def one(k):
      member = (labels == k).astype(jnp.float32)
      mean = lambda p: jnp.sum(losses(p, batch) * member) / jnp.maximum(jnp.sum(member), 1.0)
      return jax.grad(mean)(params)

    return [one(k) for k in range(num_groups)]

  def per_example(params, batch, labels):
    one = lambda p, *example: losses(p, jax.tree.map(lambda x: x[None], example))[0]
    each = jax.vmap(jax.grad(one), (None, 0, 0))(params, *batch)
    member = jax.nn.one_hot(labels, num_groups, axis=0)
    share = member / jnp.maximum(jnp.sum(member, axis=1, keepdims=True), 1.0)
    return jax.tree.map(lambda g: jnp.tensordot(share, g, axes=1), each)

  def microbatched(params, batch, labels):
    del labels
    mean = lambda p, *batch: jnp.mean(losses(p, batch))
    return optax.microbatching.microbatch(
      jax.value_and_grad(mean),
      argnums=(1, 2),
      microbatch_size=max(1, workload.batch_size // (4 * num_groups)),
      accumulator=optax.microbatching.AccumulationType.MEAN,
    )(params, *batch)

  grouped = gq.grouped_value_and_grad(losses, num_groups)

  def clustered(params, batch, labels):
    del labels
    (value, _), groups = gq.clustered_value_and_grad(loss_fn, num_groups)(params, batch)
    return value, groups

  shape = jax.eval_shape(loss_fn, params, (x, y))[1].shape
  features = jax.nn.relu(jax.random.normal(key, shape))

  def kmeans(params, batch, labels):
    del labels
    return gq.kmeans(features + unknown_zero(params), num_groups, num_iters=5).labels

  steps = {
    "plain": plain,
    "plain again": plain,
    QUEUED: plain,  # with the queue behind it, see `compile_queued`
    "grouped": grouped,
    DONATED[0]: grouped,
    "whole step with K-means": clustered,
    DONATED[1]: clustered,
    "K-means alone": kmeans,
    "K masked passes": masked,
    "optax.microbatching": microbatched,
  }
  parameters = sum(p.size for p in jax.tree.leaves(params))
  if parameters * workload.batch_size * 4 < 2**31:
    steps["vmap(grad), group means"] = per_example
  return steps, (params, (x, y))


def compile_donated(function: Callable[..., Any], params: Any, *inputs: Any) -> timing.Step:
  """Into the memory of the group gradients of the step before, which are given away."""

  def donated(groups, params, *inputs):
    del groups
    value, groups = function(params, *inputs)
    return groups, value

  shapes = jax.eval_shape(function, params, *inputs)[1]
  groups = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  return timing.compile_step(donated, groups, params, *inputs)


def compile_queued(plain: Callable[..., Any], params: Any, batch: Any, labels: Any) -> timing.Step:
  """The plain gradient through a queue of 3 that it carries along, donated from step to step."""
  tx = gq.grad_queue(queue_length=3)

  def queued(state, params, batch, labels):
    value, gradient = plain(params, batch, labels)
    updates, state = tx.update(gradient, state)
    return state, value, updates

  step = timing.compile_step(queued, tx.init(params), params, batch, labels)
  return step._replace(run=lambda *_: step.run())


def unknown_zero(params: Any) -> jax.Array:
  """Zero, but the compiler cannot know: keeps what depends on it from being folded away."""
  return 0.0 * jnp.ravel(jax.tree.leaves(params)[0])[0]


def measure(name: str, rounds: int) -> dict[str, Any]:
  """Compiles and times every way for equal and skewed groups."""
  workload = WORKLOADS[name]
  steps, arguments = make_steps(workload)
  labels = {kind: make_labels(workload, kind) for kind in ("equal", "skewed")}
  compiled: dict[str, timing.Step] = {}
  for step, function in steps.items():
    rich.print(f"compiling {name}: {step}")
    make: Any = timing.compile_call
    if step in (QUEUED, *DONATED):
      make = compile_queued if step == QUEUED else compile_donated
    compiled[step] = make(function, *arguments, labels["equal"])
  rows: dict[str, Any] = {step: {} for step in steps}
  call = lambda step, kind: functools.partial(compiled[step].run, *arguments, labels[kind])
  for step in steps:
    call(step, "equal")()  # the first call meets memory that it alone has to fill
  once = {step: timing.seconds(call(step, "equal")) for step in steps}
  for step in steps:
    if once[step] > SLOW * once["plain"]:  # a second chance: other work may have held it up
      once[step] = min(once[step], timing.seconds(call(step, "equal")))
  slow = [step for step in steps if once[step] > SLOW * once["plain"]]
  for kind in labels:
    runs = {
      step: compiled[step]._replace(run=call(step, kind)) for step in steps if step not in slow
    }
    for step, result in timing.interleaved(runs, "plain", rounds).items():
      rows[step][kind] = result._asdict()
  for step in slow:
    ratio = once[step] / rows["plain"]["equal"]["median"]
    rows[step]["equal"] = timing.Timing(*[once[step]] * 3, *[ratio] * 3)._asdict()
  for step, made in compiled.items():
    rows[step] |= {
      "compile_seconds": made.compile_seconds,
      "temp_bytes": made.temp_bytes,
      "flops": made.flops,
    }
  return {
    "title": workload.title,
    "batch_size": workload.batch_size,
    "num_groups": workload.num_groups,
    "parameters": sum(p.size for p in jax.tree.leaves(arguments[0])),
    "sizes": {kind: sizes(workload, kind) for kind in labels},
    "environment": {
      "jax": jax.__version__,
      "python": platform.python_version(),
      "backend": jax.default_backend(),
      "cpus": os.cpu_count(),
    },
    "steps": rows,
  }


def geometric_mean(results: dict[str, Any], step: str, kind: str) -> float:
  """Of the ratios of one way over the workloads, for "equal" or "skewed" groups."""
  return float(np.exp(np.mean([np.log(r["steps"][step][kind]["ratio"]) for r in results.values()])))


def make_table(name: str, result: dict[str, Any]) -> rich.table.Table:
  """One row per way."""
  title = (
    f"{result['title']}: {result['parameters']:,} parameters, B={result['batch_size']},"
    f" K={result['num_groups']}"
  )
  table = rich.table.Table(title=title, box=rich.box.SIMPLE_HEAD)
  for header in (name, "equal", "skewed", "ms", "temp MiB", "GFLOP", "compile s"):
    table.add_column(header, justify="left" if header == name else "right")
  for step, row in result["steps"].items():
    table.add_row(
      step,
      *(_ratio(row.get(kind)) for kind in ("equal", "skewed")),
      f"{1e3 * row['equal']['median']:.1f}",
      f"{row['temp_bytes'] / 2**20:.0f}",
      f"{row['flops'] / 1e9:.1f}",
      f"{row['compile_seconds']:.1f}",
    )
  return table


def _ratio(timed: dict[str, float] | None) -> str:
  """Median and quartiles of a ratio; a dash where it was not timed."""
  if timed is None:
    return "-"
  return f"{timed['ratio']:.2f} ({timed['ratio_low']:.2f}, {timed['ratio_high']:.2f})"


def plot(results: dict[str, Any], path: Path) -> None:
  """Time and temporary memory of every way, equal groups."""
  figure = matplotlib.figure.Figure(figsize=(9, 2.2 + 2.6 * len(results)), layout="constrained")
  axes = figure.subplots(len(results), 2, squeeze=False, sharey="row")
  for row, result in zip(axes, results.values(), strict=True):
    names = list(result["steps"])[::-1]
    base = result["steps"]["plain"]["temp_bytes"]
    values = [
      [result["steps"][n]["equal"]["ratio"] for n in names],
      [result["steps"][n]["temp_bytes"] / base for n in names],
    ]
    for ax, ratios, label in zip(row, values, ("time", "temporary memory"), strict=True):
      ax.barh(
        names, ratios, color=["#0072b2" if n.startswith("grouped") else "#999999" for n in names]
      )
      ax.axvline(1.0, color="black", linewidth=0.8)
      ax.set_xscale("log")
      ax.set_title(f"{result['title']}: {label}", fontsize=9)
      ax.tick_params(labelsize=7)
      ax.spines[["top", "right"]].set_visible(False)
  figure.suptitle("Ratio to one plain gradient of the batch, equal groups")
  figure.savefig(path, dpi=150)


def read(path: Path) -> dict[str, Any]:
  """The results of each workload."""
  return {result["workload"]: result for result in records.read(path)}


def main(
  workloads: tuple[str, ...] = tuple(WORKLOADS),
  rounds: int = 9,
  out: Path = Path("out/step_cost.jsonl"),
) -> dict[str, Any]:
  """Measures what has not been measured yet, and reports all.

  Args:
    workloads: which of cnn, mlp, reuters, encoder.
    rounds: counted rounds.
    out: the results; a workload that is there is not measured again. The plot lies beside them.

  Returns:
    Results by workload.
  """
  for name in workloads:
    if name not in WORKLOADS:
      raise ValueError(f"workloads must be among {tuple(WORKLOADS)}, but {name!r} was found.")
  done = read(out)
  for name in workloads:
    if name not in done:
      records.append(out, {"workload": name, **measure(name, rounds)})
  results = {name: read(out)[name] for name in workloads}
  for name in workloads:
    rich.print(make_table(name, results[name]))
  for step in ("grouped", "whole step with K-means", *DONATED):
    if any(step not in r["steps"] for r in results.values()):
      continue  # a file of an earlier version
    equal, skewed = (geometric_mean(results, step, kind) for kind in ("equal", "skewed"))
    rich.print(f"{step}: geometric mean {equal:.2f} equal, {skewed:.2f} skewed")
  plot(results, out.with_suffix(".png"))
  return results


if __name__ == "__main__":
  tyro.cli(main)
