# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""A training loop to copy: weights for rare classes, with Flax Linen, on digits with a long tail.

    python -m examples.rare_classes_linen
    python -m examples.rare_classes_linen --plain   # all examples weigh the same

The class counts are not used: what is rare shows in the gradients of the losses by the logits.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import tyro
from flax.training.train_state import TrainState

import gq_optax as gq
from examples import digits

cross_entropy = optax.softmax_cross_entropy_with_integer_labels
scarcity = gq.example_scarcity(bandwidth=0.2)  # as docs/choosing.md has it


class MLP(nn.Module):
  """One hidden layer."""

  @nn.compact
  def __call__(self, x):
    """`[B, 64]` to logits `[B, 10]`."""
    return nn.Dense(10)(nn.relu(nn.Dense(64)(x)))


class RareTrainState(TrainState):
  """A `TrainState` that carries the recent examples of `gq.example_scarcity`, too."""

  recent: gq.ExampleScarcityState


@functools.partial(jax.jit, donate_argnames="state", static_argnames="plain")
def train_step(
  state: RareTrainState, x: jax.Array, y: jax.Array, plain: bool = False
) -> tuple[RareTrainState, jax.Array]:
  """One step; the weights are in the loss."""

  def loss_fn(params):
    logits = state.apply_fn({"params": params}, x)
    losses = cross_entropy(logits, y)
    embeddings = gq.output_gradients(cross_entropy, logits, y)
    weights, recent = scarcity.update(embeddings, state.recent)
    return jnp.mean(losses) if plain else gq.weighted_mean(losses, weights), recent

  (loss, recent), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
  return state.apply_gradients(grads=grads, recent=recent), loss


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
  model = MLP()
  state = RareTrainState.create(
    apply_fn=model.apply,
    params=model.init(jax.random.key(seed), x_train[:1])["params"],
    tx=optax.sgd(0.1, momentum=0.9),
    recent=scarcity.init(10),  # the numbers of an output gradient
  )
  for batches in digits.epochs_of_batches(len(x_train), batch_size, epochs, seed):
    for rows in batches:
      state, loss = train_step(state, x_train[rows], y_train[rows], plain)

  figures = {name: float(value) for name, value in gq.diagnostics(state.recent).items()}
  print(f"loss {loss:.3f}  effective_examples {figures['effective_examples']:.1f}")
  logits = state.apply_fn({"params": state.params}, x_test)
  return figures | {"loss": float(loss)} | digits.judge(logits, y_test)


if __name__ == "__main__":
  tyro.cli(main)
