# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Which rows fail: out-of-fold losses, rows that fail alike, slices, and maybe wrong labels.

The answers are those of the best plain optimizer, each by networks that never saw the row. A kind
of its own and a wrong label both fail. They differ in whether others of the sort can be learnt
from. So a linear model learns what rows that fail look like (see `descriptors`), and is asked about
rows that it did not see: the *second look*. A wrong label looks like the class that it is taken
for, and nothing tells it from that.
"""

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
from cleanlab.filter import find_label_issues
from scipy.special import log_softmax, logsumexp
from scipy.stats import binom
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import silhouette_score
from sklearn.neighbors import NearestNeighbors

from gq_optax.trial import alarms

NEIGHBOURS = 20
DIMENSIONS = 16  # in which rows are near or far
LEAST = 5  # rows that fail, from which others can be learnt
MOST = 8  # slices
RECOGNISED = 0.2  # false alarms at which the second look must find a row
STRENGTH = 30.0  # of the linear model, over the number of its rows
# That so many are found where nothing tells them apart, were rows alone. As one model tells many,
# about one such case in twenty passes.
CHANCE = 0.02
ROUNDS = 3  # of learning, each from the rows that the last one recognised
ALIKE = "many alike: maybe a kind of its own"
ALONE = "alone: maybe a wrong label"


@dataclasses.dataclass
class Failing:
  """What is known of every row.

  Attributes:
    probabilities: `[n, C]`, out of fold, the mean over seeds.
    predicted: int `[n]`.
    loss: `[n]`, minus the logarithm of the probability of the label.
    fails: bool `[n]`.
    alike: int `[n]`: how many other rows fail as it does and can be learnt from.
    check: words `[n]`, empty where nothing is to be checked.
    slices: number of a slice `[n]`; -1 where there is none.
    found: what is told of each slice.
    random: the same for slices of shuffled losses.
    rarity: `[n]`, the distance of the nearest rows.
  """

  probabilities: np.ndarray
  predicted: np.ndarray
  loss: np.ndarray
  fails: np.ndarray
  alike: np.ndarray
  check: np.ndarray
  slices: np.ndarray
  found: list[dict[str, Any]]
  random: list[dict[str, Any]]
  rarity: np.ndarray


def probabilities(logits: np.ndarray) -> np.ndarray:
  """The mean over seeds of the probabilities, `[n, C]` from `[S, n, C]`."""
  return np.exp(logsumexp(log_softmax(logits, axis=-1), axis=0) - np.log(len(logits)))


def _pairs(labels: np.ndarray, predicted: np.ndarray) -> list[tuple[int, int]]:
  """Classes and what their rows are taken for, the most rows first, at least `LEAST`."""
  wrong = labels != predicted
  pairs, counts = np.unique(
    np.stack([labels[wrong], predicted[wrong]], axis=1), axis=0, return_counts=True
  )
  order = np.argsort(-counts, kind="stable")
  return [(int(pairs[i, 0]), int(pairs[i, 1])) for i in order if counts[i] >= LEAST]


def resemble(
  features: np.ndarray, own: np.ndarray, others: np.ndarray, train: np.ndarray
) -> np.ndarray:
  """Log odds `[n]` that rows look like those `own` and not like the `others`; both count the same.

  All are bool `[n]`; learnt from the rows `train`. NaN where there is nothing to learn from.
  """
  rows = train & (own | others)
  if not (rows & own).any() or not (rows & others).any():
    return np.full(len(own), np.nan)
  return fit(features[rows], own[rows]).decision_function(features)


def fit(features: np.ndarray, own: np.ndarray) -> LogisticRegression:
  """The linear model that tells rows `own` `[n]` from all others by `features` `[n, d]`."""
  model = LogisticRegression(
    C=STRENGTH / len(own), class_weight="balanced", solver="newton-cholesky", tol=1e-3
  )
  return model.fit(features, own)


def recognised(
  features: np.ndarray, own: np.ndarray, right: np.ndarray, folds: np.ndarray, chance: float
) -> np.ndarray:
  """Which rows of `own` can be learnt from the others, bool `[n]`.

  Those resemble others of `own` more than most rows `right` do, as told by a model that did not see
  their fold. Where so many would be found with a probability above `chance` though nothing tells
  them apart, there are none. Wrong labels blur what is learnt, so it is learnt again from the rows
  that were recognised alone.
  """
  found = own
  for turn in range(ROUNDS):
    odds = np.full(len(own), np.nan)
    for fold in np.unique(folds):
      rows = folds == fold
      odds[rows] = resemble(features, found, right, ~rows)[rows]
    if not np.isfinite(odds).all():  # too few to learn from: those of the last round
      return found & (turn > 0)
    found = own & (odds > alarms.threshold(odds, right, RECOGNISED))
    if not turn and binom.sf(found.sum() - 1, own.sum(), RECOGNISED) >= chance:
      return np.zeros(len(own), bool)
  return found


def count_alike(
  features: np.ndarray, labels: np.ndarray, predicted: np.ndarray, folds: np.ndarray
) -> np.ndarray:
  """How many rows fail as each row does and can be learnt from, int `[n]`.

  They must be told from rows of the class that they are taken for: a wrong label cannot.
  """
  alike = np.zeros(len(labels), int)
  for label, taken in (pairs := _pairs(labels, predicted)):
    own = (labels == label) & (predicted == taken)
    right = (labels == taken) & (predicted == taken)
    again = recognised(features, own, right, folds, CHANCE / len(pairs))
    alike[again] = again.sum() - 1
  return alike


def check(
  labels: np.ndarray, probabilities: np.ndarray, fails: np.ndarray, alike: np.ndarray
) -> np.ndarray:
  """Whether others of a row that fails can be learnt from, or its label may be wrong."""
  issues = find_label_issues(labels, probabilities, n_jobs=1) & fails
  return np.where(alike > 0, ALIKE, np.where(issues, ALONE, ""))


def find_slices(
  features: np.ndarray, labels: np.ndarray, predicted: np.ndarray, folds: np.ndarray
) -> np.ndarray:
  """Sets of rows that resemble each other and fail alike: a number for each row, -1 for none.

  What rows of one label that are taken for one other class look like is learnt in the even folds
  alone, if that tells them there from the rest of the label. All rows of the label that resemble
  those more than rows that do not fail belong to a slice: membership is by features, not by how a
  row fails. Either half has at least `LEAST` of them, else its recall could not be told.
  """
  found, number, first = np.full(len(labels), -1), 0, folds % 2 == 0
  for label, taken in (pairs := _pairs(labels[first], predicted[first])):
    mates = labels == label
    own, right = mates & (predicted == taken), mates & (predicted == label)
    if 2 * (own & first).sum() > (mates & first).sum():
      continue  # the class fails, and no part of it
    again = recognised(features[first], own[first], right[first], folds[first], CHANCE / len(pairs))
    if not again.any():
      continue
    own[first] = again
    right |= (labels == taken) & (predicted == taken)
    (rows,) = np.nonzero(mates & (found < 0) & (resemble(features, own, right, first) > 0))
    for team in _clusters(features[rows]):
      if number < MOST and np.bincount(first[rows[team]], minlength=2).min() >= LEAST:
        found[rows[team]] = number
        number += 1
  return found


def _clusters(points: np.ndarray) -> list[np.ndarray]:
  """Clusters of points, as many as stand clearly apart: rows of each."""
  best, found = 0.35, np.zeros(len(points), int)
  for number in range(2, min(4, len(points) // LEAST) + 1):
    labels = KMeans(number, n_init=3, random_state=0).fit_predict(points)
    score = silhouette_score(points, labels)
    if score > best and np.bincount(labels).min() >= LEAST:
      best, found = score, labels
  return [np.flatnonzero(found == team) for team in np.unique(found)]


def tell_slices(
  slices: np.ndarray, labels: np.ndarray, hits: np.ndarray, loss: np.ndarray, second: np.ndarray
) -> list[dict[str, Any]]:
  """Size, recall and effect of every slice, read on the half that it was not found on."""
  told = []
  for number in range(slices.max() + 1):
    own = (slices == number) & second
    label = int(labels[slices == number][0])
    others = (labels == label) & second & (slices != number)
    recall = float(hits[:, own].mean()) if own.any() else None
    usual = float(hits[:, others].mean()) if others.any() else None
    rows = np.flatnonzero(own)
    told.append({
      "slice": number,
      "label": label,
      "found": int(((slices == number) & ~second).sum()),
      "size": int(own.sum()),
      "recall": recall,
      "recall of the rest": usual,
      "effect": None if recall is None or usual is None else recall - usual,
      "typical": rows[np.argsort(np.abs(loss[rows] - np.median(loss[rows])))[:4]].tolist()
      if len(rows) else [],
    })  # fmt: skip
  return told


def shuffled(labels: np.ndarray, predicted: np.ndarray, first: np.ndarray) -> np.ndarray:
  """Failures dealt to other rows of the same label, in the first half: the control."""
  rng, found = np.random.default_rng(0), predicted.copy()
  for label in np.unique(labels):
    (own,) = np.nonzero(first & (labels == label))
    found[own] = predicted[rng.permutation(own)]
  return found


def look(
  labels: np.ndarray, logits: np.ndarray, features: np.ndarray, folds: np.ndarray
) -> Failing:
  """All of it.

  Args:
    labels: int `[n]`.
    logits: `[S, n, C]` of the best plain optimizer, out of fold.
    features: `[n, d]`, see `descriptors.describe`.
    folds: of the rows `[n]`.
  """
  chance = probabilities(logits)
  predicted = chance.argmax(axis=1)
  fails = predicted != labels
  loss = -np.log(np.maximum(chance[np.arange(len(labels)), labels], 1e-12))
  alike = count_alike(features, labels, predicted, folds)
  first = folds % 2 == 0
  slices = find_slices(features, labels, predicted, folds)
  at_random = find_slices(features, labels, shuffled(labels, predicted, first), folds)
  hits = logits.argmax(axis=-1) == labels
  tell = lambda own: tell_slices(own, labels, hits, loss, ~first)
  return Failing(
    chance, predicted, loss, fails, alike, check(labels, chance, fails, alike),
    slices, tell(slices), tell(at_random), rarity(features),
  )  # fmt: skip


def rarity(features: np.ndarray) -> np.ndarray:
  """How far the nearest rows are, `[n]`: what is rare by features."""
  points = PCA(min(DIMENSIONS, *features.shape), random_state=0).fit_transform(features)
  nearest = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(points) - 1) + 1).fit(points)
  return nearest.kneighbors(points)[0][:, -1]


def table(found: Failing, names: list[str], labels: np.ndarray, classes: list[str]) -> pd.DataFrame:
  """rows.csv: all rows, the highest held-out loss first."""
  word = np.array(classes)
  frame = pd.DataFrame({
    "row": names,
    "label": word[labels],
    "predicted": word[found.predicted],
    "held_out_loss": found.loss.round(4),
    "alike": found.alike,
    "slice": np.where(found.slices < 0, "", np.char.add("slice ", found.slices.astype(str))),
    "check": found.check,
    "rarity_by_features": found.rarity.round(4),
    "kind": "",
  })  # fmt: skip
  return frame.iloc[np.argsort(-found.loss, kind="stable")]
