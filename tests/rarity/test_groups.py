# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Group scarcity: hand cases, a NumPy twin, and bounds under any input."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kinds import batch, blobs, update

import gq_optax as gq

AXES = np.eye(4, dtype=np.float32)


def kind_weights(weights, kinds):
  """The weight that every kind got; all its examples must have the same."""
  kinds = np.asarray(kinds)
  result = {}
  for kind in sorted(set(kinds.tolist())):
    own = np.asarray(weights)[kinds == kind]
    np.testing.assert_allclose(own, own[0], rtol=1e-6)
    result[kind] = float(own[0])
  return result


def twin(history, num_groups, length, exponent, max_weight):
  """Weights of the kinds in the last batch of `history`, by the formula, in plain Python."""
  window = history[-length:]
  frequency = {k: np.mean([b.count(k) / len(b) for b in window]) for k in range(num_groups)}
  seen = [k for k in frequency if frequency[k] > 0]
  now = history[-1]
  weight = {}
  for k in seen:
    f = max(frequency[k], 0.5 / len(now))
    weight[k] = np.clip(1 / (len(seen) * f), 1 / max_weight, max_weight) ** exponent
  mean = np.mean([weight[k] for k in now])
  return {k: weight[k] / mean for k in sorted(set(now))}


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_weights_are_the_formula_over_the_queue(exponent):
  scarcity = gq.group_scarcity(4, queue_length=3, exponent=exponent)
  history = [[0, 0, 0, 1, 2, 3], [0, 0, 0, 0, 0, 1], [0, 1, 1, 2, 2, 2], [0, 0, 0, 0, 3, 2], [1, 1]]
  state = scarcity.init(4)
  for step in range(len(history)):
    weights, state = update(scarcity, batch(*history[step]), state)
    expected = twin(history[: step + 1], 4, 3, exponent, 50.0)
    assert kind_weights(weights, history[step]) == pytest.approx(expected, rel=1e-5)
    assert float(jnp.mean(weights)) == pytest.approx(1.0, rel=1e-6)


def test_the_queue_remembers_what_a_batch_lacks():
  scarcity = gq.group_scarcity(2, queue_length=3)
  state = scarcity.init(4)
  _, state = update(scarcity, batch(0, 0, 0, 1), state)
  for _ in range(2):
    weights, state = update(scarcity, batch(0, 0, 0, 0), state)
    np.testing.assert_allclose(weights, 1.0)
  weights, state = update(scarcity, batch(0, 0, 0, 1), state)
  # 11 of 12 in the last three steps; 1 of 12 is less than half an example of this batch, 1 in 8.
  first, second = 1 / (2 * 11 / 12), 1 / (2 * 1 / 8)
  expected = second / ((3 * first + second) / 4)
  assert kind_weights(weights, [0, 0, 0, 1])[1] == pytest.approx(expected, rel=1e-5)
  np.testing.assert_allclose(jnp.abs(state.centroids[:, :2]).sum(axis=1), 1.0)
  assert state.ages.tolist() == [3, 3]


def test_a_group_without_anyone_in_the_queue_takes_the_farthest_example():
  scarcity = gq.group_scarcity(2, queue_length=3)
  state = scarcity.init(4)
  for kinds in ([0, 0, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0]):
    _, state = update(scarcity, batch(*kinds), state)
  assert state.counts.max() == 3
  _, state = update(scarcity, batch(0, 0, 0, 2), state)
  assert sorted(np.argmax(state.centroids, axis=1).tolist()) == [0, 2]
  assert sorted(state.ages.tolist()) == [0, 4]
  assert sorted(state.counts[(state.index - 1) % 3].tolist()) == [1, 3]


def test_a_group_in_the_queue_keeps_its_place_though_its_kind_is_absent():
  scarcity = gq.group_scarcity(2, queue_length=3)
  _, state = update(scarcity, batch(0, 0, 0, 1), scarcity.init(4))
  _, state = update(scarcity, batch(0, 0, 0, 2), state)  # a stranger, but no group is dead
  assert sorted(np.argmax(state.centroids, axis=1).tolist()) in ([0, 1], [0, 2], [1, 2])
  assert state.ages.tolist() == [1, 1]


def test_bounds_hold_and_the_mean_stays_one():
  kinds = [0] * 23 + [1]
  scarcity = gq.group_scarcity(2, 3, max_weight=5.0)
  weights, _ = update(scarcity, batch(*kinds), scarcity.init(4))
  found = kind_weights(weights, kinds)
  assert found[1] == pytest.approx(5.0, rel=1e-6)
  assert found[0] == pytest.approx((24 - 5) / 23, rel=1e-6)
  halved = gq.group_scarcity(2, 3, max_weight=5.0, exponent=0.5)
  weights, _ = update(halved, batch(*kinds), halved.init(4))
  assert float(weights.max()) == pytest.approx(5.0**0.5, rel=1e-6)


