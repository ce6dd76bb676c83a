# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Every row of the table of grad_queue, for each of the three forms of an update."""

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
BATCHED = ["per_example", "group"]
LENGTH, RHO = 3, 3.0
LABELS = np.array([0, 0, 0, 0, 1, 1])
EMBEDDINGS = np.eye(2, dtype=np.float32)[LABELS]
PARAMS = {"w": jnp.zeros((3, 2)), "b": jnp.zeros(2)}
few = functools.partial(hypothesis.settings, deadline=None, derandomize=True)


def draw(seed, dtype=np.float32, scale=1.0):
  """Per-example gradients of six examples."""
  rng = np.random.RandomState(seed)
  tree = {"w": rng.randn(6, 3, 2) * scale, "b": rng.randn(6, 2) * scale}
  return {name: leaf.astype(dtype) for name, leaf in tree.items()}


def constant(value, dtype=np.float32):
  return {"w": np.full((6, 3, 2), value, dtype), "b": np.full((6, 2), value, dtype)}


def plain_mean(per_example):
  with np.errstate(invalid="ignore", over="ignore"):  # Inf - Inf is wanted in some tests
    return jax.tree.map(lambda g: g.astype(np.float64).mean(axis=0).astype(g.dtype), per_example)


def as_form(form, per_example):
  """The same batch as positional and keyword arguments of `update`."""
  if form == "mean":
    return plain_mean(per_example), {}
  if form == "per_example":
    return per_example, {"embeddings": EMBEDDINGS}
  halves = [jax.tree.map(lambda g, k=k: g[k == LABELS], per_example) for k in range(2)]
  means = [plain_mean(half) for half in halves]
  return gq.GroupGradients(jax.tree.map(lambda *g: np.stack(g), *means), np.array([4, 2])), {}


@functools.cache
def compiled(dtype=jnp.float32, **options):
  """An initial state and the jitted update of a `grad_queue`."""
  tx = gq.grad_queue(**{"queue_length": LENGTH, "rho": RHO, "num_clusters": 2, **options})
  return tx.init(optax.tree.cast(PARAMS, dtype)), jax.jit(tx.update)


def ready(form, dtype=jnp.float32, **options):
  """As `compiled`, but K-means is compiled once, not again with every set of options."""
  state, update = compiled(dtype, **options)
  return state, update.__wrapped__ if form == "per_example" else update


def play(form, batches, dtype=jnp.float32, values=None, **options):
  """All updates, and the last state."""
  state, update = ready(form, dtype, **options)
  results = []
  for i, batch in enumerate(batches):
    gradient, kwargs = as_form(form, batch)
    if values is not None:
      kwargs["value"] = values[i]
    result, state = update(gradient, state, **kwargs)
    results.append(result)
  return results, state


def assert_unchanged(after, before):
  """Bit for bit, but for the number of skipped steps."""
  if after.figures is None:
    chex.assert_trees_all_equal(after, before)
    return
  assert after.figures.skipped == before.figures.skipped + 1
  figures = after.figures._replace(skipped=before.figures.skipped)
  chex.assert_trees_all_equal(after._replace(figures=figures), before)


def oracle(form, history, batch, rho=RHO):
  """The update in float64 NumPy: every term against the raw means in `history`."""

  def leaf(newest, *past):
    past = np.stack(past).astype(np.float64)
    mean, std = past.mean(axis=0), past.std(axis=0)
    groups = [newest] if form == "mean" else [newest[k == LABELS] for k in range(2)]
    total = 0.0
    for group in groups:
      g = group.astype(np.float64).mean(axis=0)
      distance = np.abs(g - mean)
      with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(distance == 0.0, 0.0, distance / std)
      total = total + len(group) / len(newest) * np.clip(z, 1.0 / rho, rho) * g
    return total

  return jax.tree.map(leaf, batch, *[plain_mean(past) for past in history])


# At most L gradients seen: every weight is exactly 1.


