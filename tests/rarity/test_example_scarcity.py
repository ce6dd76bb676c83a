# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Example scarcity: a NumPy twin, the table of cases, known kinds, its cost, and explanations."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kinds import DIM, B, M, Twin, batch, clouds, update

import gq_optax as gq
from gq_optax._rarity import density


@pytest.mark.parametrize(
  "options",
  [
    {"loss_exponent": 0.5, "neighbours": 2.0},
    {"exponent": 0.5, "loss_exponent": 1.0, "bandwidth": 0.6, "max_weight": 1.5},
    {"exponent": 2.0, "neighbours": 0.0, "max_weight": 3.0},
    {"metric": "euclidean", "loss_exponent": 0.5, "neighbours": 3.0},
    {"loss_exponent": 0.5, "neighbours": 1.0, "queue_size": 5},
    {"metric": "euclidean", "neighbours": 1.0, "queue_size": 5},
  ],
)
def test_weights_are_the_formula_over_queue_and_batch(options, monkeypatch):
  """A queue that is shorter than a batch takes rows at even stride."""
  twin = Twin(**options)
  if twin.queue_size == 5:  # a shape of no other test: in blocks, of which the last is a part
    monkeypatch.setattr(density, "_AT_ONCE", 7)
  options = {"queue_size": M} | options
  options["loss_exponent"] = jnp.float32(twin.loss_exponent)
  scarcity = gq.example_scarcity(**options)
  state = scarcity.init(DIM)
  scale, offset = (1.0, 0.0) if twin.metric == "cosine" else (300.0, 500.0)
  # The first batch and the last are of copies: of the rarest kinds the queue alone holds another.
  for step, (size, spread) in enumerate([(24, 0.0), (20, 0.1), (5, 0.1), (24, 0.0)]):
    rng = np.random.default_rng(step)
    x = np.float32(scale * clouds(step, (18, 4, 1, 1), spread)[0] + offset)
    losses, counts = rng.exponential(size=B) * (rng.random(B) > 0.1), rng.permutation(B) < size
    weights, state = update(scarcity, x, state, losses, counts)
    expected = twin.update(x[counts], losses[counts])
    np.testing.assert_allclose(weights[counts], expected, rtol=2e-4)
    assert weights[counts].mean() == pytest.approx(1.0, rel=1e-6)
    rows = np.array([row for row, _ in twin.queue])
    np.testing.assert_allclose(state.queue[: len(rows)], rows, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state.losses[: len(rows)], [v for _, v in twin.queue], rtol=1e-6)
    assert state.filled.tolist() == [i < len(rows) for i in range(twin.queue_size)]
  assert weights.max() > 1.2
  text = str(jax.make_jaxpr(scarcity.update)(x, state, losses=losses.astype("f")))
  assert ("scan" in text) == (twin.queue_size == 5)


def test_what_cannot_be_compared_is_neither_queued_nor_weighted():
  x = np.concatenate([batch(*[0] * 9, *[1] * 3), np.zeros((4, DIM))])
  x[12], x[13, 0] = np.nan, np.inf
  losses = np.ones(16)
  x[15], losses[15] = 1.0, np.nan
  scarcity = gq.example_scarcity(M, neighbours=1.0)
  weights, state = update(scarcity, x, scarcity.init(DIM), losses)
  alone, alone_state = update(scarcity, x[:12], scarcity.init(DIM), losses[:12])
  np.testing.assert_allclose(weights[:12], alone, rtol=1e-6)
  np.testing.assert_array_equal(weights[12:], 1.0)
  assert state.filled.sum() == 12
  chex.assert_trees_all_close(state._replace(effective=alone_state.effective), alone_state)


def test_embeddings_as_short_as_rounding_weigh_one():
  """Output gradients of fitted examples, from bfloat16 logits: their direction is noise."""
  one_hot, sure = np.eye(DIM)[np.arange(B) % DIM], np.arange(B) < 12
  noise = np.random.default_rng(0).normal(size=one_hot.shape)
  logits = jnp.asarray(np.where(sure, 12.0, 1.0)[:, None] * one_hot + 0.1 * noise, jnp.bfloat16)
  softmax = lambda z, y: -jnp.sum(jax.nn.log_softmax(z) * y, axis=1)
  gradients = jax.jit(functools.partial(gq.output_gradients, softmax))
  x = gradients(logits, jnp.asarray(one_hot, jnp.bfloat16))
  assert x.dtype == jnp.bfloat16
  assert np.any(np.asarray(x) != 0, axis=1).all()
  scarcity = gq.example_scarcity(M, neighbours=1.0)
  weights, state = scarcity.update(x, scarcity.init(DIM))
  np.testing.assert_array_equal(weights[sure], 1.0)
  assert not np.isclose(weights[~sure], 1.0).all()
  assert state.filled.sum() == 12
  # A batch of nothing but such examples: the queue remembers how long others are.
  weights, state = scarcity.update(jnp.where(sure[:, None], x, x[:1]), state)
  np.testing.assert_array_equal(weights, 1.0)


def test_euclidean_weights_do_not_know_units_or_origin():
  x, _ = clouds(0, (18, 4, 1, 1), spread=0.3)
  scarcity = gq.example_scarcity(M, metric="euclidean", neighbours=1.0)
  results = []
  for scale, offset in ((1.0, 0.0), (3e12, 0.0), (2.0**-40, 0.0), (1.0, 64.0)):
    state = scarcity.init(DIM)
    for _ in range(2):
      weights, state = update(scarcity, np.float32(scale) * x + np.float32(offset), state)
    results.append(weights)
    assert float(state.reach) == pytest.approx(scale * 0.83, rel=0.05)
  for weights in results[1:]:
    np.testing.assert_allclose(weights, results[0], rtol=1e-3)
  assert np.ptp(results[0]) > 0.3


