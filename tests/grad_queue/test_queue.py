# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The ring against a deque, and its statistics against NumPy in float64."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gq_optax._grad_queue import queue

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


def test_dtypes():
  for stored in (jnp.float16, jnp.bfloat16, jnp.float32):
    kinds = jax.eval_shape(statistics, jnp.ones((2, 3), stored), jnp.int32(1), None)
    assert [k.dtype for k in kinds] == [jnp.float32] * 2
  with jax.enable_x64(True):
    mean, std = mean_and_std(np.array([[1.0], [1.0 + 1e-12]]), np.int32(1), None)
    assert mean.dtype == std.dtype == jnp.float64
    np.testing.assert_allclose(std, [5e-13], rtol=1e-3)
