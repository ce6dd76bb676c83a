# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Rows that fail alike, slices and their control, wrong labels, on a generator that is known."""

import numpy as np
import pytest

from gq_optax.trial import alarms, comparison, failing
from gq_optax.trial.uncertainty import Difference


def world(seed=0, n=1200, hidden=60, wrong=0):
  """Two classes; a part of the second lies by itself and is taken for the first."""
  rng = np.random.default_rng(seed)
  labels = (np.arange(n) % 3 == 0).astype(int)
  points = rng.normal(size=(n, 4)) + 6 * labels[:, None]
  kind = np.zeros(n, bool)
  kind[rng.choice(np.flatnonzero(labels == 1), hidden, replace=False)] = True
  points[kind] = rng.normal(size=(hidden, 4)) + [0, 0, 0, -9]
  predicted = np.where(kind, 0, labels)
  mistaken = np.zeros(n, bool)
  mistaken[rng.choice(np.flatnonzero(~kind), wrong, replace=False)] = True
  return points, np.where(mistaken, 1 - labels, labels), predicted, kind, mistaken


def test_a_slice_is_found_on_one_half_and_holds_in_the_other():
  points, labels, predicted, kind, _ = world()
  first = np.arange(len(labels)) % 2 == 0
  slices = failing.find_slices(points, labels, predicted, first)
  own = (slices == 0) & ~first
  assert slices.max() == 0
  assert kind[own].mean() > 0.95
  assert own[kind & ~first].mean() > 0.95
  hits = np.tile(predicted == labels, (3, 1))
  (told,) = failing.tell_slices(slices, labels, hits, np.zeros(len(labels)), ~first)
  assert told["label"] == 1
  assert told["recall"] < 0.05
  assert told["effect"] < -0.9
  assert (~first)[told["typical"]].all()


def test_a_class_that_fails_as_a_whole_is_no_slice():
  points, labels, _, _, _ = world()
  slices = failing.find_slices(points, labels, np.zeros_like(labels), np.arange(1200) % 2 == 0)
  assert (slices == -1).all()


def test_the_control_has_an_effect_of_about_nothing():
  effects = []
  for seed in range(5):
    points, labels, predicted, _, _ = world(seed)
    first = np.arange(len(labels)) % 2 == 0
    dealt = failing.shuffled(labels, predicted, first)
    assert (dealt[first] != labels[first]).sum() == (predicted[first] != labels[first]).sum()
    slices = failing.find_slices(points, labels, dealt, first)
    hits = np.tile(predicted == labels, (3, 1))
    told = failing.tell_slices(slices, labels, hits, np.zeros(len(labels)), ~first)
    effects += [one["effect"] for one in told if one["effect"] is not None]
  assert abs(np.mean(effects or [0.0])) < 0.15


def test_membership_is_by_embeddings_and_not_by_failing():
  points, labels, predicted, kind, _ = world()
  first = np.arange(len(labels)) % 2 == 0
  right = np.where(first, predicted, labels)  # in the second half nothing fails
  slices = failing.find_slices(points, labels, right, first)
  assert (slices == 0)[kind & ~first].mean() > 0.95


def test_wrong_labels_are_told_from_a_kind_of_its_own():
  points, labels, predicted, kind, wrong = world(wrong=60)
  rng = np.random.default_rng(1)
  fails = predicted != labels
  chance = np.full((len(labels), 2), 0.03)
  chance[np.arange(len(labels)), predicted] = 0.97
  # The second look finds the kind, and not the wrong labels.
  logits = np.stack([np.zeros(len(labels)), rng.normal(size=len(labels)) - 4], axis=1)
  logits[(labels == 1) & ~wrong, 1] += 8
  again = failing.recognised(logits, labels, predicted)
  found = failing.check(labels, chance, fails, again)
  assert (found[kind & fails] == failing.ALIKE).mean() > 0.9
  assert (found[wrong & (labels == 1)] == failing.ALONE).mean() > 0.6
  assert (found[~fails] == "").all()


def test_rows_that_fail_alike_are_counted():
  points, labels, predicted, kind, wrong = world(wrong=30)
  alike, _ = failing.count_alike(points, labels, predicted)
  assert alike[kind & (predicted != labels)].mean() > 15
  assert alike[wrong].mean() < 4
  assert (alike[predicted == labels] == 0).all()


def test_up_weights_by_hand():
  labels, predicted = np.array([0] * 40 + [1] * 10), np.zeros(50, int)
  predicted[45:] = 1
  found = failing.up_weights(labels, predicted)
  assert found[:40].tolist() == [1] * 40
  assert found[40:45].tolist() == [4] * 5  # five taken for the forty: 0.5 * 40 / 5
  assert found[45:].tolist() == [1] * 5


