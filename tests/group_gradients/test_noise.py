# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Noise scale and diversity against problems whose answer is known."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gq_optax as gq

DIM, BATCH, GROUPS = 40, 96, 8


def quadratic_gradients(key, noise):
  """Per-example gradients of |x - y_i|^2 / 2 at x = 0, with y_i ~ N(m, noise^2): Gaussian."""
  mean = jnp.linspace(-1.0, 1.0, DIM)
  return mean + noise * jax.random.normal(key, (BATCH, DIM)), mean


def group_means(gradients, labels, num_groups=GROUPS):
  member = jax.nn.one_hot(labels, num_groups, dtype=jnp.float32)
  counts = member.sum(0)
  return gq.GroupGradients({"x": member.T @ gradients / counts[:, None]}, counts)


@pytest.mark.parametrize("noise", [0.3, 2.0])
def test_unbiased_on_a_quadratic_with_known_noise(noise):
  @jax.jit
  def estimate(key):
    with jax.numpy_rank_promotion("allow"):
      gradients, _ = quadratic_gradients(key, noise)
    labels = gq.random_groups(jax.random.fold_in(key, 1), BATCH, GROUPS)
    return gq.noise_scale(group_means(gradients, labels))

  runs = 500
  estimates = jax.vmap(estimate)(jax.random.split(jax.random.key(0), runs))
  true_trace, true_norm = DIM * noise**2, float(jnp.sum(jnp.linspace(-1.0, 1.0, DIM) ** 2))
  for found, truth in ((estimates.trace, true_trace), (estimates.squared_norm, true_norm)):
    standard_error = found.std() / runs**0.5
    assert abs(found.mean() - truth) < 4 * standard_error
    assert standard_error < 0.05 * truth
  averaged = estimates.trace.mean() / estimates.squared_norm.mean()
  np.testing.assert_allclose(averaged, true_trace / true_norm, rtol=0.1)


def test_uneven_sizes_are_refused_as_not_random():
  gradients = jax.random.normal(jax.random.key(0), (BATCH, DIM))
  labels = jnp.where(jnp.arange(BATCH) < 80, 0, jnp.arange(BATCH) % GROUPS)
  assert all(np.isnan(x) for x in gq.noise_scale(group_means(gradients, labels)))
  even = group_means(gradients, jnp.arange(BATCH) % GROUPS)
  chex.assert_tree_all_finite(gq.noise_scale(even).trace)
  empty = even._replace(counts=even.counts.at[0].set(0.0))
  assert np.isnan(gq.noise_scale(empty).trace)


def test_clustered_groups_would_be_biased():
  """Why the docstring insists on random groups."""
  gradients = jax.random.normal(jax.random.key(1), (BATCH, DIM))
  labels = jnp.argsort(jnp.argsort(gradients[:, 0])) // (BATCH // GROUPS)  # by similarity
  random = gq.noise_scale(group_means(gradients, gq.random_groups(2, BATCH, GROUPS)))
  sorted_ = gq.noise_scale(group_means(gradients, labels))
  assert sorted_.trace > 1.2 * random.trace


def test_noise_that_hides_the_gradient_is_infinite():
  groups = gq.GroupGradients(jnp.array([[1.0], [-1.0]]), jnp.array([4, 4]))
  assert gq.noise_scale(groups).noise_scale == jnp.inf


@pytest.mark.parametrize(("batch", "groups"), [(10, 4), (8, 8), (7, 1)])
def test_random_groups_are_balanced_and_random(batch, groups):
  labels = np.stack([gq.random_groups(k, batch, groups) for k in range(20)])
  for row in labels:
    counts = np.bincount(row, minlength=groups)
    assert counts.max() - counts.min() <= 1
  chex.assert_type(gq.random_groups(0, batch, groups), jnp.int32)
  assert groups == 1 or len({tuple(row) for row in labels}) > 10


@pytest.mark.parametrize(
  ("batch", "noise", "expected"),
  [(512, 64.0, 8), (512, 1e9, 1), (512, np.inf, 1), (512, np.nan, 1), (512, 0.0, 512), (64, 48, 1)],
)
def test_suggested_clusters(batch, noise, expected):
  assert gq.suggest_num_clusters(batch, jnp.float32(noise)) == expected
  assert gq.suggest_num_clusters(batch, noise) == expected
