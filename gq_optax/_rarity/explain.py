# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What is held rare, for a person to see: what stands for a group, and the rarest examples."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gq_optax import _inputs, _validate
from gq_optax._rarity import density, lloyd, recent
from gq_optax._rarity.rows import as_rows


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
  embeddings: jax.Array, state: Any, shares: jax.Array, num_examples: int, metric: str
) -> GroupExplanation:
  """Of embeddings `[n, ...]` and a `GroupScarcityState` with its shares `[K]`."""
  num_examples = _validate.static_int("num_examples", num_examples, 1)
  state = _inputs.state("state", state)
  x = as_rows(embeddings, state.centroids.shape[1], metric)
  x, finite, tallest = lloyd.readable(x)
  groupable = jnp.logical_and(finite, lloyd.has_direction(tallest, metric))
  # The frame is that of the groups: an outlier among the embeddings does not make it coarse.
  spread = jnp.max(jnp.abs(state.centroids), axis=1)
  all_of_them = jnp.ones_like(spread, bool), spread, jnp.ones_like(spread)
  frame = lloyd.frame(state.centroids, *all_of_them, metric)
  x = lloyd.enter(frame, x, metric, tallest)
  centroids = lloyd.enter_again(frame, state.centroids, metric)
  labels = lloyd.nearest(x, centroids, metric)
  # Half the squared distance of two unit vectors is 1 - cosine.
  unit = 0.5 if metric == "cosine" else frame.scale * frame.scale
  member = jnp.logical_and(lloyd.members(labels, len(centroids)), groupable[None])
  away = jnp.where(member, lloyd.distance(x, labels, centroids)[None], jnp.inf)
  closeness, indices = _top(-away, num_examples)
  seen = jnp.any(state.counts > 0, axis=0)
  return GroupExplanation(
    indices=indices,
    distances=-closeness * unit,
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
  embeddings: jax.Array,
  state: Any,
  num_examples: int,
  num_nearest: int,
  neighbours: jax.typing.ArrayLike,
  metric: str,
) -> ExampleExplanation:
  """Of embeddings `[n, ...]` and an `ExampleScarcityState`."""
  num_examples = _validate.static_int("num_examples", num_examples, 1)
  num_nearest = _validate.static_int("num_nearest", num_nearest, 1)
  state = _inputs.state("state", state)
  embeddings = _inputs.floating("embeddings", embeddings)
  rounding = float(jnp.finfo(embeddings.dtype).eps)
  x = as_rows(embeddings, state.queue.shape[1], metric)
  everyone = jnp.ones(x.shape[0], bool)
  x, live, _, _ = recent.queueable(x, everyone, None, state, rounding, metric)
  x, queue, frame = recent.framed(x, live, state, metric)
  reach = jnp.square(state.reach / frame.scale)
  # The square of what one far outlier leaves may underflow.
  reach = jnp.where(state.reach > 0.0, jnp.maximum(reach, jnp.finfo(jnp.float32).tiny), 1.0)
  in_queue = lambda x: density.neighbours(x, queue, state.filled, reach, state.losses)
  found = density.in_blocks(in_queue, (x,), len(queue))
  few = jnp.maximum(jnp.asarray(neighbours, jnp.float32), 0.0)
  weights = density.weigh(found[:, 0], live, few, jnp.ones([], jnp.float32))

  def others(rows, itself):
    apart = itself[:, None] != jnp.arange(len(x), dtype=jnp.int32)[None]
    there = jnp.logical_and(apart, jnp.logical_and(live[None], (itself >= 0)[:, None]))
    return _top(-jnp.where(there, density.distances(rows, x), jnp.inf), num_nearest)

  first, rarest = _top(jnp.where(live, weights, -jnp.inf), num_examples)
  closeness, nearest = density.in_blocks(others, (x[rarest], rarest), len(x))
  unit = 0.5 if metric == "cosine" else frame.scale * frame.scale
  found = jnp.where((rarest >= 0)[:, None], found[rarest], 0.0)
  number = jnp.maximum(jnp.sum(state.filled, dtype=jnp.float32), 1.0)
  return ExampleExplanation(
    indices=rarest,
    nearest=nearest,
    distances=-closeness * unit,
    densities=found[:, 0] / number,
    losses=found[:, 1] / jnp.where(found[:, 0] > 0.0, found[:, 0], 1.0),
    weights=jnp.where(rarest >= 0, first, 0.0),
  )


def _top(values, number):
  """The largest values `[..., number]` and where they are; -inf and -1 where there are fewer."""
  found = min(number, values.shape[-1])
  top, where = jax.lax.top_k(values, found)
  missing = [(0, 0)] * (values.ndim - 1) + [(0, number - found)]
  top = jnp.pad(top, missing, constant_values=-jnp.inf)
  where = jnp.pad(where, missing, constant_values=-1)
  return top, jnp.where(jnp.isfinite(top), where, -1).astype(jnp.int32)
