# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Group gradients as they are lowered, for each platform, and under transformations and meshes."""

import functools

import chex
import grouped_networks as nets
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gq_optax as gq

ROWS, WHOLE = PartitionSpec("data"), PartitionSpec()
LOOPS = ("callback", "stablehlo.while", "ragged")


def two_devices(kind=AxisType.Auto):
  return jax.make_mesh((2,), ("data",), axis_types=(kind,))


@pytest.mark.parametrize(
  ("model", "x", "num_groups"),
  [
    pytest.param(nets.Encoder(64, 4), np.zeros((128, 32), np.int32), 4, marks=pytest.mark.slow),
    (nets.CNN(), np.zeros((256, 32, 32, 3), np.float32), 8),
  ],
)
@pytest.mark.usefixtures("as_on_an_accelerator")
def test_on_accelerators_a_straight_line_in_which_only_the_sums_of_weights_are_padded(
  model, x, num_groups
):
  """One forward pass and one pass back for all examples: a quarter of the third that is left."""
  y = np.zeros(len(x), np.int32)
  params = jax.eval_shape(model.init, jax.random.key(0), x[:1])
  loss_fn = lambda params, batch: nets.cross_entropy(model.apply(params, batch[0]), batch[1])
  plain = jax.jit(jax.grad(lambda p, batch: jnp.mean(loss_fn(p, batch)))).trace(params, (x, y))
  groups = jax.jit(gq.grouped_value_and_grad(loss_fn, num_groups)).trace(params, (x, y), y)
  with jax.default_device(jax.devices("cpu")[0]):  # a GPU does not count what is not compiled
    flops = [traced.lower().cost_analysis()["flops"] for traced in (plain, groups)]
  assert flops[1] < 1.15 * flops[0]
  # Lowered, not exported: that adds loops for compilers that know no prefix sums.
  once, text = (t.lower(lowering_platforms=("cuda",)).as_text() for t in (plain, groups))
  assert not [word for word in LOOPS if word in text]
  # Kernel gradients of many blocks are products: no convolution beyond a plain gradient's.
  assert text.count("stablehlo.convolution") <= once.count("stablehlo.convolution")


X, W = nets.normal(0, 12, 5, 3), nets.normal(1, 3, 2)


