# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What a trial could show, said before anything is trained. Knows no JAX."""

from typing import NamedTuple

import numpy as np

from gq_optax.trial import uncertainty
from gq_optax.trial.rows import Rows
from gq_optax.trial.splits import FOLDS


class Sight(NamedTuple):
  """What can be seen of the data.

  Attributes:
    tested: rows of each class that are tested.
    trained: rows of each class that are trained on, by one network.
    rarest: the class that is rarest in training.
    says: sentences.
    missing: why no verdict is possible, and what is needed; empty where one is.
  """

  tested: list[int]
  trained: list[int]
  rarest: int
  says: list[str]
  missing: list[str]


def points(share: float) -> str:
  """A share as points; many have no decimals."""
  return f"{100 * share:.0f}" if share >= 0.095 else f"{100 * share:.1f}"


def look(rows: Rows, clusters: np.ndarray, seeds: int, comparisons: int) -> Sight:
  """What is there, how unequal it is, and the smallest difference that could be shown."""
  number, classes = len(rows.classes), rows.classes
  own = np.ones(len(rows.labels), bool) if rows.test is None else ~rows.test
  every = np.bincount(rows.labels[own], minlength=number)
  tested = every if rows.test is None else np.bincount(rows.labels[rows.test], minlength=number)
  trained = (every * (1 - 1 / FOLDS)).astype(int) if rows.test is None else every
  rarest = int(every.argmin())
  ratio = every.max() / max(every[rarest], 1)
  says = [
    f"{len(rows.labels)} rows, {number} classes"
    + (
      f": {', '.join(f'{c} {m}' for c, m in zip(classes, every, strict=True))}."
      if number <= 6
      else "."
    )
  ]
  if ratio < 1.5:
    says.append(f"Balanced, {ratio:.1f} : 1: nothing is rare by label.")
  else:
    says.append(
      f"Unequal, {ratio:.1f} : 1. The rarest class is {classes[rarest]}: about"
      f" {trained[rarest]} rows to train on, {tested[rarest]} tested."
    )
  share = uncertainty.could_show(int(tested[rarest]), comparisons)
  if np.isfinite(share):
    says.append(
      f"In the recall of {classes[rarest]} this trial could show a difference of about"
      f" {points(min(share, 1.0))} points."
    )
  enough = [c for c in range(number) if _clusters(rows, clusters, c) >= uncertainty.MIN_TEST]
  missing = []
  if len(enough) < 2:
    few = [c for c in range(number) if c not in enough]
    named = ", ".join(f"{tested[c]} of {classes[c]}" for c in few[:3])
    word = "rows" if len(np.unique(clusters)) == len(clusters) else "groups of rows"
    missing.append(
      f"{named} are tested, and a verdict needs at least {uncertainty.MIN_TEST} {word} of a class"
    )
  if seeds < uncertainty.MIN_SEEDS:
    missing.append(
      f"{seeds} seeds say too little of the spread between them: take {uncertainty.MIN_SEEDS}"
    )
  return Sight(tested.tolist(), trained.tolist(), rarest, says, missing)


def _clusters(rows: Rows, clusters: np.ndarray, label: int) -> int:
  own = rows.labels == label
  return len(np.unique(clusters[own if rows.test is None else own & rows.test]))
