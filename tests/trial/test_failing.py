# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Rows that fail alike, slices and their control, wrong labels, on a generator that is known."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gq_optax.trial import alarms, comparison, descriptors, failing, page
from gq_optax.trial.uncertainty import Difference


def world(seed=0, n=1200, hidden=60, wrong=0, dim=4, apart=-9):
  """Two classes; a part of the second lies by itself and is taken for the first."""
  rng = np.random.default_rng(seed)
  labels = (np.arange(n) % 3 == 0).astype(int)
  points = rng.normal(size=(n, dim)) + 6 * labels[:, None]
  kind = np.zeros(n, bool)
  kind[rng.choice(np.flatnonzero(labels == 1), hidden, replace=False)] = True
  points[kind] = rng.normal(size=(hidden, dim)) + apart * (np.arange(dim) == dim - 1)
  predicted = np.where(kind, 0, labels)
  mistaken = np.zeros(n, bool)
  mistaken[rng.choice(np.flatnonzero(~kind), wrong, replace=False)] = True
  labels = np.where(mistaken, 1 - labels, labels)
  return descriptors.describe(points, "dense"), labels, predicted, kind, mistaken


def test_a_slice_is_found_on_one_half_and_holds_in_the_other():
  features, labels, predicted, kind, _ = world()
  folds = np.arange(len(labels)) % 4
  first = folds % 2 == 0
  slices = failing.find_slices(features, labels, predicted, folds)
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
  features, labels, _, _, _ = world()
  slices = failing.find_slices(features, labels, np.zeros_like(labels), np.arange(1200) % 4)
  assert (slices == -1).all()


def test_the_control_has_an_effect_of_about_nothing():
  effects = []
  for seed in range(5):
    features, labels, predicted, _, _ = world(seed)
    first = np.arange(len(labels)) % 2 == 0
    dealt = failing.shuffled(labels, predicted, first)
    assert (dealt[first] != labels[first]).sum() == (predicted[first] != labels[first]).sum()
    slices = failing.find_slices(features, labels, dealt, np.arange(len(labels)) % 4)
    hits = np.tile(predicted == labels, (3, 1))
    told = failing.tell_slices(slices, labels, hits, np.zeros(len(labels)), ~first)
    effects += [one["effect"] for one in told if one["effect"] is not None]
  assert abs(np.mean(effects or [0.0])) < 0.15


def test_membership_is_by_embeddings_and_not_by_failing():
  features, labels, predicted, kind, _ = world()
  first = np.arange(len(labels)) % 2 == 0
  right = np.where(first, predicted, labels)  # in the second half nothing fails
  slices = failing.find_slices(features, labels, right, np.arange(len(labels)) % 4)
  assert (slices == 0)[kind & ~first].mean() > 0.95


def test_wrong_labels_are_told_from_a_kind_of_its_own():
  """Both fail. Of the kind others can be learnt from; nothing tells wrong labels from the rest."""
  features, labels, predicted, kind, wrong = world(wrong=60)
  kind &= ~wrong
  folds = np.arange(len(labels)) % 4
  # The kind is taken for class 0; wrong labels fail both ways.
  fails = predicted != labels
  chance = np.full((len(labels), 2), 0.03)
  chance[np.arange(len(labels)), predicted] = 0.97
  alike = failing.count_alike(features, labels, predicted, folds)
  found = failing.check(labels, chance, fails, alike)
  assert (found[kind] == failing.ALIKE).mean() > 0.9
  assert (found[wrong] == failing.ALONE).mean() > 0.6
  assert (found[~fails] == "").all()
  assert (alike[found == failing.ALIKE] > 0).all()
  assert (alike[~fails] == 0).all()


@pytest.mark.slow
def test_a_small_kind_is_seen_though_most_rows_that_fail_are_wrong_labels():
  missed, told = [], []
  for seed in range(3):
    features, labels, predicted, kind, wrong = world(seed, 1500, 30, 100, dim=40, apart=4)
    alike = failing.count_alike(features, labels, predicted, np.arange(1500) % 4)
    missed += (alike[kind] == 0).tolist()
    told += (alike[wrong] == 0).tolist()
  assert np.mean(missed) < 0.1
  assert np.mean(told) > 0.6


