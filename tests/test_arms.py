# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The arms of a trial: their weights, their controls, their optimizers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks.harness import arms, optimizers, weighing

pytestmark = pytest.mark.standard_promotion  # optax


@pytest.mark.parametrize("name", [*arms.RECOMMENDED, *arms.COMBINED])
def test_recommended_weights_and_the_same_dealt_at_random(name):
  """Two kinds, one of them a twelfth; the control weighs as much, but others."""
  labels = jnp.asarray(np.arange(96) % 12 == 0, jnp.int32)
  noise = 0.1 * jax.random.normal(jax.random.key(1), (96, 4))
  features = jnp.eye(4)[labels] + noise
  key = jax.random.key(0)
  context = weighing.Context(labels, labels, jnp.ones(96), jnp.full(2, 0.5), 2, key, jnp.float32(0))

  @jax.jit
  def both():
    names = (name, name + arms.AT_RANDOM)
    given = [(arm, weighing.init_watch(arm, 4, 2, key, 400)) for arm in map(arms.find, names)]
    return [weighing.weigh(a, features[:, :2], features, context, w, key)[0] for a, w in given]

  own, dealt = both()
  np.testing.assert_allclose(np.sort(own), np.sort(dealt), rtol=1e-6)
  assert not np.array_equal(own, dealt)
  rare = labels == 1
  assert own[rare].mean() > 2.0 * own[~rare].mean()
  assert dealt[rare].mean() < 2.0 * dealt[~rare].mean()
  assert len(weighing.init_watch(arms.find(name), 4, 2, key, 400).first.queue) == 200


@pytest.mark.parametrize("name", sorted(optimizers.RATES))
def test_every_optimizer_learns(name):
  tx = optimizers.base(name, jnp.float32(0.1), 50)
  loss = lambda params: jnp.sum(jnp.square(params["w"] - 1.0))

  def step(carry, _):
    params, state = carry
    again = lambda params, _: jax.grad(loss)(params)
    updates, state = tx.update(jax.grad(loss)(params), state, params, grad_fn=again)
    return (optax.apply_updates(params, updates), state), None

  params = {"w": jnp.full((2, 2), 3.0)}
  first = loss(params)
  (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), None, length=50)
  assert loss(params) < 0.5 * first


def test_shuffled_weights_are_the_same_weights():
  g = jnp.array([[1.0, -2.0, 3.0], [0.1, 0.0, 9.0]])
  mean, std = jnp.ones_like(g), jnp.full_like(g, 0.7)
  found = optimizers.shuffled(g, mean, std)
  own = optimizers.gq.delta_rho(g, mean, std, optimizers.RHO)
  np.testing.assert_array_equal(np.sort(found.ravel()), np.sort(own.ravel()))
  assert not np.array_equal(found, own)


def test_clusters_of_the_paper():
  assert arms.num_clusters(arms.find("GQ, K=B/64"), 512) == 8
  assert arms.num_clusters(arms.find("GQ, K=B/64, random groups"), 32) == 1
  assert arms.num_clusters(arms.find("GQ, K=1"), 512) == 1
