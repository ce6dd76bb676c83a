# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Who is trained on, who chooses the learning rate, and who is tested.

Rows are dealt into four folds. A fold is tested by networks trained on the others, at a rate that
was chosen on a fifth of those: no row that is tested has a say in how it is tested. Rows of one
group, and exact copies, stay together.
"""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

FOLDS = 4
INNER = 5  # one of so many parts of what is trained on chooses the rate


class Split(NamedTuple):
  """Rows of one fold, each ascending.

  Attributes:
    train: what the last networks are trained on; `inner` and `validation` together.
    inner: what networks are trained on while the rate is searched.
    validation: what chooses the rate.
    test: what is tested.
  """

  train: np.ndarray
  inner: np.ndarray
  validation: np.ndarray
  test: np.ndarray


def together(x: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
  """A number for all rows that must not be split apart, int `[n]`."""
  flat = np.ascontiguousarray(x.reshape(len(x), -1))
  _, copies = np.unique(
    flat.view(np.dtype((np.void, flat.itemsize * flat.shape[1]))), return_inverse=True
  )
  if groups is None:
    return copies.reshape(-1)
  _, named = np.unique(groups, return_inverse=True)
  n = len(x)
  ones, rows = np.ones(2 * n), np.concatenate([np.arange(n)] * 2)
  nodes = np.concatenate([n + copies.reshape(-1), 2 * n + named])
  return connected_components(coo_matrix((ones, (rows, nodes)), shape=(3 * n, 3 * n)))[1][:n]


def _parts(strata: np.ndarray, clusters: np.ndarray, number: int, seed: int) -> np.ndarray:
  """A part 0 .. number-1 for each row, strata even, clusters whole."""
  whole = len(np.unique(clusters)) < len(clusters)
  kind = StratifiedGroupKFold if whole else StratifiedKFold
  found = np.zeros(len(strata), int)
  splitter = kind(number, shuffle=True, random_state=seed)
  for part, (_, rows) in enumerate(splitter.split(strata, strata, clusters if whole else None)):
    found[rows] = part
  return found


def deal(
  strata: np.ndarray, clusters: np.ndarray, test: np.ndarray | None
) -> tuple[list[Split], np.ndarray]:
  """The splits, and the fold of every row.

  Args:
    strata: int `[n]`, classes.
    clusters: see `together`.
    test: bool `[n]`, the user's own test rows; their fold is -1. They are tested by networks that
      are trained on all other rows, as one more split at the end.
  """
  own = np.arange(len(strata)) if test is None else np.flatnonzero(~test)
  if (number := len(np.unique(clusters[own]))) < INNER:
    raise ValueError(
      f"groups of rows must be at least {INNER}, so that folds can be dealt, but {number} was"
      " found."
    )
  folds = np.full(len(strata), -1)
  # Rare strata may have fewer rows than there are folds; scikit-learn only warns of that.
  folds[own] = _quiet(_parts, strata[own], clusters[own], FOLDS, 0)
  tests = [np.flatnonzero(folds == fold) for fold in range(FOLDS)]
  if test is not None:
    tests.append(np.flatnonzero(test))
  found = []
  for rows in tests:
    train = np.setdiff1d(own, rows)
    part = _quiet(_parts, strata[train], clusters[train], INNER, 1)
    found.append(Split(train, train[part > 0], train[part == 0], rows))
  return found, folds


def _quiet(function: Callable[..., Any], *args: Any) -> Any:
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", UserWarning)
    return function(*args)
