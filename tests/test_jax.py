# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""grad_queue under JAX's transformations, its compiled form, and lowering for devices not here."""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import export

import gq_optax as gq

PARAMS = {"w": jnp.zeros((5, 3)), "b": jnp.zeros(3)}
BATCH, GROUPS = 12, 3
FORMS = ("mean", "per_example", "sketch", "group")
# The sketch is per-example gradients again, with one more program to compile.
every_form = pytest.mark.parametrize(
  "form", [f if f != "sketch" else pytest.param(f, marks=pytest.mark.slow) for f in FORMS]
)


def gradients(form, key):
  """An update of the given form and its extra args."""
  leading = {"mean": (), "per_example": (BATCH,), "sketch": (BATCH,), "group": (GROUPS,)}[form]
  keys = jax.random.split(key, len(PARAMS) + 1)
  tree = {
    name: jax.random.normal(k, (*leading, *p.shape))
    for (name, p), k in zip(PARAMS.items(), keys[1:], strict=True)
  }
  if form == "group":
    return gq.GroupGradients(tree, jnp.array([5, 0, 7])), {}
  embeddings = jax.random.normal(keys[0], (BATCH, 4))
  return tree, {"embeddings": embeddings} if form == "per_example" else {}


def make(**kwargs):
  return optax.chain(
    gq.grad_queue(**{"num_clusters": GROUPS, "track": True} | kwargs), optax.sgd(0.1, momentum=0.9)
  )


def run(update, state, form, steps=7, seed=0):
  results = []
  for step in range(steps):
    updates, extra = gradients(form, jax.random.key(seed * 1000 + step))
    result, state = update(updates, state, **extra)
    results.append(result)
  return results, state


@every_form
def test_jitted_equals_eager(form):
  tx = make()
  eager, eager_state = run(tx.update, tx.init(PARAMS), form, steps=5)
  jitted, jitted_state = run(jax.jit(tx.update), tx.init(PARAMS), form, steps=5)
  chex.assert_trees_all_close(jitted, eager, rtol=1e-4, atol=1e-6)
  chex.assert_trees_all_close(jitted_state, eager_state, rtol=1e-4, atol=1e-6)


@every_form
def test_one_compilation_for_all_steps(form):
  tx = make()
  traces = []

  @jax.jit
  def update(updates, state, **extra):
    traces.append(1)
    return tx.update(updates, state, **extra)

  run(update, tx.init(PARAMS), form)
  assert len(traces) == update._cache_size() == 1


@every_form
def test_scan_equals_a_loop(form):
  tx = make()
  keys = jax.random.split(jax.random.key(3), 7)

  @jax.jit
  def step(state, key):
    updates, extra = gradients(form, key)
    result, state = tx.update(updates, state, **extra)
    return state, result

  scanned_state, scanned = jax.lax.scan(step, tx.init(PARAMS), keys)
  state = tx.init(PARAMS)
  for number, key in enumerate(keys):
    state, result = step(state, key)
    expected = jax.tree.map(lambda x, i=number: x[i], scanned)
    chex.assert_trees_all_close(result, expected, rtol=1e-5, atol=1e-6)
  chex.assert_trees_all_close(scanned_state, state, rtol=1e-5, atol=1e-6)


@every_form
def test_vmap_over_seeds_rho_and_learning_rate_equals_a_loop(form):
  def train(key, rho, rate):
    queue = gq.grad_queue(2, rho, num_clusters=GROUPS, key=jax.random.fold_in(key, 99))
    tx = optax.chain(queue, optax.sgd(rate, momentum=0.9))

    def step(state, step_key):
      updates, extra = gradients(form, step_key)
      result, state = tx.update(updates, state, **extra)
      return state, result

    return jax.lax.scan(step, tx.init(PARAMS), jax.random.split(key, 6))[1]

  keys = jax.random.split(jax.random.key(0), 3)
  rhos, rates = jnp.array([1.0, 2.0, 5.0]), jnp.array([0.1, 0.2, 0.4])
  together = jax.jit(jax.vmap(train))(keys, rhos, rates)
  for i in range(3):
    alone = jax.jit(train)(keys[i], rhos[i], rates[i])
    found = jax.tree.map(lambda x, i=i: x[i], together)
    chex.assert_trees_all_close(found, alone, rtol=1e-4, atol=1e-6)


@every_form
def test_cond_skips_a_step(form):
  tx = make()
  updates, extra = gradients(form, jax.random.key(0))

  @jax.jit
  def step(state, flag):
    skip = lambda: (jax.tree.map(jnp.zeros_like, PARAMS), state)
    return jax.lax.cond(flag, lambda: tx.update(updates, state, **extra), skip)

  state = tx.init(PARAMS)
  _, skipped = step(state, False)
  chex.assert_trees_all_equal(skipped, state)
  _, taken = step(state, True)
  assert taken[0].queue.count == 1


