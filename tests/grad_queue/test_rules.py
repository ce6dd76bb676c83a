# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Every row of the table of grad_queue, for a batch in each of its three forms.

Finite and extreme values; nothing that is not finite enters the queue; empty groups leak nothing.
"""

import functools

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gq_optax as gq

FORMS = ["mean", "per_example", "group"]
LENGTH, RHO = 3, 3.0
LABELS = np.array([0, 0, 0, 0, 1, 1])
EMBEDDINGS = np.eye(2, dtype=np.float32)[LABELS]
PARAMS = {"w": jnp.zeros((3, 2)), "b": jnp.zeros(2)}
close = chex.assert_trees_all_close
every_form = pytest.mark.parametrize("form", FORMS)


def draw(seed):
  """Per-example gradients of six examples."""
  rng = np.random.RandomState(seed)
  return {"w": np.float32(rng.randn(6, 3, 2)), "b": np.float32(rng.randn(6, 2))}


def constant(value):
  return {"w": np.full((6, 3, 2), value, np.float32), "b": np.full((6, 2), value, np.float32)}


def plain_mean(per_example):
  with np.errstate(invalid="ignore", over="ignore"):  # Inf - Inf is wanted in some tests
    return jax.tree.map(lambda g: g.astype(np.float64).mean(axis=0).astype(g.dtype), per_example)


def as_form(form, per_example):
  """The same batch as positional and keyword arguments of `update`."""
  if form == "mean":
    return plain_mean(per_example), {}
  if form == "per_example":
    return per_example, {"embeddings": EMBEDDINGS}
  if form == "per_example_alone":
    return per_example, {}
  halves = [jax.tree.map(lambda g, k=k: g[k == LABELS], per_example) for k in range(2)]
  means = [plain_mean(half) for half in halves]
  return gq.GroupGradients(jax.tree.map(lambda *g: np.stack(g), *means), np.array([4, 2])), {}


@functools.cache
def compiled(**options):
  """An initial state and the jitted update of a `grad_queue` with figures, and two groups."""
  options = {"queue_length": LENGTH, "rho": RHO, "num_clusters": 2, "track": True} | options
  tx = gq.grad_queue(**options)
  return tx.init(PARAMS), jax.jit(tx.update)


def play(form, batches, state=None, values=None, **options):
  """All updates, and the last state."""
  start, update = compiled(**options)
  if form == "per_example" and options:
    update = update.__wrapped__  # K-means alone is compiled, and that once
  state, results = start if state is None else state, []
  for i, batch in enumerate(batches):
    gradient, kwargs = as_form(form, batch)
    if values is not None:
      kwargs["value"] = values[i]
    result, state = update(gradient, state, **kwargs)
    results.append(result)
  return results, state


# Finite input.


def scaled(batch, factor):
  return jax.tree.map(lambda g: g * np.float32(factor), plain_mean(batch))


@pytest.mark.parametrize(
  ("form", "dtype", "options", "weighs"),
  [(form, "float32", {}, LENGTH + 1) for form in FORMS]
  + [(form, "bfloat16", {"rho": 1.0}, 10) for form in FORMS]
  + [("mean", "float32", {"rho": 1.0}, 10), ("mean", "float32", {"queue_length": 1}, 2)]
  + [("mean", "float32", {"rho": 1.0, "queue_dtype": "bfloat16"}, 10)],
)
def test_weights_are_one_until_more_than_l_gradients_were_seen_and_where_rho_is(
  form, dtype, options, weighs
):
  """The mean form then leaves the gradient as it is, bit for bit; all have the gradient's dtype."""
  state, eps = None, 4 * float(jnp.finfo(dtype).eps)
  for step in range(weighs):
    batch = optax.tree.cast(draw(step), dtype)
    (result,), state = play(form, [batch], state=state, **options)
    figures = gq.diagnostics(state)
    assert (figures["mean_weight"], figures["amplified"], figures["damped"]) == (1.0, 0.0, 0.0)
    chex.assert_trees_all_equal_dtypes(result, batch)
    close(result, plain_mean(batch), rtol=eps, atol=eps)
    if form == "mean":
      chex.assert_trees_all_equal(result, plain_mean(batch))
  figures = gq.diagnostics(play(form, [draw(weighs)], state=state, **options)[1])
  assert figures["amplified"] + figures["damped"] == (0.0 if "rho" in options else 1.0)
  assert figures["queued"] == weighs + 1


