# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Transformations of data sets: counts, seeds, rates, and that nothing is drawn twice."""

import math

import numpy as np
import pytest

from benchmarks.harness import recipes, tasks
from gq_optax.trial.own_data import Data

BALANCED = np.random.RandomState(7).permutation(np.repeat(np.arange(10), 6000))  # as Fashion-MNIST


def assert_seeded(draw):
  """The same for a seed, another for another one."""
  np.testing.assert_array_equal(draw(3), draw(3))
  assert not np.array_equal(draw(3), draw(4))


def assert_rate(count, n, rate):
  """Within five standard deviations of the binomial distribution."""
  assert abs(count - n * rate) <= 5 * math.sqrt(n * rate * (1 - rate))


# Which examples


def test_tail_sizes():
  assert tasks.tail_sizes(350, 50.0, 10) == [350, 226, 146, 95, 61, 39, 25, 16, 10, 7]
  assert tasks.tail_sizes(5, 1, 3) == [5, 5, 5]


def test_lt100_is_the_published_task():
  kept = tasks.long_tail(BALANCED, 100, 6000, seed=0)
  assert len(kept) == 14_886
  counts = np.bincount(BALANCED[kept]).tolist()
  assert counts == [int(6000 * 100 ** (-c / 9)) for c in range(10)]
  assert (np.diff(kept) > 0).all()
  # Class by class by one generator: what choice without replacement draws too.
  rng = np.random.RandomState(0)
  by_choice = [
    rng.choice(np.flatnonzero(c == BALANCED), counts[c], replace=False) for c in range(10)
  ]
  np.testing.assert_array_equal(kept, np.sort(np.concatenate(by_choice)))
  np.testing.assert_array_equal(kept, tasks.long_tail(BALANCED, 100, seed=0))
  assert_seeded(lambda seed: tasks.long_tail(BALANCED, 100, 6000, seed=seed))


def test_the_order_says_which_class_is_rare():
  labels = np.repeat(np.arange(4), [40, 10, 20, 80])
  order = [3, 0, 2, 1]
  kept = tasks.long_tail(labels, 8, 80, order=order, seed=1)
  assert np.bincount(labels[kept])[order].tolist() == tasks.tail_sizes(80, 8, 4)


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ({"imbalance": 0.5}, "imbalance must be at least 1 and finite, but 0.5"),
    ({"imbalance": math.nan}, "imbalance must be at least 1 and finite, but nan"),
    ({"imbalance": math.inf}, "imbalance must be at least 1 and finite, but inf"),
    ({"imbalance": 100}, "largest must leave every class an example, but 6 at imbalance 100"),
    ({"largest": 9}, "largest must leave class 0 at most its 6 examples, but 9"),
    ({"order": [0, 0, 1]}, r"order must be a permutation of the 3 classes, but \[0, 0, 1\]"),
    ({"labels": np.zeros(3, int)}, "num_classes must be at least 2, but 1"),
    ({"labels": np.zeros((3, 1), int)}, r"labels must be integers of shape \[n\].*\(3, 1\)"),
    ({"labels": np.zeros(3)}, "labels must be integers .* float64"),
    ({"labels": np.zeros(0, int)}, "n at least 1"),
    ({"labels": np.array([-1, 0])}, "labels must be at least 0, but -1 to 0"),
  ],
)
def test_bad_long_tails(arguments, message):
  good = {"labels": np.repeat(np.arange(3), 6), "imbalance": 2, "seed": 0}
  with pytest.raises(ValueError, match=message):
    tasks.long_tail(**(good | arguments))


@pytest.mark.parametrize("fraction", [0.05, 1 / 3, 0.5, 0.9])
def test_stratified_split(fraction):
  sizes = np.array([50, 2, 3, 7, 1, 101, 0, 5])
  labels = np.random.RandomState(0).permutation(np.repeat(np.arange(8), sizes))
  first, second = tasks.stratified_split(labels, fraction, seed=0)
  np.testing.assert_array_equal(np.sort(np.concatenate([first, second])), np.arange(len(labels)))
  assert (np.diff(first) > 0).all()
  assert (np.diff(second) > 0).all()
  held = np.bincount(labels[second], minlength=8)
  assert (np.abs(held - fraction * sizes) <= 1).all()
  assert (held < np.maximum(sizes, 1)).all()
  assert_seeded(lambda seed: tasks.stratified_split(labels, fraction, seed)[1])
  with pytest.raises(ValueError, match="fraction must lie between 0 and 1, but 1"):
    tasks.stratified_split(labels, 1, seed=0)


