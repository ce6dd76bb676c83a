# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Gradients and training steps for tests of what grad_queue is chained with and wrapped in."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

import gq_optax as gq

PARAMS = {"w": jnp.full((3, 2), 0.5), "b": jnp.full(2, -0.25)}


def queue_sgd(learning_rate, momentum=0.9, **options):
  """The paper's GQ-SGDM: the form on the design card."""
  return optax.chain(gq.grad_queue(**options), optax.sgd(learning_rate, momentum))


def tail_probability(g, mean, std):
  """A scarcity of the user's, as in docs/grad-queue.md."""
  spread = std > 0.0
  z = jnp.abs(g - mean) / jnp.where(spread, std, 1.0)
  return jnp.where(spread, jax.scipy.special.erf(z * 0.5**0.5), (g != mean).astype(g.dtype))


def draw(seed, *lead):
  rng = np.random.RandomState(seed)
  return jax.tree.map(lambda p: rng.randn(*lead, *p.shape).astype(np.float32), PARAMS)


def per_example(seed):
  return draw(seed, 6)


def groups(seed):
  return gq.GroupGradients(draw(seed, 2), np.array([4, 2]))


FORMS = [draw, per_example, groups]
TWO = {"num_clusters": 2, "embed": lambda per_example: per_example["b"]}


def train(tx, gradients, params=PARAMS, *, jit=False, **extra):
  """Parameters after every step, and the last state."""
  # Compiled only where a `lax.cond` would be compiled at every step anyway: a few steps are faster
  # without.
  state, update = tx.init(params), jax.jit(tx.update) if jit else tx.update
  trajectory = []
  for gradient in gradients:
    updates, state = update(gradient, state, params, **extra)
    params = optax.apply_updates(params, updates)
    trajectory.append(params)
  return trajectory, state


def weighted(gradients, **kwargs):
  """What `grad_queue` alone makes of the gradients."""
  tx = gq.grad_queue(**kwargs)
  state, results = tx.init(PARAMS), []
  for gradient in gradients:
    result, state = tx.update(gradient, state)
    results.append(result)
  return results


def assert_close(actual, expected):
  chex.assert_trees_all_close(actual, expected, rtol=1e-4, atol=1e-6)