PAIRS = [(0.1, 0.1000001), (0.1, 0.2), (0.1, -0.1), (0.1, 1e20), (5e37, -5e37), (1e-30, -1e-30)]
SAME = [(v, v) for v in (0.1, -7.3, 1e-30, 1e30, 5e37, -5e37, 0.0)]


@every_form
@pytest.mark.parametrize(("value", "other"), SAME + PAIRS)
def test_sigma_zero_weighs_one_over_rho_where_g_is_mu_else_rho(form, value, other):
  results, _ = play(form, [constant(value)] * 4 + [constant(other)])
  close(results[-1], scaled(constant(other), 1 / RHO if value == other else RHO), rtol=1e-6)


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


@pytest.mark.parametrize("cap", ["match", 2.0])
def test_update_norm_of_a_zero_update_is_harmless(cap):
  tx = gq.grad_queue(LENGTH, scarcity=lambda g, m, s: jnp.zeros_like(g), update_norm=cap)
  state = tx.init(PARAMS)
  for seed in range(5):
    result, state = tx.update(plain_mean(draw(seed)), state)
  chex.assert_trees_all_equal(result, PARAMS)
  chex.assert_tree_all_finite(state)


@pytest.mark.parametrize(
  ("name", "cases"),
  [
    ("rho", [(3.0, 3.0), (-7.0, 1.0), (np.nan, 1.0)]),
    ("update_norm", [(0.5, 0.5), (1e3, None), (-1.0, 0.0)]),
  ],
)
def test_traced_hyperparameters_are_clamped(name, cases):
  """That of rho also in ../test_optax.py."""

  @jax.jit
  def last(option, batches):
    tx = gq.grad_queue(LENGTH, **{name: option})
    step = lambda state, groups: tx.update(groups, state)[::-1]
    return jax.tree.map(lambda u: u[-1], jax.lax.scan(step, tx.init(PARAMS), batches)[1])

  batches = [draw(seed) for seed in range(6)]
  groups = jax.tree.map(lambda *g: np.stack(g), *[as_form("group", b)[0] for b in batches])
  for given, taken in cases:
    options = {} if taken in (None, 3.0) else {name: taken}  # a cap that is never met is none
    expected = PARAMS if taken == 0.0 else play("group", batches, **options)[0][-1]
    close(last(given, groups), expected, rtol=1e-5)


# Invariances.

few = functools.partial(hypothesis.settings, max_examples=10, deadline=None, derandomize=True)
seeds = st.integers(0, 10**6)


@few()
@hypothesis.given(seed=seeds)
@pytest.mark.parametrize("form", ["per_example", "per_example_alone", "group"])
def test_the_order_of_examples_and_of_groups_is_nothing(form, seed):
  order = np.array([1, 0]) if form == "group" else np.random.RandomState(seed).permutation(6)
  state, update = compiled()
  other = state
  # Two directions: the sketches of the gradients fall into the same groups as the embeddings.
  sizes = np.where(LABELS == 0, 1.0, -1.0) * np.arange(1.0, 7.0)
  along = lambda g: (g[:1] * sizes.reshape(-1, *[1] * (g.ndim - 1))).astype(np.float32)
  for step in range(6):
    batch, kwargs = as_form(form, jax.tree.map(along, draw(seed + step)))
    expected, state = update(batch, state, **kwargs)
    batch, kwargs = jax.tree.map(lambda g: g[order], (batch, kwargs))
    result, other = update(batch, other, **kwargs)
    close(result, expected, rtol=1e-3, atol=1e-5)
    assert sorted(other.figures.group_counts.tolist()) == [2, 4]


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


# What is not finite, or too large.


def poisoned(batch, leaf, examples, values):
  batch = jax.tree.map(np.array, batch)
  batch[leaf].reshape(6, -1)[examples, 0] = values
  return batch


def assert_unchanged(after, before):
  """Bit for bit, but for the number of skipped steps."""
  assert after.figures.skipped == before.figures.skipped + 1
  figures = after.figures._replace(skipped=before.figures.skipped)
  chex.assert_trees_all_equal(after._replace(figures=figures), before)


