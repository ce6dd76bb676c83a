# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Derivatives through a training; keys; and that a queue is written in place."""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from chains import queue_sgd, tail_probability

import gq_optax as gq

EVERYTHING = {"queue_length": (1, 3), "update_norm": "match", "track": True}


def loss_after(rate, rho=3.0, **options):
  """The loss after some steps of a quadratic; the second weight feeds a dead unit."""
  tx, w = queue_sgd(rate, None, rho=rho, **options), jnp.array([1.0, 1.0])

  def step(carry, t):
    state, w = carry
    gradient = jnp.array([w[0] * (t + 1.0), w[1] * 0.0])
    updates, state = tx.update(gradient, state, w, value=jnp.sum(w**2))
    return (state, optax.apply_updates(w, updates)), None

  (_, w), _ = jax.lax.scan(step, (tx.init(w), w), jnp.arange(5.0))
  return jnp.sum(w**2)


@pytest.mark.parametrize(
  "options",
  [
    {},
    EVERYTHING,
    pytest.param(EVERYTHING | {"rho": 1.0}, marks=pytest.mark.slow),
    pytest.param({"scarcity": tail_probability}, marks=pytest.mark.slow),
  ],
)
def test_the_derivative_by_the_learning_rate_is_right_in_every_way(options):
  run, eps = functools.partial(loss_after, **options), 1e-4
  ways = [jax.grad(run), lambda x: jax.jvp(run, (x,), (1.0,))[1]]
  if not options:
    ways += [jax.grad(jax.checkpoint(run)), lambda x: jax.linearize(run, x)[1](1.0)]
  both = lambda x: (run(x), jnp.stack([way(x) for way in ways]))
  with jax.enable_x64(True):
    rates = np.array([0.01, 0.03]) + eps * np.array([[0.0], [1.0], [-1.0]])
    (_, more, less), found = jax.jit(jax.vmap(jax.vmap(both)))(rates)
    np.testing.assert_allclose(found[0].T, [(more - less) / (2 * eps)] * len(ways), rtol=2e-5)


def test_the_derivative_through_clusters_and_a_queue_of_equal_gradients_is_finite():
  def run(scale):
    tx = gq.grad_queue(1, num_clusters=2, track=True, update_norm="match")

    def step(state, t):
      each = scale * jnp.array([[1.0, 0.0], [1.0, 0.0], [3.0, 0.0]]).at[2, 0].add(t)
      updates, state = tx.update(each, state)
      return state, jnp.sum(updates)

    return jnp.sum(jax.lax.scan(step, tx.init(jnp.zeros(2)), jnp.arange(3.0))[1])

  assert jnp.isfinite(jax.jit(jax.grad(run))(2.0))
  weight = lambda g, m, s: jnp.sum(jnp.where(s > 0.0, gq.delta_rho(g, m, s), 0.0))
  args = jnp.array([1.0, 1.0, 2.0]), jnp.ones(3), jnp.array([0.0, 1.0, 0.0])
  chex.assert_tree_all_finite(jax.grad(weight, (0, 1, 2))(*args))


@pytest.mark.parametrize("queue_length", [1, 3, (2, 5)])
def test_the_queue_is_updated_in_place(queue_length):
  """The donated buffer comes back, and XLA makes no copy of the queue and no temporary for it."""
  tx = optax.chain(gq.grad_queue(queue_length), optax.sgd(0.1, momentum=0.9))
  params = {"w": jnp.zeros((300, 200))}

  def step(params, state, gradient):
    updates, state = tx.update(gradient, state, params, value=jnp.float32(1.0))
    return optax.apply_updates(params, updates), state

  compiled = jax.jit(step, donate_argnums=(0, 1)).lower(params, tx.init(params), params).compile()
  memory = compiled.memory_analysis()
  assert memory.alias_size_in_bytes >= gq.state_bytes(gq.grad_queue(queue_length), params)
  # The update itself, and under older compilers one more; never a multiple of the queue.
  assert memory.temp_size_in_bytes < 2.1 * params["w"].nbytes
  longest = queue_length if isinstance(queue_length, int) else queue_length[1]
  assert not re.search(rf"f32\[{longest},300,200\]\S* copy\(", compiled.as_text())

  state = tx.init(params)
  before = state[0].queue.slots["w"].unsafe_buffer_pointer()
  _, state = compiled(params, state, {"w": jnp.ones((300, 200))})
  assert state[0].queue.slots["w"].unsafe_buffer_pointer() == before


def test_the_key_decides_the_groups_whatever_its_form():
  updates = np.random.default_rng(1).normal(size=(12, 6)).astype(np.float32)

  def counts(key):  # K-means alone is compiled, and that once
    tx = gq.grad_queue(num_clusters=3, track=True, key=key)
    return tx.update(updates, tx.init(jnp.zeros(6)))[1].figures.group_counts

  found = [counts(key) for key in (np.int64(7), jax.random.key(7), jax.random.PRNGKey(7))]
  chex.assert_trees_all_equal(*found)
  assert len(np.unique([counts(key) for key in range(6)], axis=0)) > 1
