# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What the scarcities of examples and groups both promise, over devices too, and K-means with them.

What is masked, far away or a long way from 0 does not change what is held rare.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from kinds import DIM, blobs, clouds

import gq_optax as gq
from gq_optax._rarity import density

ROWS = 6
examples = functools.partial(gq.example_scarcity, 8)
# Traced: 0 and 0.5 are one program.
pooled = lambda h=0.5, **options: gq.group_scarcity(3, 3, pooling=jnp.float32(h), **options)
of_both = pytest.mark.parametrize("make", [examples, pooled], ids=["examples", "groups"])
OF_LOSSES = {"queue_size": 96, "neighbours": 1.0, "loss_exponent": 0.5}
X = np.random.default_rng(0).normal(size=(ROWS, DIM)).astype(np.float32)


@functools.cache
def step(make, metric):
  """An update, compiled once for all values of an option."""

  def run(option, x, state, mask, losses):
    option = {"loss_exponent": option} if make is examples else {"h": option}
    extra = {"losses": losses} if make is examples else {}
    return make(metric=metric, max_weight=8.0, **option).update(x, state, mask=mask, **extra)

  return jax.jit(run)


@of_both
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_input_gives_finite_weights_of_mean_one_within_the_bounds(make, data):
  number = st.sampled_from([0.0, 1.0, -1.0, 1e-30, 1e30, -3e38, np.nan, np.inf, 0.5])
  draw = lambda n: np.array(data.draw(st.lists(number, min_size=n, max_size=n)), np.float32)
  x, losses = draw(DIM * ROWS).reshape(ROWS, DIM), draw(ROWS)
  mask = np.array(data.draw(st.lists(st.booleans(), min_size=ROWS, max_size=ROWS)))
  metric = data.draw(st.sampled_from(["cosine", "euclidean"]))
  option = np.float32(data.draw(st.sampled_from([0.5, 4.0] if make is examples else [0.0, 0.5])))
  state = make(metric=metric).init(DIM)
  for order in (slice(None), slice(None, None, -1), slice(None)):
    weights, state = step(make, metric)(option, x[order], state, mask, losses[order])
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


@pytest.mark.several_devices
@pytest.mark.parametrize(
  ("make", "options", "names"),
  [
    pytest.param(
      gq.example_scarcity, OF_LOSSES | {"metric": "cosine"}, "data", marks=pytest.mark.slow
    ),
    (gq.example_scarcity, OF_LOSSES | {"metric": "euclidean"}, "data"),
    (gq.group_scarcity, {"num_groups": 2, "queue_length": 3}, ("other", "data")),
  ],
)
def test_four_devices_give_the_weights_of_one(make, options, names, monkeypatch):
  """Divided by jit, under shard_map over one axis or two, pmap, and vmap."""
  if options.get("metric") == "euclidean":  # in blocks of rows, in shapes of no other test
    monkeypatch.setattr(density, "_AT_ONCE", 7)
  of_groups, devices, alone = make is gq.group_scarcity, jax.devices()[:4], make(**options)
  state, rows = alone.init(DIM), P(names)
  shape = (2, 2) if of_groups else (4,)
  mesh = jax.make_mesh(shape, rows[0] if of_groups else rows, (AxisType.Auto,) * len(shape))
  specs = gq.partition_specs(jax.eval_shape(lambda: state), {}, axis_name=names)

  def weigh(axis_name=None):
    scarcity = make(**options, axis_name=axis_name)
    losses = lambda x: {} if of_groups else {"losses": jnp.abs(x[:, 0]) + 0.1}
    return lambda x, mask, state: scarcity.update(x, state, mask=mask, **losses(x))

  whole = {"in_specs": (rows, rows, specs), "out_specs": (rows, specs)}
  ways = [(jax.shard_map(weigh(names), mesh=mesh, **whole), np.asarray, state)]
  split = lambda leaf: leaf.reshape(4, -1, *leaf.shape[1:])
  parts = jax.tree.map(lambda x, s: split(x) if s == rows else np.stack([x] * 4), state, specs)
  if of_groups:
    ways.append((jax.vmap(weigh("data"), axis_name="data"), split, parts))
  else:
    put = lambda leaf: jax.device_put(leaf, jax.sharding.NamedSharding(mesh, rows))
    ways.append((weigh(), put, state))
  ways = [(jax.jit(run), placed, state) for run, placed, state in ways]
  ways.append((jax.pmap(weigh("data"), axis_name="data", devices=devices), split, parts))
  for seed, left_out in enumerate((0, 3, 0, 7)):  # unequal on the devices
    x, mask = clouds(seed, (20, 4) if of_groups else (18, 4, 1, 1))[0], np.arange(24) >= left_out
    weights, state = jax.device_get(weigh()(x, mask, state))
    for i, (run, placed, own) in enumerate(ways):
      found, own = jax.device_get(run(placed(x), placed(mask), own))
      np.testing.assert_allclose(np.ravel(found), weights, rtol=2e-4)
      ways[i] = run, placed, own
  assert np.ptp(weights) > 0.2
  for _, _, own in ways:
    found, expected = (own, state) if of_groups else (own.effective, state.effective)
    expected = jax.tree.map(lambda leaf, e: np.broadcast_to(e, leaf.shape), found, expected)
    chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-6)


