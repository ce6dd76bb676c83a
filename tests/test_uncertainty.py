# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""How sure a difference is: figures and intervals by hand, and trials without any difference."""

import numpy as np
import pytest
import scipy.stats

from gq_optax.trial import reading, uncertainty


def pool_of(labels, kinds=None):
  labels = np.asarray(labels)
  kinds = labels if kinds is None else np.asarray(kinds)
  return uncertainty.Pool(labels, kinds, int(labels.max()) + 1, int(kinds.max()) + 1)


def test_figures_by_hand():
  pool = pool_of([0, 0, 1, 1], [0, 1, 2, 2])
  answers = np.array([[0, 1, 1, 0], [0, 0, -1, 1]])  # the second seed did not test the third
  once = uncertainty.Draws(np.ones((1, 2), int), np.ones((1, 4), int))
  found = {f: uncertainty.figures(answers, pool, once, f)[0] for f in ("mean", "accuracy")}
  np.testing.assert_allclose(found["mean"], [(1 + 0.5 + 2 / 3) / 3, 1.0, 0.5, 2 / 3], rtol=1e-6)
  assert found["accuracy"][0] == pytest.approx(5 / 7)
  f1 = uncertainty.figures(answers, pool, once, "macro_f1")[0, 0]
  # Class 0: 3 of 4 found, and 4 are taken for it; class 1: 2 of 3, and 3.
  assert f1 == pytest.approx((2 * 3 / (4 + 4) + 2 * 2 / (3 + 3)) / 2)
  # The first seed twice, and the first and the last example alone.
  drawn = uncertainty.Draws(np.array([[2, 0]]), np.array([[1, 0, 0, 3]]))
  with np.errstate(invalid="ignore"):
    found = uncertainty.figures(answers, pool, drawn, "accuracy")[0]
  np.testing.assert_allclose(found, [0.25, 1.0, np.nan, 0.0])


def test_a_draw_takes_one_less_of_seeds_and_of_every_kind():
  pool = pool_of(np.repeat([0, 1], [7, 3]))
  draws = uncertainty.draw(pool, 5, number=50)
  assert (draws.seeds.sum(axis=1) == 4).all()
  assert (draws.examples[:, :7].sum(axis=1) == 6).all()
  assert (draws.examples[:, 7:].sum(axis=1) == 2).all()
  again = uncertainty.draw(pool, 5, number=50)
  np.testing.assert_array_equal(draws.examples, again.examples)


def test_accuracy_draws_all_examples_together():
  pool = pool_of(np.concatenate([np.zeros(20, int), np.arange(1, 41)]))
  assert (uncertainty.draw(pool, 5, number=50).examples[:, 20:] == 1).all()
  drawn = uncertainty.draw(pool, 5, number=50, figure="accuracy").examples
  assert (drawn.sum(axis=1) == 59).all()
  assert drawn[:, 20:].std() > 0.9


@pytest.mark.parametrize("labels", [[0] * 100 + [1], [0] * 100 + [1, 1], [0] * 20 + [1, 1, 2, 2]])
def test_one_or_two_rare_examples_are_no_difference_in_accuracy(labels):
  """All seeds say the same, and a class is answered alike: the draws of that class never differ."""
  pool = pool_of(labels)
  answers = np.tile(pool.labels, (3, 1))
  draws = uncertainty.draw(pool, 3, figure="accuracy")
  rare = pool.labels == 1
  arms = answers, np.where(rare, 0, answers)
  own, other = (uncertainty.bootstrap(a, pool, draws, "accuracy") for a in arms)
  gap = uncertainty.difference(own, other, 0, num_seeds=3, n=len(labels))
  assert gap.mean > 0
  assert gap.verdict == "no difference shown"


