# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""grad_queue in the training states of Flax, Linen and NNX."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import pytest
from chains import BATCHED, PARAMS, TWO, assert_close, draw, per_example, queue_sgd, train
from flax import nnx
from flax.training.train_state import TrainState

import gq_optax as gq

pytestmark = pytest.mark.standard_promotion  # Flax's own code needs the usual rules


@pytest.mark.parametrize("form", [draw, *BATCHED])
def test_linen_train_state(form):
  """Compiled, and once not."""
  tx = queue_sgd(0.1, **TWO)
  gradients = [jax.tree.map(jnp.asarray, form(seed)) for seed in range(6)]
  state = TrainState.create(apply_fn=nn.Dense(2).apply, params=PARAMS, tx=tx)
  step = jax.jit(lambda state, grads: state.apply_gradients(grads=grads))
  for gradient in gradients[:5]:
    state = step(state, gradient)
  state = state.apply_gradients(grads=gradients[5])
  assert_close(state.params, train(tx, gradients)[0][-1])
  assert state.step == 6


@pytest.mark.parametrize("form", [draw, per_example])
def test_nnx_optimizer_with_extra_args(form):
  model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
  model.kernel[...], model.bias[...] = PARAMS["w"], PARAMS["b"]
  tx = queue_sgd(0.1, queue_length=(1, 3), num_clusters=2)
  optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
  extra = {"value": jnp.float32(1.0)}
  extra |= {"embeddings": jnp.eye(2)[jnp.arange(6) // 4]} if form is per_example else {}
  gradients = [form(seed) for seed in range(5)]
  of_one = nnx.grad(lambda m, w, b: jnp.sum(m.kernel[...] * w) + jnp.sum(m.bias[...] * b))
  of = nnx.vmap(of_one, in_axes=(None, 0, 0)) if form is per_example else of_one
  for gradient in gradients:
    grads = of(model, gradient["w"], gradient["b"])
    optimizer.update(model, grads, **extra)
  expected = train(tx, gradients, **extra)[0][-1]
  assert_close({"w": model.kernel[...], "b": model.bias[...]}, expected)
  assert optimizer.step[...] == 5
  with pytest.raises(ValueError, match="pass value="):
    optimizer.update(model, grads)


def test_group_gradients_of_a_network_of_linen():
  net, x = nn.Dense(2), jax.random.normal(jax.random.key(0), (6, 3))
  params = net.init(jax.random.key(1), x)["params"]
  losses = lambda params, x: jnp.sum(net.apply({"params": params}, x) ** 2, axis=1)
  _, found = gq.grouped_value_and_grad(losses, 2)(params, x, jnp.arange(6) % 2)
  tx = gq.grad_queue(num_clusters=2)
  update, _ = tx.update(found, tx.init(params))
  assert_close(update, jax.grad(lambda p: jnp.mean(losses(p, x)))(params))
  assert isinstance(optax.apply_updates(params, update), dict)
