# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The paper's toy (section 3.2): 95 horizontal and 5 vertical lines, two 3x3 filters.

    python -m benchmarks.paper.toy_lines

Every step draws a batch of 95 images with a horizontal line and 5 with a vertical one, at random
places and with noise. The network is two filters, each rectified and averaged over the image: its
mean is the logit of its class. What is looked at is the loss, and how strongly the second filter,
that of the rare lines, answers to them. All arms share start, batches and learning rate, as in the
paper; "norm-matched" is the control for a larger effective rate, class weights for the labels.
"""

import functools
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
from benchmarks.harness import records
from benchmarks.harness.protocol import paired

SIDE, COMMON, RARE, NOISE = 12, 95, 5, 0.3
LABELS = jnp.repeat(jnp.arange(2), jnp.array([COMMON, RARE]), total_repeat_length=COMMON + RARE)
ARMS = {
  "SGDM": (None, False),
  "GQ, K=1": (gq.grad_queue(queue_length=3, rho=3.0), False),
  "GQ, K=1, norm-matched": (gq.grad_queue(3, 3.0, update_norm="match"), False),
  "class weights": (None, True),
}


def draw(key: jax.Array) -> jax.Array:
  """Images `[100, 12, 12]`: a bright row each, or a bright column for the last five."""
  place, noise = jax.random.split(key)
  where = jax.random.randint(place, (COMMON + RARE,), 0, SIDE)
  rows = jnp.broadcast_to(jax.nn.one_hot(where, SIDE)[:, :, None], (COMMON + RARE, SIDE, SIDE))
  images = jnp.where(LABELS[:, None, None] == 0, rows, rows.swapaxes(1, 2))
  return images + NOISE * jax.random.normal(noise, images.shape)


def activations(filters: jax.Array, images: jax.Array) -> jax.Array:
  """What each filter `[2, 3, 3]` answers, rectified and averaged: `[n, 2]`."""
  patches = [
    images[:, i : SIDE - 2 + i, j : SIDE - 2 + j] for i in range(3) for j in range(3)
  ]  # a convolution by hand: inside a loop XLA's own is slow on CPU
  answers = jnp.einsum("pnhw,cp->nhwc", jnp.stack(patches), filters.reshape(2, 9))
  return jnp.mean(jax.nn.relu(answers), axis=(1, 2))


@functools.partial(jax.jit, static_argnums=(0, 1))
@functools.partial(jax.vmap, in_axes=(None, None, 0, None))
def train(name: str, steps: int, seed: jax.Array, rate: jax.Array) -> dict[str, jax.Array]:
  """The course of a training: figures after every step, `[steps]`, on lines without noise."""
  queue, weighted = ARMS[name]
  sgd = optax.sgd(rate, momentum=0.9)
  tx = sgd if queue is None else optax.chain(queue, sgd)
  first, key = jax.random.split(jax.random.key(seed))
  filters = 0.1 * jax.random.normal(first, (2, 3, 3))
  weights = jnp.where(LABELS == 0, 0.5 / COMMON, 0.5 / RARE)
  weights = weights if weighted else jnp.full(COMMON + RARE, 1.0 / (COMMON + RARE))
  clean = jnp.stack([jax.nn.one_hot(jnp.full(SIDE, SIDE // 2), SIDE).T] * 2)
  clean = clean.at[1].set(clean[1].T)

  def step(carry, number):
    filters, state = carry
    images = draw(jax.random.fold_in(key, number))

    def losses(filters):
      logits = activations(filters, images)
      return optax.softmax_cross_entropy_with_integer_labels(logits, LABELS)

    found, pull = jax.vjp(losses, filters)
    (gradient,) = pull(weights)
    updates, state = tx.update(gradient, state, filters)
    filters = optax.apply_updates(filters, updates)
    answers = activations(filters, clean)
    figures = {
      "loss": jnp.mean(found),
      "loss_of_rare": jnp.mean(found[COMMON:]),
      "activation": answers[1, 1],  # of the second filter to a vertical line
      "margin": answers[1, 1] - answers[1, 0],  # the rare line is recognised above 0
    }
    return (filters, state), figures

  return jax.lax.scan(step, (filters, tx.init(filters)), jnp.arange(steps))[1]


def recognised(margin: np.ndarray) -> np.ndarray:
  """The step `[seeds]` after which the rare line stays recognised; the number of steps if never."""
  wrong = margin <= 0.0
  return np.where(wrong.any(axis=1), wrong.shape[1] - np.argmax(wrong[:, ::-1], axis=1), 0)


def plot(courses: dict[str, dict[str, np.ndarray]], path: Path) -> None:
  """Mean over seeds of each figure, with quartiles."""
  figure = matplotlib.figure.Figure(figsize=(12, 3.8), layout="constrained")
  titles = {
    "loss": "loss of all lines",
    "loss_of_rare": "loss of the rare lines",
    "activation": "rare filter's answer to its line",
  }
  for ax, (name, title) in zip(figure.subplots(1, 3), titles.items(), strict=True):
    for arm, course in courses.items():
      low, middle, high = np.quantile(course[name], (0.25, 0.5, 0.75), axis=0)
      ax.plot(middle, label=arm)
      ax.fill_between(np.arange(len(middle)), low, high, alpha=0.2)
    ax.set_title(title, fontsize=10)
    ax.set_xlabel("step")
    ax.spines[["top", "right"]].set_visible(False)
  ax.legend(fontsize=8)
  figure.savefig(path, dpi=120)


def main(
  steps: int = 600,
  rate: float = 0.5,
  seeds: int = 20,
  out: Path = Path("out/toy_lines.jsonl"),
) -> dict[str, Any]:
  """Trains all arms, and adds a line to the results and draws them.

  Args:
    steps: of each training.
    rate: the learning rate, of all arms.
    seeds: starts and batches, the same for all arms.
    out: the results, one line a learning rate; the plot lies beside them.

  Returns:
    What is in the line.
  """
  courses = {}
  for name in ARMS:
    course = train(name, steps, jnp.arange(seeds), jnp.float32(rate))
    courses[name] = {figure: np.asarray(values) for figure, values in course.items()}
  results: dict[str, Any] = {}
  table = rich.table.Table("arm", "loss", "loss of rare", "answer", "rare recognised from step")
  base = recognised(courses["SGDM"]["margin"])
  for name, course in courses.items():
    last = {figure: values[:, -1] for figure, values in course.items()}
    since = recognised(course["margin"])
    results[name] = {
      **{figure: round(float(values.mean()), 4) for figure, values in last.items()},
      "recognised_from_step": since.tolist(),
      "steps_saved": None if name == "SGDM" else paired(base, since),
    }
    row = [f"{results[name][figure]:.3f}" for figure in ("loss", "loss_of_rare", "activation")]
    table.add_row(name, *row, f"{np.median(since):.0f}")
  rich.print(table)
  written = {"steps": steps, "rate": rate, "seeds": seeds, "arms": results}
  records.append(out, written)
  plot(courses, out.with_suffix(".png"))
  return written


if __name__ == "__main__":
  tyro.cli(main)
