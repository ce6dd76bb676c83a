# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What a queue, its figures and group gradients make of numbers and options at the edge."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gq_optax as gq

ZEROS = jnp.zeros(3)


def test_a_length_that_adapts_with_64_bits_and_strict_promotion():
  with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
    tx = gq.grad_queue((1, 3), track=True)
    state = tx.init(jnp.ones(2))
    for loss in (3.0, 2.0, 1.0):
      _, state = tx.update(jnp.ones(2), state, value=jnp.float32(loss))
    assert gq.diagnostics(state)["queued"] == 3


def test_the_norm_ratio_of_an_update_that_nothing_weighs_is_1():
  tx = gq.grad_queue(3, update_norm=0.5, track=True)
  update, state = tx.update(jnp.ones(3), tx.init(ZEROS))
  np.testing.assert_array_equal(update, 1.0)
  assert gq.diagnostics(state)["norm_ratio"] == 1.0


def test_an_empty_group_adds_nothing_whatever_its_scarcity():
  tx = gq.grad_queue(1, scarcity=lambda g, m, s: jnp.abs(g - m) / jnp.abs(g) + 1.0)  # NaN at 0
  groups = gq.GroupGradients(jnp.stack([jnp.arange(1.0, 4.0)] * 2), jnp.array([4, 0]))
  alone = gq.GroupGradients(groups.grads[:1], groups.counts[:1])
  state, other = tx.init(ZEROS), tx.init(ZEROS)
  for size in (1.0, 2.0, 3.0):
    scaled = lambda g, size=size: g._replace(grads=size * g.grads)
    update, state = tx.update(scaled(groups), state)
    expected, other = tx.update(scaled(alone), other)
  assert jnp.isfinite(expected).all()
  np.testing.assert_allclose(update, expected, rtol=1e-6)


def test_a_rho_that_no_int32_holds():
  tx = gq.grad_queue(1, rho=10**10)
  update, _ = tx.update(jnp.ones(3), tx.init(ZEROS))
  np.testing.assert_array_equal(update, 1.0)
  weights = gq.delta_rho(jnp.full(3, 5.0), jnp.zeros(3), jnp.ones(3), rho=3 * 10**9)
  np.testing.assert_array_equal(weights, 5.0)


def test_a_loss_that_a_batch_of_one_makes_a_scalar():
  squeezed = lambda w, x: jnp.square(jnp.squeeze(x @ w))
  w, x, labels = jnp.ones((2, 1)), jnp.ones((5, 2)), jnp.zeros(5, jnp.int32)
  message = r"shape \(1,\) of a batch of one, but shape \(\) was found. jnp.squeeze"
  with pytest.raises(ValueError, match=message):
    gq.per_example_value_and_grad(squeezed)(w, x)
  with pytest.raises(ValueError, match=message):
    gq.grouped_value_and_grad(squeezed, 2)(w, x, labels)


def test_the_way_out_that_an_error_names_is_there():
  pair = lambda w, x: (x @ w, x)
  with pytest.raises(ValueError, match="has_aux=True of gq.grouped_value_and_grad"):
    gq.per_example_value_and_grad(pair)(jnp.ones(2), jnp.ones((5, 2)))
  gq.grouped_value_and_grad(pair, 2, has_aux=True)(
    jnp.ones(2), jnp.ones((5, 2)), jnp.zeros(5, jnp.int32)
  )
