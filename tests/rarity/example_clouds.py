# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What the tests of example scarcity share: clouds of examples, and the formula in plain loops."""

import jax.numpy as jnp
import numpy as np

B, M, DIM = 24, 32, 4  # one shape for nearly all tests: they share a few compilations


def update(scarcity, x, state, losses=None):
  """Padded to one shape by masked rows."""
  missing = B - len(x)
  mask = jnp.arange(B) < len(x)
  x = jnp.pad(jnp.asarray(x, jnp.float32), ((0, missing), (0, 0)))
  losses = None if losses is None else jnp.pad(jnp.asarray(losses, jnp.float32), (0, missing))
  weights, state = scarcity.update(x, state, mask=mask, losses=losses)
  np.testing.assert_array_equal(weights[B - missing :], 0.0)
  return np.asarray(weights[: B - missing], np.float64), state


def held(scarce, bound):
  """The s of clip(s * scarce, 1 / bound, bound) of mean 1, by bisection."""
  low, high = 1e-20, 1e20
  for _ in range(200):
    middle = np.sqrt(low * high)
    mean = np.clip(middle * scarce, 1 / bound, bound).mean()
    low, high = (middle, high) if mean < 1 else (low, middle)
  return np.clip(low * scarce, 1 / bound, bound)


class Twin:
  """The formula in plain loops over a list of rows, in float64."""

  def __init__(self, size=M, h=0.2, m=8.0, a=1.0, b=0.0, bound=50.0, metric="cosine"):
    self.size, self.h, self.m, self.a, self.b = size, h, m, a, b
    self.bound, self.metric, self.queue = bound, metric, []

  def update(self, x, losses):
    x = np.asarray(x, np.float64)
    rows = [e / np.linalg.norm(e) if self.metric == "cosine" else e for e in x]
    batch = list(zip(rows, losses, strict=True))
    distance = lambda a, b: ((a - b) ** 2).sum()
    pairs = [distance(e, o) for e in rows for o, _ in batch + self.queue]
    squares = sum(d**2 for d in pairs)
    reach = self.h * sum(d**3 for d in pairs) / squares if squares else 1.0
    everyone = [loss for _, loss in batch + self.queue]
    mean = np.mean(everyone)
    found, ratio = [], []
    for i, e in enumerate(rows):
      others = batch[:i] + batch[i + 1 :] + self.queue
      alike = [np.exp(-0.5 * (distance(e, o) / reach) ** 2) for o, _ in others]
      found.append(sum(alike))
      around = sum(k * loss for k, (_, loss) in zip(alike, others, strict=True)) + mean
      ratio.append(np.clip(around / (found[-1] + 1) / mean, 0.02, 50) ** self.b)
    found = np.array(found)
    scarce = np.maximum(found + self.m, 0.5) ** -self.a * np.array(ratio)
    trust = found**2 / (found**2 + (self.m / 2) ** 2 + 1e-300)
    unit = trust.sum() / (trust * scarce).sum() if trust.any() else 1.0
    weights = held(1 + trust * (unit * scarce - 1), self.bound)
    new = batch
    if len(batch) > self.size:
      new = [batch[i * len(batch) // self.size] for i in range(self.size)]
    self.queue = (new + self.queue)[: self.size]
    return weights


def clouds(seed, sizes, spread=0.1, dim=DIM):
  """Directions around the axes, as many of each as given, shuffled; and which axis."""
  rng = np.random.default_rng(seed)
  kinds = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
  x = np.eye(dim)[kinds] + spread * rng.normal(size=(len(kinds), dim))
  return x.astype(np.float32), kinds
