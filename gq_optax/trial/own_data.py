# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The user's own arrays out of an .npz file, and what may be wrong with them."""

import contextlib
import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

KEYS = ("x_train", "y_train", "x_test", "y_test")
PARTS = ("train", "validation", "test")
_CURE = (
  "classes, y_train = np.unique(y_train, return_inverse=True) numbers them, and y_test ="
  " np.searchsorted(classes, y_test) those of the test."
)
_OF_OBJECTS = {  # what to do with an array of Python objects, such as a column of strings
  "x": ("numbers", "Take x.astype(np.float32)."),
  "y": ("integers", f"If they are names: {_CURE}"),
  "kinds": ("integers or strings", "Take kinds.astype(str)."),
}
OWN_KEYS = tuple(f"{what}_{part}" for what in ("x", "y", "kinds") for part in PARTS)


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


class Own(NamedTuple):
  """The user's arrays; None for what the file lacks.

  Attributes:
    x_train: uint8 or float32 `[n, ...]`.
    y_train: int64 labels `[n]`, the classes 0 .. C-1.
    x_test: like `x_train`.
    y_test: like `y_train`.
    x_validation: like `x_train`.
    y_validation: like `y_train`.
    kinds_train: names or numbers of the kinds of examples `[n]`, hidden from training.
    kinds_test: like `kinds_train`.
    kinds_validation: like `kinds_train`.
  """

  x_train: np.ndarray
  y_train: np.ndarray
  x_test: np.ndarray | None = None
  y_test: np.ndarray | None = None
  x_validation: np.ndarray | None = None
  y_validation: np.ndarray | None = None
  kinds_train: np.ndarray | None = None
  kinds_test: np.ndarray | None = None
  kinds_validation: np.ndarray | None = None


def load_npz(path: str | Path) -> Own:
  """Loads the user's own arrays, and says in one line what is wrong with them.

  Args:
    path: an .npz file with `x_train` and `y_train`; maybe `x_test` and `y_test`, `x_validation` and
      `y_validation`, and `kinds_train`, `kinds_test`, `kinds_validation`: which kind each example
      is of, for the report and the oracle alone. Examples are numbers `[n, ...]`: uint8 stays, all
      else becomes float32 and must be finite. Labels are integers `[n]`, the classes 0 .. C-1, at
      least two of them in training.

  Returns:
    The arrays.

  Raises:
    FileNotFoundError: if there is no such file.
    ValueError: if the file breaks a rule.
  """
  path = Path(path)
  if not path.is_file():
    raise FileNotFoundError(f"path must be an .npz file, but nothing was found at {path}.")
  arrays = open_npz(path, KEYS[:2], [k for k in OWN_KEYS if k not in KEYS[:2]], alone=True)
  for part in PARTS[1:]:
    if (f"x_{part}" in arrays) != (f"y_{part}" in arrays):
      found = next(iter(arrays.keys() & {f"x_{part}", f"y_{part}"}))
      raise ValueError(
        f"path must hold x_{part} and y_{part} or neither, but only {found} was found."
      )
  data = {key: _examples(key, arrays[key]) for key in arrays if key[0] == "x"}
  for part in [p for p in PARTS if f"x_{p}" in data]:
    data[f"y_{part}"] = _labels(f"y_{part}", arrays[f"y_{part}"], len(data[f"x_{part}"]))
  classes = np.unique(data["y_train"])
  if len(classes) < 2:
    raise ValueError(f"y_train must hold more than one class, but only {classes[0]} was found.")
  if classes[-1] != len(classes) - 1:
    raise ValueError(
      f"y_train must hold every class from 0 to its largest, {classes[-1]}, but"
      f" {len(classes)} classes were found; {_CURE}"
    )
  x_train = data["x_train"]
  for part in [p for p in PARTS[1:] if f"x_{p}" in data]:
    x = data[f"x_{part}"]
    if (x_train.shape[1:], x_train.dtype) != (x.shape[1:], x.dtype):
      raise ValueError(
        f"x_{part} must be like x_train, {x_train.dtype} of shape {('m', *x_train.shape[1:])}, but"
        f" {x.dtype} of shape {x.shape} was found."
      )
    if len(unknown := np.setdiff1d(data[f"y_{part}"], classes)):
      raise ValueError(f"y_{part} must hold classes of y_train only, but {unknown[0]} was found.")
  return Own(**data, **_kinds(arrays))


