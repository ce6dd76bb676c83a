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
SETTINGS = (
  {"queue_length": 3},
  {"queue_length": 1, "rho": 1.5},
  {"queue_length": 5, "rho": 7.0},
  {"queue_length": 2, "update_norm": "match"},
  {"queue_length": 3, "update_norm": 1.25},
  {"queue_length": (1, 4)},
  {"queue_length": (2, 6), "rho": 2.0, "update_norm": "match"},
)
by = lambda *numbers: pytest.mark.parametrize("settings", [SETTINGS[i] for i in numbers], ids=str)


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
  state = tx.init({n: np.zeros(s, np.float32) for n, s in SHAPES.items()})
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


@by(*range(7))
def test_mean_gradients(settings):
  rng = np.random.default_rng(0)
  adaptive, values = isinstance(settings["queue_length"], tuple), losses(rng)
  inputs = []
  for value in values:
    tree = random_tree(rng)
    inputs.append((tree, {"value": value} if adaptive else {}, (tree, value)))
  state = run(gq.grad_queue(**settings), Reference(**settings), inputs, Reference.mean)
  assert state.queue.count > state.queue.slots["w"].shape[0]


@by(0, 4, 6)
def test_per_example_gradients(settings):
  """Whose clusters go the way of groups."""
  rng = np.random.default_rng(1)
  inputs = []
  for value in losses(rng):
    # Embeddings so far apart that K-means must find these labels; some steps leave a group small.
    labels = np.concatenate([np.arange(GROUPS), rng.integers(0, GROUPS, BATCH - GROUPS) // 2])
    embeddings = 100.0 * np.eye(GROUPS)[labels] + rng.normal(size=(BATCH, GROUPS))
    tree = random_tree(rng, BATCH)
    kwargs = {"embeddings": embeddings.astype(np.float32), "value": np.float32(value)}
    inputs.append((tree, kwargs, (tree, labels, GROUPS, value)))
  tx = gq.grad_queue(num_clusters=GROUPS, **settings)
  run(tx, Reference(**settings), inputs, Reference.per_example)


@by(*range(7))
def test_group_gradients_with_empty_groups(settings):
  """Their counts are integers or floats."""
  rng = np.random.default_rng(2)
  kind = [np.int32, np.float32][SETTINGS.index(settings) % 2]
  inputs = []
  for value in losses(rng):
    counts = rng.integers(0, 9, GROUPS)
    counts[rng.integers(GROUPS)] += 1
    tree, of = (
      random_tree(rng, GROUPS),
      lambda g, n=counts: (n > 0).reshape(-1, *[1] * (g.ndim - 1)),
    )
    clean = {n: np.where(of(g), g, 0) for n, g in tree.items()}
    dirty = {n: np.where(of(g), g, np.float32(np.nan)) for n, g in tree.items()}
    lost = np.where(counts > 0, np.float32(value), np.float32(np.nan))
    groups = gq.GroupGradients(dirty, counts.astype(kind), lost)
    inputs.append((groups, {}, (clean, counts.tolist(), value)))
  run(gq.grad_queue(**settings), Reference(**settings), inputs, Reference.groups)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_a_narrow_queue_compares_rounded_with_rounded(dtype):
  rng = np.random.default_rng(4)
  store = lambda x: np.asarray(x, dtype).astype(np.float64)
  trees = [random_tree(rng) for _ in range(STEPS)]
  tx = gq.grad_queue(4, queue_dtype=dtype)
  run(tx, Reference(4, store=store), [(t, {}, (t,)) for t in trees], Reference.mean)


def float32_only(g, mean, std):
  chex.assert_type([g, mean, std], jnp.float32)
  return gq.delta_rho(g, mean, std)


@pytest.mark.parametrize(
  ("form", "kinds"),
  [("mean", (jnp.bfloat16, jnp.float16, jnp.float32)), ("per_example", (jnp.bfloat16,) * 3)]
  + [("group", (jnp.bfloat16,) * 3), ("group", (jnp.float16,) * 3)],
)
def test_low_precision_keeps_its_dtypes_and_has_float32_statistics(form, kinds):
  kinds, rng = dict(zip(SHAPES, kinds, strict=True)), np.random.default_rng(5)
  cast = lambda tree: {n: np.asarray(g, kinds[n]) for n, g in tree.items()}
  # A mean gradient has the dtype of the queue; means of groups are rounded to it.
  store = None if form == "mean" else lambda x: np.asarray(x, kinds["w"]).astype(np.float64)
  reference, labels, counts = Reference(3, store=store), [0, 0, 0, 1], [2, 1]
  tx = gq.grad_queue(3, num_clusters=2, scarcity=float32_only)
  state = tx.init(cast(random_tree(rng)))
  for _ in range(8):
    gradient = cast(random_tree(rng, *{"mean": [], "per_example": [4], "group": [2]}[form]))
    exact, extra = {n: np.asarray(g, np.float64) for n, g in gradient.items()}, {}
    if form == "mean":
      expected = reference.mean(exact)
    elif form == "group":
      gradient, expected = gq.GroupGradients(gradient, counts), reference.groups(exact, counts)
    else:
      expected = reference.per_example(exact, labels, 2)
      extra["embeddings"] = np.eye(2, dtype=np.float32)[labels]
    result, state = tx.update(gradient, state, **extra)
    for tree in (result, state.queue.slots):
      assert {n: leaf.dtype for n, leaf in tree.items()} == kinds
    for name, dtype in kinds.items():
      # Equal up to the rounding of the update itself; of groups, also of what they are made of.
      rounding = (2 if form == "mean" else 16) * float(jnp.finfo(dtype).eps) + 1e-4
      largest = np.abs(expected[name]).max() * rounding * (form != "mean")
      found = np.asarray(result[name], np.float64)
      np.testing.assert_allclose(found, expected[name], rtol=rounding, atol=largest)


def test_the_twin_notices_a_difference():
  """The comparison itself can fail: another rho, another length."""
  rng = np.random.default_rng(6)
  trees = [(t, {}, (t,)) for t in (random_tree(rng) for _ in range(STEPS))]
  tx = gq.grad_queue(queue_length=3, rho=3.0)
  for wrong in ({"rho": 3.1}, {"queue_length": 4}):
    with pytest.raises(AssertionError):
      run(tx, Reference(**{"queue_length": 3} | wrong), trees, Reference.mean)


def test_more_groups_than_stand_in_a_line_go_round_a_loop(monkeypatch):
  """Eleven groups, one of them empty."""

  def last(straight):
    monkeypatch.setattr(group_gradients, "_STRAIGHT", straight)
    tx = gq.grad_queue(queue_length=2, num_clusters=11, track=True)
    state, update, rng = (
      tx.init(np.zeros(3, np.float32)),
      jax.jit(tx.update),
      np.random.default_rng(0),
    )
    for _ in range(5):
      groups = gq.GroupGradients(rng.normal(size=(11, 3)).astype(np.float32), np.arange(11))
      result, state = update(groups, state)
    return result, state

  chex.assert_trees_all_close(last(8), last(100), rtol=1e-5)