@pytest.mark.slow
def test_where_failing_is_by_chance_nothing_is_alike():
  found = []
  for seed in range(10):
    features, labels, predicted, _, _ = world(seed, hidden=0, wrong=80)
    folds = np.arange(len(labels)) % 4
    found.append(failing.count_alike(features, labels, predicted, folds).max())
  assert np.count_nonzero(found) <= 2


def test_few_rows_that_fail_are_not_learnt_from():
  features, labels, predicted, _, _ = world(hidden=failing.LEAST - 1)
  folds = np.arange(len(labels)) % 4
  assert not failing.count_alike(features, labels, predicted, folds).any()
  assert (failing.find_slices(features, labels, predicted, folds) == -1).all()


@pytest.mark.parametrize(
  ("shape", "layout"),
  [
    ((50, 7), "dense"),
    ((50, 2000), "dense"),
    ((50, 64), "series"),
    ((50, 3, 2), "series"),
    ((50, 64, 2), "series"),
    ((50, 8, 8), "images"),
    ((50, 40, 70, 3), "images"),
    ((50, 1, 1), "images"),
  ],
)
def test_descriptors_are_finite_and_the_same_each_time(shape, layout):
  x = np.random.default_rng(0).normal(size=shape)
  found = descriptors.describe(x, layout)
  assert found.dtype == np.float32
  assert found.shape[0] == 50
  assert found.shape[1] <= 2 * descriptors.KERNELS  # however wide the rows
  assert np.isfinite(found).all()
  np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-4)
  np.testing.assert_array_equal(found, descriptors.describe(x, layout))


def test_descriptors_of_a_series_do_not_ask_where():
  """A fault is recognised at a place where none was seen."""
  rng = np.random.default_rng(0)
  x = rng.normal(size=(400, 64))
  fault = np.arange(400) % 2 == 0
  for row in np.flatnonzero(fault):
    at = row // 2 % 20 + 34 * (row >= 200)
    x[row, at : at + 10] += 2 * np.cos(np.pi * np.arange(10))
  labels = np.ones(400, int)
  labels[fault] = 0
  train = np.arange(400) < 200
  score = {}
  for layout in ("series", "dense"):
    features = descriptors.describe(x, layout)
    model = failing.LogisticRegression(C=0.1).fit(features[train], labels[train])
    score[layout] = model.score(features[~train], labels[~train])
  assert score["series"] > 0.9
  assert score["dense"] < 0.8


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
     "Nothing beat Muon in the recall of defect; this trial could have shown 3.0 points, and"
     " with more test rows fewer."),
    (Difference(-0.1, -0.16, -0.04, "seeds"),
     "Nothing beat Muon in the recall of defect; this trial could have shown 6.0 points, and"
     " with more seeds fewer. Worse: class weights."),
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


def test_the_headline_is_what_beat_the_baseline():
  wins, loses = Difference(0.1, 0.04, 0.16, "rows"), Difference(0.01, -0.02, 0.04, "rows")
  found = SimpleNamespace(
    fails=np.zeros(60, bool), check=np.full(60, ""), found=[], rarity=np.arange(60.0)
  )
  told: Any = SimpleNamespace(
    seen=SimpleNamespace(trained=[9, 9], missing=[]),
    own=SimpleNamespace(images=False, classes=["ok", "defect"]),
    compared=[compared(loses), compared(wins)],
    validation={"Muon": 0.5, "class weights": 0.6},
    baseline="Muon",
    taken="class weights",
    found=found,
  )
  said = page.sentences(told)
  assert said[0].startswith("Class weights beat Muon by +10.0 [+4.0, +16.0] points")
  assert said[1].startswith("Nothing beat Muon")
  assert said[2] == "Take class weights."


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
