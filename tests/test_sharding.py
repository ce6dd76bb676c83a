# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Eight devices give the numbers of one; the state lies where the specs say."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from chains import queue_adam, queue_sgd
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import gq_optax as gq

PARAMS = {"hidden": jnp.zeros((16, 8)), "out": {"kernel": jnp.zeros((8, 4)), "bias": jnp.zeros(4)}}
SPECS = {"hidden": P("data"), "out": {"kernel": P(None, "data"), "bias": P()}}
INTS = ("queue_length", "num_clusters")
QUEUE = {"hidden": P(None, "data"), "out": {"kernel": P(None, None, "data"), "bias": P(None)}}


def is_spec(node):
  return isinstance(node, P)


@pytest.fixture(scope="module", params=[AxisType.Auto])
def mesh(request):
  return jax.make_mesh((4,), ("data",), axis_types=(request.param,), devices=jax.devices()[:4])


def put(tree, specs, mesh):
  return jax.tree.map(
    lambda s, x: jax.device_put(x, NamedSharding(mesh, s)), specs, tree, is_leaf=is_spec
  )


# Specs


@pytest.mark.parametrize(
  ("tx", "mirrors"),
  [
    (queue_sgd(0.1), 1),
    (queue_adam(0.1), 2),
    (optax.chain(gq.grad_queue(track=True), optax.sgd(0.1, 0.9)), 1),
    (optax.inject_hyperparams(gq.grad_queue, static_args=INTS)(rho=2.0), 0),
    (optax.MultiSteps(queue_sgd(0.1), 2), 2),
    (optax.apply_if_finite(queue_adam(0.1), 3), 2),
    (gq.grad_queue((2, 4)), 0),
  ],
)
def test_every_leaf_lies_where_its_parameter_does(tx, mirrors):
  shapes = jax.eval_shape(tx.init, PARAMS)
  specs = gq.partition_specs(shapes, SPECS)
  chex.assert_trees_all_equal_structs(
    jax.tree.map(lambda _: 0, specs, is_leaf=is_spec), jax.tree.map(lambda _: 0, shapes)
  )
  leaves = jax.tree.leaves(specs, is_leaf=is_spec)
  paths = jax.tree_util.tree_leaves_with_path(shapes)
  found = {"slots": 0, "mirror": 0}
  for (path, shape), spec in zip(paths, leaves, strict=True):
    name = jax.tree_util.keystr(path)
    if ".slots['hidden']" in name:
      assert spec == P(None, "data")
      found["slots"] += 1
    elif name.endswith("['hidden']"):
      assert spec == P("data"), name
      assert shape.shape == (16, 8)
      found["mirror"] += 1
    elif ".slots['out']['kernel']" in name:
      assert spec == P(None, None, "data")
    elif name.endswith("['out']['kernel']"):
      assert spec == P(None, "data"), name
    elif ".slots" in name:
      assert spec == P(None)
    else:
      assert spec == P(), name
  assert found == {"slots": 1, "mirror": mirrors}


def test_masked_parameters_and_single_arrays():
  mask = {"hidden": True, "out": {"kernel": False, "bias": False}}
  tx = optax.chain(optax.masked(gq.grad_queue(), mask), optax.sgd(0.1, 0.9))
  (queue, (momentum, _)) = gq.partition_specs(jax.eval_shape(tx.init, PARAMS), SPECS)
  assert queue.inner_state.queue.slots["hidden"] == P(None, "data")
  assert momentum.trace == SPECS
  specs = gq.partition_specs(jax.eval_shape(queue_sgd(0.1).init, jnp.zeros((8, 2))), P("data"))
  assert specs[0].queue.slots == P(None, "data")
  assert specs[0].queue.count == P()
  assert specs[1][0].trace == P("data")
  groups = gq.group_scarcity(4).init(8)
  examples = gq.example_scarcity(16).init(8)
  for state in (groups, examples):
    assert set(jax.tree.leaves(gq.partition_specs(state, SPECS), is_leaf=is_spec)) == {P()}
  queue = (groups, examples, jax.eval_shape(tx.init, PARAMS))
  for name in ("data", ("data", "model")):
    of_groups, of_examples, of_queue = gq.partition_specs(queue, SPECS, axis_name=name)
    assert set(jax.tree.leaves(of_groups, is_leaf=is_spec)) == {P()}
    assert of_queue == gq.partition_specs(queue[2], SPECS)
    rows = {"queue", "filled", "lengths", "losses"}
    expected = {field: P(name) if field in rows else P() for field in examples._fields}
    assert of_examples._asdict() == expected
  with pytest.raises(ValueError, match="axis_name must be the name of an axis"):
    gq.partition_specs(examples, SPECS, axis_name=3)