def _kinds(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """The kinds of each split: of the test split alone, or of all that there are."""
  there = {p for p in PARTS if f"x_{p}" in arrays}
  given = {p for p in PARTS if f"kinds_{p}" in arrays}
  for part in sorted(given - there):
    raise ValueError(f"kinds_{part} must come with x_{part}, but there is none.")
  if given and given not in (there, {"test"}):
    wanted = " and ".join(f"kinds_{p}" for p in PARTS if p in there)
    raise ValueError(
      f"kinds must be given for every split, {wanted}, or for the test split alone, but only"
      f" {', '.join(f'kinds_{p}' for p in PARTS if p in given)} was found."
    )
  found = {}
  for part in given:
    key, n = f"kinds_{part}", len(arrays[f"x_{part}"])
    if arrays[key].shape != (n,) or arrays[key].dtype.kind not in "biuUS":
      raise ValueError(
        f"{key} must be integers or strings of shape ({n},), but {arrays[key].dtype} of shape"
        f" {arrays[key].shape} was found."
      )
    found[key] = arrays[key].astype(str)
  return found


def open_npz(
  path: Path, required: Sequence[str], optional: Sequence[str] = (), alone: bool = False
) -> dict[str, np.ndarray]:
  """The named arrays of an .npz file, nothing unpickled; with `alone` others are refused."""
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
    if alone and (others := sorted(set(file.files) - {*required, *optional})):
      raise ValueError(
        f"{path} must hold no other arrays than {', '.join((*required, *optional))}, but"
        f" {', '.join(others)} was found."
      )
    arrays = {}
    for key in (*required, *(key for key in optional if key in file)):
      try:
        arrays[key] = file[key]
      except ValueError as error:  # an array of objects
        rule, cure = _OF_OBJECTS.get(key.partition("_")[0], ("numbers", ""))
        message = f"{key} must be {rule}, but Python objects were found. {cure}"
        raise ValueError(message.rstrip()) from error
      except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{key} in {path} must be readable, but it is damaged.") from error
  return arrays


def _examples(key: str, x: np.ndarray) -> np.ndarray:
  if x.ndim < 2 or not x.size:
    hint = f" With one number an example take {key}[:, None]." if x.ndim == 1 else ""
    raise ValueError(
      f"{key} must have shape [n, ...], none of it 0, but {x.shape} was found.{hint}"
    )
  if x.dtype.kind not in "buif":
    raise ValueError(f"{key} must be real numbers, but {x.dtype} was found.")
  if x.dtype == np.uint8:
    return x
  with np.errstate(over="ignore"):  # it becomes infinite, and is found below
    x = x.astype(np.float32)
  if bad := int(np.count_nonzero(~np.isfinite(x))):
    row, *place = np.argwhere(~np.isfinite(x))[0].tolist()
    number = "1 value is" if bad == 1 else f"{bad} values are"
    at = f"row {row}, column {place[0]}" if len(place) == 1 else f"row {row}"
    raise ValueError(
      f"{key} must be finite in float32, but {number} not, first in {at}. Fill or leave out what is"
      " missing."
    )
  return x


def _labels(key: str, y: np.ndarray, n: int) -> np.ndarray:
  if y.shape != (n,):
    cure = ""
    if y.ndim == 2 and len(y) == n:
      cure = f" One-hot rows become classes by {key}.argmax(1)."
      if y.shape[1] == 1:
        cure = f" Take {key}[:, 0]."
    raise ValueError(
      f"{key} must have shape ({n},) as its examples, but {y.shape} was found.{cure}"
    )
  if y.dtype.kind == "f" and not np.array_equal(y, np.floor(y)):
    raise ValueError(
      f"{key} must be integers, but {y.dtype} that are none were found. A trial classifies: cut a"
      f" target into classes first, such as np.digitize({key}, [low, high])."
    )
  if y.dtype.kind not in "iu":
    raise ValueError(f"{key} must be integers, but {y.dtype} was found; {_CURE}")
  if y.min() < 0:
    raise ValueError(f"{key} must be at least 0, but {y.min()} was found; {_CURE}")
  return y.astype(np.int64)
