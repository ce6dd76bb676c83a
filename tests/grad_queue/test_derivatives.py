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


def loss_after(make, rate, steps=5):
  """The loss after some steps of a quadratic; the second weight feeds a dead unit."""
  tx, w = make(rate), jnp.array([1.0, 1.0])
  state = tx.init(w)
  for t in range(steps):
    gradient = jnp.array([w[0] * (t + 1.0), w[1] * 0.0])
    updates, state = tx.update(gradient, state, w, value=jnp.sum(w**2))
    w = optax.apply_updates(w, updates)
  return jnp.sum(w**2)


EVERYTHING = {"queue_length": (1, 3), "update_norm": "match", "track": True}


@pytest.mark.parametrize("options", [{}, EVERYTHING, {"scarcity": tail_probability}])
def test_the_derivative_by_the_learning_rate_is_right(options):
  run = jax.jit(functools.partial(loss_after, lambda rate: queue_sgd(rate, None, **options)))
  found = jax.jit(jax.grad(run))(0.01)
  forward = jax.jit(lambda x: jax.jvp(run, (x,), (1.0,))[1])(0.01)
  eps = 1e-3
  expected = (run(0.01 + eps) - run(0.01 - eps)) / (2 * eps)
  np.testing.assert_allclose(found, expected, rtol=2e-2)
  np.testing.assert_allclose(forward, found, rtol=1e-4)


@pytest.mark.parametrize("options", [{}, EVERYTHING])
def test_without_weights_the_derivative_is_that_of_sgd(options):
  with_queue = lambda rate: queue_sgd(rate, None, rho=1.0, **options)
  found = jax.jit(jax.grad(functools.partial(loss_after, with_queue)))(0.01)
  plain = functools.partial(loss_after, lambda r: optax.with_extra_args_support(optax.sgd(r)))
  np.testing.assert_allclose(found, jax.jit(jax.grad(plain))(0.01), rtol=1e-5)


def test_the_derivative_through_clusters_and_a_queue_of_equal_gradients_is_finite():
  def run(scale):
    tx = gq.grad_queue(1, num_clusters=2, track=True, update_norm="match")
    state, total = tx.init(jnp.zeros(2)), 0.0
    for t in range(3):
      each = scale * jnp.array([[1.0, 0.0], [1.0, 0.0], [3.0 + t, 0.0]])
      updates, state = tx.update(each, state)
      total += jnp.sum(updates)
    return total

  assert jnp.isfinite(jax.jit(jax.grad(run))(2.0))
  weight = lambda g, m, s: jnp.sum(jnp.where(s > 0.0, gq.delta_rho(g, m, s), 0.0))
  args = jnp.array([1.0, 1.0, 2.0]), jnp.ones(3), jnp.array([0.0, 1.0, 0.0])
  chex.assert_tree_all_finite(jax.grad(weight, (0, 1, 2))(*args))


def quadratic(scale):
  """A loss that holds some steps of a queue inside."""
  tx, w = queue_sgd(0.1, None, queue_length=1), jnp.array([1.0, -2.0])
  state = tx.init(w)
  for t in range(4):
    updates, state = tx.update(scale * w * (1.0 + t), state, w)
    w = optax.apply_updates(w, updates)
  return jnp.sum(w**2)


def test_linearize_checkpoint_and_vmap_of_vmap_of_a_loss_that_holds_updates():
  x, slope = jnp.array([[0.5, 0.7, 0.9], [1.1, 1.3, 1.5]]), jax.jit(jax.grad(quadratic))
  _, linear = jax.linearize(quadratic, 0.7)
  np.testing.assert_allclose(linear(1.0), slope(0.7), rtol=1e-5)
  np.testing.assert_allclose(jax.grad(jax.checkpoint(quadratic))(0.7), slope(0.7), rtol=1e-5)
  both = jax.jit(jax.vmap(jax.vmap(jax.value_and_grad(quadratic))))(x)
  for i, j in np.ndindex(x.shape):
    np.testing.assert_allclose(both[0][i, j], quadratic(x[i, j]), rtol=1e-5)
    np.testing.assert_allclose(both[1][i, j], slope(x[i, j]), rtol=1e-4)


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


def test_the_key_decides_the_groups_whatever_its_form():
  updates = jax.random.normal(jax.random.key(1), (12, 6))

  @jax.jit
  def counts(key):
    tx = gq.grad_queue(num_clusters=3, track=True, key=key)
    return tx.update(updates, tx.init(jnp.zeros(6)))[1].figures.group_counts

  found = [counts(key) for key in (np.int64(7), jax.random.key(7), jax.random.PRNGKey(7))]
  chex.assert_trees_all_equal(*found)
  assert len(np.unique([counts(key) for key in range(6)], axis=0)) > 1
