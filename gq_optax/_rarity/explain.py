# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What is held rare, for a person to see: what stands for a group, and the rarest examples."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gq_optax import _masks, _validate
from gq_optax._rarity import density, lloyd


class GroupExplanation(NamedTuple):
  r"""What `explain` of a `group_scarcity` returns: the examples that stand for each group.

  .. math:: \operatorname{argsort}_{i:\, k(i) = k} \; \| e_i - c_k \|^2

  Takes any number of embeddings, those of a whole data set too. The state is only read. Embeddings
  that are not finite belong to no group, and neither do zeros under the cosine metric. Row k is
  group k of the state.

  Attributes:
    indices: int32 `[K, m]`, rows of the embeddings, the nearest to the group's centroid first; -1
      where the group has fewer than m, which is `num_examples`.
    distances: float32 `[K, m]`, squared to the centroid (under the cosine metric 1 - cosine); inf
      where there is no example.
    sizes: int32 `[K]`, how many of the embeddings belong to the group.
    shares: float32 `[K]`, its mean share over the queue.
    weights: float32 `[K]`, what an example of it weighed at the last step.
    rarest_first: int32 `[K]`, the groups by falling weight, those never seen last.

  Example:
    >>> import jax.numpy as jnp
    >>> import gq_optax as gq
    >>> scarcity = gq.group_scarcity(num_groups=2)
    >>> embeddings = jnp.array([[1., 0.], [1., .1], [.9, 0.], [0., 1.]])
    >>> _, state = scarcity.update(embeddings, scarcity.init(2))
    >>> groups = scarcity.explain(embeddings, state, num_examples=1)
    >>> print(groups.indices[groups.rarest_first[0]])
    [3]

  Reference: docs/group-scarcity.md.
  """

  indices: jax.Array
  distances: jax.Array
  sizes: jax.Array
  shares: jax.Array
  weights: jax.Array
  rarest_first: jax.Array


def explain_groups(
  x: jax.Array, state: Any, shares: jax.Array, num_examples: int, metric: str
) -> GroupExplanation:
  """Of embeddings `[n, d]` and a `GroupScarcityState` with its shares `[K]`."""
  num_examples = _validate.static_int("num_examples", num_examples, 1)
  # The frame is that of the groups: an outlier among the embeddings does not make it coarse.
  _, _, frame = lloyd.enter(state.centroids, jnp.ones_like(state.weights), metric)
  x, weight, _ = lloyd.enter(x, jnp.ones_like(x[:, 0]), metric, frame)
  centroids = lloyd.enter_centroids(frame, state.centroids)
  labels = lloyd.nearest(x, centroids, metric)
  member = jnp.logical_and(_masks.members(labels, len(centroids)), weight[None] > 0.0)
  away = jnp.where(member, lloyd.distance(x, labels, centroids)[None], jnp.inf)
  indices, distances = _nearest(away, num_examples, frame.scale, metric)
  seen = jnp.any(state.counts > 0, axis=0)
  return GroupExplanation(
    indices=indices,
    distances=distances,
    sizes=jnp.sum(member, axis=1, dtype=jnp.int32),
    shares=shares,
    weights=state.weights,
    rarest_first=jnp.argsort(jnp.where(seen, -state.weights, jnp.inf)).astype(jnp.int32),
  )


