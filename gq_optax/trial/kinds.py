# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Kinds that a person named in rows.csv, and the rows that resemble them.

A name is given to a few rows. A linear model learns what they look like against the rest of their
class (see `descriptors`), and each row is told by a model that did not see it.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from gq_optax.trial import failing


class Named(NamedTuple):
  """Kinds of all rows.

  Attributes:
    kinds: of each row `[n]`, a name; that of the class where there is no other.
    unseen: rows `[n]` that nobody named.
    notes: sentences, how many rows resemble the named ones and how sure that is.
  """

  kinds: np.ndarray
  unseen: np.ndarray
  notes: list[str]


def read(path: Path, names: list[str], labels: list[str]) -> np.ndarray:
  """The column `kind` of a rows.csv, a name or "" for each row `[n]`.

  Args:
    path: the file.
    names: of the rows that are trained on.
    labels: the class of each, by name.

  Raises:
    ValueError: if the file is of other rows, or names no kind.
  """
  frame = pd.read_csv(path, dtype=str, keep_default_na=False)
  wanted = {"row", "label", "kind"}
  if not wanted <= set(frame.columns):
    raise ValueError(
      f"kinds must be a rows.csv of an earlier trial, with columns {', '.join(sorted(wanted))},"
      f" but {', '.join(frame.columns)} was found."
    )
  frame = frame.set_index("row")
  if not frame.index.is_unique or set(frame.index) != set(names):
    raise ValueError(
      f"kinds must be the rows.csv of the same rows, {names[0]} to {names[-1]}, but"
      f" {len(frame)} rows were found: {', '.join(frame.index[:3])}. Run the trial on these data"
      " without --kinds, and name kinds in the rows.csv that it writes."
    )
  frame = frame.loc[names]
  if list(frame["label"]) != labels:
    row = next(i for i, own in enumerate(frame["label"]) if own != labels[i])
    raise ValueError(
      f"kinds must have the labels of the data, but row {names[row]} is"
      f" {frame['label'].iloc[row]!r} in it and {labels[row]!r} in the data."
    )
  told = frame["kind"].str.strip().to_numpy(dtype=str)
  if not (told != "").any():
    raise ValueError(f"kinds must name a kind in column kind of {path.name}, but it is empty.")
  return told


def spread(told: np.ndarray, words: np.ndarray, features: np.ndarray, folds: np.ndarray) -> Named:
  """Gives a kind to the rows that resemble those of that name more than the rest of their class.

  A kind that features do not tell from the rest, or of fewer than `failing.LEAST` rows, stays with
  the rows that were named.

  Args:
    told: names of kinds `[n]`, "" where there is none.
    words: the class of each row `[n]`, by name.
    features: `[n, d]`, see `descriptors.describe`.
    folds: int `[n]`; -1 of rows that are tested alone, and were never named.
  """
  pool, notes = folds >= 0, []
  kinds = np.where(told != "", told, words).astype(object)
  nearest = np.zeros(len(told))
  pairs = np.unique(np.stack([words, told], axis=1)[told != ""], axis=0).tolist()
  for word, kind in pairs:
    own = (words == word) & (told == kind)
    others = (words == word) & pool & ~own
    chance = failing.CHANCE / len(pairs)
    if (
      own.sum() < failing.LEAST
      or not failing.recognised(features[pool], own[pool], others[pool], folds[pool], chance).any()
    ):
      notes.append(
        f"{own.sum()} rows are named {kind} of {word}; they are too few, or too much like the rest"
        f" of {word}, to tell other rows by."
      )
      continue
    odds = np.zeros(len(told))
    for fold in np.unique(folds):
      rows = folds == fold
      odds[rows] = failing.resemble(features, own, others, pool & ~rows)[rows]
    more = (words == word) & (told == "") & (odds > nearest)
    kinds[more], nearest[more] = kind, odds[more]
    notes.append(
      f"{own.sum()} rows are named {kind} of {word}; {more.sum()} more resemble them. A model that"
      f" did not see them recognises {(own & (odds > 0)).sum()} of the {own.sum()}."
    )
  if pool.all():
    notes.append(
      "Gains of kinds are read on rows that nobody named. If most rows that fail are named, those"
      " are the easier ones. Keep rows apart as x_test of an .npz file to read the gain on all."
    )
  return Named(kinds.astype(str), told == "", notes)
