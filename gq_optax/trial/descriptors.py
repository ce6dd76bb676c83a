# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What rows look like, told by features that nobody trained.

A few rows of a kind are too few to train a network on. Random features and a regularised linear
model need far less: of series and images the responses of random kernels (ROCKET, Dempster et al.
2020), of tables the columns and random combinations of them. They are the same for all folds.
"""

import functools

import numpy as np

KERNELS = 300
LENGTH = 9  # of a kernel; a short series or image takes what it has
LARGEST = 32  # places along an axis of an image; more are left out evenly


def describe(x: np.ndarray, layout: str) -> np.ndarray:
  """Features float32 `[n, d]` of mean 0 and deviation 1.

  Args:
    x: rows `[n, ...]`.
    layout: "dense", "series" `[n, time]` or `[n, time, channels]`, or "images".
  """
  rng = np.random.default_rng(0)
  x = x.astype(np.float32)
  axes = None if layout == "images" else 0
  x = (x - x.mean(axis=axes)) / np.maximum(x.std(axis=axes), 1e-12)
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
    found = np.stack([part for _ in range(KERNELS) for part in _responses(rng, x)], axis=1)
  found = (found - found.mean(axis=0)) / np.maximum(found.std(axis=0), 1e-6)
  return found.astype(np.float32)


def _responses(rng: np.random.Generator, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Where a random kernel responds, as a share of the places, and how much at most."""
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
  flat = x.reshape(len(x), -1)
  return (flat > rng.choice(flat[rng.integers(len(flat))])).mean(axis=1), flat.max(axis=1)
