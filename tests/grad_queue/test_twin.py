# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""grad_queue against the plain NumPy twin in reference.py, step by step on random trees."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import Reference

import gq_optax as gq
from gq_optax._group_gradients import group_gradients

SHAPES = {"w": (4, 3), "b": (3,), "scale": ()}
STEPS, BATCH, GROUPS = 14, 24, 4
BOTH = (
  {"queue_length": 3},
  {"queue_length": 1, "rho": 1.5},
  {"queue_length": 5, "rho": 7.0},
  {"queue_length": 2, "update_norm": "match"},
  {"queue_length": 3, "update_norm": 1.25},
  {"queue_length": (1, 4)},
  {"queue_length": (2, 6), "rho": 2.0, "update_norm": "match"},
)
by_settings = pytest.mark.parametrize(
  "settings", BOTH, ids=lambda s: "-".join(map(str, s.values()))
)


def random_tree(rng, *leading, shapes=SHAPES):
  """Gradients as they come: a common part, noise, coordinates that rest, and rare spikes."""
  tree = {}
  for name, shape in shapes.items():
    g = 0.3 + rng.normal(size=(*leading, *shape)) * 10.0 ** rng.uniform(-3, 1)
    g = np.where(rng.random(g.shape) < 0.1, 20 * g, g)
    if shape:
      g[..., 0] = 0.0  # dead units
    tree[name] = g.astype(np.float32)
  return tree


def losses(rng):
  """A loss that falls, rests and jumps, so that the adaptive length moves through its range."""
  return (10 - np.cumsum(rng.choice([1.0, 0.5, 0.0, -2.0], STEPS, p=[0.5, 0.2, 0.1, 0.2]))).tolist()


def run(tx, reference, inputs, update_twin, rtol=2e-4):
  """Steps both over `inputs`: (updates, kwargs, what the twin takes); compares every update."""
  state = tx.init({n: jnp.zeros(s) for n, s in SHAPES.items()})
  update = jax.jit(tx.update)
  for updates, kwargs, twin_input in inputs:
    result, state = update(updates, state, **kwargs)
    expected = update_twin(reference, *twin_input)
    chex.assert_trees_all_equal_shapes(result, expected)
    for name in SHAPES:
      # Groups may cancel: what is lost then is relative to the largest of them.
      size = np.nan_to_num(np.abs(expected[name]), nan=0.0, posinf=0.0).max()
      np.testing.assert_allclose(result[name], expected[name], rtol=rtol, atol=1e-5 * size)
  return state


@by_settings
def test_mean_gradients(settings):
  rng = np.random.default_rng(0)
  values = losses(rng)
  adaptive = isinstance(settings["queue_length"], tuple)
  trees = [random_tree(rng) for _ in range(STEPS)]
  inputs = [
    (tree, {"value": value} if adaptive else {}, (tree, value))
    for tree, value in zip(trees, values, strict=True)
  ]
  state = run(gq.grad_queue(**settings), Reference(**settings), inputs, Reference.mean)
  assert state.queue.count > state.queue.slots["w"].shape[0]


