# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The parts of grad_queue, each by itself: ring, statistics, effective length, Delta_rho."""

import collections
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import effective_length

import gq_optax as gq
from gq_optax._grad_queue import adaptive_length, queue

# The ring against a deque, and its statistics against NumPy in float64.

LENGTH = 4
LARGEST = np.float32(3e38)
push = jax.jit(queue.push)


def statistics(slots, newest, in_window):
  return queue.mean_and_std(queue.statistics(slots, newest, in_window))


mean_and_std = jax.jit(statistics)


def test_empty():
  params = {"a": jnp.ones((2, 3)), "b": jax.ShapeDtypeStruct((5,), jnp.bfloat16)}
  past = queue.init(params, LENGTH, None)
  signature = lambda tree: [f"{x.dtype}{list(x.shape)}" for x in jax.tree.leaves(tree)]
  assert signature(past) == ["float32[4, 2, 3]", "bfloat16[4, 5]", "int32[]", "int32[]"]
  assert not any(leaf.any() for leaf in jax.tree.leaves(past))
  narrow = queue.init(params, LENGTH, jnp.float16)
  assert signature(narrow.slots) == ["float16[4, 2, 3]", "float16[4, 5]"]
  nothing = push(queue.init({}, LENGTH, None), [], np.bool_(True))
  assert (nothing.count, nothing.index) == (1, 0)
  assert queue.window(nothing, jnp.int32(1)).tolist() == [True]


def test_the_newest_entries_are_those_of_a_deque():
  """So are the slots in a window of any length; a refused push changes nothing."""
  past = queue.init({"a": jnp.zeros(2, jnp.bfloat16)}, LENGTH, None)
  seen = collections.deque(maxlen=LENGTH)
  window = jax.jit(queue.window)
  for step in range(11):
    accept = step not in (0, 6)
    past = push(past, [np.float32([step + 1.0, -step])], np.bool_(accept))
    if accept:
      seen.append([step + 1.0, -step])
    accepted = step + 1 - (step >= 0) - (step >= 6)
    assert (past.count, past.index) == (accepted, accepted % LENGTH)
    stored = np.asarray(past.slots["a"], np.float32)
    order = [(accepted - 1 - age) % LENGTH for age in range(LENGTH)]  # newest first
    expected = np.reshape(list(seen)[::-1], (-1, 2))
    np.testing.assert_array_equal(stored[order[: len(seen)]], expected)
    for length in range(1, LENGTH + 1):
      inside = np.flatnonzero(window(past, jnp.int32(length)))
      assert sorted(order[:length]) == inside.tolist()
  most = jnp.int32(jnp.iinfo(jnp.int32).max)  # where the count saturates
  assert push(past._replace(count=most), [np.ones(2, np.float32)], np.bool_(True)).count == most


def columns():
  """Values of every size float32 has, around 0 and around a distant mean, and the extremes."""
  rng = np.random.default_rng(0)
  scales = 2.0 ** np.arange(-95, 121)
  noise = rng.standard_normal((LENGTH, len(scales)))
  one_apart = scales * (rng.random(len(scales)) < 0.5) * np.eye(LENGTH)[2][:, None]
  extremes = LARGEST * np.array([[1, -1, 1, -1], [1, 1, 1, -1], [1, 1, 1, 1], *np.eye(LENGTH)]).T
  parts = [noise * scales, (noise + 8.0) * scales, one_apart, extremes]
  return np.concatenate(parts, axis=1).astype(np.float32)


@pytest.mark.parametrize("inside", [None, [0, 1, 2, 3], [1, 2], [3, 0, 2], [2]])
def test_mean_and_std_of_any_size(inside):
  slots, rows = columns(), inside or list(range(LENGTH))
  mask = None if inside is None else np.isin(np.arange(LENGTH), inside)
  mean, std = mean_and_std(slots, np.int32(rows[-1]), mask)
  exact = slots[rows].astype(np.float64)
  size = np.abs(exact).max(axis=0)
  assert (np.abs(mean - exact.mean(axis=0)) <= 4e-7 * size).all()
  assert (np.abs(std - exact.std(axis=0)) <= 4e-7 * size + 4e-7 * exact.std(axis=0)).all()


def test_small_deviations_from_a_large_mean_and_none():
  """A deviation is as exact as its entries, however far from 0 they lie; 0 is exact."""
  slots = np.float32(2.0**20 + np.array([[0.0], [1.0], [0.0], [3.0]]))
  mean, std = mean_and_std(slots, np.int32(3), None)
  np.testing.assert_allclose(mean - 2.0**20, [1.0], rtol=1e-6)
  np.testing.assert_allclose(std, [1.5**0.5], rtol=1e-6)
  for newest in range(LENGTH):  # whatever lies in the slots outside the window
    slots, outside = np.float32([[0.1, -7.3, 1e-30, 3e38]] * LENGTH), (newest + 1) % LENGTH
    slots[outside] = [5.0, -3e38, 1.0, -1.0]
    mean, std = mean_and_std(slots, np.int32(newest), np.arange(LENGTH) != outside)
    np.testing.assert_array_equal(mean, slots[newest])
    np.testing.assert_array_equal(std, np.zeros(4))


# The effective length: how long has the loss been falling?


@functools.partial(jax.jit, static_argnums=1)
def window(losses, longest):
  """After losses `[T]`; what is not finite among them is not recorded."""
  push = lambda state, loss: (adaptive_length.push(state, loss), None)
  return jax.lax.scan(push, adaptive_length.init(longest), losses)[0]


def test_the_effective_length_by_hand():
  """Five losses hold four sums of two, and so three steps; a sum of two smooths one bump."""
  by_distance = {
    3: [[5, 4, 3, 2, 1]],  # the example of the rule
    2: [[9, 5, 9, 2, 1]],
    1: [[5, 4, 3]],
    0: [[1, 1, 1, 1, 1], [1, 2, 3, 4, 5], [9, 1, 9, 1, 9], [3, 2, 1, 2], [5], [5, 4]],
  }
  for distance, losses in [(d, losses) for d, rows in by_distance.items() for losses in rows]:
    padded = np.float32([np.nan] * (5 - len(losses)) + losses)
    assert adaptive_length.effective_length(window(padded, 10), 0, 10) == distance


@pytest.mark.parametrize("bounds", [(1, 1), (1, 2), (2, 5), (1, 6), (4, 4), (3, 6)])
def test_like_the_twin_within_its_bounds(bounds):
  """What is not finite is not recorded."""
  rng = np.random.default_rng(bounds)
  losses = rng.integers(0, 7, (300, 16)).astype(np.float32)
  losses[:2] = [[3.0] * 16, np.arange(16.0, 0.0, -1.0)]  # that rest, and that fall all the time
  odd = rng.random((300, 16)) < rng.random((300, 1)) * (np.arange(300)[:, None] > 1)
  losses[odd] = rng.choice([np.nan, np.inf, -np.inf], odd.sum())
  length = lambda row: adaptive_length.effective_length(window(row, bounds[1]), *bounds)
  for row, found in zip(losses, jax.jit(jax.vmap(length))(losses), strict=True):
    recent = row[np.isfinite(row)][-(bounds[1] + 2) :]  # what the window keeps
    assert found == effective_length(recent, *bounds)


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
