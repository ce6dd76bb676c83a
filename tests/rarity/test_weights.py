# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What the scarcities of examples and of groups both promise."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kinds import DIM

import gq_optax as gq

ROWS = 6
examples = functools.partial(gq.example_scarcity, 8)
# Traced: 0 and 0.5 are one program.
pooled = lambda h=0.5, **options: gq.group_scarcity(3, 3, pooling=jnp.float32(h), **options)
of_both = pytest.mark.parametrize("make", [examples, pooled], ids=["examples", "groups"])
X = np.random.default_rng(0).normal(size=(ROWS, DIM)).astype(np.float32)


@of_both
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_input_gives_finite_weights_of_mean_one_within_the_bounds(make, data):
  number = st.sampled_from([0.0, 1.0, -1.0, 1e-30, 1e30, -3e38, np.nan, np.inf, 0.5])
  draw = lambda n: np.array(data.draw(st.lists(number, min_size=n, max_size=n)), np.float32)
  x, losses = draw(DIM * ROWS).reshape(ROWS, DIM), draw(ROWS)
  mask = np.array(data.draw(st.lists(st.booleans(), min_size=ROWS, max_size=ROWS)))
  options = {"metric": data.draw(st.sampled_from(["cosine", "euclidean"])), "max_weight": 8.0}
  if make is examples:
    options["loss_exponent"] = data.draw(st.sampled_from([0.5, 4.0]))
  else:
    options["h"] = data.draw(st.sampled_from([0.0, 0.5]))
  scarcity = make(**options)
  state = scarcity.init(DIM)
  for order in (slice(None), slice(None, None, -1), slice(None)):
    extra = {"losses": losses[order]} if make is examples else {}
    weights, state = scarcity.update(x[order], state, mask=mask, **extra)
    chex.assert_tree_all_finite((weights, state))
    weights = np.asarray(weights)
    assert (weights[~mask] == 0.0).all()
    if mask.any():
      assert weights[mask].mean() == pytest.approx(1.0, rel=1e-5)
      assert weights[mask].min() >= 1 / 8 * (1 - 1e-5)
      assert weights[mask].max() <= 8 * (1 + 1e-5)


@of_both
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_nothing_to_compare_or_nothing_but_the_same(make, metric):
  scarcity, fresh = make(metric=metric), make(metric=metric).init(DIM)
  _, state = scarcity.update(X, fresh)
  masked = np.zeros(ROWS, bool)
  for x, mask in ((np.full_like(X, np.nan), ~masked), (X, masked)):
    for before in (state, fresh):
      weights, after = scarcity.update(x, before, mask=mask)
      chex.assert_trees_all_equal(after, before)
      np.testing.assert_array_equal(weights, mask.astype(np.float32))
  # Of one direction; that the lengths differ leaves the rounding of a division in it.
  lengths = np.linspace(1.0, 3.0, ROWS) if metric == "cosine" else np.ones(ROWS)
  x, state = np.float32(lengths[:, None] * np.array([[0.3, 0.7, -0.2, 0.45]])), fresh
  for size in (ROWS, ROWS, 1):
    weights, state = scarcity.update(x, state, mask=np.arange(ROWS) < size)
    np.testing.assert_allclose(weights[:size], 1.0, rtol=1e-4)
  if make is pooled:
    assert (state.counts.sum(axis=0) > 0).sum() == 1


@of_both
def test_options_may_be_traced_and_no_gradient_flows(make):
  """NaN is as good as the lowest."""

  @jax.jit
  @functools.partial(jax.value_and_grad, argnums=(0, 1, 2), has_aux=True)
  def run(x, exponent, max_weight):
    scarcity = make(exponent=exponent, max_weight=max_weight, metric="euclidean")
    weights = scarcity.update(x, scarcity.init(DIM))[0]
    return jnp.sum(jnp.square(weights)), weights

  def weights(*options):
    (_, found), slopes = run(X, *options)
    jax.tree.map(lambda slope: np.testing.assert_array_equal(slope, 0.0), slopes)
    return found

  scarcity = make(exponent=4.0, metric="euclidean")
  expected = scarcity.update(X, scarcity.init(DIM))[0]
  np.testing.assert_allclose(weights(9.0, 50.0), expected, rtol=1e-6)
  np.testing.assert_array_equal(weights(jnp.nan, 50.0), weights(0.0, 50.0))
  np.testing.assert_allclose(weights(-3.0, 50.0), 1.0, rtol=1e-5)
  for largest in (jnp.nan, 0.1):
    np.testing.assert_allclose(weights(1.0, largest), 1.0, rtol=1e-5)


def test_numbers_of_numpy_are_numbers():
  for dim in (np.int64(4), np.prod([2, 2]), jnp.int32(4)):
    for zero in (np.float32(0), np.array(0.0)):
      wide = examples(loss_exponent=zero, queue_dtype=jnp.float64)
      for scarcity in (wide, gq.group_scarcity(3, pooling=zero)):
        jax.eval_shape(lambda s=scarcity, d=dim: s.update(X, s.init(d)))  # needs no losses


@of_both
@pytest.mark.parametrize(("metric", "dtype"), [("cosine", "bfloat16"), ("euclidean", "float16")])
def test_embeddings_of_any_shape_and_narrow_dtype(make, metric, dtype):
  scarcity = make(metric=metric, **({"queue_dtype": dtype} if make is examples else {}))
  x = X.astype(dtype).reshape(ROWS, 2, 2)
  state = scarcity.init(jax.ShapeDtypeStruct(x.shape, x.dtype))
  chex.assert_trees_all_equal_shapes_and_dtypes(state, scarcity.init(DIM))
  weights, after = scarcity.update(x, state)
  chex.assert_trees_all_equal_shapes_and_dtypes(after, state)
  chex.assert_type(weights, jnp.float32)
  # Copies in the queue are rounded as the batch is: they are exactly equal.
  single = np.broadcast_to(x[:1], x.shape)
  weights, _ = scarcity.update(single, scarcity.update(single, state)[1])
  np.testing.assert_allclose(weights, 1.0, rtol=1e-6)
