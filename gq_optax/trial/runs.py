# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""An arm from its rates to its answers: the rate chosen inside each split, then all seeds."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy.special import log_softmax

from gq_optax.trial import alarms, arms, detectors, training
from gq_optax.trial.splits import Split

EXTENSIONS = 2  # of a grid whose best rate lies on its edge


@dataclasses.dataclass
class Bench:
  """What all runs share.

  Attributes:
    x: examples `[n, ...]`.
    labels: int `[n]`.
    kinds: int `[n]`; the labels where no kinds are named.
    splits: who is trained on, and who is tested.
    seeds: how many of each split.
    batch_size: B.
    steps: of a run.
    network: see `networks.make`.
    per_feature: whether examples are standardised feature by feature, as tables want it.
    told: int `[n]`, the kind that a row was named, -1 of rows that nobody named.
    features: `[n, d]`, what detectors of kinds look at.
    tell: called after each part of a run, see `training.train`.
  """

  x: np.ndarray
  labels: np.ndarray
  kinds: np.ndarray
  splits: list[Split]
  seeds: int
  batch_size: int
  steps: int
  network: str
  per_feature: bool
  told: np.ndarray
  features: np.ndarray
  tell: Callable[[], None] = lambda: None

  def __post_init__(self):
    self.num_classes = int(self.labels.max()) + 1
    self.on_device = jnp.asarray(self.x), jnp.asarray(self.labels, jnp.int32)


@dataclasses.dataclass
class Answers:
  """What an arm gives.

  Attributes:
    logits: `[S, n, C]` of each row by the networks that never saw it; NaN where it is not tested.
    validation: how well the arm does inside the splits, on rows that choose rates.
    rates: of each split.
    edge: how many of them lie on the edge of their grid.
    setup: of the training.
    lanes: of the last networks, seeds within splits.
    variables: theirs.
    bias: `[W, C]`, what is taken off their logits before they answer.
    detectors: one of each of the W, of arms that have them.
  """

  logits: np.ndarray
  validation: float
  rates: list[float]
  edge: int
  setup: training.Setup
  lanes: training.Lanes
  variables: Any
  bias: np.ndarray
  detectors: list[detectors.Detectors]


def make_lanes(
  bench: Bench,
  arm: arms.Arm,
  parts: list[np.ndarray],
  rates: list[float],
  seeds: list[int],
) -> training.Lanes:
  """The lanes of networks that are trained on the rows `parts`, one a lane."""
  numbers = {"class": bench.labels, "kind": bench.kinds}
  found = []
  for rows, rate, seed in zip(parts, rates, seeds, strict=True):
    own = bench.x[rows].astype(np.float32)
    axes = 0 if bench.per_feature else None
    scale = own.std(axis=axes)
    counts = np.bincount(bench.labels[rows], minlength=bench.num_classes)
    prior = np.log(np.maximum(counts, 0.5) / counts.sum()) if arm.adjust == "in training" else 0.0
    ones = np.ones(len(bench.x), np.float32)
    shape = bench.steps, bench.batch_size
    rng = np.random.default_rng([seed, len(rows)])
    found.append(
      training.Lanes(
        arms.order(rng, rows, numbers.get(arm.sample), shape),
        np.float32(rate),
        np.int32(seed),
        own.mean(axis=axes),
        np.where(scale > 0, scale, 1.0).astype(np.float32),
        arms.weights(numbers[arm.weigh], rows) if arm.weigh else ones,
        np.zeros(bench.num_classes, np.float32) + np.float32(prior),
      )
    )
  return training.Lanes(*(np.stack(field) for field in zip(*found, strict=True)))


def bias(bench: Bench, arm: arms.Arm, logits: np.ndarray, split: Split) -> np.ndarray:
  """What is taken off the logits of a network, `[C]`, from its logits on validation."""
  counts = np.bincount(bench.labels[split.train], minlength=bench.num_classes)
  if arm.adjust == "after training":
    return np.log(np.maximum(counts, 0.5) / counts.sum())
  found = np.zeros(bench.num_classes)
  if arm.adjust == "threshold":
    rarest = int(np.argmin(np.where(counts > 0, counts, counts.max() + 1)))
    odds = alarms.odds(logits, rarest)
    found[rarest] = alarms.threshold(odds, bench.labels[split.validation] != rarest, 0.05)
  return found