def test_what_cannot_be_grouped_is_neither_counted_nor_weighted():
  x = jnp.concatenate([batch(0, 0, 0, 1), jnp.array([[jnp.nan] * 4, [0.0] * 4, [jnp.inf] * 4])])
  scarcity = gq.group_scarcity(2, 3)
  weights, state = update(scarcity, x, scarcity.init(4))
  np.testing.assert_allclose(weights, [2 / 3, 2 / 3, 2 / 3, 2, 1, 1, 1], rtol=1e-6)
  assert sorted(state.counts[0].tolist()) == [1, 3]
  mask = jnp.arange(7) < 3
  padded, mask = jnp.pad(x, ((0, 17), (0, 0))), jnp.pad(mask, (0, 17))
  weights, state = scarcity.update(padded, scarcity.init(4), mask=mask)
  np.testing.assert_allclose(weights[:7], [1, 1, 1, 0, 0, 0, 0], rtol=1e-6)
  assert state.counts.sum() == 3


def test_fewer_examples_than_groups():
  scarcity = gq.group_scarcity(4, 3)
  weights, state = update(scarcity, batch(0, 1), scarcity.init(4))
  np.testing.assert_allclose(weights, 1.0, rtol=1e-6)
  _, state = update(scarcity, batch(0, 0, 2, 3), state)
  assert (state.counts.sum(axis=0) > 0).sum() == 4  # surplus groups took the new kinds


def test_pooling_gives_similar_groups_one_frequency():
  # One frequent kind that lies in two close places, and a rare one far away.
  near = np.array([[1.0, 0.0, 0, 0], [1.0, 0.1, 0, 0], [-1.0, 0.0, 0, 0]], np.float32)
  kinds = [0] * 5 + [1] * 4 + [2]
  x = jnp.asarray(near[kinds])
  plain, pooled = gq.group_scarcity(4, 3), gq.group_scarcity(4, 3, pooling=0.5)
  before = kind_weights(update(plain, x, plain.init(4))[0], kinds)
  after = kind_weights(update(pooled, x, pooled.init(4))[0], kinds)
  assert before == pytest.approx({0: 2 / 3, 1: 5 / 6, 2: 10 / 3}, rel=1e-5)
  # About two kinds, of nine and of one: weights 10 / 18 and 5.
  assert after == pytest.approx({0: 10 / 18, 1: 10 / 18, 2: 5.0}, rel=2e-2)
  apart = batch(0, 0, 1, 2, 3)  # nothing is near anything: nothing is pooled
  unpooled, _ = update(plain, apart, plain.init(4))
  np.testing.assert_allclose(update(pooled, apart, pooled.init(4))[0], unpooled, rtol=1e-6)


# Embeddings


# Explanations and diagnostics


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_explained_groups_name_their_nearest_examples(metric):
  x = np.array([[1, 0], [1, 0.2], [1, 0.1], [0, 1], [np.nan, 0], [1, 0.05]], np.float32)
  scarcity = gq.group_scarcity(2, metric=metric)
  _, state = scarcity.update(jnp.asarray(x), scarcity.init(2))
  explain = jax.jit(scarcity.explain, static_argnames="num_examples")
  groups = explain(jnp.asarray(x), state, num_examples=3)
  rare, frequent = groups.rarest_first
  assert groups.indices[rare].tolist() == [3, -1, -1]
  assert groups.indices[frequent].tolist()[:1] in ([2], [5])
  assert sorted(groups.sizes.tolist()) == [1, 4]
  assert float(groups.shares[rare]) == pytest.approx(0.2)
  assert groups.weights[rare] > groups.weights[frequent]
  centroid = np.asarray(state.centroids)[frequent]
  for index, distance in zip(groups.indices[frequent], groups.distances[frequent], strict=True):
    row = x[index]
    expected = (
      1 - row @ centroid / np.linalg.norm(row)
      if metric == "cosine"
      else ((row - centroid) ** 2).sum()
    )
    assert float(distance) == pytest.approx(expected, abs=1e-6)
  assert (np.diff(groups.distances[frequent]) >= 0).all()
  few = scarcity.explain(jnp.asarray(x[:2]), state, num_examples=4)
  chex.assert_shape(few.indices, (2, 4))


def test_figures_of_group_scarcity():
  kinds = [0] * 16 + [1] * 3 + [2]
  scarcity = gq.group_scarcity(4, 3)
  state = scarcity.init(4)
  for _ in range(2):
    weights, state = update(scarcity, batch(*kinds), state)
  figures = gq.diagnostics({"groups": state})
  chex.assert_shape(list(figures.values()), ())
  shares = sorted(float(figures[f"group_share/{k}"]) for k in range(4))
  assert shares == pytest.approx([0, 1 / 20, 3 / 20, 16 / 20])
  assert (figures["groups_seen"], figures["grouped_steps"]) == (3, 2)
  w = np.asarray(weights, np.float64)
  np.testing.assert_allclose(figures["effective_examples"], w.sum() ** 2 / (w**2).sum(), rtol=1e-5)
  np.testing.assert_allclose(figures["rarest_tenth"], np.sort(w)[-2:].sum() / w.sum(), rtol=1e-5)
  ages = sorted(float(figures[f"group_age/{k}"]) for k in range(4))
  assert ages == [1, 1, 1, 2]  # the group that stays empty was never seeded


