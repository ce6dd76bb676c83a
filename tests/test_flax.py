# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""grad_queue in the training loops of Flax, Linen and NNX."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import pytest
from chains import (
  assert_close,
  queue_sgd,
)
from flax import nnx
from flax.training import train_state

import gq_optax as gq

# Optax's and Flax's own code needs the usual promotion rules.
pytestmark = pytest.mark.standard_promotion


# Flax


class Net(nn.Module):
  @nn.compact
  def __call__(self, x):
    return nn.Dense(2)(x)


@pytest.mark.parametrize("form", ["mean", "per_example", "group"])
def test_linen_train_state(form):
  net, x = Net(), jax.random.normal(jax.random.key(0), (6, 3))
  variables = net.init(jax.random.key(1), x)
  tx = optax.chain(
    gq.grad_queue(num_clusters=2, embed=lambda each: each["Dense_0"]["bias"]),
    optax.sgd(0.1, momentum=0.9),
  )
  state = train_state.TrainState.create(apply_fn=net.apply, params=variables["params"], tx=tx)
  params, opt_state = state.params, tx.init(state.params)

  def gradient(params, x):
    one = lambda p, row: jnp.sum(net.apply({"params": p}, row) ** 2)
    each = jax.vmap(jax.grad(one), (None, 0))(params, x)
    if form == "per_example":
      return each
    if form == "mean":
      return jax.tree.map(lambda g: g.mean(0), each)
    halves = jax.tree.map(lambda g: jnp.stack([g[:4].mean(0), g[4:].mean(0)]), each)
    return gq.GroupGradients(halves, jnp.array([4, 2]))

  jit_gradient = jax.jit(gradient)
  step = jax.jit(lambda state, x: state.apply_gradients(grads=gradient(state.params, x)))
  for i in range(6):
    batch = jnp.roll(x, i, axis=1) * (1.0 + i)
    updates, opt_state = tx.update(jit_gradient(params, batch), opt_state, params)
    params = optax.apply_updates(params, updates)
    state = step(state, batch)
  assert_close(state.params, params)
  assert state.step == 6
  # Outside jit as well.
  chex.assert_tree_all_finite(state.apply_gradients(grads=gradient(state.params, x)).params)


@pytest.mark.parametrize("form", ["mean", "per_example"])
def test_nnx_optimizer_with_extra_args(form):
  model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
  tx = queue_sgd(0.1, queue_length=(1, 3), num_clusters=2)
  optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
  graph, params = nnx.split(model, nnx.Param)
  opt_state = tx.init(nnx.to_pure_dict(params))
  x = jax.random.normal(jax.random.key(0), (6, 3))
  extra = {"value": jnp.float32(1.0)}
  if form == "per_example":
    extra["embeddings"] = jnp.eye(2)[jnp.array([0, 0, 0, 0, 1, 1])]

  @jax.jit
  def gradient(params, rows):
    loss = lambda params, rows: jnp.mean(nnx.merge(graph, params)(rows) ** 2)
    if form == "mean":
      return jax.grad(loss)(params, rows)
    return jax.vmap(jax.grad(loss), (None, 0))(params, rows[:, None])

  for i in range(5):
    params = nnx.state(model, nnx.Param)
    grads = gradient(params, jnp.roll(x, i, axis=1) * (1.0 + i))
    pure = nnx.to_pure_dict(params)
    updates, opt_state = tx.update(nnx.to_pure_dict(grads), opt_state, pure, **extra)
    expected = optax.apply_updates(pure, updates)
    optimizer.update(model, grads, **extra)
    assert_close(nnx.to_pure_dict(nnx.state(model, nnx.Param)), expected)
  assert optimizer.step[...] == 5


def test_nnx_optimizer_without_value_says_what_an_adaptive_queue_needs():
  model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
  optimizer = nnx.Optimizer(model, queue_sgd(0.1, queue_length=(1, 3)), wrt=nnx.Param)
  grads = nnx.grad(lambda model: jnp.mean(model(jnp.ones((1, 3)))))(model)
  with pytest.raises(ValueError, match="pass value="):
    optimizer.update(model, grads)
