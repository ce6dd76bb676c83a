# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Example scarcity: a NumPy twin, every row of the table of cases, JAX's transformations."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from example_clouds import DIM, B, M, Twin, clouds, update

import gq_optax as gq


@pytest.mark.parametrize(
  ("metric", "options"),
  [
    ("cosine", {"a": 1.0, "b": 0.5, "m": 2.0}),
    ("cosine", {"a": 0.5, "b": 1.0, "h": 0.6, "bound": 1.5}),
    ("cosine", {"a": 2.0, "b": 0.0, "m": 0.0, "bound": 3.0}),
    ("euclidean", {"a": 1.0, "b": 0.5, "m": 3.0}),
  ],
)
def test_weights_are_the_formula_over_queue_and_batch(metric, options):
  twin = Twin(metric=metric, **options)
  scarcity = gq.example_scarcity(
    M,
    metric=metric,
    bandwidth=twin.h,
    neighbours=twin.m,
    exponent=twin.a,
    loss_exponent=jnp.float32(twin.b),
    max_weight=twin.bound,
  )
  state = scarcity.init(DIM)
  scale, offset = (1.0, 0.0) if metric == "cosine" else (300.0, 500.0)
  for step, size in enumerate((20, 24, 5, 24)):
    x, _ = clouds(step, (size - 4, 2, 1, 1))
    losses = np.random.default_rng(step).exponential(size=size)
    weights, state = update(scarcity, scale * x + offset, state, losses)
    np.testing.assert_allclose(weights, twin.update(scale * x + offset, losses), rtol=2e-4)
    assert weights.mean() == pytest.approx(1.0, rel=1e-6)
    rows = np.array([row for row, _ in twin.queue])
    np.testing.assert_allclose(state.queue[: len(rows)], rows, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state.losses[: len(rows)], [v for _, v in twin.queue], rtol=1e-6)
    assert state.filled.tolist() == [i < len(rows) for i in range(M)]
  assert weights.max() > 1.2


def test_the_first_step_knows_its_batch_alone_and_the_next_the_queue_too():
  scarcity = gq.example_scarcity(M, neighbours=2.0)
  x = np.eye(DIM)[[0] * 18 + [1] * 6]
  weights, state = update(scarcity, x, scarcity.init(DIM))
  assert weights[0] < 0.8 < 1.2 < weights[-1]
  # As many of both in queue and batch: 18 + 6 and 6 + 18, each without itself.
  weights, _ = update(scarcity, x[::-1][:24] @ np.eye(DIM)[[1, 0, 2, 3]], state)
  np.testing.assert_allclose(weights[:6], weights[0], rtol=1e-6)
  later, _ = update(scarcity, np.eye(DIM)[[1] * 18 + [0] * 6], state)
  np.testing.assert_allclose(later, 1.0, rtol=1e-5)


