# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The picture that examples end in: how well each class is recognised, with and without."""

import pathlib
from collections.abc import Sequence

import matplotlib.figure
import numpy as np


def recalls(logits: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
  """The share of each class that is recognised, `[C]`."""
  hit = np.argmax(logits, axis=-1) == labels
  return np.array([hit[labels == c].mean() for c in range(num_classes)])


def compare(
  by_way: dict[str, np.ndarray],
  counts: np.ndarray,
  names: Sequence[str],
  path: pathlib.Path,
) -> dict[str, float]:
  """Draws the recalls of every way, frequent classes first; prints and returns their means."""
  order = np.argsort(-counts, kind="stable")
  figure = matplotlib.figure.Figure(figsize=(8, 3.6), layout="constrained")
  ax, width = figure.subplots(), 0.8 / len(by_way)
  for i, (way, values) in enumerate(by_way.items()):
    where = np.arange(len(order)) + (i - (len(by_way) - 1) / 2) * width
    ax.bar(where, 100 * values[order], width, label=f"{way}, mean {100 * values.mean():.1f} %")
  labels = [f"{names[c]}\n{counts[c]}" for c in order]
  ax.set_xticks(range(len(order)), labels, fontsize=8)
  ax.set_xlabel("class, and its training examples")
  ax.set_ylabel("recognised in the test set, %")
  ax.spines[["top", "right"]].set_visible(False)
  ax.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(by_way))
  path.parent.mkdir(parents=True, exist_ok=True)
  figure.savefig(path, dpi=120)
  means = {way: float(values.mean()) for way, values in by_way.items()}
  print(*(f"{way} {mean:.3f}" for way, mean in means.items()), sep="  ")
  return means