@by_settings
def test_per_example_gradients(settings):
  rng = np.random.default_rng(1)
  values = losses(rng)
  inputs = []
  for value in values:
    # Embeddings so far apart that K-means must find these labels; some steps leave a group small.
    labels = np.concatenate([np.arange(GROUPS), rng.integers(0, GROUPS, BATCH - GROUPS) // 2])
    embeddings = 100.0 * np.eye(GROUPS)[labels] + rng.normal(size=(BATCH, GROUPS))
    tree = random_tree(rng, BATCH)
    kwargs = {"embeddings": jnp.asarray(embeddings, jnp.float32), "value": jnp.float32(value)}
    inputs.append((tree, kwargs, (tree, labels, GROUPS, value)))
  tx = gq.grad_queue(num_clusters=GROUPS, **settings)
  run(tx, Reference(**settings), inputs, Reference.per_example)


@pytest.mark.parametrize("integer_counts", [True, False])
@by_settings
def test_group_gradients_with_empty_groups(settings, integer_counts):
  rng = np.random.default_rng(2)
  values = losses(rng)
  inputs = []
  for value in values:
    counts = rng.integers(0, 9, GROUPS)
    counts[rng.integers(GROUPS)] += 1
    tree = random_tree(rng, GROUPS)
    clean = {
      n: np.where((counts > 0).reshape(-1, *[1] * (g.ndim - 1)), g, 0) for n, g in tree.items()
    }
    dirty = {
      n: np.where((counts > 0).reshape(-1, *[1] * (g.ndim - 1)), g, np.nan) for n, g in tree.items()
    }
    groups = gq.GroupGradients(
      {n: jnp.asarray(g, jnp.float32) for n, g in dirty.items()},
      jnp.asarray(counts, jnp.int32 if integer_counts else jnp.float32),
      jnp.where(jnp.asarray(counts) > 0, jnp.float32(value), jnp.float32(np.nan)),
    )
    inputs.append((groups, {}, (clean, counts.tolist(), value)))
  run(gq.grad_queue(**settings), Reference(**settings), inputs, Reference.groups)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_a_narrow_queue_compares_rounded_with_rounded(dtype):
  rng = np.random.default_rng(4)
  store = lambda x: np.asarray(x, dtype).astype(np.float64)
  trees = [random_tree(rng) for _ in range(STEPS)]
  tx = gq.grad_queue(4, queue_dtype=dtype)
  state = run(tx, Reference(4, store=store), [(t, {}, (t,)) for t in trees], Reference.mean)
  assert {leaf.dtype for leaf in jax.tree.leaves(state.queue.slots)} == {jnp.dtype(dtype)}


def test_mixed_dtypes_keep_theirs():
  dtypes = {"w": jnp.bfloat16, "b": jnp.float16, "scale": jnp.float32}
  cast = lambda tree: {n: jnp.asarray(g, dtypes[n]) for n, g in tree.items()}
  rng = np.random.default_rng(5)
  tx, reference = gq.grad_queue(3), Reference(3)
  state, update = tx.init(cast(random_tree(rng))), jax.jit(tx.update)
  for _ in range(STEPS):
    gradient = cast(random_tree(rng))
    result, state = update(gradient, state)
    chex.assert_trees_all_equal_shapes_and_dtypes(result, gradient, state.queue.slots | result)
    expected = reference.mean({n: np.asarray(g, np.float64) for n, g in gradient.items()})
    for name, dtype in dtypes.items():
      # Equal up to the rounding of the update itself.
      rtol = 2 * float(jnp.finfo(dtype).eps) + 1e-4
      np.testing.assert_allclose(np.asarray(result[name], np.float64), expected[name], rtol=rtol)


def test_the_twin_notices_a_difference():
  """The comparison itself can fail: another rho, another length, another exponent."""
  rng = np.random.default_rng(6)
  trees = [(t, {}, (t,)) for t in (random_tree(rng) for _ in range(STEPS))]
  for wrong in ({"rho": 3.1}, {"queue_length": 4}):
    with pytest.raises(AssertionError):
      run(
        gq.grad_queue(**{"queue_length": 3, "rho": 3.0} | wrong),
        Reference(3),
        trees,
        Reference.mean,
      )


def test_more_groups_than_stand_in_a_line_go_round_a_loop(monkeypatch):
  """Eleven groups, one of them empty."""

  def last(straight):
    monkeypatch.setattr(group_gradients, "_STRAIGHT", straight)
    tx = gq.grad_queue(queue_length=2, num_clusters=11, track=True)
    state, update = tx.init(jnp.zeros(3)), jax.jit(tx.update)
    counts = jnp.arange(11)
    for step in range(5):
      grads = jax.random.normal(jax.random.key(step), (11, 3))
      groups = gq.GroupGradients(grads, counts)
      result, state = update(groups, state)
    return result, state

  (looped, state), (straight, expected) = last(8), last(100)
  np.testing.assert_allclose(looped, straight, rtol=1e-5)
  for found, wanted in zip(jax.tree.leaves(state), jax.tree.leaves(expected), strict=True):
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