def test_a_batch_larger_than_the_queue_is_kept_at_even_stride():
  scarcity = gq.example_scarcity(5)
  x, _ = clouds(0, (6, 6, 6, 6))
  mask = np.arange(B) % 2 == 0
  _, state = scarcity.update(jnp.asarray(x), scarcity.init(DIM), mask=jnp.asarray(mask))
  kept = x[mask][[i * 12 // 5 for i in range(5)]]
  kept /= np.linalg.norm(kept, axis=1, keepdims=True)
  np.testing.assert_allclose(state.queue, kept, rtol=1e-6)
  assert state.filled.all()


def test_an_isolated_example_is_no_rare_kind():
  scarcity = gq.example_scarcity(M)
  x = np.eye(DIM)[[0] * 17 + [1] * 6 + [2]]
  weights, _ = update(scarcity, x, scarcity.init(DIM))
  assert weights[-2] > 1.2 * weights[-1] > weights[0]
  lonely, _ = update(scarcity, np.eye(DIM), scarcity.init(DIM))
  np.testing.assert_allclose(lonely, 1.0, rtol=1e-6)


def test_smoothed_loss_tells_a_hard_kind_from_an_easy_one():
  scarcity = gq.example_scarcity(M, loss_exponent=1.0)
  x = np.eye(DIM)[[0, 1] * 12]
  losses = np.array([1.0, 3.0] * 12)
  losses[1] = 0.0  # of one example: what counts is the loss of its neighbours
  weights, _ = update(scarcity, x, scarcity.init(DIM), losses)
  assert weights[1] > 1.4 * weights[0]
  plain, _ = update(gq.example_scarcity(M), x, scarcity.init(DIM), losses)
  np.testing.assert_allclose(plain, 1.0, rtol=1e-6)
  with pytest.raises(ValueError, match="losses must be the losses of the examples"):
    update(scarcity, x, scarcity.init(DIM))


def test_a_data_set_smaller_than_the_queue_counts_its_copies():
  """Epoch after epoch the same examples: even an isolated one then has neighbours, itself."""
  scarcity = gq.example_scarcity(4 * B)
  x = np.eye(DIM)[[0] * 20 + [1] * 3 + [2]]
  state = scarcity.init(DIM)
  first, state = update(scarcity, x, state)
  for _ in range(5):
    weights, state = update(scarcity, x, state)
  assert state.filled.all()
  assert weights[-1] > 2 * first[-1]  # the last four epochs and this one hold it


# The table of cases.


def test_what_cannot_be_compared_is_neither_queued_nor_weighted():
  x = np.concatenate([np.eye(DIM)[[0] * 9 + [1] * 3], np.zeros((4, DIM))]).astype(np.float32)
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
  labels = np.arange(B) % 3
  sure = np.arange(B) < 12
  logits = jnp.asarray(np.where(sure, 12.0, 1.0)[:, None] * np.eye(3)[labels], jnp.bfloat16)
  logits = logits + 0.1 * jax.random.normal(jax.random.key(0), logits.shape, jnp.bfloat16)
  softmax = lambda z, y: -jnp.sum(jax.nn.log_softmax(z) * y, axis=1)
  x = gq.output_gradients(softmax, logits, jnp.asarray(np.eye(3)[labels], jnp.bfloat16))
  assert x.dtype == jnp.bfloat16
  assert np.asarray(jnp.any(x != 0, axis=1)).all()
  scarcity = gq.example_scarcity(M, neighbours=1.0)
  weights, state = scarcity.update(x, scarcity.init(3))
  np.testing.assert_array_equal(weights[sure], 1.0)
  assert not np.isclose(weights[~sure], 1.0).all()
  assert state.filled.sum() == 12
  # A batch of nothing but such examples: the queue remembers how long others are.
  weights, state = scarcity.update(jnp.where(sure[:, None], x, x[:1]), state)
  np.testing.assert_array_equal(weights, 1.0)


def test_bounds_hold_after_all_exponents_and_the_mean_stays_one():
  x = np.eye(DIM)[[0] * 20 + [1] * 4]
  for options in ({"exponent": 4.0}, {"loss_exponent": 2.0}):
    scarcity = gq.example_scarcity(M, neighbours=0.0, max_weight=2.0, **options)
    weights, _ = update(scarcity, x, scarcity.init(DIM), np.where(np.arange(24) < 20, 1.0, 9.0))
    np.testing.assert_allclose(weights[20:], 2.0, rtol=1e-6)
    np.testing.assert_allclose(weights[:20], (24 - 8) / 20, rtol=1e-6)


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


# JAX's transformations, dtypes, devices.


def test_no_loop_in_the_compiled_update_and_nothing_compiled_twice():
  scarcity = gq.example_scarcity(M, loss_exponent=0.5)
  step = jax.jit(lambda x, s, losses: scarcity.update(x, s, losses=losses), donate_argnums=1)
  state = scarcity.init(DIM)
  text = step.lower(jnp.ones((B, DIM)), state, jnp.ones(B)).compile().as_text()
  assert " while(" not in text
  assert " conditional(" not in text
  # What stands inside a fusion takes no memory.
  in_memory = [part for part in text.split("\n\n") if not part.startswith("%fused")]
  assert f"f32[{B},{B + M}]" not in "".join(in_memory)
  for seed in range(3):
    x, _ = clouds(seed, (18, 4, 1, 1))
    _, state = step(jnp.asarray(x), state, jnp.ones(B))
  assert step._cache_size() == 1
  assert state.count == 3


@pytest.mark.parametrize("compiled", [False, True])
def test_what_overflows_the_queue_dtype_is_not_queued(compiled):
  scarcity = gq.example_scarcity(M, metric="euclidean", queue_dtype=jnp.float16)
  x = np.ones((B, DIM), np.float32)
  x[0] = 1e6
  update = jax.jit(scarcity.update) if compiled else scarcity.update
  weights, state = update(jnp.asarray(x), scarcity.init(DIM))
  assert state.filled.sum() == B - 1
  chex.assert_tree_all_finite(state)
  assert weights[0] == 1.0
