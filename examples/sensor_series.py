# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Sensor time series: which activity is it? Windows of accelerometer and gyroscope, some rare.

    pip install --no-deps aeon==1.6.0   # BasicMotions lies in it
    python -m examples.sensor_series

Recordings of 10 s become windows of 2.5 s; of the rarest activity one recording is left. A 1-D
CNN is trained plainly, with group scarcity, and with the paper's clusters of gradients.
"""

import functools
import pathlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

import gq_optax as gq
from benchmarks.harness import data, tasks
from examples import figures

ACTIVITIES = ("standing", "running", "walking", "badminton")
RECORDINGS, WINDOW, STRIDE = (10, 6, 3, 1), 25, 5
cross_entropy = optax.softmax_cross_entropy_with_integer_labels


class CNN(nn.Module):
  """Two convolutions over time; returns logits and features."""

  @nn.compact
  def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`[B, 25, 6]` to `[B, 4]` and `[B, 32]`."""
    for width in (16, 32):
      x = nn.relu(nn.Conv(width, (5,), strides=(2,))(x))
    features = jnp.mean(x, axis=1)
    return nn.Dense(len(ACTIVITIES))(features), features


def windows_of(x: np.ndarray, y: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """All windows of the recordings `rows`, and their labels."""
  parts = [tasks.windows(x[row], WINDOW, STRIDE) for row in rows]
  return np.concatenate(parts), np.repeat(y[rows], [len(part) for part in parts]).astype(np.int32)


def load(seed: int) -> list[np.ndarray]:
  """Training windows and labels, test windows and labels."""
  motions = data.load("basic_motions")
  rng = np.random.default_rng(seed)
  kept = [
    rng.permutation(np.flatnonzero(motions.y_train == label))[:number]
    for label, number in enumerate(RECORDINGS)
  ]
  x, x_test = tasks.standardise(motions.x_train, motions.x_test, per_feature=False)
  train = windows_of(x, motions.y_train, np.concatenate(kept))
  return [*train, *windows_of(x_test, motions.y_test, np.arange(len(x_test)))]


def make_step(way: str, tx: optax.GradientTransformationExtraArgs, scarcity: gq.GroupScarcity):
  """One step of "plain", "group scarcity" or "clusters"."""

  def losses(params, batch):
    logits, features = CNN().apply(params, batch[0])
    return cross_entropy(logits, batch[1]), features

  clustered = gq.clustered_value_and_grad(losses, num_groups=2)

  @functools.partial(jax.jit, donate_argnums=0)
  def step(run: Any, x: jax.Array, y: jax.Array) -> Any:
    params, opt_state, groups = run
    if way == "clusters":
      _, grads = clustered(params, (x, y))
    else:

      def loss_fn(params):
        logits, _ = CNN().apply(params, x)
        weights, new_groups = jnp.ones(len(y)), groups
        if way == "group scarcity":
          residuals = gq.output_gradients(cross_entropy, logits, y)
          weights, new_groups = scarcity.update(residuals, groups)
        return gq.weighted_mean(cross_entropy(logits, y), weights), new_groups

      grads, groups = jax.grad(loss_fn, has_aux=True)(params)
    updates, opt_state = tx.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, groups

  return step


def train(way: str, windows: list[np.ndarray], epochs: int, batch_size: int, seed: int):
  """Trains one way; returns how well each activity of the test set is recognised."""
  x, y, x_test, y_test = windows
  sgd = optax.sgd(0.1, momentum=0.9)
  queue = gq.grad_queue(queue_length=3, num_clusters=2, update_norm="match")
  tx = optax.chain(queue, sgd) if way == "clusters" else optax.with_extra_args_support(sgd)
  scarcity = gq.group_scarcity(len(ACTIVITIES))
  params = CNN().init(jax.random.key(seed), x[:1])
  run = (params, tx.init(params), scarcity.init(len(ACTIVITIES)))
  step, rng = make_step(way, tx, scarcity), np.random.default_rng(seed)
  for _ in range(epochs):
    order = rng.permutation(len(x))
    for start in range(0, len(x) - batch_size + 1, batch_size):
      rows = order[start : start + batch_size]
      run = step(run, x[rows], y[rows])
  logits, _ = CNN().apply(run[0], x_test)
  return figures.recalls(np.asarray(logits), y_test, len(ACTIVITIES))


def main(
  epochs: int = 12,
  batch_size: int = 128,
  seed: int = 0,
  picture: pathlib.Path = pathlib.Path("out/sensor_series.png"),
) -> dict[str, float]:
  """Trains three ways; draws how well each activity is recognised.

  Args:
    epochs: passes over the training windows.
    batch_size: windows a step.
    seed: of the recordings kept, parameters and batches.
    picture: where the figure goes.

  Returns:
    The mean recall of each way.
  """
  windows = load(seed)
  ways = ("plain", "group scarcity", "clusters")
  by_way = {way: train(way, windows, epochs, batch_size, seed) for way in ways}
  counts = np.bincount(windows[1], minlength=len(ACTIVITIES))
  return figures.compare(by_way, counts, ACTIVITIES, picture)


if __name__ == "__main__":
  tyro.cli(main)
