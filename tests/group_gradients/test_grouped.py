# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Group gradients against one masked backward pass per group, for every kind of network."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from grouped_networks import (
  BATCH,
  GROUPS,
  LABELS,
  MLP,
  NETWORKS,
  OUTSIDE,
  PATTERNS,
  dense,
  masked_passes,
  normal,
  spoil,
)
from hypothesis import given, settings
from hypothesis import strategies as st

import gq_optax as gq
from gq_optax._group_gradients import blocks, grouped


@pytest.fixture(autouse=True)
def exact_products():
  """GPUs make float32 products of fewer digits, unless they are asked."""
  with jax.default_matmul_precision("highest"):
    yield


def compare(network, patterns):
  loss_fn, params, batch = NETWORKS[network]()
  function, expected_of = (
    jax.jit(gq.grouped_value_and_grad(loss_fn, GROUPS)),
    masked_passes(loss_fn),
  )
  tolerance = 0.05 if network == "bfloat16" else 2e-5
  for name in patterns:
    labels = PATTERNS[name]
    value, groups = function(params, jax.tree.map(spoil, batch), jnp.asarray(labels))
    losses, gradients = expected_of(params, batch, labels)
    chex.assert_trees_all_equal_shapes_and_dtypes(groups.grads, gradients)
    for found, expected in zip(
      jax.tree.leaves(groups.grads), jax.tree.leaves(gradients), strict=True
    ):
      expected = np.asarray(expected, np.float32)
      scale = max(np.abs(expected).max(), 1e-3)
      np.testing.assert_allclose(np.asarray(found, np.float32), expected, atol=tolerance * scale)
    counts = [np.sum(labels == k) for k in range(GROUPS)]
    np.testing.assert_array_equal(groups.counts, counts)
    np.testing.assert_allclose(groups.losses, losses, rtol=tolerance, atol=1e-6)
    expected = np.sum(np.asarray(losses) * counts) / max(np.sum(counts), 1)
    np.testing.assert_allclose(value, expected, rtol=max(tolerance, 1e-5))
  assert function._cache_size() == 1


@pytest.mark.parametrize("in_turn", [False, True])
@pytest.mark.parametrize("network", NETWORKS)
def test_equal_to_masked_passes_group_by_group(network, in_turn, monkeypatch):
  monkeypatch.setattr(grouped, "_keep_much", lambda *_: in_turn)
  compare(network, PATTERNS)


@pytest.mark.parametrize("network", ["dense", "scanned_layers"])
@pytest.mark.usefixtures("as_on_an_accelerator")
def test_equal_on_accelerators_too(network):
  compare(network, PATTERNS)


def linear(params, batch):
  """Its gradient is the example itself."""
  return batch @ params


_any_sizes = jax.jit(gq.grouped_value_and_grad(linear, 5))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(labels=st.lists(st.integers(-1, 5), min_size=12, max_size=12))
def test_groups_of_any_sizes(labels):
  labels, x = np.array(labels), np.arange(36.0, dtype=np.float32).reshape(12, 3)
  value, groups = _any_sizes(jnp.ones(3), x, jnp.asarray(labels))
  for k in range(5):
    rows = x[labels == k]
    assert groups.counts[k] == len(rows)
    expected = rows.mean(0) if len(rows) else np.zeros(3)
    np.testing.assert_allclose(groups.grads[k], expected, rtol=1e-5)
  member = (labels >= 0) & (labels < 5)
  expected = x[member].sum(1).mean() if member.any() else 0.0
  np.testing.assert_allclose(value, expected, rtol=1e-5)


