# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
r"""A kind that has a name, as one more way to be of its class.

A network learns little from a few rows. A linear model on random features (see `descriptors`)
needs far less. It tells the rows that are named k from those of all other classes, with log odds
:math:`o_k` that hold how few are named. Its odds are added to the network's of the class c of k:

.. math:: z_c \leftarrow \log \Big( e^{z_c} + e^{o_k} \sum_{j \ne c} e^{z_j} \Big)

A row that does not resemble the kind keeps its logits.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from gq_optax.trial import failing


class Detectors(NamedTuple):
  """Linear models on features, one for each kind.

  Attributes:
    labels: int `[K]`, the class of each kind.
    weights: `[..., K, d]`, of the features.
    intercepts: `[..., K]`; minus infinity of a kind of too few rows, which is never detected.
  """

  labels: np.ndarray
  weights: np.ndarray
  intercepts: np.ndarray


def learn(
  features: np.ndarray, labels: np.ndarray, told: np.ndarray, rows: np.ndarray
) -> Detectors:
  """Learns to tell each kind from all other classes.

  Args:
    features: `[n, d]`, not those by which rows were given to kinds.
    labels: int `[n]`.
    told: the number of a kind that a row was named, int `[n]`; -1 of rows that nobody named.
    rows: that are learnt from.
  """
  numbers = np.unique(told[told >= 0])
  classes = np.array([labels[told == k][0] for k in numbers], int)
  weights = np.zeros((len(numbers), features.shape[1]))
  intercepts = np.full(len(numbers), -np.inf)
  for i, (kind, label) in enumerate(zip(numbers, classes, strict=True)):
    own, others = rows[told[rows] == kind], rows[labels[rows] != label]
    if len(own) >= failing.LEAST and len(others):
      both = np.concatenate([own, others])
      model = failing.fit(features[both], np.arange(len(both)) < len(own))
      weights[i] = model.coef_[0]
      intercepts[i] = model.intercept_[0] + np.log(len(own) / len(others))
  return Detectors(classes, weights, intercepts)


def add(logits: np.ndarray, features: np.ndarray, found: Detectors) -> np.ndarray:
  """Logits `[n, C]` of rows whose features are `[n, d]`, with the odds of kinds in them."""
  odds = features @ found.weights.T + found.intercepts
  summed = logits.copy()
  for kind, label in enumerate(found.labels):
    others = logsumexp(np.delete(logits, label, axis=-1), axis=-1)
    summed[:, label] = np.logaddexp(summed[:, label], others + odds[:, kind])
  return summed
