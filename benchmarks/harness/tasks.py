# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What a data set is made into: long tails, label noise, hidden subgroups, halves.

Pure NumPy, and seeded by `np.random.RandomState`, whose streams NumPy keeps the same for good: a
task is its arguments, on every machine and in every year. Labels are integers `[n]`, classes count
from 0. No function changes its input.
"""

import numpy as np


def tail_sizes(largest: int, imbalance: float, num_classes: int) -> list[int]:
  r"""Class sizes that fall geometrically from `largest` to `largest / imbalance`.

  $n_c = \lfloor \mathrm{largest} \cdot \mathrm{imbalance}^{-c / (C - 1)} \rfloor$
  """
  sizes = [int(largest * imbalance ** (-c / (num_classes - 1))) for c in range(num_classes)]
  if not imbalance >= 1 or sizes[-1] < 1:
    raise ValueError(
      f"largest must leave every class an example at imbalance 1 or more, but {largest} at"
      f" imbalance {imbalance:g} was found."
    )
  return sizes


def long_tail(labels: np.ndarray, imbalance: float, largest: int, *, seed: int) -> np.ndarray:
  """Rows, ascending, of a training set whose classes are unequally frequent.

  Class c keeps `tail_sizes(largest, imbalance, C)[c]` examples, drawn without replacement. "LT100"
  is `long_tail(labels, 100, 6000, seed=0)`.
  """
  counts = np.bincount(labels)
  rng, kept = np.random.RandomState(seed), []
  for label, size in enumerate(tail_sizes(largest, imbalance, len(counts))):
    if counts[label] < size:
      raise ValueError(
        f"largest must leave class {label} at most its {counts[label]} examples, but {size} were"
        " asked for."
      )
    kept.append(rng.permutation(np.flatnonzero(labels == label))[:size])
  return np.sort(np.concatenate(kept))


def stratified_split(
  labels: np.ndarray, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
  """Rows of two parts, each ascending, in which the classes are as frequent as in the whole.

  `fraction` of each class goes into the second part. Sizes are rounded so that they add up: no
  class is off by more than one, and none goes whole into the second part.
  """
  if not 0 < fraction < 1:
    raise ValueError(f"fraction must lie between 0 and 1, but {fraction} was found.")
  rng = np.random.RandomState(seed)
  ends = np.floor(fraction * np.cumsum(np.bincount(labels)) + 0.5).astype(int)
  second = np.zeros(len(labels), bool)
  for label, size in enumerate(np.diff(ends, prepend=0)):
    rows = rng.permutation(np.flatnonzero(labels == label))
    second[rows[: max(min(size, len(rows) - 1), 0)]] = True
  return np.flatnonzero(~second), np.flatnonzero(second)


def halves(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
  """Cuts a test set into a stratified half to choose on and a half to report.

  For hidden subgroups give the subgroups, so that each is in both. A class with one example is in
  the test half only.
  """
  test, validation = stratified_split(labels, 0.5, seed)
  return validation, test


def superclasses(
  labels: np.ndarray, seed: int, *, num_classes: int = 10, num_super: int = 2
) -> np.ndarray:
  """Labels that hide the classes in fewer ones: what was a class is then a hidden subgroup.

  The new label of class c is `RandomState(seed).permutation(num_classes)[c] % num_super`.
  """
  return np.random.RandomState(seed).permutation(num_classes)[labels] % num_super


def symmetric_noise(labels: np.ndarray, rate: float, num_classes: int, seed: int) -> np.ndarray:
  """Replaces every label with probability `rate` by another class, all of them equally likely."""
  rng = np.random.RandomState(seed)
  hit = rng.random_sample(len(labels)) < rate
  other = (labels + rng.randint(1, num_classes, size=len(labels))) % num_classes
  return np.where(hit, other, labels)


def asymmetric_noise(labels: np.ndarray, rate: float, num_classes: int, seed: int) -> np.ndarray:
  """Mistakes every label with probability `rate` for the class after it."""
  hit = np.random.RandomState(seed).random_sample(len(labels)) < rate
  return np.where(hit, (labels + 1) % num_classes, labels)


def standardise(
  train: np.ndarray, *others: np.ndarray, per_feature: bool = False
) -> tuple[np.ndarray, ...]:
  """Shifts and scales all arrays so that `train` has mean 0 and standard deviation 1.

  Args:
    train: `[n, ...]`, which alone gives mean and deviation.
    *others: `[m, ...]`, such as validation and test.
    per_feature: whether every feature has its own mean and deviation, as tables want it; otherwise
      there is one of each over everything, as images want it.

  Returns:
    All arrays as float32, `train` first. What is constant in `train` becomes 0 there, and is only
    shifted in the others.
  """
  axes = 0 if per_feature else None
  mean = np.mean(train, axis=axes, dtype=np.float64)
  # Piece by piece: deviations of all of CIFAR-10 in double precision would take 1.2 GB.
  pieces = np.array_split(train, max(1, train.size // 2**22))
  squares = np.sum([np.sum(np.square(p - mean), axis=axes) for p in pieces], axis=0)
  std = np.sqrt(squares * (np.size(mean) / train.size))
  varies = np.max(train, axis=axes) > np.min(train, axis=axes)
  shift, scale = np.float32(mean), np.float32(np.where(varies, std, 1.0))

  def apply(x: np.ndarray) -> np.ndarray:
    result = x.astype(np.float32)
    result -= shift
    result /= scale
    return result

  return tuple(apply(x) for x in (train, *others))
