# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Margins by rarity and adjusted logits: twins, hand cases, properties, transformations."""

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

CE = optax.losses.softmax_cross_entropy_with_integer_labels
LOGITS = jnp.asarray(np.random.RandomState(0).normal(size=(8, 5)) * 3.0, jnp.float32)
LABELS = jnp.arange(8) % 5
RARITY = jnp.array([1.0, 2.0, 4.0, 9.0, 30.0, 100.0, 1e4, 1.5])
BAD = jnp.array([jnp.nan, jnp.inf, -jnp.inf, 0.0, -0.0, -3.0, 1.0, 0.5])


def twin(logits, labels, rarity, strength, max_margin):
  """One example after the other, in float64."""
  losses = []
  for z, y, r in zip(np.float64(logits), np.asarray(labels), np.float64(rarity), strict=True):
    good = np.isfinite(r) and r > 0.0
    t = min(max(r**-strength if good else 1.0, 1.0 / max_margin), 1.0)
    losses.append((np.log(np.sum(np.exp(t * z))) - t * z[y]) / t)
  return losses


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0, 4.0])
@pytest.mark.parametrize("max_margin", [1.0, 20.0, 100.0])
def test_as_the_twin(strength, max_margin):
  for rarity in (RARITY, BAD):
    found = gq.margin_loss(CE, LOGITS, LABELS, rarity, strength=strength, max_margin=max_margin)
    chex.assert_shape(found, (8,))
    expected = twin(LOGITS, LABELS, rarity, strength, max_margin)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
  ("rarity", "strength", "max_margin"),
  [(BAD, 2.0, 100.0), (RARITY, 0.0, 100.0), (RARITY, 1.0, 1.0), (RARITY**-1.0, 1.0, 100.0)],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_margin_of_one_is_the_plain_loss_bit_by_bit(rarity, strength, max_margin, dtype):
  logits = LOGITS.astype(dtype)
  plain = lambda z: CE(z.astype(jnp.float32), LABELS)
  ours = lambda z: gq.margin_loss(CE, z, LABELS, rarity, strength=strength, max_margin=max_margin)
  for wrap in (lambda f: f, jax.jit):
    chex.assert_trees_all_equal(wrap(ours)(logits), wrap(plain)(logits))
    total = lambda f: lambda z: jnp.sum(f(z))
    slopes = [wrap(jax.grad(total(f)))(logits) for f in (ours, plain)]
    chex.assert_trees_all_equal(*slopes)
    assert slopes[0].dtype == dtype


def test_hinge_has_a_margin_of_one_over_t_exactly():
  scores = jnp.linspace(-2.0, 12.0, 8)
  signs = jnp.where(jnp.arange(8) % 3 == 0, -1.0, 1.0)
  rarity = jnp.array([1.0, 4.0, 16.0, 64.0] * 2)  # t is a power of two: nothing is rounded
  found = gq.margin_loss(optax.losses.hinge_loss, scores, signs, rarity, strength=0.5)
  np.testing.assert_array_equal(found, jnp.maximum(0.0, jnp.sqrt(rarity) - scores * signs))


def test_at_zero_logits_the_gradient_is_plain_and_the_loss_is_not():
  zeros = jnp.zeros((1, 10))
  label, rarity = jnp.array([3]), jnp.array([100.0])
  loss = lambda z: gq.margin_loss(CE, z, label, rarity, strength=1.0)[0]
  np.testing.assert_allclose(loss(zeros), 230.26, rtol=1e-4)
  slope = jax.grad(loss)(zeros)
  np.testing.assert_allclose(slope, jax.grad(lambda z: CE(z, label)[0])(zeros), rtol=1e-6)


def test_a_rare_example_that_fits_pulls_on():
  pull = lambda r: jnp.abs(
    jax.grad(lambda z: gq.margin_loss(CE, z, 0, r, strength=1.0))(jnp.array([8.0, 0.0]))
  ).max()
  assert pull(1.0) < 1e-3
  np.testing.assert_allclose(pull(8.0), jax.nn.sigmoid(-1.0), rtol=1e-4)