ADAPTIVE = {"queue_length": (2, 5), "update_norm": "match"}
HALF, ALONE, ALL = {"queue_dtype": "float16"}, ["per_example_alone"], slice(None)
BAD = [  # the forms, options, leaf, examples, and what stands there
  (FORMS, ADAPTIVE, "w", 0, np.nan),
  (FORMS, ADAPTIVE, "b", 5, np.inf),
  (FORMS, ADAPTIVE, "w", 4, -np.inf),
  (FORMS, {}, "w", [1, 5], [np.inf, -np.inf]),
  (FORMS, ADAPTIVE, "b", ALL, np.nan),
  *[(FORMS, HALF, "w", ALL, value) for value in (1e5, -1e5, 3e37)],  # too large for the queue
  (FORMS[1:], HALF, "w", [4, 5], 1e5),  # so is one group; the mean, 33333, would fit
  *[(ALONE, {"num_clusters": 1}, "w", 3, value) for value in (np.nan, np.inf)],
  *[(ALONE, {}, "w", 3, value) for value in (np.nan, np.inf, -np.inf)],
]


@functools.cache
def seen(form, number, **options):
  """The state after so many steps."""
  return play(form, [draw(i) for i in range(number)], values=np.linspace(2, 1, 5), **options)[1]


@pytest.mark.parametrize("number", [0, 5])
@pytest.mark.parametrize(("form", "bad"), [(form, bad) for bad in BAD for form in bad[0]])
def test_what_is_not_finite_passes_on_as_the_raw_mean_and_changes_no_state(form, bad, number):
  _, options, *place = bad
  before, batch = seen(form, number, **options), poisoned(draw(9), *place)
  (result,), after = play(form, [batch], state=before, values=np.ones(1), **options)
  close(result, plain_mean(batch), rtol=1e-5, atol=1e-6)
  assert_unchanged(after, before)


@every_form
def test_a_weighted_update_that_overflows_passes_on_but_is_not_queued(form):
  _, before = play(form, [constant(1.0)] * 4)
  (result,), state = play(form, [constant(2e38)], state=before)
  chex.assert_trees_all_equal(result, plain_mean(constant(np.inf)))
  assert_unchanged(state, before)


HUGE = np.stack([np.arange(6.0), np.ones(6)], axis=1)


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38, 1e18, 1e30, 1e37])
@pytest.mark.parametrize("rows", [[0], [1, 2], [0, 1, 2, 3, 4, 5]])
def test_embeddings_that_are_not_finite_or_huge_let_nothing_out_and_nothing_in(value, rows):
  state, update = compiled()
  embeddings = EMBEDDINGS.copy()
  embeddings[rows] = HUGE[rows] * value if value < 1e38 else value
  for seed in range(6):
    result, state = update(draw(seed), state, embeddings=embeddings)
    chex.assert_tree_all_finite((result, state))
  assert (state.queue.count, state.figures.skipped) == (6, 0)
  # Every example counts all the same, in whichever group: the queue holds the plain means.
  close(jax.tree.map(lambda s: s[2], state.queue.slots), plain_mean(draw(5)), rtol=1e-5, atol=1e-6)
  assert state.figures.group_counts.sum() == 6


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@every_form
def test_value_not_finite_is_not_recorded_but_the_gradient_is(form, value):
  before = seen(form, 5, **ADAPTIVE)
  (result,), after = play(form, [draw(9)], state=before, values=np.float32([value]), **ADAPTIVE)
  chex.assert_trees_all_equal(after.losses, before.losses)
  assert after.queue.count == 6
  chex.assert_tree_all_finite((result, after))


@pytest.mark.parametrize("content", [np.nan, 1.0])
@pytest.mark.parametrize("number", [0, 5])
def test_every_group_empty_gives_zero_and_leaves_the_state(content, number):
  before, (_, update) = seen("group", number, **ADAPTIVE), compiled(**ADAPTIVE)
  grads = jax.tree.map(lambda p: np.full((2, *p.shape), content, np.float32), PARAMS)
  result, after = update(gq.GroupGradients(grads, np.zeros(2, int)), before, value=1.0)
  chex.assert_trees_all_equal(result, PARAMS)
  assert_unchanged(after, before)


def test_an_empty_group_adds_nothing_whatever_its_scarcity():
  tx = gq.grad_queue(1, scarcity=lambda g, m, s: jnp.abs(g - m) / jnp.abs(g) + 1.0)  # NaN at 0
  groups = gq.GroupGradients(jnp.stack([jnp.arange(1.0, 4.0)] * 2), jnp.array([4, 0]))
  alone = gq.GroupGradients(groups.grads[:1], groups.counts[:1])
  state = other = tx.init(jnp.zeros(3))
  for size in (1.0, 2.0, 3.0):
    scaled = lambda g, size=size: g._replace(grads=size * g.grads)
    update, state = tx.update(scaled(groups), state)
    expected, other = tx.update(scaled(alone), other)
  assert jnp.isfinite(expected).all()
  np.testing.assert_allclose(update, expected, rtol=1e-6)
