# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Example scarcity on kinds of known rarity, explained, and on several devices."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from example_clouds import DIM, B, M, clouds, update

import gq_optax as gq
from gq_optax._rarity import density, examples

# Kinds of known rarity, with the defaults.


def unit(rows):
  return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def around(rng, centers, kinds, spread):
  """Unit vectors whose mean squared distance within a kind is about the spread."""
  dim = centers.shape[1]
  return unit(centers[kinds] + rng.normal(size=(len(kinds), dim)) * np.sqrt(spread / 2 / dim))


def play(draw, steps, size=1024, dim=128, **options):
  """Kinds and weights of the batches of some steps, the first left out."""
  scarcity = gq.example_scarcity(**options)
  rng = np.random.default_rng(0)
  state, centers, seen = scarcity.init(dim), unit(rng.normal(size=(10, dim))), []
  for step in range(steps):
    kinds, x = draw(rng, centers, size)
    weights, state = scarcity.update(jnp.asarray(x, jnp.float32), state)
    assert float(weights.mean()) == pytest.approx(1.0, rel=1e-5)
    if step:
      seen.append((kinds, np.asarray(weights)))
  return (np.concatenate(part) for part in zip(*seen, strict=True))


def test_isolated_points_beside_ten_kinds_hold_little_of_the_weight():
  def draw(rng, centers, size, spread):
    kinds = rng.integers(0, 10, size)
    x = around(rng, centers, kinds, spread)
    kinds[: int(0.03 * size)] = -1
    x[kinds < 0] = unit(rng.normal(size=x[kinds < 0].shape))
    return kinds, x

  for spread in (0.01, 0.1, 0.4):
    kinds, weights = play(lambda *a, s=spread: draw(*a, s), 2)
    assert weights[kinds < 0].sum() < 0.1 * weights.sum(), spread


def test_a_kind_of_one_in_a_hundred_is_found_whatever_the_spread():
  def draw(rng, centers, size, spread):
    kinds = rng.permutation(np.arange(size) < round(0.01 * size)).astype(int)
    return kinds, around(rng, centers, kinds, spread)

  for spread in (0.001, 0.01, 0.05, 0.2):
    kinds, weights = play(lambda *a, s=spread: draw(*a, s), 3)
    ideal = 0.5 / (kinds == 1).mean()
    assert weights[kinds == 1].mean() == pytest.approx(ideal, rel=0.3), spread


def test_a_long_tail_of_ten_kinds_is_levelled():
  share = 100 ** (-np.arange(10) / 9)
  share /= share.sum()

  def draw(rng, centers, size):
    kinds = rng.choice(10, size, p=share)
    return kinds, around(rng, centers, kinds, 0.1)

  kinds, weights = play(draw, 6)
  mass = np.array([weights[kinds == k].mean() * share[k] for k in range(10)])
  # All hold about as much, but for those near the smallest that can be found: 8 of 1024.
  assert (mass[:8] > 0.07).all()
  assert (mass[:8] < 0.13).all()
  assert (mass[8:] > 0.03).all()


# Several devices.


def sharded_runs(scarcity, single, batches, masks, losses):
  """Weights of the steps on one device, and under jit, shard_map and pmap on four devices."""
  spec, devices = jax.sharding.PartitionSpec, jax.devices()[:4]
  auto = (jax.sharding.AxisType.Auto,)
  mesh = jax.make_mesh((4,), ("data",), axis_types=auto, devices=devices)
  step = lambda s, x, mask, loss, state: s.update(x, state, mask=mask, losses=loss)
  state = single.init(DIM)
  specs = gq.partition_specs(jax.eval_shape(lambda: state), {}, axis_name="data")
  rows = spec("data")
  mapped = jax.jit(
    jax.shard_map(
      lambda *a: step(scarcity, *a),
      mesh=mesh,
      in_specs=(rows, rows, rows, specs),
      out_specs=(rows, specs),
    )
  )
  parallel = jax.pmap(lambda *a: step(scarcity, *a), axis_name="data", devices=devices)
  split = lambda v: v.reshape(4, -1, *v.shape[1:])
  part = jax.tree.map(lambda v: jnp.stack([v] * 4) if v.ndim == 0 else split(v), state)
  whole, replicated = state, state
  divided = jax.jit(lambda *a: step(single, *a))
  put = lambda v: jax.device_put(v, jax.sharding.NamedSharding(mesh, rows))
  for x, mask, loss in zip(batches, masks, losses, strict=True):
    expected, state = step(single, x, mask, loss, state)
    by_jit, replicated = divided(put(x), put(mask), put(loss), replicated)
    found, whole = mapped(x, mask, loss, whole)
    pieces, part = parallel(split(x), split(mask), split(loss), part)
    yield expected, by_jit, found, pieces.reshape(-1)
  chex.assert_trees_all_close(whole.effective, state.effective, rtol=1e-4)


@pytest.mark.several_devices
@pytest.mark.parametrize(
  ("metric", "blocks"), [("cosine", False), ("euclidean", False), ("cosine", True)]
)
def test_four_devices_give_the_weights_of_one(metric, blocks, request):
  if blocks:
    request.getfixturevalue("in_blocks")
  options = {"neighbours": 1.0, "loss_exponent": 0.5, "metric": metric}
  single = gq.example_scarcity(96, **options)
  scarcity = gq.example_scarcity(96, axis_name="data", **options)
  batches = jnp.stack([clouds(seed, (18, 4, 1, 1))[0] for seed in range(4)])
  masks = jnp.arange(B)[None] >= jnp.array([0, 3, 7, 0])[:, None]  # unequal on the devices
  losses = jnp.abs(batches[..., 0]) + 0.1
  for expected, *others in sharded_runs(scarcity, single, batches, masks, losses):
    for found in others:
      np.testing.assert_allclose(found, expected, rtol=2e-4)
  assert float(jnp.ptp(expected)) > 0.2


