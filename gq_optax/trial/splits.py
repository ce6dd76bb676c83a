# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Which examples are trained on, which choose learning rates, and which are only reported.

The user's test set, if there is one, is left alone. Validation is the user's too, or a stratified
fifth of what is trained on. Without a test set the examples left over are dealt into `FOLDS`, and
every seed trains on four fifths and is tested on the other one: small classes are tested on all of
their examples that way, and none chooses a rate.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from gq_optax.trial import recipes, tasks, training
from gq_optax.trial.own_data import PARTS, Own
from gq_optax.trial.uncertainty import Pool

FOLDS = 5
_NAMED = 5  # kinds in a sentence
HELD_OUT = 0.2  # of what is trained on, for validation
_CACHE_BYTES = 2**30
KINDS_CHOOSE = (
  "Kinds are given in training and validation, so the mean over kinds on validation chooses"
  " learning rates and the best arm (unless --figure is another); kinds_test alone avoids that."
)


class Split(NamedTuple):
  """Rows of one split, each ascending."""

  train: np.ndarray
  validation: np.ndarray
  test: np.ndarray


@dataclasses.dataclass(frozen=True)
class Material:
  """What is trained and tested on.

  Attributes:
    task_of: the arrays of a seed's split; the same for all seeds if there is one split.
    rows_of: a seed's test examples, as rows of `pool`.
    pool: all that is tested.
    num_kinds: of the tasks, which the oracle and the choice of rates see.
    classes_of: the class of each of these.
    kind_names: of the kinds in `pool`.
    counts: for training, validation and test, the examples of each kind in `pool`.
    repeated: whether every seed has a split of its own.
    has_kinds: whether kinds beside the classes are known.
    oracle: whether they are known in training.
    notes: what a reader has to know of the splits.
    warnings: which kinds a split lacks.
    everything: all examples as the network of seed 0 gets them, the rows that it is trained on, and
      the rows of `pool`; the user's training examples come first.
    pictures: all examples as they came, if they are images; else None.
  """

  task_of: Callable[[int], training.Task]
  rows_of: Callable[[int], np.ndarray]
  pool: Pool
  num_kinds: int
  classes_of: np.ndarray
  kind_names: list[str]
  counts: dict[str, list[int]]
  repeated: bool
  has_kinds: bool
  oracle: bool
  notes: list[str]
  warnings: list[str]
  everything: Callable[[], tuple[np.ndarray, np.ndarray, np.ndarray]]
  pictures: np.ndarray | None = None


def hold_out(strata: np.ndarray, rows: np.ndarray, least: int) -> np.ndarray:
  """A fifth of each stratum among `rows`, one at least; none of those with fewer than `least`."""
  rng, held = np.random.RandomState(0), []
  for stratum in np.unique(strata[rows]):
    own = rng.permutation(rows[strata[rows] == stratum])
    if len(own) >= least:
      held.append(own[: max(1, int(HELD_OUT * len(own)))])
  return np.sort(np.concatenate([*held, np.zeros(0, int)])).astype(int)


def _check_held_out(validation: np.ndarray, least: int, of_kinds: bool) -> str:
  """Raises ValueError if nothing was held out; what the strata are."""
  word, plural, key = (
    ("kind", "kinds", "kinds_train") if of_kinds else ("class", "classes", "y_train")
  )
  if not len(validation):
    raise ValueError(
      f"{key} must hold a {word} of {least} examples or more, to choose learning rates on, but"
      f" there is none. Is it a number of the example? Give fewer {plural}, or x_validation and"
      " y_validation."
    )
  return word


