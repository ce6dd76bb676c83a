# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""One batch in the three forms that grad_queue takes, and what becomes of it."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

import gq_optax as gq

FORMS = ["mean", "per_example", "group"]
BATCHED = ["per_example", "group"]
LENGTH, RHO = 3, 3.0
LABELS = np.array([0, 0, 0, 0, 1, 1])
EMBEDDINGS = np.eye(2, dtype=np.float32)[LABELS]
PARAMS = {"w": jnp.zeros((3, 2)), "b": jnp.zeros(2)}
full = lambda value: jax.tree.map(lambda p: np.full(p.shape, value, p.dtype), PARAMS)


def draw(seed, dtype=np.float32, scale=1.0):
  """Per-example gradients of six examples."""
  rng = np.random.RandomState(seed)
  tree = {"w": rng.randn(6, 3, 2) * scale, "b": rng.randn(6, 2) * scale}
  return {name: leaf.astype(dtype) for name, leaf in tree.items()}


def constant(value):
  return {"w": np.full((6, 3, 2), value, np.float32), "b": np.full((6, 2), value, np.float32)}


def plain_mean(per_example):
  with np.errstate(invalid="ignore", over="ignore"):  # Inf - Inf is wanted in some tests
    return jax.tree.map(lambda g: g.astype(np.float64).mean(axis=0).astype(g.dtype), per_example)


def as_form(form, per_example):
  """The same batch as positional and keyword arguments of `update`."""
  if form == "mean":
    return plain_mean(per_example), {}
  if form == "per_example":
    return per_example, {"embeddings": EMBEDDINGS}
  if form == "per_example_alone":
    return per_example, {}
  halves = [jax.tree.map(lambda g, k=k: g[k == LABELS], per_example) for k in range(2)]
  means = [plain_mean(half) for half in halves]
  return gq.GroupGradients(jax.tree.map(lambda *g: np.stack(g), *means), np.array([4, 2])), {}


@functools.cache
def compiled(dtype="float32", **options):
  """An initial state and the jitted update of a `grad_queue` with figures, and two groups."""
  options = {"queue_length": LENGTH, "rho": RHO, "num_clusters": 2, "track": True} | options
  tx = gq.grad_queue(**options)
  return tx.init(optax.tree.cast(PARAMS, dtype)), jax.jit(tx.update)


def play(form, batches, dtype="float32", state=None, values=None, **options):
  """All updates, and the last state."""
  start, update = compiled(dtype, **options)
  if form == "per_example" and (options or dtype != "float32"):
    update = update.__wrapped__  # K-means alone is compiled, and that once
  state, results = start if state is None else state, []
  for i, batch in enumerate(batches):
    gradient, kwargs = as_form(form, batch)
    if values is not None:
      kwargs["value"] = values[i]
    result, state = update(gradient, state, **kwargs)
    results.append(result)
  return results, state


def assert_unchanged(after, before):
  """Bit for bit, but for the number of skipped steps."""
  assert after.figures.skipped == before.figures.skipped + 1
  figures = after.figures._replace(skipped=before.figures.skipped)
  chex.assert_trees_all_equal(after._replace(figures=figures), before)