# What is masked, far away or a long way from 0.


def two_kinds(rows=1024, share=0.05, seed=0):
  """Embeddings near two axes, and which of them are of the rare kind."""
  rng = np.random.default_rng(seed)
  rare = rng.random(rows) < share
  x = np.eye(4)[rare.astype(int)] + 0.02 * rng.normal(size=(rows, 4))
  return x.astype(np.float32), rare


def means(weights, mask, rare):
  return [float(np.mean(np.asarray(weights)[mask & own])) for own in (~rare, rare)]


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_the_scale_is_of_rows_that_count(metric):
  """Of 64 sequences of 16 tokens the first token is left out: every 16th row."""
  x, rare = two_kinds()
  scarcity = gq.example_scarcity(metric=metric)
  expected = means(scarcity.update(x, scarcity.init(4))[0], rare | ~rare, rare)
  counts = np.arange(1024) % 16 != 0
  zeros = counts if metric == "euclidean" else None  # which are a place there
  for left, mask in (
    (x, counts),
    (x * counts[:, None], zeros),
    (np.where(counts[:, None], x, np.nan), None),
  ):
    weights, state = scarcity.update(left, scarcity.init(4), mask=mask)
    np.testing.assert_allclose(means(weights, counts, rare), expected, rtol=0.1)
    assert state.reach > 0.1


@pytest.mark.parametrize("offset", [0.0, 7e5, 9.3e5, 1.3e6, 2e6])
def test_a_common_offset_does_not_make_kinds_alike(offset):
  rare = np.arange(1024) % 20 == 0
  noise = np.random.default_rng(0).normal(size=(1024, 4))
  x = 4.0 * rare[:, None] * np.eye(4)[0] + 0.2 * noise + offset
  scarcity = gq.example_scarcity(metric="euclidean")
  weights, _ = scarcity.update(np.float32(x), scarcity.init(4))
  assert means(weights, rare | ~rare, rare)[1] > 7.0


def test_an_isolated_example_does_not_come_first_however_far():
  x, _ = two_kinds()
  scarcity = gq.example_scarcity(metric="euclidean")
  _, state = scarcity.update(x, scarcity.init(4))
  x[1000] = 1e20
  assert 1000 not in jax.jit(scarcity.explain)(x, state).indices.tolist()