def test_the_count_saturates_and_the_ring_goes_on():
  tx = gq.grad_queue(3)
  state = tx.init(PARAMS)
  top = jnp.iinfo(jnp.int32).max
  state = state._replace(queue=state.queue._replace(count=jnp.int32(top), index=jnp.int32(2)))
  for expected in (0, 1, 2, 0):
    _, state = jax.jit(tx.update)(gradients("mean", jax.random.key(expected))[0], state)
    assert state.queue.count == top
    assert state.queue.index == expected


@pytest.mark.parametrize("queue_length", [1, 3, 8, (2, 5)])
def test_the_queue_is_updated_in_place(queue_length):
  """The donated buffer comes back, and XLA makes no copy of the queue and no temporary for it."""
  tx = optax.chain(gq.grad_queue(queue_length), optax.sgd(0.1, momentum=0.9))
  params = {"w": jnp.zeros((300, 200))}

  def step(params, state, gradient):
    updates, state = tx.update(gradient, state, params, value=jnp.float32(1.0))
    return optax.apply_updates(params, updates), state

  compiled = jax.jit(step, donate_argnums=(0, 1)).lower(params, tx.init(params), params).compile()
  memory = compiled.memory_analysis()
  queue_bytes = gq.state_bytes(gq.grad_queue(queue_length), params)
  assert memory.alias_size_in_bytes >= queue_bytes
  # The update itself, and under older compilers one more; never a multiple of the queue.
  assert memory.temp_size_in_bytes < 2.1 * params["w"].nbytes
  longest = queue_length if isinstance(queue_length, int) else queue_length[1]
  assert not re.search(rf"f32\[{longest},300,200\]\S* copy\(", compiled.as_text())

  state = tx.init(params)
  before = state[0].queue.slots["w"].unsafe_buffer_pointer()
  _, state = compiled(params, state, {"w": jnp.ones((300, 200))})
  assert state[0].queue.slots["w"].unsafe_buffer_pointer() == before


@every_form
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_it_lowers_for_accelerators(form, platform):
  tx = make(queue_length=(2, 5), queue_dtype=jnp.bfloat16, update_norm="match")
  updates, extra = gradients(form, jax.random.key(0))
  update = jax.jit(functools.partial(tx.update, value=jnp.float32(1.0)))
  exported = export.export(update, platforms=[platform])(updates, tx.init(PARAMS), **extra)
  assert exported.platforms == (platform,)
  text = exported.mlir_module()
  assert "stablehlo" in text
  assert "callback" not in text  # nothing returns to the host within a step


@functools.cache
def grouped_by_key_7():
  tx = gq.grad_queue(num_clusters=3, track=True, key=7)
  return jax.jit(tx.update)(gradients("sketch", jax.random.key(1))[0], tx.init(PARAMS))[1]


@pytest.mark.parametrize(
  "key", [np.int64(7), jax.random.key(7), jax.random.PRNGKey(7), jnp.int32(7)]
)
def test_every_form_of_a_key_gives_the_same_groups(key):
  updates, _ = gradients("sketch", jax.random.key(1))
  tx = gq.grad_queue(num_clusters=3, track=True, key=key)
  state = jax.jit(tx.update)(updates, tx.init(PARAMS))[1]
  chex.assert_trees_all_equal(state, grouped_by_key_7())


def test_the_key_decides_the_groups():
  updates, _ = gradients("sketch", jax.random.key(1))

  def counts(key):
    tx = gq.grad_queue(num_clusters=3, track=True, key=key)
    return tx.update(updates, tx.init(PARAMS))[1].figures.group_counts

  found = jax.jit(jax.vmap(counts))(jax.random.split(jax.random.key(0), 6))
  assert len(np.unique(found, axis=0)) > 1


def test_a_tree_of_nothing():
  """As `optax.masked` leaves it when it hides every parameter."""
  tx = gq.grad_queue()
  state = tx.init({})
  updates, state = jax.jit(tx.update)({}, state)
  assert updates == {}
  assert state.queue.count == 1


def test_no_key_is_held_to_be_used_twice():
  x = jax.random.normal(jax.random.key(0), (12, 3))

  def losses(w, batch):
    x, keys = batch
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, 0.5, (3,)))(keys)
    return (x * kept.astype(jnp.float32)) @ w

  def dropout(make):
    keys = jax.random.split(jax.random.key(1), 12)
    return jax.jit(make)(jnp.ones(3), (x, keys), jnp.arange(12) % 3)

  with jax.debug_key_reuse(True):
    for key in (0, jax.random.key(3)):
      scarcity = gq.group_scarcity(3, key=key)
      state = scarcity.init(3)
      tx = gq.grad_queue(num_clusters=3, key=key)
      queued = tx.init(jnp.ones(3))
      for _ in range(2):
        _, state = scarcity.update(x, state)
        _, queued = tx.update(x, queued)
    dropout(gq.grouped_value_and_grad(losses, 3))
    dropout(gq.per_example_value_and_grad(losses, microbatch_size=5, num_groups=3))
