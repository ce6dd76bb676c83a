# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What the tests of rarity share: batches in which there are kinds, all padded to one shape."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import sklearn.datasets

B, M, DIM = 24, 32, 4  # of nearly all tests: they share a few compilations


def blobs(seed, rows=200, dim=5, centers=6, spread=2.0):
  x, _ = sklearn.datasets.make_blobs(
    rows, dim, centers=centers, cluster_std=spread, random_state=seed
  )
  return x.astype(np.float32)


def batch(*kinds):
  """Embeddings on the four axes and opposite to them, one for each kind listed."""
  axes = np.eye(DIM, dtype=np.float32)
  return np.concatenate([axes, -axes])[np.array(kinds, int)]


def clouds(seed, sizes, spread=0.1):
  """Directions around the axes, as many of each as given, shuffled; and which axis."""
  rng = np.random.default_rng(seed)
  kinds = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
  return (batch(*kinds) + spread * rng.normal(size=(len(kinds), DIM))).astype(np.float32), kinds


def update(scarcity, x, state, losses=1.0, counts=True):
  """Padded by masked rows; those that do not count are masked, too."""
  missing = B - len(x)
  padded = lambda part: np.pad(np.broadcast_to(part, len(x)), (0, missing))
  mask = padded(counts)
  extra = {"losses": np.float32(padded(losses))} if hasattr(state, "losses") else {}
  x = jnp.asarray(np.pad(x, ((0, missing), (0, 0))), jnp.float32)
  weights, state = scarcity.update(x, state, mask=mask, **extra)
  weights = np.asarray(weights, np.float64)
  np.testing.assert_array_equal(weights[~mask], 0.0)
  return weights[: B - missing], state


def held(scarce, bound):
  """The s of clip(s * scarce, 1 / bound, bound) of mean 1, by bisection."""
  low, high = 1e-20, 1e20
  for _ in range(200):
    middle = np.sqrt(low * high)
    mean = np.clip(middle * scarce, 1 / bound, bound).mean()
    low, high = (middle, high) if mean < 1 else (low, middle)
  return np.clip(low * scarce, 1 / bound, bound)


@dataclasses.dataclass
class Twin:
  """The formula of example scarcity in plain loops over a list of rows, in float64."""

  queue_size: int = M
  bandwidth: float = 0.2
  neighbours: float = 8.0
  exponent: float = 1.0
  loss_exponent: float = 0.0
  max_weight: float = 50.0
  metric: str = "cosine"
  queue: list = dataclasses.field(default_factory=list)

  def update(self, x, losses):
    x = np.asarray(x, np.float64)
    rows = [e / np.linalg.norm(e) if self.metric == "cosine" else e for e in x]
    batch = list(zip(rows, losses, strict=True))
    distance = lambda a, b: ((a - b) ** 2).sum()
    pairs = [distance(e, o) for e in rows for o, _ in batch + self.queue]
    squares = sum(d**2 for d in pairs)
    reach = self.bandwidth * sum(d**3 for d in pairs) / squares if squares else 1.0
    everyone = [loss for _, loss in batch + self.queue]
    mean = np.mean(everyone)
    found, ratio = [], []
    for i, e in enumerate(rows):
      others = batch[:i] + batch[i + 1 :] + self.queue
      alike = [np.exp(-0.5 * (distance(e, o) / reach) ** 2) for o, _ in others]
      found.append(sum(alike))
      around = sum(k * loss for k, (_, loss) in zip(alike, others, strict=True)) + mean
      ratio.append(np.clip(around / (found[-1] + 1) / mean, 0.02, 50) ** self.loss_exponent)
    found = np.array(found)
    scarce = np.maximum(found + self.neighbours, 0.5) ** -self.exponent * np.array(ratio)
    trust = found**2 / (found**2 + (self.neighbours / 2) ** 2 + 1e-300)
    unit = trust.sum() / (trust * scarce).sum() if trust.any() else 1.0
    new = batch
    if len(batch) > self.queue_size:
      new = [batch[i * len(batch) // self.queue_size] for i in range(self.queue_size)]
    self.queue = (new + self.queue)[: self.queue_size]
    return held(1 + trust * (unit * scarce - 1), self.max_weight)
