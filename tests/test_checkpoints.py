# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Checkpoints by Orbax go on bit by bit: of all states, sharded, on other meshes.

Those of Flax, with its metadata, are in test_metadata.py.
"""

import subprocess
import sys

import chex
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

pytestmark = pytest.mark.standard_promotion  # Orbax

cross_entropy = optax.softmax_cross_entropy_with_integer_labels
SCARCITY = gq.group_scarcity(3, queue_length=4)


def make_tx(length=3):
  return queue_sgd(0.1, queue_length=length)


def make_batches(number, size=16, dim=8):
  rng = np.random.default_rng(0)
  y = rng.integers(0, 3, (number, size))
  x = rng.normal(size=(number, size, dim)) + 2.0 * np.eye(dim)[y]
  return jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.int32)


def save_and_restore(path, tree, target):
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(path, tree)
    checkpointer.wait_until_finished()
    return checkpointer.restore(path, target)


def go_on_from_both(step, run, restored, batches):
  chex.assert_trees_all_equal(restored, run)
  for batch in zip(*batches, strict=True):
    run, restored = step(run, *batch), step(restored, *batch)
  chex.assert_trees_all_equal(restored, run)
  return run


def losses(params, x, y):
  return cross_entropy(x @ params["w"] + params["b"], y)


@pytest.mark.several_devices
@pytest.mark.parametrize("devices_after", [4, 8, 2, 1])
def test_sharded_and_on_another_mesh(tmp_path, devices_after):
  tx, specs = make_tx(), {"w": P("data"), "b": P()}
  params = {"w": jnp.ones((8, 3)), "b": jnp.zeros(3)}
  state_specs = gq.partition_specs(jax.eval_shape(tx.init, params), specs)

  def place(devices):
    mesh = jax.make_mesh(
      (devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices]
    )
    return jax.tree.map(
      lambda s: NamedSharding(mesh, s), (specs, state_specs), is_leaf=lambda s: isinstance(s, P)
    )

  @jax.jit
  def step(run, x, y):
    params, state = run
    mean = lambda params: jnp.mean(losses(params, x, y))
    updates, state = tx.update(jax.grad(mean)(params), state, params)
    return optax.apply_updates(params, updates), state

  x, y = make_batches(8)
  run = jax.device_put((params, tx.init(params)), place(4))
  for batch in zip(x[:4], y[:4], strict=True):
    run = step(run, *batch)
  shapes = jax.eval_shape(lambda: (params, tx.init(params)))
  target = jax.tree.map(
    lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding),
    shapes,
    place(devices_after),
  )
  restored = save_and_restore(tmp_path / "sharded", run, target)
  slots = restored[1][0].queue.slots["w"]
  assert slots.sharding.is_equivalent_to(
    NamedSharding(place(devices_after)[0]["w"].mesh, P(None, "data")), slots.ndim
  )
  if devices_after == 4:
    go_on_from_both(step, run, restored, (x[4:], y[4:]))
    return
  chex.assert_trees_all_equal(restored, jax.device_get(run))  # nothing is lost on the way
  for batch in zip(x[4:], y[4:], strict=True):
    run, restored = step(run, *batch), step(restored, *batch)
  chex.assert_trees_all_close(jax.device_get(restored), jax.device_get(run), rtol=1e-5, atol=1e-6)


# Another length

REFUSED = """
import jax, orbax.checkpoint as ocp, sys
import gq_optax as gq

params, path = jax.numpy.zeros(2), sys.argv[1]
with ocp.StandardCheckpointer() as checkpointer:
  checkpointer.save(path, gq.grad_queue(3).init(params))
  checkpointer.wait_until_finished()
  checkpointer.restore(path, jax.eval_shape(gq.grad_queue(5).init, params))
"""


def test_orbax_refuses_another_length_by_itself(tmp_path):
  """In a process of its own: what is left of a refused restore complains when it is collected."""
  command = [sys.executable, "-c", REFUSED, str(tmp_path / "length")]
  run = subprocess.run(command, capture_output=True, text=True, check=False)
  assert run.returncode == 1
  assert "ValueError: Requested shape: (5, 2) is not compatible" in run.stderr


def test_a_whole_training_with_groups_and_a_queue_of_examples(tmp_path):
  tx = make_tx()
  examples = gq.example_scarcity(24, loss_exponent=0.5, queue_dtype=jnp.bfloat16)
  x, y = make_batches(8)
  params = {"w": jnp.ones((8, 3)), "b": jnp.zeros(3)}

  @jax.jit
  def step(run, x, y):
    params, opt_state, groups, recent = run
    outputs = gq.output_gradients(cross_entropy, x @ params["w"], y)
    weights, groups = SCARCITY.update(outputs, groups)
    rare, recent = examples.update(x, recent, losses=jnp.square(x[:, 0]))
    grads = jax.grad(lambda p: jnp.mean(weights * rare * losses(p, x, y)))(params)
    updates, opt_state = tx.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, groups, recent

  make = lambda: (params, tx.init(params), SCARCITY.init(3), examples.init(8))
  run = make()
  for batch in zip(x[:4], y[:4], strict=True):
    run = step(run, *batch)
  restored = save_and_restore(tmp_path / "whole", run, jax.eval_shape(make))
  run = go_on_from_both(step, run, restored, (x[4:], y[4:]))
  assert int(run[1][0].queue.count) == int(run[3].count) == 8
