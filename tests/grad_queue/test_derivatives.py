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


def loss_after(rate, rho=3.0, scale=1.0, **options):
  """The loss after some steps of a quadratic; the second weight feeds a dead unit."""
  tx, w = queue_sgd(rate, None, rho=rho, **options), jnp.array([1.0, 1.0])

  def step(carry, t):
    state, w = carry
    gradient = scale * jnp.array([w[0] * (t + 1.0), w[1] * 0.0])
    updates, state = tx.update(gradient, state, w, value=jnp.sum(w**2))
    return (state, optax.apply_updates(w, updates)), None

  (_, w), _ = jax.lax.scan(step, (tx.init(w), w), jnp.arange(5.0))
  return jnp.sum(w**2)


@pytest.mark.parametrize("options", [{}, EVERYTHING, {"scarcity": tail_probability}])
def test_the_derivative_by_the_learning_rate_is_right(options):
  run, eps = functools.partial(loss_after, **options), 1e-3
  both_ways = lambda rate: (jax.grad(run)(rate), jax.jvp(run, (rate,), (1.0,))[1])
  found, forward = jax.jit(both_ways)(0.01)
  more, less = jax.jit(jax.vmap(run))(jnp.array([0.01 + eps, 0.01 - eps]))
  np.testing.assert_allclose(found, (more - less) / (2 * eps), rtol=2e-2)
  np.testing.assert_allclose(forward, found, rtol=1e-4)


@pytest.mark.parametrize("options", [{}, EVERYTHING])
def test_without_weights_the_derivative_is_that_of_sgd(options):
  found = jax.jit(jax.grad(lambda rate: loss_after(rate, rho=1.0, **options)))(0.01)
  plain = lambda rate: jnp.prod(jnp.square(1.0 - rate * jnp.arange(1.0, 6.0))) + 1.0
  np.testing.assert_allclose(found, jax.grad(plain)(0.01), rtol=1e-5)


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


def test_linearize_checkpoint_and_vmap_of_vmap_of_a_loss_that_holds_updates():
  loss = lambda scale: loss_after(0.1, scale=scale, queue_length=1)
  x = jnp.array([[0.5, 0.7, 0.9], [1.1, 1.3, 1.5]])
  values, slopes = jax.jit(jax.vmap(jax.vmap(jax.value_and_grad(loss))))(x)
  again = lambda x: (jax.linearize(loss, x)[1](1.0), jax.grad(jax.checkpoint(loss))(x))
  np.testing.assert_allclose(jax.jit(again)(0.7), [slopes[0, 1]] * 2, rtol=1e-5)
  one = jax.jit(jax.value_and_grad(loss))
  for i, j in np.ndindex(x.shape):
    value, slope = one(x[i, j])
    np.testing.assert_allclose(values[i, j], value, rtol=1e-5)
    np.testing.assert_allclose(slopes[i, j], slope, rtol=1e-4)


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
