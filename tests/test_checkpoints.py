# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Checkpoints by Orbax go on bit by bit: of all states, sharded, on other meshes, of Flax."""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from chains import queue_sgd
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import gq_optax as gq

pytestmark = pytest.mark.standard_promotion  # Orbax and Flax

cross_entropy = optax.softmax_cross_entropy_with_integer_labels
rng = np.random.default_rng(0)
Y = rng.integers(0, 3, (8, 16)).astype(np.int32)
X = (rng.normal(size=(8, 16, 8)) + 2.0 * np.eye(8)[Y]).astype(np.float32)
PARAMS = {"w": jnp.ones((8, 3)), "b": jnp.zeros(3)}
NAMES = ("data", "model")


def make_mesh(*sizes):
  devices = jax.devices()[: np.prod(sizes)]
  return jax.make_mesh(sizes, NAMES[: len(sizes)], (AxisType.Auto,) * len(sizes), devices=devices)


def steps(step, run, when):
  for x, y in zip(X[when], Y[when], strict=True):
    run = step(run, x, y)
  return run


def save_and_restore(path, tree, target=None):
  """The target is the tree's own kinds and places unless one is given."""
  like = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(path / "run", tree)
    checkpointer.wait_until_finished()
    return checkpointer.restore(path / "run", target or jax.tree.map(like, tree))


def losses(params, x, y):
  return cross_entropy(x @ params["w"] + params["b"], y)


def plain_step(tx, run, x, y):
  params, state = run
  grads = jax.grad(lambda params: jnp.mean(losses(params, x, y)))(params)
  updates, state = tx.update(grads, state, params)
  return optax.apply_updates(params, updates), state


@pytest.mark.several_devices
@pytest.mark.parametrize("devices_after", [4, 8, 1])
def test_sharded_and_on_another_mesh(tmp_path, devices_after):
  tx, specs = queue_sgd(0.1), {"w": P("data"), "b": P()}
  shapes = jax.eval_shape(lambda: (PARAMS, tx.init(PARAMS)))
  specs = specs, gq.partition_specs(shapes[1], specs)
  of = lambda mesh: lambda spec: NamedSharding(mesh, spec)
  place = lambda mesh: jax.tree.map(of(mesh), specs, is_leaf=lambda s: isinstance(s, P))
  step, mesh = jax.jit(functools.partial(plain_step, tx)), make_mesh(devices_after)
  run = steps(step, jax.device_put((PARAMS, tx.init(PARAMS)), place(make_mesh(4))), slice(4))
  like = lambda shape, place: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=place)
  restored = save_and_restore(tmp_path, run, jax.tree.map(like, shapes, place(mesh)))
  slots = restored[1][0].queue.slots["w"]
  assert slots.sharding.is_equivalent_to(NamedSharding(mesh, P(None, "data")), slots.ndim)
  chex.assert_trees_all_equal(*map(jax.device_get, (restored, run)))  # nothing is lost on the way
  after = jax.device_get([steps(step, tree, slice(4, 8)) for tree in (restored, run)])
  if devices_after == 4:
    chex.assert_trees_all_equal(*after)
  chex.assert_trees_all_close(*after, rtol=1e-5, atol=1e-6)


def test_a_whole_training_with_groups_and_a_queue_of_examples(tmp_path):
  queue = gq.grad_queue((2, 4), update_norm="match", queue_dtype=jnp.bfloat16, track=True)
  tx = optax.MultiSteps(optax.chain(queue, optax.adam(0.1)), 2)
  scarcity = gq.group_scarcity(3, queue_length=4)
  examples = gq.example_scarcity(24, loss_exponent=0.5, queue_dtype=jnp.bfloat16)

  @jax.jit
  def step(run, x, y):
    params, opt_state, groups, recent = run
    outputs = gq.output_gradients(cross_entropy, x @ params["w"], y)
    weights, groups = scarcity.update(outputs, groups)
    rare, recent = examples.update(x, recent, losses=jnp.square(x[:, 0]))
    mean = lambda p: jnp.mean(weights * rare * losses(p, x, y))
    value, grads = jax.value_and_grad(mean)(params)
    updates, opt_state = tx.update(grads, opt_state, params, value=value)
    return optax.apply_updates(params, updates), opt_state, groups, recent

  make = lambda: (PARAMS, tx.init(PARAMS), scarcity.init(3), examples.init(8))
  run = steps(step, make(), slice(4))
  restored = save_and_restore(tmp_path, run, jax.eval_shape(make))
  chex.assert_trees_all_equal(restored, run)
  restored, run = (steps(step, tree, slice(4, 8)) for tree in (restored, run))
  chex.assert_trees_all_equal(restored, run)
  assert int(run[3].count) == 8


# Those of Flax, with names of axes around the parameters


@pytest.mark.several_devices
def test_linen_on_a_mesh(tmp_path):
  init, x = nn.with_partitioning(nn.initializers.lecun_normal(), NAMES), X[0, :4]
  model, tx = nn.Dense(4, kernel_init=init), queue_sgd(0.1)

  def make():
    params = model.init(jax.random.key(0), x)["params"]
    return params, tx.init(params)

  @jax.jit
  def step(run):
    params, state = run
    grads = jax.grad(lambda p: jnp.mean(model.apply({"params": p}, x) ** 2))(params)
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), state

  shapes, mesh = jax.eval_shape(make), make_mesh(2, 2)
  with jax.set_mesh(mesh):
    specs = nn.get_partition_spec(shapes[0])
    specs = specs, gq.partition_specs(shapes[1], specs)
    of = lambda spec: NamedSharding(mesh, spec)
    place = jax.tree.map(of, specs, is_leaf=lambda s: isinstance(s, P))
    run = step(step(jax.jit(make, out_shardings=place)()))
    assert run[1][0].queue.slots["kernel"].value.sharding.spec == P(None, *NAMES)
    restored = save_and_restore(tmp_path, run)
    chex.assert_trees_all_equal(restored, run)
    chex.assert_trees_all_equal(step(restored), step(run))
