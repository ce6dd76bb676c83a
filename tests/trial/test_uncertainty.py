# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""How sure a difference is: intervals by hand, and trials without any difference."""

import numpy as np
import pytest
import scipy.stats

from gq_optax.trial import uncertainty


def alone(n):
  return np.zeros(n, int), np.arange(n)


def test_rows_alone_give_students_paired_interval():
  rng = np.random.default_rng(0)
  own, other = (np.tile(rng.random(40) < p, (3, 1)) for p in (0.8, 0.3))
  found = uncertainty.difference(own, other, *alone(40))
  gap = own[0].astype(float) - other[0]
  half = scipy.stats.t.ppf(0.975, 39) * gap.std(ddof=1) / np.sqrt(40)
  np.testing.assert_allclose(
    found[:3], [gap.mean(), gap.mean() - half, gap.mean() + half], rtol=1e-9
  )
  assert found.verdict == "better"
  assert uncertainty.difference(other, own, *alone(40)).verdict == "worse"
  assert uncertainty.difference(own, other, *alone(40), comparisons=20).low < found.low


def test_seeds_alone_give_students_interval():
  own = np.repeat([[0.5], [0.7], [0.9]], 30, axis=1)
  found = uncertainty.difference(own, np.zeros_like(own), *alone(30))
  half = scipy.stats.t.ppf(0.975, 2) * 0.2 / np.sqrt(3)
  np.testing.assert_allclose(found[:3], [0.7, 0.7 - half, 0.7 + half], rtol=1e-9)


def test_folds_have_networks_of_their_own():
  """Variances of the folds add up; equal ones give four times the degrees of freedom."""
  own = np.tile(np.repeat([[0.5], [0.7], [0.9]], 10, axis=1), 4)
  folds = np.repeat(np.arange(4), 10)
  found = uncertainty.difference(own, np.zeros_like(own), *alone(40), folds=folds)
  half = scipy.stats.t.ppf(0.975, 8) * np.sqrt(4 * (0.2 / 4) ** 2 / 3)
  np.testing.assert_allclose(found[:3], [0.7, 0.7 - half, 0.7 + half], rtol=1e-9)


def test_strata_count_the_same_and_minus_one_does_not_count():
  own, other = np.ones((3, 7)), np.zeros((3, 7))
  other[:, :2] = 1.0  # no difference in the first stratum, one in the second
  strata = np.array([0, 0, 1, 1, 1, 1, -1])
  assert uncertainty.difference(own, other, strata, np.arange(7)).mean == pytest.approx(0.5)


def test_rows_of_a_group_are_one_draw():
  rng = np.random.default_rng(1)
  once = (rng.random((3, 20)) < 0.5).astype(float)
  few = uncertainty.difference(once, np.zeros_like(once), *alone(20))
  copies = np.repeat(once, 10, axis=1)
  groups = np.repeat(np.arange(20), 10)
  found = uncertainty.difference(copies, np.zeros_like(copies), np.zeros(200, int), groups)
  np.testing.assert_allclose(found[:3], few[:3], rtol=1e-9)
  apart = uncertainty.difference(copies, np.zeros_like(copies), *alone(200))
  assert apart.half < found.half


def test_one_seed_or_one_row_has_no_interval():
  hits = np.ones((1, 9))
  assert np.isnan(uncertainty.difference(hits, 0 * hits, *alone(9)).low)
  found = uncertainty.difference(np.ones((3, 1)), np.zeros((3, 1)), *alone(1))
  assert np.isnan(found.low)
  assert found.verdict == "no difference shown"


def simulate(rng, rare, seeds, arms, spread=1.0, group=1, folds=1):
  """A trial of arms that are equally good: is there a verdict on mean recall or the rare class?

  Rows are hard or easy for all arms; arms differ on rows, groups of rows and seeds by chance alone.
  """
  labels = np.repeat([0, 1], [60 * group, rare * group])
  n = len(labels)
  clusters = np.arange(n) // group
  strata = labels, np.where(labels == 1, 0, -1)
  hard, hits = rng.normal(0.5, 2.0, n), []
  for _ in range(arms + 1):
    own = rng.normal(0, 1.5, clusters[-1] + 1)[clusters]
    networks = rng.normal(0, spread, (seeds, 2, folds))
    logits = hard + own + networks[:, labels, clusters % folds]
    hits.append(rng.random(logits.shape) < 1 / (1 + np.exp(-logits)))
  return any(
    uncertainty.difference(own, hits[0], s, clusters, 2 * arms, clusters % folds).verdict
    != "no difference shown"
    for own in hits[1:]
    for s in strata
  )


@pytest.mark.parametrize(
  ("rare", "seeds", "arms", "spread", "group", "folds"),
  [
    (10, 5, 3, 1, 1, 1),
    (30, 10, 3, 1, 1, 1),
    pytest.param(50, 3, 9, 2, 1, 1, marks=pytest.mark.slow),
    (20, 5, 3, 1, 5, 1),
    pytest.param(40, 3, 8, 1, 1, 4, marks=pytest.mark.slow),
    (40, 3, 8, 2, 1, 4),
  ],
)
def test_of_200_trials_without_a_difference_at_most_8_percent_give_a_verdict(
  rare, seeds, arms, spread, group, folds
):
  rng = np.random.default_rng(0)
  found = [simulate(rng, rare, seeds, arms, spread, group, folds) for _ in range(200)]
  assert np.mean(found) <= 0.08


def test_a_large_difference_is_seen():
  rng = np.random.default_rng(0)
  worse, better = (rng.random((5, 12)) < chance for chance in (0.1, 0.95))
  assert uncertainty.difference(better, worse, *alone(12), comparisons=12).verdict == "better"


def test_what_could_be_shown_is_about_what_is_shown():
  rng = np.random.default_rng(0)
  n = 400
  first = rng.random(n) < 0.5
  second = np.where(rng.random(n) < 0.2, ~first, first)
  found = uncertainty.difference(
    np.tile(first, (5, 1)), np.tile(second, (5, 1)), *alone(n), comparisons=6
  )
  assert uncertainty.could_show(n, 6) == pytest.approx(found.half, rel=0.15)
  assert uncertainty.could_show(1, 6) == np.inf
