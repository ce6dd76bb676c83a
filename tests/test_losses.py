# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Weights of mean 1, the weighted mean and adjusted logits, on one device and on several."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import gq_optax as gq
from gq_optax import _losses

cross_entropy = optax.softmax_cross_entropy_with_integer_labels


def bisected(values, mass, bound):
  """The scaled and clipped values by bisection in float64."""
  clipped = lambda s: np.clip(s * np.float64(values), 1.0 / bound, bound)
  low, high = -100.0, 100.0
  for _ in range(200):
    middle = (low + high) / 2.0
    below = np.average(clipped(np.exp(middle)), weights=mass) < 1.0
    low, high = (middle, high) if below else (low, middle)
  return clipped(np.exp(middle))


@pytest.mark.parametrize("few", [0, 1 << 20], ids=["sorted", "compared"])
@pytest.mark.parametrize("spread", [0.1, 3.0, 12.0])
def test_values_are_scaled_as_by_bisection(spread, few, monkeypatch):
  monkeypatch.setattr(_losses, "_FEW", few)
  rng = np.random.default_rng(0)
  values = np.exp(spread * rng.normal(size=300)).astype(np.float32)
  to_mean_one = jax.jit(lambda *args: _losses.to_mean_one(*args))  # traced anew for each way
  for mass in (np.arange(300) < 280, rng.integers(0, 9, 300), np.arange(300) == 7):
    for bound in (1.0, 1.3, 50.0):
      found = to_mean_one(values, np.float32(mass), np.float32(bound))
      there = mass > 0
      np.testing.assert_allclose(found[there], bisected(values, mass, bound)[there], rtol=1e-4)
      assert np.average(found, weights=mass) == pytest.approx(1.0, rel=1e-5)
  for values in ([1e-36, 1e36, 1.0], [1e-20, 1.0, 1.0], [1e36, 1e36, 1e-36]):
    found = to_mean_one(jnp.float32(values), jnp.ones(3), jnp.float32(1e36))
    assert float(found.mean()) == pytest.approx(1.0, rel=1e-5)
  with jax.enable_x64(True):
    assert to_mean_one(found, found, found[0]).dtype == jnp.float32


def test_what_has_no_rarity_weighs_one_and_what_is_masked_nothing():
  odd = [np.nan, np.inf, -np.inf, 0.0, -3.0]
  rarity = jnp.array([*odd, 1.0, 1.0, 4.0, 9.0])
  mask = jnp.arange(9) < 8
  weights = gq.mean_one(rarity, mask)
  np.testing.assert_allclose(weights, [1, 1, 1, 1, 1, 0.5, 0.5, 2.0, 0], rtol=1e-6)
  np.testing.assert_array_equal(gq.mean_one(jnp.array(odd)), 1.0)
  np.testing.assert_array_equal(gq.mean_one(rarity, jnp.zeros(9, bool)), 0.0)
  every_element = gq.mean_one(rarity.reshape(3, 3), mask.reshape(3, 3))
  np.testing.assert_array_equal(every_element.reshape(9), weights)


def test_strength_bounds_and_units():
  rarity = jnp.array([1.0, 1.0, 1.0, 9.0])
  np.testing.assert_allclose(gq.mean_one(rarity, strength=0.5)[3], 2.0, rtol=1e-6)
  np.testing.assert_array_equal(gq.mean_one(rarity, strength=0.0), 1.0)
  held = gq.mean_one(rarity, max_weight=1.5)
  np.testing.assert_allclose(held, [2.5 / 3] * 3 + [1.5], rtol=1e-6)
  for unit in (1e-30, 1e30):
    np.testing.assert_allclose(gq.mean_one(unit * rarity), gq.mean_one(rarity), rtol=1e-6)
  narrow = gq.mean_one(jnp.array([100, 200, 250], jnp.uint8), strength=4.0)
  np.testing.assert_allclose(narrow, gq.mean_one(jnp.array([100.0, 200.0, 250.0]), strength=4.0))
  clamped = jax.jit(lambda s, c: gq.mean_one(rarity, strength=s, max_weight=c))
  np.testing.assert_array_equal(clamped(-1.0, 5.0), 1.0)
  np.testing.assert_array_equal(clamped(jnp.nan, jnp.nan), 1.0)
  gradient = jax.grad(lambda r: jnp.sum(jnp.square(gq.mean_one(r))))(rarity)
  np.testing.assert_array_equal(gradient, 0.0)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_rarity_gives_weights_of_mean_one_within_the_bounds(data):
  number = st.sampled_from([0.0, 1.0, -1.0, 1e-38, 1e-30, 7.0, 3e38, np.nan, np.inf])
  rarity = np.array(data.draw(st.lists(number, min_size=6, max_size=6)), np.float32)
  mask = np.array(data.draw(st.lists(st.booleans(), min_size=6, max_size=6)))
  options = {"strength": data.draw(st.sampled_from([0.5, 1.0, 4.0])), "max_weight": 8.0}
  weights = np.asarray(gq.mean_one(rarity, mask, **options))
  np.testing.assert_array_equal(weights[~mask], 0.0)
  assert ((weights[mask] >= 0.125 * (1 - 1e-6)) & (weights[mask] <= 8.0)).all()
  if mask.any():
    assert weights[mask].mean() == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_masked_loss_that_is_not_finite_leaves_no_trace(bad):
  losses, weights = jnp.array([1.0, 4.0, bad, bad]), jnp.array([0.5, 1.5, 0.0, bad])
  mask = jnp.arange(4) < 2
  both = jax.value_and_grad(gq.weighted_mean, argnums=(0, 1))
  value, (by_loss, by_weight) = both(losses, weights, mask)
  assert value == 3.25
  np.testing.assert_array_equal(by_loss, [0.25, 0.75, 0.0, 0.0])
  np.testing.assert_array_equal(by_weight, [0.5, 2.0, 0.0, 0.0])
  assert gq.weighted_mean(losses, weights, jnp.zeros(4, bool)) == 0.0
  assert not jnp.isfinite(gq.weighted_mean(losses, jnp.zeros(4)))  # without a mask it is loud


