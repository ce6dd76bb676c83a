# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What a data set is made into: long tails, label noise, hidden subgroups, halves.

Pure NumPy, and seeded by `np.random.RandomState`, whose streams NumPy keeps the same for good: a
task is its arguments, on every machine and in every year. Labels are integers `[n]`, classes count
from 0. No function changes its input.
"""

from collections.abc import Mapping, Sequence

import numpy as np

# The classes of CIFAR-10 that people mistake for each other too, the customary asymmetric noise
# (Patrini et al. 2017, section 5): truck to automobile, bird to airplane, deer to horse, cat to
# dog and back.
CIFAR10_CONFUSIONS = {9: 1, 2: 0, 4: 7, 3: 5, 5: 3}


# Which examples


def tail_sizes(largest: int, imbalance: float, num_classes: int) -> list[int]:
  r"""Class sizes that fall geometrically from `largest` to `largest / imbalance`.

  $n_c = \lfloor \mathrm{largest} \cdot \mathrm{imbalance}^{-c / (C - 1)} \rfloor$

  Args:
    largest: size of class 0, at least 1.
    imbalance: the largest size over the smallest, at least 1 and finite.
    num_classes: $C$, at least 2.

  Returns:
    The $C$ sizes, none of them 0.

  Raises:
    ValueError: if an argument breaks its rule, or if the smallest class would be empty.

  >>> tail_sizes(6000, 100.0, 10)
  [6000, 3596, 2156, 1292, 774, 464, 278, 166, 100, 60]
  """
  if num_classes < 2:
    raise ValueError(f"num_classes must be at least 2, but {num_classes} was found.")
  if not 1 <= imbalance < np.inf:
    raise ValueError(f"imbalance must be at least 1 and finite, but {imbalance} was found.")
  sizes = [int(largest * imbalance ** (-c / (num_classes - 1))) for c in range(num_classes)]
  if sizes[-1] < 1:
    raise ValueError(
      f"largest must leave every class an example, but {largest} at imbalance {imbalance:g} was"
      " found."
    )
  return sizes


def long_tail(
  labels: np.ndarray,
  imbalance: float,
  largest: int | None = None,
  *,
  order: Sequence[int] | np.ndarray | None = None,
  seed: int,
) -> np.ndarray:
  """Indices of a training set whose classes are unequally frequent.

  The class at place c of `order` keeps `tail_sizes(largest, imbalance, C)[c]` examples, drawn
  without replacement. "LT100" is `long_tail(labels, 100, 6000, seed=0)`.

  Args:
    labels: integers `[n]`; C is one more than the largest.
    imbalance: frequency of the first class over that of the last.
    largest: examples of the first class; as many as the smallest class has if not given.
    order: the classes from frequent to rare, a permutation of 0 .. C-1; as numbered by default.
    seed: of the draw.

  Returns:
    Indices into `labels`, ascending.

  Raises:
    ValueError: if `order` is no permutation, or a class has fewer examples than it is to keep.

  >>> labels = np.repeat([0, 1, 2], 8)
  >>> np.bincount(labels[long_tail(labels, 4, order=[2, 0, 1], seed=0)]).tolist()
  [4, 2, 8]
  """
  labels = _labels(labels)
  counts = np.bincount(labels)
  order = np.arange(len(counts)) if order is None else np.asarray(order)
  if sorted(order.tolist()) != list(range(len(counts))):
    raise ValueError(
      f"order must be a permutation of the {len(counts)} classes, but {order.tolist()} was found."
    )
  sizes = tail_sizes(int(counts.min()) if largest is None else largest, imbalance, len(counts))
  for label, size in zip(order, sizes, strict=True):
    if counts[label] < size:
      raise ValueError(
        f"largest must leave class {label} at most its {counts[label]} examples, but {size} were"
        " asked for."
      )
  rng = np.random.RandomState(seed)
  kept = [
    rng.permutation(np.flatnonzero(labels == label))[:size]
    for label, size in zip(order, sizes, strict=True)
  ]
  return np.sort(np.concatenate(kept))


def stratified_split(
  labels: np.ndarray, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
  """Indices of two parts in which the classes are as frequent as in the whole.

  Args:
    labels: integers `[n]`.
    fraction: of each class that goes into the second part, between 0 and 1. Sizes are rounded so
      that they add up: no class is off by more than one. A class never goes whole into the
      second part, so one with a single example stays in the first.
    seed: of the draw.

  Returns:
    First and second part, each ascending; together they are all indices, each once.

  >>> kept, held = stratified_split(np.repeat([0, 1], [6, 3]), 1 / 3, seed=0)
  >>> len(kept), len(held)
  (6, 3)
  """
  labels = _labels(labels)
  if not 0 < fraction < 1:
    raise ValueError(f"fraction must lie between 0 and 1, but {fraction} was found.")
  rng = np.random.RandomState(seed)
  counts = np.bincount(labels)
  ends = np.floor(fraction * np.cumsum(counts) + 0.5).astype(int)
  second = np.zeros(len(labels), bool)
  for label, size in enumerate(np.diff(ends, prepend=0)):
    rows = rng.permutation(np.flatnonzero(labels == label))
    second[rows[: max(min(size, len(rows) - 1), 0)]] = True
  return np.flatnonzero(~second), np.flatnonzero(second)


def halves(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
  """Splits a test set into a half to choose on and a half to report, stratified.

  Args:
    labels: integers `[n]`. For hidden subgroups give the subgroups, so that each is in both.
    seed: of the draw.

  Returns:
    Indices of the validation half and of the test half. A class with one example is in the test
    half only.
  """
  test, validation = stratified_split(labels, 0.5, seed)
  return validation, test


# Which labels


def superclasses(
  labels: np.ndarray, seed: int, *, num_classes: int = 10, num_super: int = 2
) -> np.ndarray:
  """Labels that hide the classes in fewer ones: what was a class is then a hidden subgroup.

  The new label of class c is `RandomState(seed).permutation(num_classes)[c] % num_super`.

  Args:
    labels: integers `[n]` below `num_classes`; keep them, they are the subgroups.
    seed: of the assignment.
    num_classes: classes before.
    num_super: classes after.

  Returns:
    The new labels `[n]`.

  >>> superclasses(np.arange(10), seed=5).tolist()
  [1, 1, 0, 0, 1, 1, 0, 0, 0, 1]
  """
  labels = _labels(labels, num_classes)
  if not 2 <= num_super <= num_classes:
    raise ValueError(f"num_super must be 2 to num_classes, but {num_super} was found.")
  return np.random.RandomState(seed).permutation(num_classes)[labels] % num_super


def symmetric_noise(
  labels: np.ndarray, rate: float, num_classes: int, seed: int, *, may_keep: bool = False
) -> tuple[np.ndarray, np.ndarray]:
  """Replaces every label with probability `rate`, whatever the example.

  The usual definition, and the default: by a *different* class, all of them equally likely, so that
  a share `rate` of the labels is wrong. The other one found in papers, "20 % random labels", draws
  among all classes and so keeps one in C of those it hits: `may_keep=True`, of which a share
  `rate * (C - 1) / C` is wrong.

  Args:
    labels: integers `[n]` below `num_classes`.
    rate: 0 to 1.
    num_classes: C, at least 2.
    seed: of the draw.
    may_keep: whether the new label may equal the old one.

  Returns:
    The noisy labels `[n]`, and the mask `[n]` of those that are now wrong.
  """
  if num_classes < 2:
    raise ValueError(f"num_classes must be at least 2, but {num_classes} was found.")
  labels, hit, rng = _hit(labels, rate, num_classes, seed)
  if may_keep:
    other = rng.randint(num_classes, size=len(labels))
  else:
    other = (labels + rng.randint(1, num_classes, size=len(labels))) % num_classes
  noisy = np.where(hit, other, labels)
  return noisy, noisy != labels


def next_class(num_classes: int) -> dict[int, int]:
  """The plainest asymmetric mapping: every class is mistaken for the one after it.

  >>> next_class(3)
  {0: 1, 1: 2, 2: 0}
  """
  return {label: (label + 1) % num_classes for label in range(num_classes)}


def asymmetric_noise(
  labels: np.ndarray, rate: float, mapping: Mapping[int, int], seed: int
) -> tuple[np.ndarray, np.ndarray]:
  """Mistakes classes for others: label c becomes `mapping[c]` with probability `rate`.

  Args:
    labels: integers `[n]`.
    rate: 0 to 1.
    mapping: class to class, such as `next_class(10)` or `CIFAR10_CONFUSIONS`; classes that it
      lacks stay right, so that less than `rate` of all labels may be wrong.
    seed: of the draw.

  Returns:
    The noisy labels `[n]`, and the mask `[n]` of those that are now wrong.
  """
  labels, hit, _ = _hit(labels, rate, None, seed)
  table = np.arange(max([*mapping, int(labels.max(initial=0))]) + 1)
  for source, target in mapping.items():
    if source < 0 or target < 0:
      raise ValueError(f"mapping must hold classes, but {source}: {target} was found.")
    table[source] = target
  noisy = np.where(hit, table[labels], labels)
  return noisy, noisy != labels


# Which features


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


# Shared checks


def _labels(labels: np.ndarray, num_classes: int | None = None) -> np.ndarray:
  """The labels as int64, if they are integers `[n]` from 0 up to below `num_classes`."""
  labels = np.asarray(labels)
  if labels.ndim != 1 or not labels.size or labels.dtype.kind not in "iu":
    raise ValueError(
      f"labels must be integers of shape [n], n at least 1, but {labels.dtype} of shape"
      f" {labels.shape} was found."
    )
  low, high = int(labels.min()), int(labels.max())
  if low < 0 or (num_classes is not None and high >= num_classes):
    limit = "" if num_classes is None else f" and below num_classes={num_classes}"
    raise ValueError(f"labels must be at least 0{limit}, but {low} to {high} was found.")
  return labels.astype(np.int64)


def _hit(
  labels: np.ndarray, rate: float, num_classes: int | None, seed: int
) -> tuple[np.ndarray, np.ndarray, np.random.RandomState]:
  """The checked labels, the mask of those that noise hits, and the generator to go on with."""
  labels = _labels(labels, num_classes)
  if not 0 <= rate <= 1:
    raise ValueError(f"rate must be 0 to 1, but {rate} was found.")
  rng = np.random.RandomState(seed)
  return labels, rng.random_sample(len(labels)) < rate, rng
