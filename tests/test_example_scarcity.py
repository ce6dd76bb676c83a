# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Example scarcity: a NumPy twin, every row of the table of cases, kinds of known rarity."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gq_optax as gq

B, M, DIM = 24, 32, 4  # one shape for nearly all tests: they share a few compilations


def update(scarcity, x, state, losses=None):
  """Padded to one shape by masked rows."""
  missing = B - len(x)
  mask = jnp.arange(B) < len(x)
  x = jnp.pad(jnp.asarray(x, jnp.float32), ((0, missing), (0, 0)))
  losses = None if losses is None else jnp.pad(jnp.asarray(losses, jnp.float32), (0, missing))
  weights, state = scarcity.update(x, state, mask=mask, losses=losses)
  np.testing.assert_array_equal(weights[B - missing :], 0.0)
  return np.asarray(weights[: B - missing], np.float64), state


def held(scarce, bound):
  """The s of clip(s * scarce, 1 / bound, bound) of mean 1, by bisection."""
  low, high = 1e-12, 1e12
  for _ in range(200):
    middle = np.sqrt(low * high)
    mean = np.clip(middle * scarce, 1 / bound, bound).mean()
    low, high = (middle, high) if mean < 1 else (low, middle)
  return np.clip(low * scarce, 1 / bound, bound)


