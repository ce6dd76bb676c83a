# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What is masked, far away or a long way from 0 does not change what is held rare."""

import jax
import numpy as np
import pytest
from kinds import blobs

import gq_optax as gq


def two_kinds(rows=1024, share=0.05, seed=0):
  """Embeddings near two axes, and which of them are of the rare kind."""
  rng = np.random.default_rng(seed)
  rare = rng.random(rows) < share
  x = np.eye(4)[rare.astype(int)] + 0.02 * rng.normal(size=(rows, 4))
  return x.astype(np.float32), rare


def means(weights, mask, rare):
  return [float(np.mean(np.asarray(weights)[mask & own])) for own in (~rare, rare)]


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_the_scale_is_of_rows_that_count(metric):
  """Of 64 sequences of 16 tokens the first token is left out: every 16th row."""
  x, rare = two_kinds()
  scarcity = gq.example_scarcity(metric=metric)
  expected = means(scarcity.update(x, scarcity.init(4))[0], rare | ~rare, rare)
  counts = np.arange(1024) % 16 != 0
  zeros = counts if metric == "euclidean" else None  # which are a place there
  for left, mask in (
    (x, counts),
    (x * counts[:, None], zeros),
    (np.where(counts[:, None], x, np.nan), None),
  ):
    weights, state = scarcity.update(left, scarcity.init(4), mask=mask)
    np.testing.assert_allclose(means(weights, counts, rare), expected, rtol=0.1)
    assert state.reach > 0.1


def test_the_sample_is_of_what_counts_and_no_more():
  """With few rows all of them are in it: the weights are those of a batch of these alone."""
  scarcity, (x, _), places = gq.example_scarcity(512), two_kinds(256), np.arange(256)
  _, state = scarcity.update(two_kinds(256, seed=2)[0], scarcity.init(4))
  for counted in (0, 1, 63, 64, 65, 200):
    rows = np.sort(np.random.default_rng(1).permutation(256)[:counted])
    weights = np.asarray(scarcity.update(x, state, mask=np.isin(places, rows))[0])
    np.testing.assert_array_equal(np.delete(weights, rows), 0.0)
    others = np.delete(x, rows, axis=0)
    first = np.concatenate([x[rows], others])
    first = np.asarray(scarcity.update(first, state, mask=places < counted)[0])
    np.testing.assert_allclose(weights[rows], first[:counted], rtol=1e-4)
    if counted == 65:
      alone, _ = scarcity.update(x[rows], state)
      np.testing.assert_allclose(weights[rows], alone, rtol=1e-4)


@pytest.mark.parametrize("offset", [0.0, 7e5, 9.3e5, 1.3e6, 2e6])
def test_a_common_offset_does_not_make_kinds_alike(offset):
  rare = np.arange(1024) % 20 == 0
  noise = np.random.default_rng(0).normal(size=(1024, 4))
  x = 4.0 * rare[:, None] * np.eye(4)[0] + 0.2 * noise + offset
  scarcity = gq.example_scarcity(metric="euclidean")
  weights, _ = scarcity.update(np.float32(x), scarcity.init(4))
  assert means(weights, rare | ~rare, rare)[1] > 7.0


def test_an_isolated_example_does_not_come_first_however_far():
  x, _ = two_kinds()
  scarcity = gq.example_scarcity(metric="euclidean")
  _, state = scarcity.update(x, scarcity.init(4))
  x[1000] = 1e20
  assert 1000 not in jax.jit(scarcity.explain)(x, state).indices.tolist()


@pytest.mark.parametrize("far", [1e7, 1e20, 3e38])
def test_what_has_no_weight_does_not_set_the_scale(far):
  x = np.r_[np.zeros((90, 2)), np.ones((10, 2)), [[far, 0]]].astype(np.float32)
  counts = np.arange(101) < 100
  scarcity = gq.group_scarcity(2, metric="euclidean")
  weights, state = scarcity.update(x, scarcity.init(2), mask=counts)
  np.testing.assert_allclose(np.unique(weights), [0, 50 / 90, 5], rtol=1e-5)
  assert np.abs(state.centroids).max() <= 1.0
  result = gq.kmeans(x, 2, sample_weight=counts.astype(np.float32))
  assert sorted(result.counts.tolist()) == [10, 90]
  assert result.labels[100] == result.labels[99]  # far along the axis of ones
  assert np.isfinite(result.inertia)
  # An empty group is filled, however far the padding.
  _, state = scarcity.update(x, scarcity.init(2), mask=np.arange(101) < 90)
  for _ in range(6):
    _, state = scarcity.update(x, state, mask=counts)
  assert sorted(state.counts[(state.index - 1) % 5].tolist()) == [10, 90]


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_empty_groups_take_rows_at_any_offset(offset):
  x = (offset + np.repeat([0.0, 0.5, 1.0], 10))[:, None].astype(np.float32)
  result = gq.kmeans(x, 3, init=np.full((3, 1), offset, np.float32))
  assert result.counts.tolist() == [10, 10, 10]
  same = gq.kmeans(np.full((101, 2), offset + 0.1, np.float32), 2)
  assert same.counts.tolist() == [101, 0]


def test_surplus_groups_begin_at_no_masked_row():
  x = np.r_[[[7.0, 7.0]], np.ones((100, 2))].astype(np.float32)
  weight = np.arange(101) > 0
  found = gq.kmeans(x, 2, sample_weight=weight.astype(np.float32)).centroids
  np.testing.assert_array_equal(found, np.ones((2, 2)))
  scarcity = gq.group_scarcity(2, metric="euclidean")
  _, state = scarcity.update(x, scarcity.init(2), mask=weight)
  np.testing.assert_array_equal(state.centroids, np.ones((2, 2)))


def test_an_outlier_moves_no_other_example_in_an_explanation():
  x = 0.1 * np.r_[blobs(0, 91, 2, 1, 0.1), 3 + blobs(0, 10, 2, 1, 0.1)].astype(np.float32)
  scarcity = gq.group_scarcity(2, metric="euclidean")
  _, state = scarcity.update(x, scarcity.init(2))
  explain = jax.jit(scarcity.explain)
  assert sorted(explain(x, state).sizes.tolist()) == [10, 91]
  x[0] = 1e6
  assert sorted(explain(x, state).sizes.tolist()) in ([10, 91], [11, 90])


def test_one_minus_cosine_is_not_negative():
  for x in np.random.default_rng(0).normal(size=(8, 16)).astype(np.float32):
    assert gq.kmeans(np.tile(x, (50, 1)), 1, metric="cosine").inertia >= 0.0


def test_integers_of_narrow_dtypes_are_read_as_numbers():
  x = np.stack([np.arange(304) % 256, np.arange(304) // 16], axis=1)
  weight = np.arange(304) % 100
  wide = gq.kmeans(np.float32(x), 300, init=np.float32(x[:300]), sample_weight=np.float32(weight))
  for dtype in (np.uint8, np.int16):
    rows = x.astype(dtype)
    found = gq.kmeans(rows, 300, init=rows[:300], sample_weight=weight.astype(np.int8))
    jax.tree.map(np.testing.assert_array_equal, found, wide)
  scarcity = gq.group_scarcity(300, metric="euclidean", num_iters=0, centroids=np.uint8(x[:300]))
  counts = x[:, 0] > 3
  weights, state = jax.device_get(scarcity.update(np.float32(x), scarcity.init(2), mask=counts))
  assert state.counts.sum() == counts.sum()
  assert weights[counts].mean() == pytest.approx(1.0, rel=1e-5)
