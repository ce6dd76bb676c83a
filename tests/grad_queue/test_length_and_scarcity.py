# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The effective queue length: how long has the loss been falling? And Delta_rho by itself."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import effective_length

import gq_optax as gq
from gq_optax._grad_queue import adaptive_length


@functools.partial(jax.jit, static_argnums=1)
def window(losses, longest):
  """After losses `[T]`; what is not finite among them is not recorded."""
  push = lambda state, loss: (adaptive_length.push(state, loss), None)
  return jax.lax.scan(push, adaptive_length.init(longest), losses)[0]


def length_after(losses, shortest, longest):
  padded = np.array([np.nan] * (30 - len(losses)) + list(losses), np.float32)
  return adaptive_length.effective_length(window(padded, longest), shortest, longest)


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
  assert length_after(losses, 0, 10) == distance


@pytest.mark.parametrize("bounds", [(1, 2), (2, 5), (4, 4)])
def test_bounds(bounds):
  assert length_after([3, 3, 3], *bounds) == bounds[0]
  assert length_after(range(30, 0, -1), *bounds) == bounds[1]


@pytest.mark.parametrize("longest", range(1, 7))
def test_like_the_twin(longest):
  rng = np.random.default_rng(longest)
  losses = rng.integers(0, 7, (300, 12)).astype(np.float32)
  losses[np.arange(12) < rng.integers(0, 12, (300, 1))] = np.nan  # shorter ones
  length = lambda losses: adaptive_length.effective_length(window(losses, longest), 1, longest)
  for row, found in zip(losses, jax.jit(jax.vmap(length))(losses), strict=True):
    recent = row[np.isfinite(row)][-(longest + 2) :]  # what the window keeps
    assert found == effective_length(recent, 1, longest)


def test_what_is_not_finite_is_not_recorded():
  for odd in ([np.nan, 3, 2, np.nan], [3, np.inf, 2, -np.inf]):
    chex.assert_trees_all_equal(window(np.float32(odd), 3), window(np.float32([3, 2]), 3))


def test_the_length_decides_what_the_statistics_are_of():
  """With the loss falling the window is long; when it stops, short, whatever lies further back."""
  tx = gq.grad_queue((1, 4), track=True)
  update, state = jax.jit(tx.update), tx.init(np.float32(0.0))
  gradients = [8.0, 1.0, 2.0, 1.0, 2.0, 1.0]
  for step, g in enumerate(gradients):
    _, state = update(g, state, value=10.0 - step)
  falling, fell = update(1.5, state, value=1.0)
  rising, rose = update(1.5, state, value=99.0)
  assert [gq.diagnostics(s)["effective_length"] for s in (fell, rose)] == [4, 1]
  history = np.array(gradients[2:])
  z = abs(1.5 - history.mean()) / history.std()
  np.testing.assert_allclose(falling, 1.5 * np.clip(z, 1 / 3, 3), rtol=1e-6)
  np.testing.assert_allclose(rising, 1.5 * 3.0)  # one entry: sigma is 0, and g is not the mean


# Delta_rho, and a function in its place.

Z = np.array([0.0, 0.1, 1 / 3, 1.0, 2.0, 3.0, 3.8], np.float32)
AT_Z = 1.0 + 0.5 * Z, np.ones_like(Z), np.full_like(Z, 0.5)  # arguments whose z-score it is


def test_values_at_hand():
  np.testing.assert_allclose(gq.delta_rho(*AT_Z), np.clip(Z, 1 / 3, 3), rtol=1e-5)
  # Sigma = 0: the lower bound where g repeats the mean, else the upper one.
  g, one, zero = np.float32([1.0, 1.0000001, -5.0]), np.ones(3, np.float32), np.zeros(3, np.float32)
  np.testing.assert_allclose(gq.delta_rho(g, one, zero), [1 / 3, 3, 3], rtol=1e-6)
  # A rho below 1 counts as 1.
  np.testing.assert_array_equal(gq.delta_rho(*AT_Z, rho=0.2), np.ones_like(Z))


def test_bounds_hold_for_any_finite_input():
  sizes = [0.0, 1e-45, 1e-38, 1e-30, 1e-19, 0.1, 1.0, 1.0000001, 3.0, 1e4, 1e19, 1e30, 3.4028235e38]
  signed = [*sizes, *(-s for s in sizes)]
  g, mean, std = np.float32(list(itertools.product(signed, signed, sizes))).T
  weights = gq.delta_rho(g, mean, std)
  assert weights.dtype == jnp.float32
  assert ((weights >= 1 / 3 * (1 - 1e-6)) & (weights <= 3 * (1 + 1e-6))).all()


def test_double_precision_stays_double():
  with jax.enable_x64(True):
    one = np.ones(2)
    assert gq.delta_rho(2.0 * one, one, one).dtype == jnp.float64


def test_a_rho_that_no_int32_holds():
  update, _ = (tx := gq.grad_queue(1, rho=10**10)).update(jnp.ones(3), tx.init(jnp.zeros(3)))
  np.testing.assert_array_equal(update, 1.0)
  weights = gq.delta_rho(np.full(3, 5.0), np.zeros(3), np.ones(3), rho=3 * 10**9)
  np.testing.assert_array_equal(weights, 5.0)
