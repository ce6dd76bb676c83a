# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Group gradients as they are lowered, for each platform, and under transformations and meshes."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from grouped_networks import (
  BATCH,
  CNN,
  GROUPS,
  LABELS,
  Encoder,
  convolutional,
  cross_entropy,
  dense,
  normal,
  scanned_layers,
  transformer,
)
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gq_optax as gq
from gq_optax._group_gradients import blocks, grouped
from gq_optax._group_gradients import linear as linearized

ROWS, WHOLE = PartitionSpec("data"), PartitionSpec()


def two_devices(kind=AxisType.Auto):
  return jax.make_mesh((2,), ("data",), axis_types=(kind,))


@pytest.mark.parametrize("network", [dense, convolutional, transformer])
def test_a_straight_line_on_accelerators(network):
  loss_fn, params, batch = network()
  function = jax.jit(gq.grouped_value_and_grad(loss_fn, GROUPS))
  for platform in ("cuda", "tpu") if network is dense else ("cuda",):
    # Lowered, not exported: that adds loops for compilers that know no prefix sums.
    lowered = lambda f, *args, p=platform: f.trace(*args).lower(lowering_platforms=(p,)).as_text()
    text = lowered(function, params, batch, jnp.asarray(LABELS))
    assert not [word for word in ("callback", "stablehlo.while", "ragged") if word in text]
    # Kernel gradients of many blocks are products: no convolution beyond a plain gradient's.
    plain = jax.jit(jax.grad(lambda p: jnp.mean(loss_fn(p, batch))))
    once = lowered(plain, params)
    assert text.count("stablehlo.convolution") <= once.count("stablehlo.convolution")


@pytest.mark.parametrize(
  ("model", "x", "num_groups"),
  [
    (Encoder(64, 4, 50, 10), jnp.zeros((128, 32), jnp.int32), 4),
    (CNN(), jnp.zeros((256, 32, 32, 3)), 8),
  ],
)
@pytest.mark.usefixtures("as_on_an_accelerator")
def test_only_the_sums_of_weights_are_padded(model, x, num_groups):
  """One forward pass and one pass back for all examples: a quarter of the third that is left."""
  y = jnp.zeros(x.shape[0], jnp.int32)
  params = jax.eval_shape(model.init, jax.random.key(0), x[:1])
  loss_fn = lambda params, batch: cross_entropy(model.apply(params, batch[0])[0], batch[1])
  flops = lambda function, *args: jax.jit(function).lower(*args).cost_analysis()["flops"]
  with jax.default_device(jax.devices("cpu")[0]):  # a GPU does not count what is not compiled
    plain = flops(jax.grad(lambda p, batch: jnp.mean(loss_fn(p, batch))), params, (x, y))
    groups = flops(gq.grouped_value_and_grad(loss_fn, num_groups), params, (x, y), y)
  assert groups < 1.15 * plain


