# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Which figures of `gq.diagnostics` tell that scarcity is amplifying noise?

    python -m benchmarks.paper.alarm

A small dense network on real digits, 300 steps, the labels of a share of the training examples
drawn at random. The means of the figures over the last 100 steps stand beside the accuracy that
scarcity won or lost against the plain chain on the same labels.
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
NOISE = (0.0, 0.2, 0.4, 0.8)
FIGURES = {
  "queue": ("cosine", "norm_ratio", "mean_weight", "agreement", "agreement of the raw gradient"),
  "matched queue": ("agreement", "norm_ratio"),
  "groups": ("effective_examples", "rarest_tenth"),
}
RAW = markers.PAPER / "alarm.json"


def cosine(a: Any, b: Any) -> jax.Array:
  """Between two trees."""
  lengths = optax.tree.norm(a) * optax.tree.norm(b)
  return optax.tree.vdot(a, b) / jnp.maximum(lengths, 1e-30)


@functools.partial(jax.jit, static_argnums=0)
@functools.partial(jax.vmap, in_axes=(None, 0, None, None))
def train(way: str, seed: jax.Array, noise: jax.Array, examples: Any) -> dict[str, jax.Array]:
  """Test accuracy at the end, and the mean of each figure over the last steps."""
  x, y, x_test, y_test = examples
  first, flip, key = jax.random.split(jax.random.key(seed), 3)
  wrong = jax.random.uniform(flip, y.shape) < noise
  y = jnp.where(wrong, jax.random.randint(jax.random.fold_in(flip, 1), y.shape, 0, 10), y)
  queue = optax.with_extra_args_support(optax.identity())
  if way in ("queue", "matched queue"):
    match = "match" if way == "matched queue" else None
    queue = gq.grad_queue(3, 3.0, update_norm=match, track=True)
  sgd = optax.sgd(optax.cosine_decay_schedule(RATE, STEPS), momentum=0.9)
  scarcity = gq.group_scarcity(10, key=0)
  network = networks.make("mlp", 10)
  params = network.init(first, x[:1])

  def step(carry, number):
    params, state, groups, before = carry
    rows = jax.random.permutation(jax.random.fold_in(key, number), len(x))[:BATCH]

    def loss(params):
      logits, _ = network.apply(params, x[rows])
      losses = weighing.cross_entropy(logits, y[rows])
      if way != "groups":
        return jnp.mean(losses), groups
      residuals = gq.output_gradients(weighing.cross_entropy, logits, y[rows])
      weights, new_groups = scarcity.update(residuals, groups)
      return jnp.mean(weights * losses), new_groups

    gradient, groups = jax.grad(loss, has_aux=True)(params)
    weighted, queued = queue.update(gradient, state[0], params)
    updates, moving = sgd.update(weighted, state[1], params)
    told = {} if way == "plain" else gq.diagnostics(queued) | gq.diagnostics(groups)
    told["agreement"] = cosine(weighted, before)
    told["agreement of the raw gradient"] = cosine(gradient, before)
    params = optax.apply_updates(params, updates)
    wanted = {name: told[name] for name in FIGURES.get(way, ())}
    return (params, (queued, moving), groups, gradient), wanted

  zeros = jax.tree.map(jnp.zeros_like, params)
  carry: Any = (params, (queue.init(params), sgd.init(params)), scarcity.init(10), zeros)
  (params, *_), told = jax.lax.scan(step, carry, jnp.arange(STEPS))
  accuracy = jnp.mean(jnp.argmax(network.apply(params, x_test)[0], axis=1) == y_test)
  return {"accuracy": accuracy, **{k: jnp.mean(v[-LAST:]) for k, v in told.items()}}


def table(results: dict[str, Any]) -> list[list[str]]:
  """A line for each share of random labels."""
  names = [(way, name) for way, figures in FIGURES.items() for name in figures]
  won = [f"won by {way}" for way in FIGURES]
  rows = [["random labels", *(f"{way}: {name}" for way, name in names), *won]]
  for noise, ways in results.items():
    cells = [f"{np.mean(ways[way][name]):.2f}" for way, name in names]
    for way in FIGURES:
      gap = paired(ways[way]["accuracy"], ways["plain"]["accuracy"])
      low, mean, high = (f"{100 * gap[k]:+.1f}" for k in ("low", "mean", "high"))
      cells.append(f"{mean} [{low}, {high}]")
    rows.append([f"{100 * float(noise):.0f} %", *cells])
  return rows


def main(out: Path = RAW) -> None:
  """Trains all; writes the JSON.

  Args:
    out: the JSON.
  """
  examples = poison.load()
  results: dict[str, Any] = {}
  for noise in NOISE:
    results[str(noise)] = {
      way: {
        name: np.asarray(values).round(4).tolist()
        for name, values in train(way, jnp.arange(SEEDS), jnp.float32(noise), examples).items()
      }
      for way in ("plain", *FIGURES)
    }
  out.write_text(json.dumps(results))
  print(markdown(table(results)))


if __name__ == "__main__":
  tyro.cli(main)
