# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""K-means against hand cases, scikit-learn and bad input; its first centroids, empty groups."""

import functools
import warnings

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.cluster
import sklearn.exceptions
from kinds import blobs

import gq_optax as gq
from gq_optax._rarity import lloyd

K = 5  # of rows [200, 5], nearly everywhere: the tests share a few compilations
of_metrics = pytest.mark.parametrize("metric", ["euclidean", "cosine"])


def oracle(metric, x, init, num_iters=10, sample_weight=None):
  """Labels, centroids and inertia of scikit-learn's Lloyd; of directions, of NumPy."""
  if metric == "euclidean":
    model = sklearn.cluster.KMeans(
      n_clusters=len(init), init=init, n_init=1, max_iter=num_iters, tol=0.0, algorithm="lloyd"
    )
    with warnings.catch_warnings():
      warnings.simplefilter("ignore", sklearn.exceptions.ConvergenceWarning)
      model.fit(np.asarray(x, np.float64), sample_weight=sample_weight)
    return model.labels_, model.cluster_centers_, model.inertia_
  unit, centroids = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (x, init))
  for _ in range(num_iters):
    labels = (unit @ centroids.T).argmax(1)
    centroids = np.stack([unit[labels == k].sum(0) for k in range(len(init))])
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
  cosines = unit @ centroids.T
  return cosines.argmax(1), centroids, np.sum(1.0 - cosines.max(1))


def assert_alike(ours, oracle, last_digit=0.0):
  labels, centroids, inertia = oracle
  np.testing.assert_array_equal(ours.labels[: len(labels)], labels)
  np.testing.assert_allclose(ours.centroids, centroids, 1e-5, 1e-5 + last_digit)
  np.testing.assert_allclose(ours.inertia, inertia, rtol=1e-4)


@pytest.mark.parametrize(
  ("metric", "offset", "num_iters"),
  [("euclidean", 0, 1), ("euclidean", 1000, 3), ("euclidean", 2**14, 10), ("cosine", 0, 10)],
)
@pytest.mark.parametrize("left_out", [0, 2])
def test_equals_scikit_learn_from_the_same_centroids_and_rows_not_finite_move_nothing(
  metric, offset, num_iters, left_out
):
  for seed in range(3):
    x, rng = blobs(seed) + np.float32(offset), np.random.RandomState(seed)
    if metric == "cosine":  # by direction, of any length
      x *= np.float32(10.0 ** rng.uniform(-3, 3, (200, 1)))
    clean, weight = x[: 200 - left_out].copy(), np.ones(200, np.float32)
    x[len(clean) :], weight[len(clean) :] = np.array([[np.nan], [np.inf]])[:left_out], 0.0
    init = clean[rng.choice(len(clean), K, replace=False)]
    options = {"init": init, "metric": metric, "num_iters": num_iters}
    run = functools.partial(gq.kmeans, num_clusters=K, **options)
    result = run(x)
    chex.assert_tree_all_finite(result)
    assert result.counts.sum() == len(clean)
    assert_alike(result, oracle(metric, clean, init, num_iters), offset * 2.0**-23)
    # As rows without weight do.
    masked = run(np.nan_to_num(x, posinf=0.0), sample_weight=weight)
    np.testing.assert_array_equal(result.centroids, masked.centroids)


def test_weights_and_empty_groups_are_as_in_scikit_learn():
  x, weight = blobs(0), np.random.RandomState(0).uniform(0.1, 3.0, 200).astype(np.float32)
  ours = gq.kmeans(x, K, init=x[:K], sample_weight=weight)
  assert_alike(ours, oracle("euclidean", x, x[:K], sample_weight=weight))
  x = blobs(3)
  init = np.concatenate([x[:4], np.full((1, 5), 1e4, np.float32)])  # nobody is near the last
  ours = gq.kmeans(x, K, init=init)  # it takes the farthest row
  assert np.all(ours.counts > 0)
  assert_alike(ours, oracle("euclidean", x, init))


@of_metrics
@pytest.mark.parametrize("unit", [2.0**-100, 2.0**100])
def test_the_unit_of_weights_moves_no_centroid(metric, unit):
  x, weight = blobs(3), np.random.RandomState(3).rand(200).astype("f")
  run = lambda weight: gq.kmeans(x, K, metric=metric, sample_weight=weight)
  ours, plain = run(weight * np.float32(unit)), run(weight)
  np.testing.assert_array_equal(ours.labels, plain.labels)
  np.testing.assert_array_equal(ours.centroids, plain.centroids)
  np.testing.assert_array_equal(ours.inertia, plain.inertia * np.float32(unit))


