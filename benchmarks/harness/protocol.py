# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""How arms are compared: rates tuned on validation, figures of a run, paired differences."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.stats  # comes with jax


def tune(
  score: Callable[[float], float], rates: tuple[float, ...], max_extensions: int
) -> tuple[float, dict[float, float], bool]:
  """The rate of the highest score; the grid grows by doubling until that rate lies inside it.

  Returns:
    The best rate, the scores by rate, and whether the best lies inside (it may not be, if
    `max_extensions` did not suffice).
  """
  scores = {rate: score(rate) for rate in rates}
  for extension in range(max_extensions + 1):
    # A run that diverged scores NaN, which no comparison can order.
    best = max(scores, key=lambda r: -math.inf if math.isnan(scores[r]) else scores[r])
    inside = min(scores) < best < max(scores)
    if inside or extension == max_extensions:
      break
    rate = best / 2 if best == min(scores) else best * 2
    scores[rate] = score(rate)
  return best, dict(sorted(scores.items())), inside


def paired(values: npt.ArrayLike, baseline: npt.ArrayLike) -> dict[str, Any]:
  """Mean difference over seeds, its 95 % interval by Student's t, and what that shows."""
  difference = np.subtract(values, baseline)
  mean, error = difference.mean(), difference.std(ddof=1) / math.sqrt(len(difference))
  half = scipy.stats.t.ppf(0.975, len(difference) - 1) * error
  verdict = "better" if mean > half else "worse" if mean < -half else "not shown to differ"
  low, mean, high = float(mean - half), float(mean), float(mean + half)
  return {"mean": mean, "low": low, "high": high, "verdict": verdict}


def figures(confusion: np.ndarray, classes_of: np.ndarray) -> dict[str, float]:
  """Accuracy of the kinds, mean and lowest; accuracy, lowest and macro-F1 of the classes.

  Args:
    confusion: how often each class is predicted for each kind, `[kinds, classes]`.
    classes_of: the class of each kind.
  """
  number = confusion.sum(axis=1)
  present = number > 0
  hits = confusion[np.arange(len(confusion)), classes_of]
  by_kind = hits[present] / number[present]
  classes = confusion.shape[1]
  by_class = np.zeros((classes, classes))
  np.add.at(by_class, classes_of, confusion)
  true_positive, found = np.diag(by_class), by_class.sum(axis=0)
  exists = by_class.sum(axis=1)
  f1 = 2 * true_positive[exists > 0] / (found + exists)[exists > 0]
  return {
    "mean": float(by_kind.mean()),
    "worst": float(by_kind.min()),
    "accuracy": float(hits.sum() / number.sum()),
    "worst_class": float((true_positive[exists > 0] / exists[exists > 0]).min()),
    "macro_f1": float(f1.mean()),
  }
