# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Every row of the table of grad_queue for finite input; what changes nothing; extreme values."""

import functools

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from forms import (
  EMBEDDINGS,
  FORMS,
  LABELS,
  LENGTH,
  PARAMS,
  RHO,
  as_form,
  compiled,
  constant,
  draw,
  full,
  plain_mean,
  play,
)

import gq_optax as gq

close = chex.assert_trees_all_close
every_form = pytest.mark.parametrize("form", FORMS)


def scaled(batch, factor):
  return jax.tree.map(lambda g: g * np.float32(factor), plain_mean(batch))


@pytest.mark.parametrize(
  ("form", "options", "weighs"),
  [(form, {}, LENGTH + 1) for form in FORMS]
  + [("mean", {"queue_length": 1}, 2), *[(form, {"rho": 1.0}, 10) for form in FORMS]],
)
def test_weights_are_one_until_more_than_l_gradients_were_seen_and_where_rho_is(
  form, options, weighs
):
  """And the mean form then leaves the gradient as it is, bit for bit."""
  state = None
  for step in range(weighs):
    (result,), state = play(form, [draw(step)], state=state, **options)
    figures = gq.diagnostics(state)
    assert (figures["mean_weight"], figures["amplified"], figures["damped"]) == (1.0, 0.0, 0.0)
    close(result, plain_mean(draw(step)), rtol=1e-5, atol=1e-6)
    if form == "mean":
      chex.assert_trees_all_equal(result, plain_mean(draw(step)))
  figures = gq.diagnostics(play(form, [draw(weighs)], state=state, **options)[1])
  assert figures["amplified"] + figures["damped"] == (0.0 if "rho" in options else 1.0)
  assert figures["queued"] == weighs + 1


# Sigma 0.

PAIRS = [(0.1, 0.1000001), (0.1, 0.2), (0.1, -0.1), (0.1, 1e20), (5e37, -5e37), (1e-30, -1e-30)]
SAME = [(v, v) for v in (0.1, -7.3, 1e-30, 1e30, 5e37, -5e37, 0.0)]


@every_form
@pytest.mark.parametrize(("value", "other"), SAME + PAIRS)
def test_sigma_zero_weighs_one_over_rho_where_g_is_mu_else_rho(form, value, other):
  results, _ = play(form, [constant(value)] * 4 + [constant(other)])
  close(results[-1], scaled(constant(other), 1 / RHO if value == other else RHO), rtol=1e-6)


@pytest.mark.parametrize("form", ["per_example", "group"])
def test_sigma_zero_weighs_every_group_by_itself(form):
  twice = lambda g: g * (1.0 + LABELS).reshape(-1, *[1] * (g.ndim - 1)).astype(np.float32)
  results, _ = play(form, [constant(1.0)] * 4 + [jax.tree.map(twice, constant(1.0))])
  close(results[-1], full(4 / 6 * (1 / RHO) * 1.0 + 2 / 6 * RHO * 2.0), rtol=1e-6)


# queue_dtype narrower than the gradient.


@pytest.mark.parametrize(
  ("form", "storage"),
  [("mean", "bfloat16"), ("group", "bfloat16"), ("mean", "float8_e5m2"), ("mean", "float8_e4m3fn")]
  + [(form, "float16") for form in FORMS],
)
def test_narrow_queue_dtype_takes_what_rounds_alike_as_equal(form, storage):
  """A constant gradient stays at one over rho: of g, not of g rounded."""
  results, state = play(form, [constant(0.1)] * 5, queue_dtype=storage)
  close(results[-1], scaled(constant(0.1), 1 / RHO), rtol=1e-6)
  assert {leaf.dtype.name for leaf in jax.tree.leaves(state.queue.slots)} == {storage}
  (result,), state = play(form, [constant(0.100001)], state=state, queue_dtype=storage)
  close(result, scaled(constant(0.100001), 1 / RHO), rtol=1e-6)
  assert state.queue.count == 6


# rho = 1: the same as without grad_queue.


@pytest.mark.standard_promotion
@pytest.mark.parametrize(
  ("dtype", "optimizer", "options"),
  [
    ("float32", optax.sgd(0.1, momentum=0.9), {}),
    ("float32", optax.adam(0.1), {"queue_dtype": "bfloat16"}),
    ("bfloat16", optax.adam(0.1), {}),
    ("float16", optax.sgd(0.1, momentum=0.9), {}),
  ],
)
def test_rho_one_is_the_chain_without_grad_queue_bit_for_bit(dtype, optimizer, options):
  final = []
  for tx in (optimizer, optax.chain(gq.grad_queue(LENGTH, 1.0, **options), optimizer)):
    params = optax.tree.cast(PARAMS, dtype)
    state, update = tx.init(params), jax.jit(tx.update)
    for seed in range(10):
      gradient = optax.tree.cast(plain_mean(draw(seed)), dtype)
      updates, state = update(gradient, state, params)
      params = optax.apply_updates(params, updates)
    final.append(params)
  chex.assert_trees_all_equal(*final)
  assert any(jax.tree.leaves(jax.tree.map(jnp.any, final[0])))


@every_form
def test_the_update_has_the_dtype_of_the_gradient_not_of_the_parameter(form):
  state, update = compiled()
  gradient, kwargs = as_form(form, optax.tree.cast(draw(0), jnp.bfloat16))
  result, after = jax.eval_shape(update, gradient, state, **kwargs)
  assert [leaf.dtype for leaf in jax.tree.leaves(result)] == [jnp.bfloat16] * 2
  chex.assert_trees_all_equal_shapes_and_dtypes(after, state)


