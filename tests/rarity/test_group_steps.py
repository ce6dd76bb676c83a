# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What a step of group scarcity costs, and its groups over several devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chex import assert_trees_all_close
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import gq_optax as gq
from gq_optax._rarity import lloyd


def loops(jaxpr):
  """The loops and branches of a program, without those inside of them.

  What is chosen by platform is no branch: the compiled program holds one side of it.
  """
  platforms = [e.outvars[0] for e in jaxpr.eqns if e.primitive.name == "platform_index"]
  for equation in jaxpr.eqns:
    if equation.primitive.name == "cond" and equation.invars[0] in platforms:
      for branch in equation.params["branches"]:
        yield from loops(branch.jaxpr)
    elif equation.primitive.name in ("while", "scan", "cond"):
      yield equation
    else:
      for inner in equation.params.values():
        if hasattr(inner, "jaxpr"):
          yield from loops(inner.jaxpr)


def test_only_the_first_step_pays_for_the_seeding_also_under_vmap(monkeypatch):
  seeded, seed = [], lloyd.seed

  def counting(*args):
    jax.debug.callback(lambda: seeded.append(1))
    return seed(*args)

  monkeypatch.setattr(lloyd, "seed", counting)
  scarcity = gq.group_scarcity(3, queue_length=2)
  x = jax.random.normal(jax.random.key(0), (2, 11, 5))  # a shape that no other test compiles
  update = jax.jit(jax.vmap(scarcity.update))
  # The step has one loop, that around the seeding; all else is a straight line.
  state = jax.vmap(lambda _: scarcity.init(5))(jnp.arange(2))
  (loop,) = loops(jax.make_jaxpr(update)(x, state).jaxpr)
  assert loop.primitive.name == "while"
  for _ in range(3):
    _, state = jax.block_until_ready(update(x, state))
    jax.effects_barrier()
    assert len(seeded) == 1
  # One new training among old ones: they go on as they would alone.
  mixed = jax.tree.map(lambda new, old: jnp.stack([new, old[1]]), scarcity.init(5), state)
  weights, _ = update(x, mixed)
  alone, _ = scarcity.update(x[1], jax.tree.map(lambda leaf: leaf[1], state))
  np.testing.assert_allclose(weights[1], alone, rtol=1e-5)


def test_an_update_from_given_centroids_has_no_loop():
  """A GPU waits for the host at each."""
  x = jnp.ones((24, 4))

  def program(**options):
    scarcity = gq.group_scarcity(3, pooling=0.5, **options)
    return str(jax.make_jaxpr(scarcity.update)(x, scarcity.init(4)))

  assert "while" in program()
  assert "while" not in program(centroids=np.eye(3, 4))
  assert "scan" not in program(centroids=np.eye(3, 4))


KINDS = jnp.repeat(jnp.arange(2), jnp.array([56, 8]), total_repeat_length=64)
ROWS = jax.nn.one_hot(KINDS, 4) + 0.01 * jax.random.normal(jax.random.key(0), (64, 4))
MASK = jnp.arange(64) != 60
close = lambda found, expected: assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-6)


def make_mesh(shape, names):
  devices = jax.devices()[:4]
  return jax.make_mesh(shape, names, (AxisType.Auto,) * len(shape), devices=devices)


@pytest.mark.several_devices
def test_groups_over_devices_are_those_of_one():
  alone, over = gq.group_scarcity(2, 3), gq.group_scarcity(2, 3, axis_name="b")

  def train(scarcity, rows, mask, state):
    _, state = scarcity.update(rows, state, mask=mask)
    _, state = scarcity.update(rows * 2.0, state)
    return scarcity.update(rows, state, mask=mask)

  first, _ = alone.update(ROWS, alone.init(4), mask=MASK)
  np.testing.assert_allclose(first[-1] / first[0], 8.0, rtol=0.2)
  weights, state = train(alone, ROWS, MASK, alone.init(4))
  each = lambda *args: train(over, *args)
  # The state comes out as one that is the same on all devices: JAX checks that.
  spec = {"in_specs": (P("b"), P("b"), P()), "out_specs": (P("b"), P())}
  mapped = jax.shard_map(each, mesh=make_mesh((4,), ("b",)), **spec)
  close(jax.jit(mapped)(ROWS, MASK, alone.init(4)), (weights, state))

  copies = jax.tree.map(lambda leaf: jnp.stack([leaf] * 4), alone.init(4))
  parts = (ROWS.reshape(4, 16, 4), MASK.reshape(4, 16), copies)
  for mapped in (jax.pmap(each, axis_name="b"), jax.jit(jax.vmap(each, axis_name="b"))):
    by_device, states = mapped(*parts)
    close(by_device.reshape(64), weights)
    for device in range(4):
      close(jax.tree.map(lambda leaf, d=device: leaf[d], states), state)


@pytest.mark.several_devices
def test_groups_over_two_axes():
  alone, over = gq.group_scarcity(2), gq.group_scarcity(2, axis_name=("a", "b"))
  cut = P(("a", "b"))
  spec = {"mesh": make_mesh((2, 2), ("a", "b")), "in_specs": (cut, P()), "out_specs": (cut, P())}
  found = jax.jit(jax.shard_map(over.update, **spec))(ROWS, over.init(4))
  close(found, alone.update(ROWS, alone.init(4)))
