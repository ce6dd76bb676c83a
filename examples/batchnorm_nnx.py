# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""BatchNorm with gradients of groups in NNX, and a state that is saved, restored and put back.

    python -m examples.batchnorm_nnx

BatchNorm in training mode mixes examples, so that groups have no gradients of their own. Here the
groups' gradients are taken with its running statistics, and one forward pass in training mode moves
those. Where the statistics of the batch matter, use weights in the loss (`examples.batchnorm_cnn`).
"""

import pathlib
import tempfile
from typing import Any

import jax
import optax
import orbax.checkpoint as ocp
import tyro
from flax import nnx

import gq_optax as gq
from examples import digits

cross_entropy = optax.softmax_cross_entropy_with_integer_labels


class MLP(nnx.Module):
  """Two layers with BatchNorm between them; returns logits and features."""

  def __init__(self, rngs: nnx.Rngs):
    self.first = nnx.Linear(64, 32, rngs=rngs)
    self.norm = nnx.BatchNorm(32, momentum=0.9, rngs=rngs)
    self.head = nnx.Linear(32, 10, rngs=rngs)

  def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
    """`[B, 64]` to `[B, 10]` and `[B, 32]`."""
    features = nnx.relu(self.norm(self.first(x), use_running_average=not train))
    return self.head(features), features


def make_step(tx: optax.GradientTransformationExtraArgs, num_groups: int) -> Any:
  """A step `(model, opt_state, x, y, step) -> (opt_state, loss)` that changes the model."""

  @nnx.jit
  def train_step(model, opt_state, x, y, step):
    model(x, train=True)  # moves the running statistics
    graph, *states = nnx.split(model, nnx.Param, ...)
    params, rest = states

    def loss_fn(params, batch):
      logits, features = nnx.merge(graph, params, rest)(batch[0], train=False)
      return cross_entropy(logits, batch[1]), features

    clustered = gq.clustered_value_and_grad(loss_fn, num_groups)
    (loss, _), groups = clustered(params, (x, y), step)  # the step seeds K-means
    # `nnx.Optimizer` takes mean gradients; group gradients go to the transformation itself.
    updates, opt_state = tx.update(groups, opt_state, params)
    nnx.update(model, optax.apply_updates(params, updates))
    return opt_state, loss

  return train_step


def main(
  epochs: int = 10, batch_size: int = 128, seed: int = 0, path: pathlib.Path | None = None
) -> dict[str, float]:
  """Trains one half, saves, restores into new objects, trains the other half.

  Args:
    epochs: passes over the training images.
    batch_size: examples a step, with one cluster for each 64 of them.
    seed: of data, parameters and batches.
    path: an empty or new folder for the checkpoint; None: one that is removed.

  Returns:
    The loss before the checkpoint and at the end, the gradients queued, and accuracies.
  """
  x_train, x_test, y_train, y_test = digits.long_tailed_digits(seed)
  tx = optax.chain(
    gq.grad_queue(queue_length=3, track=True, num_clusters=batch_size // 64), optax.sgd(0.05, 0.9)
  )

  def make():
    model = MLP(nnx.Rngs(seed))
    return model, tx.init(nnx.state(model, nnx.Param))

  model, opt_state = make()
  train_step = make_step(tx, batch_size // 64)
  losses: list[float] = []
  for epoch, batches in enumerate(digits.epochs_of_batches(len(x_train), batch_size, epochs, seed)):
    if epoch == epochs // 2:
      model, opt_state = save_and_restore(path, make, model, opt_state)
    for rows in batches:
      opt_state, loss = train_step(model, opt_state, x_train[rows], y_train[rows], len(losses))
      losses.append(float(loss))

  middle = len(losses) // 2
  figures = {"middle": losses[middle], "loss": losses[-1]}
  figures["queued"] = float(gq.diagnostics(opt_state)["queued"])
  print(f"loss {figures['middle']:.3f} at the checkpoint, {figures['loss']:.3f} at the end")
  logits, _ = model(x_test, train=False)
  return figures | digits.judge(logits, y_test)


def save_and_restore(path: pathlib.Path | None, make: Any, model: MLP, opt_state: Any) -> Any:
  """What a restart does: new objects, and the saved state put back into them."""
  with tempfile.TemporaryDirectory() as folder, ocp.StandardCheckpointer() as checkpointer:
    path = (path or pathlib.Path(folder)).resolve() / "state"
    checkpointer.save(path, (nnx.state(model), opt_state))
    checkpointer.wait_until_finished()
    model, opt_state = make()
    restored, opt_state = checkpointer.restore(path, (nnx.state(model), opt_state))
  nnx.update(model, restored)  # parameters and running statistics
  return model, opt_state


if __name__ == "__main__":
  tyro.cli(main)
