# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Groups that begin where they are told to, in place of a search in the first batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kinds import batch, blobs, update

import gq_optax as gq

AXES = np.eye(4, dtype=np.float32)


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


def test_the_update_has_no_loop():
  """A GPU waits for the host at each."""
  x = jnp.asarray(blobs(1, rows=24, dim=4))

  def program(**options):
    scarcity = gq.group_scarcity(3, pooling=0.5, **options)
    return str(jax.make_jaxpr(scarcity.update)(x, scarcity.init(4)))

  assert "while" in program()
  assert "while" not in program(centroids=AXES[:3])
  assert "scan" not in program(centroids=AXES[:3])


def test_the_state_may_be_donated():
  scarcity = gq.group_scarcity(2, queue_length=3, centroids=AXES[:2])
  step = jax.jit(scarcity.update, donate_argnums=1)
  x = batch(0, 0, 1)
  for _ in range(2):
    _, state = step(x, scarcity.init(4))
    np.testing.assert_array_equal(state.centroids, AXES[:2])


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


def test_centroids_as_wide_as_embeddings():
  scarcity = gq.group_scarcity(2, centroids=AXES[:2])
  message = r"centroids must be \[K, d\] with the 3 numbers of an embedding, but shape \(2, 4\)"
  state = gq.group_scarcity(2).init(3)
  for call in (lambda: scarcity.init(3), lambda: scarcity.update(jnp.ones((5, 3)), state)):
    with pytest.raises(ValueError, match=message):
      call()