@settings(max_examples=50, deadline=None)
@given(
  rarity=st.floats(1.0, 1e6, width=32),
  larger=st.floats(1.0, 100.0),
  strength=st.floats(0.0, 4.0),
  seed=st.integers(0, 9),
)
def test_the_loss_grows_with_rarity_within_its_bound(rarity, larger, strength, seed):
  z = jnp.asarray(np.random.RandomState(seed).normal(size=4) * 10.0, jnp.float32)
  loss = lambda r: float(gq.margin_loss(CE, z, seed % 4, r, strength=strength, max_margin=30.0))
  less, more = loss(rarity), loss(rarity * larger)
  assert np.isfinite(more)
  assert more >= less * (1.0 - 1e-5) - 1e-5
  # Between the plain loss and the loss of all logits alike, times the largest margin.
  assert loss(1.0) * (1 - 1e-5) - 1e-5 <= less <= loss(1.0) + 30.0 * np.log(4.0) + 1e-3


def test_element_wise_losses_take_a_rarity_for_each_element_or_each_row():
  loss_fn, targets = optax.losses.sigmoid_binary_cross_entropy, (LOGITS > 1.0).astype(jnp.float32)
  each = jnp.broadcast_to(RARITY[:, None], LOGITS.shape).at[0, 3].set(50.0)
  found = gq.margin_loss(loss_fn, LOGITS, targets, each, strength=0.5)
  t = np.clip(np.float64(each) ** -0.5, 0.01, 1.0)
  z = np.float64(LOGITS) * t
  np.testing.assert_allclose(found, (np.logaddexp(0, z) - targets * z) / t, rtol=1e-4, atol=1e-5)
  rows = gq.margin_loss(loss_fn, LOGITS, targets, RARITY, strength=0.5)
  np.testing.assert_allclose(rows[1:], found[1:], rtol=1e-6)


def test_tokens_have_a_rarity_each():
  logits, labels = LOGITS.reshape(2, 4, 5), LABELS.reshape(2, 4)
  found = gq.margin_loss(CE, logits, labels, RARITY.reshape(2, 4), strength=1.0)
  flat = gq.margin_loss(CE, LOGITS, LABELS, RARITY, strength=1.0)
  chex.assert_trees_all_close(found.reshape(8), flat, rtol=1e-6)


def test_no_gradient_flows_to_rarity_strength_and_bound():
  loss = lambda r, g, m: jnp.sum(gq.margin_loss(CE, LOGITS, LABELS, r, strength=g, max_margin=m))
  slopes = jax.grad(loss, (0, 1, 2))(RARITY, jnp.float32(0.7), jnp.float32(20.0))
  chex.assert_trees_all_equal(slopes, jax.tree.map(jnp.zeros_like, slopes))


def test_traced_options_are_clamped():
  ours = jax.jit(lambda g, m: gq.margin_loss(CE, LOGITS, LABELS, RARITY, strength=g, max_margin=m))
  fixed = lambda g, m: gq.margin_loss(CE, LOGITS, LABELS, RARITY, strength=g, max_margin=m)
  for given_, taken in [
    ((9.0, 50.0), (4.0, 50.0)),
    ((-1.0, 50.0), (0.0, 50.0)),
    ((jnp.nan, 50.0), (0.0, 50.0)),
    ((1.0, 0.0), (1.0, 1.0)),
    ((1.0, jnp.nan), (1.0, 1.0)),
  ]:
    chex.assert_trees_all_close(ours(*map(jnp.float32, given_)), fixed(*taken), rtol=1e-5)


