# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Nothing that is not finite enters the queue; empty groups leak nothing; for all three forms."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
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
  full,
  plain_mean,
  play,
)

import gq_optax as gq

close = functools.partial(chex.assert_trees_all_close, rtol=1e-5, atol=1e-6)


def poisoned(batch, leaf, examples, values):
  batch = jax.tree.map(np.array, batch)
  batch[leaf].reshape(6, -1)[examples, 0] = values
  return batch


ADAPTIVE = {"queue_length": (2, 5), "update_norm": "match"}
HALF = {"queue_dtype": "float16"}
ALONE = ["per_example_alone"]
BAD = {  # the forms, options, leaf, examples, and what stands there
  "nan": (FORMS, ADAPTIVE, "w", 0, np.nan),
  "inf": (FORMS, ADAPTIVE, "b", 5, np.inf),
  "minus inf": (FORMS, ADAPTIVE, "w", 4, -np.inf),
  "inf and minus inf": (FORMS, ADAPTIVE, "w", [1, 5], [np.inf, -np.inf]),
  "nan everywhere": (FORMS, ADAPTIVE, "b", slice(None), np.nan),
  "too large for the queue": (FORMS, HALF, "w", slice(None), 1e5),
  "too small for the queue": (FORMS, HALF, "w", slice(None), -1e5),
  "far too large for the queue": (FORMS, HALF, "w", slice(None), 3e37),
  "too large in one group": (BATCHED, HALF, "w", [4, 5], 1e5),  # the mean, 33333, would fit
  "nan in one group": (ALONE, {"num_clusters": 1}, "w", 3, np.nan),
  "inf in one group": (ALONE, {"num_clusters": 1}, "w", 3, np.inf),
  "clustered nan": (ALONE, {}, "w", 3, np.nan),
  "clustered inf": (ALONE, {}, "w", 3, np.inf),
  "clustered minus inf": (ALONE, {}, "w", 3, -np.inf),
}


@functools.cache
def seen(form, number, **options):
  """The state after so many steps."""
  return play(form, [draw(i) for i in range(number)], values=np.linspace(2, 1, 5), **options)[1]


@pytest.mark.parametrize("number", [0, 5])
@pytest.mark.parametrize(("form", "bad"), [(form, bad) for bad in BAD for form in BAD[bad][0]])
def test_what_is_not_finite_passes_on_as_the_raw_mean_and_changes_no_state(form, bad, number):
  _, options, *place = BAD[bad]
  before, batch = seen(form, number, **options), poisoned(draw(9), *place)
  (result,), after = play(form, [batch], state=before, values=np.ones(1), **options)
  close(result, plain_mean(batch))
  assert_unchanged(after, before)


@pytest.mark.parametrize("form", FORMS)
def test_the_steps_after_it_are_as_if_it_had_not_been(form):
  batches = [draw(seed) for seed in range(7)]
  bad = [poisoned(draw(9), "w", 0, value) for value in (np.nan, np.inf, -np.inf)]
  clean, clean_state = play(form, batches)
  broken, broken_state = play(form, [*batches[:5], *bad * 5, *batches[5:]])
  chex.assert_trees_all_equal(clean, broken[:5] + broken[-2:])
  chex.assert_trees_all_equal(broken_state.queue, clean_state.queue)
  assert broken_state.figures.skipped == 15


@pytest.mark.parametrize("form", FORMS)
def test_a_weighted_update_that_overflows_passes_on_but_is_not_queued(form):
  _, before = play(form, [constant(1.0)] * 4)
  (result,), state = play(form, [constant(2e38)], state=before)
  chex.assert_trees_all_equal(result, full(np.inf))
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
  close(jax.tree.map(lambda s: s[2], state.queue.slots), plain_mean(draw(5)))
  assert state.figures.group_counts.sum() == 6


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("form", FORMS)
def test_value_not_finite_is_not_recorded_but_the_gradient_is(form, value):
  before = seen(form, 5, **ADAPTIVE)
  (result,), after = play(form, [draw(9)], state=before, values=np.float32([value]), **ADAPTIVE)
  chex.assert_trees_all_equal(after.losses, before.losses)
  assert after.queue.count == 6
  chex.assert_tree_all_finite((result, after))


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
    same = (expected, full_state.queue, full_state.losses)
    chex.assert_trees_all_close((result, state.queue, state.losses), same, rtol=1e-6)


def test_an_empty_group_of_the_inner_k_means_leaks_nothing():
  # Two distinct rows for four groups: two groups must stay empty.
  results, state = play("per_example", [draw(seed) for seed in range(6)], num_clusters=4)
  chex.assert_tree_all_finite((results, state))
  assert sorted(state.figures.group_counts.tolist()) == [0, 0, 2, 4]


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


# The chain that is advised.


@pytest.mark.standard_promotion  # apply_if_finite
def test_a_quadratic_recovers_from_spikes():
  """A tenth of the steps are spikes; the advised chain comes down to where it would have."""
  target = jnp.array([3.0, -2.0, 0.5])

  def train(tx, size):
    tx = optax.apply_if_finite(tx, max_consecutive_errors=100)

    def step(carry, number):
      params, state = carry
      hit = (number > 100) & (number < 150) & (number % 10 == 0)
      updates, state = tx.update(jnp.where(hit, size, params - target), state, params)
      return (optax.apply_updates(params, updates), state), jnp.max(jnp.abs(params - target))

    carry = (jnp.zeros(3), tx.init(jnp.zeros(3)))
    return jax.lax.scan(step, carry, jnp.arange(300))

  sgd, clip = optax.sgd(0.1, momentum=0.9), optax.clip_by_global_norm(1.0)
  advised = optax.chain(clip, gq.grad_queue(update_norm=1.0), sgd)
  sizes = jnp.array([1e30, -1e30, 3e38])
  (_, state), off = jax.jit(jax.vmap(lambda size: train(advised, size)))(sizes)
  assert (off[:, [100, -1]] < 0.02).all()
  assert (off[:, 100:] < 5.0).all()  # no step is longer than what was clipped
  assert (jnp.abs(state.inner_state[1].queue.slots) <= 1.0).all()
  alone = optax.chain(gq.grad_queue(), sgd)
  _, off = jax.jit(jax.vmap(lambda size: train(alone, size)))(sizes)
  assert not (off[:, -1] < 1e3).any()  # unclipped it is lost


def test_the_cap_never_lengthens_a_clipped_step():
  tx = optax.chain(optax.clip_by_global_norm(1.0), gq.grad_queue(2, update_norm=1.0))
  state, update, rng = tx.init(jnp.zeros(5)), jax.jit(tx.update), np.random.default_rng(0)
  for scale in (1.0, 1e4, 1e-3, 1e30, 1.0, 5.0, 1e-8, 2.0):
    result, state = update(jnp.asarray(rng.normal(size=5) * scale, jnp.float32), state)
    assert float(optax.tree.norm(result)) <= 1.0 + 1e-5
