# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Group gradients against one masked backward pass per group, for every kind of network."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from grouped_networks import (
  BATCH,
  DESIGNS,
  GROUPS,
  LABELS,
  NETWORKS,
  OUTSIDE,
  cross_entropy,
  dense,
  every_design,
  masked_passes,
  normal,
  of_flax,
  problem,
  scanned_layers,
  spoil,
  transformer,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import export

import gq_optax as gq
from gq_optax._gradients import blocks, checks
from gq_optax.trial import models

SLOW = {("transformer", "unrolled"), ("transformer", "loop"), ("recurrent", "loop")}
SLOW |= {("convolutional", "loop")}  # as JAX's loops around convolutions are on CPU
SLOW |= {("transformer", "batched"), ("recurrent", "unrolled"), ("convolutional", "unrolled")}
CASES = [
  pytest.param(n, d, marks=pytest.mark.slow if (n, d) in SLOW else ())
  for n in NETWORKS
  for d in DESIGNS
]


@pytest.mark.parametrize(("network", "design"), CASES)
def test_equal_to_masked_passes_group_by_group(network, design):
  loss_fn, params, batch, losses, gradients = problem(network)
  # Blocks of 5: the group of 12 needs three of them, and none is full but two.
  function = gq.grouped_value_and_grad(loss_fn, GROUPS, design=design, block_size=5)
  value, groups = jax.jit(function)(params, jax.tree.map(spoil, batch), jnp.asarray(LABELS))
  tolerance = 0.05 if network == "bfloat16" else 2e-5
  chex.assert_trees_all_equal_shapes_and_dtypes(groups.grads, gradients)
  for found, expected in zip(
    jax.tree.leaves(groups.grads), jax.tree.leaves(gradients), strict=True
  ):
    expected = np.asarray(expected, np.float32)
    scale = max(np.abs(expected).max(), 1e-3)
    np.testing.assert_allclose(np.asarray(found, np.float32), expected, atol=tolerance * scale)
  np.testing.assert_array_equal(groups.counts, [12, 0, 3, 5])
  np.testing.assert_allclose(groups.losses, losses, rtol=tolerance, atol=1e-6)
  expected = np.average(losses, weights=groups.counts)
  np.testing.assert_allclose(value, expected, rtol=max(tolerance, 1e-5))


def linear(params, batch):
  """Its gradient is the example itself."""
  return batch @ params


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
  labels=st.lists(st.integers(-1, 5), min_size=12, max_size=12),
  block_size=st.sampled_from([1, 5, 40]),
  design=st.sampled_from(DESIGNS),
)
def test_any_sizes_of_groups_in_blocks_of_any_size(labels, block_size, design):
  labels, x = np.array(labels), np.arange(36.0, dtype=np.float32).reshape(12, 3)
  value, groups = _any_sizes(block_size, design)(jnp.ones(3), x, jnp.asarray(labels))
  for k in range(5):
    rows = x[labels == k]
    assert groups.counts[k] == len(rows)
    expected = rows.mean(0) if len(rows) else np.zeros(3)
    np.testing.assert_allclose(groups.grads[k], expected, rtol=1e-5)
  member = (labels >= 0) & (labels < 5)
  expected = x[member].sum(1).mean() if member.any() else 0.0
  np.testing.assert_allclose(value, expected, rtol=1e-5)


@functools.cache
def _any_sizes(block_size, design):
  return jax.jit(gq.grouped_value_and_grad(linear, 5, block_size=block_size, design=design))


def test_aux_comes_back_in_the_order_of_the_batch():
  loss_fn = lambda w, x: (x @ w, {"x": 2.0 * x, "number": x[:, 0].astype(jnp.int32)})
  x = jnp.arange(BATCH * 2.0).reshape(BATCH, 2)
  function = gq.grouped_value_and_grad(loss_fn, GROUPS, has_aux=True, block_size=3)
  (value, aux), _ = jax.jit(function)(jnp.ones(2), x, jnp.asarray(LABELS))
  np.testing.assert_array_equal(aux["x"], np.where(OUTSIDE[:, None], 0.0, 2.0 * x))
  np.testing.assert_array_equal(aux["number"], np.where(OUTSIDE, 0, np.asarray(x)[:, 0]))
  np.testing.assert_allclose(value, np.asarray(x).sum(1)[~OUTSIDE].mean(), rtol=1e-6)


