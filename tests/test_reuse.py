# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The backward pass of some rows, out of what one forward pass of all of them kept."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gq_optax._gradients import reuse

ROWS, INDEX = 8, jnp.array([5, 0, 5])
X = jax.random.normal(jax.random.key(0), (ROWS, 4, 3))
PARAMS = {
  "w": jax.random.normal(jax.random.key(1), (3, 3)),
  "b": jnp.ones(3),
}


def examples_first(params, x):
  return jnp.sum(jnp.tanh(jax.nn.relu(x @ params["w"] + params["b"][None, None])), axis=(1, 2))


def examples_last(params, x):
  """What is kept has the axis of examples behind others."""
  hidden = jnp.einsum("bts,sd->tdb", x, params["w"])
  return jnp.sum(jnp.tanh(hidden + params["b"][None, :, None]), axis=(0, 1))


def in_a_loop(params, x):
  step = lambda h, part: (jnp.tanh((h + part) @ params["w"]), None)
  last, _ = jax.lax.scan(step, jnp.zeros_like(x[:, 0]), x.swapaxes(0, 1))
  return jnp.sum(last * params["b"][None], axis=1)


def merged(params, x):
  """What is kept has one axis of examples and positions."""
  flat = jnp.tanh(x.reshape(-1, 3) @ params["w"])
  return jnp.sum(flat.reshape(x.shape[0], -1), axis=1) * params["b"][0]


@pytest.mark.parametrize("loss_fn", [examples_first, examples_last, in_a_loop])
def test_it_is_the_gradient_of_these_rows(loss_fn):
  kept = reuse.forward(lambda p, x: (loss_fn(p, x), x), PARAMS, X, True, (2, 3))
  cotangents = jnp.array([1.0, 2.0, 0.5])
  weighted = lambda p: jnp.sum(cotangents * loss_fn(p, X[INDEX]))
  found = kept.backward(INDEX, cotangents)
  chex.assert_trees_all_close(found, jax.grad(weighted)(PARAMS), rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(kept.losses, loss_fn(PARAMS, X), rtol=1e-6)
  np.testing.assert_array_equal(kept.aux, X)


def test_rows_that_cannot_be_told():
  assert reuse.forward(merged, PARAMS, X, False, (3,)) is None
  assert reuse.forward(examples_first, PARAMS, X, False, (3, ROWS)) is None


def test_a_function_that_keeps_other_things_of_fewer_examples():
  def loss_fn(params, x):
    return examples_first(params, x) if x.shape[0] == ROWS else in_a_loop(params, x)

  assert reuse.forward(loss_fn, PARAMS, X, False, (3,)) is None
