# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Margins by rarity and adjusted logits: twins, hand cases, properties."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gq_optax as gq

CE = optax.losses.softmax_cross_entropy_with_integer_labels
LOGITS = jnp.asarray(np.random.RandomState(0).normal(size=(8, 5)) * 3.0, jnp.float32)
LABELS = jnp.arange(8) % 5
RARITY = jnp.array([1.0, 2.0, 4.0, 9.0, 30.0, 100.0, 1e4, 1.5])
BAD = jnp.array([jnp.nan, jnp.inf, -jnp.inf, 0.0, -0.0, -3.0, 1.0, 0.5])


def ours(strength, max_margin=100.0, rarity=RARITY):
  return gq.margin_loss(CE, LOGITS, LABELS, rarity, strength=strength, max_margin=max_margin)


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
    found = ours(strength, max_margin, rarity)
    expected = twin(LOGITS, LABELS, rarity, strength, max_margin)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_margin_of_one_is_the_plain_loss_bit_by_bit(dtype):
  def both(loss):
    value_and_pull = lambda z: jax.vjp(lambda z: jnp.sum(loss(z)), z)
    found = lambda z: (loss(z), value_and_pull(z)[1](jnp.float32(1.0))[0])
    logits = LOGITS.astype(dtype)
    return found(logits), jax.jit(found)(logits)

  plain = both(lambda z: CE(z.astype(jnp.float32), LABELS))
  cases = [(BAD, 2.0, 100.0), (RARITY, 0.0, 100.0), (RARITY, 1.0, 1.0), (1 / RARITY, 1.0, 100.0)]
  for rarity, strength, bound in cases:
    options = {"strength": strength, "max_margin": bound}
    found = both(lambda z, r=rarity, o=options: gq.margin_loss(CE, z, LABELS, r, **o))
    chex.assert_trees_all_equal(found, plain)
    assert found[0][1].dtype == dtype


def test_hinge_has_a_margin_of_one_over_t_exactly():
  scores = np.linspace(-2.0, 12.0, 8, dtype=np.float32)
  signs = np.where(np.arange(8) % 3 == 0, -1.0, 1.0).astype(np.float32)
  rarity = np.float32([1.0, 4.0, 16.0, 64.0] * 2)  # t is a power of two: nothing is rounded
  found = gq.margin_loss(optax.losses.hinge_loss, scores, signs, rarity, strength=0.5)
  np.testing.assert_array_equal(found, np.maximum(0.0, np.sqrt(rarity) - scores * signs))


def test_what_a_rare_example_pulls():
  loss = lambda z, r: gq.margin_loss(CE, z, 0, r, strength=1.0)
  pull = jax.value_and_grad(loss)
  value, slope = pull(jnp.zeros(10), 100.0)  # at zero logits the gradient is plain
  np.testing.assert_allclose(value, 230.26, rtol=1e-4)
  np.testing.assert_allclose(slope, jax.grad(CE)(jnp.zeros(10), 0), rtol=1e-6)
  fits = jnp.array([8.0, 0.0])  # there the rare one pulls on
  assert jnp.abs(pull(fits, 1.0)[1]).max() < 1e-3
  np.testing.assert_allclose(jnp.abs(pull(fits, 8.0)[1]).max(), jax.nn.sigmoid(-1.0), rtol=1e-4)


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0, 4.0])
def test_the_loss_grows_with_rarity_within_its_bound(strength):
  z = np.repeat(np.random.RandomState(1).normal(size=(9, 1, 4)) * 10.0, 200, 1).astype(np.float32)
  labels = np.broadcast_to(np.arange(9)[:, None] % 4, (9, 200))
  rarity = np.broadcast_to(np.geomspace(1.0, 1e8, 200), (9, 200)).astype(np.float32)
  loss = np.asarray(gq.margin_loss(CE, z, labels, rarity, strength=strength, max_margin=30.0))
  assert np.isfinite(loss).all()
  assert (np.diff(loss) >= -1e-5 * loss[:, 1:] - 1e-5).all()
  # Between the plain loss and the loss of all logits alike, times the largest margin.
  assert (loss <= loss[:, :1] + 30.0 * np.log(4.0) + 1e-3).all()


def test_element_wise_losses_and_tokens_take_a_rarity_for_each_element_or_each_row():
  loss_fn, targets = optax.losses.sigmoid_binary_cross_entropy, (LOGITS > 1.0).astype(jnp.float32)
  each = jnp.broadcast_to(RARITY[:, None], LOGITS.shape).at[0, 3].set(50.0)
  found = gq.margin_loss(loss_fn, LOGITS, targets, each, strength=0.5)
  t = np.clip(np.float64(each) ** -0.5, 0.01, 1.0)
  z = np.float64(LOGITS) * t
  np.testing.assert_allclose(found, (np.logaddexp(0, z) - targets * z) / t, rtol=1e-4, atol=1e-5)
  rows = gq.margin_loss(loss_fn, LOGITS, targets, RARITY, strength=0.5)
  np.testing.assert_allclose(rows[1:], found[1:], rtol=1e-6)
  tokens = (x.reshape(2, 4, *x.shape[1:]) for x in (LOGITS, LABELS, RARITY))
  found = gq.margin_loss(CE, *tokens, strength=1.0)
  chex.assert_trees_all_close(found.reshape(8), ours(1.0), rtol=1e-6)


def test_no_gradient_flows_to_options_and_traced_ones_are_clamped():
  slopes = jax.grad(lambda *args: jnp.sum(ours(*args)), (0, 1, 2))(0.7, 20.0, RARITY)
  chex.assert_trees_all_equal(slopes, jax.tree.map(jnp.zeros_like, slopes))
  traced = jax.jit(ours)
  for given, taken in [
    ((9.0, 50.0), (4.0, 50.0)),
    ((-1.0, 50.0), (0.0, 50.0)),
    ((np.nan, 50.0), (0.0, 50.0)),
    ((1.0, 0.0), (1.0, 1.0)),
    ((1.0, np.nan), (1.0, 1.0)),
  ]:
    chex.assert_trees_all_close(traced(*given), ours(*taken), rtol=1e-5)


# Adjusted logits

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


def test_adjusted_logits_of_the_prior_alone_are_balanced():
  prior = jnp.array([0.7, 0.2, 0.1])
  found = jax.nn.softmax(gq.adjusted_logits(jnp.log(prior), prior, -1.0))
  np.testing.assert_allclose(found, 1 / 3, rtol=1e-5)
  shares, counts = (gq.adjusted_logits(jnp.zeros(3), prior * unit) for unit in (1.0, 1000.0))
  np.testing.assert_allclose(shares, counts, rtol=1e-5)
