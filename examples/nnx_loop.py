# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""A training loop to copy: Grad Queue with Flax NNX, on digits with a long tail.

    python -m examples.nnx_loop

`nnx.Optimizer.update` hands `value=` and `embeddings=` on to the optimizer: nothing to extend. A
network with dropout needs a key for each example: see `examples.random_keys`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from flax import nnx

import gq_optax as gq
from examples import digits


class MLP(nnx.Module):
  """Two hidden layers; returns the logits and the features in front of them."""

  def __init__(self, rngs: nnx.Rngs):
    self.first = nnx.Linear(64, 64, rngs=rngs)
    self.second = nnx.Linear(64, 32, rngs=rngs)
    self.head = nnx.Linear(32, 10, rngs=rngs)

  def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Any leading axes, or none: `[..., 64]` to `[..., 10]` and `[..., 32]`."""
    features = nnx.relu(self.second(nnx.relu(self.first(x))))
    return self.head(features), features


def example_loss(model: MLP, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The loss of one example, and its features."""
  logits, features = model(x)
  return optax.softmax_cross_entropy_with_integer_labels(logits, y), features


# The old arrays are donated: parameters and queue are updated in place, not copied.
@nnx.jit(donate_argnames=("model", "optimizer"))
def train_step(model: MLP, optimizer: nnx.Optimizer, x: jax.Array, y: jax.Array) -> jax.Array:
  """One step on a batch, clustered on its features."""
  value_and_grad = nnx.value_and_grad(example_loss, has_aux=True)
  # The model is shared, hence None: every leaf of `grads` gets an axis [B] in front.
  (losses, features), grads = nnx.vmap(value_and_grad, in_axes=(None, 0, 0))(model, x, y)
  loss = jnp.mean(losses)
  optimizer.update(model, grads, value=loss, embeddings=features)
  return loss


def main(epochs: int = 20, batch_size: int = 128, seed: int = 0) -> dict[str, float]:
  """Trains and returns the final figures.

  Args:
    epochs: passes over the training images.
    batch_size: examples a step, with one cluster for each 64 of them.
    seed: of data, parameters, batches and clusters.
  """
  x_train, x_test, y_train, y_test = digits.long_tailed_digits(seed)
  order = digits.epochs_of_batches(len(x_train), batch_size, epochs, seed)

  model = MLP(nnx.Rngs(seed))
  grad_queue = gq.grad_queue(
    queue_length=(3, 8),  # the pair follows the trend of `value=loss`
    num_clusters=batch_size // 64,
    track=True,
    key=seed,
  )
  tx = optax.chain(grad_queue, optax.sgd(0.05, momentum=0.9))
  optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

  for epoch, batches in enumerate(order):
    losses = []
    for rows in batches:
      losses.append(train_step(model, optimizer, x_train[rows], y_train[rows]))
    # Read once an epoch: every read waits for the device.
    figures = {name: float(value) for name, value in gq.diagnostics(optimizer.opt_state).items()}
    figures["loss"] = float(np.mean(losses))
    digits.show(epoch, figures)

  logits, _ = model(x_test)
  return figures | digits.judge(logits, y_test)


if __name__ == "__main__":
  tyro.cli(main)
