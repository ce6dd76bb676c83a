# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Who is trained on, who chooses rates, who is tested; and where there is no verdict."""

import chex
import numpy as np
import pytest

from gq_optax.trial import comparison, rarity, splits, training
from gq_optax.trial.own_data import Own


def own(counts, **more):
  """Examples that are their own row number, of classes in turn as often as said."""
  y = np.concatenate([np.full(n, c) for c, n in enumerate(counts)])
  y = np.random.RandomState(1).permutation(y)
  return Own(np.arange(len(y), dtype=np.float32)[:, None], y, **more)


def rows(task):
  """Which examples are in training, validation and test."""
  parts = (task.x, task.validation[0], task.test[0])
  return [sorted(np.asarray(x)[:, 0].astype(int).tolist()) for x in parts]


def test_without_a_test_set_all_are_tested_in_turn_and_none_chooses_a_rate():
  data = own((50, 23, 4))
  found = splits.of_own(data, "flat", seeds=10, standardise=False)
  tested, validations, sizes = [], set(), set()
  for seed in range(10):
    train, validation, test = rows(found.task_of(seed))
    assert not set(train) & set(test)
    assert not set(validation) & {*train, *test}
    sizes.add((len(train), len(validation), len(test)))
    validations.add(tuple(validation))
    tested.append(test)
    np.testing.assert_array_equal(found.task_of(seed).labels, data.y_train[train])
    rows_of = found.rows_of(seed)
    np.testing.assert_array_equal(found.pool.labels[rows_of], data.y_train[test])
  assert len(sizes) == len(validations) == 1  # one shape, one compilation
  assert np.bincount(data.y_train[list(*validations)]).tolist() == [10, 4, 1]
  for repetition in (tested[:5], tested[5:]):
    together = np.concatenate(repetition)
    assert len(set(together)) == len(together)
    # Left over of fives are some of the most frequent class.
    assert np.bincount(data.y_train[together]).tolist() == [38, 19, 3]
  assert tested[:5] != tested[5:]
  assert found.counts["validation"] == [10, 4, 1]
  assert found.repeated
  assert not found.has_kinds
  assert "some are not tested" in " ".join(splits.of_own(data, "flat", seeds=3).notes)


def test_the_users_test_set_is_left_alone():
  test = {"x_test": np.full((6, 1), 100.0, np.float32), "y_test": np.arange(6) % 3}
  found = splits.of_own(own((40, 12, 2), **test), "flat", seeds=3)
  other = {"x_test": test["x_test"] * 5, "y_test": test["y_test"]}
  same = splits.of_own(own((40, 12, 2), **other), "flat", seeds=3)
  task = found.task_of(0)
  chex.assert_trees_all_equal(task[:4], same.task_of(0)[:4])
  assert len(task.test[0]) == 6
  assert found.task_of(2) is task
  assert found.counts == {"training": [32, 10, 1], "validation": [8, 2, 1], "test": [2, 2, 2]}
  x = np.asarray(task.x)
  assert abs(x.mean()) < 1e-5
  assert abs(x.std() - 1.0) < 1e-5
  chosen = {"x_validation": np.ones((4, 1), np.float32), "y_validation": np.arange(4) % 2}
  given = splits.of_own(own((40, 12, 2), **test, **chosen), "flat", seeds=3)
  assert given.counts["training"] == [40, 12, 2]
  assert given.counts["validation"] == [2, 2, 0]
  assert given.warnings == [
    "The validation split has nothing of class 2, so it has no say in the learning rates."
  ]


def test_a_class_that_a_split_lacks_is_told():
  found = splits.of_own(own((40, 2, 1)), "flat", seeds=5)
  assert found.counts["validation"] == [8, 0, 0]
  assert found.counts["test"][1:] == [2, 0]
  assert found.counts["training"][1:] == [1, 1]
  assert found.warnings == [
    "The validation split has nothing of class 1, class 2, so they have no say in the learning"
    " rates.",
    "The test split has nothing of class 2, so nothing can be said of it.",
  ]
  many = splits.absent({"training": [0] * 7 + [1]}, [f"kind {k}" for k in range(8)])
  assert many == [
    "The training split has nothing of kind 0, kind 1, kind 2, kind 3, kind 4 and 2 more, so"
    " nothing is learnt of them."
  ]
  lacking = {"x_test": np.ones((30, 1), np.float32), "y_test": np.arange(30) % 2}
  found = splits.of_own(own((40, 20, 9), **lacking), "flat", seeds=5)
  whole, rare = comparison.why_not(found, "mean", 5)
  assert "class 2 has 0 test examples" in whole
  assert "leave x_test and y_test out" in rare
  assert comparison.why_not(found, "accuracy", 5)[0] == ""


def test_none_left_to_choose_a_rate_on():
  number = {"kinds_train": np.arange(45).astype(str)}
  with pytest.raises(ValueError, match="kinds_train must hold a kind of 3 examples or more.*Is it"):
    splits.of_own(own((30, 15), **number), "flat", 2)
  tests = {"x_test": np.ones((2, 1), np.float32), "y_test": np.arange(2)}
  with pytest.raises(ValueError, match="y_train must hold a class of 2 examples or more.*classes"):
    splits.of_own(own((1, 1), **tests), "flat", 2)


