# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The figures against NumPy, found in any nest of transformations."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gq_optax as gq


def run(tx, gradients, **extra):
  """The last update, and the state after each step."""
  state, update, states = (
    tx.init(jax.tree.map(jnp.zeros_like, gradients[0])),
    jax.jit(tx.update),
    [],
  )
  for gradient in gradients:
    result, state = update(gradient, state, **extra)
    states.append(state)
  return result, states


def test_figures_of_a_mean_gradient():
  history = [[9, 9, 9, 9], [1, 0, 5, 2], [3, 0, 5, 4], [4, 1, 5, 4]]
  result, states = run(gq.grad_queue(2, rho=3.0, track=True), list(np.float32(history)))
  *before, figures = map(gq.diagnostics, states)
  for found in before:
    assert (found["mean_weight"], found["amplified"], found["damped"]) == (1, 0, 0)
    assert (found["cosine"], found["norm_ratio"]) == pytest.approx((1, 1))
  weights = np.array([2.0, 3.0, 1 / 3, 1.0])  # mean and std of the last two: 2 1, 0 0, 5 0, 3 1
  gradient = np.float64(history[-1])
  weighed = weights * gradient
  np.testing.assert_allclose(result, weighed, rtol=1e-6)
  chex.assert_shape(list(figures.values()), ())
  expected = {
    "effective_length": 2,
    "mean_weight": weights.mean(),
    "amplified": 0.5,
    "damped": 0.25,
    "cosine": weighed @ gradient / np.linalg.norm(weighed) / np.linalg.norm(gradient),
    "norm_ratio": np.linalg.norm(weighed) / np.linalg.norm(gradient),
    "queued": 4,
    "skipped": 0,
  }
  assert {name: float(value) for name, value in figures.items()} == pytest.approx(expected)


def test_figures_of_groups():
  tx = gq.grad_queue(1, num_clusters=3, track=True)
  update, state = jax.jit(tx.update), tx.init(jnp.zeros(2))
  embeddings = np.repeat([0.0, 10.0, 100.0], [1, 2, 5])[:, None] + 0.01 * np.arange(8.0)[:, None]
  per_example = np.stack([np.arange(8.0), np.ones(8)], axis=1).astype(np.float32)
  for _ in range(3):
    result, state = update(per_example, state, embeddings=embeddings.astype(np.float32))
  figures = gq.diagnostics(state)
  assert sorted(float(figures[f"group_count/{k}"]) for k in range(3)) == [1, 2, 5]
  expected = sum(((g - g.mean()) ** 2).sum() for g in np.split(embeddings, [1, 3]))
  np.testing.assert_allclose(figures["inertia"], expected, rtol=1e-3)
  # First coordinate: group means 0, 1.5, 5 of 1, 2 and 5 examples against the constant mean 3.5;
  # sigma is 0, so all rho.
  # Second: constant 1, damped to 1/3.
  np.testing.assert_allclose(result, [3 * (2 * 1.5 + 5 * 5) / 8, 1 / 3], rtol=1e-5)
  assert figures["mean_weight"] == pytest.approx((3 + 1 / 3) / 2)
  assert (figures["amplified"], figures["damped"]) == pytest.approx((0.5, 0.5))


def test_a_skipped_step_is_counted_and_keeps_the_figures():
  _, states = run(gq.grad_queue(2, track=True), list(np.float32([[1, 1, 1], [1, np.nan, 0]])))
  before, after = map(gq.diagnostics, states)
  assert (before.pop("skipped"), after.pop("skipped")) == (0, 1)
  chex.assert_trees_all_equal(after, before)
  chex.assert_tree_all_finite(after)


def test_norms_of_extreme_gradients_and_of_an_update_that_nothing_weighs():
  tx = gq.grad_queue(1, rho=2.0, track=True)
  for gradient in (0.0, 1e-36, 1e38):
    figures = gq.diagnostics(run(tx, [np.full(50, gradient, np.float32)] * 4)[1][-1])
    assert figures["cosine"] == pytest.approx(1.0)
    assert figures["norm_ratio"] == pytest.approx(0.5 if gradient else 1.0)
  update, states = run(gq.grad_queue(3, update_norm=0.5, track=True), [np.ones(3, np.float32)])
  np.testing.assert_array_equal(update, 1.0)
  assert gq.diagnostics(states[-1])["norm_ratio"] == 1.0


