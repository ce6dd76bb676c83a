# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Features of a network that has learnt other classes, for `rare_kinds` to hide kinds in.

    python -m benchmarks.rarity.frozen_encoder
    python -m benchmarks.rarity.rare_kinds --source out/frozen.npz --task-names "frozen hidden5"

trains a small convolutional network on classes 0 to 4 of CIFAR-10 (four minutes on two cores), and
writes what its last hidden layer makes of classes 5 to 9, the new classes 0 to 4.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks.harness import arms, data, recipes, tasks, training
from gq_optax.trial.own_data import Data

LEARNT = 5  # classes
BATCH_SIZE, RATE = 256, 0.002


def classes(source: Data, first: int, last: int) -> Data:
  """The examples of classes `first` to `last`, which then count from 0."""
  parts = []
  for x, y in ((source.x_train, source.y_train), (source.x_test, source.y_test)):
    rows = (y >= first) & (y <= last)
    parts += [x[rows], y[rows] - first]
  return Data(*parts)


def encode(
  source: Data, epochs: int, batch_size: int = BATCH_SIZE
) -> tuple[Data, dict[str, float]]:
  """Features of the classes that the network has not seen, and its accuracy on those that it has.

  Args:
    source: images of ten classes.
    epochs: of the training.
    batch_size: of the training.

  Returns:
    float32 `[n, 128]` in place of images, and accuracies on validation and test.
  """
  seen, unseen = classes(source, 0, LEARNT - 1), classes(source, LEARNT, 9)
  task, number = recipes.make_task(recipes.Recipe("cifar10", imbalance=None), seen, "images")
  sizes = training.Sizes(batch_size, epochs, number, number, "cnn")
  earlier = training.Earlier(jnp.ones(len(task.x)), None)
  rate = jnp.asarray(RATE, jnp.float32)
  variables, _ = training.steps(
    arms.find("AdamW"), sizes, task, jnp.asarray(0, jnp.int32), rate, earlier
  )
  network = training.make_network(sizes, task.x.shape[1:])
  features = jax.jit(lambda x: network.apply(variables, x)[1])
  _, *images = tasks.standardise(seen.x_train, unseen.x_train, unseen.x_test)
  in_parts = lambda x: np.concatenate(
    [np.asarray(features(part)) for part in np.array_split(x, -(-len(x) // 1000))]
  )
  x_train, x_test = (in_parts(x) for x in images)
  accuracy = {
    name: float(
      training.mean_over_kinds(
        training.judge(variables, split, sizes), task._replace(validation=split)
      )
    )
    for name, split in (("validation", task.validation), ("test", task.test))
  }
  return Data(x_train, unseen.y_train, x_test, unseen.y_test), accuracy


def main(epochs: int = 12, out: Path = Path("out/frozen.npz")) -> None:
  """Trains the encoder and writes the features.

  Args:
    epochs: of the encoder.
    out: the file.
  """
  found, accuracy = encode(data.load("cifar10"), epochs)
  out.parent.mkdir(parents=True, exist_ok=True)
  np.savez_compressed(out, allow_pickle=False, **found._asdict())
  told = ", ".join(f"{name} {value:.3f}" for name, value in accuracy.items())
  print(f"{out}: features of a network that knows its own classes with an accuracy of {told}")
  print(f"python -m benchmarks.rarity.rare_kinds --source {out} --task-names 'frozen hidden5'")


if __name__ == "__main__":
  tyro.cli(main)
