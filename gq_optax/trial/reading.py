# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What a practitioner reads of an arm: recall, precision, confusion, false alarms, rarity.

Scores are a list over the seeds of `(rows, scores [m, C])`: which examples of the pool a seed
tested, and a score for each class, larger for likelier ones. An example counts as often as it was
tested, as in `uncertainty.figures`.
"""

import math

import numpy as np
import scipy.special  # type: ignore[import-untyped]  # comes with jax

from gq_optax.trial.uncertainty import Pool

Scores = list[tuple[np.ndarray, np.ndarray]]
RECALL = 0.9  # at which false alarms are counted


def predicted(scores: Scores, pool: Pool) -> np.ndarray:
  """The class that each seed gives each example, int `[S, N]`; -1 where it was not tested."""
  found = np.full((len(scores), len(pool.labels)), -1)
  for answers, (rows, values) in zip(found, scores, strict=True):
    answers[rows] = values.argmax(axis=1)
  return found


def confusion(answers: np.ndarray, pool: Pool) -> np.ndarray:
  """Examples of each class (row) by predicted class (column), `[C, C]`."""
  found = np.zeros((pool.num_classes, pool.num_classes))
  for row in answers:
    (tested,) = np.nonzero(row >= 0)
    np.add.at(found, (pool.labels[tested], row[tested]), 1.0)
  examples = np.bincount(pool.labels[(answers >= 0).any(axis=0)], minlength=pool.num_classes)
  return found * (examples / np.maximum(found.sum(axis=1), 1.0))[:, None]


def precision(table: np.ndarray) -> list[float | None]:
  """Of what is taken for a class, the part that is of it; None where nothing is."""
  return [_ratio(table[c, c], table[:, c].sum()) for c in range(len(table))]


def recall(answers: np.ndarray, pool: Pool, kinds: np.ndarray, number: int) -> list[float | None]:
  """The part of each of `number` kinds that is recognised; None where nothing of it was tested.

  >>> pool = Pool(np.array([0, 0, 1]), np.array([0, 0, 1]), 3, 3)
  >>> recall(np.array([[0, 1, 1], [0, 0, -1]]), pool, pool.labels, 3)
  [0.75, 1.0, None]
  """
  tested = (answers >= 0).sum(axis=0)
  right = (answers == pool.labels).sum(axis=0)
  there = [kinds == k for k in range(number)]
  return [_ratio(right[own].sum(), tested[own].sum()) for own in there]


def odds(scores: np.ndarray, label: int) -> np.ndarray:
  """Log odds `[m]` of a class against all others, from scores that are logits."""
  others = np.delete(scores, label, axis=1)
  return scores[:, label] - scipy.special.logsumexp(others, axis=1)


def average_precision(scores: Scores, pool: Pool, label: int) -> float | None:
  r"""Mean over seeds of :math:`\sum_k (R_k - R_{k-1}) P_k` when examples are ranked by their odds.

  >>> pool = Pool(np.array([1, 0, 1, 0]), np.zeros(4, int), 2, 1)
  >>> values = np.array([[0., 4.], [0., 3.], [0., 2.], [0., 1.]])
  >>> round(average_precision([(np.arange(4), values)], pool, 1), 3)
  0.833
  """
  found = []
  for rows, values in scores:
    own = pool.labels[rows] == label
    if own.any():
      rank = odds(values, label)
      edges, counts = np.unique(-rank, return_counts=True)  # examples of one score come together
      above = np.cumsum(counts)
      hits = np.searchsorted(np.sort(-rank[own]), edges, side="right")
      found.append(float((np.diff(hits, prepend=0) * hits / above).sum() / own.sum()))
  return float(np.mean(found)) if found else None


def false_alarms(scores: Scores, pool: Pool, label: int) -> float | None:
  """Of 1,000 examples of other classes, those above the threshold that finds `RECALL` of a class.

  >>> pool = Pool(np.array([1, 0, 1, 0]), np.zeros(4, int), 2, 1)
  >>> values = np.array([[0., 4.], [0., 3.], [0., 2.], [0., 1.]])
  >>> false_alarms([(np.arange(4), values)], pool, 1)
  500.0
  """
  found = []
  for rows, values in scores:
    own = pool.labels[rows] == label
    if own.any() and not own.all():
      rank = odds(values, label)
      threshold = np.sort(rank[own])[::-1][math.ceil(RECALL * own.sum()) - 1]
      found.append(1000.0 * float((rank[~own] >= threshold).mean()))
  return float(np.mean(found)) if found else None


def by_decile(answers: np.ndarray, pool: Pool, rarity: np.ndarray) -> list[float | None]:
  """Recall of each tenth of the examples, the rarest tenth first."""
  place = np.empty(len(rarity), int)
  for decile, rows in enumerate(np.array_split(np.argsort(-rarity, kind="stable"), 10)):
    place[rows] = decile
  return recall(answers, pool, place, 10)


def read(scores: Scores, pool: Pool, rarest: int, rarity: np.ndarray | None) -> dict[str, object]:
  """All of it for one arm, ready for JSON.

  Args:
    scores: of the arm.
    pool: what was tested.
    rarest: the class that is rarest in training.
    rarity: of every example of the pool `[N]`, or None.
  """
  answers = predicted(scores, pool)
  table = confusion(answers, pool)
  return {
    "confusion": table.round(2).tolist(),
    "recall": recall(answers, pool, pool.labels, pool.num_classes),
    "recall_of_kinds": recall(answers, pool, pool.kinds, pool.num_kinds),
    "precision": precision(table),
    "average_precision": average_precision(scores, pool, rarest),
    "false_alarms": false_alarms(scores, pool, rarest),
    "by_decile": None if rarity is None else by_decile(answers, pool, rarity),
  }


def _ratio(part: float, whole: float) -> float | None:
  return round(float(part / whole), 6) if whole else None