@pytest.mark.usefixtures("each_way")
def test_under_vmap_and_scan_and_the_value_differentiated_backwards():
  function = jax.value_and_grad(gq.grouped_value_and_grad(nets.tanh_loss, 3), has_aux=True)
  over = jax.vmap(function, (None, None, 0))
  labels = np.stack([np.arange(12) % 4, np.arange(12) // 6 * 2])
  step = lambda carry, rows: (carry, over(W, X, rows))
  _, found = jax.jit(lambda labels: jax.lax.scan(step, 0, labels))(labels[:, None])
  (_, groups), slopes = jax.tree.map(lambda leaf: leaf[:, 0], found)
  each = nets.tanh_gradients(W, X)
  for own, grads, slope in zip(labels, groups.grads, slopes, strict=True):
    np.testing.assert_allclose(grads, nets.means(each, own, 3), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(slope, each[own < 3].mean(axis=0), rtol=1e-4, atol=1e-6)


def test_where_examples_run_at_once_the_whole_step_runs_forward_once():
  calls, (loss_fn, params, batch) = [], nets.problem("dense")

  def features(params, batch):
    calls.append(len(batch[0]))
    return loss_fn(params, batch), batch[0]

  text = jax.jit(gq.clustered_value_and_grad(features, 4)).lower(params, batch).as_text()
  assert calls == [24, 97, 1]  # the first two for shapes
  assert text.count("tensor<24x1x7xf32>, tensor<7x16xf32>") == 1  # the first layer


def test_the_groups_of_the_last_step_may_be_given_away_as_memory():
  function, labels = gq.grouped_value_and_grad(nets.tanh_loss, 3), np.arange(12) % 3

  @functools.partial(jax.jit, donate_argnames="old", keep_unused=True)
  def gradients(w, x, labels, old):
    del old  # memory alone
    return function(w, x, labels)

  _, old = jax.jit(function)(W, X, labels)
  pointer, expected = old.grads.unsafe_buffer_pointer(), jax.tree.map(jnp.copy, old)
  _, groups = gradients(W, X, labels, old=old)
  assert all(x.is_deleted() for x in old)
  assert groups.grads.unsafe_buffer_pointer() == pointer
  chex.assert_trees_all_equal(groups, expected)


OVER_DEVICES = [("cpu", "grouped", True), ("cpu", "clustered", True), ("cpu", "per_example", True)]
OVER_DEVICES += [("cpu", "grouped", False), ("accelerator", "grouped", False)]


@pytest.mark.usefixtures("each_way")
@pytest.mark.several_devices
@pytest.mark.parametrize(("each_way", "way", "shared"), OVER_DEVICES, indirect=["each_way"])
def test_devices_with_a_batch_each_or_one_for_all_and_labels_or_a_key_each(way, shared):
  """`shard_map` tells apart what is the same everywhere: a parameter without use, constant aux."""
  params = {"w": W, "layers": np.zeros((2, 2, 2), "f"), "unused": np.ones(2, "f")}

  def losses(params, x):
    layer = lambda h, w: (h + jnp.tanh(h @ w), None)  # layers of zeros add nothing
    h, _ = jax.lax.scan(layer, jnp.tanh(x @ params["w"]), params["layers"])
    return jnp.sum(h, axis=(1, 2))

  constant = lambda params, x: (losses(params, x), jnp.ones(len(x)))
  embedded = lambda params, x: (losses(params, x), x[:, 0])
  function = {
    "grouped": gq.grouped_value_and_grad(constant, 3, has_aux=True),
    "per_example": gq.per_example_value_and_grad(losses, num_groups=3, microbatch_size=5),
    "clustered": gq.clustered_value_and_grad(embedded, 3),
  }[way]
  labels = np.stack([np.arange(12) % 3, np.arange(12) // 6 * 2])
  labels = labels if shared else labels[:, ::2]
  own = jax.random.split(jax.random.key(1)) if way == "clustered" else labels
  run = lambda params, x, own: jax.tree.map(lambda leaf: leaf[None], function(params, x, own[0]))
  specs = {"in_specs": (WHOLE, WHOLE if shared else ROWS, ROWS), "out_specs": ROWS}
  value, groups = jax.jit(jax.shard_map(run, mesh=two_devices(), **specs))(params, X, own)
  labels = np.asarray(value[1].labels) if way == "clustered" else labels
  of_layers = np.tanh(X @ W).sum(axis=1)[:, None, :, None] * np.ones((2, 1, 2))
  each = {"w": nets.tanh_gradients(W, X), "layers": of_layers, "unused": np.zeros((12, 2))}
  for i, part in enumerate([slice(None)] * 2 if shared else [slice(6), slice(6, None)]):
    expected = jax.tree.map(lambda g, i=i, rows=part: nets.means(g[rows], labels[i], 3), each)
    found = jax.tree.map(lambda g, i=i: np.float64(g[i]), groups.grads)
    chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-6)
    if way == "grouped":
      np.testing.assert_allclose(value[0][i], nets.tanh_loss(W, X[part]).mean(), rtol=1e-5)
      np.testing.assert_array_equal(value[1], 1.0)


@pytest.mark.usefixtures("each_way")
@pytest.mark.several_devices
@pytest.mark.parametrize("x", [X[:, :1], X], ids=["one place", "sequence"])
def test_a_weight_that_is_cut_over_devices_in_its_type(x):
  labels, mesh = np.arange(12) % 3, two_devices(AxisType.Explicit)
  cut = jax.device_put(W, NamedSharding(mesh, PartitionSpec(None, "data")))
  with jax.set_mesh(mesh):
    batch = jax.device_put((x, labels), NamedSharding(mesh, WHOLE))
    _, groups = jax.jit(gq.grouped_value_and_grad(nets.tanh_loss, 3))(cut, *batch)
  expected = nets.means(nets.tanh_gradients(W, x), labels, 3)
  np.testing.assert_allclose(groups.grads, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.several_devices
def test_losses_that_devices_exchange():
  """Not through the parameters: the groups of each device are its own. Statistics alone may be."""
  x = nets.normal(0, 12, 50, 3)
  labels = np.where(np.arange(12) < 6, 0, np.arange(12) % 3)  # another number of full blocks

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