@every_design
def test_not_exact_takes_one_block_for_each_group(design):
  labels = jnp.array([0, 0, 0, 0, 0, 1, 1, 3])
  x = jnp.arange(8.0)[:, None]
  function = gq.grouped_value_and_grad(linear, 4, exact=False, block_size=3, design=design)
  value, groups = jax.jit(function)(jnp.ones(1), x, labels)
  np.testing.assert_array_equal(groups.counts, [3, 2, 0, 1])
  np.testing.assert_allclose(groups.grads[:, 0], [1.0, 5.5, 0.0, 7.0])
  np.testing.assert_allclose(value, (0 + 1 + 2 + 5 + 6 + 7) / 6)
  balanced = jnp.arange(8) % 4
  _, groups = gq.grouped_value_and_grad(linear, 4, exact=False)(jnp.ones(1), x, balanced)
  np.testing.assert_allclose(groups.grads[:, 0], [2.0, 3.0, 4.0, 5.0])


@every_design
def test_a_nan_stays_in_its_group(design):
  x = normal(0, BATCH, 3).at[jnp.flatnonzero(jnp.asarray(LABELS) == 3)[1]].set(jnp.nan)
  function = gq.grouped_value_and_grad(linear, GROUPS, block_size=4, design=design)
  _, groups = jax.jit(function)(jnp.ones(3), x, jnp.asarray(LABELS))
  assert np.isnan(groups.grads[3]).all()
  chex.assert_tree_all_finite((groups.grads[:3], groups.losses[:3]))


@every_design
def test_all_labels_outside(design):
  function = gq.grouped_value_and_grad(linear, GROUPS, design=design)
  value, groups = function(jnp.ones(3), jnp.full((BATCH, 3), jnp.nan), jnp.full(BATCH, -1))
  chex.assert_trees_all_equal(value, jnp.float32(0.0))
  assert not np.any(groups.counts)
  np.testing.assert_array_equal(groups.grads, np.zeros((GROUPS, 3)))


def test_bfloat16_is_summed_in_float32():
  """4,096 terms of 1 + 1/128 in blocks of 64: a sum kept in bfloat16 would stop growing."""
  x = jnp.full((4096, 1), 1 + 1 / 128, jnp.bfloat16)
  loss_fn = lambda w, x: (x @ w).astype(jnp.float32)
  function = gq.grouped_value_and_grad(loss_fn, 1, block_size=64)
  _, groups = function(jnp.ones(1, jnp.bfloat16), x, jnp.zeros(4096, jnp.int32))
  assert groups.grads.dtype == jnp.bfloat16
  np.testing.assert_allclose(groups.grads.astype(jnp.float32), [[1 + 1 / 128]])


@every_design
def test_double_precision_stays_double(design):
  with jax.enable_x64(True):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(BATCH, 3)))
    loss_fn = lambda w, x: jnp.sin(x @ w)
    function = gq.grouped_value_and_grad(loss_fn, GROUPS, design=design, block_size=5)
    value, groups = jax.jit(function)(jnp.ones(3), x, jnp.asarray(LABELS))
    assert groups.grads.dtype == groups.losses.dtype == value.dtype == jnp.float64
    for k in (0, 2, 3):
      rows = np.asarray(x)[k == LABELS]
      expected = (np.cos(rows.sum(1))[:, None] * rows).mean(0)
      np.testing.assert_allclose(groups.grads[k], expected, rtol=1e-13)


@pytest.mark.parametrize("design", [*DESIGNS, None])
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("network", [dense, transformer])
def test_it_lowers_for_accelerators(platform, design, network):
  loss_fn, params, batch = network()
  function = jax.jit(gq.grouped_value_and_grad(loss_fn, GROUPS, design=design))
  exported = export.export(function, platforms=[platform])(params, batch, jnp.asarray(LABELS))
  assert exported.platforms == (platform,)
  assert "callback" not in exported.mlir_module()


