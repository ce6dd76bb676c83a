# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What the scarcities of examples and of groups both promise."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gq_optax as gq

ROWS, DIM = 6, 4
examples = lambda **options: gq.example_scarcity(8, **options)
groups = lambda **options: gq.group_scarcity(3, 3, **options)
of_both = pytest.mark.parametrize("make", [examples, groups], ids=["examples", "groups"])
of_metrics = pytest.mark.parametrize("metric", ["cosine", "euclidean"])
X = jax.random.normal(jax.random.key(0), (ROWS, DIM))
EXAMPLES = {e: lambda e=e, **o: gq.example_scarcity(8, loss_exponent=e, **o) for e in (0.5, 4.0)}
GROUPS = {
  h: lambda h=h, **o: gq.group_scarcity(8, 2, pooling=jnp.float32(h), **o) for h in (0.0, 0.5)
}


@of_both
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_input_gives_finite_weights_of_mean_one_within_the_bounds(make, data):
  number = st.sampled_from([0.0, 1.0, -1.0, 1e-30, 1e30, -3e38, np.nan, np.inf, 0.5])
  draw = lambda n: np.array(data.draw(st.lists(number, min_size=n, max_size=n)), np.float32)
  x, losses = draw(3 * ROWS).reshape(ROWS, 3), draw(ROWS)
  mask = np.array(data.draw(st.lists(st.booleans(), min_size=ROWS, max_size=ROWS)))
  kinds = list((EXAMPLES if make is examples else GROUPS).values())
  metric = data.draw(st.sampled_from(["cosine", "euclidean"]))
  scarcity = data.draw(st.sampled_from(kinds))(metric=metric, max_weight=8.0)
  state = scarcity.init(3)
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
def test_nothing_to_compare_leaves_the_state_as_it_was(make):
  scarcity = make()
  _, state = scarcity.update(X, scarcity.init(DIM))
  masked = jnp.zeros(ROWS, bool)
  for x, mask in ((jnp.full_like(X, jnp.nan), ~masked), (X, masked)):
    for before in (state, scarcity.init(DIM)):
      weights, after = scarcity.update(x, before, mask=mask)
      chex.assert_trees_all_equal(after, before)
      np.testing.assert_array_equal(weights, mask.astype(jnp.float32))


@of_both
@of_metrics
def test_the_same_embedding_for_all_weighs_all_the_same(make, metric):
  scarcity = make(metric=metric, **({"pooling": 0.5} if make is groups else {}))
  state = scarcity.init(DIM)
  for size in (ROWS, ROWS, 1):
    # Of one direction; that the lengths differ leaves the rounding of a division in it.
    lengths = np.linspace(1.0, 3.0, size) if metric == "cosine" else np.ones(size)
    x = np.float32(lengths[:, None] * np.array([[0.3, 0.7, -0.2, 0.45]]))
    weights, state = scarcity.update(x, state)
    np.testing.assert_allclose(weights, 1.0, rtol=1e-4)
  if make is groups:
    assert (state.counts.sum(axis=0) > 0).sum() == 1


@of_both
def test_options_may_be_traced_and_no_gradient_flows(make):
  """NaN is as good as the lowest."""

  def weights(x, *options):
    scarcity = make(
      **dict(zip(("exponent", "max_weight"), options, strict=True)), metric="euclidean"
    )
    return scarcity.update(x, scarcity.init(DIM))[0]

  slopes = jax.grad(lambda *args: jnp.sum(jnp.square(weights(*args))), (0, 1, 2))(X, 1.0, 50.0)
  jax.tree.map(lambda slope: np.testing.assert_array_equal(slope, 0.0), slopes)
  run = jax.jit(weights)
  np.testing.assert_array_equal(run(X, jnp.nan, 50.0), weights(X, 0.0, 50.0))
  np.testing.assert_allclose(run(X, -3.0, 50.0), 1.0, rtol=1e-5)
  np.testing.assert_allclose(run(X, 9.0, 50.0), weights(X, 4.0, 50.0), rtol=1e-6)
  for largest in (jnp.nan, 0.1):
    np.testing.assert_allclose(run(X, 1.0, largest), 1.0, rtol=1e-5)


@of_both
def test_numbers_of_numpy_are_numbers(make):
  for dim in (np.int64(4), np.prod([2, 2]), jnp.int32(4)):
    make().init(dim)
  for zero in (np.float32(0), np.array(0.0)):
    scarcity = examples(loss_exponent=zero) if make is examples else groups(pooling=zero)
    scarcity.update(X, scarcity.init(DIM))  # needs no losses
  wide = examples(queue_dtype=jnp.float64)
  wide.update(X, wide.init(DIM))


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
  single = jnp.broadcast_to(x[:1], x.shape)
  weights, _ = scarcity.update(single, scarcity.update(single, state)[1])
  np.testing.assert_allclose(weights, 1.0, rtol=1e-6)
