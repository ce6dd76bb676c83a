# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Held-out rarity: a twin that sorts all pairs, edges, and memory that does not grow as n x n."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gq_optax as gq
from gq_optax._rarity import density, held_out


def cloud(n=60, labels=3, seed=0):
  rng = np.random.RandomState(seed)
  return (
    jnp.asarray(rng.exponential(size=n) * 2.0, jnp.float32),
    jnp.asarray(rng.normal(size=(n, 2, 3)), jnp.float32),
    jnp.asarray(rng.randint(labels, size=n)),
  )


def twin(losses, embeddings, labels, neighbours, largest):
  """Sorts the cosines of every example to all others of its label, in float64."""
  losses, x = np.float64(losses), np.float64(embeddings).reshape(len(losses), -1)
  labels, good = np.asarray(labels), np.isfinite(losses) & np.isfinite(x).all(1)
  p = np.exp(-np.maximum(losses, 0.0))
  length = np.maximum(np.linalg.norm(x, axis=1), 1e-300)
  rarity = []
  for i in range(len(losses)):
    others = [j for j in range(len(losses)) if j != i and labels[j] == labels[i] and good[j]]
    cosine = lambda j, i=i: -(x[i] / length[i]) @ (x[j] / length[j])
    near = sorted(others, key=cosine)[: neighbours - 1] if good[i] else []
    mean = np.mean([p[j] for j in [i, *near]])
    rarity.append(min(max(1.0 / mean, 1.0), largest) if np.isfinite(losses[i]) else 1.0)
  return rarity


def test_alone_it_is_the_exponential_within_bounds():
  losses = jnp.array([0.0, np.log(2.0), np.log(49.0), 4.0, 200.0, -3.0, jnp.nan, jnp.inf, -jnp.inf])
  found = gq.held_out_rarity(losses)
  np.testing.assert_allclose(found, [1, 2, 49, 50, 50, 1, 1, 1, 1], rtol=1e-5)
  np.testing.assert_allclose(
    gq.held_out_rarity(losses, largest=10.0)[:4], [1, 2, 10, 10], rtol=1e-5
  )
  assert gq.held_out_rarity(losses.astype(jnp.bfloat16)).dtype == jnp.float32


@pytest.mark.parametrize("neighbours", [1, 2, 10, 1000])
def test_as_the_twin(neighbours):
  losses, x, labels = cloud()
  found = gq.held_out_rarity(losses, embeddings=x, labels=labels, neighbours=neighbours)
  np.testing.assert_allclose(found, twin(losses, x, labels, neighbours, 50.0), rtol=1e-4)


def test_one_neighbour_is_the_example_itself_even_among_duplicates():
  losses, x, labels = cloud()
  same = jnp.ones_like(x)
  found = gq.held_out_rarity(losses, embeddings=same, labels=labels, neighbours=1)
  chex.assert_trees_all_equal(found, gq.held_out_rarity(losses))


def test_a_kind_stays_rare_and_an_odd_one_does_not():
  """Twelve of a kind that nobody knew, and one strange example among a kind that all know."""
  x = jnp.concatenate(
    [jnp.tile(jnp.array([[1.0, 0.0]]), (40, 1)), jnp.tile(jnp.array([[0.0, 1.0]]), (12, 1))]
  )
  losses = jnp.full(52, 0.05).at[40:].set(3.0).at[7].set(3.0)
  found = gq.held_out_rarity(losses, embeddings=x, labels=jnp.zeros(52, int))
  assert found[40:].min() > 15.0
  assert found[7] < 1.3


def test_what_is_not_finite_is_a_neighbour_to_none():
  losses, x, labels = cloud()
  losses, x = losses.at[3].set(jnp.nan).at[4].set(jnp.inf), x.at[5, 1, 1].set(jnp.nan)
  x = x.at[6].set(0.0).at[8].multiply(1e30)
  found = gq.held_out_rarity(losses, embeddings=x, labels=labels, neighbours=4)
  keep = np.arange(60) != 6  # without a direction all are as near, and the first ones are taken
  expected = np.array(twin(losses, x, labels, 4, 50.0))
  np.testing.assert_allclose(found[keep], expected[keep], rtol=1e-4)
  assert np.isfinite(found).all()
  assert found[3] == found[4] == 1.0


def test_in_jit_with_traced_bound_and_without_gradient():
  losses, x, labels = cloud()
  ours = lambda losses, x, m: gq.held_out_rarity(losses, embeddings=x, labels=labels, largest=m)
  expected = ours(losses, x, 5.0)
  chex.assert_trees_all_close(jax.jit(ours)(losses, x, jnp.float32(5.0)), expected, rtol=1e-5)
  np.testing.assert_array_equal(jax.jit(ours)(losses, x, jnp.float32(0.0)), 1.0)
  slopes = jax.grad(lambda *args: jnp.sum(ours(*args, 5.0)), (0, 1))(losses, x)
  chex.assert_trees_all_equal(slopes, jax.tree.map(jnp.zeros_like, slopes))


def test_blocks_do_not_change_the_result(monkeypatch):
  losses, x, labels = cloud()
  whole = gq.held_out_rarity(losses, embeddings=x, labels=labels)
  monkeypatch.setattr(density, "_AT_ONCE", 21)  # 7 of 60 rows at a time
  jax.clear_caches()
  found = gq.held_out_rarity(losses, embeddings=x, labels=labels)
  jax.clear_caches()
  chex.assert_trees_all_close(found, whole, rtol=1e-5)


def test_a_hundred_thousand_examples_do_not_plan_all_pairs():
  n = 100_000
  shapes = [
    jax.ShapeDtypeStruct(shape, dtype)
    for shape, dtype in [((n,), "float32"), ((n, 8), "float32"), ((n,), "int32"), ((n,), "bool")]
  ]
  compiled = held_out._smoothed.lower(*shapes, neighbours=10).compile()
  assert compiled.memory_analysis().temp_size_in_bytes < n * n * 4 // 50


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"labels": None}, "embeddings and labels must be given together.*embeddings without labels"),
    (
      {"embeddings": None},
      "embeddings and labels must be given together.*labels without embeddings",
    ),
    ({"losses": jnp.ones((3, 2))}, r"losses must be \[n\], but shape \(3, 2\)"),
    ({"losses": jnp.arange(3)}, "losses must have a real floating dtype"),
    ({"embeddings": jnp.ones((2, 4))}, r"embeddings must be \[n, \.\.\.\] with n = 3"),
    ({"embeddings": jnp.ones((3, 1))}, "two numbers or more.*One number alone has no direction"),
    ({"labels": jnp.ones(3)}, "labels must have an integer dtype"),
    ({"labels": jnp.arange(2)}, r"labels must be \[n\] with n = 3"),
    ({"neighbours": 0}, "neighbours must be at least 1"),
    ({"largest": 0.5}, r"largest must be in \[1\.0, inf\)"),
  ],
)
def test_what_is_wrong_is_named(change, message):
  right = {"losses": jnp.ones(3), "embeddings": jnp.ones((3, 4)), "labels": jnp.arange(3)}
  with pytest.raises(ValueError, match=message):
    gq.held_out_rarity(**(right | change))
