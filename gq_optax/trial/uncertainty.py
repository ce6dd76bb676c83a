# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
r"""How sure a difference between two arms is: a bootstrap over seeds and test examples.

A test set is a sample as much as the seeds are: of three rare examples one right answer more is 33
points. So a draw takes S - 1 of S seeds, or n - 1 of n test examples, with replacement: kind by
kind, but for accuracy. To draw one less makes the variance of a mean right where there are few
(McCarthy and Snowden 1985). Both arms are judged on the same draw. With :math:`v_s` and :math:`v_n`
the variances of their difference where seeds and where examples are drawn, the interval is

.. math:: \text{difference} \pm \sqrt{t_{S-1}^2 v_s + t_{n_\text{min}-1}^2 v_n}

(Banerjee 1960). One quantile with degrees of freedom out of both variances would be too small where
few seeds happen to agree. Percentiles of the draws would be too narrow.

Where seeds test different examples, :math:`v_s` holds the chance of the examples, too. If R seeds
test an example, that is about :math:`v_n / R`, which is taken off it. (Where :math:`c_i` seeds test
example i, :math:`R = \sum_i c_i^2 / \sum_i c_i`.) The interval is then at least
:math:`t_{S-1} \sqrt{v_s}` on each side.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import scipy.stats  # type: ignore[import-untyped]  # comes with jax

MIN_TEST = 10  # test examples below which a kind gets no verdict
MIN_SEEDS = 3  # two may agree by chance, and then seem to have no spread
DRAWS = 1000
ERROR = 0.05  # the chance that any of the verdicts on one figure is wrong
_CHUNK = 2**22  # numbers at once


class Pool(NamedTuple):
  """The examples that are tested.

  Attributes:
    labels: int `[N]`.
    kinds: int `[N]`; the classes themselves where there are no others.
    num_classes: C.
    num_kinds: G.
  """

  labels: np.ndarray
  kinds: np.ndarray
  num_classes: int
  num_kinds: int


class Draws(NamedTuple):
  """How often each seed and each example is drawn.

  Attributes:
    seeds: `[R, S]`.
    examples: `[R, N]`.
  """

  seeds: np.ndarray
  examples: np.ndarray


class Difference(NamedTuple):
  """A difference with its interval; NaN where there is none."""

  mean: float
  low: float
  high: float

  @property
  def verdict(self) -> str:
    """In words, what the interval shows."""
    return "better" if self.low > 0 else "worse" if self.high < 0 else "no difference shown"


def draw(
  pool: Pool, num_seeds: int, number: int = DRAWS, seed: int = 0, figure: str = "mean"
) -> Draws:
  """The draws, the same for all arms.

  Accuracy needs no kinds, so all examples are drawn together: of a small kind whose examples are
  answered alike the draws would never differ.
  """
  rng = np.random.default_rng(seed)
  seeds = rng.multinomial(max(num_seeds - 1, 1), np.full(num_seeds, 1 / num_seeds), size=number)
  examples = np.zeros((number, len(pool.labels)), np.uint16)
  strata = np.zeros_like(pool.kinds) if figure == "accuracy" else pool.kinds
  for stratum in range(pool.num_kinds):
    (rows,) = np.nonzero(strata == stratum)
    n = len(rows)
    for i in range(number if n else 0):
      examples[i, rows] = np.bincount(rng.integers(0, n, max(n - 1, 1)), minlength=n)
  return Draws(seeds, examples)


def figures(predicted: np.ndarray, pool: Pool, draws: Draws, figure: str) -> np.ndarray:
  """A figure of an arm, and the recall of every kind, on each draw.

  Args:
    predicted: int `[S, N]`, the class that each seed gives an example; -1 where it was not tested.
    pool: the examples.
    draws: R of them.
    figure: "mean" recall over the kinds that are there, "accuracy", or "macro_f1" of the classes.

  Returns:
    `[R, 1 + G]`; NaN for what no example of the draw tells.
  """
  member = np.eye(pool.num_kinds, dtype=np.float32)[pool.kinds]
  present = member.any(axis=0)
  parts = []
  for seeds, examples in _chunks(draws):
    count = lambda what, s=seeds, e=examples: (s @ what.astype(np.float32)) * e
    tested, hit = count(predicted >= 0), count(predicted == pool.labels)
    with np.errstate(invalid="ignore"):
      recalls = (hit @ member) / (tested @ member)
      if figure == "mean":
        first = recalls[:, present].mean(axis=1)
      elif figure == "accuracy":
        first = hit.sum(axis=1) / tested.sum(axis=1)
      else:
        first = np.zeros(len(seeds), np.float32)
        own = np.unique(pool.labels)
        for c in own:
          found, exists = count(predicted == c), pool.labels == c
          both = found.sum(axis=1) + tested[:, exists].sum(axis=1)
          first += 2.0 * found[:, exists].sum(axis=1) / both / len(own)
    parts.append(np.concatenate([first[:, None], recalls], axis=1))
  return np.concatenate(parts)


def _chunks(draws: Draws) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  size = max(1, _CHUNK // draws.examples.shape[1])
  for i in range(0, len(draws.examples), size):
    yield draws.seeds[i : i + size].astype(np.float32), draws.examples[i : i + size]


class Drawn(NamedTuple):
  """`figures` of an arm: as they are `[1 + G]`, and on draws `[R, 1 + G]` of seeds, of examples.

  The differences of two of these are those of the arms on the same draws.
  """

  found: np.ndarray
  seeds: np.ndarray
  examples: np.ndarray


def bootstrap(predicted: np.ndarray, pool: Pool, draws: Draws, figure: str) -> Drawn:
  """All that an interval needs of one arm."""
  number, num_seeds = draws.seeds.shape
  every_seed = np.ones((number, num_seeds), int)
  every_example = np.ones(draws.examples.shape, np.uint8)
  once = Draws(every_seed[:1], every_example[:1])
  ways = (Draws(draws.seeds, every_example), Draws(every_seed, draws.examples))
  found = figures(predicted, pool, once, figure)[0]
  return Drawn(found, *(figures(predicted, pool, way, figure) for way in ways))


def times(predicted: np.ndarray) -> float:
  """R, how many seeds test an example, out of answers `[S, N]` that are -1 where none was given."""
  tested = (predicted >= 0).sum(axis=0)
  return float((tested**2).sum() / tested.sum())


def difference(
  own: Drawn,
  other: Drawn,
  column: int,
  num_seeds: int,
  n: int,
  comparisons: int = 1,
  times: float = math.inf,
) -> Difference:
  """An arm's figure less another's.

  Args:
    own: the arm.
    other: what it is held against.
    column: 0 for the figure, 1 + g for the recall of kind g.
    num_seeds: S.
    n: test examples of the smallest kind that counts in it.
    comparisons: how many there are; the chance that any of them is wrong stays `ERROR`
      (Bonferroni).
    times: R, how many seeds test an example; infinite where all test the same ones.

  Returns:
    In the unit of the figure; without an interval for one seed or one example.
  """
  mean, *drawn = (a[..., column] - b[..., column] for a, b in zip(own, other, strict=True))
  if num_seeds < 2 or n < 2 or np.isnan(mean):
    return Difference(float(mean), math.nan, math.nan)
  seeds, examples = (float(np.nanvar(part, dtype=np.float64)) for part in drawn)
  t = lambda freedom: float(scipy.stats.t.ppf(1.0 - ERROR / (2 * comparisons), freedom))
  of_seeds, of_examples = t(num_seeds - 1) ** 2, t(n - 1) ** 2
  square = of_seeds * max(seeds - examples / times, 0.0) + of_examples * examples
  half = math.sqrt(max(square, of_seeds * seeds))
  return Difference(float(mean), float(mean) - half, float(mean) + half)
