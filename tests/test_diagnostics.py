# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The figures against NumPy, found in any nest of transformations."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gq_optax as gq


def cosine(a, b):
  return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def test_figures_of_a_mean_gradient():
  tx = gq.grad_queue(2, rho=3.0, track=True)
  update, state = jax.jit(tx.update), tx.init(jnp.zeros(4))
  history = np.array([[9, 9, 9, 9], [1, 0, 5, 2], [3, 0, 5, 4]], np.float32)
  for g in history:
    result, state = update(jnp.asarray(g), state)
    figures = gq.diagnostics(state)
    assert (figures["mean_weight"], figures["amplified"], figures["damped"]) == (1, 0, 0)
    assert (figures["cosine"], figures["norm_ratio"]) == pytest.approx((1, 1))
  gradient = np.array([4.0, 1.0, 5.0, 4.0], np.float32)
  weights = np.array([2.0, 3.0, 1 / 3, 1.0])  # mean and std of the last two: 2 1, 0 0, 5 0, 3 1
  result, state = update(jnp.asarray(gradient), state)
  np.testing.assert_allclose(result, weights * gradient, rtol=1e-6)
  figures = gq.diagnostics(state)
  assert set(figures) == {
    *("effective_length", "mean_weight", "amplified", "damped"),
    *("cosine", "norm_ratio", "queued", "skipped"),
  }
  chex.assert_shape(list(figures.values()), ())
  assert (figures["effective_length"], figures["queued"], figures["skipped"]) == (2, 4, 0)
  np.testing.assert_allclose(figures["mean_weight"], weights.mean(), rtol=1e-6)
  assert (figures["amplified"], figures["damped"]) == (0.5, 0.25)
  np.testing.assert_allclose(figures["cosine"], cosine(weights * gradient, gradient), rtol=1e-6)
  ratio = np.linalg.norm(weights * gradient) / np.linalg.norm(gradient)
  np.testing.assert_allclose(figures["norm_ratio"], ratio, rtol=1e-6)


def test_figures_of_groups():
  tx = gq.grad_queue(1, num_clusters=3, track=True)
  update, state = jax.jit(tx.update), tx.init(jnp.zeros(2))
  embeddings = jnp.repeat(jnp.array([[0.0], [10.0], [100.0]]), jnp.array([1, 2, 5]), axis=0)
  embeddings = embeddings + 0.01 * jnp.arange(8.0)[:, None]
  per_example = jnp.stack([jnp.arange(8.0), jnp.ones(8)], axis=1)
  for _ in range(3):
    result, state = update(per_example, state, embeddings=embeddings)
  figures = gq.diagnostics(state)
  counts = [float(figures[f"group_count/{k}"]) for k in range(3)]
  assert sorted(counts) == [1, 2, 5]
  expected = sum(((g - g.mean()) ** 2).sum() for g in np.split(np.asarray(embeddings), [1, 3]))
  np.testing.assert_allclose(figures["inertia"], expected, rtol=1e-3)
  # First coordinate: group means 0, 1.5, 5 of 1, 2 and 5 examples against the constant mean 3.5;
  # sigma is 0, so all rho.
  # Second: constant 1, damped to 1/3.
  np.testing.assert_allclose(result, [3 * (2 * 1.5 + 5 * 5) / 8, 1 / 3], rtol=1e-5)
  assert figures["mean_weight"] == pytest.approx((3 + 1 / 3) / 2)
  assert (figures["amplified"], figures["damped"]) == pytest.approx((0.5, 0.5))


def test_a_skipped_step_is_counted_and_keeps_the_figures():
  tx = gq.grad_queue(2, track=True)
  _, state = tx.update(jnp.ones(3), tx.init(jnp.zeros(3)))
  before = gq.diagnostics(state)
  _, state = tx.update(jnp.array([1.0, jnp.nan, 0.0]), state)
  after = gq.diagnostics(state)
  assert (before.pop("skipped"), after.pop("skipped")) == (0, 1)
  chex.assert_trees_all_equal(after, before)
  chex.assert_tree_all_finite(after)


@pytest.mark.parametrize("gradient", [0.0, 1e-36, 1e38])
def test_norms_of_extreme_gradients(gradient):
  tx = gq.grad_queue(1, rho=2.0, track=True)
  state = tx.init(jnp.zeros(50))
  for _ in range(4):
    _, state = jax.jit(tx.update)(jnp.full(50, gradient), state)
  figures = gq.diagnostics(state)
  assert figures["cosine"] == pytest.approx(1.0)
  assert figures["norm_ratio"] == pytest.approx(0.5 if gradient else 1.0)


