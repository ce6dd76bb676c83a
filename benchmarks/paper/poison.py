# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Poisoned gradients hit a training for 50 steps: what to chain, and in which order?

    python -m benchmarks.paper.poison

A small dense network on real digits, 300 steps, all chains with the same rate, starts and batches.
From step 100 to 150 the gradients are poisoned; accuracy is looked at before, while and after.
"""

import functools
import json
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
from benchmarks.harness import data, networks, tasks, weighing
from benchmarks.pages import markers

STEPS, FIRST, LAST = 300, 100, 150
BATCH, RATE, CLIP, SEEDS, EVERY = 128, 0.1, 1.0, 10, 5
SHARE = 0.1  # of the examples, or of the steps
RAW = markers.PAPER / "poison.json"

POISONS = {
  "NaN and Inf": "in every second step the gradient is NaN or Inf",
  "spikes of 1e30": "a tenth of the examples count 1e30 times",
  "flipped spikes": "a tenth of the examples count -100 times",
  "sign flips": "a tenth of the examples count -1 times",
}


def chains() -> dict[str, optax.GradientTransformation]:
  """What is compared; `clip` is `optax.clip_by_global_norm(1)`."""
  clip, sgd = optax.clip_by_global_norm(CLIP), optax.sgd(RATE, momentum=0.9)
  queue, capped = gq.grad_queue(3, 3.0), gq.grad_queue(3, 3.0, update_norm=1.0)
  safe = functools.partial(optax.apply_if_finite, max_consecutive_errors=STEPS)
  return {
    "sgd": sgd,
    "queue, sgd": optax.chain(queue, sgd),
    "apply_if_finite(sgd)": safe(sgd),
    "apply_if_finite(queue, sgd)": safe(optax.chain(queue, sgd)),
    "apply_if_finite(clip, sgd)": safe(optax.chain(clip, sgd)),
    "apply_if_finite(clip, queue, sgd)": safe(optax.chain(clip, queue, sgd)),
    "apply_if_finite(queue, clip, sgd)": safe(optax.chain(queue, clip, sgd)),
    "apply_if_finite(clip, capped queue, sgd)": safe(optax.chain(clip, capped, sgd)),
  }


def load() -> tuple[jax.Array, ...]:
  """Training and test examples and labels."""
  digits = data.load("digits")
  x, x_test = (part.reshape(len(part), -1) for part in (digits.x_train, digits.x_test))
  x, x_test = tasks.standardise(x, x_test)
  put = lambda y: jnp.asarray(y, jnp.int32)
  return jnp.asarray(x), put(digits.y_train), jnp.asarray(x_test), put(digits.y_test)


@functools.partial(jax.jit, static_argnums=(0, 1))
@functools.partial(jax.vmap, in_axes=(None, None, 0, None))
def train(chain: str, poison: str | None, seed: jax.Array, examples: Any) -> dict[str, jax.Array]:
  """Accuracy in the course of training, and whether the queue stayed clean."""
  x, y, x_test, y_test = examples
  tx = chains()[chain]
  network = networks.make("mlp", 10)
  first, key = jax.random.split(jax.random.key(seed))
  params = network.init(first, x[:1])

  def step(carry, number):
    params, state = carry
    order, hit, kind = jax.random.split(jax.random.fold_in(key, number), 3)
    rows = jax.random.permutation(order, len(x))[:BATCH]
    now = jnp.logical_and(number >= FIRST, number < LAST)
    chosen = jnp.logical_and(jax.random.uniform(hit, (BATCH,)) < SHARE, now)
    factor = {"spikes of 1e30": 1e30, "flipped spikes": -100.0, "sign flips": -1.0}
    weight = jnp.where(chosen, factor.get(poison or "", 1.0), 1.0)
    loss = lambda p: jnp.mean(
      weight * weighing.cross_entropy(network.apply(p, x[rows])[0], y[rows])
    )
    gradient = jax.grad(loss)(params)
    if poison == "NaN and Inf":
      bad = jnp.where(jax.random.bernoulli(kind), jnp.nan, jnp.inf)
      bad = jnp.where(jnp.logical_and(now, number % 2 == 0), bad, 0.0)
      gradient = jax.tree.map(lambda g: g + bad, gradient)
    updates, state = tx.update(gradient, state, params)
    params = optax.apply_updates(params, updates)
    look = lambda p: jnp.mean(jnp.argmax(network.apply(p, x_test)[0], axis=1) == y_test)
    due = number % EVERY == EVERY - 1
    accuracy = jax.lax.cond(due, look, lambda _: jnp.float32(0.0), params)
    queues = [leaf for leaf in jax.tree.leaves(state, is_leaf=_is_queue) if _is_queue(leaf)]
    floats = [s for q in queues for s in jax.tree.leaves(q.queue.slots)]
    clean = jnp.all(jnp.array([jnp.all(jnp.isfinite(s)) for s in floats] or [True]))
    largest = jnp.max(jnp.array([jnp.max(jnp.abs(s)) for s in floats] or [0.0]))
    return (params, state), (accuracy, clean, largest)

  carry = (params, tx.init(params))
  accuracy, clean, largest = jax.lax.scan(step, carry, jnp.arange(STEPS))[1]
  return {
    "accuracy": accuracy[EVERY - 1 :: EVERY],
    "clean": jnp.all(clean),
    "largest_in_queue": jnp.max(largest[FIRST:]),
  }


def _is_queue(node: Any) -> bool:
  return isinstance(node, gq.GradQueueState)


def recovery(accuracy: np.ndarray) -> list[float | None]:
  """Steps after the poison until accuracy is back within a point of before, for each seed."""
  marks = np.arange(EVERY, STEPS + 1, EVERY)
  before = accuracy[:, marks <= FIRST][:, -1:]
  back = (accuracy >= before - 0.01) & (marks > LAST)[None]
  steps = np.where(back.any(axis=1), marks[np.argmax(back, axis=1)] - LAST, -1)
  return [None if s < 0 else float(s) for s in steps]


def table(results: dict[str, Any]) -> list[list[str]]:
  """Lowest accuracy once the poison began, at the end, and how long recovery took."""
  rows = [["poison, chain", "before", "lowest", "at the end", "back after", "queue clean"]]
  marks = np.arange(EVERY, STEPS + 1, EVERY)
  percent = lambda values: f"{100 * float(np.mean(values)):.1f}"
  for poison, by_chain in results.items():
    for chain, found in by_chain.items():
      accuracy = np.array(found["accuracy"])
      middle = float(np.median([np.inf if s is None else s for s in found["recovery"]]))
      clean = "yes" if all(found["clean"]) else "no"
      rows.append(
        [
          f"{poison}; {chain}",
          percent(accuracy[:, marks <= FIRST][:, -1]),
          percent(accuracy[:, marks > FIRST].min(axis=1)),
          percent(accuracy[:, -1]),
          "never" if np.isinf(middle) else f"{middle:.0f} steps",
          clean if "queue" in chain else "",
        ]
      )
  return rows


def plot(results: dict[str, Any], path: Path) -> None:
  """Mean accuracy over seeds; the poisoned steps are grey."""
  figure = matplotlib.figure.Figure(figsize=(2.6 * len(results), 3.6), layout="constrained")
  axes = figure.subplots(1, len(results), sharey=True)
  marks = np.arange(EVERY, STEPS + 1, EVERY)
  for ax, (poison, by_chain) in zip(axes, results.items(), strict=True):
    for i, (chain, found) in enumerate(by_chain.items()):
      style = "-" if "queue" in chain else "--"
      ax.plot(marks, 100 * np.mean(found["accuracy"], axis=0), style, color=f"C{i}", label=chain)
    ax.axvspan(FIRST, LAST, color="0.9")
    ax.set_title(poison)
    ax.set_xlabel("step")
    ax.spines[["top", "right"]].set_visible(False)
  axes[0].set_ylabel("test accuracy, %")
  handles = axes[-1].get_legend_handles_labels()
  figure.legend(*handles, fontsize=8, loc="outside lower center", ncols=3, frameon=False)
  figure.savefig(path, dpi=120)


def main(out: Path = RAW) -> None:
  """Runs what is missing; writes the JSON and the plot beside it.

  Args:
    out: the JSON.
  """
  examples = load()
  results: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
  for poison in POISONS:
    for chain in chains():
      if chain in results.setdefault(poison, {}):
        continue
      found = {
        k: np.asarray(v) for k, v in train(chain, poison, jnp.arange(SEEDS), examples).items()
      }
      results[poison][chain] = {
        "accuracy": found["accuracy"].round(4).tolist(),
        "recovery": recovery(found["accuracy"]),
        "clean": found["clean"].tolist(),
        "largest_in_queue": [float(f"{v:.4g}") for v in found["largest_in_queue"]],
      }
      out.write_text(json.dumps(results))
  rows = table(results)
  shown = rich.table.Table(*rows[0])
  for row in rows[1:]:
    shown.add_row(*row)
  rich.print(shown)
  plot(results, out.with_suffix(".png"))


if __name__ == "__main__":
  tyro.cli(main)