@pytest.mark.parametrize(
  ("form", "length"),
  [("mean", 1), ("mean", 3), ("per_example", 3), ("group", 3)],
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


@pytest.mark.parametrize("form", BATCHED)
def test_at_most_l_gradients_seen_groups_combine_as_always(form):
  batch = draw(0)
  (result,), _ = play(form, [batch], group_exponent=0.5)
  share = np.float32(4**0.5 / (4**0.5 + 2**0.5))
  expected = jax.tree.map(lambda g: share * g[:4].mean(0) + (1 - share) * g[4:].mean(0), batch)
  chex.assert_trees_all_close(result, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_adaptive_length_weights_once_more_than_the_shortest_were_seen(form):
  batches = [draw(seed) for seed in range(4)]
  values = np.ones(4, np.float32)
  results, state = play(form, batches, values=values, queue_length=(2, 5))
  for result, batch in zip(results[:3], batches[:3], strict=True):
    chex.assert_trees_all_close(result, plain_mean(batch), rtol=1e-5, atol=1e-6)
  # A flat loss asks for the shortest window: the last two gradients.
  expected = oracle(form, batches[1:3], batches[3])
  chex.assert_trees_all_close(results[3], optax.tree.cast(expected, jnp.float32), rtol=2e-4)
  assert state.losses.count == 4


# Sigma 0.


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("value", [0.1, -7.3, 1e-30, 1e30])
def test_sigma_zero_and_g_equal_to_mu_weighs_one_over_rho(form, value):
  batches = [constant(value)] * 5
  results, _ = play(form, batches)
  expected = jax.tree.map(lambda g: g * np.float32(1 / RHO), plain_mean(batches[0]))
  chex.assert_trees_all_close(results[-1], expected, rtol=1e-6)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("other", [0.1000001, 0.2, -0.1, 1e20])
def test_sigma_zero_and_g_unequal_to_mu_weighs_rho(form, other):
  results, _ = play(form, [constant(0.1)] * 4 + [constant(other)])
  expected = jax.tree.map(lambda g: g * np.float32(RHO), plain_mean(constant(other)))
  chex.assert_trees_all_close(results[-1], expected, rtol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_sigma_zero_with_dead_coordinates_gives_zero(form):
  results, _ = play(form, [constant(0.0)] * 6)
  chex.assert_trees_all_equal(results[-1], PARAMS)


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


@pytest.mark.parametrize("storage", ["bfloat16", "float16"])
def test_narrow_queue_dtype_weighs_as_the_oracle_does_on_rounded_gradients(storage):
  rounded = [
    jax.tree.map(lambda g: np.broadcast_to(g.mean(0), g.shape), draw(seed)) for seed in range(5)
  ]
  results, _ = play("mean", rounded, queue_dtype=storage)
  rounded = optax.tree.cast(optax.tree.cast(rounded, storage), jnp.float32)
  exact = jax.tree.map(np.asarray, rounded)
  expected = oracle("mean", exact[1:4], exact[4])
  weights = jax.tree.map(lambda u, g: np.asarray(u) / g, expected, plain_mean(exact[4]))
  raw = plain_mean(draw(4))
  chex.assert_trees_all_close(
    results[-1], jax.tree.map(lambda w, g: jnp.float32(w) * g, weights, raw), rtol=1e-4
  )


# A NaN or Inf in the gradient.


def poisoned(batch, leaf, example, values):
  batch = jax.tree.map(np.array, batch)
  batch[leaf].reshape(6, -1)[example, 0] = values
  return batch


NAN_OPTIONS = {
  "queue_length": (2, 5),
  "update_norm": "match",
  "group_exponent": 0.5,
  "track": True,
}
BAD = {
  "nan": ("w", 0, np.nan),
  "inf": ("b", 5, np.inf),
  "minus_inf": ("w", 4, -np.inf),
  "inf_and_minus_inf": ("w", [1, 5], [np.inf, -np.inf]),
  "nan_everywhere": ("b", slice(None), np.nan),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bad", list(BAD))
@pytest.mark.parametrize("seen", [0, 5])
def test_a_nan_or_inf_passes_the_raw_mean_on_and_changes_no_state(form, bad, seen):
  options = NAN_OPTIONS
  values = np.linspace(2, 1, seen + 1, dtype=np.float32)
  warm = [draw(seed) for seed in range(seen)]
  state = ready(form, **options)[0] if seen == 0 else play(form, warm, values=values, **options)[1]
  batch = poisoned(draw(9), *BAD[bad])
  gradient, kwargs = as_form(form, batch)
  result, after = ready(form, **options)[1](gradient, state, value=values[-1], **kwargs)
  chex.assert_trees_all_close(result, plain_mean(batch), rtol=1e-5, atol=1e-6)
  assert_unchanged(after, state)


@pytest.mark.parametrize("num_clusters", [1, 2])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_nan_or_inf_passes_the_raw_mean_on_when_clustered_on_the_gradients(num_clusters, value):
  state, update = compiled(num_clusters=num_clusters, track=True)
  batch = poisoned(draw(9), "w", 3, value)
  result, after = update(batch, state)
  chex.assert_trees_all_close(result, plain_mean(batch), rtol=1e-5, atol=1e-6)
  assert_unchanged(after, state)


@pytest.mark.parametrize("form", FORMS)
def test_a_nan_or_inf_leaves_the_steps_after_it_as_if_it_had_not_been(form):
  batches = [draw(seed) for seed in range(7)]
  bad = poisoned(draw(9), "w", 0, np.nan)
  clean, clean_state = play(form, batches)
  broken, broken_state = play(form, batches[:5] + [bad] + batches[5:])
  chex.assert_trees_all_equal(clean, broken[:5] + broken[6:])
  assert_unchanged(broken_state, clean_state)


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
@pytest.mark.parametrize("rows", [[0], [1, 2], [0, 1, 2, 3, 4, 5]])
def test_embeddings_that_are_not_finite_let_nothing_out_and_nothing_in(value, rows):
  state, update = compiled(track=True)
  embeddings = EMBEDDINGS.copy()
  embeddings[rows] = value
  for seed in range(6):
    result, state = update(draw(seed), state, embeddings=embeddings)
    chex.assert_tree_all_finite((result, state))
  assert state.queue.count == 6
  assert state.figures.skipped == 0
  # Every example counts all the same, in whichever group: the queue holds the plain means.
  newest = jax.tree.map(lambda s: s[2], state.queue.slots)
  chex.assert_trees_all_close(newest, plain_mean(draw(5)), rtol=1e-5, atol=1e-6)
  assert state.figures.group_counts.sum() == 6


@pytest.mark.parametrize("scale", [1e18, 1e30, 1e37])
def test_embeddings_that_are_huge_let_nothing_out_and_nothing_in(scale):
  state, update = compiled(track=True)
  embeddings = np.float32(scale) * np.stack([np.arange(6.0), np.ones(6)], axis=1)
  result, state = update(draw(0), state, embeddings=embeddings.astype(np.float32))
  chex.assert_tree_all_finite((result, state))
  assert state.queue.count == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("form", FORMS)
def test_value_not_finite_is_not_recorded_but_the_gradient_is(form, value):
  options = NAN_OPTIONS
  _, state = play(form, [draw(0), draw(1)], values=np.float32([2.0, 1.0]), **options)
  gradient, kwargs = as_form(form, draw(2))
  result, after = ready(form, **options)[1](gradient, state, value=np.float32(value), **kwargs)
  chex.assert_trees_all_equal(after.losses, state.losses)
  assert after.queue.count == 3
  chex.assert_tree_all_finite((result, after))


# The weighted update overflows; overflow of queue_dtype.


@pytest.mark.parametrize("form", FORMS)
def test_a_weighted_update_that_overflows_passes_on_but_is_not_queued(form):
  batches = [constant(1.0)] * 4 + [constant(2e38)]
  results, state = play(form, batches)
  chex.assert_trees_all_equal(
    results[-1], jax.tree.map(lambda p: jnp.full_like(p, jnp.inf), PARAMS)
  )
  _, before = play(form, batches[:-1])
  assert_unchanged(state, before)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("value", [1e5, -1e5, 3e37])
def test_overflow_of_queue_dtype_counts_as_not_finite(form, value):
  warm = [draw(seed) for seed in range(5)]
  _, before = play(form, warm, queue_dtype="float16")
  batch = poisoned(draw(9), "w", slice(None), value)
  results, state = play(form, [*warm, batch], queue_dtype="float16")
  chex.assert_trees_all_close(results[-1], plain_mean(batch), rtol=1e-5, atol=1e-6)
  assert_unchanged(state, before)


@pytest.mark.parametrize("form", BATCHED)
def test_overflow_of_queue_dtype_in_one_group_alone_counts_as_not_finite(form):
  warm = [draw(seed) for seed in range(5)]
  _, before = play(form, warm, queue_dtype="float16")
  batch = poisoned(draw(9), "w", [4, 5], 1e5)  # the mean, 33333, would fit
  results, state = play(form, [*warm, batch], queue_dtype="float16")
  chex.assert_trees_all_close(results[-1], plain_mean(batch), rtol=1e-5, atol=1e-6)
  assert_unchanged(state, before)


# Empty groups.


@pytest.mark.parametrize("content", [np.nan, np.inf, 3e38, 7.0])
@pytest.mark.parametrize("count", [0.0, -1.0])
@pytest.mark.parametrize("exponent", [0.0, 1.0])
def test_an_empty_group_contributes_nothing_whatever_stands_in_it(content, count, exponent):
  options = {"queue_length": (1, 2), "group_exponent": exponent}
  full_state, full_update = compiled(**options)
  state, update = compiled(**options, num_clusters=3)
  for seed in range(5):
    groups, _ = as_form("group", draw(seed))
    groups = groups._replace(losses=np.float32([1.0, 2.0]))
    with_empty = gq.GroupGradients(
      jax.tree.map(lambda g: np.insert(g, 1, np.float32(content), axis=0), groups.grads),
      np.insert(groups.counts.astype(type(count)), 1, count),
      np.insert(groups.losses, 1, np.float32(content)),
    )
    expected, full_state = full_update(groups, full_state)
    result, state = update(with_empty, state)
    chex.assert_tree_all_finite(state)
    chex.assert_trees_all_close(result, expected, rtol=1e-6)
    chex.assert_trees_all_close(state.queue, full_state.queue, rtol=1e-6)
    chex.assert_trees_all_close(state.losses, full_state.losses, rtol=1e-6)


def test_an_empty_group_of_the_inner_k_means_leaks_nothing():
  state, update = ready("per_example", num_clusters=4, track=True)
  for seed in range(6):
    # Two distinct rows for four groups: two groups must stay empty.
    result, state = update(draw(seed), state, embeddings=EMBEDDINGS)
    chex.assert_tree_all_finite((result, state))
    assert sorted(state.figures.group_counts.tolist()) == [0, 0, 2, 4]


@pytest.mark.parametrize("content", [np.nan, 1.0])
@pytest.mark.parametrize("seen", [0, 5])
def test_every_group_empty_gives_zero_and_leaves_the_state(content, seen):
  options = {"queue_length": (1, 2), "update_norm": 2.0, "group_exponent": 0.3}
  values = np.ones(5, np.float32)
  state = compiled(**options)[0]
  if seen:
    state = play("group", [draw(step) for step in range(seen)], values=values, **options)[1]
  empty = gq.GroupGradients(
    jax.tree.map(lambda p: jnp.full((2, *p.shape), content), PARAMS), jnp.zeros(2, jnp.int32)
  )
  result, after = compiled(**options)[1](empty, state, value=np.float32(1.0))
  chex.assert_trees_all_equal(result, PARAMS)
  assert_unchanged(after, state)


# Adaptive length without value.


@pytest.mark.parametrize("form", FORMS)
def test_adaptive_length_without_value_names_it(form):
  state, update = compiled(queue_length=(1, 3))
  gradient, kwargs = as_form(form, draw(0))
  with pytest.raises(ValueError, match=r"adaptive queue_length.*pass value=, or GroupGradients"):
    update(gradient, state, **kwargs)


def test_adaptive_length_takes_the_losses_of_the_groups_in_place_of_value():
  options = {"queue_length": (1, 3)}
  groups, _ = as_form("group", draw(0))
  state, update = compiled(**options)
  _, given = update(groups, state, value=np.float32(4 / 6 * 1.5 + 2 / 6 * 4.5))
  _, taken = update(groups._replace(losses=np.float32([1.5, 4.5])), state)
  chex.assert_trees_all_close(taken, given, rtol=1e-6)
  assert taken.losses.count == 1


# Wrong trees and shapes, bad options.


@pytest.mark.parametrize(
  ("kwargs", "message"),
  [
    ({"queue_length": 0}, "queue_length must be at least 1, but 0 was found"),
    ({"queue_length": -2}, "queue_length must be at least 1, but -2 was found"),
    ({"queue_length": 3.0}, r"queue_length must be an int, but 3\.0 was found"),
    ({"queue_length": True}, "queue_length must be an int, but True was found"),
    ({"queue_length": "3"}, "queue_length must be an int, but '3' was found"),
    ({"queue_length": [1, 3]}, r"queue_length must be an int.*, but \[1, 3\] was found"),
    ({"queue_length": None}, "queue_length must be an int, but None was found"),
    ({"queue_length": jnp.int32(3)}, r"queue_length .*Python int.*int32\[\].*static_args"),
    ({"queue_length": (5, 3)}, r"queue_length\[1\], the longest, must be at least 5, but 3"),
    ({"queue_length": (0, 3)}, r"queue_length\[0\], the shortest, must be at least 1, but 0"),
    ({"queue_length": (1.0, 3)}, r"queue_length\[0\], the shortest, must be an int, but 1\.0"),
    ({"queue_length": (1, True)}, r"queue_length\[1\], the longest, must be an int, but True"),
    ({"queue_length": (1, 2, 3)}, r"queue_length must be .*pair.*, but \(1, 2, 3\) was found"),
    ({"rho": 0.5}, r"rho must be in \[1\.0, inf\), but 0\.5 was found"),
    ({"rho": -3}, r"rho must be in \[1\.0, inf\), but -3 was found"),
    ({"rho": float("nan")}, r"rho must be in \[1\.0, inf\), but nan was found"),
    ({"rho": "3"}, "rho must be a real number, but '3' was found"),
    ({"rho": None}, "rho must be a real number, but None was found"),
    ({"rho": True}, "rho must be a real number, but True was found"),
    ({"rho": 3j}, "rho must be a real number, but 3j was found"),
    ({"rho": jnp.ones(2)}, r"rho must be a scalar, but shape \(2,\) was found"),
    ({"num_clusters": 0}, "num_clusters must be at least 1, but 0 was found"),
    ({"num_clusters": 2.0}, r"num_clusters must be an int, but 2\.0 was found"),
    ({"num_clusters": True}, "num_clusters must be an int, but True was found"),
    ({"num_clusters": jnp.int32(2)}, r"num_clusters .*Python int.*static_args"),
    ({"group_exponent": 1.1}, r"group_exponent must be in \[0\.0, 1\.0\], but 1\.1 was found"),
    ({"group_exponent": -0.1}, r"group_exponent must be in \[0\.0, 1\.0\], but -0\.1 was found"),
    ({"group_exponent": float("nan")}, r"group_exponent must be in .*, but nan was found"),
    ({"group_exponent": "1"}, "group_exponent must be a real number, but '1' was found"),
    ({"update_norm": "x"}, r"update_norm must be one of \('match',\), but 'x' was found"),
    ({"update_norm": 0}, r"update_norm must be in \(0\.0, inf\), but 0 was found"),
    ({"update_norm": -1.5}, r"update_norm must be in \(0\.0, inf\), but -1\.5 was found"),
    ({"update_norm": float("nan")}, r"update_norm must be in \(0\.0, inf\), but nan was found"),
    ({"update_norm": True}, "update_norm must be a real number, but True was found"),
    ({"queue_dtype": "int32"}, "queue_dtype must be a real floating dtype, but int32 was found"),
    ({"queue_dtype": np.dtype(int)}, "queue_dtype must be a real floating dtype, but int64"),
    ({"queue_dtype": "complex64"}, "queue_dtype must be a real floating dtype, but complex64"),
    ({"queue_dtype": "bool"}, "queue_dtype must be a real floating dtype, but bool was found"),
    ({"queue_dtype": "float99"}, "queue_dtype must be a real floating dtype, but float99"),
    ({"key": "x"}, "key must be an int or one PRNG key, but 'x' was found"),
    ({"key": 0.5}, r"key must be an int or one PRNG key, but 0\.5 was found"),
    ({"key": True}, "key must be an int or one PRNG key, but True was found"),
    ({"key": None}, "key must be an int or one PRNG key, but None was found"),
    ({"key": jnp.zeros(3, jnp.uint32)}, "key must be an int or one PRNG key, but .*Array"),
    ({"key": jnp.zeros(2)}, "key must be an int or one PRNG key, but .*Array"),
  ],
)
def test_bad_static_options_name_the_parameter_the_rule_and_what_was_found(kwargs, message):
  with pytest.raises(ValueError, match=message):
    gq.grad_queue(**kwargs)


@pytest.mark.parametrize("alias", [gq.gq_sgd, gq.gq_adam])
@pytest.mark.parametrize(
  ("kwargs", "message"),
  [
    ({"queue_length": 0}, "queue_length must be at least 1, but 0"),
    ({"rho": 0.5}, "rho must be in .*, but 0.5"),
    ({"num_clusters": 0}, "num_clusters must be at least 1, but 0"),
    ({"group_exponent": 2.0}, "group_exponent must be in .*, but 2.0"),
    ({"update_norm": "x"}, "update_norm must be one of .*, but 'x'"),
    ({"queue_dtype": "int8"}, "queue_dtype must be .*, but int8"),
    ({"key": "x"}, "key must be .*, but 'x'"),
  ],
)
def test_bad_static_options_of_the_aliases_are_those_of_grad_queue(alias, kwargs, message):
  with pytest.raises(ValueError, match=message):
    alias(0.1, **kwargs)


def test_keys_of_many_keys_are_refused():
  with pytest.raises(ValueError, match="key must be an int or one PRNG key, but .*Array"):
    gq.grad_queue(key=jax.random.split(jax.random.key(0), 2))


@pytest.mark.parametrize("dtype", ["int32", "complex64", "bool"])
def test_parameters_that_are_not_real_floating_are_refused(dtype):
  params = {**PARAMS, "n": jnp.zeros(3, dtype)}
  message = rf"the parameter at \['n'\] must have a real floating dtype, but {dtype} was found"
  with pytest.raises(ValueError, match=message):
    gq.grad_queue().init(params)
  message = f"the parameter at the root must have a real floating dtype, but {dtype} was found"
  with pytest.raises(ValueError, match=message):
    gq.grad_queue().init(params["n"])


W, B = jnp.ones((3, 2)), jnp.ones(2)


@pytest.mark.parametrize(
  ("updates", "message"),
  [
    ({"w": W}, r"updates must have the tree structure of the parameters, .*'b'.*'w'.*, but .*'w'"),
    ({"w": W, "b": B, "c": B}, r"updates must have the tree structure .*, but .*'c'"),
    ([W, B], r"updates must have the tree structure .*, but PyTreeDef\(\[\*, \*\]\) was found"),
    ({"w": W, "b": None}, r"updates must have the tree structure .*, but .*None.* was found"),
    ({"w": W, "b": jnp.ones(3)}, r"updates must be a mean gradient.*shape \(3,\).*shape \(2,\)"),
    ({"w": W.T, "b": B}, r"updates must be a mean gradient .*shape .* was found for a parameter"),
    (
      {"w": jnp.ones((6, 3, 2)), "b": jnp.ones((5, 2))},
      r"per-example gradients \[B, \*p\].*at \['w'\] shape \(6, 3, 2\).*of shape \(3, 2\)",
    ),
    ({"w": jnp.ones((6, 3, 2)), "b": B}, r"alike for all leaves.* was found for a parameter"),
    ({"w": W, "b": jnp.ones((6, 2))}, r"alike for all leaves.*at .* was found for a parameter"),
    (
      {"w": jnp.ones((0, 3, 2)), "b": jnp.ones((0, 2))},
      r"not empty, but at \['b'\] shape \(0, 2\) was found",
    ),
    ({"w": jnp.ones((2, 6, 3, 2)), "b": jnp.ones((2, 6, 2))}, r"updates must be .*\(2, 6, 2\)"),
    (
      {"w": W, "b": jnp.ones(2, jnp.int32)},
      r"the update at \['b'\] must have a real floating dtype, but int32 was found",
    ),
    (
      {"w": W.astype(jnp.complex64), "b": B},
      r"the update at \['w'\] must have a real floating dtype, but complex64 was found",
    ),
    (
      gq.GroupGradients({"w": jnp.ones((2, 3, 2))}, jnp.ones(2)),
      "updates must have the tree structure of the parameters",
    ),
    (
      gq.GroupGradients({"w": W, "b": B}, jnp.ones(2)),
      r"updates must be GroupGradients with grads \[K, \*p\].*\['b'\] shape \(2,\)",
    ),
    (
      gq.GroupGradients({"w": jnp.ones((2, 3, 2)), "b": jnp.ones((2, 2))}, jnp.ones(3)),
      r"GroupGradients with grads \[K, \*p\] and counts \[K\].*shape \(2, 2\) was found",
    ),
    (
      gq.GroupGradients({"w": jnp.ones((2, 3, 2)), "b": jnp.ones((2, 2))}, jnp.ones((2, 1))),
      r"counts of the GroupGradients must be \[K\], but shape \(2, 1\) was found",
    ),
    (
      gq.GroupGradients({"w": jnp.ones((2, 3, 2)), "b": jnp.ones((2, 2))}, jnp.float32(2)),
      r"counts of the GroupGradients must be \[K\], but shape \(\) was found",
    ),
    (
      gq.GroupGradients(
        {"w": jnp.ones((2, 3, 2)), "b": jnp.ones((2, 2))}, jnp.ones(2), jnp.ones(3)
      ),
      r"losses of the GroupGradients must be \[K\] = \[2\], but shape \(3,\) was found",
    ),
    (
      gq.GroupGradients({"w": jnp.ones((0, 3, 2)), "b": jnp.ones((0, 2))}, jnp.ones(0)),
      r"updates must be GroupGradients .*not empty",
    ),
  ],
)
def test_wrong_trees_and_shapes_name_the_rule_and_what_was_found(updates, message):
  tx = gq.grad_queue()
  with pytest.raises(ValueError, match=message):
    tx.update(updates, tx.init(PARAMS))


@pytest.mark.parametrize(
  ("options", "kwargs", "message"),
  [
    (
      {"num_clusters": 7},
      {},
      r"num_clusters must be at most the batch size \(6\), but 7 was found",
    ),
    (
      {"num_clusters": 2},
      {"embeddings": jnp.ones((5, 2))},
      r"embeddings must be \[B, d\] with B = 6, but shape \(5, 2\) was found",
    ),
    (
      {"num_clusters": 2},
      {"embeddings": jnp.ones(6)},
      r"embeddings must be \[B, d\] with B = 6, but shape \(6,\) was found",
    ),
    (
      {"num_clusters": 2},
      {"embeddings": jnp.ones((6, 2, 2))},
      r"embeddings must be \[B, d\] with B = 6, but shape \(6, 2, 2\) was found",
    ),
    (
      {"num_clusters": 2, "embed": lambda tree: tree["b"][:3]},
      {},
      r"embed.* must be \[B, d\] with B = 6, but shape \(3, 2\) was found",
    ),
    (
      {"queue_length": (1, 2)},
      {"value": jnp.ones(6)},
      r"value must be a scalar, but shape \(6,\) was found",
    ),
  ],
)
def test_wrong_arguments_of_update_name_the_rule_and_what_was_found(options, kwargs, message):
  tx = gq.grad_queue(**options)
  with pytest.raises(ValueError, match=message):
    tx.update(draw(0), tx.init(PARAMS), **kwargs)


def test_embeddings_with_a_mean_gradient_are_refused():
  tx = gq.grad_queue(num_clusters=2)
  message = r"embeddings can only group per-example gradients \[B, \*p\], but a mean gradient"
  with pytest.raises(ValueError, match=message):
    tx.update(PARAMS, tx.init(PARAMS), embeddings=EMBEDDINGS)


def test_tracking_groups_of_another_number_is_refused():
  tx = gq.grad_queue(num_clusters=3, track=True)
  message = r"track=True, num_clusters must be .*GroupGradients \(2\), but 3 was found"
  with pytest.raises(ValueError, match=message):
    tx.update(as_form("group", draw(0))[0], tx.init(PARAMS))


@pytest.mark.parametrize(
  ("scarcity", "found"),
  [
    (lambda g, mean, std: jnp.max(g), r"float32\[\]"),
    (lambda g, mean, std: g[None], r"float32\[1,2\]"),
    (lambda g, mean, std: g > mean, r"bool\[2\]"),
    (lambda g, mean, std: jnp.ones(g.shape, jnp.int32), r"int32\[2\]"),
  ],
)
@pytest.mark.parametrize("form", FORMS)
def test_scarcity_of_the_wrong_shape_or_dtype_is_refused(form, scarcity, found):
  tx = gq.grad_queue(scarcity=scarcity, num_clusters=2)
  gradient, kwargs = as_form(form, draw(0))
  message = rf"scarcity must return a float weight of shape \(2,\) .*, but {found} was found"
  with pytest.raises(ValueError, match=message):
    tx.update(gradient, tx.init(PARAMS), **kwargs)


# Traced hyperparameters are clamped into their range.


@jax.jit
def traced(hyperparameters, batches):
  """The last update on group gradients, every hyperparameter traced."""
  tx = gq.grad_queue(LENGTH, **hyperparameters)
  step = lambda state, groups: tx.update(groups, state)[::-1]
  return jax.tree.map(lambda u: u[-1], jax.lax.scan(step, tx.init(PARAMS), batches)[1])


GROUP_BATCHES = jax.tree.map(
  lambda *g: np.stack(g), *[as_form("group", draw(seed))[0] for seed in range(6)]
)


@pytest.mark.parametrize(
  ("name", "traced_value", "static_value"),
  [
    ("rho", 3.0, 3.0),
    ("rho", 1.0, 1.0),
    ("rho", 0.5, 1.0),
    ("rho", -7.0, 1.0),
    ("rho", np.nan, 1.0),
    ("group_exponent", 0.0, 0.0),
    ("group_exponent", -1.0, 0.0),
    ("group_exponent", 0.5, 0.5),
    ("group_exponent", 1.0, 1.0),
    ("group_exponent", 9.0, 1.0),
    ("update_norm", 0.5, 0.5),
    ("update_norm", 1e3, 1e3),
  ],
)
def test_traced_hyperparameters_are_clamped(name, traced_value, static_value):
  result = traced({name: jnp.float32(traced_value)}, GROUP_BATCHES)
  default = {"rho": RHO, "group_exponent": 0.0}.get(name) == static_value
  options = {} if default else {name: static_value}
  expected, _ = play("group", [draw(seed) for seed in range(6)], **options)
  chex.assert_trees_all_close(result, expected[-1], rtol=1e-5)


def test_a_traced_cap_below_zero_stops_the_update():
  chex.assert_trees_all_equal(traced({"update_norm": jnp.float32(-1.0)}, GROUP_BATCHES), PARAMS)


def test_a_traced_key_equals_the_static_one():
  embeddings = draw(8)["b"]
  # The seeding of three groups among six rows hangs on the key.
  step = lambda key: gq.grad_queue(num_clusters=3, key=key, track=True).update(
    draw(3), gq.grad_queue(track=True, num_clusters=3).init(PARAMS), embeddings=embeddings
  )
  traced_step = jax.jit(step)
  for key in range(3):
    chex.assert_trees_all_close(traced_step(jnp.int32(key)), step(key), rtol=1e-5, atol=1e-6)


# rho = 1: the same as without grad_queue.


@pytest.mark.standard_promotion
@pytest.mark.parametrize(
  "optimizer", [lambda: optax.sgd(0.1, momentum=0.9), lambda: optax.adam(0.1)]
)
@pytest.mark.parametrize(
  ("dtype", "options"),
  [
    ("float32", {}),
    ("bfloat16", {}),
    ("float16", {}),
    ("float32", {"queue_dtype": "bfloat16"}),
  ],
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
  free, _ = play(form, batches, group_exponent=0.5)
  bound, _ = play(form, batches, group_exponent=0.5, update_norm=cap)
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


# Invariances.


@few(max_examples=10)
@hypothesis.given(seed=st.integers(0, 10**6))
@pytest.mark.parametrize("given", [True, False])
def test_permuting_the_examples_leaves_the_update(given, seed):
  order = np.random.RandomState(seed).permutation(6)
  state, update = compiled(track=True)
  permuted_state = state
  for step in range(6):
    # Two directions: the sketches of the gradients fall into the same groups as the embeddings.
    batch = jax.tree.map(
      lambda g: (
        g[:1]
        * (np.where(LABELS == 0, 1.0, -1.0) * np.arange(1.0, 7.0)).reshape(-1, *[1] * (g.ndim - 1))
      ).astype(np.float32),
      draw(seed + step),
    )
    kwargs = {"embeddings": EMBEDDINGS} if given else {}
    permuted = {name: value[order] for name, value in kwargs.items()}
    expected, state = update(batch, state, **kwargs)
    result, permuted_state = update(
      jax.tree.map(lambda g: g[order], batch), permuted_state, **permuted
    )
    chex.assert_trees_all_close(result, expected, rtol=1e-3, atol=1e-5)
    assert sorted(permuted_state.figures.group_counts.tolist()) == [2, 4]


@few(max_examples=10)
@hypothesis.given(seed=st.integers(0, 10**6))
def test_permuting_the_groups_leaves_the_update(seed):
  state, update = compiled()
  permuted_state = state
  for step in range(6):
    groups, _ = as_form("group", draw(seed + step))
    flipped = gq.GroupGradients(
      jax.tree.map(lambda g: g[::-1].copy(), groups.grads), groups.counts[::-1].copy()
    )
    expected, state = update(groups, state)
    result, permuted_state = update(flipped, permuted_state)
    chex.assert_trees_all_close(result, expected, rtol=1e-4, atol=1e-5)


@few(max_examples=10)
@hypothesis.given(seed=st.integers(0, 10**6), exponent=st.integers(-90, 90))
@pytest.mark.parametrize("form", [*FORMS, "per_example_without_embeddings"])
def test_scaling_the_gradients_by_a_power_of_two_scales_the_update(form, seed, exponent):
  factor = np.float32(2.0**exponent)
  state, update = compiled(track=True)
  scaled_state = state
  for step in range(6):
    batch = draw(seed + step)
    scaled = jax.tree.map(lambda g: g * factor, batch)
    if form == "per_example_without_embeddings":
      (gradient, kwargs), (scaled, _) = (batch, {}), (scaled, {})
    else:
      (gradient, kwargs), (scaled, _) = as_form(form, batch), as_form(form, scaled)
    expected, state = update(gradient, state, **kwargs)
    result, scaled_state = update(scaled, scaled_state, **kwargs)
    chex.assert_trees_all_close(
      jax.tree.map(lambda u: u / factor, result), expected, rtol=1e-4, atol=1e-5
    )


# Extreme values. Of six at most 5e37 neither the sum overflows nor three times the mean.


extremes = st.sampled_from(
  [0.0, 1.0, -1.0, 1e-38, -1e-38, 1e-45, 1e-30, 1e-19, -1e19, 1e30, 5e37, -5e37, 0.1, 1e4]
)


@few(max_examples=12)
@hypothesis.given(st.lists(st.lists(extremes, min_size=6, max_size=6), min_size=6, max_size=8))
@pytest.mark.parametrize(
  ("form", "update_norm"),
  [(form, None) for form in [*FORMS, "per_example_without_embeddings"]]
  + [("mean", "match"), ("group", "match")],
)
def test_extreme_values_give_finite_bounded_updates(form, update_norm, steps):
  state, update = compiled(update_norm=update_norm, track=True)
  for step in steps:
    column = np.array(step, np.float32)
    batch = {
      "w": np.stack([column, column[::-1], *[np.roll(column, k) for k in range(4)]], axis=1),
      "b": np.stack([column, -column], axis=1),
    }
    batch["w"] = batch["w"].reshape(6, 3, 2)
    gradient, kwargs = as_form(form, batch) if form in FORMS else (batch, {})
    result, state = update(gradient, state, **kwargs)
    chex.assert_tree_all_finite((result, state))
    if update_norm is None:
      bound = jax.tree.map(lambda g: 1.01 * RHO * np.abs(g).max(axis=0) + 1e-37, batch)
      chex.assert_trees_all_equal(
        jax.tree.map(lambda u, m: np.all(np.abs(np.float64(u)) <= m), result, bound),
        {"w": True, "b": True},
      )
  assert state.queue.count == len(steps)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("value", [5e37, -5e37, 1e-30])
def test_extreme_constants_weigh_one_over_rho_and_extreme_spikes_rho(form, value):
  results, _ = play(form, [constant(value)] * 5)
  chex.assert_trees_all_close(
    results[-1], jax.tree.map(lambda p: jnp.full_like(p, value / RHO), PARAMS), rtol=1e-5
  )
  results, _ = play(form, [constant(value)] * 4 + [constant(-value)])
  chex.assert_trees_all_close(
    results[-1], jax.tree.map(lambda p: jnp.full_like(p, -value * RHO), PARAMS), rtol=1e-5
  )
