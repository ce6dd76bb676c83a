# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Draws what a weight and a margin do once every example fits.

    python -m benchmarks.margins.idea

Two classes of points, 200 and 8, that a straight line separates. A linear model is trained far
beyond the step at which it fits every point: by weights, and by margins.
"""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np

import gq_optax as gq

mpl.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

STRENGTHS = (0.0, 0.25, 0.5)
PICTURE = Path(__file__).parent / "results" / "idea.svg"


def points() -> tuple[jax.Array, jax.Array]:
  """Places `[n, 2]` and labels, 1 for the rare."""
  rng = np.random.RandomState(0)
  frequent, rare = rng.normal(size=(200, 2)) * 0.55 - [1.6, 0.0], rng.normal(size=(8, 2)) * 0.3
  labels = np.repeat([0, 1], (200, 8)).astype(np.int32)
  return jnp.asarray(np.concatenate([frequent, rare + [1.2, 0.0]]), jnp.float32), jnp.array(labels)


def log_loss(logit: jax.Array, label: jax.Array) -> jax.Array:
  """Of one output for two classes."""
  return jax.nn.softplus(jnp.where(label == 1, -logit, logit))


@functools.partial(jax.jit, static_argnames=("by", "steps"))
def border(x, y, strength, by, steps=10_000):
  """Parameters `[3]` of the line. Steps of a length of their own are fast."""
  rarity = gq.class_rarity(y, jnp.bincount(y, length=2))
  rows = jnp.concatenate([x, jnp.ones((len(x), 1))], axis=1)

  def loss(w):
    if by == "margins":
      t = rarity**-strength
      return jnp.mean(log_loss(t * (rows @ w), y) / t)
    return jnp.mean(rarity**strength * log_loss(rows @ w, y))

  def step(w, number):
    slope = jax.grad(loss)(w)
    length = 0.3 / jnp.sqrt(1.0 + number)
    return w - length * slope / jnp.linalg.norm(slope), None

  return jax.lax.scan(step, jnp.zeros(3), jnp.arange(steps, dtype=jnp.float32))[0]


def main() -> None:
  """Trains the six models and draws their borders."""
  x, y = points()
  figure, panels = plt.subplots(1, 2, figsize=(8.0, 3.4), sharey=True, layout="constrained")
  for panel, by in zip(panels, ("weights", "margins"), strict=True):
    for label, name, mark in ((0, "200 frequent", "o"), (1, "8 rare", "^")):
      panel.plot(*x[y == label].T, mark, ms=4, alpha=0.6, label=name)
    for strength, style in zip(STRENGTHS, (":", "--", "-"), strict=True):
      a, b, c = border(x, y, strength, by)
      height = np.array([-2.0, 2.0])
      name = "as they are" if strength == 0.0 else f"strength {strength:g}"
      panel.plot(-(c + b * height) / a, height, f"k{style}", lw=1.3, label=name)
    panel.set(xlim=(-3.5, 2.2), ylim=(-2.0, 2.0), title=f"{by} by rarity", xticks=[], yticks=[])
  panels[0].legend(fontsize=7, loc="lower left", frameon=False)
  figure.savefig(PICTURE, metadata={"Date": None})


if __name__ == "__main__":
  main()