def deal(strata: np.ndarray, rows: np.ndarray, repetition: int) -> list[np.ndarray]:
  """The rows dealt into `FOLDS` of one size, every stratum evenly; what is left over is in none.

  Rare strata are dealt first, so that what is left over is of the most frequent. A stratum of one
  example is not dealt: it could be tested only where nothing like it is trained on.
  """
  rng = np.random.RandomState(repetition)
  found, counts = np.unique(strata[rows], return_counts=True)
  order = [
    rng.permutation(rows[strata[rows] == found[i]]) for i in np.argsort(counts) if counts[i] > 1
  ]
  dealt = np.concatenate([*order, np.zeros(0, int)]).astype(int)
  used = len(dealt) - len(dealt) % FOLDS
  if not used:
    raise ValueError(
      f"x_train must leave {FOLDS} examples or more to be tested in turn, of classes or kinds of 2"
      f" or more, but {len(dealt)} were left. Give x_test and y_test, or more examples."
    )
  return [np.sort(dealt[fold:used:FOLDS]) for fold in range(FOLDS)]


def of_own(own: Own, layout: str, seeds: int, standardise: bool = True) -> Material:
  """The splits of the user's arrays.

  Args:
    own: the arrays.
    layout: see `recipes.make_task`.
    seeds: of the trial, one a split where the tool splits.
    standardise: whether examples are shifted and scaled to mean 0 and deviation 1 by those that
      are trained on: uint8 and images by one pair of numbers, all else feature by feature.
  """
  there = [p for p in PARTS if getattr(own, f"x_{p}") is not None]
  join = lambda what: np.concatenate([getattr(own, f"{what}_{p}") for p in there])
  raw, labels = join("x"), join("y")
  x = recipes.arrange(raw, layout)
  ends = np.cumsum([0, *(len(getattr(own, f"y_{p}")) for p in there)])
  given = {p: np.arange(ends[i], ends[i + 1]) for i, p in enumerate(there)}
  oracle, notes = own.kinds_train is not None, []
  kinds, names, classes = labels, [f"class {c}" for c in range(labels.max() + 1)], None
  if oracle:
    kinds, names, classes = number_kinds(labels, join("kinds"))
    notes.append(KINDS_CHOOSE)
  trained = given["train"]
  validation = given.get("validation")
  if validation is None:
    validation = hold_out(kinds, trained, least := 2 if "test" in given else 3)
    word = _check_held_out(validation, least, oracle)
    trained = np.setdiff1d(trained, validation)
    notes.append(
      f"Learning rates are chosen on {len(validation)} of the training examples, a fifth of every"
      f" {word}, which are not trained on."
    )
  test = given.get("test")
  if test is None:
    folds = functools.cache(lambda repetition: deal(kinds, trained, repetition))
    tested = lambda seed: folds(seed // FOLDS)[seed % FOLDS]
    notes.append(
      f"There is no test set of its own, so every seed has another split: {FOLDS} parts in turn"
      " are tested by networks that are trained on the others, and all answers are pooled."
      + (f" With fewer than {FOLDS} seeds some are not tested." if seeds < FOLDS else "")
    )
  else:
    tested = lambda seed: test
  rows = lambda seed: Split(np.setdiff1d(trained, tested(seed)), validation, tested(seed))
  pooled = np.unique(np.concatenate([tested(seed) for seed in range(seeds)]))
  reported = kinds
  if own.kinds_test is not None and not oracle:
    reported = np.zeros(len(labels), int)
    reported[pooled], names, _ = number_kinds(labels[pooled], own.kinds_test)
  number = lambda part: np.bincount(reported[part], minlength=len(names)).tolist()
  counts = {"test": number(pooled)}
  if own.kinds_test is None or oracle:
    first = rows(0)
    counts = {"training": number(first.train), "validation": number(first.validation), **counts}
  pool = Pool(labels[pooled], reported[pooled], int(labels.max()) + 1, len(names))
  per_feature = not (x.dtype == np.uint8 or layout == "images")

  def scale(*parts: np.ndarray) -> tuple[np.ndarray, ...]:
    if standardise:
      return tasks.standardise(*parts, per_feature=per_feature)
    return tuple(part.astype(np.float32) for part in parts)

  def task_of(seed: int) -> training.Task:
    parts = scale(*(x[part] for part in rows(seed)))
    put = lambda array, dtype: jnp.asarray(array, dtype)
    splits = [
      (put(part, jnp.float32), put(labels[own_rows], jnp.int32), put(kinds[own_rows], jnp.int32))
      for part, own_rows in zip(parts, rows(seed), strict=True)
    ]
    return training.Task(*splits[0], splits[1], splits[2])

  alike = 1 if test is not None else seeds
  kept = alike if x.size * 4 * alike < _CACHE_BYTES else 1
  cached = functools.lru_cache(maxsize=kept)(task_of)
  return Material(
    lambda seed: cached(0 if test is not None else seed),
    lambda seed: np.searchsorted(pooled, tested(seed)),
    pool,
    int(kinds.max()) + 1,
    np.arange(labels.max() + 1) if classes is None else classes,
    names,
    counts,
    test is None,
    own.kinds_test is not None or oracle,
    oracle,
    notes,
    absent(counts, names),
    lambda: (scale(x[rows(0).train], x)[1], rows(0).train, pooled),
    raw if raw.ndim == 3 or (raw.ndim == 4 and raw.shape[3] in (1, 3)) else None,
  )


def number_kinds(labels: np.ndarray, kinds: np.ndarray) -> tuple[np.ndarray, list[str], np.ndarray]:
  """Kinds as integers, their names and their classes; one that is in two classes counts twice."""
  values, number = np.unique(kinds, return_inverse=True)
  if all(value.isdecimal() and value == str(int(value)) for value in values):  # 2 before 10
    number = kinds.astype(int)
  pairs, found = np.unique(np.stack([labels, number], axis=1), axis=0, return_inverse=True)
  word = dict(zip(number.tolist(), kinds.tolist(), strict=True))
  several = {k for k in pairs[:, 1] if (pairs[:, 1] == k).sum() > 1}
  name = lambda k: f"kind {word[k]}" if word[k].isdigit() else word[k]
  names = [name(k) + (f" of class {c}" if k in several else "") for c, k in pairs]
  return found.reshape(-1), names, pairs[:, 0]


def absent(counts: dict[str, list[int]], names: list[str]) -> list[str]:
  """What is to be said of kinds that a split lacks, a sentence for each split."""
  says = {
    "training": ("nothing is learnt of it", "nothing is learnt of them"),
    "validation": ("it has no say in the learning rates", "they have no say in the learning rates"),
    "test": ("nothing can be said of it", "nothing can be said of them"),
  }
  found = []
  for part in counts:
    missing = [names[kind] for kind in np.flatnonzero(np.array(counts[part]) == 0)]
    if missing:
      more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
      shown, several = ", ".join(missing[:_NAMED]), len(missing) > 1
      found.append(f"The {part} split has nothing of {shown}{more}, so {says[part][several]}.")
  return found


def of_recipe(task: training.Task, num_classes: int, hidden: bool) -> Material:
  """The one split of a public set, see `recipes.make_task`."""
  labels, kinds = (np.asarray(part) for part in task.test[1:])
  classes_of = recipes.classes_of_kinds(task)
  kind = "kind" if hidden else "class"
  names = [f"{kind} {k}" for k in range(len(classes_of))]
  number = lambda part: np.bincount(np.asarray(part), minlength=len(names)).tolist()
  counts = {
    "training": number(task.kinds),
    "validation": number(task.validation[2]),
    "test": number(kinds),
  }
  return Material(
    lambda seed: task,
    lambda seed: np.arange(len(labels)),
    Pool(labels, kinds, num_classes, len(names)),
    len(names),
    classes_of,
    names,
    counts,
    False,
    hidden,
    hidden,
    ["Learning rates are chosen on a half of the published test set, and the other is reported."],
    absent(counts, names),
    lambda: (
      np.concatenate([task.x, task.test[0]]),
      np.arange(len(task.x)),
      len(task.x) + np.arange(len(labels)),
    ),
  )
