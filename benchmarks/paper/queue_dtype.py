# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What a narrower queue costs: the error of the weights, and of the accuracy.

    python -m benchmarks.paper.queue_dtype

A small dense network on real digits. One training feeds a float32 queue and the narrower ones with
the same gradients, and their weights are compared; then each queue trains on its own.
"""

import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

import gq_optax as gq
from benchmarks.harness import networks, weighing
from benchmarks.harness.protocol import paired
from benchmarks.harness.tables import markdown
from benchmarks.pages import markers
from benchmarks.paper import poison

STEPS, LAST, BATCH, RATE, SEEDS = 300, 100, 128, 0.1, 10
DTYPES = {"float32": None, "bfloat16": jnp.bfloat16, "float16": jnp.float16}
RAW = markers.PAPER / "queue_dtype.json"


def queue(name: str) -> optax.GradientTransformationExtraArgs:
  """The paper's queue, stored in a dtype of this name."""
  return gq.grad_queue(3, 3.0, queue_dtype=DTYPES[name])


@functools.partial(jax.jit, static_argnums=0)
@functools.partial(jax.vmap, in_axes=(None, 0, None))
def train(name: str, seed: jax.Array, examples: Any) -> dict[str, jax.Array]:
  """Trains behind the queue `name`; the others see the same gradients."""
  x, y, x_test, y_test = examples
  network = networks.make("mlp", 10)
  first, key = jax.random.split(jax.random.key(seed))
  params = network.init(first, x[:1])
  sgd = optax.sgd(optax.cosine_decay_schedule(RATE, STEPS), momentum=0.9)

  def step(carry, number):
    params, states, moving = carry
    rows = jax.random.permutation(jax.random.fold_in(key, number), len(x))[:BATCH]
    loss = lambda p: jnp.mean(weighing.cross_entropy(network.apply(p, x[rows])[0], y[rows]))
    gradient = jax.grad(loss)(params)
    found = {n: queue(n).update(gradient, states[n]) for n in DTYPES}
    raw = jnp.concatenate([g.ravel() for g in jax.tree.leaves(gradient)])
    told = {}
    weight = {
      n: jnp.concatenate([u.ravel() for u in jax.tree.leaves(u)]) / jnp.where(raw == 0.0, 1.0, raw)
      for n, (u, _) in found.items()
    }
    there = jnp.sum(raw != 0.0)
    for n in DTYPES:
      off = jnp.abs(weight[n] / jnp.where(raw == 0.0, 1.0, weight["float32"]) - 1.0)
      off = jnp.where(raw == 0.0, 0.0, off)
      told[n] = jnp.stack([jnp.sum(off), jnp.sum(off > 0.1)]) / there
    updates, moving = sgd.update(found[name][0], moving, params)
    states = {n: state for n, (_, state) in found.items()}
    return (optax.apply_updates(params, updates), states, moving), told

  states = {n: queue(n).init(params) for n in DTYPES}
  carry: Any = (params, states, sgd.init(params))
  (params, *_), told = jax.lax.scan(step, carry, jnp.arange(STEPS))
  accuracy = jnp.mean(jnp.argmax(network.apply(params, x_test)[0], axis=1) == y_test)
  return {"accuracy": accuracy, **{n: jnp.mean(v[-LAST:], axis=0) for n, v in told.items()}}


def table(results: dict[str, Any]) -> list[list[str]]:
  """A line for each dtype."""
  head = [
    "queue",
    "mean error of a weight",
    "weights off by a tenth",
    "accuracy",
    "against float32",
  ]
  rows = [head]
  for name, found in results.items():
    error, off = np.mean(found["errors"], axis=0)
    accuracy = 100 * np.array(found["accuracy"])
    gap = paired(found["accuracy"], results["float32"]["accuracy"])
    low, mean, high = (f"{100 * gap[k]:+.2f}" for k in ("low", "mean", "high"))
    beside = "" if name == "float32" else f"{mean} [{low}, {high}]"
    cells = [f"{100 * error:.2f} %", f"{100 * off:.2f} %", f"{accuracy.mean():.2f}", beside]
    rows.append([name, *cells])
  return rows


def main(out: Path = RAW) -> None:
  """Trains all; writes the JSON.

  Args:
    out: the JSON.
  """
  examples = poison.load()
  results: dict[str, Any] = {}
  runs = {name: train(name, jnp.arange(SEEDS), examples) for name in DTYPES}
  for name in DTYPES:
    results[name] = {
      "accuracy": np.asarray(runs[name]["accuracy"]).round(4).tolist(),
      "errors": np.asarray(runs["float32"][name]).round(6).tolist(),
    }
  out.write_text(json.dumps(results))
  print(markdown(table(results)))


if __name__ == "__main__":
  tyro.cli(main)