def test_under_vmap_scan_and_one_compilation():
  loss_fn, params, batch = dense()
  function = gq.grouped_value_and_grad(loss_fn, GROUPS, block_size=4)
  labels = jnp.stack([jnp.asarray(LABELS), jnp.arange(BATCH) % GROUPS])
  _, together = jax.jit(jax.vmap(function, (None, None, 0)))(params, batch, labels)
  step = jax.jit(function)
  _, scanned = jax.lax.scan(lambda c, row: (c, step(params, batch, row)[1]), 0, labels)
  for i in range(2):
    _, alone = step(params, batch, labels[i])
    for many in (together, scanned):
      found = jax.tree.map(lambda x, i=i: x[i], many)
      chex.assert_trees_all_close(found, alone, rtol=1e-4, atol=1e-6)
  assert step._cache_size() == 1


def test_into_the_queue():
  """The update of `GroupGradients`, its losses in place of `value=`, under one jit."""
  loss_fn, params, batch = dense()
  tx = optax.chain(gq.grad_queue((1, 3), group_exponent=1.0), optax.sgd(0.3))
  function = gq.grouped_value_and_grad(loss_fn, GROUPS)

  @jax.jit
  def step(params, state):
    value, groups = function(params, batch, jnp.asarray(LABELS))
    updates, state = tx.update(groups, state, params)
    return optax.apply_updates(params, updates), state, value

  state, values = tx.init(params), []
  for _ in range(8):
    params, state, value = step(params, state)
    values.append(float(value))
  assert state[0].queue.count == 8
  np.testing.assert_allclose(state[0].losses.values[0], values[-1], rtol=1e-5)
  assert values[-1] < values[0]