def test_accuracy_with_many_small_classes_holds_its_promise():
  rng, pool = np.random.default_rng(0), pool_of(np.repeat(np.arange(51), [100] + [2] * 50))
  draws = uncertainty.draw(pool, 3, number=400, figure="accuracy")
  wrong, trials = 0, 200
  for _ in range(trials):
    # The large class is always right, the small ones half of the time.
    right = (pool.labels == 0) | (rng.random((2, 1, len(pool.labels))) < 0.5)
    answers = np.where(right, pool.labels, (pool.labels + 1) % 51).repeat(3, axis=1)
    own, other = (uncertainty.bootstrap(a, pool, draws, "accuracy") for a in answers)
    gap = uncertainty.difference(own, other, 0, num_seeds=3, n=len(pool.labels))
    wrong += gap.verdict != "no difference shown"
  assert wrong <= 0.08 * trials


def test_how_many_seeds_test_an_example():
  answers = np.array([[0, -1, 1], [0, 1, -1], [-1, -1, -1]])
  assert uncertainty.times(answers) == pytest.approx((4 + 1 + 1) / (2 + 1 + 1))


def test_what_is_read_of_an_arm_is_what_is_held_against_another():
  """Also where some examples are tested more often than others, as by seven seeds of five folds."""
  rng, pool = np.random.default_rng(1), pool_of(np.repeat([0, 1, 2], [20, 10, 5]))
  answers = rng.integers(0, 3, (7, len(pool.labels)))
  answers[rng.random(answers.shape) < 0.6] = -1
  once = uncertainty.Draws(np.ones((1, 7), int), np.ones((1, len(pool.labels)), int))
  held = uncertainty.figures(answers, pool, once, "mean")[0, 1:]
  np.testing.assert_allclose(reading.recall(answers, pool, pool.labels, 3), held, rtol=1e-5)
  table = reading.confusion(answers, pool)
  np.testing.assert_allclose(table.diagonal() / table.sum(axis=1), held, rtol=1e-5)
  tested = (answers >= 0).any(axis=0)
  np.testing.assert_allclose(table.sum(axis=1), np.bincount(pool.labels[tested]))


def test_the_interval_of_examples_alone_is_students():
  """All seeds say the same, so that it is a paired t-test over the examples of one class."""
  rng = np.random.default_rng(0)
  pool = pool_of(np.zeros(40, int))
  pool = pool._replace(num_classes=2)
  own, other = (np.tile((rng.random(40) < p).astype(int), (3, 1)) for p in (0.2, 0.6))
  draws = uncertainty.draw(pool, 3, number=4000)
  drawn = [uncertainty.bootstrap(a, pool, draws, "accuracy") for a in (own, other)]
  found = uncertainty.difference(*drawn, 0, num_seeds=3, n=40)
  gap = (own[0] == 0).astype(float) - (other[0] == 0)
  half = scipy.stats.t.ppf(0.975, 39) * gap.std(ddof=1) / np.sqrt(40)
  np.testing.assert_allclose(found, [gap.mean(), gap.mean() - half, gap.mean() + half], atol=0.02)
  assert found.verdict == "better"
  assert uncertainty.difference(*drawn[::-1], 0, num_seeds=3, n=40).verdict == "worse"
  many = uncertainty.difference(*drawn, 0, num_seeds=3, n=40, comparisons=20)
  assert many.low < found.low
  alone = uncertainty.difference(*drawn, 0, num_seeds=1, n=40)
  assert np.isnan([alone.low, alone.high]).all()
  assert alone.verdict == "no difference shown"


def simulate(rng, rare, seeds, folds, arms, spread=1.0):
  """A trial of arms that are equally good: verdicts on the mean recall and on the rare class.

  Examples are hard or easy for all arms; arms differ on examples and seeds by chance alone.
  """
  labels = np.repeat([0, 1], [60, rare])
  pool = pool_of(labels)
  tested = np.ones((seeds, len(labels)), bool)
  if folds:
    tested[:] = np.arange(len(labels)) % 5 == np.arange(seeds)[:, None] % 5
  draws, drawn = uncertainty.draw(pool, seeds, number=200), []
  hard = rng.normal(0.5, 2.0, len(labels))
  for _ in range(arms + 1):
    logits = hard + rng.normal(0, 1.5, len(labels)) + rng.normal(0, spread, (seeds, 2))[:, labels]
    right = rng.random(logits.shape) < 1 / (1 + np.exp(-logits))
    answers = np.where(tested, np.where(right, labels, 1 - labels), -1)
    drawn.append(uncertainty.bootstrap(answers, pool, draws, "mean"))
  times = max(1, seeds / 5) if folds else np.inf
  return any(
    uncertainty.difference(own, drawn[0], column, seeds, rare, arms, times).verdict
    != "no difference shown"
    for own in drawn[1:]
    for column in (0, 2)
  )


