# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Rarity by the count of a class, by hand; and by held-out losses, against a twin of all pairs."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gq_optax as gq
from gq_optax._rarity import density, held_out

COUNTS = np.array([100, 20, 400, 0])
EXPECTED = np.float32([4.0, 20.0, 1.0, 400.0])  # the largest count over its own
ints = lambda dtype, *labels: np.array(labels, dtype)


@pytest.mark.parametrize(
  ("labels", "counts", "expected"),
  [
    *[
      (ints(dtype, 2, 0, 1, 3), COUNTS, EXPECTED[[2, 0, 1, 3]])
      for dtype in ("int8", "uint8", "int16", "uint16", "int32", "uint32")
    ],
    # Outside the counts the rarity is 1; 300 classes are more than a small label holds.
    (ints("int32", -1, 4, 2**31 - 1, -(2**31), 1), COUNTS, [1, 1, 1, 1, 20]),
    (ints("uint32", 2**32 - 1, 3), COUNTS, [1, 400]),
    (ints("int64", 2**32, 2**32 + 1, 1), COUNTS, [1, 1, 20]),
    (ints("int8", 0, 127, -1), np.arange(1, 301), np.float32([300, 300 / 128, 1])),
    # Of any shape. Shares are as good as counts, and so is nothing.
    (np.int32(1), COUNTS, 20),
    (np.arange(8).reshape(4, 2) % 4, COUNTS, EXPECTED.reshape(2, 2)[[0, 1, 0, 1]]),
    (np.arange(4), np.array([0.5, 0.25, 0.0, 0.25]), [1, 2, 2, 2]),
    (np.arange(2), np.zeros(2), [1, 1]),
  ],
)
def test_class_rarity_by_hand(labels, counts, expected):
  with jax.enable_x64(labels.dtype == np.int64):
    found = jax.jit(lambda labels: gq.class_rarity(labels, counts))(labels)
  chex.assert_type(found, jnp.float32)
  np.testing.assert_array_equal(found, np.float32(expected))


def test_traced_counts_that_make_no_sense_count_as_one_example():
  @jax.jit
  @functools.partial(jax.value_and_grad, has_aux=True)
  def run(counts):
    rarity = gq.class_rarity(jnp.arange(4), counts)
    return jnp.sum(rarity), rarity

  (_, found), _ = run(np.float32([50.0, -1.0, np.nan, np.inf]))
  np.testing.assert_array_equal(found, [1.0, 50.0, 50.0, 50.0])
  np.testing.assert_array_equal(run(np.ones(4, np.float32))[1], 0.0)


# Held-out rarity: a twin that sorts all pairs, edges, and memory that does not grow as n x n.

N = 60
RNG = np.random.RandomState(0)
LOSSES = np.float32(RNG.exponential(size=N) * 2.0)
X = np.float32(RNG.normal(size=(N, 2, 3)))
LABELS = RNG.randint(3, size=N)


def twin(losses, embeddings, neighbours, largest=50.0):
  """Sorts the cosines of every example to all others of its label, in float64."""
  losses, x = np.float64(losses), np.float64(embeddings).reshape(N, -1)
  good = np.isfinite(losses) & np.isfinite(x).all(1)
  p = np.exp(-np.maximum(losses, 0.0))
  length = np.maximum(np.linalg.norm(x, axis=1), 1e-300)
  rarity = []
  for i in range(N):
    others = [j for j in range(N) if j != i and LABELS[j] == LABELS[i] and good[j]]
    cosine = lambda j, i=i: -(x[i] / length[i]) @ (x[j] / length[j])
    near = sorted(others, key=cosine)[: neighbours - 1] if good[i] else []
    mean = np.mean([p[j] for j in [i, *near]])
    rarity.append(min(max(1.0 / mean, 1.0), largest) if np.isfinite(losses[i]) else 1.0)
  return rarity


def test_held_out_rarity_alone_is_the_exponential_within_bounds():
  infinite = [np.nan, np.inf, -np.inf]
  losses = np.float32([0.0, np.log(2.0), np.log(49.0), 4.0, 200.0, -3.0, *infinite])
  for largest in (50, 10):
    expected = [1, 2, min(49, largest), largest, largest, 1, 1, 1, 1]
    found = gq.held_out_rarity(losses, largest=float(largest))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
  assert gq.held_out_rarity(losses.astype(jnp.bfloat16)).dtype == jnp.float32


@pytest.mark.parametrize("neighbours", [1, 2, 9, 10, 1000])
def test_held_out_rarity_is_as_the_twin(neighbours, monkeypatch):
  if neighbours == 9:  # in blocks of 7 rows
    monkeypatch.setattr(density, "_AT_ONCE", 21)
  rarity = functools.partial(gq.held_out_rarity, LOSSES, embeddings=X, labels=LABELS)
  traced = jax.jit(lambda: rarity(neighbours=neighbours)).trace()
  assert ("scan" in str(traced.jaxpr)) == (neighbours == 9)
  np.testing.assert_allclose(traced.lower().compile()(), twin(LOSSES, X, neighbours), rtol=1e-4)
  if neighbours == 1:  # the example itself, even among duplicates
    found = gq.held_out_rarity(LOSSES, embeddings=np.ones_like(X), labels=LABELS, neighbours=1)
    chex.assert_trees_all_equal(found, gq.held_out_rarity(LOSSES))


def test_what_is_not_finite_is_a_neighbour_to_none():
  losses, x = LOSSES.copy(), X.copy()
  losses[3:5], x[5, 1, 1], x[6] = [np.nan, np.inf], np.nan, 0.0
  x[8] *= 1e30
  found = gq.held_out_rarity(losses, embeddings=x, labels=LABELS)
  keep = np.arange(N) != 6  # without a direction all are as near, and the first ones are taken
  np.testing.assert_allclose(found[keep], np.array(twin(losses, x, 10))[keep], rtol=1e-4)
  assert np.isfinite(found).all()
  assert found[3] == found[4] == 1.0


def test_a_hundred_thousand_examples_do_not_plan_all_pairs():
  n = 100_000
  shapes = [
    jax.ShapeDtypeStruct(shape, dtype)
    for shape, dtype in [((n,), "float32"), ((n, 8), "float32"), ((n,), "int32"), ((n,), "bool")]
  ]
  compiled = held_out._smoothed.lower(*shapes, neighbours=10).compile()
  assert compiled.memory_analysis().temp_size_in_bytes < n * n * 4 // 50


def test_in_jit_with_traced_bound_and_without_gradient():
  @jax.jit
  @functools.partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
  def run(losses, x, largest):
    found = gq.held_out_rarity(losses, embeddings=x, labels=LABELS, largest=largest)
    return jnp.sum(found), found

  (_, found), slopes = run(LOSSES, X, 5.0)
  np.testing.assert_allclose(found, twin(LOSSES, X, 10, 5.0), rtol=1e-4)
  jax.tree.map(lambda slope: np.testing.assert_array_equal(slope, 0.0), slopes)
  np.testing.assert_array_equal(run(LOSSES, X, 0.0)[0][1], 1.0)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"labels": None}, "and labels must be given together.*embeddings without labels"),
    ({"embeddings": None}, "and labels must be given together.*labels without embeddings"),
    ({"embeddings": X[:, 0, :1]}, "two numbers or more.*One number alone has no direction"),
  ],
)
def test_what_is_wrong_is_named(change, message):
  with pytest.raises(ValueError, match=message):
    gq.held_out_rarity(LOSSES, **({"embeddings": X, "labels": LABELS} | change))
