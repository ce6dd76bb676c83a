# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What is masked, far away or a long way from 0 does not change what is held rare."""

import jax
import jax.numpy as jnp
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
@pytest.mark.parametrize("what", ["masked", "zero", "nan"])
def test_the_scale_is_of_rows_that_count(what, metric):
  """Of 64 sequences of 16 tokens the first token is left out: every 16th row."""
  x, rare = two_kinds()
  scarcity = gq.example_scarcity(metric=metric)
  expected = means(scarcity.update(x, scarcity.init(4))[0], rare | ~rare, rare)
  counts = np.arange(1024) % 16 != 0
  mask = counts if what == "masked" or (what, metric) == ("zero", "euclidean") else None
  left = {"masked": x, "zero": x * counts[:, None], "nan": np.where(counts[:, None], x, np.nan)}
  weights, state = scarcity.update(left[what], scarcity.init(4), mask=mask)
  np.testing.assert_allclose(means(weights, counts, rare), expected, rtol=0.1)
  assert state.reach > 0.1


@pytest.mark.parametrize("counted", [0, 1, 63, 64, 65, 200])
def test_the_sample_is_of_what_counts_and_no_more(counted):
  """With few rows all of them are in it: the weights are those of a batch of these alone."""
  x, _ = two_kinds(256)
  rows = np.sort(np.random.default_rng(1).permutation(256)[:counted])
  scarcity = gq.example_scarcity(512)
  _, state = scarcity.update(two_kinds(300, seed=2)[0], scarcity.init(4))
  weights, _ = scarcity.update(x, state, mask=np.isin(np.arange(256), rows))
  if counted:
    alone, _ = scarcity.update(x[rows], state)
    np.testing.assert_allclose(weights[rows], alone, rtol=1e-4)
  np.testing.assert_array_equal(np.delete(weights, rows), 0.0)


@pytest.mark.parametrize("offset", [0.0, 7e5, 9.3e5, 1.3e6, 2e6])
def test_a_common_offset_does_not_make_kinds_alike(offset):
  rng = np.random.default_rng(0)
  rare = np.arange(1024) % 20 == 0
  x = 4.0 * rare[:, None] * np.eye(8)[0] + 0.2 * rng.normal(size=(1024, 8))
  scarcity = gq.example_scarcity(metric="euclidean")
  weights, _ = scarcity.update(jnp.asarray(x + offset, jnp.float32), scarcity.init(8))
  assert means(weights, rare | ~rare, rare)[1] > 7.0


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
  same = gq.kmeans(np.full((30, 1), offset + 0.1, np.float32), 3)
  assert same.counts.tolist() == [30, 0, 0]


def test_surplus_groups_begin_at_no_masked_row():
  x = np.r_[[[7.0, 7.0]], np.ones((5, 2))].astype(np.float32)
  weight = np.arange(6) > 0
  found = gq.kmeans(x, 3, sample_weight=weight.astype(np.float32)).centroids
  np.testing.assert_array_equal(found, np.ones((3, 2)))
  scarcity = gq.group_scarcity(3, metric="euclidean")
  _, state = scarcity.update(x, scarcity.init(2), mask=weight)
  np.testing.assert_array_equal(state.centroids, np.ones((3, 2)))


def test_an_outlier_moves_no_other_example_in_an_explanation():
  x = 0.1 * np.r_[blobs(0, 380, 2, 1, 0.1), 3 + blobs(0, 20, 2, 1, 0.1)].astype(np.float32)
  scarcity = gq.group_scarcity(2, metric="euclidean")
  _, state = scarcity.update(x, scarcity.init(2))
  sizes = sorted(scarcity.explain(x, state).sizes.tolist())
  assert sizes == [20, 380]
  far = np.r_[x, [[1e6, 1e6]]].astype(np.float32)
  sizes = sorted(scarcity.explain(far, state).sizes.tolist())
  assert sum(sizes) == 401
  assert sizes[0] in (20, 21)


def test_an_isolated_example_does_not_come_first_however_far():
  x, _ = two_kinds(200)
  scarcity = gq.example_scarcity(256, metric="euclidean")
  _, state = scarcity.update(x, scarcity.init(4))
  far = np.r_[x, np.full((1, 4), 1e20)].astype(np.float32)
  found = scarcity.explain(far, state)
  assert 200 not in found.indices.tolist()


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
  weights, state = scarcity.update(np.float32(x), scarcity.init(2), mask=x[:, 0] > 3)
  assert state.counts.sum() == (x[:, 0] > 3).sum()
  assert float(weights[x[:, 0] > 3].mean()) == pytest.approx(1.0, rel=1e-5)
