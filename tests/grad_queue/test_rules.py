# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Every row of the table of grad_queue for finite input, for all three forms of an update."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from forms import (
  BATCHED,
  FORMS,
  LABELS,
  LENGTH,
  PARAMS,
  RHO,
  as_form,
  compiled,
  constant,
  draw,
  oracle,
  plain_mean,
  play,
)

import gq_optax as gq

# At most L gradients seen: every weight is exactly 1.


@pytest.mark.parametrize(
  ("form", "length"), [("mean", 1), ("mean", 3), ("per_example", 3), ("group", 3)]
)
def test_at_most_l_gradients_seen_weights_are_exactly_one(form, length):
  batches = [draw(seed) for seed in range(length + 2)]
  for seen in range(length + 1):
    results, state = play(form, batches[: seen + 1], queue_length=length, track=True)
    figures = gq.diagnostics(state)
    assert (figures["mean_weight"], figures["amplified"], figures["damped"]) == (1.0, 0.0, 0.0)
    chex.assert_trees_all_close(results[-1], plain_mean(batches[seen]), rtol=1e-5, atol=1e-6)
    if form == "mean":
      chex.assert_trees_all_equal(results[-1], plain_mean(batches[seen]))
  results, state = play(form, batches, queue_length=length, track=True)
  figures = gq.diagnostics(state)
  assert figures["amplified"] + figures["damped"] == 1.0
  expected = oracle(form, batches[1:-1], batches[-1])
  chex.assert_trees_all_close(results[-1], optax.tree.cast(expected, jnp.float32), rtol=2e-4)


# Sigma 0.


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("value", [0.1, -7.3, 1e-30, 1e30, 5e37, -5e37, 0.0])
def test_sigma_zero_and_g_equal_to_mu_weighs_one_over_rho(form, value):
  batches = [constant(value)] * 5
  results, _ = play(form, batches)
  expected = jax.tree.map(lambda g: g * np.float32(1 / RHO), plain_mean(batches[0]))
  chex.assert_trees_all_close(results[-1], expected, rtol=1e-6)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
  ("value", "other"),
  [(0.1, 0.1000001), (0.1, 0.2), (0.1, -0.1), (0.1, 1e20), (5e37, -5e37), (1e-30, -1e-30)],
)
def test_sigma_zero_and_g_unequal_to_mu_weighs_rho(form, value, other):
  results, _ = play(form, [constant(value)] * 4 + [constant(other)])
  expected = jax.tree.map(lambda g: g * np.float32(RHO), plain_mean(constant(other)))
  chex.assert_trees_all_close(results[-1], expected, rtol=1e-6)


@pytest.mark.parametrize("form", BATCHED)
def test_sigma_zero_weighs_every_group_by_itself(form):
  last = jax.tree.map(
    lambda g: g * np.where(LABELS == 0, 1, 2).reshape(-1, *[1] * (g.ndim - 1)), constant(1.0)
  )
  results, _ = play(form, [constant(1.0)] * 4 + [optax.tree.cast(last, np.float32)])
  expected = 4 / 6 * (1 / RHO) * 1.0 + 2 / 6 * RHO * 2.0
  chex.assert_trees_all_close(
    results[-1], jax.tree.map(lambda p: jnp.full_like(p, expected), PARAMS), rtol=1e-6
  )


# queue_dtype narrower than the gradient.


@pytest.mark.parametrize(
  ("form", "storage"),
  [(form, "float16") for form in FORMS]
  + [("mean", "bfloat16"), ("group", "bfloat16")]
  + [("mean", "float8_e5m2"), ("mean", "float8_e4m3fn")],
)
def test_narrow_queue_dtype_keeps_a_constant_gradient_at_one_over_rho(form, storage):
  results, state = play(form, [constant(0.1)] * 5, queue_dtype=storage)
  expected = jax.tree.map(lambda g: g * np.float32(1 / RHO), plain_mean(constant(0.1)))
  chex.assert_trees_all_close(results[-1], expected, rtol=1e-6)  # of g, not of g rounded
  assert {leaf.dtype.name for leaf in jax.tree.leaves(state.queue.slots)} == {storage}
  assert state.queue.count == 5


@pytest.mark.parametrize("form", ["mean", "group"])
def test_narrow_queue_dtype_takes_values_that_round_alike_as_equal(form):
  results, _ = play(form, [constant(1.0)] * 4 + [constant(1.001)], queue_dtype="bfloat16")
  expected = jax.tree.map(lambda g: g * np.float32(1 / RHO), plain_mean(constant(1.001)))
  chex.assert_trees_all_close(results[-1], expected, rtol=1e-6)


# rho = 1: the same as without grad_queue.


@pytest.mark.standard_promotion
@pytest.mark.parametrize(
  "optimizer", [lambda: optax.sgd(0.1, momentum=0.9), lambda: optax.adam(0.1)]
)
@pytest.mark.parametrize(
  ("dtype", "options"),
  [("float32", {}), ("bfloat16", {}), ("float16", {}), ("float32", {"queue_dtype": "bfloat16"})],
)
def test_rho_one_is_the_chain_without_grad_queue_bit_for_bit(optimizer, dtype, options):
  final = []
  for tx in (optimizer(), optax.chain(gq.grad_queue(LENGTH, 1.0, **options), optimizer())):
    params = optax.tree.cast(PARAMS, dtype)
    state, update = tx.init(params), jax.jit(tx.update)
    for seed in range(10):
      gradient = optax.tree.cast(plain_mean(draw(seed)), dtype)
      updates, state = update(gradient, state, params)
      params = optax.apply_updates(params, updates)
    final.append(params)
  chex.assert_trees_all_equal(*final)
  assert any(jax.tree.leaves(jax.tree.map(jnp.any, final[0])))


