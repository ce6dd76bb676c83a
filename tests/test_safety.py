# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What poison does to the queue and to the chain that is advised."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gq_optax as gq


def advised(**options):
  return optax.chain(
    optax.clip_by_global_norm(1.0),
    gq.grad_queue(queue_length=3, **options),
    optax.sgd(0.1, momentum=0.9),
  )


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
def test_fifty_steps_of_poison_leave_the_queue_bit_for_bit(bad):
  tx = gq.grad_queue(queue_length=3)
  state = tx.init({"a": jnp.zeros(4), "b": jnp.zeros(())})
  update = jax.jit(tx.update)
  good = lambda i: {"a": jnp.arange(4.0) * (i + 1.0), "b": jnp.float32(i)}
  for i in range(5):
    _, state = update(good(i), state)
  before = state
  for i in range(50):
    _, state = update(good(i) | {"b": jnp.float32(bad)}, state)
  chex.assert_trees_all_equal(state, before)


@pytest.mark.standard_promotion  # apply_if_finite
@pytest.mark.parametrize("size", [1e30, -1e30, 3e38])
def test_a_quadratic_recovers_from_spikes(size):
  """A tenth of the steps are spikes; the advised chain comes down to where it would have."""
  target = jnp.array([3.0, -2.0, 0.5])

  def train(tx, poisoned):
    def step(carry, number):
      params, state = carry
      gradient = params - target
      hit = jnp.logical_and(poisoned, jnp.logical_and(number > 100, number < 150))
      hit = jnp.logical_and(hit, number % 10 == 0)
      gradient = jnp.where(hit, jnp.float32(size), gradient)
      updates, state = tx.update(gradient, state, params)
      return (optax.apply_updates(params, updates), state), jnp.max(jnp.abs(params - target))

    carry = (jnp.zeros(3), tx.init(jnp.zeros(3)))
    return jax.lax.scan(step, carry, jnp.arange(300))

  safe = lambda tx: optax.apply_if_finite(tx, max_consecutive_errors=100)
  (_, state), off = jax.jit(lambda: train(safe(advised(update_norm=1.0)), True))()
  assert float(off[100]) < 0.02
  assert float(off[-1]) < 0.02
  assert float(jnp.max(off[100:])) < 5.0  # no step is longer than what was clipped
  assert float(jnp.max(jnp.abs(state.inner_state[1].queue.slots))) <= 1.0
  _, off = jax.jit(lambda: train(safe(optax.chain(gq.grad_queue(), optax.sgd(0.1, 0.9))), True))()
  assert not float(off[-1]) < 1e3  # unclipped it is lost


def test_the_cap_never_lengthens_a_clipped_step():
  tx = optax.chain(optax.clip_by_global_norm(1.0), gq.grad_queue(2, update_norm=1.0))
  state = tx.init(jnp.zeros(5))
  update = jax.jit(tx.update)
  rng = np.random.default_rng(0)
  for scale in (1.0, 1e4, 1e-3, 1e30, 1.0, 5.0, 1e-8, 2.0):
    gradient = jnp.asarray(rng.normal(size=5) * scale, jnp.float32)
    result, state = update(gradient, state)
    assert float(optax.tree.norm(result)) <= 1.0 + 1e-5
