# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Checks for NaN and division by 0, by checkify and by debug_nans, are silent in healthy steps."""

import functools

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.experimental import checkify

import gq_optax as gq

B, D, STEPS = 12, 4, 4
cross_entropy = optax.softmax_cross_entropy_with_integer_labels
X = jax.random.normal(jax.random.key(0), (STEPS, B, D))
Y = jnp.arange(B) % 3
W = jnp.ones(D)
MASKS = {"all": None, "padding": jnp.arange(B) < B - 2, "nothing": jnp.zeros(B, bool)}


def loss_fn(params, x):
  return jnp.square(x @ params)


def example_weights(x, mask, metric, **options):
  scarcity = gq.example_scarcity(16, metric=metric, **options)

  def step(state, x):
    losses = jnp.square(x[:, 0])
    weights, state = scarcity.update(x, state, mask=mask, losses=losses)
    return state, (gq.weighted_mean(losses, weights, mask), gq.diagnostics(state))

  state, found = jax.lax.scan(step, scarcity.init(D), x)
  return found, scarcity.explain(x[0], state)


def group_weights(x, mask, metric, **options):
  scarcity = gq.group_scarcity(3, 2, metric=metric, **options)

  def step(state, x):
    weights, state = scarcity.update(x, state, mask=mask)
    return state, (weights, gq.diagnostics(state))

  state, found = jax.lax.scan(step, scarcity.init(D), x)
  return found, scarcity.explain(x[0], state)


def queue(x, mask, form, **options):
  tx = gq.grad_queue(track=True, **options)

  def step(state, x):
    if form == "mean":
      updates, extra = {"w": jnp.mean(x, axis=0)}, {}
    elif form == "examples":
      updates, extra = {"w": x}, {"mask": mask, "embeddings": x}
    else:
      updates, extra = gq.GroupGradients({"w": x[:3]}, jnp.array([4, 4, 0])), {}
    value = jnp.mean(jnp.square(x))
    update, state = tx.update(updates, state, {"w": W}, value=value, **extra)
    return state, (update, gq.diagnostics(state))

  return jax.lax.scan(step, tx.init({"w": W}), x)


def gradients(x, mask):
  x = x[0]
  groups = gq.per_example_value_and_grad(loss_fn, num_groups=3)(W, x, Y, mask)
  loss = lambda params, x: (loss_fn(params, x), x)
  return (
    groups,
    gq.per_example_value_and_grad(loss_fn)(W, x, mask),
    gq.per_example_value_and_grad(loss_fn, microbatch_size=4)(W, x, mask),
    gq.clustered_value_and_grad(loss, 3)(W, x, 0, mask),
  )


def losses(x, mask):
  found = jnp.square(x[0, :, 0])
  found = found if mask is None else jnp.where(mask, found, 1e30)
  mean = lambda found: gq.weighted_mean(found, gq.mean_one(found, mask), mask)
  return jax.value_and_grad(mean)(found)


def embeddings(x, mask):
  del mask
  _, groups = gq.grouped_value_and_grad(loss_fn, 3)(W, x[0], Y)
  outputs = gq.output_gradients(cross_entropy, x[0], Y)
  return outputs, gq.sketch({"w": x[0]}, 3, 0), groups, gq.noise_scale(groups)


def clusters(x, mask, metric):
  weight = None if mask is None else mask.astype(jnp.float32)
  return gq.kmeans(x[0], 3, metric=metric, sample_weight=weight)


CASES = {
  "examples": (example_weights, {"metric": "cosine"}),
  "examples, euclidean": (example_weights, {"metric": "euclidean", "queue_dtype": jnp.bfloat16}),
  "examples, losses": (example_weights, {"metric": "cosine", "loss_exponent": 0.5}),
  "groups": (group_weights, {"metric": "cosine"}),
  "groups, pooled": (group_weights, {"metric": "euclidean", "pooling": 0.5}),
  "groups, given": (group_weights, {"metric": "cosine", "num_iters": 0, "centroids": X[0, :3]}),
  "kmeans": (clusters, {"metric": "cosine"}),
  "kmeans, euclidean": (clusters, {"metric": "euclidean"}),
  "queue": (queue, {"form": "mean", "queue_length": 2}),
  "queue, adaptive": (queue, {"form": "mean", "queue_length": (1, 3), "update_norm": "match"}),
  "queue, bfloat16": (queue, {"form": "mean", "queue_dtype": jnp.bfloat16, "update_norm": 1.0}),
  "queue of examples": (queue, {"form": "examples", "queue_length": 2, "num_clusters": 3}),
  "queue of groups": (queue, {"form": "groups", "queue_length": 2, "num_clusters": 3}),
  "gradients": (gradients, {}),
  "losses": (losses, {}),
  "embeddings": (embeddings, {}),
}
WITHOUT_MASK = ("queue", "queue, adaptive", "queue, bfloat16", "queue of groups", "embeddings")
NAMES = [(name, m) for name in CASES for m in MASKS if m == "all" or name not in WITHOUT_MASK]


@pytest.mark.standard_promotion
@pytest.mark.parametrize(("name", "mask"), NAMES)
def test_checks_report_nothing_in_a_healthy_step(name, mask):
  function, options = CASES[name]
  call = jax.jit(functools.partial(function, mask=MASKS[mask], **options))
  checked = checkify.checkify(call, errors=checkify.nan_checks | checkify.div_checks)
  error, _ = checked(X)
  assert error.get() is None
  with jax.debug_nans(True):
    jax.block_until_ready(call(X))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "mask"), NAMES)
def test_so_without_a_jit(name, mask):
  function, options = CASES[name]
  with jax.disable_jit(), jax.debug_nans(True):
    function(X, mask=MASKS[mask], **options)
