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

import jax
import jax.numpy as jnp
import numpy as np
import optax
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


def main(steps: int = 600, seeds: int = 20, out: Path = Path("out/toy_lines.jsonl")) -> None:
  """Trains all arms at three rates.

  Args:
    steps: of each training.
    seeds: starts and batches, the same for all arms.
    out: one line a learning rate and arm.
  """
  for rate in (0.05, 0.5, 2.0):
    base = None
    for name in ARMS:
      found = train(name, steps, jnp.arange(seeds), jnp.float32(rate))
      course = {figure: np.asarray(values) for figure, values in found.items()}
      since = recognised(course["margin"])
      base = since if base is None else base
      row = {
        "rate": rate,
        "arm": name,
        **{k: round(float(v[:, -1].mean()), 4) for k, v in course.items()},
        "recognised_from_step": since.tolist(),
        "steps": steps,
        "steps_saved": paired(base, since),
      }
      records.append(out, row)
      print(row, flush=True)


if __name__ == "__main__":
  tyro.cli(main)
