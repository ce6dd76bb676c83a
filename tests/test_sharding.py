# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Eight devices give the numbers of one; the state lies where the specs say."""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from chains import queue_sgd
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import gq_optax as gq

SHAPES = {"hidden": (16, 8), "out": {"kernel": (8, 4), "bias": (4,)}}
PARAMS = jax.tree.map(jnp.zeros, SHAPES, is_leaf=lambda x: isinstance(x, tuple))
SPECS = {"hidden": P("data"), "out": {"kernel": P(None, "data"), "bias": P()}}
PARALLEL = jax.tree.map(lambda _: P(), PARAMS)
QUEUE = {"hidden": P(None, "data"), "out": {"kernel": P(None, None, "data"), "bias": P(None)}}
is_spec = lambda node: isinstance(node, P)
leaves = functools.partial(jax.tree.leaves, is_leaf=is_spec)


@pytest.fixture(scope="module", params=[AxisType.Auto])
def mesh(request):
  return jax.make_mesh((4,), ("data",), axis_types=(request.param,), devices=jax.devices()[:4])


def put(tree, specs, mesh):
  place = lambda s, x: jax.device_put(x, NamedSharding(mesh, s))
  return jax.tree.map(place, specs, tree, is_leaf=is_spec)


# Specs


@pytest.mark.parametrize(
  ("tx", "mirrors"),
  [
    (queue_sgd(0.1), 1),
    (optax.chain(gq.grad_queue(), optax.adam(0.1)), 2),
    (optax.chain(gq.grad_queue(track=True), optax.sgd(0.1, 0.9)), 1),
    (optax.inject_hyperparams(gq.grad_queue, ("queue_length", "num_clusters"))(rho=2.0), 0),
    (optax.MultiSteps(queue_sgd(0.1), 2), 2),
    (optax.apply_if_finite(optax.chain(gq.grad_queue(), optax.adam(0.1)), 3), 2),
    (gq.grad_queue((2, 4)), 0),
  ],
)
def test_every_leaf_lies_where_its_parameter_does(tx, mirrors):
  shapes = jax.eval_shape(tx.init, PARAMS)
  specs = gq.partition_specs(shapes, SPECS)
  structure = lambda tree: jax.tree.structure(tree, is_leaf=is_spec)
  assert structure(specs) == structure(shapes)
  own = {jax.tree_util.keystr(path): s for path, s in jax.tree_util.tree_leaves_with_path(SPECS)}
  queued = {jax.tree_util.keystr(path): s for path, s in jax.tree_util.tree_leaves_with_path(QUEUE)}
  found = 0
  paths = jax.tree_util.tree_leaves_with_path(shapes)
  for (path, shape), spec in zip(paths, leaves(specs), strict=True):
    name = jax.tree_util.keystr(path)
    mine = next((end for end in own if name.endswith(end)), None)
    if ".slots" in name:
      assert spec == queued[mine]
    else:
      assert spec == (own[mine] if mine else P()), name
    if mine == "['hidden']" and ".slots" not in name:
      assert shape.shape == (16, 8)
      found += 1
  assert found == mirrors


def test_masked_parameters_and_single_arrays():
  mask = {"hidden": True, "out": {"kernel": False, "bias": False}}
  tx = optax.chain(optax.masked(gq.grad_queue(), mask), optax.sgd(0.1, 0.9))
  shapes = jax.eval_shape(tx.init, PARAMS)
  queue, (momentum, _) = gq.partition_specs(shapes, SPECS)
  assert queue.inner_state.queue.slots["hidden"] == P(None, "data")
  assert momentum.trace == SPECS
  specs = gq.partition_specs(jax.eval_shape(queue_sgd(0.1).init, jnp.zeros((8, 2))), P("data"))
  assert (specs[0].queue.slots, specs[0].queue.count) == (P(None, "data"), P())
  assert specs[1][0].trace == P("data")
  groups, examples = gq.group_scarcity(4).init(8), gq.example_scarcity(16).init(8)
  for state in (groups, examples):
    assert set(leaves(gq.partition_specs(state, SPECS))) == {P()}
  for name in ("data", ("data", "model")):
    found = gq.partition_specs((groups, examples, shapes), SPECS, axis_name=name)
    assert set(leaves(found[0])) == {P()}
    rows = {"queue", "filled", "lengths", "losses"}
    assert found[1]._asdict() == {f: P(name) if f in rows else P() for f in examples._fields}
    assert found[2] == gq.partition_specs(shapes, SPECS)


# Numbers


def make_params():
  rng = np.random.default_rng(1)
  return jax.tree.map(lambda p: jnp.asarray(rng.normal(0.0, 0.3, p.shape), p.dtype), PARAMS)


def loss_fn(params, batch):
  x, y, weights = batch
  features = jnp.tanh(jnp.einsum("bi,ij->bj", x, params["hidden"]))
  logits = jnp.einsum("bi,ij->bj", features, params["out"]["kernel"]) + params["out"]["bias"][None]
  losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
  return losses * weights, features


