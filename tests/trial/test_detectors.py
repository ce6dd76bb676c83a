# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Detectors of kinds: by hand, on a kind that a network misses, on names given at random, kept."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax

from gq_optax.trial import alarms, arms, comparison, descriptors, detectors, failing
from gq_optax.trial.detectors import Detectors


def test_odds_of_a_kind_are_added_to_those_of_its_class():
  chance = np.array([[0.2, 0.3, 0.5], [0.1, 0.6, 0.3]])
  features, other = np.array([[1.0], [0.0]]), np.array([[0.0], [0.0]])
  weights, odds = np.log([[3.0], [9.0]]), np.log([1 / 2, 1 / 4])
  found = detectors.add(np.log(chance), features, Detectors(np.array([2, 2]), weights, odds))
  # Odds 1 of class 2, with those of the kinds, 3 / 2 and 9 / 4; the others keep theirs.
  assert np.exp(alarms.odds(found, 2))[0] == pytest.approx(1 + 3 / 2 + 9 / 4)
  assert np.exp(alarms.odds(found, 2))[1] == pytest.approx(3 / 7 + 1 / 2 + 1 / 4)
  np.testing.assert_array_equal(found[:, :2], np.log(chance)[:, :2])
  absent = Detectors(np.array([2]), np.zeros((1, 1)), np.array([-np.inf]))
  for nothing in (absent, Detectors(np.zeros(0, int), np.zeros((0, 1)), np.zeros(0))):
    np.testing.assert_array_equal(detectors.add(np.log(chance), other, nothing), np.log(chance))


def world(rng, n=600, dim=40, apart=6.0):
  """Class 1 is seen by a network but for a kind that lies apart in a feature; rows, and logits."""
  labels = (np.arange(n) % 3 == 0).astype(int)
  kind = np.arange(n) % 12 == 0
  features = rng.normal(size=(n, dim)).astype(np.float32)
  features[kind, 0] += apart
  odds = 4 * np.where(kind, 0, labels) - 2 + rng.normal(size=(5, n))
  return labels, kind, features, np.stack([np.zeros_like(odds), odds], axis=-1)


def test_a_kind_that_the_network_misses_is_found_among_rows_that_were_not_learnt_from():
  labels, kind, features, logits = world(np.random.default_rng(0))
  train, test = np.arange(300), np.arange(300, 600)
  found = detectors.learn(features, labels, np.where(kind, 5, -1), train)
  both = np.stack([detectors.add(own[test], features[test], found) for own in logits])
  recall = lambda z, own: alarms.hits(z, labels[test], 1, 0.1)[:, own[test]].mean()
  assert recall(logits[:, test], kind) < 0.3
  assert recall(both, kind) > 0.9
  rest = (labels == 1) & ~kind
  assert recall(both, rest) > recall(logits[:, test], rest) - 0.01


def test_nothing_is_learnt_from_other_rows_and_nothing_from_a_few():
  labels, kind, features, _ = world(np.random.default_rng(0))
  train, told = np.arange(300), np.where(kind, 5, -1)
  found = detectors.learn(features, labels, told, train)
  told[300:], labels[300:], features[300:] = 5, 0, 9
  again = detectors.learn(features, labels, told, train)
  np.testing.assert_array_equal(again.weights, found.weights)
  np.testing.assert_array_equal(again.intercepts, found.intercepts)
  few = np.flatnonzero(kind)[: failing.LEAST - 1]
  told = np.where(np.isin(np.arange(600), few), 5, -1)
  assert detectors.learn(features, labels, told, train).intercepts == [-np.inf]


def test_of_50_kinds_named_at_random_at_most_8_percent_win():
  """So many features that the named rows can be learnt by heart; nothing in them holds."""
  rng, wins = np.random.default_rng(0), 0
  train, test = np.arange(240), np.arange(240, 480)
  for _ in range(50):
    labels, _, features, logits = world(rng, 480, 200, apart=0)
    kind = np.zeros(480, bool)
    kind[rng.choice(np.flatnonzero(labels == 1), 60, replace=False)] = True
    found = detectors.learn(features, labels, np.where(kind, 5, -1), train)
    both = np.stack([detectors.add(own[test], features[test], found) for own in logits])
    figures = comparison.figures(labels[test], ["ok", "fault"], 1, test)
    figures.append(comparison.Figure("recall of a kind", np.where(kind, 0, -1)[test], 1))
    compared = comparison.compare(
      figures, {"Muon": logits[:, test], "detector": both}, "Muon", ("Muon",), labels[test], test
    )
    wins += any(comparison.winners(one) for one in compared)
  assert wins <= 4


@pytest.mark.parametrize(
  ("shape", "layout"),
  [
    ((50, 7), "dense"),
    ((50, 64, 2), "series"),
    ((50, 8, 8), "images"),
    ((50, 40, 70, 3), "images"),
  ],
)
def test_new_rows_are_measured_as_those_before(shape, layout):
  x = np.random.default_rng(0).normal(size=shape)
  found, ruler = descriptors.measure(x, layout, 1)
  again, _ = descriptors.measure(x[:7], layout, 1, ruler)
  np.testing.assert_allclose(again, found[:7], atol=1e-4)
  assert np.abs(found - descriptors.describe(x, layout)).max() > 1  # others than those of seed 0


@pytest.mark.standard_promotion  # the networks of flax, and optax
def test_new_rows_are_scored_with_the_detectors_that_were_tested(tmp_path):
  from gq_optax.trial import rows, runs, scoring
  from gq_optax.trial.splits import Split

  rng = np.random.default_rng(0)
  x = rng.normal(size=(300, 6)).astype(np.float32)
  labels, kind = (np.arange(300) % 3 == 0).astype(int), np.arange(300) % 6 == 0
  x[kind, 1] += 3
  train, test = np.arange(200), np.arange(200, 300)
  features, ruler = descriptors.measure(x, "dense", 1)
  own = rows.Rows(x, labels, ["ok", "fault"], [], [])
  split = [Split(train, train[40:], train[:40], test)]
  bench = runs.Bench(
    x, labels, labels + kind, split, 2, 32, 20, "dense", True, np.where(kind, 2, -1), features
  )
  answers = runs.run_arm(bench, arms.Arm(detect="kind"), "SGDM")
  plain = runs.run_arm(bench, arms.Arm(), "SGDM")
  assert np.isnan(answers.logits[:, train]).all()
  scoring.keep(tmp_path, "detector by kind", answers, own, ruler)
  np.savez(tmp_path / "new.npz", x=x[test])
  scores = pd.read_csv(scoring.score(tmp_path, tmp_path / "new.npz"))["probability of fault"]
  tested = softmax(answers.logits[:, test], axis=-1).mean(axis=0)[:, 1]
  np.testing.assert_allclose(scores, tested, atol=2e-5)
  assert np.abs(tested - softmax(plain.logits[:, test], axis=-1).mean(axis=0)[:, 1]).max() > 0.05