@pytest.mark.parametrize("form", FORMS)
def test_rho_one_gives_the_plain_mean(form):
  batches = [draw(seed) for seed in range(10)]
  results, state = play(form, batches, rho=1.0)
  for result, batch in zip(results, batches, strict=True):
    chex.assert_trees_all_close(result, plain_mean(batch), rtol=1e-5, atol=1e-6)
    if form == "mean":
      chex.assert_trees_all_equal(result, plain_mean(batch))
  assert state.queue.count == 10


@pytest.mark.parametrize(
  ("form", "dtype"),
  [(form, "bfloat16") for form in FORMS] + [("mean", "float16"), ("group", "float16")],
)
def test_low_precision_parameters_have_float32_statistics_and_their_own_dtype(form, dtype):
  batches = [optax.tree.cast(draw(seed), dtype) for seed in range(6)]
  results, state = play(form, batches, dtype=dtype, scarcity=float32_only)
  chex.assert_type(jax.tree.leaves((results, state.queue.slots)), dtype)
  exact = [jax.tree.map(np.asarray, optax.tree.cast(b, jnp.float32)) for b in batches]
  if form == "mean":  # what is compared is the mean in the gradient's dtype
    exact = [
      jax.tree.map(
        lambda g: np.broadcast_to(g, (6, *g.shape)), optax.tree.cast(plain_mean(b), np.float32)
      )
      for b in batches
    ]
  # Rounded means in the queue: not more than a few roundings away from float64.
  expected = oracle(form, exact[2:5], exact[5])
  tolerance = 16 * float(jnp.finfo(dtype).eps)
  chex.assert_trees_all_close(
    optax.tree.cast(results[-1], np.float32),
    optax.tree.cast(expected, np.float32),
    rtol=tolerance,
    atol=tolerance,
  )


def float32_only(g, mean, std):
  chex.assert_type([g, mean, std], jnp.float32)
  return gq.delta_rho(g, mean, std)


@pytest.mark.parametrize("form", FORMS)
def test_the_update_has_the_dtype_of_the_gradient_not_of_the_parameter(form):
  state, update = compiled()
  gradient, kwargs = as_form(form, optax.tree.cast(draw(0), jnp.bfloat16))
  result, after = jax.eval_shape(update, gradient, state, **kwargs)
  assert [leaf.dtype for leaf in jax.tree.leaves(result)] == [jnp.bfloat16] * 2
  assert jax.tree.map(lambda leaf: leaf.dtype, after) == jax.tree.map(
    lambda leaf: leaf.dtype, state
  )


# update_norm.


def norm(tree):
  return np.sqrt(sum(np.sum(np.float64(leaf) ** 2) for leaf in jax.tree.leaves(tree)))


@pytest.mark.parametrize(
  ("form", "cap"),
  [(form, cap) for form in ("mean", "group") for cap in ("match", 0.5, 1.7)]
  + [("per_example", "match")],
)
@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_update_norm_holds(form, cap, scale):
  batches = [draw(seed, scale=scale) for seed in range(8)]
  free, _ = play(form, batches)
  bound, _ = play(form, batches, update_norm=cap)
  for step, (unbound, result, batch) in enumerate(zip(free, bound, batches, strict=True)):
    ratio = norm(unbound) / norm(plain_mean(batch))
    wanted = 1.0 if cap == "match" else min(ratio, cap)
    if form == "mean" and step <= LENGTH:
      wanted = 1.0  # one group, at most L gradients seen: the raw gradient, whatever the cap
    np.testing.assert_allclose(norm(result) / norm(plain_mean(batch)), wanted, rtol=1e-5)
    # The direction stays.
    factor = np.float32(wanted / ratio)
    scaled = jax.tree.map(lambda u, f=factor: u * f, unbound)
    chex.assert_trees_all_close(result, scaled, rtol=1e-4)


@pytest.mark.parametrize("cap", ["match", 2.0])
def test_update_norm_of_a_zero_update_is_harmless(cap):
  nothing = lambda g, mean, std: jnp.zeros_like(g)
  results, state = play("mean", [draw(s) for s in range(5)], scarcity=nothing, update_norm=cap)
  chex.assert_trees_all_equal(results[-1], PARAMS)
  chex.assert_tree_all_finite(state)


# Traced hyperparameters are clamped into their range; that of rho also in ../test_optax.py.


@jax.jit
def traced(options, batches):
  """The last update on group gradients."""
  tx = gq.grad_queue(LENGTH, **options)
  step = lambda state, groups: tx.update(groups, state)[::-1]
  return jax.tree.map(lambda u: u[-1], jax.lax.scan(step, tx.init(PARAMS), batches)[1])


@pytest.mark.parametrize(
  ("name", "given", "taken"),
  [("rho", 3.0, 3.0), ("rho", -7.0, 1.0), ("rho", np.nan, 1.0)]
  + [("update_norm", 0.5, 0.5), ("update_norm", 1e3, 1e3), ("update_norm", -1.0, None)],
)
def test_traced_hyperparameters_are_clamped(name, given, taken):
  batches = [draw(seed) for seed in range(6)]
  groups = jax.tree.map(lambda *g: np.stack(g), *[as_form("group", b)[0] for b in batches])
  result = traced({name: jnp.float32(given)}, groups)
  expected = [PARAMS] if taken is None else play("group", batches, **{name: taken})[0]
  chex.assert_trees_all_close(result, expected[-1], rtol=1e-5)
