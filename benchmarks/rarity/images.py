# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""CIFAR-10 with a long tail, as bytes on the device; cropped and mirrored inside the program.

    python -m benchmarks.rarity.images pack out/cifar10_LT100.npz

writes the examples that are used in about 40 MiB, for machines that nothing is fetched on.
"""

import sys
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness import data, tasks
from gq_optax.trial.own_data import KEYS, Data, open_npz

IMBALANCE, LARGEST = 100.0, 5000
HIDDEN_SEED = 5  # of the superclasses
PADDING = 4
TASKS = ("LT100", "hidden")


class Split(NamedTuple):
  """Examples to judge by: uint8 `[n, h, w, c]`, int32 `[n]`, int32 `[n]`."""

  x: jax.Array
  labels: jax.Array
  kinds: jax.Array


class Images(NamedTuple):
  """A task on the device.

  Attributes:
    padded: uint8 `[n, h + 8, w + 8, c]`, training, with a black edge.
    labels: int32 `[n]`.
    kinds: int32 `[n]`, the classes; what "hidden" hides in two labels.
    mean: float32 `[c]`, of the training pixels.
    std: float32 `[c]`.
    validation: to choose rates on.
    test: to report.
  """

  padded: jax.Array
  labels: jax.Array
  kinds: jax.Array
  mean: jax.Array
  std: jax.Array
  validation: Split
  test: Split


def long_tailed(source: Data) -> Data:
  """The set with class c left `5000 * 100 ** (-c / 9)` examples of training."""
  rows = tasks.long_tail(source.y_train, IMBALANCE, LARGEST, seed=0)
  return source._replace(x_train=source.x_train[rows], y_train=source.y_train[rows])


def few(source: Data) -> Data:
  """Two examples of each class, and four of the test set, of 4 x 4 places."""

  def take(x: np.ndarray, y: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    rows = np.concatenate([np.flatnonzero(y == label)[:number] for label in range(10)])
    apart = x.shape[1] // 4
    return x[rows, ::apart, ::apart], y[rows]

  train, test = take(source.x_train, source.y_train, 2), take(source.x_test, source.y_test, 4)
  return Data(*train, *test)


def make(source: Data, name: str) -> Images:
  """A task of `TASKS` out of a set that has its long tail."""
  put = lambda y: jnp.asarray(y, jnp.int32)
  label = lambda kinds: tasks.superclasses(kinds, HIDDEN_SEED) if name == "hidden" else kinds
  edge = ((0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0))
  pixels = source.x_train.astype(np.float64)
  splits = []
  for rows in tasks.halves(source.y_test, seed=0):
    y = source.y_test[rows]
    splits.append(Split(jnp.asarray(source.x_test[rows]), put(label(y)), put(y)))
  return Images(
    padded=jnp.asarray(np.pad(source.x_train, edge)),
    labels=put(label(source.y_train)),
    kinds=put(source.y_train),
    mean=jnp.asarray(pixels.mean((0, 1, 2)), jnp.float32),
    std=jnp.asarray(pixels.std((0, 1, 2)), jnp.float32),
    validation=splits[0],
    test=splits[1],
  )


def normalise(images: Images, x: jax.Array) -> jax.Array:
  """Bytes as float32 with mean 0 and deviation 1 over the training pixels."""
  return (x.astype(jnp.float32) - images.mean) / images.std


def augmented(images: Images, rows: jax.Array, key: jax.Array) -> jax.Array:
  """The examples `rows`, each cropped anywhere within its edge and mirrored or not; float32."""
  n, height, width, channels = images.padded.shape
  shift_key, flip_key = jax.random.split(key)
  shifts = jax.random.randint(shift_key, (len(rows), 2), 0, 2 * PADDING + 1)
  mirrored = jax.random.bernoulli(flip_key, shape=(len(rows), 1))
  down = shifts[:, :1] + jnp.arange(height - 2 * PADDING)
  forwards = jnp.arange(width - 2 * PADDING)
  across = shifts[:, 1:] + jnp.where(mirrored, forwards[::-1], forwards)
  x = images.padded[rows[:, None, None], down[:, :, None], across[:, None, :]]
  return normalise(images, x)


# A file of differences between neighbours, which compress better than bytes of images


def pack(path: Path, source: Data) -> None:
  """Writes a set without loss."""
  path.parent.mkdir(parents=True, exist_ok=True)
  arrays = {}
  for key, value in source._asdict().items():
    arrays[key] = value.astype(np.uint8) if key[0] == "y" else differences(value)
  np.savez_compressed(path, allow_pickle=False, **arrays)


def unpack(path: Path) -> Data:
  """What `pack` wrote."""
  arrays = open_npz(path, KEYS)
  return Data(**{k: v.astype(np.int64) if k[0] == "y" else sums(v) for k, v in arrays.items()})


def differences(x: np.ndarray) -> np.ndarray:
  """Bytes `[n, h, w, 3]` less their neighbours above and to the left, planes first; modulo 256."""
  x = x.copy()
  x[..., ::2] -= x[..., 1:2]
  for axis in (1, 2):
    x = np.diff(x, axis=axis, prepend=np.uint8(0))
  return np.ascontiguousarray(np.moveaxis(x, 3, 0))


def sums(x: np.ndarray) -> np.ndarray:
  """The bytes whose `differences` these are."""
  for axis in (2, 3):
    x = np.cumsum(x, axis=axis, dtype=np.uint8)
  x = np.ascontiguousarray(np.moveaxis(x, 0, 3))
  x[..., ::2] += x[..., 1:2]
  return x


def load(path: Path | None) -> Data:
  """The set with its long tail: a packed file, or CIFAR-10 as `data.load` finds it."""
  return long_tailed(data.load("cifar10")) if path is None else unpack(path)


if __name__ == "__main__":
  if len(sys.argv) != 3 or sys.argv[1] != "pack":
    sys.exit("python -m benchmarks.rarity.images pack FILE")
  pack(Path(sys.argv[2]), load(None))
