# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Which rows fail: out-of-fold losses, rows that fail alike, slices, and maybe wrong labels.

The answers are those of the best plain optimizer, each by networks that never saw the row. A kind
of its own and a wrong label both fail. They differ in whether others of the sort can be learnt
from. So networks are trained once more, with the rows that failed weighted up (as in JTT, Liu et
al. 2021), and asked again about rows that they did not see: the *second look*.
"""

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
from cleanlab.filter import find_label_issues
from scipy.special import log_softmax, logsumexp
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_score
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from gq_optax.trial import alarms
from gq_optax.trial.splits import FOLDS

NEIGHBOURS = 20
DIMENSIONS = 16  # of the embeddings
LEAST = 5  # rows of a slice, in the half that it is found on
MOST = 8  # slices
RECOGNISED = 0.10  # false alarms at which the second look must find a row
UP = 20.0  # the most that a row counts that failed
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
    embeddings: `[n, d]`, out of fold, of the second look.
    alike: int `[n]`: of the `NEIGHBOURS` nearest rows, those that fail alike.
    check: words `[n]`, empty where nothing is to be checked.
    slices: number of a slice `[n]`; -1 where there is none.
    found: what is told of each slice.
    random: the same for slices of shuffled losses.
    rarity: `[n]`, minus the log density of the embeddings.
  """

  probabilities: np.ndarray
  predicted: np.ndarray
  loss: np.ndarray
  fails: np.ndarray
  embeddings: np.ndarray
  alike: np.ndarray
  check: np.ndarray
  slices: np.ndarray
  found: list[dict[str, Any]]
  random: list[dict[str, Any]]
  rarity: np.ndarray


def probabilities(logits: np.ndarray) -> np.ndarray:
  """The mean over seeds of the probabilities, `[n, C]` from `[S, n, C]`."""
  return np.exp(logsumexp(log_softmax(logits, axis=-1), axis=0) - np.log(len(logits)))


