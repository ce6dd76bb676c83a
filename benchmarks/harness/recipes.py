# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The tasks of the pages: which examples, which labels, which splits."""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np

from benchmarks.harness import data, tasks, training


@dataclasses.dataclass(frozen=True)
class Recipe:
  """How a task is made of a data set, and how long it is trained."""

  source: str
  imbalance: float | None = 100.0
  largest: int = 6000
  hidden: int | None = None  # seed of the superclasses
  noise: str | None = None  # "symmetric" or "asymmetric"
  noise_rate: float = 0.0
  epochs: int = 10
  people: bool = False  # the set's labels are kinds, as `sources` numbers them
  num_super: int = 2  # superclasses
  convolutions: bool = False  # grey images stay images; colour images always do


_cut = functools.partial(Recipe, imbalance=1.0, convolutions=True)  # as many of every class
RECIPES = {
  **{f"hidden{s}": Recipe("fashion_mnist", hidden=s) for s in (5, 6, 7)},
  **{f"mnist hidden{s}": Recipe("mnist", hidden=s, largest=5400) for s in (5, 6, 7)},
  # Five classes of two kinds each: labels name a part of what is rare, and hide the rest.
  **{f"both{s}": Recipe("fashion_mnist", hidden=s, num_super=5) for s in (5, 6, 7)},
  "LT100": Recipe("fashion_mnist"),
  "LT100, 20 % noise": Recipe("fashion_mnist", noise="symmetric", noise_rate=0.2),
  "LT100, 40 % noise": Recipe("fashion_mnist", noise="symmetric", noise_rate=0.4),
  "LT100, 30 % asymmetric": Recipe("fashion_mnist", noise="asymmetric", noise_rate=0.3),
  "hidden5, 20 % noise": Recipe("fashion_mnist", hidden=5, noise="symmetric", noise_rate=0.2),
  "balanced": Recipe("fashion_mnist", imbalance=None, epochs=5),
  "CIFAR-10 LT100": Recipe("cifar10", largest=5000, epochs=15),
  "Reuters": Recipe("reuters", imbalance=None, epochs=12),
  "page_blocks0": Recipe("page_blocks0", imbalance=None, epochs=40),
  "adult": Recipe("adult", imbalance=None, people=True),
  "celeba": Recipe("celeba", imbalance=None, people=True, epochs=3),
  # Those of the paper's Figure 6.
  "MNIST": _cut("mnist", largest=600),
  "CIFAR-10": _cut("cifar10", largest=500),
  "Reuters-46": Recipe("reuters", imbalance=None, epochs=5),
}


def default_epochs(recipe: Recipe, batch_size: int) -> int:
  """Twice as many in the largest batches, where an epoch has few updates."""
  return recipe.epochs * (2 if batch_size >= 4096 else 1)


def make_task(recipe: Recipe, source: data.Data | None = None) -> tuple[training.Task, np.ndarray]:
  """The arrays of a task, and the class that each kind belongs to.

  The test set is cut in halves, stratified: one to choose learning rates on, one to report. Labels
  are noisy in training only.

  Args:
    recipe: what is made.
    source: the data set; that of the recipe's name by default.
  """
  source = data.load(recipe.source) if source is None else source
  kinds, rows = source.y_train, np.arange(len(source.y_train))
  if recipe.imbalance is not None:
    rows = tasks.long_tail(kinds, recipe.imbalance, recipe.largest, seed=0)
  x, x_test = lay_out(recipe, source, rows)
  name = lambda k: k
  if (hidden := recipe.hidden) is not None:
    size = {"num_classes": int(kinds.max()) + 1, "num_super": recipe.num_super}
    name = lambda k: tasks.superclasses(k, hidden, **size)
  elif recipe.people:
    name = lambda k: k % 2
  classes_of = name(np.arange(int(kinds.max()) + 1))
  labels = name(kinds[rows])
  if recipe.noise is not None:
    noise = {"symmetric": tasks.symmetric_noise, "asymmetric": tasks.asymmetric_noise}
    labels = noise[recipe.noise](labels, recipe.noise_rate, int(classes_of.max()) + 1, seed=0)
  put = lambda k: jnp.asarray(k, jnp.int32)
  splits = []
  for half in tasks.halves(source.y_test, seed=0):
    y = source.y_test[half]
    splits.append((jnp.asarray(x_test[half], jnp.float32), put(name(y)), put(y)))
  return training.Task(
    jnp.asarray(x, jnp.float32), put(labels), put(kinds[rows]), splits[0], splits[1]
  ), classes_of


def lay_out(recipe: Recipe, source: data.Data, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Training and test examples standardised, in the shape that the network wants."""
  bytes_ = source.x_train.dtype == np.uint8
  images = recipe.convolutions or (bytes_ and source.x_train.ndim == 4)

  def arrange(x: np.ndarray) -> np.ndarray:
    if images:
      return x[..., None] if x.ndim == 3 else x
    return x.reshape(len(x), -1)

  x, x_test = arrange(source.x_train[rows]), arrange(source.x_test)
  if recipe.source == "reuters":  # zeros and ones stay what they are
    return x, x_test
  x, x_test = tasks.standardise(x, x_test, per_feature=not (bytes_ or images))
  return x, x_test