def test_features_of_other_networks_are_brought_together():
  rng = np.random.default_rng(0)
  truth = rng.normal(size=(200, 5))
  features = np.stack([truth @ np.linalg.qr(rng.normal(size=(5, 5)))[0] + i for i in range(8)])
  folds = np.arange(200) % 4
  found = failing.aligned(features, folds)
  apart = lambda x: np.linalg.norm(x[:50, None] - x[None, :50], axis=-1)
  np.testing.assert_allclose(apart(found), np.sqrt(2) * apart(truth), rtol=0.1, atol=1e-6)


def test_recall_at_false_alarms_by_hand():
  odds = np.array([5.0, 4, 3, 2, 1, 0, -1, -2, -3, -4, 4.5, -9])
  labels = np.array([0] * 10 + [1] * 2)
  logits = np.stack([np.zeros(12), odds], axis=1)[None]
  hits = alarms.hits(logits, labels, 1, 0.10)
  assert hits[0, :10].sum() == 1  # of ten
  assert hits[0, 10:].tolist() == [True, False]
  assert not alarms.hits(logits, labels, 1, 0.01)[0, 10]  # nothing may be mistaken


def compared(gap, name="class weights"):
  arms = {"Muon": {"value": 0.5, "gap": None}, name: {"value": 0.6, "gap": gap}}
  return {"name": "recall of defect", "rows": 30, "arms": arms}


@pytest.mark.parametrize(
  ("gap", "words"),
  [
    (Difference(0.1, 0.04, 0.16, "rows"),
     "Class weights beat Muon by +10.0 [+4.0, +16.0] points in the recall of defect."),
    (Difference(0.01, -0.02, 0.04, "rows"),
     "Nothing beat Muon in the recall of defect; this trial could have shown 3.0 points. More test"
     " rows would show less."),
    (Difference(-0.1, -0.16, -0.04, "seeds"),
     "Nothing beat Muon in the recall of defect; this trial could have shown 6.0 points. More seeds"
     " would show less. Worse: class weights."),
    (Difference(0.7, 0.35, 1.05, "rows"),
     "Class weights beat Muon by +70.0 [+35.0, +100.0] points in the recall of defect."),
    (Difference(0.1, np.nan, np.nan), "The recall of defect: 30 rows are too few to tell."),
  ],
)  # fmt: skip
def test_sentences(gap, words):
  told, validation = compared(gap), {"Muon": 0.5, "class weights": 0.6}
  assert comparison.sentence(told, "Muon", validation) == words
  wanted = "class weights" if gap.low > 0 else "Muon"
  assert comparison.take([told], "Muon", validation) == wanted
  assert "[-100" not in comparison.span(gap)


def test_an_interval_that_tells_nothing_gives_no_verdict():
  """Two rows in three are recognised more, of ten: half the interval is wider than 50 points."""
  labels = np.array([0] * 30 + [1] * 10)
  right = np.zeros((3, 40, 2))
  right[:, :30, 0] = right[:, 30:, 1] = 1
  wrong = right.copy()
  wrong[:, 30:37] = right[0, 0]
  figure = comparison.Figure("recall of defect", np.where(labels == 1, 0, -1))
  arms = {"Muon": wrong} | {f"arm {i}": right for i in range(20)}
  (told,) = comparison.compare([figure], arms, "Muon", ("Muon",), labels, np.arange(40))
  assert np.isnan(told["arms"]["arm 0"]["gap"].low)
  assert comparison.sentence(told, "Muon", {}) == (
    "The recall of defect: 10 rows are too few to tell."
  )


def simulated(rng, arms, seeds=5):
  """Logits of arms that are equally good, on rows that are hard or easy for all."""
  labels = np.repeat([0, 1], [200, 40])
  hard, sign = rng.normal(1.0, 1.5, len(labels)), np.where(labels == 1, 1, -1)
  found = {}
  for name in arms:
    own = rng.normal(0, 1, len(labels))
    shift = rng.normal(0, 0.7, (seeds, 1))
    odds = sign * (hard + own + rng.normal(0, 0.5, (seeds, len(labels)))) + shift
    found[name] = np.stack([np.zeros_like(odds), odds], axis=-1)
  return labels, found


def test_of_200_whole_comparisons_without_a_difference_at_most_8_percent_give_a_verdict():
  """Through the very code of a trial: mean recall, the rarest class, and a slice at 10 %."""
  rng, verdicts = np.random.default_rng(0), 0
  names = ("Muon", *(f"arm {i}" for i in range(8)))
  for _ in range(200):
    labels, logits = simulated(rng, names)
    clusters = np.arange(len(labels))
    figures = comparison.figures(labels, ["ok", "fault"], 1, clusters)
    slice_of = np.where(np.arange(len(labels)) >= 225, 0, -1)
    figures.append(comparison.Figure("recall of a slice", slice_of, 1))
    told = comparison.compare(figures, logits, "Muon", ("Muon",), labels, clusters)
    verdicts += any(
      a["gap"] and a["gap"].verdict != "no difference shown"
      for t in told
      for a in t["arms"].values()
    )
  assert verdicts <= 16
