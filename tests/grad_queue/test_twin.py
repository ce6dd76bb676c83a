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
  {"queue_length": 3, "update_norm": 2.0},
  {"queue_length": (1, 4)},
  {"queue_length": (2, 6), "rho": 2.0, "update_norm": "match"},
)
FLOAT32 = dict.fromkeys(SHAPES, jnp.float32)


def random_tree(rng, *leading):
  """Gradients as they come: a common part, noise, coordinates that rest, and rare spikes."""
  tree = {}
  for name, shape in SHAPES.items():
    g = 0.3 + rng.normal(size=(*leading, *shape)) * 10.0 ** rng.uniform(-3, 1)
    g = np.where(rng.random(g.shape) < 0.1, 20 * g, g)
    if shape:
      g[..., 0] = 0.0  # dead units
    tree[name] = g.astype(np.float32)
  return tree


def losses(rng):
  """A loss that falls, rests and jumps, so that the adaptive length moves through its range."""
  return (10 - np.cumsum(rng.choice([1.0, 0.5, 0.0, -2.0], STEPS, p=[0.5, 0.2, 0.1, 0.2]))).tolist()


def steps(form, rng, kinds=FLOAT32, counted=np.int32):
  """The arguments of `update`, and what the twin takes in their place."""
  cast = lambda tree: {n: np.asarray(g, kinds[n]) for n, g in tree.items()}
  exact = lambda tree: {n: np.asarray(g, np.float64) for n, g in tree.items()}
  for value in losses(rng):
    value = np.float32(value)
    if form == "mean":
      tree = cast(random_tree(rng))
      yield tree, {"value": value}, (exact(tree), value)
    elif form == "per_example":
      # Embeddings so far apart that K-means must find these labels; some steps leave a group small.
      labels = np.concatenate([np.arange(GROUPS), rng.integers(0, GROUPS, BATCH - GROUPS) // 2])
      embeddings = 100.0 * np.eye(GROUPS)[labels] + rng.normal(size=(BATCH, GROUPS))
      tree, kwargs = cast(random_tree(rng, BATCH)), {"embeddings": np.float32(embeddings)}
      yield tree, kwargs | {"value": value}, (exact(tree), labels, GROUPS, value)
    else:  # some are empty, whatever stands in these, and their counts may be negative
      counts = rng.integers(-1, 9, GROUPS)
      counts[rng.integers(GROUPS)] = 1
      tree, filled = cast(random_tree(rng, GROUPS)), counts > 0
      dirt = np.float32(rng.choice([np.nan, np.inf, 3e38, 7.0]))
      of = lambda g, f=filled: f.reshape(-1, *[1] * (g.ndim - 1))
      with np.errstate(over="ignore"):
        dirty = cast({n: np.where(of(g), g, dirt) for n, g in exact(tree).items()})
      lost = np.where(filled, value, dirt)
      groups = gq.GroupGradients(dirty, counts.astype(counted), lost)
      yield groups, {}, (exact(tree), np.maximum(counts, 0).tolist(), value)


def compare(form, tx, reference, inputs, kinds=FLOAT32):
  """Steps both, and compares all that they do."""
  state = tx.init({n: np.zeros(shape, kinds[n]) for n, shape in SHAPES.items()})
  update = jax.jit(tx.update)
  for updates, kwargs, of_twin in inputs:
    result, state = update(updates, state, **kwargs)
    expected = getattr(reference, form)(*of_twin)
    chex.assert_trees_all_equal_shapes(result, expected)
    assert {n: leaf.dtype for n, leaf in result.items()} == kinds
    for name, dtype in kinds.items():
      # Equal up to the rounding of the update itself; of groups, also of what they are made of.
      rounding = (2 if form == "mean" else 16) * float(jnp.finfo(dtype).eps) + 2e-4
      # Groups may cancel: what is lost then is relative to the largest of them.
      size = np.nan_to_num(np.abs(expected[name]), nan=0.0, posinf=0.0).max()
      lost = size * (1e-5 if form == "mean" or dtype == jnp.float32 else rounding)
      found = np.asarray(result[name], np.float64)
      np.testing.assert_allclose(found, expected[name], rtol=rounding, atol=lost)
    assert state.figures.effective_length == reference.length
  return state


CASES = [("mean", range(7)), ("per_example", (0, 6)), ("groups", (0, 1, 4, 5, 6))]


@pytest.mark.parametrize(("form", "number"), [(form, i) for form, some in CASES for i in some])
def test_every_update_is_that_of_the_twin(form, number, monkeypatch):
  settings, counted = SETTINGS[number], [np.int32, np.float32][number % 2]
  if number % 2:  # more groups than stand in a line go round a loop
    monkeypatch.setattr(group_gradients, "_STRAIGHT", GROUPS - 1)
  tx = gq.grad_queue(num_clusters=GROUPS, track=True, **settings)
  inputs = steps(form, np.random.default_rng(number), counted=counted)
  state = compare(form, tx, Reference(**settings), inputs)
  assert state.queue.count > state.queue.slots["w"].shape[0]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_a_narrow_queue_compares_rounded_with_rounded(dtype):
  store = lambda x: np.asarray(x, dtype).astype(np.float64)
  tx = gq.grad_queue(4, queue_dtype=dtype, track=True)
  compare("mean", tx, Reference(4, store=store), steps("mean", np.random.default_rng(4)))


def float32_only(g, mean, std):
  chex.assert_type([g, mean, std], jnp.float32)
  return gq.delta_rho(g, mean, std)


@pytest.mark.parametrize(
  ("form", "kinds"),
  [("mean", (jnp.bfloat16, jnp.float16, jnp.float32)), ("per_example", (jnp.bfloat16,) * 3)]
  + [("groups", (jnp.bfloat16,) * 3), ("groups", (jnp.float16,) * 3)],
)
def test_low_precision_keeps_its_dtypes_and_has_float32_statistics(form, kinds):
  kinds = dict(zip(SHAPES, kinds, strict=True))
  # A mean gradient has the dtype of the queue; means of groups are rounded to it.
  store = None if form == "mean" else lambda x: np.asarray(x, kinds["w"]).astype(np.float64)
  tx = gq.grad_queue(3, num_clusters=GROUPS, scarcity=float32_only, track=True)
  inputs = steps(form, np.random.default_rng(5), kinds)
  state = compare(form, tx, Reference(3, store=store), inputs, kinds)
  assert {n: leaf.dtype for n, leaf in state.queue.slots.items()} == kinds