@pytest.mark.parametrize(
  ("rare", "seeds", "folds"), [(10, 5, False), (30, 5, True), (30, 10, True), (30, 20, True)]
)
def test_of_200_trials_without_a_difference_at_most_8_percent_give_a_verdict(rare, seeds, folds):
  rng = np.random.default_rng(0)
  found = [simulate(rng, rare, seeds, folds, arms=3) for _ in range(200)]
  assert np.mean(found) <= 0.08


def test_few_seeds_that_happen_to_agree_give_no_verdict():
  """Seeds that differ widely, three of them, and many arms."""
  rng = np.random.default_rng(0)
  found = [simulate(rng, 50, 3, False, arms=9, spread=2.0) for _ in range(100)]
  assert np.mean(found) <= 0.08


def test_a_large_difference_is_seen():
  labels = np.repeat([0, 1], [60, 12])
  pool, rng = pool_of(labels), np.random.default_rng(0)
  answers = []
  for chance in (0.1, 0.9):
    right = rng.random((5, 72)) < np.where(labels == 1, chance, 0.95)
    answers.append(np.where(right, labels, 1 - labels))
  draws = uncertainty.draw(pool, 5)
  worse, better = (uncertainty.bootstrap(a, pool, draws, "mean") for a in answers)
  for column in (0, 2):
    assert uncertainty.difference(better, worse, column, 5, 12, comparisons=12).verdict == "better"


def test_what_is_read_of_scores():
  pool = pool_of([0, 0, 0, 1])
  scores = [
    (np.array([0, 1, 3]), np.array([[0, -1.0], [-1, 0], [0, -0.5]])),
    (np.array([2, 3]), np.array([[0, -9.0], [-9, 0]])),
  ]
  answers = reading.predicted(scores, pool)
  assert answers.tolist() == [[0, 1, -1, 0], [-1, -1, 0, 1]]
  found = reading.read(scores, pool, rarest=1, rarity=np.array([4.0, 3.0, 2.0, 1.0]))
  assert found["confusion"] == [[2.0, 1.0], [0.5, 0.5]]
  assert found["recall"] == [0.666667, 0.5]
  assert found["precision"] == [0.8, 0.333333]
  assert found["average_precision"] == 0.75  # second of three, and first
  assert found["false_alarms"] == 250.0  # one of two, and none
  assert found["by_decile"][:4] == [1.0, 0.0, 1.0, 0.5]
  assert found["by_decile"][4:] == [None] * (len(found["by_decile"]) - 4)
  assert reading.average_precision(scores[:1], pool_of([0, 0, 0, 0]), 1) is None


def test_the_chance_of_examples_counts_once_where_seeds_test_different_ones():
  drawn = lambda seeds, examples: uncertainty.Drawn(
    np.zeros(1), *(np.sqrt(v) * np.tile([[1.0], [-1.0]], (50, 1)) for v in (seeds, examples))
  )
  none = drawn(0.0, 0.0)
  square = lambda seeds, examples, times: (
    uncertainty.difference(drawn(seeds, examples), none, 0, 10, 40, times=times).high ** 2
  )
  of_seeds, of_examples = scipy.stats.t.ppf(0.975, [9, 39]) ** 2
  assert square(2.0, 3.0, np.inf) == pytest.approx(2 * of_seeds + 3 * of_examples)
  assert square(2.0, 3.0, 2) == pytest.approx(0.5 * of_seeds + 3 * of_examples)
  assert square(1.0, 3.0, 2) == pytest.approx(3 * of_examples)
  assert square(3.0, 0.1, 1) == pytest.approx(3 * of_seeds)
