# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Experiments: how far the weights of group scarcity are to be trusted.

Each rule gives an exponent in [0, 1] for the weights, 0 for "weigh all the same": one exponent for
each group (is it rare, or is it noise?) or one for all (are there any rare groups at all?).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

import gq_optax as gq

DECAY = 0.8  # of the running means: five steps, as the queue has
_TINY = 1e-12


class Memory(NamedTuple):
  """Running means of what each group asks of the last layer.

  Attributes:
    direction: float32 `[K, C, d]`, of the group's mean gradient.
    square: float32 `[K]`, of the squared length of that mean.
  """

  direction: jax.Array
  square: jax.Array


def init_memory(num_groups: int, num_classes: int, num_features: int) -> Memory:
  """Nothing seen."""
  return Memory(jnp.zeros((num_groups, num_classes, num_features)), jnp.zeros(num_groups))


def membership(embeddings: jax.Array, centroids: jax.Array, metric: str) -> jax.Array:
  """One row per group, 1 where an example `[B, d]` is nearest to its centroid, `[K, B]`."""
  if metric == "cosine":
    unit = embeddings / jnp.maximum(jnp.linalg.norm(embeddings, axis=1, keepdims=True), _TINY)
    far = -jnp.einsum("bd,kd->kb", unit, centroids)
  else:
    far = jnp.sum(jnp.square(centroids), axis=1)[:, None]
    far = far - 2.0 * jnp.einsum("bd,kd->kb", embeddings, centroids)
  return jax.nn.one_hot(jnp.argmin(far, axis=0), len(centroids), axis=0)


def mean_gradients(
  member: jax.Array, residuals: jax.Array, features: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """The last layer's gradient as each group's mean of it `[K, C, d]`, mean square `[K]`, sizes."""
  size = jnp.sum(member, axis=1)
  share = member / jnp.maximum(size, 1.0)[:, None]
  # Of one example it is the outer product of output gradient and features.
  mean = jnp.einsum("kbc,bd->kcd", share[:, :, None] * residuals[None], features)
  squares = jnp.sum(jnp.square(residuals), axis=1) * jnp.sum(jnp.square(features), axis=1)
  return mean, jnp.einsum("kb,b->k", share, squares), size


def coherence(mean: jax.Array, square: jax.Array, size: jax.Array) -> jax.Array:
  r"""Do the examples of a group pull the same way? `[K]` in [0, 1].

  :math:`\sqrt{|\mathrm{E} g|^2 / \mathrm{E} |g|^2}`, with the bias of a mean over few examples
  taken out of the numerator; 1 where a group has fewer than two.
  """
  found = jnp.sum(jnp.square(mean), axis=(1, 2))
  unbiased = (size * found - square) / jnp.maximum(size - 1.0, 1.0)
  ratio = jnp.sqrt(jnp.clip(unbiased / jnp.maximum(square, _TINY), 0.0, 1.0))
  return jnp.where(size < 2.0, 1.0, ratio)


def recurrence(mean: jax.Array, size: jax.Array, memory: Memory) -> tuple[jax.Array, Memory]:
  """Does a group pull the same way as in the last steps? `[K]` in [0, 1], and the memory."""
  there = size > 0.0
  keep = lambda old, new: DECAY * old + (1.0 - DECAY) * new
  direction = keep(memory.direction, mean)
  square = keep(memory.square, jnp.sum(jnp.square(mean), axis=(1, 2)))
  # Both decay from zero in the same way, so that what is missing at the start cancels but for the
  # weight of the first steps: sum of weights, 1 - DECAY^t, against its square root.
  length = jnp.sqrt(jnp.sum(jnp.square(direction), axis=(1, 2)))
  found = jnp.clip(length / jnp.sqrt(jnp.maximum(square, _TINY)), 0.0, 1.0)
  pick = lambda new, old: jnp.where(there.reshape(-1, *[1] * (new.ndim - 1)), new, old)
  memory = Memory(pick(direction, memory.direction), pick(square, memory.square))
  return jnp.where(there, found, 1.0), memory


def confidence(trust: jax.Array, size: jax.Array) -> jax.Array:
  """Exponents `[K]`: 1 for groups trusted as much as the mean example's, less below."""
  mean = jnp.sum(size * trust) / jnp.maximum(jnp.sum(size), 1.0)
  return jnp.clip(trust / jnp.maximum(mean, _TINY), 0.0, 1.0)


def entropy_exponent(frequency: jax.Array, factor: float) -> jax.Array:
  """`min(1, factor (1 - H / log K))` with the entropy H of the group frequencies `[K]`."""
  seen = jnp.maximum(jnp.sum(frequency > 0.0), 2)
  entropy = -jnp.sum(jax.scipy.special.xlogy(frequency, frequency))
  return jnp.clip(factor * (1.0 - entropy / jnp.log(seen)), 0.0, 1.0)


def temper(weights: jax.Array, exponent: jax.Array) -> jax.Array:
  """The weights `[B]` raised to an exponent (one, or one each) and brought back to mean 1."""
  weights = weights**exponent
  return weights / jnp.mean(weights)


def rho_of_shares(frequency: jax.Array, largest: float) -> jax.Array:
  r"""A rho from how unequal the groups are: :math:`\sqrt{p / q}`, in [1, `largest`].

  q is the share of the rarer half of the groups and p the rest. With :math:`\rho` on the rare
  share and :math:`1 / \rho` on the common one both count the same, as in the paper's rule for
  rho (page 9) for gradients of one length.
  """
  seen = jnp.sum(frequency > 0.0)
  ordered = jnp.sort(jnp.where(frequency > 0.0, frequency, jnp.inf))
  rare = jnp.sum(jnp.where(jnp.arange(len(frequency)) < seen // 2, ordered, 0.0))
  return jnp.clip(jnp.sqrt((1.0 - rare) / jnp.maximum(rare, _TINY)), 1.0, largest)


def frequencies(state: gq.GroupScarcityState) -> jax.Array:
  """Mean share of each group `[K]` over the queue."""
  total = jnp.sum(state.counts, axis=1, keepdims=True)
  parts = state.counts / jnp.maximum(total, 1)
  return jnp.sum(parts, axis=0) / jnp.maximum(jnp.sum(total > 0), 1)
