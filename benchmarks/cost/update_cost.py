# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What grad_queue costs: the update alone, a whole training step, and the per-example form.

Prints ratios from one run; run it on an otherwise idle machine:

    python -m benchmarks.cost.update_cost
"""

import json
import os
import pathlib
import platform
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import rich
import rich.table
import tyro

import gq_optax as gq
from benchmarks.harness import models, timing


def update_alone(size: int) -> dict[str, timing.Step]:
  """The update of `size` parameters: SGD, the queue, and a copy of the bytes that it touches."""
  side = int(size**0.5)
  gradient = jax.random.normal(jax.random.key(0), (side, side))

  def updating(tx):
    def step(state, gradient):
      update, state = tx.update(gradient, state)
      return state, update

    return timing.compile_step(step, tx.init(gradient), gradient)

  def copy(state, block):
    return state, jax.lax.optimization_barrier(block).copy()

  # A queue of 3 reads the gradient and three slots, and writes a slot and the update: six times the
  # parameters. A copy of three times the parameters reads three and writes three.
  block = jnp.stack([gradient] * 3)
  sgd = optax.sgd(0.1, momentum=0.9)
  return {
    "sgd": updating(sgd),
    "sgd again": updating(sgd),
    "copy of the bytes of grad_queue(3)": timing.compile_step(copy, (), block),
    "grad_queue(3)": updating(gq.grad_queue(queue_length=3)),
    "grad_queue(3), sgd": updating(optax.chain(gq.grad_queue(queue_length=3), sgd)),
    "grad_queue(8)": updating(gq.grad_queue(queue_length=8)),
  }


def whole_step(batch_size: int) -> dict[str, timing.Step]:
  """A training step of the CNN with and without the queue."""
  model, params, batch = _cnn(batch_size)

  def loss_fn(params, images, labels):
    logits, _ = model.apply(params, images)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

  def training(tx):
    def step(state, images, labels):
      params, opt_state = state
      value, gradient = jax.value_and_grad(loss_fn)(params, images, labels)
      updates, opt_state = tx.update(gradient, opt_state, params)
      return (optax.apply_updates(params, updates), opt_state), value

    return timing.compile_step(step, (params, tx.init(params)), *batch)

  sgd = optax.sgd(0.01, momentum=0.9)
  return {
    "sgd": training(sgd),
    "sgd again": training(sgd),
    "grad_queue(3), sgd": training(optax.chain(gq.grad_queue(queue_length=3), sgd)),
    "grad_queue(3, track), sgd": training(optax.chain(gq.grad_queue(3, track=True), sgd)),
  }


def per_example(batch_size: int) -> dict[str, timing.Step]:
  """A training step of a dense network from per-example gradients `[B, *p]`, K = B / 64."""
  key = jax.random.key(0)
  sizes = (784, 64, 10)
  params = {
    f"w{i}": jax.random.normal(jax.random.fold_in(key, i), (m, n)) / m**0.5
    for i, (m, n) in enumerate(zip(sizes[:-1], sizes[1:], strict=True))
  }
  images = jax.random.normal(key, (batch_size, sizes[0]))
  labels = jax.random.randint(key, (batch_size,), 0, sizes[-1])

  def loss_fn(params, image, label):
    features = jax.nn.relu(image @ params["w0"])
    logits = features @ params["w1"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean(), features

  def mean_gradient(params):
    gradient, _ = jax.grad(loss_fn, has_aux=True)(params, images, labels)
    return gradient, {}

  def each_gradient(params):
    each = jax.vmap(jax.grad(loss_fn, has_aux=True), (None, 0, 0))
    gradients, features = each(params, images, labels)
    return gradients, {"embeddings": features}

  def training(tx: Any, gradient_fn: Callable[[Any], Any]):
    def step(state):
      params, opt_state = state
      gradients, extra = gradient_fn(params)
      updates, opt_state = tx.update(gradients, opt_state, params, **extra)
      return (optax.apply_updates(params, updates), opt_state), ()

    return timing.compile_step(step, (params, tx.init(params)))

  sgd = optax.sgd(0.01, momentum=0.9)

  def clustered(num_clusters):
    return optax.chain(gq.grad_queue(queue_length=3, num_clusters=num_clusters), sgd)

  return {
    "sgd": training(sgd, mean_gradient),
    "sgd again": training(sgd, mean_gradient),
    "grad_queue on the mean": training(clustered(1), mean_gradient),
    "grad_queue on [B, *p], K=1": training(clustered(1), each_gradient),
    f"grad_queue on [B, *p], K={batch_size // 64}": training(
      clustered(batch_size // 64), each_gradient
    ),
  }


def _cnn(batch_size):
  model, key = models.CNN(), jax.random.key(0)
  images = jax.random.normal(key, (batch_size, 32, 32, 3))
  labels = jax.random.randint(key, (batch_size,), 0, 10)
  return model, model.init(key, images[:1]), (images, labels)


def _report(title: str, steps: dict[str, timing.Step], rounds: int) -> dict[str, Any]:
  timings = timing.interleaved(steps, "sgd", rounds)
  table = rich.table.Table(title=title)
  for column in ("step", "ms (quartiles)", "ratio to sgd (quartiles)", "temp MiB", "compile s"):
    table.add_column(column, justify="left" if column == "step" else "right")
  rows = {}
  for name, step in steps.items():
    t = timings[name]
    table.add_row(
      name,
      f"{t.median * 1e3:.2f} ({t.low * 1e3:.2f}, {t.high * 1e3:.2f})",
      f"{t.ratio:.3f} ({t.ratio_low:.3f}, {t.ratio_high:.3f})",
      f"{step.temp_bytes / 2**20:.1f}",
      f"{step.compile_seconds:.1f}",
    )
    rows[name] = {
      **t._asdict(),
      "temp_bytes": step.temp_bytes,
      "compile_seconds": step.compile_seconds,
    }
  rich.print(table)
  return rows


def main(rounds: int = 21, batch_size: int = 512, out: pathlib.Path = pathlib.Path("out")) -> None:
  """Times the update, the whole step and the per-example form.

  Args:
    rounds: counted rounds of each comparison.
    batch_size: batch of the whole step and of the per-example form.
    out: folder for `update_cost.json`.
  """
  results: dict[str, Any] = {
    "environment": {
      "jax": jax.__version__,
      "optax": optax.__version__,
      "python": platform.python_version(),
      "backend": jax.default_backend(),
      "cpus": os.cpu_count(),
    }
  }
  for size in (1_000_000, 20_000_000):
    title = f"The update alone, {size:,} parameters"
    results[title] = _report(title, update_alone(size), rounds)
  title = f"A training step of the CNN (188,810 parameters), B={batch_size}"
  results[title] = _report(title, whole_step(batch_size), rounds)
  title = f"A training step of a dense network (784-64-10), B={batch_size}"
  results[title] = _report(title, per_example(batch_size), rounds)
  out.mkdir(parents=True, exist_ok=True)
  path = out / "update_cost.json"
  path.write_text(json.dumps(results, indent=1))
  rich.print(f"Raw figures: {path}")


if __name__ == "__main__":
  jnp.zeros(1).block_until_ready()  # the backend starts here, not inside the first timing
  tyro.cli(main)
