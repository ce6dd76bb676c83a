# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Group gradients against one masked backward pass per group, for every kind of network."""

import chex
import grouped_networks as nets
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gq_optax as gq
from gq_optax._group_gradients import blocks

MATCHES = [(network, "cpu") for network in nets.NETWORKS]
MATCHES += [("dense", "accelerator"), ("scanned_layers", "accelerator")]


@pytest.mark.usefixtures("each_way")
@pytest.mark.parametrize(("network", "each_way"), MATCHES, indirect=["each_way"])
def test_equal_to_masked_passes_group_by_group(network):
  loss_fn, params, batch = nets.problem(network)
  function = jax.jit(gq.grouped_value_and_grad(loss_fn, nets.GROUPS))
  tolerance = 0.05 if network == "bfloat16" else 2e-5
  more = nets.random_patterns(30) if network == "dense" else []
  for labels in [*nets.PATTERNS.values(), *more]:
    value, groups = jax.device_get(function(params, jax.tree.map(nets.spoil, batch), labels))
    losses, gradients = nets.masked_passes(network, labels)
    chex.assert_trees_all_equal_shapes_and_dtypes(groups.grads, gradients)
    for found, expected in zip(*map(jax.tree.leaves, (groups.grads, gradients)), strict=True):
      expected = np.asarray(expected, np.float32)
      scale = np.abs(expected).max(initial=1e-2)
      np.testing.assert_allclose(np.asarray(found, np.float32), expected, atol=tolerance * scale)
    counts = [np.sum(labels == k) for k in range(nets.GROUPS)]
    np.testing.assert_array_equal(groups.counts, counts)
    np.testing.assert_allclose(groups.losses, losses, rtol=tolerance, atol=1e-6)
    expected = np.sum(losses * counts) / max(np.sum(counts), 1)
    np.testing.assert_allclose(value, expected, rtol=max(tolerance, 1e-5))
  assert function._cache_size() == 1


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
    for rows, valid, owner in jax.device_get(make(labels)):
      found.extend(rows[valid])
      filled = valid.any(axis=1)
      np.testing.assert_array_equal(owner[~filled], num_groups)
      np.testing.assert_array_equal(labels[rows[filled]] == owner[filled, None], True)
    assert sorted(found) == list(np.flatnonzero(labels < num_groups))


@pytest.mark.usefixtures("each_way")
def test_a_nan_stays_in_its_group_and_aux_comes_back_in_the_order_of_the_batch():
  """Also of weights that a loop goes through, which are summed with the whole loop."""

  def loss_fn(w, x):
    layer = lambda h, w: (jnp.tanh(h @ w), None)
    deep = jnp.sum(jax.lax.scan(layer, x, w["layers"])[0], axis=1)
    return x @ w["plain"] + deep, {"x": 2.0 * x, "number": x[:, 0].astype(jnp.int32)}

  labels = np.where(nets.LABELS == 2, 0, nets.LABELS)  # 1 and 2 are empty
  labels[-1] = 3
  inside, own = (labels >= 0) & (labels < nets.GROUPS), labels == 3
  x = np.arange(nets.BATCH * 3, dtype=np.float32).reshape(nets.BATCH, 3)
  function = jax.jit(gq.grouped_value_and_grad(loss_fn, nets.GROUPS, has_aux=True))
  w = {"plain": np.ones(3, np.float32), "layers": nets.normal(1, 2, 3, 3)}
  (value, aux), whole = function(w, x, labels)
  np.testing.assert_array_equal(aux["x"], np.where(inside[:, None], 2.0 * x, 0.0))
  np.testing.assert_array_equal(aux["number"], np.where(inside, x[:, 0], 0))
  np.testing.assert_allclose(value, loss_fn(w, x)[0][inside].mean(), rtol=1e-5)
  _, groups = jax.device_get(function(w, np.where(own[:, None], np.nan, x), labels))
  for leaf in jax.tree.leaves(groups.grads):
    assert np.isnan(leaf[3]).all()
  others = lambda groups: jax.tree.map(lambda leaf: leaf[:3], groups)
  chex.assert_trees_all_close(others(groups), others(whole), rtol=1e-6)
  for leaf in jax.tree.leaves(groups.grads):
    np.testing.assert_array_equal(leaf[1:3], 0.0)


def test_bfloat16_is_summed_in_float32():
  """4,096 terms of 1 + 1/128 a sum kept in bfloat16 would stop growing."""
  x = np.full((4096, 1), 1 + 1 / 128, jnp.bfloat16)
  loss_fn = lambda w, x: (x @ w).astype(jnp.float32)
  function = jax.jit(gq.grouped_value_and_grad(loss_fn, 1))
  _, groups = function(np.ones(1, jnp.bfloat16), x, np.zeros(4096, np.int32))
  assert groups.grads.dtype == jnp.bfloat16
  np.testing.assert_allclose(groups.grads.astype(jnp.float32), [[1 + 1 / 128]])


def test_double_precision_stays_double():
  with jax.enable_x64(True):
    x = np.random.default_rng(0).normal(size=(nets.BATCH, 3))
    function = jax.jit(gq.grouped_value_and_grad(lambda w, x: jnp.sin(x @ w), nets.GROUPS))
    value, groups = function(np.ones(3), x, nets.LABELS)
    assert groups.grads.dtype == groups.losses.dtype == value.dtype == jnp.float64
    each = np.cos(x.sum(axis=1))[:, None] * x
    expected = nets.means(each, nets.LABELS, nets.GROUPS)
    np.testing.assert_allclose(groups.grads, expected, rtol=1e-13)


@pytest.mark.parametrize("masked", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_whole_step_is_kmeans_then_groups(masked):
  loss_fn, params, batch = nets.problem("dense")
  features = lambda p, b: (loss_fn(p, b), b[0][:, :4] * b[0][:, 3:])
  options = {"metric": "cosine", "num_iters": 3}
  mask, key = ~nets.OUTSIDE if masked else None, jax.random.key(1)
  given = jax.tree.map(nets.spoil, batch) if masked else batch
  whole = jax.jit(gq.clustered_value_and_grad(features, nets.GROUPS, **options))
  (value, clusters), groups = whole(params, given, key, mask)
  embeddings = features(params, given)[1]
  weight = None if mask is None else mask.astype(np.float32)
  expected = gq.kmeans(embeddings, nets.GROUPS, key=key, sample_weight=weight, **options)
  chex.assert_trees_all_equal(clusters.labels, expected.labels)
  labels = np.where(nets.OUTSIDE, -1, clusters.labels) if masked else np.asarray(clusters.labels)
  _, gradients = nets.masked_passes("dense", labels)
  chex.assert_trees_all_close(groups.grads, gradients, rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(value, loss_fn(params, batch)[labels >= 0].mean(), rtol=1e-5)
