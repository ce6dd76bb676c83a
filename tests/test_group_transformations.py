# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Group scarcity under JAX's transformations, and what a step of it costs."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kinds import batch

import gq_optax as gq
from gq_optax._rarity import lloyd


@pytest.mark.parametrize(
  ("metric", "dtype"), [("cosine", jnp.bfloat16), ("euclidean", jnp.float16)]
)
def test_jitted_equals_eager_and_dtypes_are_explicit(metric, dtype):
  scarcity = gq.group_scarcity(3, metric=metric, pooling=0.3)
  x = jax.random.normal(jax.random.key(0), (20, 2, 3), dtype)
  state = scarcity.init(jax.ShapeDtypeStruct((20, 2, 3), dtype))
  chex.assert_trees_all_equal_shapes_and_dtypes(state, scarcity.init(6))
  eager, jitted = scarcity.update(x, state), jax.jit(scarcity.update)(x, state)
  chex.assert_trees_all_close(eager, jitted, rtol=1e-5, atol=1e-6)
  chex.assert_trees_all_equal_shapes_and_dtypes(jitted[1], state)
  chex.assert_type(jitted[0], jnp.float32)


def test_no_gradient_flows_through_the_weights():
  scarcity = gq.group_scarcity(2, 3)
  x = batch(*[0] * 18, *[1] * 6)

  def loss(scale):
    weights, state = scarcity.update(scale * x, scarcity.init(4))
    return jnp.mean(weights * scale), (weights, state)

  gradient, (weights, _) = jax.grad(loss, has_aux=True)(jnp.float32(2.0))
  assert gradient == pytest.approx(float(jnp.mean(weights)))


def test_scan_and_vmap_over_keys_equal_single_runs():
  batches = jax.random.normal(jax.random.key(1), (4, 12, 3))

  def run(key):
    scarcity = gq.group_scarcity(3, queue_length=2, key=key)
    step = lambda state, x: scarcity.update(x, state)[::-1]
    return jax.lax.scan(step, scarcity.init(3), batches)

  keys = jax.random.split(jax.random.key(2), 3)
  together = jax.jit(jax.vmap(run))(keys)
  assert len(np.unique(np.asarray(together[0].centroids).round(4), axis=0)) > 1  # keys matter
  for i, key in enumerate(keys):
    single = jax.tree.map(lambda x, i=i: x[i], together)
    chex.assert_trees_all_close(jax.jit(run)(key), single, rtol=1e-5, atol=1e-6)


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
  seeded = []
  seed = lloyd.seed

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


def test_nothing_is_compiled_on_the_second_call_and_the_state_can_be_donated():
  scarcity = gq.group_scarcity(3)
  update = jax.jit(scarcity.update, donate_argnums=1)
  state = scarcity.init(4)
  for seed in range(3):
    _, state = update(jax.random.normal(jax.random.key(seed), (9, 4)), state)
  assert update._cache_size() == 1
  assert state.count == 3


def test_no_gradient_flows_to_the_options():
  x = jax.random.normal(jax.random.key(0), (12, 4))

  def loss(exponent, max_weight, pooling):
    scarcity = gq.group_scarcity(
      3, exponent=exponent, max_weight=max_weight, pooling=pooling, metric="euclidean"
    )
    return jnp.sum(jnp.square(scarcity.update(x, scarcity.init(4))[0]))

  slopes = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(0.7, 3.0, 0.5)
  np.testing.assert_array_equal(jnp.stack(slopes), np.zeros(3))


@pytest.mark.several_devices
def test_each_device_its_own_exponent_and_key():
  mesh = jax.sharding.Mesh(jax.devices()[:2], ("d",))
  x = jax.random.normal(jax.random.key(0), (12, 4))
  part = jax.sharding.PartitionSpec("d")

  def weights(exponent, key):
    scarcity = gq.group_scarcity(3, exponent=exponent[0], key=key[0])
    return scarcity.update(x, scarcity.init(4))[0][None]

  exponents, keys = jnp.array([0.0, 1.0]), jax.random.split(jax.random.key(1), 2)
  found = jax.jit(jax.shard_map(weights, mesh=mesh, in_specs=(part, part), out_specs=part))(
    exponents, keys
  )
  for i in range(2):
    expected = weights(exponents[i : i + 1], keys[i : i + 1])[0]
    np.testing.assert_allclose(found[i], expected, rtol=1e-5)
