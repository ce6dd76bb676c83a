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
FORMS = ["mean", "each", "group"]
LABELS = jnp.array([0, 0, 1, 1, 1, 0])


def loss_fn(params, rows):
  """Linear, with a hundredfold gradient in the body; where a row says so, that one is NaN."""
  head, body, broken = rows
  root = jnp.sqrt(jnp.where(broken > 0.0, 0.0 * params["body"][0], 1.0))  # the slope at 0 is NaN
  dot = lambda rows, p: jnp.einsum("bi,i->b", rows, p)
  return dot(head, params["head"]) + 100.0 * dot(body, params["body"]) + root


def batch(step, broken=0.0):
  draw = jax.random.normal(jax.random.key(step), (6, 2))
  return draw, jnp.ones((6, 2)), jnp.full(6, broken)


def gradient(form, loss, params, rows):
  if form == "mean":
    return jax.grad(lambda p: jnp.mean(loss(p, rows)))(params), {}
  if form == "each":
    return gq.per_example_value_and_grad(loss)(params, rows)[1], {"embeddings": rows[0]}
  return gq.per_example_value_and_grad(loss, num_groups=2)(params, rows, LABELS)[1], {}


def run(form, tx, params, loss, broken=0.0):
  """The length of the head's step against its raw mean gradient's; how many were queued."""

  @jax.jit
  def step(state, rows):
    updates, extra = gradient(form, loss, params, rows)
    updates, state = tx.update(updates, state, params, **extra)
    return updates["head"], state

  state = tx.init(params)
  for t in range(6):
    head, state = step(state, batch(t, broken if t == 4 else 0.0))
  raw = jnp.mean(batch(5)[0], axis=0)
  return jnp.linalg.norm(head) / jnp.linalg.norm(raw), state[0].queue.count


@pytest.mark.parametrize("form", FORMS)
def test_gradients_of_the_trained_parameters_alone(form):
  trained, frozen = {"head": PARAMS["head"]}, {"body": PARAMS["body"]}
  tx = optax.chain(gq.grad_queue(2, num_clusters=2, update_norm="match"), optax.sgd(1.0))
  loss = lambda trained, rows: loss_fn({**trained, **frozen}, rows)
  length, queued = run(form, tx, trained, loss, broken=1.0)
  np.testing.assert_allclose(length, 1.0, rtol=1e-5)
  assert queued == 6


@pytest.mark.parametrize("form", FORMS)
def test_what_is_thrown_away_behind_the_queue_rules_it(form):
  """Were it otherwise, the page on recipes could say so."""
  labels = {"head": "train", "body": "freeze"}
  parts = optax.partition({"train": optax.sgd(1.0), "freeze": optax.set_to_zero()}, labels)
  tx = optax.chain(gq.grad_queue(2, num_clusters=2, update_norm="match"), parts)
  length, _ = run(form, tx, PARAMS, loss_fn)
  assert abs(float(length) - 1.0) > 0.2
  assert run(form, tx, PARAMS, loss_fn, broken=1.0)[1] == 5


@pytest.mark.standard_promotion
def test_lora():
  model = nnx.LoRALinear(4, 3, lora_rank=2, rngs=nnx.Rngs(0))
  tx = optax.chain(gq.grad_queue(1, update_norm="match"), optax.sgd(1.0))
  optimizer = nnx.Optimizer(model, tx, wrt=nnx.LoRAParam)
  kernel = model.kernel[...]
  trained = nnx.DiffState(0, nnx.LoRAParam)
  for step in range(4):
    x = jax.random.normal(jax.random.key(step), (5, 4))
    before = nnx.to_pure_dict(nnx.state(model, nnx.LoRAParam))
    grads = nnx.grad(lambda m, x=x: jnp.mean(m(x) ** 3), argnums=trained)(model)
    optimizer.update(model, grads)
  moved = jax.tree.map(jnp.subtract, before, nnx.to_pure_dict(nnx.state(model, nnx.LoRAParam)))
  raw = optax.tree.norm(nnx.to_pure_dict(nnx.state(grads)))
  np.testing.assert_allclose(optax.tree.norm(moved), raw, rtol=1e-3)
  np.testing.assert_array_equal(model.kernel[...], kernel)
  assert len(jax.tree.leaves(optimizer.opt_state[0].queue.slots)) == 2
