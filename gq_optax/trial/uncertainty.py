# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
r"""How sure a difference between two arms is, over seeds and test rows.

A figure is a weighted mean of hits: every row i belongs to a stratum (a class, or a kind), rows of
a stratum count the same, and so do the strata. With :math:`d_{si}` the difference of two arms on
seed s and row i, :math:`v_n` is the variance of the mean over rows, stratum by stratum; rows of one
group count as one draw. :math:`v_s` is that over seeds. Rows of different folds are tested by
different networks, so it is the sum of the folds' own variances, with degrees of freedom
:math:`\nu` after Satterthwaite (1946). The interval is

.. math:: \text{difference} \pm \sqrt{t_\nu^2 v_s + t_{n_\text{min}-1}^2 v_n}

(Banerjee 1960). One quantile with degrees of freedom out of both variances would be too small where
few seeds happen to agree. Both variances hold what a seed and a row make together, so that the
interval is rather too wide than too narrow.
"""

import math
from typing import NamedTuple

import numpy as np
import scipy.stats

MIN_TEST = 10  # rows, or groups of rows, below which a stratum gets no verdict
MIN_SEEDS = 3  # two may agree by chance, and then seem to have no spread
ERROR = 0.05  # the chance that any of the verdicts of a trial is wrong


class Difference(NamedTuple):
  """A difference with its interval; NaN where there is none."""

  mean: float
  low: float
  high: float
  limit: str = ""  # "seeds" or "rows": which of both makes the interval wide

  @property
  def verdict(self) -> str:
    """In words, what the interval shows."""
    return "better" if self.low > 0 else "worse" if self.high < 0 else "no difference shown"

  @property
  def half(self) -> float:
    """Half the width of the interval: the smallest difference that would have been shown."""
    return (self.high - self.low) / 2


def clusters_of(strata: np.ndarray, clusters: np.ndarray) -> int:
  """The number of clusters in the smallest stratum; strata are numbered, -1 is in none."""
  return min(len(np.unique(clusters[strata == s])) for s in np.unique(strata[strata >= 0]))


def difference(
  own: np.ndarray,
  other: np.ndarray,
  strata: np.ndarray,
  clusters: np.ndarray,
  comparisons: int = 1,
  folds: np.ndarray | None = None,
) -> Difference:
  """An arm's figure less another's.

  Args:
    own: hits of the arm, bool or float `[S, n]`.
    other: hits of what it is held against.
    strata: int `[n]`; rows of -1 do not count. One stratum alone is a recall, or the accuracy.
    clusters: int `[n]`, rows of one number are drawn together.
    comparisons: how many there are; the chance that any of them is wrong stays `ERROR`
      (Bonferroni).
    folds: int `[n]`, rows of one number are tested by the same networks; None for all.
  """
  gaps = own.astype(np.float64) - other
  seeds = len(gaps)
  names = np.unique(strata[strata >= 0])
  share, centred, factor = np.zeros(gaps.shape[1]), gaps.mean(axis=0), np.zeros(gaps.shape[1])
  for stratum in names:
    (rows,) = np.nonzero(strata == stratum)
    number = len(np.unique(clusters[rows]))
    share[rows] = 1.0 / (len(names) * len(rows))
    centred[rows] -= centred[rows].mean()
    factor[rows] = math.sqrt(number / (number - 1)) if number > 1 else math.nan
  mean = float(gaps.mean(axis=0) @ share)
  smallest = clusters_of(strata, clusters)
  if seeds < 2 or smallest < 2:
    return Difference(mean, math.nan, math.nan)
  folds = np.zeros(len(share), int) if folds is None else folds
  parts = np.stack([gaps[:, folds == fold] @ share[folds == fold] for fold in np.unique(folds)])
  of_folds = parts.var(axis=1, ddof=1) / seeds
  of_seeds = of_folds.sum()
  freedom = (seeds - 1) * (of_seeds**2 / (of_folds**2).sum() if of_seeds > 0 else 1.0)
  _, numbers = np.unique(clusters, return_inverse=True)
  of_rows = float((np.bincount(numbers, share * factor * centred) ** 2).sum())
  t = lambda freedom: float(scipy.stats.t.ppf(1.0 - ERROR / (2 * comparisons), freedom))
  by_seeds, by_rows = t(freedom) ** 2 * of_seeds, t(smallest - 1) ** 2 * of_rows
  half = math.sqrt(by_seeds + by_rows)
  return Difference(mean, mean - half, mean + half, "seeds" if by_seeds > by_rows else "rows")


def could_show(rows: int, comparisons: int, unlike: float = 0.2) -> float:
  """About the smallest difference in a recall that so many rows could show.

  Args:
    rows: of the class or kind.
    comparisons: see `difference`.
    unlike: the share of rows that two arms answer differently, before anything is trained a guess.
  """
  if rows < 2:
    return math.inf
  quantile = scipy.stats.t.ppf(1.0 - ERROR / (2 * comparisons), rows - 1)
  return float(quantile * math.sqrt(unlike / rows))
