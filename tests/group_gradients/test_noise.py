# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Noise scale and what it suggests, against problems whose answer is known."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gq_optax as gq

DIM, BATCH, GROUPS = 40, 96, 8
MEAN = np.linspace(-1.0, 1.0, DIM)
noise_scale = jax.jit(gq.noise_scale)
random_groups = jax.jit(gq.random_groups, static_argnums=(1, 2))


def group_means(gradients, labels):
  """Of gradients `[..., B, d]`, in NumPy."""
  member = labels[..., None, :] == np.arange(GROUPS)[:, None]
  counts = member.sum(axis=-1)
  means = (member @ gradients / np.maximum(counts, 1)[..., None]).astype(np.float32)
  return gq.GroupGradients({"x": means}, counts.astype(np.int32))


@pytest.mark.parametrize("noise", [0.3, 2.0])
def test_unbiased_on_a_quadratic_with_known_noise(noise):
  """Per-example gradients of |x - y_i|^2 / 2 at x = 0, with y_i ~ N(m, noise^2): Gaussian."""
  runs, rng = 500, np.random.default_rng(0)
  gradients = MEAN + noise * rng.normal(size=(runs, BATCH, DIM))
  keys = jax.random.split(jax.random.key(0), runs)
  labels = np.stack([random_groups(key, BATCH, GROUPS) for key in keys])
  estimates = jax.jit(jax.vmap(gq.noise_scale))(group_means(gradients, labels))
  true_trace, true_norm = DIM * noise**2, np.sum(MEAN**2)
  for found, truth in ((estimates.trace, true_trace), (estimates.squared_norm, true_norm)):
    standard_error = found.std() / runs**0.5
    assert abs(found.mean() - truth) < 4 * standard_error
    assert standard_error < 0.05 * truth
  averaged = estimates.trace.mean() / estimates.squared_norm.mean()
  np.testing.assert_allclose(averaged, true_trace / true_norm, rtol=0.1)


def test_uneven_groups_are_refused_as_not_random_and_clustered_ones_would_be_biased():
  gradients = np.random.default_rng(1).normal(size=(BATCH, DIM))
  uneven = np.where(np.arange(BATCH) < 80, 0, np.arange(BATCH) % GROUPS)
  assert all(np.isnan(x) for x in noise_scale(group_means(gradients, uneven)))
  even = group_means(gradients, np.arange(BATCH) % GROUPS)
  chex.assert_tree_all_finite(noise_scale(even).trace)
  empty = even._replace(counts=even.counts * (np.arange(GROUPS) > 0).astype(np.int32))
  assert np.isnan(noise_scale(empty).trace)
  similar = np.argsort(np.argsort(gradients[:, 0])) // (BATCH // GROUPS)
  assert noise_scale(group_means(gradients, similar)).trace > 1.2 * noise_scale(even).trace
  # Noise that hides the gradient is infinite.
  opposite = np.repeat([[1.0], [-1.0]], BATCH // 2, axis=0) * np.ones(DIM)
  halves = group_means(opposite, np.arange(BATCH) // (BATCH // GROUPS))
  assert noise_scale(halves).noise_scale == jnp.inf


@pytest.mark.parametrize(("batch", "groups"), [(10, 4), (8, 8), (7, 1)])
def test_random_groups_are_balanced_and_random(batch, groups):
  keys = jax.random.split(jax.random.key(0), 20)
  labels = np.stack([random_groups(key, batch, groups) for key in keys])
  for row in labels:
    counts = np.bincount(row, minlength=groups)
    assert counts.max() - counts.min() <= 1
  assert labels.dtype == np.int32
  assert groups == 1 or len({tuple(row) for row in labels}) > 10


@pytest.mark.parametrize(
  ("batch", "noise", "expected"),
  [(512, 64.0, 8), (512, 1e9, 1), (512, np.inf, 1), (512, np.nan, 1), (512, 0.0, 512), (64, 48, 1)],
)
def test_suggested_clusters(batch, noise, expected):
  assert gq.suggest_num_clusters(batch, jnp.float32(noise)) == expected
  assert gq.suggest_num_clusters(batch, noise) == expected
