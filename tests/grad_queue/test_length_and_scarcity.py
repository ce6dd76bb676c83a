# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The effective queue length: how long has the loss been falling? And Delta_rho by itself."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import effective_length

import gq_optax as gq
from gq_optax._grad_queue import adaptive_length


def window(losses, longest):
  state = adaptive_length.init(longest)
  for loss in losses:
    state = adaptive_length.push(state, jnp.float32(loss))
  return state


@pytest.mark.parametrize(
  ("losses", "distance"),
  [
    ([5, 4, 3, 2, 1], 3),  # the example of the rule: five losses hold four sums, three steps
    ([1, 1, 1, 1, 1], 0),  # flat
    ([1, 2, 3, 4, 5], 0),  # rising
    ([9, 5, 9, 2, 1], 2),  # one bump is smoothed by the sum of two
    ([9, 1, 9, 1, 9], 0),
    ([3, 2, 1, 2], 0),  # rose at last
    ([5], 0),
    ([5, 4], 0),  # a single sum has nothing to be compared with
    ([5, 4, 3], 1),
  ],
)
def test_by_hand(losses, distance):
  assert adaptive_length.effective_length(window(losses, 10), 0, 10) == distance


@pytest.mark.parametrize("bounds", [(1, 2), (2, 5), (4, 4)])
def test_bounds(bounds):
  assert adaptive_length.effective_length(window([3, 3, 3], bounds[1]), *bounds) == bounds[0]
  assert adaptive_length.effective_length(window(range(30, 0, -1), bounds[1]), *bounds) == bounds[1]


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=12), st.integers(1, 6))
def test_like_the_twin(losses, longest):
  recent = losses[-(longest + 2) :]  # what the window keeps
  expected = effective_length(recent, 1, longest)
  assert adaptive_length.effective_length(window(losses, longest), 1, longest) == expected


def test_what_is_not_finite_is_not_recorded():
  state = window([3, 2], 3)
  for value in (jnp.nan, jnp.inf):
    chex.assert_trees_all_equal(adaptive_length.push(state, jnp.float32(value)), state)


def test_the_length_decides_what_the_statistics_are_of():
  """With the loss falling the window is long; when it stops, short, whatever lies further back."""
  tx = gq.grad_queue((1, 4), track=True)
  update, state = jax.jit(tx.update), tx.init(jnp.zeros([]))
  gradients = [8.0, 1.0, 2.0, 1.0, 2.0, 1.0, 1.5]
  for step, g in enumerate(gradients[:-1]):
    _, state = update(jnp.float32(g), state, value=10.0 - step)
  falling, fell = update(jnp.float32(1.5), state, value=1.0)
  rising, rose = update(jnp.float32(1.5), state, value=99.0)
  assert (gq.diagnostics(fell)["effective_length"], gq.diagnostics(rose)["effective_length"]) == (
    4,
    1,
  )
  history = np.array(gradients[2:6])
  z = abs(1.5 - history.mean()) / history.std()
  np.testing.assert_allclose(falling, 1.5 * np.clip(z, 1 / 3, 3), rtol=1e-6)
  np.testing.assert_allclose(rising, 1.5 * 3.0)  # one entry: sigma is 0, and g is not the mean


def test_group_losses_stand_in_for_value():
  counts = jnp.array([3, 0, 1])
  losses = jnp.array([2.0, jnp.nan, 6.0])
  tx = gq.grad_queue((1, 3))
  state = tx.init(jnp.zeros(2))
  groups = gq.GroupGradients(jnp.ones((3, 2)), counts, losses)
  _, from_groups = tx.update(groups, state)
  _, from_value = tx.update(groups, state, value=3.0)
  chex.assert_trees_all_close(from_groups, from_value)


# Delta_rho, and a function in its place.

largest = float(np.finfo(np.float32).max)
finite = st.floats(-largest, largest, width=32)
Z = np.array([0.0, 0.1, 1 / 3, 1.0, 2.0, 3.0, 3.8], np.float32)


def at(z):
  """Arguments whose z-score is `z`."""
  z = jnp.asarray(z, jnp.float32)
  return 1.0 + 0.5 * z, jnp.ones_like(z), jnp.full_like(z, 0.5)


def test_values_at_hand():
  np.testing.assert_allclose(gq.delta_rho(*at(Z)), np.clip(Z, 1 / 3, 3), rtol=1e-5)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(g=finite, mean=finite, std=st.floats(0, largest, width=32))
def test_bounds_hold_for_any_finite_input(g, mean, std):
  weight = gq.delta_rho(jnp.float32(g), jnp.float32(mean), jnp.float32(std))
  assert weight.dtype == jnp.float32
  assert 1 / 3 * (1 - 1e-6) <= weight <= 3 * (1 + 1e-6)


def test_no_deviation_at_all():
  """Sigma = 0: the lower bound where g repeats the mean, else the upper one."""
  g, std = jnp.array([1.0, 1.0000001, -5.0]), jnp.zeros(3)
  np.testing.assert_allclose(gq.delta_rho(g, jnp.ones(3), std), [1 / 3, 3, 3], rtol=1e-6)


def test_rho_below_one_counts_as_one():
  np.testing.assert_array_equal(gq.delta_rho(*at(Z), rho=0.2), np.ones_like(Z))


def test_a_function_of_the_user():
  """Any pure function of (g, mean, std) will do; here a hard threshold."""
  tx = gq.grad_queue(2, scarcity=lambda g, mean, std: jnp.where(abs(g - mean) > std, 2.0, 0.0))
  update, state = jax.jit(tx.update), tx.init(jnp.zeros(2))
  for g in (0.0, 1.0, 3.0):
    _, state = update(jnp.full(2, g), state)
  result, _ = update(jnp.array([2.5, 9.0]), state)
  np.testing.assert_array_equal(result, [0.0, 18.0])


def test_double_precision_stays_double():
  with jax.enable_x64(True):
    one = jnp.ones(2, jnp.float64)
    assert gq.delta_rho(2.0 * one, one, one).dtype == jnp.float64


def test_a_rho_that_no_int32_holds():
  update, _ = (tx := gq.grad_queue(1, rho=10**10)).update(jnp.ones(3), tx.init(jnp.zeros(3)))
  np.testing.assert_array_equal(update, 1.0)
  weights = gq.delta_rho(jnp.full(3, 5.0), jnp.zeros(3), jnp.ones(3), rho=3 * 10**9)
  np.testing.assert_array_equal(weights, 5.0)
