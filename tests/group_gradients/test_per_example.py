# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Gradients of examples, a few at a time; batches as they come, and padding left out of them."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from grouped_networks import means, normal, tanh_gradients, tanh_loss

import gq_optax as gq

W = {"w": np.float32([1.0, -0.5])}
KINDS = np.float32([[9.0, 0.0], [0.0, 9.0], [-9.0, -9.0]])


def rows(number, seed=0):
  noise = np.random.RandomState(seed).randn(number, 2).astype(np.float32)
  return KINDS[np.arange(number) % 3] + np.float32(0.1) * noise


def loss_fn(params, x):
  return jnp.square(x @ params["w"]), x


losses_alone = lambda params, x: loss_fn(params, x)[0]
per_example = lambda x: {"w": 2.0 * (x @ W["w"])[:, None] * x}


def test_fewer_examples_than_clusters():
  tx = gq.grad_queue(2, num_clusters=4, track=True)
  update, state, x, counts = jax.jit(tx.update), tx.init(W), rows(1), [0, 0, 0, 1]
  for x_now in (rows(8), rows(8), x):
    updates, state = update(per_example(x_now), state, embeddings=x_now)
  assert sorted(state.figures.group_counts.tolist()) == counts
  assert state.queue.count == 3
  chex.assert_tree_all_finite((updates, state))

  (loss, clusters), groups = jax.jit(gq.clustered_value_and_grad(loss_fn, 4))(W, x)
  assert (clusters.labels.shape, clusters.centroids.shape) == ((1,), (4, 2))
  assert sorted(groups.counts.tolist()) == sorted(clusters.counts.tolist()) == counts
  np.testing.assert_allclose(loss, losses_alone(W, x).mean(), rtol=1e-6)
  expected = means(per_example(x)["w"], np.asarray(clusters.labels), 4)
  np.testing.assert_allclose(groups.grads["w"], expected, rtol=1e-5)

  _, groups = jax.jit(gq.grouped_value_and_grad(losses_alone, 4))(W, x, np.array([0]))
  np.testing.assert_array_equal(groups.counts, counts[::-1])
  np.testing.assert_array_equal(groups.grads["w"][1:], 0.0)


@pytest.mark.parametrize(("clusters", "queue_length"), [(1, (1, 2)), (3, 2)])
def test_a_mask_leaves_padding_out_of_clusters_and_means(clusters, queue_length):
  tx = gq.grad_queue(queue_length, num_clusters=clusters, track=True)
  update = jax.jit(tx.update)
  state, padded_state = tx.init(W), tx.init(W)
  mask = np.array([True] * 7 + [False] * 2)
  for seed in range(4):
    x = rows(7, seed)
    each = per_example(x)
    junk = {"w": np.concatenate([each["w"], np.float32([[np.nan, 1e30], [-5.0, np.inf]])])}
    embeddings = np.concatenate([x, np.full((2, 2), 4.0, "f")])
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


MATRIX, X = normal(0, 5, 4), normal(1, 14, 1, 5)
LABELS = np.array([0, 2, 2, 0, 7, 2, 0, -1, 0, 2, 2, 0, 2, 0])


@pytest.mark.parametrize(
  ("microbatch_size", "masked"), [(None, True), (4, True), (5, False), (100, False)]
)
def test_equal_to_one_by_one_and_reduced_on_the_way(microbatch_size, masked):
  x, odd, mask = X.copy(), np.arange(14) == 4, None
  x[odd] = np.nan
  each, lost, labels = tanh_gradients(MATRIX, x), np.array(tanh_loss(MATRIX, x)), LABELS.copy()
  if masked:
    each[odd], lost[odd], labels[odd], mask = 0.0, 0.0, 1, ~odd
  options = {"microbatch_size": microbatch_size}
  by_example = jax.jit(gq.per_example_value_and_grad(tanh_loss, **options))
  losses, gradients = by_example(MATRIX, x, mask)
  np.testing.assert_allclose(gradients, each, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(losses, lost, rtol=1e-5)
  by_group = jax.jit(gq.per_example_value_and_grad(tanh_loss, num_groups=3, **options))
  losses, groups = by_group(MATRIX, x, labels, mask)
  expected = means(each[~odd], labels[~odd], 3)
  np.testing.assert_allclose(groups.grads, expected, rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(groups.counts, [6, 0, 6])
  np.testing.assert_allclose(losses, lost, rtol=1e-5)  # also that of no group


@pytest.mark.parametrize("accelerator", [False, True])
def test_reducing_takes_the_bytes_that_its_page_says(accelerator, request):
  if accelerator:
    request.getfixturevalue("as_on_an_accelerator")
  shape = jax.ShapeDtypeStruct
  loss_fn = lambda p, x: jnp.sum(jnp.tanh(x @ p["w"] + p["b"][None]), axis=1)
  params = {"w": shape((200, 50), "f4"), "b": shape((50,), "f4")}
  reduce = gq.per_example_value_and_grad(loss_fn, microbatch_size=8, num_groups=2)
  lowered = jax.jit(reduce).lower(params, shape((512, 200), "f4"), shape((512,), "i4"))
  memory = lowered.compile().memory_analysis()
  weight, gradient, example = 4 * 200 * 50, 4 * (200 * 50 + 50), 4 * (200 + 4 * 50)
  # Sums that are carried, and results; blocks of one weight; eight examples; some indices.
  rule = 2 * 2 * gradient + (2 * 2 + 1) * weight + 8 * 2 * example + 4 * 512 * 4
  assert memory.temp_size_in_bytes + memory.output_size_in_bytes <= rule < 10 * gradient  # of 512
