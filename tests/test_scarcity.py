# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Scarcity functions: values, documented bounds, and use through the transformation."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chains import tail_probability
from hypothesis import given, settings
from hypothesis import strategies as st

import gq_optax as gq

BOUNDS = {
  gq.delta_rho: (1 / 3, 3.0),
  tail_probability: (0.0, 1.0),
}
every_function = pytest.mark.parametrize("scarcity", BOUNDS)
largest = float(np.finfo(np.float32).max)
finite = st.floats(-largest, largest, width=32)
Z = np.array([0.0, 0.1, 1 / 3, 1.0, 2.0, 3.0, 3.8], np.float32)


def at(z):
  """Arguments whose z-score is `z`."""
  z = jnp.asarray(z, jnp.float32)
  return 1.0 + 0.5 * z, jnp.ones_like(z), jnp.full_like(z, 0.5)


def test_values_at_hand():
  np.testing.assert_allclose(gq.delta_rho(*at(Z)), np.clip(Z, 1 / 3, 3), rtol=1e-5)


@every_function
@settings(max_examples=80, deadline=None, derandomize=True)
@given(g=finite, mean=finite, std=st.floats(0, largest, width=32))
def test_bounds_hold_for_any_finite_input(scarcity, g, mean, std):
  weight = scarcity(jnp.float32(g), jnp.float32(mean), jnp.float32(std))
  low, high = BOUNDS[scarcity]
  assert weight.dtype == jnp.float32
  assert low * (1 - 1e-6) <= weight <= high * (1 + 1e-6)


@every_function
def test_more_scarce_never_weighs_less(scarcity):
  weights = scarcity(*at(jnp.linspace(0.0, 12.0, 200)))
  assert (jnp.diff(weights) > -1e-6).all()  # the error function itself wavers by an ulp


@every_function
def test_no_deviation_at_all(scarcity):
  """Sigma = 0: the lower bound where g repeats the mean, else the upper one."""
  g, std = jnp.array([1.0, 1.0000001, -5.0]), jnp.zeros(3)
  low, high = BOUNDS[scarcity]
  np.testing.assert_allclose(scarcity(g, jnp.ones(3), std), [low, high, high], rtol=1e-6)


def test_rho_below_one_counts_as_one():
  np.testing.assert_array_equal(gq.delta_rho(*at(Z), rho=0.2), np.ones_like(Z))


@every_function
def test_through_the_transformation(scarcity):
  tx = gq.grad_queue(2, scarcity=scarcity)
  update, state = jax.jit(tx.update), tx.init(jnp.zeros(3))
  for g in ([5.0, 5.0, 5.0], [1.0, 0.0, 2.0], [3.0, 0.0, 2.0]):
    result, state = update(jnp.array(g), state)
    np.testing.assert_array_equal(result, g)
  gradient = jnp.array([4.0, 0.0, 1.0])
  result, _ = update(gradient, state)
  weight = scarcity(gradient, jnp.array([2.0, 0.0, 2.0]), jnp.array([1.0, 0.0, 0.0]))
  chex.assert_trees_all_close(result, weight * gradient, rtol=1e-6)


def test_a_function_of_the_user():
  """Any pure function of (g, mean, std) will do; here a hard threshold."""
  tx = gq.grad_queue(2, scarcity=lambda g, mean, std: jnp.where(abs(g - mean) > std, 2.0, 0.0))
  update, state = jax.jit(tx.update), tx.init(jnp.zeros(2))
  for g in (0.0, 1.0, 3.0):
    _, state = update(jnp.full(2, g), state)
  result, _ = update(jnp.array([2.5, 9.0]), state)
  np.testing.assert_array_equal(result, [0.0, 18.0])


@pytest.mark.parametrize("scarcity", BOUNDS)
def test_double_precision_stays_double(scarcity):
  with jax.enable_x64(True):
    one = jnp.ones(2, jnp.float64)
    assert scarcity(2.0 * one, one, one).dtype == jnp.float64