class ExampleExplanation(NamedTuple):
  r"""What `explain` of an `example_scarcity` returns: the rarest examples, and what is nearest.

  .. math:: \operatorname{argsort}_i \; -w_i

  The weights are those against the queue alone, with an exponent of 1 and `loss_exponent=0`: what
  is learnt already may come first. What is isolated does not come first: it weighs about 1. An
  example that is in the queue itself resembles itself.

  Takes any number of embeddings, those of a whole data set too. The state is only read. Row i is
  the example that is i-th rarest.

  Attributes:
    indices: int32 `[m]`, rows of the embeddings, the rarest first; -1 where there are fewer than m,
      which is `num_examples`.
    nearest: int32 `[m, k]`, rows of the embeddings, the nearest to it first, itself left out; -1
      where there are fewer than k, which is `num_nearest`.
    distances: float32 `[m, k]`, squared (under the cosine metric 1 - cosine); inf where there is
      no example.
    densities: float32 `[m]`, which part of the queue resembles it.
    losses: float32 `[m]`, the mean loss of what resembles it in the queue; 0 where `update` was
      given no `losses=`.
    weights: float32 `[m]`, what it weighs, if all have a mean of 1.

  Example:
    >>> import jax.numpy as jnp
    >>> import gq_optax as gq
    >>> scarcity = gq.example_scarcity(queue_size=16, neighbours=1.0)
    >>> embeddings = jnp.array([[1., 0.]] * 13 + [[0., 1.]] * 3)
    >>> _, state = scarcity.update(embeddings, scarcity.init(2))
    >>> rarest = scarcity.explain(embeddings, state, num_examples=1, num_nearest=2)
    >>> print(rarest.indices, rarest.nearest, round(float(rarest.densities[0]), 2))
    [13] [[14 15]] 0.19

  Reference: docs/example-scarcity.md.
  """

  indices: jax.Array
  nearest: jax.Array
  distances: jax.Array
  densities: jax.Array
  losses: jax.Array
  weights: jax.Array


def explain_examples(
  x: jax.Array,
  live: jax.Array,
  state: Any,
  num_examples: int,
  num_nearest: int,
  neighbours: jax.Array,
  metric: str,
) -> ExampleExplanation:
  """Of rows `[n, d]` as the queue holds them, which are `live`, and an `ExampleScarcityState`."""
  num_examples = _validate.static_int("num_examples", num_examples, 1)
  num_nearest = _validate.static_int("num_nearest", num_nearest, 1)
  both = jnp.concatenate([x, state.queue.astype(jnp.float32)])
  there = jnp.concatenate([live, state.filled])
  # Center and unit are those of the queue: an outlier among the embeddings makes nothing coarse.
  in_queue = jnp.logical_and(there, jnp.arange(len(both)) >= len(x))
  both, unit, _ = density.centred(both, there, in_queue, metric)
  x, queue = both[: len(x)], both[len(x) :]
  # The square of what one far outlier leaves may underflow.
  squared_reach = jnp.maximum(jnp.square(state.reach / unit), jnp.finfo(jnp.float32).tiny)
  squared_reach = jnp.where(state.reach > 0.0, squared_reach, 1.0)
  ids, nobody = jnp.arange(len(x), dtype=jnp.int32), jnp.full(len(queue), -1, jnp.int32)
  others = queue, state.filled, nobody, squared_reach, state.losses
  among = lambda x, ids: density.neighbours(x, ids, *others)
  found = density.in_blocks(among, (x, ids), len(queue))
  weights = density.weigh(found[:, 0], live, neighbours)
  top, rarest = _top(jnp.where(live, weights, -jnp.inf), num_examples)
  ranked = rarest >= 0

  def nearest_to(rows, ids_of_rows, valid):
    other = (ids_of_rows[:, None] != ids[None]) & live[None] & valid[:, None]
    away = jnp.where(other, density.distances(rows, x), jnp.inf)
    return _nearest(away, num_nearest, unit, metric)

  nearest, distances = density.in_blocks(nearest_to, (x[rarest], rarest, ranked), len(x))
  alike, lost = jnp.where(ranked, found[rarest].T, 0.0)
  return ExampleExplanation(
    indices=rarest,
    nearest=nearest,
    distances=distances,
    densities=alike / jnp.maximum(jnp.sum(state.filled, dtype=jnp.float32), 1.0),
    losses=lost / jnp.where(alike > 0.0, alike, 1.0),
    weights=jnp.where(ranked, top, 0.0),
  )


def _nearest(away, number, unit, metric):
  """Where the smallest of `[..., n]` are, and they in units of the embeddings, or 1 - cosine."""
  closeness, places = _top(-away, number)
  # Half the squared distance of two unit vectors is 1 - cosine.
  return places, -closeness * (0.5 if metric == "cosine" else unit * unit)


def _top(values, number):
  """The largest values `[..., number]` and where they are; -inf and -1 where there are fewer."""
  missing = [(0, 0)] * (values.ndim - 1) + [(0, max(number - values.shape[-1], 0))]
  top, places = jax.lax.top_k(jnp.pad(values, missing, constant_values=-jnp.inf), number)
  return top, jnp.where(jnp.isfinite(top), places, -1).astype(jnp.int32)