@pytest.mark.standard_promotion  # wrappers of Optax
def test_found_in_any_nest():
  def wrapped(tx):
    return optax.MultiSteps(optax.apply_if_finite(tx, 3), 1)

  inner = optax.chain(optax.clip(9.0), gq.grad_queue(track=True), optax.adam(0.1))
  labels = {"a": "x", "b": "y"}
  nests = [
    optax.named_chain(("first", inner)),
    wrapped(inner),
    optax.masked(inner, {"a": True, "b": False}),
    optax.partition({"x": inner, "y": optax.sgd(0.1)}, labels),
    optax.inject_hyperparams(gq.grad_queue, ("queue_length", "num_clusters", "key", "track"))(
      track=True
    ),
  ]
  params = {"a": jnp.ones(2), "b": jnp.ones(3)}
  for tx in nests:
    _, state = jax.jit(tx.update)(params, tx.init(params), params)
    assert gq.diagnostics(state)["queued"] == 1
    assert jax.jit(gq.diagnostics)(state)["queued"] == 1  # inside a compiled step, too


def test_no_figure_of_two_states_of_any_kinds_is_lost():
  groups, examples = gq.group_scarcity(2).init(3), gq.example_scarcity(4).init(3)
  queue = gq.grad_queue(2, track=True).init(jnp.zeros(2))
  for states in ((groups, examples), (examples, groups), {"a": queue, "b": (examples, groups)}):
    found = gq.diagnostics(states)
    leaves = jax.tree.leaves(states, is_leaf=lambda node: hasattr(node, "_fields"))
    expected = {f"{i}/{name}" for i, state in enumerate(leaves) for name in gq.diagnostics(state)}
    assert set(found) == expected


@pytest.mark.parametrize("queue_dtype", [None, jnp.bfloat16])
@pytest.mark.parametrize("queue_length", [3, (2, 7)])
def test_state_bytes_is_exact(queue_length, queue_dtype):
  params = {"w": jnp.zeros((7, 5)), "b": jnp.zeros(5, jnp.bfloat16)}
  tx = gq.grad_queue(queue_length, queue_dtype=queue_dtype, track=True)
  allocated = sum(leaf.nbytes for leaf in jax.tree.leaves(tx.init(params)))
  assert gq.state_bytes(tx, params) == allocated
  shapes = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), params)
  assert gq.state_bytes(tx, shapes) == allocated


@pytest.mark.parametrize("options", [{"update_norm": "match"}, {"update_norm": 1.5}])
def test_many_small_leaves_count_as_one_leaf_of_all_coordinates(options):
  """More of a shape than are looked at together, and two shapes."""
  tx = gq.grad_queue(queue_length=2, track=True, **options)
  draw = lambda seed: jax.random.normal(jax.random.key(seed), (70, 4)) * 3.0**seed
  apart = lambda x: [row if i % 3 else row[:, None] for i, row in enumerate(x)]
  whole, parts = tx.init(draw(0)), tx.init(apart(draw(0)))
  update = jax.jit(tx.update)
  for seed in range(5):
    expected, whole = update(draw(seed), whole)
    found, parts = update(apart(draw(seed)), parts)
  chex.assert_trees_all_close(found, apart(expected), rtol=1e-5)
  chex.assert_trees_all_close(gq.diagnostics(parts), gq.diagnostics(whole), rtol=1e-5)
  assert 0.0 < gq.diagnostics(whole)["amplified"] < 1.0
  for bad in (0, 1, 35, 69):  # in each of the parts that are looked at together
    _, after = update(apart(draw(9).at[bad, 2].set(jnp.nan)), parts)
    chex.assert_trees_all_equal(after.queue, parts.queue)
    assert gq.diagnostics(after)["skipped"] == 1


def test_reductions_do_not_grow_with_the_number_of_small_leaves():
  def reductions(number):
    tx = gq.grad_queue(queue_length=2, track=True, update_norm="match")
    params = [jnp.zeros(5)] * number
    state = jax.eval_shape(tx.init, params)
    return jax.jit(tx.update).lower(params, state).as_text().count("call @_largest")

  assert 0 < reductions(30) == reductions(2)


def test_the_norm_ratio_of_an_update_that_nothing_weighs_is_1():
  tx = gq.grad_queue(3, update_norm=0.5, track=True)
  update, state = tx.update(jnp.ones(3), tx.init(jnp.zeros(3)))
  np.testing.assert_array_equal(update, 1.0)
  assert gq.diagnostics(state)["norm_ratio"] == 1.0


def test_a_cosine_is_within_its_range_whatever_the_rounding():
  def cosine(gradient):
    tx = gq.grad_queue(1, rho=1.7, track=True)
    state = tx.init(gradient)
    for _ in range(3):
      _, state = tx.update(gradient, state)
    return gq.diagnostics(state)["cosine"]

  found = jax.jit(jax.vmap(cosine))(jax.random.normal(jax.random.key(0), (500, 7)))
  assert (jnp.abs(found) <= 1.0).all()
  np.testing.assert_allclose(found, 1.0, rtol=1e-6)
