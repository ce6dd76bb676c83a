# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Names of axes that Flax keeps around parameters: the queue's own axis is in front of them."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import gq_optax as gq

pytestmark = pytest.mark.standard_promotion  # networks of flax

NAMES = ("data", "model")
INIT = nn.initializers.lecun_normal()
X = jnp.ones((4, 8))


def make_mesh(kind=AxisType.Auto):
  return jax.make_mesh((2, 2), NAMES, axis_types=(kind, kind), devices=jax.devices()[:4])


def make_tx(length=3):
  return optax.chain(gq.grad_queue(length, track=True), optax.sgd(0.1, momentum=0.9))


def names(variable):
  """Under the key of this version of Flax, or of older ones."""
  metadata = variable.get_metadata()
  return metadata["out_sharding" if "out_sharding" in metadata else "sharding_names"]


def is_spec(node):
  return isinstance(node, P)


# Linen


def linen(wrap):
  model = nn.Dense(4, kernel_init=wrap(INIT, NAMES))
  return model, model.init(jax.random.key(0), X)["params"]


@pytest.mark.parametrize("wrap", [nn.with_partitioning, nn.with_logical_partitioning])
def test_linen_boxes_gain_a_leading_none(wrap):
  model, params = linen(wrap)
  tx = make_tx()
  state = jax.eval_shape(tx.init, params)
  box = state[0].queue.slots["kernel"]
  assert type(box) is type(params["kernel"])
  assert (box.names, box.value.shape) == ((None, *NAMES), (3, 8, 4))
  by_flax = nn.get_partition_spec(state)
  specs = gq.partition_specs(state, nn.get_partition_spec(params))
  assert specs[0].queue.slots["kernel"] == by_flax[0].queue.slots["kernel"] == P(None, *NAMES)
  assert specs[1][0].trace["kernel"] == by_flax[1][0].trace["kernel"] == P(*NAMES)
  assert specs[0].queue.slots["bias"] == P(None)

  grads = jax.grad(lambda p: jnp.mean(model.apply({"params": p}, X) ** 2))(params)
  run, bare_run = tx.init(params), tx.init(nn.meta.unbox(params))
  for step in range(5):
    scaled = jax.tree.map(lambda g, s=step: g * (1.0 + s), grads)
    updates, run = tx.update(scaled, run, params)
    bare_updates, bare_run = tx.update(nn.meta.unbox(scaled), bare_run, nn.meta.unbox(params))
  chex.assert_trees_all_equal_structs(optax.apply_updates(params, updates), params)
  chex.assert_trees_all_equal(nn.meta.unbox(updates), bare_updates)
  chex.assert_trees_all_equal(nn.meta.unbox(run), bare_run)
  chex.assert_trees_all_equal_structs(run, tx.init(params))


@pytest.mark.parametrize("lead", [6, 2])
def test_linen_boxes_around_batched_gradients(lead):
  _, params = linen(nn.with_partitioning)
  tx = make_tx()
  batched = jax.tree.map(lambda p: jnp.ones((lead, *p.shape)), params)
  updates = batched if lead == 6 else gq.GroupGradients(batched, jnp.array([3, 1]))
  tx = gq.grad_queue(num_clusters=2)
  result, state = tx.update(updates, tx.init(params), params)
  chex.assert_trees_all_equal_shapes(result, params)
  assert state.queue.slots["kernel"].names == (None, *NAMES)


@pytest.mark.several_devices
def test_linen_on_a_mesh_and_an_orbax_round_trip(tmp_path):
  mesh = make_mesh()
  model = nn.Dense(4, kernel_init=nn.with_partitioning(INIT, NAMES))
  tx = make_tx()

  def make():
    params = model.init(jax.random.key(0), X)["params"]
    return params, tx.init(params)

  shapes = jax.eval_shape(make)
  with jax.set_mesh(mesh):
    specs = nn.get_partition_spec(shapes[0])
    specs = (specs, gq.partition_specs(shapes[1], specs))
    place = jax.tree.map(lambda s: NamedSharding(mesh, s), specs, is_leaf=is_spec)
    run = jax.jit(make, out_shardings=place)()

    @jax.jit
    def step(run):
      params, state = run
      grads = jax.grad(lambda p: jnp.mean(model.apply({"params": p}, X) ** 2))(params)
      updates, state = tx.update(grads, state, params)
      return optax.apply_updates(params, updates), state

    run = step(step(run))
    assert run[1][0].queue.slots["kernel"].value.sharding.spec == P(None, *NAMES)
    abstract = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), run
    )
    with ocp.StandardCheckpointer() as checkpointer:
      checkpointer.save(tmp_path / "linen", run)
      checkpointer.wait_until_finished()
      restored = checkpointer.restore(tmp_path / "linen", abstract)
    chex.assert_trees_all_equal(restored, run)
    chex.assert_trees_all_equal(step(restored), step(run))


