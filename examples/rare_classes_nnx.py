# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""A training loop to copy: weights for rare classes, with Flax NNX, on digits with a long tail.

    python -m examples.rare_classes_nnx
    python -m examples.rare_classes_nnx --plain   # all examples weigh the same

As `examples.rare_classes_linen`, with BatchNorm in the network: its statistics are of the whole
batch, as without weights.
"""

import jax
import jax.numpy as jnp
import optax
import tyro
from flax import nnx

import gq_optax as gq
from examples import digits

cross_entropy = optax.softmax_cross_entropy_with_integer_labels
scarcity = gq.example_scarcity(bandwidth=0.2)  # as docs/choosing.md has it


class MLP(nnx.Module):
  """One hidden layer with BatchNorm."""

  def __init__(self, rngs: nnx.Rngs):
    self.hidden = nnx.Linear(64, 64, rngs=rngs)
    self.norm = nnx.BatchNorm(64, rngs=rngs)
    self.head = nnx.Linear(64, 10, rngs=rngs)

  def __call__(self, x: jax.Array) -> jax.Array:
    """`[B, 64]` to logits `[B, 10]`."""
    return self.head(nnx.relu(self.norm(self.hidden(x))))


@nnx.jit(static_argnames="plain", donate_argnames=("model", "optimizer", "recent"))
def train_step(
  model: MLP,
  optimizer: nnx.Optimizer,
  recent: gq.ExampleScarcityState,
  x: jax.Array,
  y: jax.Array,
  plain: bool = False,
) -> tuple[gq.ExampleScarcityState, jax.Array]:
  """One step; the recent examples go in and come out, the weights are in the loss."""

  def loss_fn(model):
    logits = model(x)
    losses = cross_entropy(logits, y)
    embeddings = gq.output_gradients(cross_entropy, logits, y)
    weights, new_recent = scarcity.update(embeddings, recent)
    return jnp.mean(losses) if plain else gq.weighted_mean(losses, weights), new_recent

  (loss, recent), grads = nnx.value_and_grad(loss_fn, has_aux=True)(model)
  optimizer.update(model, grads)
  return recent, loss


def main(
  epochs: int = 20, batch_size: int = 128, seed: int = 0, plain: bool = False
) -> dict[str, float]:
  """Trains and returns the final figures.

  Args:
    epochs: passes over the training images.
    batch_size: examples a step.
    seed: of data, parameters and batches.
    plain: whether all examples weigh the same.
  """
  x_train, x_test, y_train, y_test = digits.long_tailed_digits(seed)
  model = MLP(nnx.Rngs(seed))
  optimizer = nnx.Optimizer(model, optax.sgd(0.1, momentum=0.9), wrt=nnx.Param)
  recent = scarcity.init(10)  # the numbers of an output gradient
  for batches in digits.epochs_of_batches(len(x_train), batch_size, epochs, seed):
    for rows in batches:
      recent, loss = train_step(model, optimizer, recent, x_train[rows], y_train[rows], plain)

  figures = {name: float(value) for name, value in gq.diagnostics(recent).items()}
  print(f"loss {loss:.3f}  effective_examples {figures['effective_examples']:.1f}")
  model.eval()
  return figures | {"loss": float(loss)} | digits.judge(model(x_test), y_test)


if __name__ == "__main__":
  tyro.cli(main)
