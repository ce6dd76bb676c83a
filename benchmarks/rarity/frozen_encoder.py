# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Features of a network that has learnt other classes, for `experiments` to hide kinds in.

    python -m benchmarks.rarity.frozen_encoder
    python -m benchmarks.rarity.experiments --preset frozen --source out/frozen.npz

trains a small convolutional network on classes 0 to 4 of CIFAR-10 (four minutes on two cores), and
writes what its last hidden layer makes of classes 5 to 9, the new classes 0 to 4.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks.harness import arms, data, recipes, tasks, training

LEARNT, BATCH_SIZE, RATE = 5, 256, 0.002


def classes(source: data.Data, first: int, last: int) -> data.Data:
  """The examples of classes `first` to `last`, which then count from 0."""
  parts = []
  for x, y in ((source.x_train, source.y_train), (source.x_test, source.y_test)):
    rows = (y >= first) & (y <= last)
    parts += [x[rows], y[rows] - first]
  return data.Data(*parts)


def encode(source: data.Data, epochs: int, batch_size: int = BATCH_SIZE) -> tuple[data.Data, float]:
  """Features of the classes that the network has not seen, and its accuracy on those that it has.

  Args:
    source: images of ten classes.
    epochs: of the training.
    batch_size: of the training.

  Returns:
    float32 `[n, 128]` in place of images, and the accuracy on the test half.
  """
  seen, unseen = classes(source, 0, LEARNT - 1), classes(source, LEARNT, 9)
  task, classes_of = recipes.make_task(recipes.Recipe("cifar10", imbalance=None), seen)
  sizes = training.Sizes(batch_size, epochs, len(classes_of), len(classes_of))
  params = training.steps(
    arms.find("AdamW"), sizes, task, jnp.int32(0), jnp.float32(RATE), jnp.ones(len(task.x))
  )
  features = jax.jit(lambda x: training.apply(params, x, sizes)[1])
  _, *images = tasks.standardise(seen.x_train, unseen.x_train, unseen.x_test)
  in_parts = lambda x: np.concatenate(
    [np.asarray(features(part)) for part in np.array_split(x, -(-len(x) // 1000))]
  )
  x_train, x_test = (in_parts(x) for x in images)
  found = training.judge(params, task.test, sizes)
  accuracy = float(jnp.trace(found) / jnp.sum(found))
  return data.Data(x_train, unseen.y_train, x_test, unseen.y_test), accuracy


def main(epochs: int = 12, out: Path = Path("out/frozen.npz")) -> None:
  """Trains the encoder and writes the features.

  Args:
    epochs: of the encoder.
    out: the file.
  """
  found, accuracy = encode(data.load("cifar10"), epochs)
  data.write(out, found)
  print(
    f"{out}: features of a network that knows its own classes with an accuracy of {accuracy:.3f}"
  )


if __name__ == "__main__":
  tyro.cli(main)
