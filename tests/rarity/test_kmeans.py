# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""K-means against hand cases, scikit-learn, and bad input."""

import warnings

import chex
import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.cluster
import sklearn.exceptions
from kinds import blobs

import gq_optax as gq


def lloyd_oracle(x, init, num_iters, sample_weight=None):
  """scikit-learn's Lloyd from the same centroids, for the same number of iterations."""
  model = sklearn.cluster.KMeans(
    n_clusters=len(init), init=init, n_init=1, max_iter=num_iters, tol=0.0, algorithm="lloyd"
  )
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", sklearn.exceptions.ConvergenceWarning)
    return model.fit(np.asarray(x, np.float64), sample_weight=sample_weight)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("num_iters", [1, 3, 25])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_equals_scikit_learn_from_the_same_centroids(seed, num_iters, offset):
  x = blobs(seed) + np.float32(offset)
  init = x[np.random.RandomState(seed).choice(len(x), 7, replace=False)]
  ours = gq.kmeans(x, 7, init=init, num_iters=num_iters)
  oracle = lloyd_oracle(x, init, num_iters)
  np.testing.assert_array_equal(ours.labels, oracle.labels_)
  np.testing.assert_allclose(ours.inertia, oracle.inertia_, rtol=1e-4)
  np.testing.assert_allclose(ours.centroids, oracle.cluster_centers_, rtol=1e-4, atol=1e-4)


def test_weights_equal_scikit_learn():
  x, weight = blobs(0), np.random.RandomState(0).uniform(0.1, 3.0, 200).astype(np.float32)
  ours = gq.kmeans(x, 5, init=x[:5], num_iters=20, sample_weight=weight)
  oracle = lloyd_oracle(x, x[:5], 20, weight)
  np.testing.assert_array_equal(ours.labels, oracle.labels_)
  np.testing.assert_allclose(ours.inertia, oracle.inertia_, rtol=1e-4)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("unit", [2.0**-100, 2.0**100])
def test_the_unit_of_weights_moves_no_centroid(metric, unit):
  x, weight = blobs(3), np.random.RandomState(3).rand(len(blobs(3))).astype("f")
  run = lambda weight: gq.kmeans(x, 5, metric=metric, sample_weight=weight)
  ours, plain = run(weight * np.float32(unit)), run(weight)
  np.testing.assert_array_equal(ours.labels, plain.labels)
  np.testing.assert_array_equal(ours.centroids, plain.centroids)
  np.testing.assert_array_equal(ours.inertia, plain.inertia * np.float32(unit))


def test_empty_group_is_reseeded_from_the_farthest_row_as_in_scikit_learn():
  x = blobs(3)
  init = np.concatenate([x[:4], np.full((1, 5), 1e4, np.float32)])  # nobody is near the last
  ours = gq.kmeans(x, 5, init=init, num_iters=15)
  oracle = lloyd_oracle(x, init, 15)
  assert np.all(ours.counts > 0)
  np.testing.assert_array_equal(ours.labels, oracle.labels_)


def test_hand_case_and_convergence():
  x = jnp.array([[0.0], [1.0], [10.0], [11.0]])
  result = gq.kmeans(x, 2, init=jnp.array([[0.0], [1.0]]), num_iters=10)
  np.testing.assert_array_equal(result.labels, [0, 0, 1, 1])
  np.testing.assert_allclose(result.centroids.ravel(), [0.5, 10.5])
  np.testing.assert_allclose(result.inertia, 1.0)
  assert result.converged
  assert not gq.kmeans(x, 2, init=jnp.array([[0.0], [1.0]]), num_iters=1).converged


def test_cosine_groups_by_direction():
  angle = np.array([0.0, 0.1, 1.5, 1.6, 3.0, 3.1], np.float32)
  length = np.array([1e-3, 100.0, 5.0, 1e-2, 1e3, 7.0], np.float32)
  x = np.stack([np.cos(angle), np.sin(angle)], 1) * length[:, None]
  result = gq.kmeans(x, 3, init=x[::2], metric="cosine", num_iters=5)
  np.testing.assert_array_equal(result.labels, [0, 0, 1, 1, 2, 2])
  np.testing.assert_allclose(np.linalg.norm(result.centroids, axis=1), 1.0, rtol=1e-6)
  # Each row is .05 from its centroid's direction.
  np.testing.assert_allclose(result.inertia, 6 * (1 - np.cos(0.05)), rtol=1e-3)