def test_kinds_have_names_and_one_in_two_classes_counts_twice():
  kinds = np.array(["b", "a", "b", "a", "c", "c"])
  found, names, classes = splits.number_kinds(np.array([0, 0, 1, 0, 1, 1]), kinds)
  assert names == ["a", "b of class 0", "b of class 1", "c"]
  assert found.tolist() == [1, 0, 2, 0, 3, 3]
  assert classes.tolist() == [0, 0, 1, 1]
  assert splits.number_kinds(np.zeros(3, int), np.array(["10", "9", "10"]))[1] == [
    "kind 9",
    "kind 10",
  ]
  assert splits.number_kinds(np.zeros(3, int), np.array(["01", "1", "\N{SUPERSCRIPT TWO}"]))[1] == [
    "kind 01",
    "kind 1",
    "kind \N{SUPERSCRIPT TWO}",
  ]
  train = {"kinds_train": np.array(["a", "b"])[np.arange(45) % 2]}
  test = {"x_test": np.ones((4, 1), np.float32), "y_test": np.arange(4) % 2}
  both = splits.of_own(own((30, 15), **train, **test, kinds_test=np.array(list("aabb"))), "flat", 2)
  assert both.num_kinds == len(both.classes_of) == len(both.kind_names) == 4
  assert both.oracle
  alone = splits.of_own(own((30, 15), **test, kinds_test=np.array(list("abab"))), "flat", 2)
  assert alone.kind_names == ["a", "b"]
  assert (alone.num_kinds, alone.oracle, alone.has_kinds) == (2, False, True)
  assert list(alone.counts) == ["test"]


@pytest.mark.parametrize(
  ("tests", "seeds", "silent"),
  [
    ((40, 9), 5, (False, False)),
    ((40, 10), 5, (True, True)),
    ((40, 10), 3, (True, True)),
    ((40, 10), 2, (False, False)),
  ],
)
def test_where_there_is_no_verdict(tests, seeds, silent):
  y = np.repeat([0, 1], tests)
  data = own((60, 20), x_test=np.ones((len(y), 1), np.float32), y_test=y)
  reasons = comparison.why_not(splits.of_own(data, "flat", seeds), "mean", seeds)
  assert tuple(reason == "" for reason in reasons) == silent
  if seeds > 2 and not silent[0]:
    assert reasons[1].startswith("class 1 has 9 test examples; a verdict takes at least 10: ")


def test_the_rarest_class_is_the_same_wherever_it_is_told():
  y = np.repeat([0, 1, 2, 3], [40, 30, 12, 25])
  data = own((50, 50, 50, 50), x_test=np.ones((len(y), 1), np.float32), y_test=y)
  found = splits.of_own(data, "flat", 5)
  assert comparison.rarest_class(found) == comparison.rarest_kind(found.counts) == 2


def test_too_few_test_examples_for_a_verdict_on_accuracy():
  for n, silent in ((9, False), (10, True)):
    data = own((60, 20), x_test=np.ones((n, 1), np.float32), y_test=np.arange(n) % 2)
    said = comparison.why_not(splits.of_own(data, "flat", 5), "accuracy", 5)[0]
    assert said.startswith("" if silent else f"the test has {n} examples; a verdict takes")
    assert (said == "") == silent


def test_nothing_left_to_test_in_turn():
  with pytest.raises(
    ValueError, match="x_train must leave 5 examples or more to be tested in turn"
  ):
    splits.of_own(own((3, 3)), "flat", 5)


def test_wrong_labels_in_training_do_not_make_another_class_the_rarest():
  x, kinds = np.ones((30, 1), np.float32), np.repeat([0, 1], [20, 10])
  test = (x, kinds, kinds)
  task = training.Task(x, np.where(np.arange(30) < 12, 1, 0), kinds, test, test)
  found = splits.of_recipe(task, 2, hidden=False)
  assert comparison.class_counts(found) == found.counts
  assert comparison.rarest_class(found) == comparison.rarest_kind(found.counts) == 1
  # Of four kinds in two classes, too.
  kinds = np.repeat([0, 1, 2, 3], [10, 10, 5, 5])
  test = (x, kinds // 2, kinds)
  task = training.Task(x, np.where(np.arange(30) < 12, 1, 0), kinds, test, test)
  found = splits.of_recipe(task, 2, hidden=True)
  assert comparison.class_counts(found)["training"] == [20, 10]


def test_an_example_apart_is_rare_and_its_twin_is_its_neighbour():
  rng = np.random.default_rng(0)
  x = np.concatenate([rng.normal([5, 0, 0], 0.3, (40, 3)), [[0, 5.0, 0], [0, 5.0, 0.1]]])
  found, nearest, cosine = rarity.rarity_of(x, x, np.arange(42))
  assert set(np.argsort(-found)[:2].tolist()) == {40, 41}
  assert nearest[40, 0] == 41
  assert cosine[40, 0] > 0.99
  assert cosine[40, 1] < 0.5
