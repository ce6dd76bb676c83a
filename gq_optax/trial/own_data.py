# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The user's own arrays out of an .npz file, and what may be wrong with them."""

import contextlib
import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gq_optax.trial.tasks import stratified_split

KEYS = ("x_train", "y_train", "x_test", "y_test")


class Data(NamedTuple):
  """A data set, in its own order.

  Attributes:
    x_train: uint8 images `[n, height, width]` or `[n, height, width, channels]`, or float32 tables
      `[n, features]` and series `[n, time, channels]`.
    y_train: int64 labels `[n]`, the classes 0 .. C-1.
    x_test: like `x_train`, `[m, ...]`.
    y_test: like `y_train`, `[m]`.
  """

  x_train: np.ndarray
  y_train: np.ndarray
  x_test: np.ndarray
  y_test: np.ndarray


def load_npz(path: str | Path, test_fraction: float = 0.2, seed: int = 0) -> Data:
  """Loads the user's own arrays, and says in one line what is wrong with them.

  Args:
    path: an .npz file with `x_train` and `y_train`, and `x_test` and `y_test` or neither of them.
      Examples are numbers `[n, ...]`: uint8 stays, all else becomes float32 and must be finite.
      Labels are integers `[n]`, the classes 0 .. C-1, at least two of them in training.
    test_fraction: without test arrays, the share of every class that becomes the test set.
    seed: of that split, by `RandomState`; examples keep their order.

  Returns:
    The set.

  Raises:
    FileNotFoundError: if there is no such file.
    ValueError: if the file breaks a rule.
  """
  path = Path(path)
  if not path.is_file():
    raise FileNotFoundError(f"path must be an .npz file, but nothing was found at {path}.")
  arrays = open_npz(path, KEYS[:2], KEYS[2:])
  if len(arrays) == 3:
    found = (arrays.keys() & KEYS[2:]).pop()
    raise ValueError(f"path must hold x_test and y_test or neither, but only {found} was found.")
  data = {key: _examples(key, arrays[key]) for key in arrays if key[0] == "x"}
  for part in ("train", "test"):
    if f"x_{part}" in data:
      data[f"y_{part}"] = _labels(f"y_{part}", arrays[f"y_{part}"], len(data[f"x_{part}"]))
  classes = np.unique(data["y_train"])
  if len(classes) < 2:
    raise ValueError(f"y_train must hold more than one class, but only {classes[0]} was found.")
  if classes[-1] != len(classes) - 1:
    raise ValueError(
      f"y_train must hold every class from 0 to its largest, {classes[-1]}, but"
      f" {len(classes)} classes were found; np.unique(y, return_inverse=True)[1] renumbers them."
    )
  if "x_test" not in data:
    train, test = stratified_split(data["y_train"], test_fraction, seed)
    if not len(test):
      raise ValueError(
        f"test_fraction must leave a test example, but {test_fraction} of {len(train)} was found."
      )
    x, y = data["x_train"], data["y_train"]
    return Data(x[train], y[train], x[test], y[test])
  x_train, x_test = data["x_train"], data["x_test"]
  if (x_train.shape[1:], x_train.dtype) != (x_test.shape[1:], x_test.dtype):
    raise ValueError(
      f"x_test must be like x_train, {x_train.dtype} of shape {('m', *x_train.shape[1:])}, but"
      f" {x_test.dtype} of shape {x_test.shape} was found."
    )
  if len(unknown := np.setdiff1d(data["y_test"], classes)):
    raise ValueError(f"y_test must hold classes of y_train only, but {unknown[0]} was found.")
  return Data(**data)


def open_npz(
  path: Path, required: Sequence[str], optional: Sequence[str] = ()
) -> dict[str, np.ndarray]:
  """The named arrays of an .npz file, nothing unpickled."""
  with contextlib.ExitStack() as stack:
    try:
      # Opened here, since NumPy leaves open what it cannot read.
      file = np.load(stack.enter_context(path.open("rb")), allow_pickle=False)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
      raise ValueError(f"{path} must be an .npz file, but NumPy cannot read it.") from error
    if not isinstance(file, np.lib.npyio.NpzFile):
      raise ValueError(f"{path} must be an .npz file, but a single array was found.")
    stack.enter_context(file)
    if missing := [key for key in required if key not in file]:
      found = ", ".join(file.files) or "nothing"
      raise ValueError(f"{path} must hold {' and '.join(missing)}, but {found} was found.")
    arrays = {}
    for key in (*required, *(key for key in optional if key in file)):
      try:
        arrays[key] = file[key]
      except ValueError as error:  # an array of objects
        raise ValueError(f"{key} must be numbers, but Python objects were found.") from error
      except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{key} in {path} must be readable, but it is damaged.") from error
  return arrays


def _examples(key: str, x: np.ndarray) -> np.ndarray:
  if x.ndim < 2 or not x.size:
    raise ValueError(f"{key} must have shape [n, ...], none of it 0, but {x.shape} was found.")
  if x.dtype.kind not in "buif":
    raise ValueError(f"{key} must be real numbers, but {x.dtype} was found.")
  if x.dtype == np.uint8:
    return x
  with np.errstate(over="ignore"):  # it becomes infinite, and is found below
    x = x.astype(np.float32)
  if bad := int(np.count_nonzero(~np.isfinite(x))):
    raise ValueError(f"{key} must be finite in float32, but {bad} values that are not were found.")
  return x


def _labels(key: str, y: np.ndarray, n: int) -> np.ndarray:
  if y.shape != (n,):
    raise ValueError(f"{key} must have shape ({n},) as its examples, but {y.shape} was found.")
  if y.dtype.kind not in "iu":
    raise ValueError(f"{key} must be integers, but {y.dtype} was found.")
  if y.min() < 0:
    raise ValueError(f"{key} must be at least 0, but {y.min()} was found.")
  return y.astype(np.int64)
