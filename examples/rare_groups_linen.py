# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""A training loop to copy: rare kinds found without a name for them, with Flax Linen.

    python -m examples.rare_groups_linen

Even or odd? Some digits are 20 times rarer than others, and no label says so. The loop groups every
batch by the network's features, weighs the examples by how rare their group has been, and ends in
two pictures: out/rare_groups.png of the groups, and out/rare_examples.png of the rarest examples
with their nearest neighbours, which takes no groups.
"""

import functools
import pathlib
from typing import Any

import flax.linen as nn
import jax
import optax
import tyro
from flax.training.train_state import TrainState

import gq_optax as gq
from examples import digits


class MLP(nn.Module):
  """One hidden layer; returns the logits and its features."""

  @nn.compact
  def __call__(self, x):
    """`[B, 64]` to `[B, 2]` and `[B, 64]`."""
    features = nn.relu(nn.Dense(64)(x))
    return nn.Dense(2)(features), features


class GroupedTrainState(TrainState):
  """A `TrainState` that carries the groups beside parameters and optimizer."""

  groups: gq.GroupScarcityState


@functools.partial(jax.jit, static_argnames="scarcity", donate_argnames="state")
def train_step(
  state: GroupedTrainState, scarcity: Any, x: jax.Array, y: jax.Array
) -> tuple[GroupedTrainState, jax.Array]:
  """One step in one forward and one backward pass: the weights come out of the former."""

  def loss_fn(params):
    logits, features = state.apply_fn({"params": params}, x)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
    # For rare classes instead of rare kinds inside classes, group by what the loss asks for:
    # features = gq.output_gradients(optax.softmax_cross_entropy_with_integer_labels, logits, y)
    weights, groups = scarcity.update(features, state.groups)
    return gq.weighted_mean(losses, weights), groups

  (loss, groups), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
  return state.apply_gradients(grads=grads).replace(groups=groups), loss


def main(
  epochs: int = 40,
  batch_size: int = 128,
  num_groups: int = 20,
  seed: int = 0,
  picture: pathlib.Path = pathlib.Path("out/rare_groups.png"),
  rarest: pathlib.Path = pathlib.Path("out/rare_examples.png"),
) -> dict[str, float]:
  """Trains and returns the final figures.

  Args:
    epochs: passes over the training images.
    batch_size: examples a step.
    num_groups: groups of examples; 1 weighs all the same.
    seed: of data, parameters, batches and groups.
    picture: where the picture of the groups goes.
    rarest: where the picture of the rarest examples goes.
  """
  x_train, x_test, y_train, y_test, _, kinds = digits.hidden_kinds(seed)
  model = MLP()
  scarcity = gq.group_scarcity(num_groups, pooling=0.5, key=seed)
  state = GroupedTrainState.create(
    apply_fn=model.apply,
    params=model.init(jax.random.key(seed), x_train)["params"],
    tx=optax.sgd(0.1, momentum=0.9),
    groups=scarcity.init(64),
  )
  for batches in digits.epochs_of_batches(len(x_train), batch_size, epochs, seed):
    for rows in batches:
      state, loss = train_step(state, scarcity, x_train[rows], y_train[rows])

  figures = {name: float(value) for name, value in gq.diagnostics(state.groups).items()}
  names = ("groups_seen", "effective_examples", "rarest_tenth")
  print(f"loss {loss:.3f}", *(f"{name} {figures[name]:.3f}" for name in names), sep="  ")
  _, features = state.apply_fn({"params": state.params}, x_train)
  digits.picture_groups(x_train, scarcity.explain(features, state.groups), picture)
  look = gq.example_scarcity(queue_size=len(x_train) // 2)  # every other image
  _, recent = look.update(features, look.init(64))
  digits.picture_examples(x_train, look.explain(features, recent), rarest)
  logits, _ = state.apply_fn({"params": state.params}, x_test)
  return figures | {"loss": float(loss)} | digits.judge_kinds(logits, y_test, kinds)


if __name__ == "__main__":
  tyro.cli(main)