@pytest.mark.parametrize("far", [1e7, 1e20, 3e38])
def test_what_has_no_weight_does_not_set_the_scale(far):
  x = np.r_[np.zeros((90, 2)), np.ones((10, 2)), [[far, 0]]].astype(np.float32)
  counts = np.arange(101) < 100
  scarcity = gq.group_scarcity(2, metric="euclidean")
  weights, state = scarcity.update(x, scarcity.init(2), mask=counts)
  np.testing.assert_allclose(np.unique(weights), [0, 50 / 90, 5], rtol=1e-5)
  assert np.abs(state.centroids).max() <= 1.0
  result = gq.kmeans(x, 2, sample_weight=counts.astype(np.float32))
  assert sorted(result.counts.tolist()) == [10, 90]
  assert result.labels[100] == result.labels[99]  # far along the axis of ones
  assert np.isfinite(result.inertia)
  # An empty group is filled, however far the padding.
  _, state = scarcity.update(x, scarcity.init(2), mask=np.arange(101) < 90)
  for _ in range(6):
    _, state = scarcity.update(x, state, mask=counts)
  assert sorted(state.counts[(state.index - 1) % 5].tolist()) == [10, 90]


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_empty_groups_take_rows_at_any_offset(offset):
  x = (offset + np.repeat([0.0, 0.5, 1.0], 10))[:, None].astype(np.float32)
  result = gq.kmeans(x, 3, init=np.full((3, 1), offset, np.float32))
  assert result.counts.tolist() == [10, 10, 10]
  same = gq.kmeans(np.full((101, 2), offset + 0.1, np.float32), 2)
  assert same.counts.tolist() == [101, 0]


def test_surplus_groups_begin_at_no_masked_row():
  x = np.r_[[[7.0, 7.0]], np.ones((100, 2))].astype(np.float32)
  weight = np.arange(101) > 0
  found = gq.kmeans(x, 2, sample_weight=weight.astype(np.float32)).centroids
  np.testing.assert_array_equal(found, np.ones((2, 2)))
  scarcity = gq.group_scarcity(2, metric="euclidean")
  _, state = scarcity.update(x, scarcity.init(2), mask=weight)
  np.testing.assert_array_equal(state.centroids, np.ones((2, 2)))


def test_an_outlier_moves_no_other_example_in_an_explanation():
  x = 0.1 * np.r_[blobs(0, 91, 2, 1, 0.1), 3 + blobs(0, 10, 2, 1, 0.1)].astype(np.float32)
  scarcity = gq.group_scarcity(2, metric="euclidean")
  _, state = scarcity.update(x, scarcity.init(2))
  explain = jax.jit(scarcity.explain)
  assert sorted(explain(x, state).sizes.tolist()) == [10, 91]
  x[0] = 1e6
  assert sorted(explain(x, state).sizes.tolist()) in ([10, 91], [11, 90])


def test_one_minus_cosine_is_not_negative():
  for x in np.random.default_rng(0).normal(size=(8, 16)).astype(np.float32):
    assert gq.kmeans(np.tile(x, (50, 1)), 1, metric="cosine").inertia >= 0.0


def test_integers_and_numbers_of_narrow_dtypes_are_read_as_they_are():
  x = np.stack([np.arange(304) % 256, np.arange(304) // 16], axis=1)
  weight = np.arange(304) % 100
  wide = gq.kmeans(np.float32(x), 300, init=np.float32(x[:300]), sample_weight=np.float32(weight))
  for dtype in (np.uint8, np.int16, np.int64, jnp.bfloat16):
    rows = x.astype(dtype)
    found = gq.kmeans(rows, 300, init=rows[:300], sample_weight=weight.astype(np.int8))
    jax.tree.map(np.testing.assert_array_equal, found, wide)
  scarcity = gq.group_scarcity(300, metric="euclidean", num_iters=0, centroids=np.uint8(x[:300]))
  counts = x[:, 0] > 3
  weights, state = jax.device_get(scarcity.update(np.float32(x), scarcity.init(2), mask=counts))
  assert state.counts.sum() == counts.sum()
  assert weights[counts].mean() == pytest.approx(1.0, rel=1e-5)
