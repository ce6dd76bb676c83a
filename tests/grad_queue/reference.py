# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The method once more, slow and obvious: NumPy, a deque, and a loop over every coordinate."""

import collections
import math

import numpy as np


def delta_rho_weight(g, history, rho):
  """Equation 2 for one coordinate: `g` against the list of what came before."""
  if min(history) == max(history):
    return 1 / rho if g == history[0] else rho
  mean = sum(history) / len(history)
  std = math.sqrt(sum((h - mean) ** 2 for h in history) / len(history))
  return min(max(abs(g - mean) / std, 1 / rho), rho)


def effective_length(losses, shortest, longest):
  """Slides a window of two losses back for as long as its sum grows; `losses` newest last."""
  sums = [losses[-1 - j] + losses[-2 - j] for j in range(len(losses) - 1)]
  distance = 0
  while distance + 1 < len(sums) and sums[distance + 1] > sums[distance]:
    distance += 1
  return min(max(distance, shortest), longest)


class Reference:
  """Takes trees as dicts of arrays, and keeps everything it has seen in float64."""

  def __init__(self, queue_length=3, rho=3.0, update_norm=None, store=None):
    self.shortest, self.longest = np.broadcast_to(queue_length, 2)
    self.adaptive = isinstance(queue_length, tuple)
    self.rho, self.update_norm = rho, update_norm
    self.store = store or (lambda x: x)  # rounds to the dtype of the queue
    self.queue = collections.deque(maxlen=int(self.longest))
    self.losses = collections.deque(maxlen=int(self.longest) + 2)
    self.seen = 0

  def mean(self, gradient, value=None):
    """A mean gradient `[*p]`: one group."""
    return self.groups({n: g[None] for n, g in gradient.items()}, [1], value)

  def per_example(self, gradients, labels, num_groups, value=None):
    """Per-example gradients `[B, *p]` and the group of each example."""
    labels = np.asarray(labels)
    means = {
      n: np.stack([g[labels == k].mean(0) if k in labels else g[0] * 0 for k in range(num_groups)])
      for n, g in gradients.items()
    }
    return self.groups(means, [int((labels == k).sum()) for k in range(num_groups)], value)

  def groups(self, means, counts, value=None):
    """Group gradients `[K, *p]` and how many examples each group has."""
    filled = [k for k, n in enumerate(counts) if n > 0]
    raw = {n: sum(counts[k] * g[k] for k in filled) / sum(counts) for n, g in means.items()}
    if not all(np.isfinite(self.store(g)).all() for g in raw.values()):
      return raw

    length, start = int(self.longest), int(self.longest)
    if self.adaptive:
      self.losses.append(value)
      length = effective_length(list(self.losses), int(self.shortest), int(self.longest))
      start = int(self.shortest)
    self.length, update = min(length, len(self.queue)), {}
    for name, groups in means.items():
      update[name] = np.zeros(groups.shape[1:])
      for k in filled:
        share = counts[k] / sum(counts)
        for i in np.ndindex(groups.shape[1:]):
          weight = 1.0
          if self.seen > start and self.rho > 1:
            history = [entry[name][i] for entry in list(self.queue)[-length:]]
            weight = delta_rho_weight(self.store(groups[k])[i], history, self.rho)
          update[name][i] += share * weight * groups[k][i]
    self.queue.append({n: self.store(g) for n, g in raw.items()})
    self.seen += 1
    return self._bounded(update, raw)

  def _bounded(self, update, raw):
    norm, raw_norm = (math.sqrt(sum((g**2).sum() for g in t.values())) for t in (update, raw))
    if self.update_norm is None or norm == 0:
      return update
    factor = raw_norm / norm
    if self.update_norm != "match":
      factor = min(1.0, self.update_norm * factor)
    return {n: g * factor for n, g in update.items()}