def test_halves():
  labels = np.repeat(np.arange(3), [1000, 7, 1])
  validation, test = tasks.halves(labels, seed=0)
  assert not set(validation) & set(test)
  assert len(validation) + len(test) == len(labels)
  assert np.bincount(labels[validation], minlength=3)[[0, 2]].tolist() == [500, 0]
  assert np.bincount(labels[test], minlength=3)[[0, 2]].tolist() == [500, 1]
  assert abs(np.bincount(labels[test])[1] - 3.5) == 0.5


# Which labels


@pytest.mark.parametrize("seed", [5, 6, 7])
def test_superclasses_keep_the_subgroups(seed):
  before = BALANCED.copy()
  labels = tasks.superclasses(BALANCED, seed)
  np.testing.assert_array_equal(BALANCED, before)
  table = np.random.RandomState(seed).permutation(10) % 2
  np.testing.assert_array_equal(labels, [table[c] for c in BALANCED])
  assert np.bincount(labels).tolist() == [30_000, 30_000]  # five subgroups in each


def test_superclasses_of_another_number():
  labels = tasks.superclasses(np.arange(6), 0, num_classes=6, num_super=3)
  assert np.bincount(labels).tolist() == [2, 2, 2]
  with pytest.raises(ValueError, match="below num_classes=10, but 0 to 11 was found"):
    tasks.superclasses(np.arange(12), 0)
  with pytest.raises(ValueError, match="num_super must be 2 to num_classes, but 1"):
    tasks.superclasses(np.arange(10), 0, num_super=1)


@pytest.mark.parametrize("name", ["both5", "both6", "both7"])
def test_labels_that_name_a_part_are_five_classes_of_two_kinds(name):
  kinds = BALANCED
  x = np.random.RandomState(0).normal(size=(len(kinds), 3)).astype(np.float32)
  task, num_classes = recipes.make_task(recipes.RECIPES[name], Data(x, kinds, x, kinds))
  assert num_classes == 5
  pairs = {(int(label), int(kind)) for label, kind in zip(task.labels, task.kinds, strict=True)}
  assert [sum(label == c for label, _ in pairs) for c in range(5)] == [2] * 5
  np.testing.assert_array_equal(np.bincount(recipes.classes_of_kinds(task)), [2] * 5)


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.4, 1.0])
def test_symmetric_noise_is_always_another_class(rate):
  noisy, wrong = tasks.symmetric_noise(BALANCED, rate, 10, seed=0)
  np.testing.assert_array_equal(wrong, noisy != BALANCED)
  assert_rate(wrong.sum(), len(wrong), rate)
  # Every wrong class equally often.
  for shift in range(1, 10):
    assert_rate(((noisy - BALANCED) % 10 == shift).sum(), len(wrong), rate / 9)
  for label in range(10):
    assert_rate(wrong[label == BALANCED].sum(), 6000, rate)


def test_random_labels_may_keep_the_true_one():
  noisy, wrong = tasks.symmetric_noise(BALANCED, 0.2, 10, seed=0, may_keep=True)
  np.testing.assert_array_equal(wrong, noisy != BALANCED)
  assert_rate(wrong.sum(), len(wrong), 0.18)


def test_asymmetric_noise():
  noisy, wrong = tasks.asymmetric_noise(BALANCED, 0.3, tasks.next_class(10), seed=0)
  np.testing.assert_array_equal(wrong, noisy != BALANCED)
  np.testing.assert_array_equal(noisy[wrong], (BALANCED[wrong] + 1) % 10)
  assert_rate(wrong.sum(), len(wrong), 0.3)
  all_wrong, wrong = tasks.asymmetric_noise(BALANCED, 1.0, tasks.CIFAR10_CONFUSIONS, seed=0)
  assert wrong.sum() == 5 * 6000  # half the classes are mistaken for others
  for source, target in tasks.CIFAR10_CONFUSIONS.items():
    assert (all_wrong[source == BALANCED] == target).all()
  same, wrong = tasks.asymmetric_noise(BALANCED, 0.0, tasks.next_class(10), seed=0)
  np.testing.assert_array_equal(same, BALANCED)
  assert not wrong.any()


