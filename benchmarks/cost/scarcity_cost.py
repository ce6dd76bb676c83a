# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What weights for rare examples cost, as ratios to the gradient of a plain loss.

    python -m benchmarks.cost.scarcity_cost

The whole gradient is timed, the weights inside, in turn with the plain one. The plain one timed
against itself is the noise floor. The state of the weights is carried along and donated, as in
training.
"""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
import rich
import rich.table
import tyro

import gq_optax as gq
from benchmarks.harness import models, timing

WORKLOADS = {
  "CNN 32x32x3, B=512": (models.CNN(), (512, 32, 32, 3)),
  "MLP 784-256-256-10, B=1024": (models.MLP(), (1024, 784)),
  "MLP 8-128-2, B=1024": (models.MLP((128,), 2), (1024, 8)),
}
Way = tuple[str, gq.GroupScarcity | gq.ExampleScarcity]  # the embedding, and what weighs
WAYS: dict[str, Way | None] = {
  "plain": None,
  "plain again": None,
  "examples by features": ("features", gq.example_scarcity(bandwidth=0.25, loss_exponent=0.5)),
  "examples by output gradients": ("outputs", gq.example_scarcity()),
  "features, K=10": ("features", gq.group_scarcity(10)),
  "features, K=20, pooled": ("features", gq.group_scarcity(20, pooling=0.5)),
  "output gradients, K=10": ("outputs", gq.group_scarcity(10)),
}


def make_step(model: Any, way: Way | None, shape: tuple[int, ...]) -> timing.Step:
  """One way to a gradient, compiled, with its state."""
  key = jax.random.key(0)
  x, y = jax.random.normal(key, shape), jax.random.randint(key, shape[:1], 0, model.num_classes)
  params = model.init(key, x[:1])
  cross_entropy = optax.softmax_cross_entropy_with_integer_labels
  embedding, scarcity = way or ("features", gq.group_scarcity(1))
  logits, features = jax.eval_shape(model.apply, params, x)
  state = scarcity.init(features if embedding == "features" else logits)

  def step(state, params, x, y):
    def loss(params):
      logits, features = model.apply(params, x)
      losses = cross_entropy(logits, y)
      if way is None:
        return jnp.mean(losses), state
      outputs = gq.output_gradients(cross_entropy, logits, y)
      embeddings = features if embedding == "features" else outputs
      more = {"losses": losses} if isinstance(scarcity, gq.ExampleScarcity) else {}
      weights, new_state = scarcity.update(embeddings, state, **more)
      return jnp.mean(weights * losses), new_state

    (value, new_state), gradient = jax.value_and_grad(loss, has_aux=True)(params)
    return new_state, value, gradient

  return timing.compile_step(step, state, params, x, y)


def main(rounds: int = 21, out: Path = Path("out/scarcity_cost.json")) -> dict[str, Any]:
  """Measures all ways in all workloads, and writes one JSON.

  Args:
    rounds: counted rounds.
    out: the file.

  Returns:
    What is in the file.
  """
  results: dict[str, Any] = {}
  for name, (model, shape) in WORKLOADS.items():
    steps = {way: make_step(model, options, shape) for way, options in WAYS.items()}
    timings = timing.interleaved(steps, "plain", rounds)
    results[name] = {
      way: {**timings[way]._asdict(), "temp_bytes": step.temp_bytes} for way, step in steps.items()
    }
    table = rich.table.Table("way", "ratio to plain (quartiles)", "ms", title=name)
    for way, timed in timings.items():
      ratio = f"{timed.ratio:.3f} ({timed.ratio_low:.3f}, {timed.ratio_high:.3f})"
      table.add_row(way, ratio, f"{1e3 * timed.median:.1f}")
    rich.print(table)
  out.parent.mkdir(parents=True, exist_ok=True)
  out.write_text(json.dumps(results, indent=1))
  return results


if __name__ == "__main__":
  tyro.cli(main)
