# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Public data sets by name: from a file on disk; "digits" lies in scikit-learn."""

import os
from pathlib import Path

import numpy as np
import sklearn.datasets

from gq_optax.trial.own_data import KEYS, Data, open_npz
from gq_optax.trial.tasks import stratified_split

TEST_FRACTION, SPLIT_SEED = 1 / 3, 0  # of digits, which has no split of its own


def load(name: str) -> Data:
  """Loads a real data set.

  Args:
    name: "digits", or of a file `NAME.npz` in `folders`.

  Returns:
    The set.

  Raises:
    FileNotFoundError: if no folder has the file.
  """
  for folder in folders():
    if (path := folder / f"{name}.npz").is_file():
      x_train, y_train, x_test, y_test = open_npz(path, KEYS).values()
      return Data(x_train, y_train.astype(np.int64), x_test, y_test.astype(np.int64))
  if name == "digits":
    found = sklearn.datasets.load_digits()
    x, y = found.images.astype(np.uint8), found.target.astype(np.int64)
    train, test = stratified_split(y, TEST_FRACTION, SPLIT_SEED)
    return Data(x[train], y[train], x[test], y[test])
  looked = " or ".join(str(folder) for folder in folders())
  raise FileNotFoundError(
    f"data {name!r} must be on disk, but {name}.npz is not in {looked}: arrays {', '.join(KEYS)}."
  )


def folders() -> list[Path]:
  """Where files are looked for."""
  cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
  given = os.environ.get("GQ_OPTAX_DATA")
  return [*([Path(given).expanduser()] if given else []), Path(cache) / "gq_optax"]
