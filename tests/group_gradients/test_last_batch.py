# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Batches as they come: fewer examples than clusters, and padding that a mask leaves out."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gq_optax as gq

W = {"w": jnp.array([1.0, -0.5])}
KINDS = np.array([[9.0, 0.0], [0.0, 9.0], [-9.0, -9.0]], np.float32)


def rows(number, seed=0):
  noise = np.random.RandomState(seed).randn(number, 2).astype(np.float32)
  return jnp.asarray(KINDS[np.arange(number) % 3] + 0.1 * noise)


def loss_fn(params, x):
  return jnp.square(x @ params["w"]), x


losses_alone = lambda params, x: loss_fn(params, x)[0]


def per_example(x):
  return jax.vmap(jax.grad(lambda p, r: losses_alone(p, r[None])[0]), (None, 0))(W, x)


@pytest.mark.parametrize("number", [1, 3])
def test_fewer_examples_than_clusters(number):
  x = rows(number)
  tx = gq.grad_queue(2, num_clusters=4, track=True)
  state = tx.init(W)
  for size in (8, 8, number):
    updates, state = tx.update(per_example(rows(size)), state, embeddings=rows(size))
  counts = np.sort(state.figures.group_counts)
  np.testing.assert_array_equal(counts, [0] * (4 - number) + [1] * number)
  assert state.queue.count == 3
  chex.assert_tree_all_finite((updates, state))

  (loss, clusters), groups = gq.clustered_value_and_grad(loss_fn, 4)(W, x)
  assert (clusters.labels.shape, clusters.centroids.shape) == ((number,), (4, 2))
  assert sorted(groups.counts.tolist()) == sorted(clusters.counts.tolist()) == counts.tolist()
  np.testing.assert_allclose(loss, losses_alone(W, x).mean(), rtol=1e-6)
  for k in range(4):
    own = np.asarray(clusters.labels) == k
    expected = np.asarray(per_example(x)["w"])[own].mean(axis=0) if own.any() else np.zeros(2)
    np.testing.assert_allclose(groups.grads["w"][k], expected, rtol=1e-5)

  _, groups = gq.grouped_value_and_grad(losses_alone, 4)(W, x, jnp.arange(number))
  np.testing.assert_array_equal(groups.counts, [1] * number + [0] * (4 - number))
  np.testing.assert_array_equal(groups.grads["w"][number:], 0.0)


@pytest.mark.parametrize("clusters", [1, 3])
@pytest.mark.parametrize("queue_length", [2, (1, 2)])
def test_a_mask_leaves_padding_out_of_clusters_and_means(clusters, queue_length):
  tx = gq.grad_queue(queue_length, num_clusters=clusters, track=True)
  update = jax.jit(tx.update)
  state, padded_state = tx.init(W), tx.init(W)
  mask = jnp.array([True] * 7 + [False] * 2)
  for seed in range(4):
    x = rows(7, seed)
    each = per_example(x)
    junk = {"w": jnp.concatenate([each["w"], jnp.array([[jnp.nan, 1e30], [-5.0, jnp.inf]])])}
    embeddings = jnp.concatenate([x, jnp.full((2, 2), 4.0)])
    value = jnp.float32(3.0 - seed)
    expected, state = update(each, state, embeddings=x, value=value)
    found, padded_state = update(junk, padded_state, embeddings=embeddings, mask=mask, value=value)
    chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-6)
  chex.assert_trees_all_close(padded_state.queue, state.queue, rtol=1e-5, atol=1e-6)
  sizes = [np.sort(s.figures.group_counts) for s in (padded_state, state)]
  np.testing.assert_array_equal(*sizes)
  assert sizes[0].sum() == 7
  # With nobody left nothing happens.
  found, after = update(junk, state, embeddings=embeddings, mask=mask & False, value=value)
  np.testing.assert_array_equal(found["w"], 0.0)
  chex.assert_trees_all_equal(after.queue, state.queue)
  assert after.figures.skipped == 1


@pytest.mark.parametrize("microbatch_size", [None, 2])
def test_per_example_gradients_with_a_mask(microbatch_size):
  x = rows(5).at[4].set(jnp.nan)
  mask, labels = jnp.arange(5) < 4, jnp.array([0, 1, 1, 0, 1], jnp.uint8)
  losses, each = gq.per_example_value_and_grad(losses_alone, microbatch_size=microbatch_size)(
    W, x, mask
  )
  np.testing.assert_allclose(each["w"][:4], per_example(x[:4])["w"], rtol=1e-6)
  np.testing.assert_array_equal(each["w"][4], 0.0)
  assert losses[4] == 0.0
  by_group = gq.per_example_value_and_grad(
    losses_alone, microbatch_size=microbatch_size, num_groups=2
  )
  losses, groups = by_group(W, x, labels, mask=mask)
  expected = by_group(W, x[:4], labels[:4])
  chex.assert_trees_all_close((losses[:4], groups), expected, rtol=1e-6)
  assert losses[4] == 0.0