# NNX


def make_nnx(length=3, **options):
  init = nnx.with_partitioning(nnx.initializers.lecun_normal(), NAMES, **options)
  model = nnx.Linear(8, 4, kernel_init=init, rngs=nnx.Rngs(0))
  return model, nnx.Optimizer(model, make_tx(length), wrt=nnx.Param)


def nnx_step(model, optimizer):
  loss = lambda model: jnp.mean(model(X) ** 2)
  optimizer.update(model, nnx.grad(loss)(model))


@pytest.mark.several_devices
@pytest.mark.parametrize("length", [3, 4])
def test_nnx_slots_lie_behind_a_replicated_axis(length):
  with jax.set_mesh(make_mesh()):
    model, optimizer = make_nnx(length)
    kernel = optimizer.opt_state[0].queue.slots["kernel"]
    assert names(kernel) == (None, *NAMES)
    assert names(model.kernel) == NAMES  # the model's own is not touched
    assert kernel.get_value().sharding.spec == P(None, *NAMES)
    for _ in range(4):
      nnx_step(model, optimizer)
    kernel = optimizer.opt_state[0].queue.slots["kernel"]
    assert kernel.get_value().sharding.spec == P(None, *NAMES)
    assert optimizer.opt_state[1][0].trace["kernel"].get_value().sharding.spec == P(*NAMES)

    params = nnx.state(model, nnx.Param)
    by_flax = nnx.get_partition_spec(optimizer.opt_state)
    specs = gq.partition_specs(optimizer.opt_state, nnx.get_partition_spec(params))
    found = specs[0].queue.slots["kernel"].get_value()
    assert found == by_flax[0].queue.slots["kernel"].get_value() == P(None, *NAMES)
    chex.assert_trees_all_equal_structs(
      jax.tree.map(lambda _: 0, specs, is_leaf=is_spec), jax.tree.map(lambda _: 0, by_flax)
    )


@pytest.mark.several_devices
@pytest.mark.skipif(
  not hasattr(nnx, "as_pure"), reason="older versions of Flax know neither of the two"
)
def test_nnx_metadata_for_optimizers_and_a_mesh_in_the_metadata():
  mesh = make_mesh()
  metadata = {"optimizer_sharding": ("model", None), "mesh": mesh}
  with jax.set_mesh(mesh):
    _, optimizer = make_nnx(**metadata)
    kernel = optimizer.opt_state[0].queue.slots["kernel"]
    assert names(kernel) == (None, "model", None)
  init = nnx.with_partitioning(INIT, NamedSharding(mesh, P(*NAMES)))
  model = nnx.Linear(8, 4, kernel_init=init, rngs=nnx.Rngs(0))
  optimizer = nnx.Optimizer(model, make_tx(), wrt=nnx.Param)
  kernel = optimizer.opt_state[0].queue.slots["kernel"]
  assert names(kernel) == NamedSharding(mesh, P(None, *NAMES))


@pytest.mark.several_devices
def test_nnx_gradients_with_their_variables_fit_a_state_made_of_variables():
  with jax.set_mesh(make_mesh()):
    model, optimizer = make_nnx()
    tx, params = optimizer.tx, nnx.state(model, nnx.Param)
    state = tx.init(params)
    grads = nnx.grad(lambda model: jnp.mean(model(X) ** 2))(model)
    updates, state = tx.update(grads, state, params)
    chex.assert_trees_all_equal_structs(updates, grads)
    assert names(state[0].queue.slots["kernel"]) == (None, *NAMES)


@pytest.mark.several_devices
def test_an_orbax_round_trip_of_nnx(tmp_path):
  mesh = make_mesh()
  with jax.set_mesh(mesh):
    pair = make_nnx()
    for _ in range(4):
      nnx_step(*pair)
    graph, state = nnx.split(pair)
    abstract = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )
    with ocp.StandardCheckpointer() as checkpointer:
      checkpointer.save(tmp_path / "nnx", state)
      checkpointer.wait_until_finished()
      restored = checkpointer.restore(tmp_path / "nnx", abstract)
    chex.assert_trees_all_equal(restored, state)
    slots = restored[1]["opt_state"][0]["queue"]["slots"]["kernel"]
    assert slots.get_value().sharding.spec == P(None, *NAMES)
    again = nnx.merge(graph, restored)
    nnx_step(*pair)
    nnx_step(*again)
    chex.assert_trees_all_equal(nnx.state(again), nnx.state(pair))