# Groups that begin where they are told to, in place of a search in the first batch.


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_without_iterations_the_groups_stay_where_they_begin(metric):
  scarcity = gq.group_scarcity(3, 2, num_iters=0, metric=metric, centroids=3 * AXES[:3])
  x = jnp.asarray([[2.0, 0.1, 0, 0], [3, 0, 0.2, 0], [1, 0.3, 0, 0], [0, 0, 4, 0.1]])
  weights, state = update(scarcity, x, scarcity.init(4))
  np.testing.assert_allclose(weights, [2 / 3, 2 / 3, 2 / 3, 2], rtol=1e-6)
  length = 1 if metric == "cosine" else 3
  np.testing.assert_array_equal(state.centroids, length * AXES[:3])
  assert state.counts[0].tolist() == [3, 0, 1]


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_a_step_from_given_centroids_is_a_step_from_those_of_a_state(metric):
  x = jnp.asarray(blobs(0, rows=48, dim=4, centers=3))
  first = gq.group_scarcity(3, metric=metric)
  _, state = update(first, x[:24], first.init(4))
  given = gq.group_scarcity(3, metric=metric, centroids=state.centroids)
  _, expected = update(first, x[24:], state)
  _, found = update(given, x[24:], given.init(4))
  np.testing.assert_allclose(found.centroids, expected.centroids, rtol=1e-6, atol=1e-6)
  assert found.counts[0].tolist() == expected.counts[1].tolist()
  # A state that has begun goes on from its own.
  _, again = update(given, x[:24], found)
  _, expected = update(first, x[:24], expected)
  np.testing.assert_allclose(again.centroids, expected.centroids, rtol=1e-6, atol=1e-6)


def test_a_kind_that_the_first_batches_lack_keeps_its_group():
  scarcity = gq.group_scarcity(3, queue_length=3, centroids=AXES[:3])
  state = scarcity.init(4)
  for kinds in ([0, 0, 1], [0, 0, 3, 1]):  # a stranger, too, does not take the empty group
    _, state = update(scarcity, batch(*kinds), state)
    np.testing.assert_array_equal(state.centroids[2], AXES[2])
  _, state = update(scarcity, batch(0, 0, 1, 2), state)
  assert state.counts[2].tolist() == [2, 1, 1]
  assert state.ages.tolist() == [3, 3, 3]


def test_after_a_whole_queue_without_anyone_it_takes_the_farthest_example():
  scarcity = gq.group_scarcity(2, queue_length=2, centroids=AXES[:2])
  state = scarcity.init(4)
  for _ in range(2):
    _, state = update(scarcity, batch(0, 0, 0), state)
  np.testing.assert_array_equal(state.centroids, AXES[:2])
  _, state = update(scarcity, batch(0, 0, 0, 3), state)
  np.testing.assert_array_equal(state.centroids, AXES[[0, 3]])
  assert state.ages.tolist() == [3, 0]


def test_nothing_to_group_does_not_count_as_a_beginning():
  scarcity = gq.group_scarcity(2, centroids=AXES[:2])
  state = scarcity.init(4)
  _, after = scarcity.update(jnp.full((3, 4), jnp.nan), state)
  jax.tree.map(np.testing.assert_array_equal, after, state)
  _, state = scarcity.update(batch(0, 0, 1), after)
  np.testing.assert_array_equal(state.centroids, AXES[:2])


def test_centroids_may_be_traced():
  x = batch(0, 0, 1, dim=3)

  @jax.jit
  def weights(centroids):
    scarcity = gq.group_scarcity(2, centroids=centroids)
    return scarcity.update(x, scarcity.init(3))

  found, state = weights(jnp.eye(2, 3))
  np.testing.assert_allclose(found, [0.75, 0.75, 1.5], rtol=1e-6)
  gradient = jax.grad(lambda c: jnp.sum(weights(c)[0] * jnp.arange(3.0)))(jnp.eye(2, 3))
  np.testing.assert_array_equal(gradient, 0.0)
  # What is not finite is found only later: it is zero, so that the state is safe.
  found, state = weights(jnp.eye(2, 3).at[1, 0].set(jnp.nan))
  assert np.isfinite(state.centroids).all()
  assert np.isfinite(found).all()


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_centroids_of_any_size(size):
  scarcity = gq.group_scarcity(2, metric="euclidean", centroids=size * AXES[:2])
  weights, state = update(scarcity, batch(0, 0, 1), scarcity.init(4))
  assert np.isfinite(weights).all()
  assert np.isfinite(state.centroids).all()