@pytest.mark.parametrize("masked", [False, True])
def test_the_whole_step_is_kmeans_then_groups(masked):
  loss_fn, params, batch = dense()
  model = models.MLP((16, 8), 3)
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
  _, gradients = masked_passes(loss_fn, params, batch, labels)
  chex.assert_trees_all_close(groups.grads, gradients, rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(value, loss_fn(params, batch)[labels >= 0].mean(), rtol=1e-5)


def test_what_decides_the_size_of_blocks():
  loss_fn, params, batch = dense()
  weights = 7 * 16 + 16 * 8 + 8 * 3
  work = checks.work(loss_fn, params, batch)
  assert work.reuse == pytest.approx(weights / (weights + 16 + 8 + 3))
  assert not work.convolves
  assert blocks.default_size(work, BATCH, GROUPS) == 6
  work = checks.work(*of_flax(models.CNN(3), normal(0, BATCH, 16, 16, 3), 3))
  assert work.convolves
  assert work.reuse > 8
  assert blocks.default_size(work, 512, 8) == 16
  scanned = checks.work(*scanned_layers())
  assert scanned.reuse == pytest.approx(1.0)  # three layers of 25 weights, each once


@pytest.mark.parametrize(
  ("backend", "design"), [("cpu", "unrolled"), ("gpu", "loop"), ("tpu", "loop")]
)
def test_the_design_of_convolutions_depends_on_the_backend(backend, design, monkeypatch):
  monkeypatch.setattr(jax, "default_backend", lambda: backend)
  assert blocks.default_design(blocks.Work(reuse=100.0, convolves=True)) == design
  assert blocks.default_design(blocks.Work(reuse=100.0, convolves=False)) == "loop"
  assert blocks.default_design(blocks.Work(reuse=1.0, convolves=False)) == "batched"


def test_the_whole_step_runs_forward_once():
  model = models.MLP((256,), 3)
  x = normal(0, BATCH, 256)
  _, params, batch = of_flax(model, x, 3)

  def loss_fn(params, batch):
    logits, features = model.apply(params, batch[0])
    return cross_entropy(logits, batch[1]), features

  flops = lambda f, *args: jax.jit(f).lower(*args).compile().cost_analysis()["flops"]
  grouped = gq.grouped_value_and_grad(loss_fn, GROUPS, has_aux=True)
  kmeans = flops(lambda x: gq.kmeans(x, GROUPS, num_iters=5), x)
  alone = flops(grouped, params, batch, jnp.zeros(BATCH, jnp.int32))
  whole = flops(gq.clustered_value_and_grad(loss_fn, GROUPS), params, batch)
  assert whole - alone - kmeans < 0.1 * flops(loss_fn, params, batch)


def mean_loss(params, batch):
  return jnp.mean(batch @ params)


@pytest.mark.parametrize(
  ("loss_fn", "labels", "message"),
  [
    (
      mean_loss,
      jnp.zeros(6, jnp.int32),
      r"one floating loss per example, shape \(6,\), but .*\(\)",
    ),
    (lambda w, x: x @ w[:, None], jnp.zeros(6, jnp.int32), r"shape \(6,\), but float32 .*\(6, 1\)"),
    (lambda w, x: (x @ w, x), jnp.zeros(6, jnp.int32), "pass has_aux=True"),
    (lambda w, x: (x @ w).astype(jnp.int32), jnp.zeros(6, jnp.int32), "but int32 of shape"),
    (linear, jnp.zeros(5, jnp.int32), r"labels must be \[B\] with B = 6, but shape \(5,\)"),
    (linear, jnp.zeros(6), "labels must have an integer dtype, but float32"),
  ],
)
def test_errors_when_it_is_traced(loss_fn, labels, message):
  with pytest.raises(ValueError, match=message):
    gq.grouped_value_and_grad(loss_fn, 2)(jnp.ones(3), jnp.ones((6, 3)), labels)


def test_errors_of_options_and_batches():
  for options, message in (
    ({"num_groups": 0}, "num_groups must be at least 1, but 0"),
    ({"num_groups": 2.0}, "num_groups must be an int, but 2.0"),
    ({"num_groups": 2, "block_size": 0}, "block_size must be at least 1, but 0"),
  ):
    with pytest.raises(ValueError, match=message):
      gq.grouped_value_and_grad(linear, **options)
  function = gq.grouped_value_and_grad(lambda w, b: b["x"] @ w, 2)
  batch = {"x": jnp.ones((6, 3)), "y": jnp.ones(5)}
  with pytest.raises(ValueError, match="same leading axis B > 0, but shapes"):
    function(jnp.ones(3), batch, jnp.zeros(6, jnp.int32))
  with pytest.raises(ValueError, match="the parameter at the root must have a real floating"):
    function(jnp.ones(3, jnp.int32), {"x": jnp.ones((6, 3))}, jnp.zeros(6, jnp.int32))
  with_aux = gq.grouped_value_and_grad(lambda w, x: (x @ w, w), 2, has_aux=True)
  with pytest.raises(ValueError, match=r"aux .*leading axis 6, but at the root shape \(3,\)"):
    with_aux(jnp.ones(3), jnp.ones((6, 3)), jnp.zeros(6, jnp.int32))
  whole = gq.clustered_value_and_grad(lambda w, x: (x @ w, x[:, 0]), 2)
  with pytest.raises(ValueError, match=r"embeddings must be \[B, d\] with B = 6, but shape \(6,\)"):
    whole(jnp.ones(3), jnp.ones((6, 3)))
  whole = gq.clustered_value_and_grad(lambda w, x: (x @ w, x), 2)
  with pytest.raises(ValueError, match=r"mask must be \[B\] with B = 6, but shape \(5,\)"):
    whole(jnp.ones(3), jnp.ones((6, 3)), mask=jnp.ones(5, bool))


def test_the_groups_of_the_last_step_may_be_given_away_as_memory():
  loss_fn, params, batch = dense()
  function = gq.grouped_value_and_grad(loss_fn, GROUPS)

  @functools.partial(jax.jit, donate_argnames="old", keep_unused=True)
  def gradients(params, batch, labels, old):
    del old  # memory alone
    return function(params, batch, labels)

  expected, old = jax.jit(function)(params, batch, jnp.asarray(LABELS))
  pointers = {x.unsafe_buffer_pointer() for x in jax.tree.leaves(old.grads)}
  again = jax.tree.map(jnp.copy, old)
  value, groups = gradients(params, batch, jnp.asarray(LABELS), old=old)
  assert all(x.is_deleted() for x in jax.tree.leaves(old))
  assert {x.unsafe_buffer_pointer() for x in jax.tree.leaves(groups.grads)} == pointers
  chex.assert_trees_all_equal((value, groups), (expected, again))
