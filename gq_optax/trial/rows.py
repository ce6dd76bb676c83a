# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What people have, as rows: a CSV file, a folder of images, or an .npz file. Knows no JAX."""

import dataclasses
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
LARGEST = 64  # pixels of the longer side of an image
CATEGORIES = 100  # of one column
KEYS = ("x", "y", "kinds", "groups")


@dataclasses.dataclass
class Rows:
  """The user's rows.

  Attributes:
    x: float32 `[n, d]` of a table, `[n, ...]` as it came else; uint8 of images.
    labels: int `[n]`.
    classes: the name of each class.
    names: of each row: its number, or its file.
    columns: what the features of a table are called, one-hot ones as "column=category".
    kinds: names of known kinds `[n]`, or None.
    groups: what must not be split apart `[n]`, or None.
    test: which rows are the user's test set `[n]`, or None.
    images: whether they are pictures.
    notes: what was done to them.
    encoding: what a new file needs to become rows alike.
  """

  x: np.ndarray
  labels: np.ndarray
  classes: list[str]
  names: list[str]
  columns: list[str]
  kinds: np.ndarray | None = None
  groups: np.ndarray | None = None
  test: np.ndarray | None = None
  images: bool = False
  notes: list[str] = dataclasses.field(default_factory=list)
  encoding: dict[str, Any] = dataclasses.field(default_factory=dict)


def read(
  source: Path,
  label: str | None,
  kind: str | None = None,
  group: str | None = None,
  leave_out: tuple[str, ...] = (),
) -> Rows:
  """Reads the user's data, and says in one line what is wrong with it.

  Raises:
    FileNotFoundError: if there is nothing at `source`.
    ValueError: if it breaks a rule.
  """
  if not source.exists():
    raise FileNotFoundError(f"source must be a file or folder, but nothing was found at {source}.")
  if source.is_dir():
    return _of_folder(source)
  if source.suffix == ".npz":
    return _of_npz(source)
  if source.suffix not in (".csv", ".tsv", ".txt"):
    raise ValueError(
      f"source must be .csv, .npz or a folder of images, but {source.name} was found."
      " pandas reads most tables: pd.read_excel(...).to_csv('my.csv', index=False)."
    )
  frame = read_frame(source)
  if label is None:
    raise ValueError(
      f"label must name the column that holds the class: --label COLUMN, one of {_some(frame)}."
    )
  for option, column in (("label", label), ("kind", kind), ("group", group)):
    if column is not None and column not in frame:
      raise ValueError(f"{option} must be one of {_some(frame)}, but {column!r} was found.")
  for column in (label, kind, group):
    if column is not None:
      _no_gaps(frame[column], "Fill it, or leave the row out.")
  labels, classes = number(frame[label].to_numpy(), f"column {label!r}")
  others = frame.drop(columns=[c for c in (label, kind, group, *leave_out) if c in frame])
  encoding = {"categories": _categories(others)}
  x, columns = encode(others, encoding["categories"])
  text = lambda column: None if column is None else frame[column].astype(str).to_numpy()
  return Rows(
    x,
    labels,
    classes,
    [str(i) for i in range(len(frame))],
    columns,
    text(kind),
    text(group),
    encoding=encoding,
  )


def read_frame(path: Path) -> pd.DataFrame:
  """The table of a text file, whatever divides its columns."""
  try:
    frame = pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",")
    if frame.shape[1] == 1 and any(sign in str(frame.columns[0]) for sign in ";|\t"):
      frame = pd.read_csv(path, sep=None, engine="python")
  except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
    raise ValueError(f"{path} must be a table, but pandas cannot read it: {error}.") from error
  if not len(frame):
    raise ValueError(f"{path} must hold rows, but there is none.")
  return frame


def _some(frame: pd.DataFrame) -> str:
  names = [str(name) for name in frame.columns]
  return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _no_gaps(column: pd.Series, hint: str) -> None:
  gaps = column.isna()
  if gaps.any():
    row = int(np.flatnonzero(gaps)[0])
    raise ValueError(
      f"column {column.name!r} must have no gaps, but {int(gaps.sum())} were found, first in row"
      f" {row} (line {row + 2}). {hint}"
    )