def test_a_mapping_may_go_beyond_the_labels():
  noisy, _ = tasks.asymmetric_noise(np.array([0, 1, 1]), 1.0, {1: 5, 7: 0}, seed=0)
  assert noisy.tolist() == [0, 5, 5]


def test_noise_is_seeded():
  assert_seeded(lambda seed: tasks.symmetric_noise(BALANCED, 0.2, 10, seed)[0])
  assert_seeded(lambda seed: tasks.asymmetric_noise(BALANCED, 0.2, {1: 2}, seed)[0])


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda y: tasks.symmetric_noise(y, 1.5, 3, 0), "rate must be 0 to 1, but 1.5"),
    (lambda y: tasks.asymmetric_noise(y, math.nan, {}, 0), "rate must be 0 to 1, but nan"),
    (lambda y: tasks.symmetric_noise(y, 0.1, 1, 0), "num_classes must be at least 2, but 1"),
    (lambda y: tasks.symmetric_noise(y, 0.1, 2, 0), "below num_classes=2, but 0 to 2"),
    (lambda y: tasks.asymmetric_noise(y, 0.1, {0: -1}, 0), "mapping must hold .* 0: -1"),
  ],
)
def test_bad_noise(call, message):
  with pytest.raises(ValueError, match=message):
    call(np.arange(3))


# Which features


def test_windows():
  series = np.arange(20).reshape(10, 2)
  cut = tasks.windows(series, 4, 3)
  np.testing.assert_array_equal(cut, [series[0:4], series[3:7], series[6:10]])
  cut[0, 0, 0] = 99
  assert series[0, 0] == 0  # a copy
  assert tasks.windows(np.arange(5), 5, 1).tolist() == [[0, 1, 2, 3, 4]]
  with pytest.raises(ValueError, match="length must be 1 to the series' own, but 11"):
    tasks.windows(series, 11, 1)
  with pytest.raises(ValueError, match="length must be 1 to the series' own, but 0"):
    tasks.windows(series, 0, 1)
  with pytest.raises(ValueError, match="stride must be at least 1, but 0"):
    tasks.windows(series, 4, 0)


def test_standardise_images_by_one_mean_and_deviation():
  rng = np.random.RandomState(0)
  train = rng.randint(256, size=(50, 4, 3)).astype(np.uint8)
  test = rng.randint(256, size=(20, 4, 3)).astype(np.uint8)
  before = train.copy()
  for found, x in zip(tasks.standardise(train, test), (train, test), strict=True):
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, (x - train.mean()) / train.std(), rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(train, before)


def test_standardise_in_pieces_is_standardise():
  # Larger than the piece that is held in double precision.
  train = np.random.RandomState(0).randint(256, size=(3000, 3000)).astype(np.uint8)
  (found,) = tasks.standardise(train)
  assert abs(found.mean(dtype=np.float64)) < 1e-6
  assert abs(found.std(dtype=np.float64) - 1) < 1e-6


def test_standardise_tables_by_feature():
  rng = np.random.RandomState(0)
  train = (rng.randn(60, 3) * [1, 100, 0] + [5, -7, 0.1]).astype(np.float32)
  test = train[:5] + np.float32([0, 0, 2])
  found, other = tasks.standardise(train, test, per_feature=True)
  np.testing.assert_allclose(found.mean(0), 0, atol=1e-5)
  np.testing.assert_allclose(found.std(0), [1, 1, 0], atol=1e-5)
  np.testing.assert_allclose(other[:, 2], 2, rtol=1e-6)
  np.testing.assert_allclose(other[:, :2], found[:5, :2], atol=1e-5)


def test_a_constant_image_set_is_only_shifted():
  train, test = tasks.standardise(np.full((3, 2), 7, np.uint8), np.full((1, 2), 9, np.uint8))
  assert not train.any()
  assert (test == 2).all()