def test_hand_case_and_convergence():
  x = np.array([[0.0], [1.0], [10.0], [11.0]])
  first, third = (gq.kmeans(x, 2, init=x[:2], num_iters=n) for n in (1, 3))
  assert not first.converged
  assert third.converged
  np.testing.assert_array_equal(third.labels, [0, 0, 1, 1])
  np.testing.assert_allclose(third.centroids.ravel(), [0.5, 10.5])
  np.testing.assert_allclose(third.inertia, 1.0)
  # Ties go to the lowest index.
  tied = gq.kmeans(np.array([[1.0], [1.0], [3.0]]), 2, init=np.array([[0.0], [2.0]]), num_iters=0)
  np.testing.assert_array_equal(tied.labels, [0, 0, 1])


values = st.sampled_from([0.0, 1.0, -1.0, 1e-38, -1e-38, 1e30, -3e38, 3e38, np.nan, np.inf, 0.5])


@hypothesis.settings(deadline=None, derandomize=True, max_examples=60)
@hypothesis.given(
  rows=st.lists(st.tuples(values, values), min_size=6, max_size=6),
  metric=st.sampled_from(["euclidean", "cosine"]),
)
def test_labels_and_centroids_are_always_valid(rows, metric):
  result = gq.kmeans(np.array(rows, np.float32), 4, metric=metric, key=0)
  chex.assert_tree_all_finite(result.centroids)
  assert not np.isnan(result.inertia)
  assert np.all((result.labels >= 0) & (result.labels < 4))


@of_metrics
def test_fewer_distinct_rows_than_groups_are_harmless_and_deterministic(metric):
  for value in (0.0, 3.0, 1e30, 1e-30):
    result = gq.kmeans(np.full((6, 2), value, np.float32), 4, metric=metric)
    chex.assert_tree_all_finite(result)
    np.testing.assert_array_equal(result.labels, np.zeros(6))  # ties: the lowest index
    np.testing.assert_array_equal(result.counts, [6, 0, 0, 0])
  result = gq.kmeans(np.float32([[1.0, 0.0], [0.0, 1.0]] * 3), 4, metric=metric, key=3)
  chex.assert_tree_all_finite(result)
  assert sorted(result.counts.tolist()) == [0, 0, 3, 3]
  np.testing.assert_allclose(result.inertia, 0.0, atol=1e-6)
  assert len({*np.asarray(result.labels[::2]).tolist()}) == 1


@hypothesis.settings(deadline=None, derandomize=True, max_examples=30)
@hypothesis.given(seed=st.integers(0, 1000), exponent=st.sampled_from([-80, -20, 20, 80]))
def test_scaling_by_a_power_of_two_and_another_order_change_no_label(seed, exponent):
  x = blobs(seed)
  scaled = gq.kmeans(x * np.float32(2.0**exponent), K, key=0)
  np.testing.assert_array_equal(gq.kmeans(x, K, key=0).labels, scaled.labels)
  order = np.random.RandomState(seed).permutation(200)
  plain = gq.kmeans(x, K, init=x[:K])
  np.testing.assert_array_equal(gq.kmeans(x[order], K, init=x[:K]).labels, plain.labels[order])


# Seeding, and what an empty group takes.

KEY = jax.random.key(0)


def reseed_one_by_one(x, labels, weight, centroids, dead):
  """Each group that is empty and dead, in order, takes the farthest row still free, in NumPy."""
  away = np.where(weight > 0, np.sum((x - centroids[labels]) ** 2, axis=1), 0.0)
  moved = labels.copy()
  for group in np.flatnonzero(dead & ~np.isin(np.arange(len(centroids)), labels[weight > 0])):
    if away.max() > 1e-12:
      moved[away.argmax()] = group
      away[away.argmax()] = 0.0
  return moved


def as_on_a_gpu(monkeypatch):
  """What is lowered for CUDA, run here."""
  chosen = lambda *args, default, cuda=None, **_: (cuda or default)(*args)
  monkeypatch.setattr(jax.lax, "platform_dependent", chosen)


@pytest.mark.parametrize(
  ("rows", "number"),  # of seeds, and of those of one draw; or of candidates among many rows
  [(40, (1, 1)), (40, (18, 1)), (40, (8, 3)), (lloyd._MANY, (64,))],
)
def test_a_gpu_finds_the_seeds_that_a_cpu_finds(rows, number, monkeypatch):
  """Of small whole numbers, whose products are exact on both: in a loop, and in straight lines."""
  x = np.random.RandomState(0).randint(-4, 5, (rows, 5)).astype(np.float32)
  way = lloyd.greedy if len(number) == 2 else lloyd.candidates
  seeds = lambda: jax.jit(lambda *args: way(*args, *number))(KEY, x, np.ones(rows, "f"))
  on_cpu = seeds()
  as_on_a_gpu(monkeypatch)
  jax.tree.map(np.testing.assert_array_equal, seeds(), on_cpu)


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize(("rows", "num_clusters"), [(20, 8), (4, 8)])
def test_all_empty_groups_take_at_once_the_rows_they_would_take_one_by_one(
  rows, num_clusters, gpu, monkeypatch
):
  if gpu:
    as_on_a_gpu(monkeypatch)
  reseed = jax.jit(lambda *args: lloyd.reseed(*args))  # traced anew for each platform
  rng, met = np.random.RandomState(0), 0
  for _ in range(100):
    # Few places: many ties, and rows that lie on their centroid.
    x = rng.randint(-2, 3, (rows, 2)).astype(np.float32)
    far = np.full((num_clusters - 3, 2), 100.0, np.float32)
    centroids = rng.permutation(np.concatenate([x[:3], far]))
    weight = (rng.rand(rows) < rng.choice([1.0, 0.5, 0.1])).astype(np.float32)
    dead = rng.rand(num_clusters) < 0.8
    labels = np.asarray(lloyd.nearest(x, centroids, "euclidean"))
    expected = reseed_one_by_one(x, labels, weight, centroids, dead)
    np.testing.assert_array_equal(reseed(x, labels, weight, centroids, dead), expected)
    met += np.sum(expected != labels)
  assert met > 30


