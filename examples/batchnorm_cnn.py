# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""A CNN with BatchNorm and dropout in Linen: group scarcity, and a queue that follows the loss.

    python -m examples.batchnorm_cnn

BatchNorm mixes the examples of a batch, so that there are no gradients of single examples or of
groups. Weights in the loss and the queue of the mean gradient do not need any: this is the way.
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
from flax.training.train_state import TrainState

import gq_optax as gq
from examples import digits, figures

cross_entropy = optax.softmax_cross_entropy_with_integer_labels


class CNN(nn.Module):
  """Two convolutions with BatchNorm, then dropout."""

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """`[B, 8, 8, 1]` to logits `[B, 10]`."""
    for width in (16, 32):
      x = nn.Conv(width, (3, 3), strides=(2, 2), use_bias=False)(x)
      x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
    x = nn.Dropout(0.2, deterministic=not train)(x.reshape(len(x), -1))
    return nn.Dense(10)(x)


class ScarceTrainState(TrainState):
  """A `TrainState` with what BatchNorm and the groups carry, and `value=` for the queue."""

  batch_stats: Any
  groups: gq.GroupScarcityState

  def apply_gradients(self, *, grads: Any, value: Any = None, **kwargs: Any) -> Any:
    """As in `TrainState`, with the loss handed on to the transformations that ask for it."""
    updates, opt_state = self.tx.update(grads, self.opt_state, self.params, value=value)
    params = optax.apply_updates(self.params, updates)
    return self.replace(step=self.step + 1, params=params, opt_state=opt_state, **kwargs)


@functools.partial(jax.jit, static_argnames="scarcity", donate_argnames="state")
def train_step(
  state: ScarceTrainState,
  scarcity: Any | None,
  x: jax.Array,
  y: jax.Array,
  key: jax.Array,
) -> tuple[ScarceTrainState, jax.Array]:
  """One step; without `scarcity` all examples weigh the same."""

  def loss_fn(params):
    logits, changed = state.apply_fn(
      {"params": params, "batch_stats": state.batch_stats},
      x,
      train=True,
      mutable=["batch_stats"],
      rngs={"dropout": jax.random.fold_in(key, state.step)},
    )
    losses, groups, weights = cross_entropy(logits, y), state.groups, jnp.ones(len(y))
    if scarcity is not None:
      residuals = gq.output_gradients(cross_entropy, logits, y)
      weights, groups = scarcity.update(residuals, groups)
    return gq.weighted_mean(losses, weights), (groups, changed["batch_stats"])

  (loss, (groups, stats)), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
  state = state.apply_gradients(grads=grads, value=loss, groups=groups, batch_stats=stats)
  return state, loss


def train(scarcity: Any | None, queue: list[Any], data: Any, epochs: int, seed: int) -> np.ndarray:
  """Trains one way; returns how well each class of the test set is recognised."""
  x_train, x_test, y_train, y_test = data
  variables = CNN().init(jax.random.key(seed), x_train[:1], train=False)
  state = ScarceTrainState.create(
    apply_fn=CNN().apply,
    params=variables["params"],
    tx=optax.chain(*queue, optax.sgd(0.05, momentum=0.9)),
    batch_stats=variables["batch_stats"],
    groups=gq.group_scarcity(10).init(10),
  )
  key = jax.random.key(seed + 1)
  for batches in digits.epochs_of_batches(len(x_train), 256, epochs, seed):
    for rows in batches:
      state, _ = train_step(state, scarcity, x_train[rows], y_train[rows], key)
  logits = state.apply_fn(
    {"params": state.params, "batch_stats": state.batch_stats}, x_test, train=False
  )
  return figures.recalls(np.asarray(logits), np.asarray(y_test), 10)


def main(
  epochs: int = 20, seed: int = 0, picture: pathlib.Path = pathlib.Path("out/batchnorm_cnn.png")
) -> dict[str, float]:
  """Trains plainly and with scarcity; draws how well each class is recognised.

  Args:
    epochs: passes over the training images.
    seed: of data, parameters, batches and dropout.
    picture: where the figure goes.

  Returns:
    The mean recall of each way.
  """
  x_train, x_test, y_train, y_test = digits.long_tailed_digits(seed, imbalance=50.0)
  images = [x.reshape(-1, 8, 8, 1) for x in (x_train, x_test)]
  data = (*images, y_train, y_test)
  queue = gq.grad_queue(queue_length=(3, 8), update_norm="match")  # the pair wants `value=`
  by_way = {
    "plain": train(None, [], data, epochs, seed),
    "group scarcity": train(gq.group_scarcity(10), [], data, epochs, seed),
    "group scarcity and queue": train(gq.group_scarcity(10), [queue], data, epochs, seed),
  }
  counts = np.bincount(np.asarray(y_train), minlength=10)
  return figures.compare(by_way, counts, [str(c) for c in range(10)], picture)


if __name__ == "__main__":
  tyro.cli(main)