def test_what_overflows_the_queue_dtype_is_not_queued():
  scarcity = gq.example_scarcity(M, metric="euclidean", queue_dtype=jnp.float16)
  x = np.ones((B, DIM), np.float32)
  x[0] = 1e6
  weights, state = update(scarcity, x, scarcity.init(DIM))
  assert state.filled.sum() == B - 1
  chex.assert_tree_all_finite(state)
  assert weights[0] == 1.0


def test_a_usual_batch_has_no_loop_and_no_memory_for_all_pairs():
  scarcity, x = gq.example_scarcity(), jax.ShapeDtypeStruct((4096, 8), jnp.float32)
  text = str(jax.make_jaxpr(scarcity.update)(x, scarcity.init(8)))
  assert not [loop for loop in ("scan[", "while[", "cond[") if loop in text]
  scarcity, rows = gq.example_scarcity(M), np.ones((B, DIM), np.float32)
  text = jax.jit(scarcity.update).lower(rows, scarcity.init(DIM)).compile().as_text()
  # What stands inside a fusion takes no memory.
  in_memory = [part for part in text.split("\n\n") if not part.startswith("%fused")]
  assert f"f32[{B},{B + M}]" not in "".join(in_memory)


# Kinds of known rarity, with the defaults.

SIZE, WIDTH = 1024, 128


def play(steps, spread, draw):
  """Kinds and weights of the batches of some steps, the first left out; -1 is no kind.

  The mean squared distance within a kind is about the spread.
  """
  rng, scarcity = np.random.default_rng(0), gq.example_scarcity()
  unit = lambda rows: rows / np.linalg.norm(rows, axis=1, keepdims=True)
  state, centers, seen = scarcity.init(WIDTH), unit(rng.normal(size=(10, WIDTH))), []
  for _ in range(steps):
    kinds, noise = draw(rng), rng.normal(size=(SIZE, WIDTH))
    places = centers[kinds] + noise * np.sqrt(spread / 2 / WIDTH)
    x = unit(np.where(kinds[:, None] < 0, noise, places))
    weights, state = scarcity.update(x.astype(np.float32), state)
    assert float(weights.mean()) == pytest.approx(1.0, rel=1e-5)
    seen.append((kinds, np.asarray(weights)))
  return (np.concatenate(part) for part in zip(*seen[1:], strict=True))


@pytest.mark.parametrize("spread", [0.01, 0.1, 0.4])
def test_isolated_points_beside_ten_kinds_hold_little_of_the_weight(spread):
  isolated = np.arange(SIZE) < 0.03 * SIZE
  draw = lambda rng: np.where(isolated, -1, rng.integers(0, 10, SIZE))
  kinds, weights = play(2, spread, draw)
  assert weights[kinds < 0].sum() < 0.1 * weights.sum()


@pytest.mark.parametrize("spread", [0.001, 0.01, 0.05, 0.2])
def test_a_kind_of_one_in_a_hundred_is_found_whatever_the_spread(spread):
  share = 10 / SIZE
  kinds, weights = play(3, spread, lambda rng: rng.permutation(np.arange(SIZE) < 10).astype(int))
  assert weights[kinds == 1].mean() == pytest.approx(0.5 / share, rel=0.3)


@pytest.mark.slow  # the plan is another without optimizations
@pytest.mark.parametrize(
  ("call", "size", "dim", "most"),
  [("update", 1 << 16, 64, 0.5), ("update", 1 << 17, 16, 0.5), ("explain", 100_000, 64, 0.75)],
)
def test_memory_grows_with_the_examples_not_with_their_pairs(call, size, dim, most):
  scarcity, x = gq.example_scarcity(), jax.ShapeDtypeStruct((size, dim), jnp.float32)
  compiled = jax.jit(getattr(scarcity, call)).lower(x, scarcity.init(dim)).compile()
  assert compiled.memory_analysis().temp_size_in_bytes / 2**30 < most


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_the_rarest_examples_and_what_is_nearest_to_them(metric, monkeypatch):
  x = batch(*[0] * 18, *[1] * 4, 2, 3)
  x[18:22, 0] = [0.0, 0.01, 0.03, 0.06]
  x[23] = np.nan
  scarcity = gq.example_scarcity(M, neighbours=4.0, metric=metric)
  _, state = update(scarcity, x, scarcity.init(DIM), np.where(np.arange(B) < 18, 0.5, 2.0))
  if metric == "euclidean":  # in blocks of rows, of which the last is a part
    monkeypatch.setattr(density, "_AT_ONCE", 7)
  explain = jax.jit(scarcity.explain, static_argnames=("num_examples", "num_nearest"))
  explain = explain.trace(jnp.asarray(x), state, num_examples=30, num_nearest=3)
  assert ("scan" in str(explain.jaxpr)) == (metric == "euclidean")
  rarest = jax.device_get(explain.lower().compile()(jnp.asarray(x), state))
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
  figures = jax.jit(gq.diagnostics)({"scarcity": state})
  chex.assert_shape(list(figures.values()), ())
  kish = weights.sum() ** 2 / (weights**2).sum()
  np.testing.assert_allclose(figures["effective_examples"], kish, rtol=1e-5)
  assert (figures["queued_examples"], figures["weighed_steps"]) == (20, 1)
  assert 0.5 < figures["reach"] < 0.7
