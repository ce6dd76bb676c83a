# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What the tests of A/B trials share: easy classes, and a trial of seconds on them."""

import dataclasses

import numpy as np

from gq_optax.trial.runs import Trial


def blobs(sizes, spread=1.0, seed=0):
  """Classes around corners, as many of each as said, in random order."""
  rng = np.random.default_rng(seed)
  y = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
  return 3.0 * np.eye(len(sizes))[y] + spread * rng.normal(size=(len(y), len(sizes))), y


def small(folder, **changes):
  x, y = blobs((90, 60, 14))
  np.savez(folder / "own.npz", x_train=x, y_train=y)
  trial = Trial(
    npz=folder / "own.npz",
    model="logistic",
    arm_names=("SGDM", "Nesterov", "class weights", "GQ, K=1"),
    batch_sizes=(64,),
    rates=(0.05, 0.1, 0.2),
    seeds=5,
    tuning_seeds=2,
    epochs=4,
    evaluations=2,
    cost_rounds=2,
    out=folder / "out",
  )
  return dataclasses.replace(trial, **changes)
