# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""A training loop to copy: rare kinds found without a name for them, with Flax NNX.

    python -m examples.rare_groups_nnx

The task of `examples.rare_groups_linen`, and group scarcity together with coordinate scarcity: the
weights are in the loss, `grad_queue` is in front of the optimizer.
"""

from typing import Any

import jax
import optax
import tyro
from flax import nnx

import gq_optax as gq
from examples import digits


class MLP(nnx.Module):
  """One hidden layer; returns the logits and its features."""

  def __init__(self, rngs: nnx.Rngs):
    self.hidden = nnx.Linear(64, 64, rngs=rngs)
    self.head = nnx.Linear(64, 2, rngs=rngs)

  def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`[B, 64]` to `[B, 2]` and `[B, 64]`."""
    features = nnx.relu(self.hidden(x))
    return self.head(features), features


@nnx.jit(static_argnames="scarcity", donate_argnames=("model", "optimizer"))
def train_step(
  model: MLP,
  optimizer: nnx.Optimizer,
  groups: gq.GroupScarcityState,
  scarcity: Any,
  x: jax.Array,
  y: jax.Array,
) -> tuple[gq.GroupScarcityState, jax.Array]:
  """One step; the state of the groups goes in and comes out."""

  def loss_fn(model):
    logits, features = model(x)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
    weights, new_groups = scarcity.update(features, groups)
    return gq.weighted_mean(losses, weights), new_groups

  (loss, groups), grads = nnx.value_and_grad(loss_fn, has_aux=True)(model)
  optimizer.update(model, grads)
  return groups, loss


def main(
  epochs: int = 40, batch_size: int = 128, num_groups: int = 20, seed: int = 0
) -> dict[str, float]:
  """Trains and returns the final figures.

  Args:
    epochs: passes over the training images.
    batch_size: examples a step.
    num_groups: groups of examples; 1 weighs all the same.
    seed: of data, parameters, batches and groups.
  """
  x_train, x_test, y_train, y_test, _, kinds = digits.hidden_kinds(seed)
  model = MLP(nnx.Rngs(seed))
  scarcity = gq.group_scarcity(num_groups, pooling=0.5, key=seed)
  groups = scarcity.init(64)
  tx = optax.chain(gq.grad_queue(update_norm="match", track=True), optax.sgd(0.1, momentum=0.9))
  optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
  for batches in digits.epochs_of_batches(len(x_train), batch_size, epochs, seed):
    for rows in batches:
      groups, loss = train_step(model, optimizer, groups, scarcity, x_train[rows], y_train[rows])

  both = gq.diagnostics(groups) | gq.diagnostics(optimizer.opt_state)
  figures = {name: float(value) for name, value in both.items()}
  names = ("groups_seen", "effective_examples", "rarest_tenth", "mean_weight")
  print(f"loss {loss:.3f}", *(f"{name} {figures[name]:.3f}" for name in names), sep="  ")
  logits, _ = model(x_test)
  return figures | {"loss": float(loss)} | digits.judge_kinds(logits, y_test, kinds)


if __name__ == "__main__":
  tyro.cli(main)
