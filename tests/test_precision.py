# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The library's own products ask for all digits: accelerators leave digits out by default.

Seen in the lowered program, so that a CPU shows it. Products of users keep the users' precision.
"""

import jax
import jax.numpy as jnp
import optax
import pytest

import gq_optax as gq

ROWS, DIM = 16, 3
X = jax.ShapeDtypeStruct((ROWS, DIM), jnp.float32)
LOSSES = jax.ShapeDtypeStruct((ROWS,), jnp.float32)
PARAMS = {"w": jnp.zeros(DIM)}


def groups_of(metric, pooling):
  scarcity = gq.group_scarcity(2, metric=metric, pooling=pooling)
  return lambda x, losses: scarcity.update(x, scarcity.init(DIM))


def examples_of(metric):
  scarcity = gq.example_scarcity(8, metric=metric, loss_exponent=0.5)
  return lambda x, losses: scarcity.update(x, scarcity.init(DIM), losses=losses)


def queued(x, losses):
  del losses
  tx = optax.chain(gq.grad_queue(2, num_clusters=2, track=True, update_norm="match"))
  return tx.update({"w": x}, tx.init(PARAMS), PARAMS)


def clustered(x, losses):
  loss_fn = lambda params, batch: (jnp.sum(params["w"][None] * batch[0], axis=1), batch[0])
  return gq.clustered_value_and_grad(loss_fn, 2)(PARAMS, (x, losses))


def explained(x, losses):
  del losses
  groups, examples = gq.group_scarcity(2), gq.example_scarcity(8)
  of_groups = groups.explain(x, groups.update(x, groups.init(DIM))[1], num_examples=2)
  return of_groups, examples.explain(x, examples.update(x, examples.init(DIM))[1])


CASES = {
  "groups, cosine": groups_of("cosine", 0.5),
  "groups, euclidean": groups_of("euclidean", 0.0),
  "examples, cosine": examples_of("cosine"),
  "examples, euclidean": examples_of("euclidean"),
  "kmeans": lambda x, losses: gq.kmeans(x, 2, num_iters=1, sample_weight=losses),
  "queue": queued,
  "clustered": clustered,
  "explained": explained,
}


def products(function):
  """The lines of the lowered program that multiply matrices, or convolve."""
  with jax.default_matmul_precision("default"):
    text = jax.jit(function).lower(X, LOSSES).as_text()
  return [line for line in text.splitlines() if "dot_general" in line or "convolution" in line]


@pytest.mark.parametrize("case", CASES)
def test_products_ask_for_all_digits(case):
  found = products(CASES[case])
  assert found
  assert not [line for line in found if "[HIGHEST, HIGHEST]" not in line]


def test_products_of_users_keep_their_precision():
  loss_fn = lambda params, batch: batch @ params["w"]
  grouped = gq.grouped_value_and_grad(loss_fn, 2)
  found = products(lambda x, losses: grouped(PARAMS, x, jnp.arange(ROWS) % 2))
  assert [line for line in found if "[DEFAULT, DEFAULT]" in line]
