# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Dropout with gradients of single examples: a random key for each of them, in Linen and in NNX.

    python -m examples.random_keys

A network that holds its own random numbers, as `nnx.Dropout(rate, rngs=rngs)` does, would draw the
same mask for every example, and nothing would say so: under `jax.vmap` and in blocks of examples it
is the same network every time. So the keys are data of the batch, one for each example.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import tyro
from flax import nnx

import gq_optax as gq

cross_entropy = optax.softmax_cross_entropy_with_integer_labels


class LinenNet(nn.Module):
  """One hidden layer with dropout."""

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """One example `[8]` to logits `[3]`."""
    x = nn.Dropout(0.5, deterministic=not train)(nn.relu(nn.Dense(32)(x)))
    return nn.Dense(3)(x)


class NNXNet(nnx.Module):
  """The same; its dropout holds no random numbers."""

  def __init__(self, rngs: nnx.Rngs):
    self.first = nnx.Linear(8, 32, rngs=rngs)
    self.dropout = nnx.Dropout(0.5)
    self.last = nnx.Linear(32, 3, rngs=rngs)

  def __call__(self, x: jax.Array, rngs: nnx.Rngs) -> jax.Array:
    """One example `[8]` to logits `[3]`."""
    return self.last(self.dropout(nnx.relu(self.first(x)), rngs=rngs))


def linen_loss(model: LinenNet) -> Any:
  """A loss per example `(params, (x, y, keys)) -> losses [b]`, for any b."""

  def loss_fn(params, batch):
    x, y, keys = batch
    apply = lambda x, key: model.apply({"params": params}, x, train=True, rngs={"dropout": key})
    return cross_entropy(jax.vmap(apply)(x, keys), y)

  return loss_fn


def nnx_loss(graph: nnx.GraphDef) -> Any:
  """The same of an NNX network that was split into `graph` and parameters."""

  def loss_fn(params, batch):
    x, y, keys = batch
    apply = lambda x, key: nnx.merge(graph, params)(x, rngs=nnx.Rngs(dropout=key))
    return cross_entropy(jax.vmap(apply)(x, keys), y)

  return loss_fn


def main(batch_size: int = 8, seed: int = 0) -> dict[str, int]:
  """One batch of the very same example; returns how many of its gradients differ.

  Args:
    batch_size: how often the example is repeated.
    seed: of parameters, data and masks.

  Returns:
    For each framework the number of different gradients: the batch size.
  """
  init_key, data_key, dropout_key = jax.random.split(jax.random.key(seed), 3)
  x = jnp.tile(jax.random.normal(data_key, (1, 8)), (batch_size, 1))
  batch = x, jnp.zeros(batch_size, jnp.int32), jax.random.split(dropout_key, batch_size)

  linen = LinenNet()
  params = linen.init(init_key, x[0], train=False)["params"]
  graph, state = nnx.split(NNXNet(nnx.Rngs(seed)))
  different = {}
  for name, loss_fn, start in (
    ("linen", linen_loss(linen), params),
    ("nnx", nnx_loss(graph), state),
  ):
    _, gradients = jax.jit(gq.per_example_value_and_grad(loss_fn))(start, batch)
    # The keys go with their examples in groups too.
    labels = jnp.arange(batch_size) % 2
    _, groups = jax.jit(gq.grouped_value_and_grad(loss_fn, 2))(start, batch, labels)
    rows = jnp.concatenate([g.reshape(batch_size, -1) for g in jax.tree.leaves(gradients)], axis=1)
    different[name] = len(jnp.unique(rows, axis=0))
    print(f"{name}: {different[name]} of {batch_size} gradients differ, groups {groups.counts}")
  return different


if __name__ == "__main__":
  tyro.cli(main)