@pytest.mark.several_devices
@pytest.mark.parametrize(
  ("param_specs", "seeded"),
  [
    pytest.param(SPECS, False, id="fsdp"),
    pytest.param(SPECS, True, id="fsdp, seeded", marks=pytest.mark.slow),
    pytest.param(PARALLEL, True, id="data parallel", marks=pytest.mark.slow),
  ],
)
def test_a_sharded_batch_gives_the_numbers_of_one_device(mesh, param_specs, seeded):
  """Six steps: weights of group scarcity, group gradients (of K-means if seeded), the queue."""
  tx, centroids = queue_sgd(0.1, queue_length=2, num_clusters=4), None if seeded else np.eye(4, 8)
  scarcity = gq.group_scarcity(4, 3, centroids=centroids)

  def step(carry, batch):
    params, opt_state, groups = carry
    weights, groups = scarcity.update(loss_fn(params, (*batch, 1.0))[1], groups)
    if seeded:
      grouped = gq.clustered_value_and_grad(loss_fn, 4)
      (loss, _), gradients = grouped(params, (*batch, weights))
    else:
      grouped = gq.grouped_value_and_grad(loss_fn, 4, has_aux=True)
      (loss, _), gradients = grouped(params, (*batch, weights), batch[1])
    updates, opt_state = tx.update(gradients, opt_state, params)
    carry = optax.apply_updates(params, updates), opt_state, groups
    return carry, (loss, weights, gradients.counts)

  rng, y = np.random.default_rng(0), np.arange(6 * 32).reshape(6, 32) % 4
  x = rng.normal(size=(6, 32, 16)) + 2.0 * np.eye(16)[y]
  batches = np.float32(x), np.int32(y)
  params = make_params()
  state = params, tx.init(params), scarcity.init(8)
  run = jax.jit(lambda state, batches: jax.lax.scan(step, state, batches))
  alone = run(state, batches)
  specs = param_specs, *(gq.partition_specs(s, param_specs) for s in state[1:])
  sharded = run(put(state, specs, mesh), put(batches, (P(None, "data"),) * 2, mesh))
  chex.assert_trees_all_close(sharded, alone, atol=2e-5, rtol=2e-5)
  assert float(jnp.abs(alone[0][0]["hidden"] - params["hidden"]).max()) > 0.01


# Communication


@pytest.mark.several_devices
@pytest.mark.parametrize(
  ("mesh", "update_norm"),
  [(AxisType.Auto, None), (AxisType.Auto, "match"), (AxisType.Explicit, "match")],
  indirect=["mesh"],
)
def test_the_queue_sends_nothing_but_scalars(mesh, update_norm):
  tx = gq.grad_queue(queue_length=3, update_norm=update_norm)
  params = put(make_params(), SPECS, mesh)
  state = put(tx.init(PARAMS), gq.partition_specs(jax.eval_shape(tx.init, PARAMS), SPECS), mesh)
  compiled = jax.jit(tx.update).lower(params, state).compile()
  kinds = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
  sent = re.findall(rf"= (.*?) (?:{kinds})\(", compiled.as_text())  # their shapes
  assert sent  # is every gradient finite? that all devices have to know
  assert not [shape for shape in sent if re.search(r"\[\d", shape)], sent
  update, state = compiled(params, state)
  of_parameters = gq.grad_queue().init(params).queue.slots["hidden"]
  for leaf, spec in (
    (update["hidden"], SPECS["hidden"]),
    (state.queue.slots["hidden"], QUEUE["hidden"]),
    (of_parameters, QUEUE["hidden"]),  # a state made from sharded parameters is as they are
  ):
    assert leaf.sharding.is_equivalent_to(NamedSharding(mesh, spec), leaf.ndim)


@pytest.mark.several_devices
@pytest.mark.parametrize("form", ["mean", "group"])
def test_the_queue_of_parameters_cut_over_devices_is_that_of_one(form, mesh):
  options = {"queue_length": 2, "num_clusters": 2, "update_norm": "match", "track": True}
  alone, over = gq.grad_queue(**options), gq.grad_queue(**options, axis_name="data")
  rng, params = np.random.default_rng(0), {"w": jnp.zeros((8, 3)), "b": jnp.zeros(4)}
  batches = {n: rng.normal(size=(4, 2, *p.shape)).astype(np.float32) for n, p in params.items()}
  batches["w"] *= np.arange(1.0, 9.0, dtype=np.float32)[:, None]
  batches["w"][2, 0, 7, 0] = np.nan  # on the last device alone

  def train(tx, batches, state):
    def step(state, grads):
      mean = jax.tree.map(lambda g: (3.0 * g[0] + g[1]) / 4.0, grads)
      updates = mean if form == "mean" else gq.GroupGradients(grads, jnp.array([3, 1]))
      return tx.update(updates, state)[::-1]

    return jax.lax.scan(step, state, batches)

  expected = jax.jit(functools.partial(train, alone))(batches, alone.init(params))
  assert expected[0].queue.count == 3
  each_step, groups = ({n: P(*lead, "data") for n in params} for lead in ([None], [None, None]))
  cut = gq.partition_specs(alone.init(params), {n: P("data") for n in params})
  spec = {"mesh": mesh, "in_specs": (groups, cut), "out_specs": (cut, each_step)}
  run = jax.jit(jax.shard_map(functools.partial(train, over), **spec))
  chex.assert_trees_all_close(run(batches, over.init(params)), expected, rtol=1e-5, atol=1e-6)