@pytest.mark.parametrize("often", [1, 4])
@pytest.mark.parametrize(("batch_size", "num_groups"), [(12, 5), (24, 4), (3, 5), (1, 1), (7, 1)])
def test_blocks_hold_every_example_once_and_no_other_group(batch_size, num_groups, often):
  size = -(-batch_size // (often * num_groups))
  make = jax.jit(lambda labels: blocks.cut(labels, num_groups, size))
  rng = np.random.default_rng(0)
  for spread in (0.1, 0.5, 5.0) * 10:
    shares = rng.dirichlet(np.full(num_groups + 1, spread))
    labels = rng.choice(num_groups + 1, batch_size, p=shares).astype(np.int32)
    found = []
    for rows, valid, owner in jax.tree.map(np.asarray, make(labels)):
      found.extend(rows[valid])
      filled = valid.any(axis=1)
      np.testing.assert_array_equal(owner[~filled], num_groups)
      np.testing.assert_array_equal(labels[rows[filled]] == owner[filled, None], True)
    assert sorted(found) == list(np.flatnonzero(labels < num_groups))


@pytest.mark.usefixtures("each_way")
def test_aux_comes_back_in_the_order_of_the_batch():
  loss_fn = lambda w, x: (x @ w, {"x": 2.0 * x, "number": x[:, 0].astype(jnp.int32)})
  x = jnp.arange(BATCH * 2.0).reshape(BATCH, 2)
  function = gq.grouped_value_and_grad(loss_fn, GROUPS, has_aux=True)
  (value, aux), _ = jax.jit(function)(jnp.ones(2), x, jnp.asarray(LABELS))
  np.testing.assert_array_equal(aux["x"], np.where(OUTSIDE[:, None], 0.0, 2.0 * x))
  np.testing.assert_array_equal(aux["number"], np.where(OUTSIDE, 0, np.asarray(x)[:, 0]))
  np.testing.assert_allclose(value, np.asarray(x).sum(1)[~OUTSIDE].mean(), rtol=1e-6)


@pytest.mark.usefixtures("each_way")
def test_a_nan_stays_in_its_group():
  labels = jnp.where(jnp.asarray(LABELS) == 2, 1, jnp.asarray(LABELS))  # 2 is empty
  x = normal(0, BATCH, 3).at[jnp.flatnonzero(labels == 3)].set(jnp.nan)
  function = gq.grouped_value_and_grad(linear, GROUPS)
  _, groups = jax.jit(function)(jnp.ones(3), x, labels)
  assert np.isnan(groups.grads[3]).all()
  chex.assert_tree_all_finite((groups.grads[:3], groups.losses[:3]))
  np.testing.assert_array_equal(groups.grads[2], np.zeros(3))


@pytest.mark.usefixtures("each_way")
def test_a_nan_stays_in_its_group_of_a_loop_over_layers():
  """Weights that a loop goes through are summed with the whole loop."""

  def loss_fn(w, x):
    layer = lambda h, w: (jnp.tanh(h @ w), None)
    return jnp.sum(jax.lax.scan(layer, x, w)[0], axis=1)

  labels = jnp.arange(BATCH) % 2 * 3  # 1 and 2 are empty, and the last example is of group 3
  x = normal(0, BATCH, 3).at[1::2].set(jnp.nan)
  function = gq.grouped_value_and_grad(loss_fn, GROUPS)
  _, groups = jax.jit(function)(normal(1, 2, 3, 3), x, labels)
  assert np.isnan(groups.grads[3]).all()
  chex.assert_tree_all_finite(groups.grads[:3])
  np.testing.assert_array_equal(groups.grads[1:3], 0.0)


def test_bfloat16_is_summed_in_float32():
  """4,096 terms of 1 + 1/128 a sum kept in bfloat16 would stop growing."""
  x = jnp.full((4096, 1), 1 + 1 / 128, jnp.bfloat16)
  loss_fn = lambda w, x: (x @ w).astype(jnp.float32)
  function = gq.grouped_value_and_grad(loss_fn, 1)
  _, groups = function(jnp.ones(1, jnp.bfloat16), x, jnp.zeros(4096, jnp.int32))
  assert groups.grads.dtype == jnp.bfloat16
  np.testing.assert_allclose(groups.grads.astype(jnp.float32), [[1 + 1 / 128]])


def test_double_precision_stays_double():
  with jax.enable_x64(True):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(BATCH, 3)))
    loss_fn = lambda w, x: jnp.sin(x @ w)
    value, groups = gq.grouped_value_and_grad(loss_fn, GROUPS)(jnp.ones(3), x, jnp.asarray(LABELS))
    assert groups.grads.dtype == groups.losses.dtype == value.dtype == jnp.float64
    for k in (0, 2, 3):
      rows = np.asarray(x)[k == LABELS]
      expected = (np.cos(rows.sum(1))[:, None] * rows).mean(0)
      np.testing.assert_allclose(groups.grads[k], expected, rtol=1e-13)


@pytest.mark.usefixtures("each_way")
@pytest.mark.parametrize("masked", [False, True])
def test_the_whole_step_is_kmeans_then_groups(masked):
  loss_fn, params, batch = dense()
  model = MLP((16, 8), 3)
  features = lambda p, b: (loss_fn(p, b), model.apply(p, b[0])[1])
  mask = jnp.asarray(~OUTSIDE) if masked else None
  given = jax.tree.map(spoil, batch) if masked else batch
  whole = jax.jit(gq.clustered_value_and_grad(features, GROUPS, metric="cosine", num_iters=3))
  (value, clusters), groups = whole(params, given, jax.random.key(1), mask)
  embeddings = features(params, given)[1]
  weight = None if mask is None else mask.astype(jnp.float32)
  expected = gq.kmeans(
    embeddings, GROUPS, key=jax.random.key(1), metric="cosine", num_iters=3, sample_weight=weight
  )
  chex.assert_trees_all_equal(clusters.labels, expected.labels)
  labels = np.where(OUTSIDE, -1, clusters.labels) if masked else np.asarray(clusters.labels)
  _, gradients = masked_passes(loss_fn)(params, batch, labels)
  chex.assert_trees_all_close(groups.grads, gradients, rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(value, loss_fn(params, batch)[labels >= 0].mean(), rtol=1e-5)


def test_parameters_and_inputs_without_a_number():
  """Zero-size leaves, as a mask leaves them."""
  params = {"w": jnp.ones(3), "none": jnp.zeros((0, 2)), "left out": jnp.zeros(0)}
  batch = {"x": normal(0, BATCH, 3), "nothing": jnp.zeros((BATCH, 0))}

  def loss_fn(params, batch):
    empty = (
      jnp.sum(batch["nothing"], axis=1) + jnp.sum(params["none"]) + jnp.sum(params["left out"])
    )
    return batch["x"] @ params["w"] + empty

  _, groups = jax.jit(gq.grouped_value_and_grad(loss_fn, GROUPS))(
    params, batch, jnp.asarray(LABELS)
  )
  whole = batch["x"][jnp.asarray(LABELS) == 0].mean(axis=0)
  np.testing.assert_allclose(groups.grads["w"][0], whole, rtol=1e-5)
  assert groups.grads["none"].shape == (GROUPS, 0, 2)
