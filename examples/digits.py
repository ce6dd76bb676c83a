# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What the two training loops share: real digits with a long tail, and how a run is judged."""

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.model_selection import train_test_split


def long_tailed_digits(seed: int, imbalance: float = 10.0) -> list[jax.Array]:
  """Training and test images, then labels; there are `imbalance` times fewer nines than zeros."""
  images, labels = load_digits(return_X_y=True)
  kept = np.random.default_rng(seed).random(len(labels)) < imbalance ** (-labels / 9)
  x, y = (images[kept] / 16).astype(np.float32), labels[kept].astype(np.int32)
  split = train_test_split(x, y, test_size=0.4, stratify=y, random_state=seed)
  return [jnp.asarray(part) for part in split]


def epochs_of_batches(rows: int, batch_size: int, epochs: int, seed: int) -> np.ndarray:
  """Row numbers `[epochs, steps, batch_size]`, every epoch in a new order.

  What is left over of an epoch is left out: one shape of batch, one compilation.
  """
  steps = rows // batch_size
  if batch_size < 64 or steps == 0:
    raise ValueError(f"batch_size must be in [64, {rows}], but {batch_size} was found.")
  rng = np.random.default_rng(seed)
  order = np.stack([rng.permutation(rows)[: steps * batch_size] for _ in range(epochs)])
  return order.reshape(epochs, steps, batch_size)


def show(epoch: int, figures: dict[str, float]) -> None:
  """Prints the figures of an epoch that say most."""
  names = ("loss", "effective_length", "mean_weight", "cosine", "norm_ratio")
  print(f"epoch {epoch + 1:3}", *(f"{name} {figures[name]:.3f}" for name in names), sep="  ")


def judge(logits: jax.Array, labels: jax.Array) -> dict[str, float]:
  """Accuracy, and balanced accuracy: the mean of the classes' recalls."""
  predicted = np.argmax(logits, axis=-1)
  result = {
    "accuracy": accuracy_score(labels, predicted),
    "balanced_accuracy": balanced_accuracy_score(labels, predicted),
  }
  print(f"accuracy {result['accuracy']:.3f}  balanced {result['balanced_accuracy']:.3f}")
  return result