def test_cosine_equals_spherical_lloyd_in_numpy():
  x = blobs(4)
  unit = x / np.linalg.norm(x, axis=1, keepdims=True)
  centroids = unit[:5]
  for _ in range(6):
    labels = (unit @ centroids.T).argmax(1)
    centroids = np.stack([unit[labels == k].sum(0) for k in range(5)])
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
  result = gq.kmeans(x, 5, init=x[:5], metric="cosine", num_iters=6)
  np.testing.assert_array_equal(result.labels, (unit @ centroids.T).argmax(1))
  np.testing.assert_allclose(result.centroids, centroids, atol=1e-5)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("value", [0.0, 3.0, 1e30, 1e-30])
def test_identical_rows_are_harmless_and_deterministic(metric, value):
  x = jnp.full((6, 3), value)
  result = gq.kmeans(x, 4, metric=metric)
  chex.assert_tree_all_finite(result)
  np.testing.assert_array_equal(result.labels, np.zeros(6))  # ties: the lowest index
  np.testing.assert_array_equal(result.counts, [6, 0, 0, 0])


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_fewer_distinct_rows_than_groups(metric):
  x = jnp.array([[1.0, 0.0], [0.0, 1.0]] * 5)
  result = gq.kmeans(x, 5, metric=metric, key=3)
  chex.assert_tree_all_finite(result)
  assert np.sum(result.counts > 0) == 2
  np.testing.assert_allclose(result.inertia, 0.0, atol=1e-6)
  assert len({*np.asarray(result.labels[::2]).tolist()}) == 1


def test_ties_go_to_the_lowest_index():
  x = jnp.array([[1.0], [1.0], [3.0]])
  result = gq.kmeans(x, 2, init=jnp.array([[0.0], [2.0]]), num_iters=0)
  np.testing.assert_array_equal(result.labels, [0, 0, 1])


@pytest.mark.parametrize(
  ("metric", "offset"), [("euclidean", 0.0), ("euclidean", 2.0**14), ("cosine", 0.0)]
)
def test_rows_that_are_not_finite_move_nothing(metric, offset):
  x = np.concatenate([blobs(6) + offset, [[np.nan] * 5, [np.inf] * 5]]).astype(np.float32)
  result = gq.kmeans(x, 4, init=x[:4], metric=metric)
  clean = gq.kmeans(x[:200], 4, init=x[:4], metric=metric)
  chex.assert_tree_all_finite(result)
  np.testing.assert_array_equal(result.labels[:200], clean.labels)
  np.testing.assert_allclose(result.centroids - offset, clean.centroids - offset, 1e-4, 1e-5)
  assert result.counts.sum() == 200


values = st.sampled_from([0.0, 1.0, -1.0, 1e-38, -1e-38, 1e30, -3e38, 3e38, np.nan, np.inf, 0.5])


@hypothesis.settings(deadline=None, derandomize=True, max_examples=60)
@hypothesis.given(
  rows=st.lists(st.tuples(values, values), min_size=6, max_size=6),
  metric=st.sampled_from(["euclidean", "cosine"]),
)
def test_labels_and_centroids_are_always_valid(rows, metric):
  result = gq.kmeans(jnp.array(rows, jnp.float32), 4, metric=metric, key=0)
  chex.assert_tree_all_finite(result.centroids)
  assert not np.isnan(result.inertia)
  assert np.all((result.labels >= 0) & (result.labels < 4))


@hypothesis.settings(deadline=None, derandomize=True, max_examples=30)
@hypothesis.given(seed=st.integers(0, 1000), exponent=st.sampled_from([-80, -20, 20, 80]))
def test_scaling_by_a_power_of_two_changes_no_label(seed, exponent):
  x = blobs(seed, rows=40)
  plain = gq.kmeans(x, 4, key=0)
  scaled = gq.kmeans(x * np.float32(2.0**exponent), 4, key=0)
  np.testing.assert_array_equal(plain.labels, scaled.labels)


@hypothesis.settings(deadline=None, derandomize=True, max_examples=20)
@hypothesis.given(seed=st.integers(0, 1000))
def test_permuted_rows_give_permuted_labels(seed):
  x = blobs(seed, rows=40)
  order = np.random.RandomState(seed).permutation(40)
  plain = gq.kmeans(x, 4, init=x[:4])
  np.testing.assert_array_equal(gq.kmeans(x[order], 4, init=x[:4]).labels, plain.labels[order])


def test_bfloat16_and_integers_compute_in_float32():
  x = jnp.asarray(np.random.RandomState(0).randint(-8, 8, (50, 3)))
  expected = gq.kmeans(x.astype(jnp.float32), 4, key=0)
  chex.assert_trees_all_equal(gq.kmeans(x, 4, key=0), expected)
  chex.assert_trees_all_equal(gq.kmeans(x.astype(jnp.bfloat16), 4, key=0), expected)
  chex.assert_type(expected.centroids, jnp.float32)
  chex.assert_type([expected.labels, expected.counts], jnp.int32)
  chex.assert_shape(expected, [(4, 3), (50,), (4,), (), ()])