def test_elements_have_weights_of_their_own_and_means_are_float32():
  losses = jnp.arange(6.0).reshape(2, 3)
  weights = jnp.array([[0, 1, 2], [3, 0, 0]], jnp.int8)
  mask = jnp.array([[True, True, True], [True, False, True]])
  assert float(gq.weighted_mean(losses, weights, mask)) == pytest.approx((1 + 4 + 9) / 5)
  many = jnp.full(4096, 1.0 + 2.0**-7, jnp.bfloat16)
  mean = gq.weighted_mean(many, jnp.ones(4096))
  assert (mean.dtype, mean) == (jnp.float32, 1.0 + 2.0**-7)


def loss_fn(w, x, y, rarity, mask, axis_name=None):
  losses = jnp.where(mask, cross_entropy(x @ w, y), jnp.nan)
  weights = gq.mean_one(rarity, mask, max_weight=3.0, axis_name=axis_name)
  return gq.weighted_mean(losses, weights, mask, axis_name=axis_name)


draw = np.random.default_rng(0).normal
X, W = draw(size=(16, 3)).astype(np.float32), draw(size=(3, 2)).astype(np.float32)
# 4, 3, 1 and 0 examples; what is masked is not finite.
MASK = np.array([1, 1, 1, 1, 0, 1, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0], bool)
BATCH = X, np.arange(16) % 2, 1.0 + np.arange(16.0, dtype=np.float32) ** 2, MASK


def test_ignored_labels_of_optax():
  labels = np.where(MASK, BATCH[1], [-100, -1] * 8)
  assert jnp.isnan(cross_entropy(X @ W, labels)).any()
  found = jax.value_and_grad(loss_fn)(W, X, labels, BATCH[2], labels >= 0)
  chex.assert_trees_all_close(found, jax.value_and_grad(loss_fn)(W, *BATCH), rtol=1e-6)


def own_step(w, *batch):
  found = jax.value_and_grad(loss_fn)(w, *batch, axis_name="x")
  return found[0], jax.lax.pmean(found[1], "x")


@pytest.mark.several_devices
def test_uneven_parts_on_four_devices_are_as_one_device_with_the_whole_batch():
  """Value and gradient; under vmap, under shard_map, and of it."""
  expected = jax.value_and_grad(loss_fn)(W, *BATCH)
  parts = [part.reshape(4, 4, *part.shape[1:]) for part in BATCH]
  values, slopes = jax.vmap(own_step, (None, *[0] * 4), axis_name="x")(W, *parts)
  ways = [(values[i], slopes[i]) for i in range(4)]
  mesh = jax.make_mesh((4,), ("x",), axis_types=(AxisType.Auto,))
  for check in (True, False):
    specs = {"mesh": mesh, "in_specs": (P(), *[P("x")] * 4), "out_specs": P(), "check_vma": check}
    ways.append(jax.jit(jax.shard_map(own_step, **specs))(W, *BATCH))
  outside = jax.shard_map(functools.partial(loss_fn, axis_name="x"), **specs | {"check_vma": True})
  ways.append(jax.jit(jax.value_and_grad(outside))(W, *BATCH))
  for found in ways:
    chex.assert_trees_all_close(found, expected, rtol=1e-5)
  rarity = BATCH[2]
  mean = lambda r: gq.weighted_mean(r, gq.mean_one(r, axis_name="x"), axis_name="x")
  found = jax.shard_map(mean, mesh=mesh, in_specs=P("x"), out_specs=P())(rarity)
  np.testing.assert_allclose(found, gq.weighted_mean(rarity, gq.mean_one(rarity)))


# Adjusted logits

LOGITS = jnp.asarray(np.random.RandomState(0).normal(size=(8, 5)) * 3.0, jnp.float32)
COUNTS = jnp.array([400, 40, 4, 0, 1])


def test_adjusted_logits_in_training_and_after_it():
  moved = np.asarray(LOGITS) + 1.5 * np.log(np.array([400, 40, 4, 1, 1]) / 446)
  found = gq.adjusted_logits(LOGITS, COUNTS, 1.5)
  np.testing.assert_allclose(found, moved, rtol=1e-5, atol=1e-6)
  back = gq.adjusted_logits(found, COUNTS, -1.5)
  np.testing.assert_allclose(back, LOGITS, rtol=1e-5, atol=1e-5)
  assert gq.adjusted_logits(LOGITS.astype(jnp.bfloat16), COUNTS).dtype == jnp.float32
  chex.assert_trees_all_equal(gq.adjusted_logits(LOGITS, COUNTS, 0.0), LOGITS)
  slopes = jax.grad(lambda z, n: jnp.sum(gq.adjusted_logits(z, n)), (0, 1))(
    LOGITS, COUNTS.astype(jnp.float32)
  )
  chex.assert_trees_all_equal(slopes, (jnp.ones_like(LOGITS), jnp.zeros(5)))
  traced = jax.jit(jax.vmap(gq.adjusted_logits, (0, None, None)))(LOGITS, COUNTS, 1.5)
  chex.assert_trees_all_close(traced, found, rtol=1e-6)