# update_norm, and options that are traced.


@pytest.mark.parametrize("cap", ["match", 2.0])
def test_update_norm_of_a_zero_update_is_harmless(cap):
  tx = gq.grad_queue(LENGTH, scarcity=lambda g, m, s: jnp.zeros_like(g), update_norm=cap)
  state = tx.init(PARAMS)
  for seed in range(5):
    result, state = tx.update(plain_mean(draw(seed)), state)
  chex.assert_trees_all_equal(result, PARAMS)
  chex.assert_tree_all_finite(state)


@pytest.mark.parametrize(
  ("name", "given", "taken"),
  [("rho", 3.0, 3.0), ("rho", -7.0, 1.0), ("rho", np.nan, 1.0)]
  + [("update_norm", 0.5, 0.5), ("update_norm", 1e3, None), ("update_norm", -1.0, 0.0)],
)
def test_traced_hyperparameters_are_clamped(name, given, taken):
  """That of rho also in ../test_optax.py."""

  @jax.jit
  def last(option, batches):
    tx = gq.grad_queue(LENGTH, **{name: option})
    step = lambda state, groups: tx.update(groups, state)[::-1]
    return jax.tree.map(lambda u: u[-1], jax.lax.scan(step, tx.init(PARAMS), batches)[1])

  batches = [draw(seed) for seed in range(6)]
  groups = jax.tree.map(lambda *g: np.stack(g), *[as_form("group", b)[0] for b in batches])
  options = {} if taken in (None, 3.0) else {name: taken}  # a cap that is never met is none
  expected = PARAMS if taken == 0.0 else play("group", batches, **options)[0][-1]
  close(last(given, groups), expected, rtol=1e-5)


# Invariances.

few = functools.partial(hypothesis.settings, max_examples=10, deadline=None, derandomize=True)
seeds = st.integers(0, 10**6)


@few()
@hypothesis.given(seed=seeds)
@pytest.mark.parametrize("given", [True, False])
def test_permuting_the_examples_leaves_the_update(given, seed):
  order = np.random.RandomState(seed).permutation(6)
  state, update = compiled()
  permuted_state = state
  # Two directions: the sketches of the gradients fall into the same groups as the embeddings.
  sizes = np.where(LABELS == 0, 1.0, -1.0) * np.arange(1.0, 7.0)
  along = lambda g: (g[:1] * sizes.reshape(-1, *[1] * (g.ndim - 1))).astype(np.float32)
  for step in range(6):
    batch = jax.tree.map(along, draw(seed + step))
    kwargs = {"embeddings": EMBEDDINGS} if given else {}
    expected, state = update(batch, state, **kwargs)
    batch, kwargs = jax.tree.map(lambda g: g[order], (batch, kwargs))
    result, permuted_state = update(batch, permuted_state, **kwargs)
    close(result, expected, rtol=1e-3, atol=1e-5)
    assert sorted(permuted_state.figures.group_counts.tolist()) == [2, 4]


@few()
@hypothesis.given(seed=seeds)
def test_permuting_the_groups_leaves_the_update(seed):
  state, update = compiled()
  permuted_state = state
  for step in range(6):
    groups, _ = as_form("group", draw(seed + step))
    expected, state = update(groups, state)
    flipped = jax.tree.map(lambda g: g[::-1].copy(), groups)
    result, permuted_state = update(flipped, permuted_state)
    close(result, expected, rtol=1e-4, atol=1e-5)


FREE_AND_MATCHED = [(form, {}) for form in [*FORMS, "per_example_alone"]]
FREE_AND_MATCHED += [(form, {"update_norm": "match"}) for form in ("mean", "group")]


@few()
@hypothesis.given(seed=seeds, exponent=st.integers(-90, 90))
@pytest.mark.parametrize(("form", "options"), [*FREE_AND_MATCHED, ("mean", {"update_norm": 0.5})])
def test_scaling_the_gradients_by_a_power_of_two_scales_the_update(form, options, seed, exponent):
  batches = [draw(seed + step) for step in range(6)]
  scale = lambda tree, power: jax.tree.map(lambda g: g * np.float32(2.0**power), tree)
  expected, _ = play(form, batches, **options)
  results, _ = play(form, scale(batches, exponent), **options)
  close(scale(results, -exponent), expected, rtol=1e-4, atol=1e-5)


# Of six at most 5e37 neither the sum overflows nor three times the mean.
extremes = st.sampled_from(
  [0.0, 1.0, -1.0, 1e-38, -1e-38, 1e-45, 1e-30, 1e-19, -1e19, 1e30, 5e37, -5e37, 0.1, 1e4]
)


@few(max_examples=12)
@hypothesis.given(st.lists(st.lists(extremes, min_size=6, max_size=6), min_size=6, max_size=8))
@pytest.mark.parametrize(("form", "options"), FREE_AND_MATCHED)
def test_extreme_values_give_finite_bounded_updates(form, options, steps):
  state = None
  for step in steps:
    column = np.array(step, np.float32)
    columns = [column, column[::-1], *[np.roll(column, k) for k in range(4)]]
    batch = {"w": np.stack(columns, 1).reshape(6, 3, 2), "b": np.stack([column, -column], axis=1)}
    (result,), state = play(form, [batch], state=state, **options)
    chex.assert_tree_all_finite((result, state))
    for name, update in result.items() if not options else ():
      bound = 1.01 * RHO * np.abs(batch[name]).max(axis=0) + 1e-37
      assert (np.abs(np.float64(update)) <= bound).all()
  assert state.queue.count == len(steps)
