# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Nothing that is not finite enters the queue; empty groups leak nothing; for all three forms."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from forms import (
  BATCHED,
  EMBEDDINGS,
  FORMS,
  PARAMS,
  as_form,
  assert_unchanged,
  compiled,
  constant,
  draw,
  plain_mean,
  play,
  ready,
)

import gq_optax as gq

# A NaN or Inf in the gradient.


def poisoned(batch, leaf, example, values):
  batch = jax.tree.map(np.array, batch)
  batch[leaf].reshape(6, -1)[example, 0] = values
  return batch


NAN_OPTIONS = {"queue_length": (2, 5), "update_norm": "match", "track": True}
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


HUGE = np.stack([np.arange(6.0), np.ones(6)], axis=1)


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38, 1e18, 1e30, 1e37])
@pytest.mark.parametrize("rows", [[0], [1, 2], [0, 1, 2, 3, 4, 5]])
def test_embeddings_that_are_not_finite_or_huge_let_nothing_out_and_nothing_in(value, rows):
  state, update = compiled(track=True)
  embeddings = EMBEDDINGS.copy()
  embeddings[rows] = HUGE[rows] * value if value < 1e38 else value
  for seed in range(6):
    result, state = update(draw(seed), state, embeddings=embeddings)
    chex.assert_tree_all_finite((result, state))
  assert state.queue.count == 6
  assert state.figures.skipped == 0
  # Every example counts all the same, in whichever group: the queue holds the plain means.
  newest = jax.tree.map(lambda s: s[2], state.queue.slots)
  chex.assert_trees_all_close(newest, plain_mean(draw(5)), rtol=1e-5, atol=1e-6)
  assert state.figures.group_counts.sum() == 6


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
def test_an_empty_group_contributes_nothing_whatever_stands_in_it(content, count):
  options = {"queue_length": (1, 2)}
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
  options = {"queue_length": (1, 2), "update_norm": 2.0}
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