def _categories(frame: pd.DataFrame) -> dict[str, list[str] | None]:
  """Of every column its categories, or None where it holds numbers."""
  found: dict[str, list[str] | None] = {}
  for name in frame.columns:
    column = frame[name]
    numeric = pd.api.types.is_numeric_dtype(column)
    hint = f"df[{name!r}].fillna(df[{name!r}].median())" if numeric else "a category 'unknown'"
    _no_gaps(column, f"Fill it, for example with {hint}, or take --leave-out {name}.")
    if numeric:
      found[str(name)] = None
      continue
    words = column.astype(str)
    if words.str.contains(r"^\s*\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}").all():
      raise ValueError(
        f"column {name!r} must be numbers or categories, but dates were found, such as"
        f" {words.iloc[0]!r} in row 0. Take what matters of them, for example the hour or the days"
        f" since the first, or --leave-out {name}. If rows of a day belong together,"
        f" --group {name}."
      )
    categories = sorted(words.unique())
    if len(categories) > CATEGORIES:
      raise ValueError(
        f"column {name!r} must have at most {CATEGORIES} categories, but {len(categories)} were"
        f" found, such as {categories[0]!r}. If it names the row, take --leave-out {name}; if rows"
        f" of one name belong together, --group {name}."
      )
    found[str(name)] = categories
  if not found:
    raise ValueError("source must have a column beside the label, but there is none.")
  return found


def encode(
  frame: pd.DataFrame, categories: dict[str, list[str] | None]
) -> tuple[np.ndarray, list[str]]:
  """A table as numbers, categories one-hot, float32 `[n, d]`, and the names of its columns."""
  parts, columns = [], []
  for name, own in categories.items():
    if name not in frame:
      raise ValueError(f"the table must have column {name!r} as that of the trial, but has none.")
    if own is None:
      parts.append(pd.to_numeric(frame[name]).to_numpy(np.float64)[:, None])
      columns.append(name)
    else:
      words = frame[name].astype(str).to_numpy()
      parts.append((words[:, None] == np.array(own)[None]).astype(np.float64))
      columns += [f"{name}={word}" for word in own]
  x = np.concatenate(parts, axis=1).astype(np.float32)
  if not np.isfinite(x).all():
    row, column = np.argwhere(~np.isfinite(x))[0]
    raise ValueError(
      f"column {columns[column]!r} must be finite, but row {row} (line {row + 2}) is not."
    )
  return x, columns


