# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Kinds that a person named in rows.csv, and the rows that nobody looked at."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd


class Named(NamedTuple):
  """Kinds of all rows.

  Attributes:
    kinds: of each row `[n]`, a name; that of the class where there is no other.
    unseen: rows `[n]` that were used neither to name a kind nor to find its slice.
  """

  kinds: np.ndarray
  unseen: np.ndarray


def read(path: Path, names: list[str], labels: list[str], first: np.ndarray) -> Named:
  """Reads the column `kind` of a rows.csv.

  A row without a kind gets the one that most of the named rows of its slice have, if most have one.

  Args:
    path: the file.
    names: of all rows of the trial.
    labels: the class of each row, by name.
    first: the half on which slices are found, bool `[n]`.

  Raises:
    ValueError: if the file is of other rows, or names no kind.
  """
  frame = pd.read_csv(path, dtype=str, keep_default_na=False)
  wanted = {"row", "label", "slice", "kind"}
  if not wanted <= set(frame.columns):
    raise ValueError(
      f"kinds must be a rows.csv of an earlier trial, with columns {', '.join(sorted(wanted))},"
      f" but {', '.join(frame.columns)} was found."
    )
  frame = frame.set_index("row")
  if not frame.index.is_unique or set(frame.index) != set(names):
    raise ValueError(
      f"kinds must be the rows.csv of the same rows, but {len(frame)} rows were found where the"
      f" data have {len(names)}."
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
  kinds = np.where(told != "", told, np.array(labels))
  slices = frame["slice"].to_numpy(dtype=str)
  for name in np.unique(slices[slices != ""]):
    own = (slices == name) & (told != "")
    if own.any():
      values, counts = np.unique(told[own], return_counts=True)
      if counts.max() * 2 > own.sum():
        kinds[(slices == name) & (told == "")] = values[counts.argmax()]
  return Named(kinds, (told == "") & ~first)
