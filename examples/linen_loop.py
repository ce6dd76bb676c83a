# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""A training loop to copy: Grad Queue with Flax Linen, on digits with a long tail.

    python -m examples.linen_loop           # clustered on features, queue length by the loss
    python -m examples.linen_loop --plain   # the TrainState of flax as it is

`GQTrainState` below is the one thing that flax lacks: `TrainState.apply_gradients` cannot hand
`value=` and `embeddings=` on to the optimizer. A queue of fixed length needs neither of them.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from flax.training.train_state import TrainState

import gq_optax as gq
from examples import digits


class GQTrainState(TrainState):
  """A `TrainState` whose `apply_gradients` hands extra arguments on to `tx.update`."""

  def apply_gradients(self, *, grads, **extra_args):
    """Takes one step; `extra_args` are those of `tx.update`, not fields to replace."""
    updates, opt_state = self.tx.update(grads, self.opt_state, self.params, **extra_args)
    params = optax.apply_updates(self.params, updates)
    return self.replace(step=self.step + 1, params=params, opt_state=opt_state)


class MLP(nn.Module):
  """Two hidden layers; returns the logits and the features in front of them."""

  @nn.compact
  def __call__(self, x):
    """Any leading axes, or none: `[..., 64]` to `[..., 10]` and `[..., 32]`."""
    features = nn.relu(nn.Dense(32)(nn.relu(nn.Dense(64)(x))))
    return nn.Dense(10)(features), features


def per_example_gradients(state: TrainState, x: jax.Array, y: jax.Array):
  """Losses `[B]`, features `[B, 32]` and gradients with an axis `[B]` in front of every leaf."""

  def example_loss(params, x, y):
    logits, features = state.apply_fn({"params": params}, x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y), features

  value_and_grad = jax.value_and_grad(example_loss, has_aux=True)
  (losses, features), grads = jax.vmap(value_and_grad, in_axes=(None, 0, 0))(state.params, x, y)
  return losses, features, grads


# The old state is donated: parameters and queue are updated in place, not copied.
@functools.partial(jax.jit, donate_argnames="state")
def train_step(state: GQTrainState, x: jax.Array, y: jax.Array) -> tuple[GQTrainState, jax.Array]:
  """One step on a batch, clustered on its features."""
  losses, features, grads = per_example_gradients(state, x, y)
  loss = jnp.mean(losses)
  return state.apply_gradients(grads=grads, value=loss, embeddings=features), loss


@functools.partial(jax.jit, donate_argnames="state")
def plain_step(state: TrainState, x: jax.Array, y: jax.Array) -> tuple[TrainState, jax.Array]:
  """One step by flax's own TrainState, clustered on a sketch of the gradients."""
  losses, _, grads = per_example_gradients(state, x, y)
  # With groups of your own, `grads` is a `gq.GroupGradients` here.
  return state.apply_gradients(grads=grads), jnp.mean(losses)


def main(
  epochs: int = 20, batch_size: int = 128, seed: int = 0, plain: bool = False
) -> dict[str, float]:
  """Trains and returns the final figures.

  Args:
    epochs: passes over the training images.
    batch_size: examples a step, with one cluster for each 64 of them.
    seed: of data, parameters, batches and clusters.
    plain: use flax's own TrainState, a queue of fixed length and no features.
  """
  x_train, x_test, y_train, y_test = digits.long_tailed_digits(seed)
  order = digits.epochs_of_batches(len(x_train), batch_size, epochs, seed)

  model = MLP()
  grad_queue = gq.grad_queue(
    queue_length=3 if plain else (3, 8),  # the pair follows the trend of `value=loss`
    num_clusters=batch_size // 64,
    track=True,
    key=seed,
  )
  state_type, step = (TrainState, plain_step) if plain else (GQTrainState, train_step)
  state = state_type.create(
    apply_fn=model.apply,
    params=model.init(jax.random.key(seed), x_train[0])["params"],
    tx=optax.chain(grad_queue, optax.sgd(0.05, momentum=0.9)),
  )

  for epoch, batches in enumerate(order):
    losses = []
    for rows in batches:
      state, loss = step(state, x_train[rows], y_train[rows])
      losses.append(loss)
    # Read once an epoch: every read waits for the device.
    figures = {name: float(value) for name, value in gq.diagnostics(state.opt_state).items()}
    figures["loss"] = float(np.mean(losses))
    digits.show(epoch, figures)

  logits, _ = state.apply_fn({"params": state.params}, x_test)
  return figures | digits.judge(logits, y_test)


if __name__ == "__main__":
  tyro.cli(main)