@pytest.mark.parametrize(
  ("tx", "specs", "message"),
  [
    (optax.sgd(0.1, 0.9), SPECS, "must hold the state of grad_queue, of group_scarcity"),
    (gq.grad_queue(), {"hidden": P("data")}, r"a spec for \['out'\]\['bias'\]"),
    (
      gq.grad_queue(),
      SPECS | {"hidden": P("data", None, None)},
      r"at most one entry for each axis at \['hidden'\], but .* for shape \(16, 8\)",
    ),
    (gq.grad_queue(), SPECS | {"hidden": "data"}, r"PartitionSpec at \['hidden'\], but str"),
  ],
)
def test_bad_specs(tx, specs, message):
  with pytest.raises(ValueError, match=message):
    gq.partition_specs(jax.eval_shape(tx.init, PARAMS), specs)


# Numbers


def loss_fn(params, batch):
  x, y = batch
  features = jnp.tanh(jnp.einsum("bi,ij->bj", x, params["hidden"]))
  logits = jnp.einsum("bi,ij->bj", features, params["out"]["kernel"]) + params["out"]["bias"][None]
  return optax.softmax_cross_entropy_with_integer_labels(logits, y), features


def make_params():
  keys = jax.random.split(jax.random.key(0), 2)
  return {
    "hidden": 0.3 * jax.random.normal(keys[0], (16, 8)),
    "out": {"kernel": 0.3 * jax.random.normal(keys[1], (8, 4)), "bias": jnp.zeros(4)},
  }


def train(tx, scarcity, grouped, state, batches):
  """Six steps: weights of group scarcity, then K-means and group gradients, then the queue."""

  def step(carry, batch):
    params, opt_state, groups = carry

    def weighted(params, batch):
      losses, features = loss_fn(params, batch[:2])
      return losses * batch[2], features

    _, features = loss_fn(params, batch)
    weights, groups = scarcity.update(features, groups)
    (loss, clusters), gradients = grouped(weighted)(params, (*batch, weights))
    updates, opt_state = tx.update(gradients, opt_state, params)
    carry = optax.apply_updates(params, updates), opt_state, groups
    return carry, (loss, weights, clusters.labels)

  return jax.lax.scan(step, state, batches)


@pytest.mark.several_devices
@pytest.mark.parametrize(
  "param_specs",
  [SPECS, pytest.param(jax.tree.map(lambda _: P(), PARAMS), marks=pytest.mark.slow)],
  ids=["fsdp", "data parallel"],
)
def test_a_sharded_batch_gives_the_numbers_of_one_device(mesh, param_specs):
  tx = queue_sgd(0.1, queue_length=2, num_clusters=4)
  scarcity = gq.group_scarcity(4, 3)
  grouped = lambda loss: gq.clustered_value_and_grad(loss, 4)
  rng = np.random.default_rng(0)
  y = np.arange(6 * 32).reshape(6, 32) % 4
  x = rng.normal(size=(6, 32, 16)) + 2.0 * np.eye(16)[y]
  batches = (jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.int32))
  params = make_params()
  state = (params, tx.init(params), scarcity.init(8))
  run = jax.jit(lambda state, batches: train(tx, scarcity, grouped, state, batches))
  alone, told_alone = run(state, batches)

  state_specs = (
    param_specs,
    gq.partition_specs(state[1], param_specs),
    gq.partition_specs(state[2], param_specs),
  )
  sharded_state = put(state, state_specs, mesh)
  sharded_batches = put(batches, (P(None, "data"), P(None, "data")), mesh)
  sharded, told = run(sharded_state, sharded_batches)
  chex.assert_trees_all_close(told, told_alone, atol=2e-5, rtol=2e-5)
  chex.assert_trees_all_close(sharded, alone, atol=2e-5, rtol=2e-5)
  assert float(jnp.abs(alone[0]["hidden"] - params["hidden"]).max()) > 0.01


