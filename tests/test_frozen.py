# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Frozen parameters: gradients of the trained ones alone, as documented, and why no other way."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import gq_optax as gq

PARAMS = {"head": jnp.zeros(2), "body": jnp.zeros(2)}
LABELS = jnp.array([0, 0, 1, 1, 1, 0])
QUEUE = gq.grad_queue(2, num_clusters=2, update_norm="match")
every_form = pytest.mark.parametrize("form", ["mean", "each", "group"])


def loss_fn(params, rows):
  """Linear, with a hundredfold gradient in the body; where a row says so, that one is NaN."""
  head, body, broken = rows
  root = jnp.sqrt(jnp.where(broken > 0.0, 0.0 * params["body"][0], 1.0))  # the slope at 0 is NaN
  dot = lambda rows, p: jnp.einsum("bi,i->b", rows, p)
  return dot(head, params["head"]) + 100.0 * dot(body, params["body"]) + root


def run(form, tx, params, loss, breaks):
  """The length of the head's last step against its raw mean gradient's; how many were queued."""

  def step(state, rows):
    each, extra = gq.per_example_value_and_grad(loss), {}
    if form == "mean":
      updates = jax.grad(lambda p: jnp.mean(loss(p, rows)))(params)
    elif form == "each":
      updates, extra = each(params, rows)[1], {"embeddings": rows[0]}
    else:
      updates = gq.per_example_value_and_grad(loss, num_groups=2)(params, rows, LABELS)[1]
    updates, state = tx.update(updates, state, params, **extra)
    return state, updates["head"]

  heads = np.random.default_rng(0).normal(size=(6, 6, 2)).astype(np.float32)
  broken = np.zeros((6, 6), np.float32)
  broken[4] = breaks
  rows = heads, np.ones_like(heads), broken
  state, steps = jax.jit(lambda rows: jax.lax.scan(step, tx.init(params), rows))(rows)
  return np.linalg.norm(steps[-1]) / np.linalg.norm(heads[-1].mean(axis=0)), state[0].queue.count


@every_form
def test_gradients_of_the_trained_parameters_alone(form):
  trained, frozen = {"head": PARAMS["head"]}, {"body": PARAMS["body"]}
  loss = lambda trained, rows: loss_fn({**trained, **frozen}, rows)
  length, queued = run(form, optax.chain(QUEUE, optax.sgd(1.0)), trained, loss, True)
  np.testing.assert_allclose(length, 1.0, rtol=1e-5)
  assert queued == 6


@every_form
def test_what_is_thrown_away_behind_the_queue_rules_it(form):
  """Were it otherwise, the page on recipes could say so."""
  parts = {"train": optax.sgd(1.0), "freeze": optax.set_to_zero()}
  tx = optax.chain(QUEUE, optax.partition(parts, {"head": "train", "body": "freeze"}))
  length, queued = run(form, tx, PARAMS, loss_fn, True)
  assert abs(float(length) - 1.0) > 0.2
  assert queued == 5


@pytest.mark.standard_promotion
def test_lora():
  model = nnx.LoRALinear(4, 3, lora_rank=2, rngs=nnx.Rngs(0))
  tx = optax.chain(gq.grad_queue(1, update_norm="match"), optax.sgd(1.0))
  optimizer, kernel = nnx.Optimizer(model, tx, wrt=nnx.LoRAParam), model.kernel[...]
  lora = lambda: nnx.to_pure_dict(nnx.state(model, nnx.LoRAParam))
  for x in jax.random.normal(jax.random.key(0), (4, 5, 4)):
    before, loss = lora(), lambda m, x=x: jnp.mean(m(x) ** 3)
    grads = nnx.grad(loss, argnums=nnx.DiffState(0, nnx.LoRAParam))(model)
    optimizer.update(model, grads)
  moved = jax.tree.map(jnp.subtract, before, lora())
  raw = optax.tree.norm(nnx.to_pure_dict(nnx.state(grads)))
  np.testing.assert_allclose(optax.tree.norm(moved), raw, rtol=1e-3)
  np.testing.assert_array_equal(model.kernel[...], kernel)
  assert len(jax.tree.leaves(optimizer.opt_state[0].queue.slots)) == 2
