# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Per-example gradients in microbatches, and what they reduce to."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gq_optax as gq
from gq_optax._group_gradients import grouped

BATCH, GROUPS = 14, 3
LABELS = jnp.array([0, 2, 2, 0, 7, 2, 0, -1, 0, 2, 2, 0, 2, 0])


def loss_fn(params, batch):
  return jnp.sum(jnp.tanh(batch @ params["w"]) + params["b"][None], axis=1)


@pytest.fixture(autouse=True)
def exact_products():
  """GPUs make float32 products of fewer digits, unless they are asked."""
  with jax.default_matmul_precision("highest"):
    yield


@pytest.fixture(name="problem")
def make_problem():
  keys = jax.random.split(jax.random.key(0), 3)
  params = {"w": jax.random.normal(keys[0], (5, 4)), "b": jax.random.normal(keys[1], (4,))}
  return params, jax.random.normal(keys[2], (BATCH, 5))


def one_by_one(params, batch):
  each = [jax.grad(lambda p, x=x: loss_fn(p, x[None])[0])(params) for x in batch]
  return jax.tree.map(lambda *g: jnp.stack(g), *each)


@pytest.mark.parametrize("microbatch_size", [None, 1, 4, 7, 14, 100])
def test_equal_to_one_by_one(problem, microbatch_size):
  function = gq.per_example_value_and_grad(loss_fn, microbatch_size=microbatch_size)
  losses, gradients = jax.jit(function)(*problem)
  chex.assert_trees_all_close(gradients, one_by_one(*problem), rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(losses, loss_fn(*problem), rtol=1e-5)


@pytest.mark.parametrize("microbatch_size", [None, 1, 4, 7, 100])
def test_reduced_on_the_way_equals_grouped(problem, microbatch_size):
  params, batch = problem
  batch = batch.at[4].set(jnp.nan)  # in no group
  reduce = gq.per_example_value_and_grad(
    loss_fn, microbatch_size=microbatch_size, num_groups=GROUPS
  )
  losses, groups = jax.jit(reduce)(params, batch, LABELS)
  _, expected = gq.grouped_value_and_grad(loss_fn, GROUPS)(params, batch, LABELS)
  chex.assert_trees_all_close(groups, expected, rtol=1e-5, atol=1e-6)
  assert losses.shape == (BATCH,)
  assert np.isnan(losses[4])


@pytest.mark.parametrize("in_turn", [False, True])
def test_an_example_of_no_group_has_its_loss(problem, in_turn, monkeypatch):
  monkeypatch.setattr(grouped, "_keep_much", lambda *_: in_turn)
  params, batch = problem
  labels = jnp.arange(len(jax.tree.leaves(batch)[0])) % 4 - 1
  by_group = gq.per_example_value_and_grad(loss_fn, num_groups=2, microbatch_size=5)
  losses, _ = jax.jit(by_group)(params, batch, labels)
  np.testing.assert_allclose(losses, loss_fn(params, batch), rtol=1e-5)


@pytest.mark.parametrize("accelerator", [False, True])
def test_reducing_takes_the_bytes_that_its_page_says(accelerator, request):
  if accelerator:
    request.getfixturevalue("as_on_an_accelerator")
  params = {"w": jnp.zeros((200, 50)), "b": jnp.zeros(50)}
  batch, labels = jnp.zeros((512, 200)), jnp.zeros(512, jnp.int32)
  reduce = gq.per_example_value_and_grad(loss_fn, microbatch_size=8, num_groups=2)
  memory = jax.jit(reduce).lower(params, batch, labels).compile().memory_analysis()
  weight, gradient, example = 4 * 200 * 50, 4 * (200 * 50 + 50), 4 * (200 + 4 * 50)
  # Sums that are carried, and results; blocks of one weight; eight examples; some indices.
  rule = 2 * 2 * gradient + (2 * 2 + 1) * weight + 8 * 2 * example + 4 * 512 * 4
  assert memory.temp_size_in_bytes + memory.output_size_in_bytes <= rule < 10 * gradient  # of 512