# Communication


def collectives(text):
  """The shapes of what is sent, by kind, in compiled HLO."""
  pattern = r"= (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)\("
  return [(kind, shape) for shape, kind in re.findall(pattern, text)]


@pytest.mark.several_devices
@pytest.mark.parametrize("mesh", [AxisType.Auto, AxisType.Explicit], indirect=True)
@pytest.mark.parametrize("update_norm", [None, "match"])
def test_the_queue_sends_nothing_but_scalars(mesh, update_norm):
  tx = gq.grad_queue(queue_length=3, update_norm=update_norm)
  params = put(make_params(), SPECS, mesh)
  state = put(tx.init(PARAMS), gq.partition_specs(jax.eval_shape(tx.init, PARAMS), SPECS), mesh)
  compiled = jax.jit(tx.update).lower(params, state).compile()
  sent = collectives(compiled.as_text())
  assert sent  # is every gradient finite? that all devices have to know
  for _, shape in sent:
    assert not re.search(r"\[\d", shape), sent
  update, state = compiled(params, state)
  for name, leaf in (("hidden", update["hidden"]), ("slots", state.queue.slots["hidden"])):
    expected = SPECS["hidden"] if name == "hidden" else QUEUE["hidden"]
    assert leaf.sharding.is_equivalent_to(NamedSharding(mesh, expected), leaf.ndim), name


@pytest.mark.several_devices
def test_a_state_made_from_sharded_parameters_is_sharded_as_they_are(mesh):
  params = put(make_params(), SPECS, mesh)
  state = gq.grad_queue().init(params)
  slots = state.queue.slots["hidden"]
  assert slots.sharding.is_equivalent_to(NamedSharding(mesh, QUEUE["hidden"]), slots.ndim)


@pytest.mark.several_devices
@pytest.mark.parametrize("form", ["mean", "group"])
def test_the_queue_of_parameters_cut_over_devices_is_that_of_one(form, mesh):
  options = {"queue_length": 2, "update_norm": "match", "track": True}
  options |= {"num_clusters": 2} if form == "group" else {}
  alone, over = gq.grad_queue(**options), gq.grad_queue(**options, axis_name="data")
  params = {"w": jnp.zeros((8, 3)), "b": jnp.zeros(4)}
  draw = lambda key: {
    "w": jax.random.normal(key, (2, 8, 3)) * jnp.arange(1.0, 9.0)[None, :, None],
    "b": jax.random.normal(key, (2, 4)),
  }
  batches = [draw(jax.random.key(i)) for i in range(4)]
  batches[2]["w"] = batches[2]["w"].at[0, 7, 0].set(jnp.nan)  # on the last device alone

  def train(tx, batches, state):
    results = []
    for grads in batches:
      mean = jax.tree.map(lambda g: (3.0 * g[0] + g[1]) / 4.0, grads)
      updates = mean if form == "mean" else gq.GroupGradients(grads, jnp.array([3, 1]))
      result, state = tx.update(updates, state)
      results.append(result)
    return results, state

  expected = jax.jit(lambda *args: train(alone, *args))(batches, alone.init(params))
  assert expected[1].queue.count == 3
  rows, groups = {n: P("data") for n in params}, {n: P(None, "data") for n in params}
  cut = gq.partition_specs(alone.init(params), rows)
  spec = {"mesh": mesh, "in_specs": ([groups] * 4, cut), "out_specs": ([rows] * 4, cut)}
  found = jax.jit(jax.shard_map(lambda *args: train(over, *args), **spec))(
    batches, over.init(params)
  )
  chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-6)
