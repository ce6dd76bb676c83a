# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Group scarcity: hand cases, a NumPy twin, and bounds under any input."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kinds import batch, update

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


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_input_gives_finite_weights_of_mean_one_within_the_bounds(data):
  rows, groups = 6, 8  # fewer examples than groups
  number = st.sampled_from([0.0, 1.0, -1.0, 1e-30, 1e30, -3e38, np.nan, np.inf, 0.5])
  x = np.array(data.draw(st.lists(number, min_size=3 * rows, max_size=3 * rows)), np.float32)
  mask = np.array(data.draw(st.lists(st.booleans(), min_size=rows, max_size=rows)))
  metric = data.draw(st.sampled_from(["cosine", "euclidean"]))
  pooling = jnp.float32(data.draw(st.sampled_from([0.0, 0.5])))
  scarcity = gq.group_scarcity(groups, 2, metric=metric, pooling=pooling, max_weight=8.0)
  state = scarcity.init(3)
  for rows_of in (x, x[::-1], x):
    x_now = jnp.asarray(rows_of.reshape(rows, 3))
    weights, state = scarcity.update(x_now, state, mask=jnp.asarray(mask))
    chex.assert_tree_all_finite((weights, state))
    weights = np.asarray(weights)
    assert (weights[~mask] == 0.0).all()
    if mask.any():
      assert weights[mask].mean() == pytest.approx(1.0, rel=1e-5)
      assert weights[mask].min() >= 1 / 8 * (1 - 1e-5)
      assert weights[mask].max() <= 8 * (1 + 1e-5)


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


def test_nothing_to_group_leaves_the_state_as_it_was():
  scarcity = gq.group_scarcity(2, 3)
  _, state = update(scarcity, batch(0, 0, 1), scarcity.init(4))
  for x, mask in ((jnp.full((24, 4), jnp.nan), None), (jnp.ones((24, 4)), jnp.zeros(24, bool))):
    weights, after = scarcity.update(x, state, mask=mask)
    chex.assert_trees_all_equal(after, state)
    np.testing.assert_array_equal(weights, 1.0 if mask is None else 0.0)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_the_same_embedding_for_all_weighs_all_the_same(metric):
  scarcity = gq.group_scarcity(4, 3, metric=metric, pooling=0.5)
  state = scarcity.init(4)
  for _ in range(3):
    weights, state = update(scarcity, jnp.full((6, 4), 0.3), state)
    np.testing.assert_allclose(weights, 1.0, rtol=1e-6)
  assert (state.counts.sum(axis=0) > 0).sum() == 1


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


def test_the_order_of_the_batch_is_the_order_of_the_weights():
  scarcity = gq.group_scarcity(4, 3)
  x = batch(0, 0, 0, 1, 1, 2, 3)
  order = jnp.array([6, 0, 3, 5, 1, 4, 2])
  straight, _ = update(scarcity, x, scarcity.init(4))
  shuffled, _ = update(scarcity, x[order], scarcity.init(4))
  np.testing.assert_allclose(shuffled, straight[order], rtol=1e-6)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"num_groups": 0}, "num_groups must be at least 1, but 0"),
    ({"queue_length": 0}, "queue_length must be at least 1, but 0"),
    ({"exponent": -1.0}, r"exponent must be in \[0.0, 4.0\], but -1.0"),
    ({"metric": "manhattan"}, "metric must be one of"),
    ({"num_iters": -1}, "num_iters must be at least 0, but -1"),
    ({"max_weight": 0.5}, r"max_weight must be in \[1.0, inf\), but 0.5"),
    ({"pooling": -0.1}, r"pooling must be in \[0.0, inf\), but -0.1"),
    ({"key": 1.5}, "key must be an int or one PRNG key, but 1.5"),
    ({"centroids": np.ones(4)}, r"centroids must be \[K, d\] = \[2, d\], but shape \(4,\)"),
    ({"centroids": np.ones((3, 4))}, r"must be \[K, d\] = \[2, d\], but shape \(3, 4\)"),
    ({"centroids": np.ones((2, 4), complex)}, "centroids must be real, but complex"),
    ({"centroids": [[1.0, np.nan], [1.0, 2.0]]}, "must be finite, but NaN or Inf .* 1 of 2 rows"),
  ],
)
def test_options_out_of_range(options, message):
  with pytest.raises(ValueError, match=message):
    gq.group_scarcity(**{"num_groups": 2, **options})


def test_shapes_that_do_not_fit():
  scarcity = gq.group_scarcity(2, 3)
  state = scarcity.init(4)
  for x in (jnp.ones(4), jnp.ones((3, 5))):
    with pytest.raises(ValueError, match=r"embeddings must be \[B, ...\] with 4 numbers"):
      scarcity.update(x, state)
  with pytest.raises(ValueError, match="embeddings must have a real floating dtype"):
    scarcity.update(jnp.ones((3, 4), jnp.int32), state)
  with pytest.raises(ValueError, match=r"mask must be \[B\] with B = 3"):
    scarcity.update(jnp.ones((3, 4)), state, mask=jnp.ones(2, bool))
  with pytest.raises(ValueError, match="mask must be bool, but float32"):
    scarcity.update(jnp.ones((3, 4)), state, mask=jnp.ones(3))
  with pytest.raises(ValueError, match="the template of init must be"):
    scarcity.init(jnp.ones(4))


# Embeddings


def test_one_number_has_no_direction():
  """Every positive number has the same: a rare target would weigh less than a common one."""
  y = jnp.concatenate([0.1 * jax.random.normal(jax.random.key(0), (60,)), jnp.array([5.0, 5.1])])
  residuals = gq.output_gradients(optax.l2_loss, jnp.zeros_like(y), y)[:, None]
  cosine, euclidean = gq.group_scarcity(10), gq.group_scarcity(10, metric="euclidean")
  message = r"embeddings of metric='cosine' must have 2 numbers.*1 was found.*metric='euclidean'"
  state = euclidean.init(1)
  for call in (
    lambda: cosine.init(1),
    lambda: cosine.init(residuals),
    lambda: cosine.update(residuals, state),
    lambda: jax.eval_shape(cosine.update, residuals, state),
    lambda: cosine.explain(residuals, state),
  ):
    with pytest.raises(ValueError, match=message):
      call()
  weights, state = euclidean.update(residuals, state)
  assert float(weights[-2:].min()) > 3.0 > float(weights[:60].mean())
  euclidean.explain(residuals, state)
