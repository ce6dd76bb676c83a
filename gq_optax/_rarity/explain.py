# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What the groups of `group_scarcity` hold: the examples nearest to each, for a person to see."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gq_optax import _inputs, _validate
from gq_optax._rarity import groups, lloyd


class GroupExplanation(NamedTuple):
  """What `explain_groups` returns; row k is group k of the state.

  Attributes:
    indices: int32 `[K, m]`, rows of the embeddings, the nearest to the group's centroid first; -1
      where the group has fewer than m.
    distances: float32 `[K, m]`, squared to the centroid (under the cosine metric 1 - cosine); inf
      where there is no example.
    sizes: int32 `[K]`, how many of the embeddings belong to the group.
    shares: float32 `[K]`, its mean share over the queue.
    weights: float32 `[K]`, what an example of it weighed at the last step.
    rarest_first: int32 `[K]`, the groups by falling weight, those never seen last.
  """

  indices: jax.Array
  distances: jax.Array
  sizes: jax.Array
  shares: jax.Array
  weights: jax.Array
  rarest_first: jax.Array


def explain_groups(
  embeddings: jax.Array,
  state: groups.GroupScarcityState,
  num_examples: int = 8,
  *,
  metric: str = "cosine",
) -> GroupExplanation:
  r"""Names the examples that stand for each group, so that a person can see what is held rare.

  .. math:: \operatorname{argsort}_{i:\, k(i) = k} \; \| e_i - c_k \|^2

  Takes any number of embeddings, those of a whole data set too; the state is only read. Examples
  that `group_scarcity` would not group (not finite; zero under the cosine metric) belong to none.

  Args:
    embeddings: `[n, ...]`, made as those that `update` gets.
    state: the state of a `group_scarcity`.
    num_examples: m, how many examples of each group.
    metric: that of the `group_scarcity`.

  Returns:
    A `GroupExplanation`.

  Raises:
    ValueError: if the embeddings do not fit the state, or an option is out of its range.

  Example:
    >>> import jax.numpy as jnp
    >>> import gq_optax as gq
    >>> scarcity = gq.group_scarcity(num_groups=2)
    >>> embeddings = jnp.array([[1., 0.], [1., .1], [.9, 0.], [0., 1.]])
    >>> _, state = scarcity.update(embeddings, scarcity.init(2))
    >>> groups = gq.explain_groups(embeddings, state, num_examples=1)
    >>> print(groups.indices[groups.rarest_first[0]])
    [3]

  Reference: docs/group-scarcity.md.
  """
  num_examples = _validate.static_int("num_examples", num_examples, 1)
  _validate.one_of("metric", metric, ("cosine", "euclidean"))
  _validate.instance("state", state, groups.GroupScarcityState)
  state = _inputs.state("state", state)
  x = groups.as_rows(embeddings, state)
  groups.check_width(x.shape[1], metric)
  x, groupable = groups.groupable(x, metric)
  frame = lloyd.frame(x, groupable.astype(jnp.float32), metric)
  x, centroids = (lloyd.enter(frame, rows, metric) for rows in (x, state.centroids))
  labels = lloyd.nearest(x, centroids, metric)
  # Half the squared distance of two unit vectors is 1 - cosine.
  unit = 0.5 if metric == "cosine" else frame.scale * frame.scale
  member = jnp.logical_and(lloyd.members(labels, len(centroids)), groupable[None])
  away = jnp.where(member, lloyd.distance(x, labels, centroids)[None], jnp.inf)
  found = min(num_examples, x.shape[0])
  nearest, indices = jax.lax.top_k(-away, found)
  missing = ((0, 0), (0, num_examples - found))
  nearest = jnp.pad(-nearest, missing, constant_values=jnp.inf)
  indices = jnp.pad(indices, missing, constant_values=-1)
  seen = jnp.any(state.counts > 0, axis=0)
  return GroupExplanation(
    indices=jnp.where(jnp.isfinite(nearest), indices, -1).astype(jnp.int32),
    distances=nearest * unit,
    sizes=jnp.sum(member, axis=1, dtype=jnp.int32),
    shares=groups.shares(state.counts),
    weights=state.weights,
    rarest_first=jnp.argsort(jnp.where(seen, -state.weights, jnp.inf)).astype(jnp.int32),
  )
