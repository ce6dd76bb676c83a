# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Tasks out of data sets: which examples, which labels, which splits; and the figures of a run."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from gq_optax.trial import data, tasks, training
from gq_optax.trial.own_data import Data


@dataclasses.dataclass(frozen=True)
class Recipe:
  """How a task is made of a data set, and how long it is trained."""

  source: str
  imbalance: float | None = 100.0
  largest: int | None = 6000
  hidden: int | None = None  # seed of the superclasses
  noise: str | None = None  # "symmetric" or "asymmetric"
  rate: float = 0.0
  epochs: int = 10


def make_task(
  recipe: Recipe, source: Data | None = None, layout: str = "auto"
) -> tuple[training.Task, int]:
  """The arrays of a task, and its number of classes.

  The test set is cut in halves, stratified: one to choose learning rates on, one to report. Labels
  are noisy in training only.

  Args:
    recipe: what is made.
    source: the data set; that of the recipe's name by default.
    layout: "flat" for vectors, "images" for `[n, height, width, channels]`, "as is" for the shape
      of the source; "auto" is "images" for colour images and "flat" for all else.

  Returns:
    The task and its number of classes.

  Raises:
    ValueError: if there are no images to lay out, or as `tasks` does.
  """
  source = data.load(recipe.source) if source is None else source
  kinds, rows = source.y_train, np.arange(len(source.y_train))
  if recipe.imbalance is not None:
    rows = tasks.long_tail(kinds, recipe.imbalance, recipe.largest, seed=0)
  x, x_test = lay_out(recipe, source, source.x_train[rows], layout)
  name = lambda k: k
  if (hidden := recipe.hidden) is not None:
    number = int(kinds.max()) + 1
    name = lambda k: tasks.superclasses(k, hidden, num_classes=number)
  num_classes = int(name(kinds).max()) + 1
  labels = name(kinds[rows])
  if recipe.noise == "symmetric":
    labels, _ = tasks.symmetric_noise(labels, recipe.rate, num_classes, seed=0)
  elif recipe.noise == "asymmetric":
    mapping = tasks.next_class(num_classes)
    labels, _ = tasks.asymmetric_noise(labels, recipe.rate, mapping, seed=0)
  put = lambda k: jnp.asarray(k, jnp.int32)
  splits = []
  for half in tasks.halves(source.y_test, seed=0):
    y = source.y_test[half]
    splits.append((jnp.asarray(x_test[half], jnp.float32), put(name(y)), put(y)))
  return training.Task(
    jnp.asarray(x, jnp.float32), put(labels), put(kinds[rows]), splits[0], splits[1]
  ), num_classes


def lay_out(
  recipe: Recipe, source: Data, x: np.ndarray, layout: str
) -> tuple[np.ndarray, np.ndarray]:
  """Training and test examples standardised, in the shape that a network wants."""
  pixels = source.x_train.dtype == np.uint8
  x, x_test = (arrange(part, layout) for part in (x, source.x_test))
  if recipe.source == "reuters":  # zeros and ones stay what they are
    return x, x_test
  per_feature = not (pixels or layout == "images")
  return tasks.standardise(x, x_test, per_feature=per_feature)  # type: ignore[return-value]


def arrange(x: np.ndarray, layout: str) -> np.ndarray:
  """Examples in the shape that a network wants, see `make_task`."""
  if layout == "auto":
    layout = "images" if x.dtype == np.uint8 and x.ndim == 4 else "flat"
  if layout == "images" and x.ndim not in (3, 4):
    raise ValueError(
      f"model must not be a convolutional one for examples of shape {x.shape[1:]}: it takes"
      " images, [height, width] or [height, width, channels]."
    )
  if layout == "images":
    return x[..., None] if x.ndim == 3 else x
  return x.reshape(len(x), -1) if layout == "flat" else x


def classes_of_kinds(task: training.Task) -> np.ndarray:
  """The class that each kind belongs to, `[kinds]`."""
  splits = (task.validation, task.test)
  most = max(int(jnp.max(kinds)) for kinds in (task.kinds, *(kinds for _, _, kinds in splits)))
  found = np.zeros(most + 1, int)
  for _, labels, kinds in splits:
    found[np.asarray(kinds)] = np.asarray(labels)
  return found


def figures(confusion: np.ndarray, classes_of: np.ndarray) -> dict[str, Any]:
  """Accuracy of each kind, their mean and lowest; accuracy, lowest and macro-F1 of the classes."""
  number = confusion.sum(axis=1)
  present = number > 0
  hits = confusion[np.arange(len(confusion)), classes_of]
  by_kind = hits[present] / number[present]
  classes = confusion.shape[1]
  by_class = np.zeros((classes, classes))
  np.add.at(by_class, classes_of, confusion)
  true_positive, found = np.diag(by_class), by_class.sum(axis=0)
  exists = by_class.sum(axis=1)
  f1 = 2 * true_positive[exists > 0] / (found + exists)[exists > 0]
  return {
    "mean": float(by_kind.mean()),
    "worst": float(by_kind.min()),
    "accuracy": float(hits.sum() / number.sum()),
    "worst_class": float((true_positive[exists > 0] / exists[exists > 0]).min()),
    "macro_f1": float(f1.mean()),
    "by_kind": [round(float(a), 4) for a in by_kind],
  }