def test_vmap_scan_and_shard_map_are_as_all_at_once():
  ours = lambda z, y, r: gq.margin_loss(CE, z, y, r, strength=0.8)
  expected = ours(LOGITS, LABELS, RARITY)
  close = lambda found: chex.assert_trees_all_close(found.reshape(8), expected, rtol=1e-5)
  close(jax.vmap(ours)(LOGITS, LABELS, RARITY))
  parts = (LOGITS.reshape(4, 2, 5), LABELS.reshape(4, 2), RARITY.reshape(4, 2))
  close(jax.lax.scan(lambda c, part: (c, ours(*part)), None, parts)[1])
  devices = min(4, jax.device_count())
  mesh = jax.make_mesh((devices,), ("b",), (AxisType.Auto,), devices=jax.devices()[:devices])
  spec = {"mesh": mesh, "in_specs": P("b"), "out_specs": P("b")}
  close(jax.jit(jax.shard_map(ours, **spec))(LOGITS, LABELS, RARITY))
  strengths = jax.vmap(lambda g: gq.margin_loss(CE, LOGITS, LABELS, RARITY, strength=g))(
    jnp.array([0.0, 0.8])
  )
  close(strengths[1])


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"rarity": jnp.ones(7)}, r"rarity must have the first axes of logits.*\(7,\) and \(8, 5\)"),
    ({"rarity": jnp.ones((8, 1))}, r"rarity must have the first axes of logits"),
    ({"rarity": jnp.ones((8, 5))}, r"rarity must have the first axes of the result of loss_fn"),
    ({"loss_fn": lambda z, y: jnp.mean(CE(z, y))}, r"the first axes of the result of loss_fn"),
    ({"loss_fn": lambda z, y: y}, r"the result of loss_fn must have a real floating dtype"),
    ({"strength": -0.1}, r"strength must be in \[0\.0, 4\.0\], but -0\.1 was found"),
    ({"strength": jnp.ones(2)}, r"strength must be a scalar"),
    ({"max_margin": 0.5}, r"max_margin must be in \[1\.0, inf\), but 0\.5 was found"),
    ({"logits": jnp.ones((8, 5), int)}, r"logits must have a real floating dtype"),
  ],
)
def test_what_is_wrong_is_named(change, message):
  right = {"loss_fn": CE, "logits": LOGITS, "labels": LABELS, "rarity": RARITY, "strength": 1.0}
  with pytest.raises(ValueError, match=message):
    gq.margin_loss(**(right | change))


# Adjusted logits

COUNTS = jnp.array([400, 40, 4, 0, 1])


def test_adjusted_logits_in_training_and_after_it():
  prior = np.array([400, 40, 4, 1, 1]) / 446
  found = gq.adjusted_logits(LOGITS, COUNTS, 1.5)
  np.testing.assert_allclose(found, np.asarray(LOGITS) + 1.5 * np.log(prior), rtol=1e-5, atol=1e-6)
  back = gq.adjusted_logits(found, COUNTS, -1.5)
  np.testing.assert_allclose(back, LOGITS, rtol=1e-5, atol=1e-5)
  assert gq.adjusted_logits(LOGITS.astype(jnp.bfloat16), COUNTS).dtype == jnp.float32
  chex.assert_trees_all_equal(gq.adjusted_logits(LOGITS, COUNTS, 0.0), LOGITS)


def test_adjusted_logits_of_the_prior_alone_are_balanced():
  prior = jnp.array([0.7, 0.2, 0.1])
  found = jax.nn.softmax(gq.adjusted_logits(jnp.log(prior), prior, -1.0))
  np.testing.assert_allclose(found, 1 / 3, rtol=1e-5)
  np.testing.assert_allclose(
    gq.adjusted_logits(jnp.zeros(3), prior),
    gq.adjusted_logits(jnp.zeros(3), prior * 1000),
    rtol=1e-5,
  )


def test_adjusted_logits_transform():
  slopes = jax.grad(lambda z, n: jnp.sum(gq.adjusted_logits(z, n)), (0, 1))(
    LOGITS, COUNTS.astype(float)
  )
  chex.assert_trees_all_equal(slopes, (jnp.ones_like(LOGITS), jnp.zeros(5)))
  found = jax.jit(jax.vmap(gq.adjusted_logits, (0, None, None)))(LOGITS, COUNTS, jnp.float32(2.0))
  chex.assert_trees_all_close(found, gq.adjusted_logits(LOGITS, COUNTS, 2.0), rtol=1e-6)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"counts": COUNTS[:3]}, r"counts must be \[C\] with the C of logits"),
    ({"counts": COUNTS[None]}, r"counts must be \[C\], one for each class, but shape \(1, 5\)"),
    ({"counts": COUNTS - 3}, r"counts must be finite and at least 0, but -3"),
    ({"strength": float("nan")}, r"strength must be in"),
    ({"logits": jnp.float32(1.0)}, r"counts must be \[C\] with the C of logits"),
  ],
)
def test_what_is_wrong_with_adjusted_logits_is_named(change, message):
  with pytest.raises(ValueError, match=message):
    gq.adjusted_logits(**({"logits": LOGITS, "counts": COUNTS} | change))
