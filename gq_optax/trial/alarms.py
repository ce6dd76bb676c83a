# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Recall of a class, or of a kind in it, at a number of false alarms."""

import numpy as np
from scipy.special import logsumexp

LEVELS = (0.01, 0.05, 0.10)  # of the rows of other classes, those that are taken for the class


def odds(logits: np.ndarray, label: int) -> np.ndarray:
  """Log odds of a class against all others, `[...]` from logits `[..., C]`."""
  return logits[..., label] - logsumexp(np.delete(logits, label, axis=-1), axis=-1)


def threshold(odds: np.ndarray, others: np.ndarray, level: float) -> float:
  """The odds above which a share of at most `level` of the others lies.

  >>> float(threshold(np.array([3.0, 2.0, 1.0, 0.0]), np.array([True] * 4), 0.25))
  2.0
  """
  ranked = np.sort(odds[others])[::-1]
  return float(ranked[min(int(level * len(ranked)), len(ranked) - 1)])


def hits(logits: np.ndarray, labels: np.ndarray, label: int, level: float) -> np.ndarray:
  """Which rows lie above the threshold of their seed, bool `[S, n]` from logits `[S, n, C]`."""
  found = odds(logits, label)
  return np.stack([own > threshold(own, labels != label, level) for own in found])