def number(labels: np.ndarray, what: str) -> tuple[np.ndarray, list[str]]:
  """Labels of any type as integers, and the names of the classes."""
  if labels.dtype.kind == "f" and not np.array_equal(labels, np.floor(labels)):
    raise ValueError(
      f"{what} must name classes, but numbers such as {labels[0]} were found. A trial classifies:"
      " cut a target into classes first, for example by np.digitize(y, [low, high])."
    )
  if labels.dtype.kind in "UO":
    words = labels.astype(str)
    several = [sign for sign in ";|," if np.mean([sign in word for word in words]) > 0.05]
    parts = {part for word in words for part in word.split(several[0])} if several else set()
    if several and len(parts) < len(set(words)):
      raise ValueError(
        f"{what} must hold one label a row, but several were found, such as"
        f" {next(w for w in words if several[0] in w)!r}. Make a column of yes and no for each of"
        " the labels, and a trial for each: --label THAT_COLUMN, and --leave-out the others."
      )
  values, found = np.unique(labels, return_inverse=True)
  if len(values) < 2:
    raise ValueError(f"{what} must hold more than one class, but only {values[0]} was found.")
  if len(values) > max(20, len(labels) // 5):
    raise ValueError(
      f"{what} must name classes, but {len(values)} values were found in {len(labels)} rows. Is it"
      " a number of the row, or a measured value? Cut it into classes first."
    )
  whole = [str(int(v)) if labels.dtype.kind == "f" else str(v) for v in values]
  return found.reshape(-1), whole


def _of_folder(folder: Path) -> Rows:
  from PIL import Image

  classes = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
  files = [
    p for c in classes for p in sorted((folder / c).rglob("*")) if p.suffix.lower() in IMAGES
  ]
  if len(classes) < 2 or not files:
    raise ValueError(
      f"source {folder} must hold one folder of images for each class, but"
      f" {len(classes)} folders with {len(files)} images were found: {folder.name}/ok/1.png,"
      f" {folder.name}/fault/2.png, and so on."
    )
  opened, colour = [], False
  for file in files:
    try:
      with Image.open(file) as image:
        opened.append(image.convert("RGB" if image.mode not in ("L", "1", "I;16") else "L"))
    except OSError as error:
      raise ValueError(f"{file} must be an image, but it cannot be read: {error}.") from error
    colour |= opened[-1].mode == "RGB"
  sizes, counts = np.unique([image.size for image in opened], axis=0, return_counts=True)
  size = sizes[counts.argmax()]
  shrink = min(1.0, LARGEST / size.max())
  width, height = (int(v) for v in np.maximum(1, np.round(size * shrink)))
  wanted = width, height
  notes = []
  if len(sizes) > 1 or shrink < 1:
    notes.append(f"All images were brought to {wanted[0]} x {wanted[1]} pixels.")
  mode = "RGB" if colour else "L"
  x = np.stack([np.asarray(image.convert(mode).resize(wanted)) for image in opened])
  labels, names = number(np.array([f.relative_to(folder).parts[0] for f in files]), "the folders")
  rows = [str(f.relative_to(folder)) for f in files]
  return Rows(x, labels, names, rows, [], images=True, notes=notes, encoding={"size": wanted})


def _of_npz(path: Path) -> Rows:
  try:
    with np.load(path, allow_pickle=False) as file:
      arrays = {key: file[key] for key in file.files}
  except (OSError, EOFError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
    raise ValueError(f"{path} must be an .npz file, but NumPy cannot read it.") from error
  except ValueError as error:
    raise ValueError(
      f"{path} must hold plain arrays, but Python objects were found. Take y.astype(str) of names,"
      " x.astype(np.float32) of examples."
    ) from error
  parts = [p for p in ("train", "validation", "test") if f"x_{p}" in arrays]
  known = {f"{key}_{part}" for key in KEYS for part in ("train", "validation", "test")}
  if "train" not in parts or any(f"y_{p}" not in arrays for p in parts):
    raise ValueError(
      f"{path} must hold x_train and y_train, maybe x_test and y_test, but"
      f" {', '.join(arrays) or 'nothing'} was found."
    )
  if others := sorted(set(arrays) - known):
    raise ValueError(
      f"{path} must hold no other arrays than {', '.join(sorted(known))}, but {', '.join(others)}"
      " was found."
    )
  for part in parts:
    _check_npz(arrays, part, arrays["x_train"])
  join = lambda key: np.concatenate([arrays[f"{key}_{part}"] for part in parts])
  x = join("x")
  labels, classes = number(join("y"), "y_train")
  whole = lambda key: join(key).astype(str) if all(f"{key}_{p}" in arrays for p in parts) else None
  n = [len(arrays[f"x_{part}"]) for part in parts]
  names = [
    f"{part} {i}" if len(parts) > 1 else str(i)
    for part, m in zip(parts, n, strict=True)
    for i in range(m)
  ]
  test = np.repeat([part == "test" for part in parts], n) if "test" in parts else None
  images = x.dtype == np.uint8 and (x.ndim == 3 or (x.ndim == 4 and x.shape[3] in (1, 3)))
  columns = [f"column {i}" for i in range(x.shape[1])] if x.ndim == 2 else []
  x = x if images else x.astype(np.float32)
  return Rows(x, labels, classes, names, columns, whole("kinds"), whole("groups"), test, images)


def _check_npz(arrays: dict[str, np.ndarray], part: str, x_train: np.ndarray) -> None:
  x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
  if x.ndim < 2 or not x.size or x.dtype.kind not in "buif":
    raise ValueError(
      f"x_{part} must be numbers of shape [n, ...], but {x.dtype} of shape {x.shape} was found."
    )
  if x.shape[1:] != x_train.shape[1:]:
    raise ValueError(
      f"x_{part} must be like x_train, {('m', *x_train.shape[1:])}, but {x.shape} was found."
    )
  bad = ~np.isfinite(x.astype(np.float32).reshape(len(x), -1))
  if bad.any():
    row, column = np.argwhere(bad)[0]
    raise ValueError(
      f"x_{part} must be finite in float32, but {int(bad.sum())} values are not, first in row"
      f" {row}, column {column}. Fill or leave out what is missing."
    )
  if y.shape != (len(x),):
    hint = ""
    if y.ndim == 2 and len(y) == len(x):
      hint = f" One-hot rows become classes by y_{part}.argmax(1)."
      if y.shape[1] == 1:
        hint = f" Take y_{part}[:, 0]."
      elif y.dtype.kind in "buif" and not np.allclose(y.sum(axis=1), 1):
        hint = (
          f" Rows with several labels are no classes: make a trial for each label, y_{part}[:, j]."
        )
    raise ValueError(
      f"y_{part} must have shape ({len(x)},) as its examples, but {y.shape} was found.{hint}"
    )


def looks_like_series(rows: Rows) -> bool:
  """Whether neighbouring columns of a table are far more alike than any two."""
  x = rows.x
  if rows.images or x.ndim != 2 or x.shape[1] < 16 or any("=" in c for c in rows.columns):
    return False
  x = x[:4096].astype(np.float64)
  x = (x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-12)
  alike = np.abs(x.T @ x) / len(x)
  near = np.diagonal(alike, 1).mean()
  far = alike[np.triu_indices(len(alike), 2)].mean()
  return bool(near > 0.3 and near > 1.5 * far)