# Many examples, in blocks of rows.


@pytest.fixture
def in_blocks(monkeypatch):
  """Seven rows at once of 24: the last block is a part of one."""
  monkeypatch.setattr(density, "_AT_ONCE", 7)
  examples._update.clear_cache()
  yield
  examples._update.clear_cache()


def steps_and_explanation(options):
  scarcity = gq.example_scarcity(5, neighbours=1.0, **options)
  state, found = scarcity.init(DIM), []
  for seed in range(3):
    x, kinds = clouds(seed, (18, 4, 2))
    mask = jnp.arange(B) < B - 2 * seed
    weights, state = scarcity.update(jnp.asarray(x), state, mask=mask, losses=1.0 + kinds)
    found.append(weights)
  return found, state, scarcity.explain(jnp.asarray(x), state, B, 3)


@pytest.mark.parametrize("options", [{}, {"metric": "euclidean"}, {"loss_exponent": 0.5}])
def test_blocks_of_rows_give_the_same_numbers(options, request):
  at_once = steps_and_explanation(options)
  request.getfixturevalue("in_blocks")
  assert "scan" in str(jax.make_jaxpr(lambda: steps_and_explanation(options))())
  chex.assert_trees_all_close(steps_and_explanation(options), at_once, rtol=1e-5, atol=1e-6)


def planned(size, dim, call):
  """Temporary memory of a call for `[size, dim]`, as XLA plans it."""
  scarcity = gq.example_scarcity()
  state = jax.eval_shape(lambda: scarcity.init(dim))
  x = jax.ShapeDtypeStruct((size, dim), jnp.float32)
  compiled = jax.jit(getattr(scarcity, call)).lower(x, state).compile()
  return compiled.memory_analysis().temp_size_in_bytes / 2**30


@pytest.mark.slow  # the plan is another without optimizations
@pytest.mark.parametrize(
  ("call", "size", "dim", "most"),
  [("update", 1 << 16, 64, 0.5), ("update", 1 << 17, 16, 0.5), ("explain", 100_000, 64, 0.75)],
)
def test_memory_grows_with_the_examples_not_with_their_pairs(call, size, dim, most):
  assert planned(size, dim, call) < most


def test_a_usual_batch_has_no_loop():
  scarcity = gq.example_scarcity()
  x = jax.ShapeDtypeStruct((4096, 8), jnp.float32)
  text = str(jax.make_jaxpr(scarcity.update)(x, scarcity.init(8)))
  assert "scan" not in text
  assert "while" not in text


# Explanation and figures.


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_the_rarest_examples_and_what_is_nearest_to_them(metric):
  x = np.eye(DIM, dtype=np.float32)[[0] * 18 + [1] * 4 + [2, 3]]
  x[18:22, 0] = [0.0, 0.01, 0.03, 0.06]
  x[23] = np.nan
  scarcity = gq.example_scarcity(M, neighbours=4.0, metric=metric)
  losses = jnp.where(jnp.arange(B) < 18, 0.5, 2.0)
  _, state = scarcity.update(jnp.asarray(x), scarcity.init(DIM), losses=losses)
  explain = jax.jit(scarcity.explain, static_argnames=("num_examples", "num_nearest"))
  rarest = explain(jnp.asarray(x), state, num_examples=30, num_nearest=3)
  chex.assert_shape(rarest.nearest, (30, 3))
  assert set(rarest.indices[:4].tolist()) == {18, 19, 20, 21}
  assert rarest.indices[-7:].tolist() == [-1] * 7  # one of 24 was not finite
  assert rarest.nearest[-1].tolist() == [-1] * 3
  for figures in (rarest.densities, rarest.losses, rarest.weights):
    np.testing.assert_array_equal(figures[-7:], 0.0)
  place = rarest.indices.tolist().index(18)
  assert rarest.nearest[place].tolist() == [19, 20, 21]
  away = x[19] - x[18] if metric == "euclidean" else 0.0
  expected = (away**2).sum() if metric == "euclidean" else 1 - 1 / np.sqrt(1 + 0.01**2)
  assert float(rarest.distances[place, 0]) == pytest.approx(expected, abs=1e-6)
  assert float(rarest.densities[place]) == pytest.approx(4 / 23, rel=0.02)
  assert float(rarest.losses[place]) == pytest.approx(2.0, rel=0.02)
  assert (np.diff(rarest.weights[:23]) <= 1e-6).all()
  assert float(rarest.weights[:23].mean()) == pytest.approx(1.0, rel=1e-5)


def test_figures_of_example_scarcity():
  scarcity = gq.example_scarcity(M, neighbours=1.0)
  weights, state = update(scarcity, clouds(0, (15, 4, 1))[0], scarcity.init(DIM))
  figures = gq.diagnostics({"scarcity": state})
  chex.assert_shape(list(figures.values()), ())
  kish = weights.sum() ** 2 / (weights**2).sum()
  np.testing.assert_allclose(figures["effective_examples"], kish, rtol=1e-5)
  assert (figures["queued_examples"], figures["weighed_steps"]) == (20, 1)
  assert 0.5 < figures["reach"] < 0.7
