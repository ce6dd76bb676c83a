# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What the training loops share: real digits with a long tail, and how a run is judged."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.figure
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


def hidden_kinds(seed: int) -> list[jax.Array]:
  """Training and test images, then parities, then digits: ten kinds hidden in two labels."""
  x_train, x_test, y_train, y_test = long_tailed_digits(seed, imbalance=20.0)
  return [x_train, x_test, y_train % 2, y_test % 2, y_train, y_test]


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


def judge_kinds(logits: jax.Array, labels: jax.Array, kinds: jax.Array) -> dict[str, float]:
  """The mean of the accuracies of the kinds, and the lowest of them."""
  hit = np.asarray(jnp.argmax(logits, axis=-1) == labels)
  by_kind = [hit[np.asarray(kinds) == kind].mean() for kind in np.unique(kinds)]
  result = {"mean_of_kinds": float(np.mean(by_kind)), "worst_kind": float(min(by_kind))}
  print(*(f"{name} {value:.3f}" for name, value in result.items()), sep="  ")
  return result


def picture_groups(images: jax.Array, groups: Any, path: pathlib.Path) -> None:
  """A row of images for each group, the rarest first, with what an example of it weighs."""
  rows = [k for k in groups.rarest_first.tolist() if groups.sizes[k]]
  titles = [f"share {groups.shares[k]:.1%}, weight {groups.weights[k]:.2f}" for k in rows]
  picture_rows(images, [groups.indices[k].tolist() for k in rows], titles, path)


def picture_examples(images: jax.Array, rarest: Any, path: pathlib.Path) -> None:
  """A row of images for each of the rarest examples: itself, then what is nearest to it."""
  pairs = zip(rarest.indices.tolist(), rarest.nearest.tolist(), strict=True)
  rows = [[own, *others] for own, others in pairs if own >= 0]
  figures = zip(rarest.densities, rarest.weights, strict=True)
  titles = [f"density {d:.1%}, weight {w:.2f}" for d, w in figures][: len(rows)]
  picture_rows(images, rows, titles, path)


def picture_rows(
  images: jax.Array, rows: list[list[int]], titles: list[str], path: pathlib.Path
) -> None:
  """Rows of images by their numbers, nothing where the number is -1, under a title each."""
  number = len(rows[0])
  figure = matplotlib.figure.Figure(figsize=(0.7 * number + 2, 0.75 * len(rows)))
  grid = figure.subplots(len(rows), number, squeeze=False)
  for axes, row, title in zip(grid, rows, titles, strict=True):
    for ax, index in zip(axes, row, strict=True):
      ax.set_axis_off()
      if index >= 0:
        ax.imshow(np.asarray(images[index]).reshape(8, 8), cmap="gray_r")
    axes[0].set_title(title, fontsize=7, loc="left")
  figure.subplots_adjust(left=0.02, right=0.98, top=0.95, bottom=0.02, hspace=0.6)
  path.parent.mkdir(parents=True, exist_ok=True)
  figure.savefig(path, dpi=150)


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