def detect(bench: Bench, arm: arms.Arm, rows: np.ndarray) -> detectors.Detectors:
  """The detectors of an arm, learnt from rows; none where it has none."""
  told = bench.told if arm.detect else np.full_like(bench.told, -1)
  return detectors.learn(bench.features, bench.labels, told, rows)


def quality(bench: Bench, logits: np.ndarray, rows: np.ndarray) -> float:
  """Mean recall of the kinds among rows, and a little of their likelihood, which knows no ties."""
  if not np.isfinite(logits).all():
    return -np.inf
  right = logits.argmax(axis=-1) == bench.labels[rows]
  told = log_softmax(logits, axis=-1)[np.arange(len(rows)), bench.labels[rows]]
  of_kinds = [(right[own].mean(), told[own].mean()) for own in _kinds(bench.kinds[rows])]
  recall, likelihood = np.mean(of_kinds, axis=0)
  return float(recall + 0.01 * max(likelihood, -10.0))


def _kinds(kinds: np.ndarray) -> list[np.ndarray]:
  return [kinds == kind for kind in np.unique(kinds)]


def run_arm(bench: Bench, arm: arms.Arm, optimizer: str) -> Answers:
  """Tunes the rates of one arm, trains all seeds at the best, and lets them answer."""
  queue = min(1024, max(bench.batch_size, min(len(s.inner) for s in bench.splits) // 2))
  setup = training.Setup(
    bench.network, bench.num_classes, optimizer, bench.steps, arm.scarcity, queue
  )
  tried: list[dict[float, tuple[float, np.ndarray]]] = [{} for _ in bench.splits]
  inner = [detect(bench, arm, split.inner) for split in bench.splits]
  grid: tuple[float, ...] = training.RATES[optimizer]
  for _ in range(EXTENSIONS + 1):
    pairs = [(split, rate) for split in range(len(bench.splits)) for rate in grid]
    parts = [bench.splits[split].inner for split, _ in pairs]
    lanes = make_lanes(bench, arm, parts, [rate for _, rate in pairs], [0] * len(pairs))
    variables = training.train(setup, *bench.on_device, lanes, bench.tell)
    logits = training.predict(setup, bench.x, lanes, variables)
    for lane, (split, rate) in enumerate(pairs):
      rows = bench.splits[split].validation
      own = detectors.add(logits[lane, rows], bench.features[rows], inner[split])
      taken = bias(bench, arm, own, bench.splits[split])
      tried[split][rate] = quality(bench, own - taken, rows), taken
    best = [max(own.items(), key=lambda item: item[1][0])[0] for own in tried]
    low = sum(rate == min(own) for rate, own in zip(best, tried, strict=True))
    high = sum(rate == max(own) for rate, own in zip(best, tried, strict=True))
    if max(low, high) * 2 <= len(best):  # most lie inside
      break
    every = [rate for own in tried[:1] for rate in own]
    step = 3.0 if high > low else 1 / 3.0
    edge = max(every) if high > low else min(every)
    grid = tuple(edge * step ** (i + 1) for i in range(len(grid)))
  parts = [split.train for split in bench.splits for _ in range(bench.seeds)]
  rates = [rate for rate in best for _ in range(bench.seeds)]
  seeds = list(range(1, len(parts) + 1))  # no two networks begin alike
  lanes = make_lanes(bench, arm, parts, rates, seeds)
  variables = training.train(setup, *bench.on_device, lanes, bench.tell)
  logits = training.predict(setup, bench.x, lanes, variables)
  off = np.repeat(
    [own[rate][1] for own, rate in zip(tried, best, strict=True)], bench.seeds, axis=0
  )
  whole = [detect(bench, arm, split.train) for split in bench.splits]
  found = np.full((bench.seeds, len(bench.x), bench.num_classes), np.nan, np.float32)
  for lane in range(len(parts)):
    rows = bench.splits[lane // bench.seeds].test
    own = detectors.add(logits[lane, rows], bench.features[rows], whole[lane // bench.seeds])
    found[lane % bench.seeds, rows] = own - off[lane]
  scores = [own[rate][0] for own, rate in zip(tried, best, strict=True)]
  return Answers(
    found, float(np.mean(scores)), best, low + high, setup, lanes, variables, off,
    [own for own in whole for _ in range(bench.seeds)],
  )  # fmt: skip