def test_rows_in_the_order_of_their_labels():
  labels = np.random.default_rng(0).integers(0, 6, 200).astype(np.int32)  # 5 for no group
  for num_groups in (5, 2**31 // 200):  # label and row fit one number; they do not
    rows = blocks.by_label(jnp.asarray(labels), num_groups)
    np.testing.assert_array_equal(rows, np.argsort(labels, kind="stable"))


def test_a_cpu_keeps_a_block_of_what_examples_keep():
  """A quarter of a group of sequences, not the batch; vectors keep too little for that."""
  model, x = Encoder(64, 4, 50, 10), jnp.zeros((128, 32), jnp.int32)
  y = jnp.zeros(len(x), jnp.int32)
  losses = lambda params, batch: cross_entropy(model.apply(params, batch[0])[0], batch[1])
  params = jax.eval_shape(model.init, jax.random.key(0), x[:1])
  with jax.default_device(jax.devices("cpu")[0]):
    temp = lambda f, *args: jax.jit(f).lower(*args).compile().memory_analysis().temp_size_in_bytes
    plain = temp(jax.grad(lambda p, b: jnp.mean(losses(p, b))), params, (x, y))
    assert temp(gq.grouped_value_and_grad(losses, 4), params, (x, y), y) < plain / 4
  loss_fn, params, batch = dense()
  program = linearized.trace(loss_fn, params, batch, False)
  assert not grouped._keep_much(program, params, BATCH // GROUPS)


@pytest.mark.usefixtures("each_way")
def test_under_vmap_scan_and_one_compilation():
  loss_fn, params, batch = dense()
  function = gq.grouped_value_and_grad(loss_fn, GROUPS)
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


@pytest.mark.several_devices
def test_each_device_its_own_batch():
  mesh = two_devices()
  loss_fn, params, batch = scanned_layers()
  function = gq.grouped_value_and_grad(loss_fn, GROUPS)
  each = jax.shard_map(
    lambda params, batch, labels: jax.tree.map(lambda x: x[None], function(params, batch, labels)),
    mesh=mesh,
    in_specs=(WHOLE, ROWS, ROWS),
    out_specs=ROWS,
    check_vma=False,
  )
  _, groups = jax.jit(each)(params, batch, jnp.asarray(LABELS))
  for i, part in enumerate((slice(BATCH // 2), slice(BATCH // 2, None))):
    _, expected = jax.jit(function)(params, batch[part], jnp.asarray(LABELS[part]))
    chex.assert_trees_all_close(
      jax.tree.map(lambda x, i=i: x[i], groups), expected, rtol=1e-5, atol=1e-6
    )


def test_where_examples_run_at_once_the_whole_step_runs_forward_once():
  calls = []
  loss_fn, params, batch = dense()

  def features(params, batch):
    calls.append(batch[0].shape[0])
    return loss_fn(params, batch), batch[0]

  whole = jax.jit(gq.clustered_value_and_grad(features, GROUPS))
  text = whole.lower(params, batch).as_text()
  assert calls == [BATCH, 97, 1]  # the first two for shapes
  assert text.count(f"tensor<{BATCH}x1x7xf32>, tensor<7x16xf32>") == 1  # the first layer


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


@pytest.mark.usefixtures("each_way")
@pytest.mark.several_devices
def test_devices_that_share_what_does_not_hang_on_their_examples():
  """`shard_map` tells apart what is the same everywhere: a parameter without use, constant aux."""
  x, labels = normal(0, 12, 5, 3), jnp.arange(12) % 3
  params = {"w": jnp.ones((3, 2)), "unused": jnp.ones(2)}

  def loss_fn(params, x):
    return jnp.sum(jnp.tanh(x @ params["w"]), axis=(1, 2)), jnp.ones(len(x))

  function = gq.grouped_value_and_grad(loss_fn, 3, has_aux=True)
  own = lambda *args: jax.tree.map(lambda x: x[None], function(*args))
  specs = {"in_specs": (WHOLE, ROWS, ROWS), "out_specs": ROWS}
  found = jax.jit(jax.shard_map(own, mesh=two_devices(), **specs))(params, x, labels)
  for i, part in enumerate((slice(6), slice(6, None))):
    expected = function(params, x[part], labels[part])
    alone = jax.tree.map(lambda x, i=i: x[i], found)
    chex.assert_trees_all_close(alone, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("each_way")
@pytest.mark.several_devices
@pytest.mark.parametrize("way", ["grouped", "per_example", "clustered"])
def test_devices_that_share_the_batch_and_differ_in_labels_or_key(way):
  w, x = jnp.ones((3, 2)), normal(0, 12, 5, 3)
  loss_fn = lambda w, x: jnp.sum(jnp.tanh(x @ w), axis=(1, 2))
  embedded = lambda w, x: (loss_fn(w, x), x[:, 0])
  function = {
    "grouped": gq.grouped_value_and_grad(loss_fn, 3),
    "per_example": gq.per_example_value_and_grad(loss_fn, num_groups=3, microbatch_size=5),
    "clustered": gq.clustered_value_and_grad(embedded, 3),
  }[way]
  labels = jnp.stack([jnp.arange(12) % 3, jnp.arange(12) // 6])
  own = jax.random.split(jax.random.key(1)) if way == "clustered" else labels
  each = lambda w, x, own: jax.tree.map(lambda x: x[None], function(w, x, own[0])[1].grads)
  specs = {"in_specs": (WHOLE, WHOLE, ROWS), "out_specs": ROWS}
  found = jax.jit(jax.shard_map(each, mesh=two_devices(), **specs))(w, x, own)
  for i in range(2):
    np.testing.assert_allclose(found[i], function(w, x, own[i])[1].grads, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("each_way")
@pytest.mark.several_devices
def test_a_weight_that_is_cut_over_devices_in_its_type():
  x, w, labels = normal(0, 12, 3), normal(1, 3, 4), jnp.arange(12) % 3
  function = gq.grouped_value_and_grad(lambda w, x: jnp.sum(jnp.tanh(x @ w), axis=1), 3)
  expected = jax.jit(function)(w, x, labels)[1].grads
  mesh = two_devices(AxisType.Explicit)
  cut = jax.device_put(w, NamedSharding(mesh, PartitionSpec(None, "data")))
  with jax.set_mesh(mesh):
    x, labels = jax.device_put((x, labels), NamedSharding(mesh, WHOLE))
    _, groups = jax.jit(function)(cut, x, labels)
  np.testing.assert_allclose(groups.grads, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("each_way")
def test_the_value_can_be_differentiated_backwards():
  loss_fn, params, batch = dense()
  function = gq.grouped_value_and_grad(loss_fn, GROUPS)
  labels = jnp.asarray(LABELS)
  found = jax.jit(jax.grad(lambda p: function(p, batch, labels)[0]))(params)
  inside = (labels >= 0) & (labels < GROUPS)
  mean = lambda p: (
    jnp.sum(jnp.where(inside, loss_fn(p, batch), 0.0)) / jnp.sum(inside, dtype=jnp.float32)
  )
  chex.assert_trees_all_close(found, jax.grad(mean)(params), rtol=1e-4, atol=1e-6)


@pytest.mark.several_devices
def test_losses_that_devices_exchange():
  """Not through the parameters: the groups of each device are its own. Statistics alone may be."""
  x = normal(0, 12, 50, 3)
  labels = jnp.where(jnp.arange(12) < 6, 0, jnp.arange(12) % 3)  # another number of full blocks

  def loss_fn(stop, w, x):
    statistic = jax.lax.pmean(stop(jnp.mean(jnp.tanh(x @ w))), "data")
    return jnp.sum(jnp.tanh(x @ w), axis=(1, 2)) * (1.0 + statistic)

  def run(stop):
    function = gq.grouped_value_and_grad(functools.partial(loss_fn, stop), 3)
    own = lambda *args: jax.tree.map(lambda x: x[None], function(*args)[1].grads)
    specs = {"in_specs": (WHOLE, ROWS, ROWS), "out_specs": ROWS, "check_vma": False}
    return jax.jit(jax.shard_map(own, mesh=two_devices(), **specs))(jnp.ones((3, 2)), x, labels)

  chex.assert_tree_all_finite(run(jax.lax.stop_gradient))
  with pytest.raises(ValueError, match=r"must not exchange .* but psum.* was found. Gather"):
    run(lambda x: x)