def test_a_cosine_is_within_its_range_whatever_the_rounding():
  def cosine(gradient):
    tx = gq.grad_queue(1, rho=1.7, track=True)
    step = lambda state, _: (tx.update(gradient, state)[1], None)
    return gq.diagnostics(jax.lax.scan(step, tx.init(gradient), length=3)[0])["cosine"]

  found = jax.jit(jax.vmap(cosine))(jax.random.normal(jax.random.key(0), (500, 7)))
  assert (jnp.abs(found) <= 1.0).all()
  np.testing.assert_allclose(found, 1.0, rtol=1e-6)


@pytest.mark.standard_promotion  # wrappers of Optax
def test_found_in_any_nest():
  inner = optax.chain(optax.clip(9.0), gq.grad_queue(track=True), optax.adam(0.1))
  static = ("queue_length", "num_clusters", "key", "track")
  nests = [
    optax.named_chain(("first", inner)),
    optax.MultiSteps(optax.apply_if_finite(inner, 3), 1),
    optax.masked(inner, {"a": True, "b": False}),
    optax.partition({"x": inner, "y": optax.sgd(0.1)}, {"a": "x", "b": "y"}),
    optax.inject_hyperparams(gq.grad_queue, static)(track=True),
  ]
  params = {"a": jnp.ones(2), "b": jnp.ones(3)}
  for tx in nests:
    _, state = tx.update(params, tx.init(params), params)
    assert gq.diagnostics(state)["queued"] == 1
    assert jax.jit(gq.diagnostics)(state)["queued"] == 1  # inside a compiled step, too


def test_no_figure_of_two_states_of_any_kinds_is_lost():
  groups, examples = gq.group_scarcity(2).init(3), gq.example_scarcity(4).init(3)
  queue = gq.grad_queue(2, track=True).init(jnp.zeros(2))
  for states in ((groups, examples), (examples, groups), {"a": queue, "b": (examples, groups)}):
    leaves = jax.tree.leaves(states, is_leaf=lambda node: hasattr(node, "_fields"))
    expected = {f"{i}/{name}" for i, state in enumerate(leaves) for name in gq.diagnostics(state)}
    assert set(gq.diagnostics(states)) == expected


@pytest.mark.parametrize("queue_length", [3, (2, 7)])
@pytest.mark.parametrize("queue_dtype", [None, jnp.bfloat16])
def test_state_bytes_is_exact(queue_length, queue_dtype):
  params = {"w": jnp.zeros((7, 5)), "b": jnp.zeros(5, jnp.bfloat16)}
  tx = gq.grad_queue(queue_length, queue_dtype=queue_dtype, track=True)
  allocated = sum(leaf.nbytes for leaf in jax.tree.leaves(tx.init(params)))
  shapes = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), params)
  assert gq.state_bytes(tx, params) == gq.state_bytes(tx, shapes) == allocated


def test_many_small_leaves_count_as_one_leaf_of_all_coordinates():
  """More of a shape than are looked at together, and two shapes."""
  tx = gq.grad_queue(queue_length=2, track=True, update_norm="match")
  rng = np.random.default_rng(0)
  batches = [rng.normal(size=(70, 4)).astype(np.float32) * np.float32(3.0**i) for i in range(5)]
  apart = lambda x: [row if i % 3 else row[:, None] for i, row in enumerate(x)]
  expected, (*_, whole) = run(tx, batches)
  found, (*_, parts) = run(tx, list(map(apart, batches)))
  chex.assert_trees_all_close(found, apart(expected), rtol=1e-5)
  chex.assert_trees_all_close(gq.diagnostics(parts), gq.diagnostics(whole), rtol=1e-5)
  assert 0.0 < gq.diagnostics(whole)["amplified"] < 1.0
  update = jax.jit(tx.update)
  for bad in (0, 1, 35, 69):  # in each of the parts that are looked at together
    batch = batches[0].copy()
    batch[bad, 2] = np.nan
    _, after = update(apart(batch), parts)
    chex.assert_trees_all_equal(after.queue, parts.queue)
    assert gq.diagnostics(after)["skipped"] == 1


def test_a_program_grows_with_the_number_of_leaves_and_not_with_its_square():
  def size(number):
    tx, leaves = gq.grad_queue(update_norm="match"), [jnp.ones((200, 100))] * number
    return len(jax.jit(tx.update).lower(leaves, tx.init(leaves)).compile().as_text())

  assert size(30) < 2.05 * size(15)
