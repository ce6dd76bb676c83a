# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""How arms are compared: learning rates tuned on validation, paired differences over seeds."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.stats  # type: ignore[import-untyped]  # comes with jax


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