class Twin:
  """The formula in plain loops over a list of rows, in float64."""

  def __init__(self, size=M, h=0.2, m=8.0, a=1.0, b=0.0, bound=50.0, metric="cosine"):
    self.size, self.h, self.m, self.a, self.b = size, h, m, a, b
    self.bound, self.metric, self.queue = bound, metric, []

  def update(self, x, losses):
    x = np.asarray(x, np.float64)
    rows = [e / np.linalg.norm(e) if self.metric == "cosine" else e for e in x]
    batch = list(zip(rows, losses, strict=True))
    distance = lambda a, b: ((a - b) ** 2).sum()
    pairs = [distance(e, o) for e in rows for o, _ in batch + self.queue]
    squares = sum(d**2 for d in pairs)
    reach = self.h * sum(d**3 for d in pairs) / squares if squares else 1.0
    everyone = [loss for _, loss in batch + self.queue]
    mean = np.mean(everyone)
    found, ratio = [], []
    for i, e in enumerate(rows):
      others = batch[:i] + batch[i + 1 :] + self.queue
      alike = [np.exp(-0.5 * (distance(e, o) / reach) ** 2) for o, _ in others]
      found.append(sum(alike))
      around = sum(k * loss for k, (_, loss) in zip(alike, others, strict=True)) + mean
      ratio.append(np.clip(around / (found[-1] + 1) / mean, 0.02, 50) ** self.b)
    found = np.array(found)
    scarce = np.maximum(found + self.m, 0.5) ** -self.a * np.array(ratio)
    trust = found**2 / (found**2 + (self.m / 2) ** 2 + 1e-300)
    unit = trust.sum() / (trust * scarce).sum() if trust.any() else 1.0
    weights = held(1 + trust * (unit * scarce - 1), self.bound)
    new = batch
    if len(batch) > self.size:
      new = [batch[i * len(batch) // self.size] for i in range(self.size)]
    self.queue = (new + self.queue)[: self.size]
    return weights


def clouds(seed, sizes, spread=0.1, dim=DIM):
  """Directions around the axes, as many of each as given, shuffled; and which axis."""
  rng = np.random.default_rng(seed)
  kinds = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
  x = np.eye(dim)[kinds] + spread * rng.normal(size=(len(kinds), dim))
  return x.astype(np.float32), kinds


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
  x = np.eye(DIM)[[0] * 20 + [1] * 3 + [2]]
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


def test_nothing_to_compare_leaves_the_state_as_it_was():
  scarcity = gq.example_scarcity(M)
  _, state = update(scarcity, np.eye(DIM), scarcity.init(DIM))
  masked = jnp.zeros(B, bool)
  for x, mask in ((jnp.full((B, DIM), jnp.nan), ~masked), (jnp.ones((B, DIM)), masked)):
    weights, after = scarcity.update(x, state, mask=mask)
    chex.assert_trees_all_equal(after, state)
    np.testing.assert_array_equal(weights, mask.astype(jnp.float32))


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_the_same_embedding_for_all_weighs_all_the_same(metric):
  scarcity = gq.example_scarcity(M, metric=metric)
  state = scarcity.init(DIM)
  for size in (20, 24, 1):
    weights, state = update(scarcity, np.full((size, DIM), 0.3), state)
    np.testing.assert_allclose(weights, 1.0, rtol=1e-4)


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


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_any_input_gives_finite_weights_of_mean_one_within_the_bounds(data):
  rows = 6
  number = st.sampled_from([0.0, 1.0, -1.0, 1e-30, 1e30, -3e38, np.nan, np.inf, 0.5])
  draw = lambda n: np.array(data.draw(st.lists(number, min_size=n, max_size=n)), np.float32)
  x, losses = draw(3 * rows).reshape(rows, 3), draw(rows)
  mask = np.array(data.draw(st.lists(st.booleans(), min_size=rows, max_size=rows)))
  metric = data.draw(st.sampled_from(["cosine", "euclidean"]))
  scarcity = gq.example_scarcity(
    8, metric=metric, loss_exponent=data.draw(st.sampled_from([0.5, 4.0])), max_weight=8.0
  )
  state = scarcity.init(3)
  for order in (slice(None), slice(None, None, -1), slice(None)):
    weights, state = scarcity.update(
      jnp.asarray(x[order]), state, mask=jnp.asarray(mask), losses=jnp.asarray(losses[order])
    )
    chex.assert_tree_all_finite((weights, state))
    weights = np.asarray(weights)
    assert (weights[~mask] == 0.0).all()
    if mask.any():
      assert weights[mask].mean() == pytest.approx(1.0, rel=1e-5)
      assert weights[mask].min() >= 1 / 8 * (1 - 1e-5)
      assert weights[mask].max() <= 8 * (1 + 1e-5)


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


def test_traced_options_are_clamped():
  x, _ = clouds(1, (18, 4, 1, 1))
  run = lambda **o: update(gq.example_scarcity(M, **o), x, gq.example_scarcity(M).init(DIM))[0]
  np.testing.assert_allclose(run(exponent=jnp.float32(-3.0)), 1.0, rtol=1e-5)
  np.testing.assert_allclose(run(max_weight=jnp.float32(0.1)), 1.0, rtol=1e-5)
  most = run(exponent=4.0)
  np.testing.assert_allclose(run(exponent=jnp.float32(9.0)), most, rtol=1e-6)


# JAX's transformations, dtypes, devices.


def test_no_loop_in_the_compiled_update_and_nothing_compiled_twice():
  scarcity = gq.example_scarcity(M, loss_exponent=0.5)
  step = jax.jit(lambda x, s, losses: scarcity.update(x, s, losses=losses), donate_argnums=1)
  state = scarcity.init(DIM)
  text = step.lower(jnp.ones((B, DIM)), state, jnp.ones(B)).compile().as_text()
  assert " while(" not in text
  assert " conditional(" not in text
  assert f"f32[{B},{B + M}]" not in text
  for seed in range(3):
    x, _ = clouds(seed, (18, 4, 1, 1))
    _, state = step(jnp.asarray(x), state, jnp.ones(B))
  assert step._cache_size() == 1
  assert state.count == 3


def test_scan_and_vmap_over_seeds_equal_single_runs():
  scarcity = gq.example_scarcity(M, neighbours=1.0)
  batches = jnp.stack([clouds(seed, (18, 4, 1, 1))[0] for seed in range(6)]).reshape(2, 3, B, DIM)
  run = lambda batches: jax.lax.scan(
    lambda state, x: scarcity.update(x, state)[::-1], scarcity.init(DIM), batches
  )
  together = jax.jit(jax.vmap(run))(batches)
  for seed in range(2):
    state, singles = scarcity.init(DIM), []
    for x in batches[seed]:
      weights, state = scarcity.update(x, state)
      singles.append(weights)
    expected = (state, jnp.stack(singles))
    found = jax.tree.map(lambda v, seed=seed: v[seed], together)
    chex.assert_trees_all_close(found, expected, rtol=1e-4)


@pytest.mark.parametrize(
  ("metric", "dtype"), [("cosine", jnp.bfloat16), ("euclidean", jnp.float16)]
)
def test_dtypes_are_explicit(metric, dtype):
  scarcity = gq.example_scarcity(M, metric=metric, queue_dtype=dtype)
  x = jax.random.normal(jax.random.key(0), (B, 2, 2), dtype)
  state = scarcity.init(jax.ShapeDtypeStruct((B, 2, 2), dtype))
  weights, after = scarcity.update(x, state)
  chex.assert_trees_all_equal_shapes_and_dtypes(after, state)
  chex.assert_type(weights, jnp.float32)
  assert state.queue.dtype == dtype
  # Copies in the queue are rounded as the batch is: they are exactly equal.
  single = jnp.broadcast_to(x[:1], x.shape)
  weights, _ = scarcity.update(single, scarcity.update(single, state)[1])
  np.testing.assert_allclose(weights, 1.0, rtol=1e-6)


def test_what_overflows_the_queue_dtype_is_not_queued():
  scarcity = gq.example_scarcity(M, metric="euclidean", queue_dtype=jnp.float16)
  x = np.ones((B, DIM), np.float32)
  x[0] = 1e6
  weights, state = scarcity.update(jnp.asarray(x), scarcity.init(DIM))
  assert state.filled.sum() == B - 1
  assert weights[0] == 1.0


def test_no_gradient_flows_through_the_weights():
  scarcity = gq.example_scarcity(M, loss_exponent=0.5)
  x = jnp.asarray(clouds(0, (18, 4, 1, 1))[0])

  def loss(scale):
    losses = scale * jnp.arange(1.0, B + 1.0)
    weights, _ = scarcity.update(scale * x, scarcity.init(DIM), losses=losses)
    return jnp.mean(weights * scale), weights

  gradient, weights = jax.grad(loss, has_aux=True)(jnp.float32(2.0))
  assert gradient == pytest.approx(float(jnp.mean(weights)))


def sharded_runs(scarcity, single, batches, masks, losses):
  """Weights of three steps on one device, under shard_map and under pmap, four devices each."""
  spec, devices = jax.sharding.PartitionSpec, jax.devices()[:4]
  auto = (jax.sharding.AxisType.Auto,)
  mesh = jax.make_mesh((4,), ("data",), axis_types=auto, devices=devices)
  step = lambda s, x, mask, loss, state: s.update(x, state, mask=mask, losses=loss)
  state = single.init(DIM)
  scalars = ("reach", "effective", "count")
  specs = state._replace(**{k: spec() if k in scalars else spec("data") for k in state._fields})
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
  whole = state
  for x, mask, loss in zip(batches, masks, losses, strict=True):
    expected, state = step(single, x, mask, loss, state)
    found, whole = mapped(x, mask, loss, whole)
    pieces, part = parallel(split(x), split(mask), split(loss), part)
    yield expected, found, pieces.reshape(-1)
  chex.assert_trees_all_close(whole.effective, state.effective, rtol=1e-4)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_four_devices_give_the_weights_of_one(metric):
  options = {"neighbours": 1.0, "loss_exponent": 0.5, "metric": metric}
  single = gq.example_scarcity(96, **options)
  scarcity = gq.example_scarcity(96, axis_name="data", **options)
  batches = jnp.stack([clouds(seed, (18, 4, 1, 1))[0] for seed in range(4)])
  masks = jnp.arange(B)[None] >= jnp.array([0, 3, 7, 0])[:, None]  # unequal on the devices
  losses = jnp.abs(batches[..., 0]) + 0.1
  steps = list(sharded_runs(scarcity, single, batches, masks, losses))
  for expected, found, pieces in steps:
    np.testing.assert_allclose(found, expected, rtol=2e-4)
    np.testing.assert_allclose(pieces, expected, rtol=2e-4)
  assert float(jnp.ptp(steps[-1][0])) > 0.2


# Explanation, figures, errors.


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_the_rarest_examples_and_what_is_nearest_to_them(metric):
  x = np.eye(DIM, dtype=np.float32)[[0] * 18 + [1] * 4 + [2, 3]]
  x[18:22, 0] = [0.0, 0.01, 0.03, 0.06]
  x[23] = np.nan
  scarcity = gq.example_scarcity(M, neighbours=4.0, metric=metric)
  losses = jnp.where(jnp.arange(B) < 18, 0.5, 2.0)
  _, state = scarcity.update(jnp.asarray(x), scarcity.init(DIM), losses=losses)
  explain = jax.jit(gq.explain_examples, static_argnames=("num_examples", "num_nearest", "metric"))
  rarest = explain(jnp.asarray(x), state, 30, 3, neighbours=4.0, metric=metric)
  chex.assert_shape(rarest.nearest, (30, 3))
  assert set(rarest.indices[:4].tolist()) == {18, 19, 20, 21}
  assert rarest.indices[-7:].tolist() == [-1] * 7  # one of 24 was not finite
  assert rarest.nearest[-1].tolist() == [-1] * 3
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


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"queue_size": 0}, "queue_size must be at least 1, but 0"),
    ({"bandwidth": 0.0}, r"bandwidth must be in \(0.0, inf\), but 0.0"),
    ({"neighbours": -1.0}, r"neighbours must be in \[0.0, inf\), but -1.0"),
    ({"exponent": 5.0}, r"exponent must be in \[0.0, 4.0\], but 5.0"),
    ({"loss_exponent": -1.0}, r"loss_exponent must be in \[0.0, 4.0\], but -1.0"),
    ({"metric": "manhattan"}, "metric must be one of"),
    ({"max_weight": 0.5}, r"max_weight must be in \[1.0, inf\), but 0.5"),
    ({"queue_dtype": jnp.int8}, "queue_dtype must be a real floating dtype"),
  ],
)
def test_options_out_of_range(options, message):
  with pytest.raises(ValueError, match=message):
    gq.example_scarcity(**options)


def test_shapes_that_do_not_fit():
  scarcity = gq.example_scarcity(M)
  state = scarcity.init(DIM)
  with pytest.raises(ValueError, match=r"embeddings must be \[B, ...\] with 4 numbers"):
    scarcity.update(jnp.ones((3, 5)), state)
  with pytest.raises(ValueError, match="mask must be bool, but float32"):
    scarcity.update(jnp.ones((3, 4)), state, mask=jnp.ones(3))
  with pytest.raises(ValueError, match=r"losses must be \[B\] with B = 3"):
    scarcity.update(jnp.ones((3, 4)), state, losses=jnp.ones(2))
  with pytest.raises(ValueError, match=r"at least two numbers each .* metric=\"euclidean\""):
    scarcity.init(1)
  assert gq.example_scarcity(M, metric="euclidean").init(1).queue.shape == (M, 1)