def up_weights(labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
  """Weights `[n]` with which rows that fail are looked at again.

  All that are taken for a class together count half as much as the class, but none counts more
  than `UP`.
  """
  found = np.ones(len(labels), np.float32)
  for label in np.unique(labels):
    wrong = (predicted == label) & (labels != label)
    if wrong.any():
      found[wrong] = np.clip(0.5 * (labels == label).sum() / wrong.sum(), 1.0, UP)
  return found


def aligned(features: np.ndarray, folds: np.ndarray) -> np.ndarray:
  """Embeddings `[n, DIMENSIONS]`, of each row by networks that never saw it.

  Features of different networks are not comparable. Each network's are brought to those of the
  first fold's by least squares over all rows.

  Args:
    features: `[FOLDS * S, n, d]`, of all rows, seeds within folds.
    folds: of the rows `[n]`; -1 where none of these networks saw a row.
  """
  seeds, parts = len(features) // FOLDS, []
  for seed in range(seeds):
    reference = features[seed].astype(np.float64)
    own = reference.copy()
    for fold in range(1, FOLDS):
      found = np.c_[features[fold * seeds + seed], np.ones(len(reference))].astype(np.float64)
      square = found.T @ found + 0.1 * np.eye(found.shape[1])
      rows = folds == fold
      own[rows] = found[rows] @ np.linalg.solve(square, found.T @ reference)
    parts.append(own)
  joined = np.concatenate(parts, axis=1)
  return PCA(min(DIMENSIONS, *joined.shape), random_state=0).fit_transform(joined)


def count_alike(
  embeddings: np.ndarray, labels: np.ndarray, predicted: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Of each row's nearest rows those that fail as it does, and the distance of the farthest."""
  number = min(NEIGHBOURS, len(labels) - 1)
  far, near = NearestNeighbors(n_neighbors=number + 1).fit(embeddings).kneighbors(embeddings)
  same = (labels[near] == labels[:, None]) & (predicted[near] == predicted[:, None])
  same &= near != np.arange(len(labels))[:, None]
  return np.where(predicted != labels, same.sum(axis=1), 0), far[:, -1]


def recognised(logits: np.ndarray, labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
  """Which failing rows the second look finds, at few false alarms among what they were taken for.

  Args:
    logits: `[n, C]` of the second look, out of fold, the mean over seeds.
    labels: int `[n]`.
    predicted: int `[n]`, what the first look took them for.
  """
  found = np.zeros(len(labels), bool)
  for label in np.unique(labels):
    odds = alarms.odds(logits, label)
    for taken in np.unique(predicted[labels == label]):
      right = (labels == taken) & (predicted == taken)
      if taken != label and right.any():
        own = (labels == label) & (predicted == taken)
        found[own] = odds[own] > alarms.threshold(odds, right, RECOGNISED)
  return found


def check(
  labels: np.ndarray, probabilities: np.ndarray, fails: np.ndarray, alike: np.ndarray
) -> np.ndarray:
  """Whether others of a row that fails can be learnt from, or its label may be wrong."""
  issues = find_label_issues(labels, probabilities, n_jobs=1) & fails
  return np.where(fails & alike, ALIKE, np.where(issues & ~alike, ALONE, ""))


def find_slices(
  embeddings: np.ndarray, labels: np.ndarray, predicted: np.ndarray, first: np.ndarray
) -> np.ndarray:
  """Sets of rows that resemble each other and fail alike: a number for each row, -1 for none.

  Rows of one label that are taken for one other class are clustered, in the half `first` alone. All
  other rows of the label, in both halves, belong to a slice where most of their nearest rows in
  the first half do: membership is by embeddings, and not by how a row fails.
  """
  found, number = np.full(len(labels), -1), 0
  pairs = []
  for label in np.unique(labels):
    for taken in np.unique(predicted[first & (labels == label)]):
      (own,) = np.nonzero(first & (labels == label) & (predicted == taken))
      mates = (first & (labels == label)).sum()
      if taken != label and LEAST <= len(own) <= mates / 2:  # else the class fails, and no part
        pairs.append((len(own), label, own))
  for _, label, own in sorted(pairs, key=lambda p: -p[0]):
    (mates,) = np.nonzero(first & (labels == label))
    teams = np.full(len(labels), -1)
    teams[own] = _clusters(embeddings[own])
    nearest = KNeighborsClassifier(min(5, len(mates)), weights="distance")
    nearest.fit(embeddings[mates], teams[mates])
    (every,) = np.nonzero((labels == label) & (found < 0))
    member = nearest.predict(embeddings[every])
    for team in range(teams.max() + 1):
      rows = every[member == team]
      if number < MOST and first[rows].sum() >= LEAST:
        found[rows] = number
        number += 1
  return found


def _clusters(points: np.ndarray) -> np.ndarray:
  """Clusters of points, as many as stand clearly apart."""
  best, found = 0.35, np.zeros(len(points), int)
  for number in range(2, min(4, len(points) // LEAST) + 1):
    labels = KMeans(number, n_init=3, random_state=0).fit_predict(points)
    score = silhouette_score(points, labels)
    if score > best and np.bincount(labels).min() >= LEAST:
      best, found = score, labels
  return found


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
  labels: np.ndarray,
  logits: np.ndarray,
  second_logits: np.ndarray,
  second_features: np.ndarray,
  folds: np.ndarray,
) -> Failing:
  """All of it.

  Args:
    labels: int `[n]`.
    logits: `[S, n, C]` of the best plain optimizer, out of fold.
    second_logits: the same of the second look.
    second_features: `[FOLDS * S, n, d]` of the second look's networks, of all rows.
    folds: of the rows `[n]`.
  """
  chance = probabilities(logits)
  predicted = chance.argmax(axis=1)
  fails = predicted != labels
  loss = -np.log(np.maximum(chance[np.arange(len(labels)), labels], 1e-12))
  embeddings = aligned(second_features, folds)
  near, far = count_alike(embeddings, labels, predicted)
  again = recognised(second_logits.mean(axis=0), labels, predicted)
  first = folds % 2 == 0
  slices = find_slices(embeddings, labels, predicted, first)
  at_random = find_slices(embeddings, labels, shuffled(labels, predicted, first), first)
  hits = logits.argmax(axis=-1) == labels
  tell = lambda own: tell_slices(own, labels, hits, loss, ~first)
  told = check(labels, chance, fails, again)
  told = np.where((told == ALIKE) & (near == 0), "", told)  # nothing alike is near: no word of many
  return Failing(
    chance, predicted, loss, fails, embeddings, near, told,
    slices, tell(slices), tell(at_random), far,
  )  # fmt: skip


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
