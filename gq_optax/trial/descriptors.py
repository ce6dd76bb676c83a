# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What rows look like, told by features that nobody trained.

A few rows of a kind are too few to train a network on. Random features and a regularised linear
model need far less: of series and images the responses of random kernels (ROCKET, Dempster et al.
2020), of tables the columns and random combinations of them. They are the same for all folds.
"""

import functools
from typing import NamedTuple

import numpy as np

KERNELS = 300
LENGTH = 9  # of a kernel; a short series or image takes what it has
LARGEST = 32  # places along an axis of an image; more are left out evenly


class Ruler(NamedTuple):
  """What features are measured by, so that those of other rows can be compared.

  Attributes:
    layout: "dense", "series" `[n, time]` or `[n, time, channels]`, or "images".
    seed: of what is random.
    rows: the number of those that the rest was read from.
    shift: what is taken off the values of a row.
    scale: what they are divided by.
    levels: above which a kernel responds, `[KERNELS]`; of tables none.
    mean: of the features `[d]`.
    deviation: of the features `[d]`.
  """

  layout: str
  seed: int
  rows: int
  shift: np.ndarray
  scale: np.ndarray
  levels: np.ndarray
  mean: np.ndarray
  deviation: np.ndarray


def describe(x: np.ndarray, layout: str) -> np.ndarray:
  """Features float32 `[n, d]` of mean 0 and deviation 1; `layout` as in `Ruler`."""
  return measure(x, layout)[0]


def measure(
  x: np.ndarray, layout: str, seed: int = 0, ruler: Ruler | None = None
) -> tuple[np.ndarray, Ruler]:
  """Features float32 `[n, d]` of rows `[n, ...]`, and what they were measured by.

  Args:
    x: the rows.
    layout: see `Ruler`.
    seed: see `Ruler`.
    ruler: of other rows, of the same layout and seed; by default it is read from these.
  """
  rng = np.random.default_rng(seed)
  x = x.astype(np.float32)
  axes = None if layout == "images" else 0
  shift, scale = (ruler.shift, ruler.scale) if ruler else (x.mean(axis=axes), x.std(axis=axes))
  x = (x - shift) / np.where(scale > 0, scale, np.float32(1))
  levels = np.zeros(0, np.float32)
  if layout == "dense":
    x = x.reshape(len(x), -1)
    weights = rng.normal(size=(x.shape[1], KERNELS)) / np.sqrt(x.shape[1])
    combined = x @ weights.astype(np.float32) + rng.normal(size=KERNELS)
    own = x if x.shape[1] <= KERNELS else x[:, :0]  # wide rows: their combinations alone
    found = np.concatenate([own, np.maximum(combined, 0)], axis=1)
  else:
    if layout == "images":
      high, wide = (-(-size // LARGEST) for size in x.shape[1:3])
      x = x[:, ::high, ::wide]
    if x.ndim == (2 if layout == "series" else 3):  # one channel that is not written
      x = x[..., None]
    parts, read = [], []
    for kernel in range(KERNELS):
      flat = _responses(rng, x)
      # Where the level is read; drawn all the same where it is known, so that kernels stay alike.
      place = rng.integers(ruler.rows if ruler else len(x)), rng.integers(flat.shape[1])
      read.append(ruler.levels[kernel] if ruler else flat[place])
      parts += [(flat > read[-1]).mean(axis=1), flat.max(axis=1)]
    found, levels = np.stack(parts, axis=1), np.array(read)
  if ruler is None:
    mean, deviation = found.mean(axis=0), np.maximum(found.std(axis=0), 1e-6)
    ruler = Ruler(layout, seed, len(x), shift, scale, levels, mean, deviation)
  return ((found - ruler.mean) / ruler.deviation).astype(np.float32), ruler


def _responses(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
  """How a random kernel responds at all places, `[n, places]`."""
  x = x @ rng.normal(size=x.shape[-1:]).astype(np.float32)
  for axis in range(1, x.ndim):
    size = x.shape[axis]
    length = min(LENGTH if x.ndim == 2 else LENGTH // 2, size)
    dilation = int(2 ** rng.uniform(0, np.log2(max(1, (size - 1) / max(1, length - 1)))))
    weights = rng.normal(size=length).astype(np.float32)
    weights -= weights.mean() * rng.integers(2)
    left = size - (length - 1) * dilation
    moved = (
      w * np.take(x, np.arange(left) + i * dilation, axis=axis) for i, w in enumerate(weights)
    )
    x = functools.reduce(np.add, moved)
  return x.reshape(len(x), -1)
