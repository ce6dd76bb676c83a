# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The first centroids of K-means, and what an empty group takes."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.cluster
import sklearn.exceptions
from kinds import blobs

import gq_optax as gq
from gq_optax._rarity import lloyd

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


@pytest.mark.parametrize(("rows", "num_clusters"), [(60, 8), (2048, 32), (40, 30)])
def test_a_gpu_finds_the_seeds_that_a_cpu_finds(rows, num_clusters, monkeypatch):
  """Of small whole numbers, whose products are exact on both."""
  x = np.random.RandomState(0).randint(-4, 5, (rows, 2)).astype(np.float32)
  seeds = lambda: jax.jit(lambda *a: lloyd.seed(*a, num_clusters))(KEY, x, np.ones(rows, "f"))
  on_cpu = seeds()
  as_on_a_gpu(monkeypatch)
  np.testing.assert_array_equal(seeds(), on_cpu)


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


@pytest.mark.parametrize("seed", range(3))
def test_seeding_is_as_good_as_scikit_learns(seed):
  x = blobs(seed, rows=400, centers=8, spread=0.5)
  ours = [gq.kmeans(x, 8, key=k, num_iters=20).inertia for k in range(10)]
  oracle = [sklearn.cluster.KMeans(8, n_init=1, random_state=k).fit(x).inertia_ for k in range(10)]
  assert np.median(ours) <= 1.1 * np.median(oracle)


@pytest.mark.parametrize("num_clusters", [16, 64])
def test_seeding_among_many_rows_finds_rare_kinds_as_greedy_k_means_plus_plus_does(num_clusters):
  rng, many = np.random.RandomState(0), lloyd._MANY
  kind = np.minimum(rng.geometric(5.6 / num_clusters, many) - 1, num_clusters - 1)
  kind[:num_clusters] = np.arange(num_clusters)  # the rarest have one row
  x = rng.normal(size=(num_clusters, 8))[kind] * 5 + rng.normal(size=(many, 8)) * 0.3
  x, weight = np.float32(x), np.ones(many, np.float32)
  weight[100:300], x[100:300] = 0.0, x[100:300] * 3  # padding

  @functools.partial(jax.jit, static_argnums=0)
  @functools.partial(jax.vmap, in_axes=(None, 0))
  def start(way, key):
    seeds = way(key, x, weight, num_clusters)
    centroids, _ = lloyd.iterations(x, weight, seeds, "euclidean", 5)
    labels = lloyd.nearest(x, centroids, "euclidean")
    return seeds, jnp.sum(weight * lloyd.distance(x, labels, centroids))

  x, weight, keys = jnp.asarray(x), jnp.asarray(weight), jax.random.split(jax.random.key(0), 10)
  (seeds, few), (_, one_by_one) = start(lloyd.seed, keys), start(lloyd.greedy, keys)
  assert np.mean(few) <= 1.02 * np.mean(one_by_one)
  fit = lambda k: sklearn.cluster.KMeans(
    num_clusters, n_init=1, max_iter=5, tol=0.0, random_state=k
  )
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", sklearn.exceptions.ConvergenceWarning)
    oracle = [
      fit(k).fit(np.asarray(x), sample_weight=np.asarray(weight)).inertia_ for k in range(10)
    ]
  assert np.mean(few) <= 1.02 * np.mean(oracle)
  used = {row.tobytes() for row in np.asarray(x)[np.asarray(weight) > 0]}
  assert all(row.tobytes() in used for row in np.asarray(seeds).reshape(-1, 8))


def test_seeding_among_many_rows_takes_no_padding():
  """Few rows among padding, of fewer kinds than groups: each is found."""
  many, kinds = lloyd._MANY, jnp.asarray(blobs(2, rows=8))
  rows = jnp.repeat(kinds, many // 8, axis=0)
  few = jnp.arange(many) % 128 == 0
  rows = jnp.where(few[:, None], rows, rows + 0.01)
  for number in (16, 40):
    found = jax.jit(lloyd.seed, static_argnums=3)(
      jax.random.key(0), rows, few.astype(jnp.float32), number
    )
    np.testing.assert_array_equal(np.unique(found, axis=0), np.unique(kinds, axis=0))


def test_seeding_in_straight_lines_is_that_of_the_loop(monkeypatch):
  x, weight, key = (
    jnp.asarray(blobs(0, rows=40, centers=5, spread=1.0)),
    jnp.ones(40),
    jax.random.key(0),
  )
  # None, one, and more than a turn of the loop; then several seeds of one draw.
  numbers = (1, 1), (2, 1), (20, 1), (20, 3)
  looped = [lloyd.greedy(key, x, weight, *n) for n in numbers]
  as_on_a_gpu(monkeypatch)
  for n, expected in zip(numbers, looped, strict=True):
    np.testing.assert_array_equal(lloyd.greedy(key, x, weight, *n), expected)


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("rows", [1, 10])
def test_kinds_that_lie_close_beside_each_other_are_told_apart(rows, gpu, monkeypatch):
  """So close that the products of long rows leave nothing but rounding of their distance."""
  if gpu:
    as_on_a_gpu(monkeypatch)
  corners = [[100.0, 100.0], [100.0, 100.01], [-100.0, 100.0], [-100.0, 100.01], [0.0, -200.0]]
  x = jnp.repeat(jnp.array(corners), rows, axis=0)
  for k in range(5):
    seeds = lloyd.greedy(jax.random.key(k), x, jnp.ones(len(x)), 5)
    np.testing.assert_array_equal(np.unique(seeds, axis=0), np.unique(x, axis=0))


def test_rows_are_drawn_in_proportion_to_their_mass():
  mass = jnp.array([0.0, 1.0, 0.0, 5.0, 2.0, 0.0, 2.0])  # a square of nine, two places of it free
  noise = jax.random.gumbel(jax.random.key(0), (2, 20_000, 3))
  share = np.bincount(lloyd.draw(noise, mass), minlength=9) / 20_000
  np.testing.assert_allclose(share, [0, 0.1, 0, 0.5, 0.2, 0, 0.2, 0, 0], atol=0.015)
  np.testing.assert_array_equal(share[[0, 2, 5, 7, 8]], np.zeros(5))  # not once
  np.testing.assert_array_equal(lloyd.draw(noise[:, :5], jnp.zeros(7)), np.zeros(5))


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_equal_rows_never_seed_two_groups(offset):
  distinct = blobs(8, rows=6) + np.float32(offset)
  for key in range(20):
    result = gq.kmeans(np.repeat(distinct, 7, axis=0), 6, key=key, num_iters=0)
    np.testing.assert_array_equal(result.counts, np.full(6, 7))


def test_under_vmap_only_those_with_an_empty_group_are_reseeded():
  x = blobs(3)
  full, empty = x[:5], np.concatenate([x[:4], np.full((1, 5), 1e4, np.float32)])
  run = lambda init: gq.kmeans(x, 5, init=init, num_iters=3)
  batched = jax.vmap(run)(jnp.stack([full, empty]))
  assert np.all(batched.counts > 0)
  for i, init in enumerate((full, empty)):
    alone = run(init)
    np.testing.assert_array_equal(batched.labels[i], alone.labels)
    np.testing.assert_allclose(batched.centroids[i], alone.centroids, rtol=1e-5)
