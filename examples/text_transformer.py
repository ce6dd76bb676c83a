# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""A transformer on text, in NNX: which module of Python's library does a line come from?

    python -m examples.text_transformer

Lines of real source text that every Python has; the modules are very differently long, so that the
short ones drown in large batches. Group scarcity groups by output gradients and reads no counts.
"""

import importlib
import inspect
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from flax import nnx

import gq_optax as gq
from examples import figures

MODULES = ("argparse", "difflib", "statistics", "string", "json.decoder", "heapq", "bisect")
LENGTH, WIDTH = 48, 32
cross_entropy = optax.softmax_cross_entropy_with_integer_labels


def lines_of_modules(seed: int) -> list[np.ndarray]:
  """Training lines as bytes `[n, 48]`, their modules, then for testing a quarter of each module."""
  train: list[tuple[np.ndarray, int]] = []
  test: list[tuple[np.ndarray, int]] = []
  rng = np.random.default_rng(seed)
  for label, name in enumerate(MODULES):
    lines = inspect.getsource(importlib.import_module(name)).splitlines()
    known = sorted({line.strip() for line in lines if len(line.strip()) >= 12})
    rows = [np.frombuffer(line.encode()[:LENGTH].ljust(LENGTH), np.uint8) for line in known]
    order = rng.permutation(len(rows))
    for part, chosen in ((test, order[: len(rows) // 4]), (train, order[len(rows) // 4 :])):
      part += [(rows[i], label) for i in chosen]
  split: list[np.ndarray] = []
  for part in (train, test):
    x, y = zip(*part, strict=True)
    split += [np.minimum(np.stack(x), 127).astype(np.int32), np.array(y, np.int32)]
  return split


class Transformer(nnx.Module):
  """One layer of attention over bytes; the mean over places is classified."""

  def __init__(self, rngs: nnx.Rngs):
    self.embed = nnx.Embed(128, WIDTH, rngs=rngs)
    self.place = nnx.Param(0.02 * jax.random.normal(rngs.params(), (LENGTH, WIDTH)))
    self.norm = nnx.LayerNorm(WIDTH, rngs=rngs)
    self.attention = nnx.MultiHeadAttention(4, WIDTH, rngs=rngs, decode=False)
    self.up = nnx.Linear(WIDTH, 4 * WIDTH, rngs=rngs)
    self.down = nnx.Linear(4 * WIDTH, WIDTH, rngs=rngs)
    self.head = nnx.Linear(WIDTH, len(MODULES), rngs=rngs)

  def __call__(self, x: jax.Array) -> jax.Array:
    """Bytes `[B, 48]` to logits `[B, C]`."""
    x = self.embed(x) + self.place[None]
    x = x + self.attention(self.norm(x))
    x = x + self.down(nnx.gelu(self.up(x)))
    return self.head(jnp.mean(x, axis=1))


def make_step(scarcity: Any | None):
  """A training step; without `scarcity` all examples weigh the same."""

  @nnx.jit
  def train_step(model, optimizer, groups, x, y):
    def loss_fn(model):
      logits = model(x)
      losses = cross_entropy(logits, y)
      if scarcity is None:
        return jnp.mean(losses), groups
      residuals = gq.output_gradients(cross_entropy, logits, y)
      weights, new_groups = scarcity.update(residuals, groups)
      return gq.weighted_mean(losses, weights), new_groups

    (loss, new_groups), grads = nnx.value_and_grad(loss_fn, has_aux=True)(model)
    optimizer.update(model, grads)
    return loss, new_groups

  return train_step


def train(scarcity: Any | None, data, epochs: int, batch_size: int, seed: int):
  """Trains one way; returns how well each module's lines are recognised."""
  x_train, y_train, x_test, y_test = data
  model = Transformer(nnx.Rngs(seed))
  optimizer = nnx.Optimizer(model, optax.adam(0.003), wrt=nnx.Param)
  groups = gq.group_scarcity(len(MODULES)).init(len(MODULES))
  step, rng = make_step(scarcity), np.random.default_rng(seed)
  for _ in range(epochs):
    order = rng.permutation(len(x_train))
    for start in range(0, len(order) - batch_size + 1, batch_size):
      rows = order[start : start + batch_size]
      _, groups = step(model, optimizer, groups, x_train[rows], y_train[rows])
  return figures.recalls(np.asarray(model(jnp.asarray(x_test))), y_test, len(MODULES))


def main(
  epochs: int = 15,
  batch_size: int = 256,
  seed: int = 0,
  picture: pathlib.Path = pathlib.Path("out/text_transformer.png"),
) -> dict[str, float]:
  """Trains plainly and with group scarcity; draws how well each module is recognised.

  Args:
    epochs: passes over the training lines.
    batch_size: lines a step.
    seed: of split, parameters and batches.
    picture: where the figure goes.

  Returns:
    The mean recall of each way.
  """
  data = lines_of_modules(seed)
  by_way = {
    "plain": train(None, data, epochs, batch_size, seed),
    "group scarcity": train(gq.group_scarcity(len(MODULES)), data, epochs, batch_size, seed),
  }
  counts = np.bincount(data[1], minlength=len(MODULES))
  return figures.compare(by_way, counts, MODULES, picture)


if __name__ == "__main__":
  tyro.cli(main)