def test_seeding_among_many_rows_finds_rare_kinds_as_greedy_k_means_plus_plus_does():
  rng, many, num_clusters = np.random.RandomState(0), lloyd._MANY, 64
  kind = np.minimum(rng.geometric(5.6 / num_clusters, many) - 1, num_clusters - 1)
  kind[:num_clusters] = np.arange(num_clusters)  # the rarest have one row
  x = rng.normal(size=(num_clusters, 8))[kind] * 5 + rng.normal(size=(many, 8)) * 0.3
  x, weight = np.float32(x), np.ones(many, np.float32)
  weight[100:300], x[100:300] = 0.0, x[100:300] * 3  # padding

  @jax.jit
  @functools.partial(jax.vmap, in_axes=(0, None, None))
  def start(key, x, weight):
    seeds = lloyd.seed(key, x, weight, num_clusters)
    centroids, _ = lloyd.iterations(x, weight, seeds, "euclidean", 5)
    labels = lloyd.nearest(x, centroids, "euclidean")
    return seeds, jnp.sum(weight * lloyd.distance(x, labels, centroids))

  seeds, few = jax.device_get(start(jax.random.split(KEY, 10), x, weight))
  fit = lambda k: sklearn.cluster.KMeans(
    num_clusters, n_init=1, max_iter=5, tol=0.0, random_state=k
  )
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", sklearn.exceptions.ConvergenceWarning)
    oracle = [fit(k).fit(x, sample_weight=weight).inertia_ for k in range(10)]
  assert np.mean(few) <= 1.02 * np.mean(oracle)
  used = {row.tobytes() for row in x[weight > 0]}
  assert all(row.tobytes() in used for row in seeds.reshape(-1, 8))
  candidates, mass = lloyd.candidates(KEY, x, weight, 2 * num_clusters)
  assert (len(candidates), mass.sum()) == (6 * num_clusters, weight.sum())


@pytest.mark.parametrize(("rows", "gpu"), [(1, False), (10, False), (10, True)])
def test_kinds_that_lie_close_beside_each_other_are_told_apart(rows, gpu, monkeypatch):
  """So close that the products of long rows leave nothing but rounding of their distance."""
  if gpu:
    as_on_a_gpu(monkeypatch)
  corners = [[100.0, 100.0], [100.0, 100.01], [-100.0, 100.0], [-100.0, 100.01], [0.0, -200.0]]
  x = np.repeat(np.float32(corners), rows, axis=0)
  seed = lambda key: lloyd.greedy(key, jnp.asarray(x), jnp.ones(len(x)), 5)
  for seeds in jax.jit(lambda keys: jax.lax.map(seed, keys))(jax.random.split(KEY, 5)):
    np.testing.assert_array_equal(np.unique(seeds, axis=0), np.unique(x, axis=0))


def test_rows_are_drawn_in_proportion_to_their_mass():
  # A square of nine, two places of it free.
  mass = np.float32([0.0, 1.0, 0.0, 5.0, 2.0, 0.0, 2.0])
  noise, draw = jax.random.gumbel(KEY, (2, 20_000, 3)), jax.jit(lloyd.draw)
  share = np.bincount(draw(noise, mass), minlength=9) / 20_000
  np.testing.assert_allclose(share, [0, 0.1, 0, 0.5, 0.2, 0, 0.2, 0, 0], atol=0.015)
  np.testing.assert_array_equal(share[[0, 2, 5, 7, 8]], np.zeros(5))  # not once
  np.testing.assert_array_equal(draw(noise, 0.0 * mass), 0)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_equal_rows_never_seed_two_groups(offset):
  distinct = blobs(8, rows=6) + np.float32(offset)
  for key in range(20):
    result = gq.kmeans(np.repeat(distinct, 7, axis=0), 6, key=key, num_iters=0)
    np.testing.assert_array_equal(result.counts, np.full(6, 7))
