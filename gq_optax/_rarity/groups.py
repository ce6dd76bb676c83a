# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Group scarcity: persistent groups of examples, each weighted by how rare its group is."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gq_optax import _axes, _masks, _validate
from gq_optax._losses import clamped, to_mean_one
from gq_optax._rarity import checks, lloyd
from gq_optax._rarity.explain import GroupExplanation, explain_groups


class GroupScarcityState(NamedTuple):
  """State of `group_scarcity`, arrays only.

  Attributes:
    centroids: float32 `[K, d]`, carried from step to step; unit rows under the cosine metric.
    counts: int32 `[L, K]`, the ring of the group sizes of the last L steps.
    index: int32 `[]`, the row of `counts` that the next step writes, always in `[0, L)`.
    count: int32 `[]`, steps counted so far; saturates instead of wrapping.
    weights: float32 `[K]`, what an example of each group weighed at the last step.
    ages: int32 `[K]`, steps since the group was seeded.
  """

  centroids: jax.Array
  counts: jax.Array
  index: jax.Array  # type: ignore[assignment]  # shadows a method of tuple, as optax does
  count: jax.Array  # type: ignore[assignment]  # shadows a method of tuple, as optax does
  weights: jax.Array
  ages: jax.Array


class GroupScarcity(NamedTuple):
  """Pure functions, as in an `optax.GradientTransformation`.

  Attributes:
    init: `(embedding_dim_or_template) -> GroupScarcityState`, where a template is an array or a
      `jax.ShapeDtypeStruct` `[B, ...]` of what `update` will get.
    update: `(embeddings [B, ...], state, *, mask=None) -> (weights [B], state)`.
    explain: `(embeddings [n, ...], state, num_examples=8) -> GroupExplanation`.
  """

  init: Callable[[Any], GroupScarcityState]
  update: Callable[..., tuple[jax.Array, GroupScarcityState]]
  explain: Callable[..., GroupExplanation]


# Lloyd iterations of the first batch: a bad start costs several points of accuracy early on.
_FIRST_ITERS = 8


def group_scarcity(
  num_groups: int,
  queue_length: int = 5,
  *,
  exponent: jax.typing.ArrayLike = 1.0,
  metric: str = "cosine",
  num_iters: int = 2,
  max_weight: jax.typing.ArrayLike = 50.0,
  pooling: float = 0.0,
  centroids: jax.typing.ArrayLike | None = None,
  key: jax.Array | int = 0,
  axis_name: _axes.AxisName | None = None,
) -> GroupScarcity:
  r"""Weighs every example by how rare its kind has been over the last L steps.

  .. math:: f_k = \frac1L \sum_{s=t-L+1}^{t} \frac{n_{k,s}}{\sum_j n_{j,s}}, \qquad
            w_i \propto \mathrm{clip}\Big(\frac{1}{K\, f_{k(i)}}, \tfrac1m, m\Big)^e,
            \qquad \frac1B \sum_i w_i = 1

  The kinds are K groups of embeddings. k-means++ finds them in the first batch, unless they are
  given, and a few Lloyd iterations carry them from step to step. So a rare kind keeps its group,
  though a batch may hold none of it. K counts the groups seen in the queue. Until the queue is
  full, L is the number of steps in it. :math:`f_k` is at least half an example of this batch.

  Multiply the losses by the weights and take the mean. A rare kind then counts as much as a
  frequent one. No gradient flows through the weights, nor to the options: `update` may be called
  inside the function that is differentiated.

  ===============================  ===============================================================
  case                             what happens
  ===============================  ===============================================================
  masked example                   weight 0; neither counted nor in any group
  embedding not finite             weight 1; neither counted nor in any group, so the state is safe
  zero vector, cosine metric       the same: it has no direction
  nothing left in the batch        the weights of the rest are 1, the state stays as it was
  group empty in all of the queue  takes the example farthest from its own group, unless num_iters=0
  fewer examples than groups       the surplus groups stay empty until later batches fill them
  all embeddings the same          one group: every weight is 1
  weight beyond the bounds         held at the bound, the others make up for it: the mean stays 1
  ===============================  ===============================================================

  Args:
    num_groups: K. About the number of kinds expected; docs/evidence/group-scarcity.md has its
      sensitivity.
    queue_length: L, the steps whose group sizes are averaged, this one included.
    exponent: e in `[0, 4]`: 0 weighs all examples the same, 1 all groups. May be traced, and is
      then clamped.
    metric: "cosine" or "euclidean", see `kmeans`.
    num_iters: Lloyd iterations a step.
    max_weight: m, at least 1; a weight lies in :math:`[m^{-e}, m^e]`. May be traced, and is then
      clamped.
    pooling: h, not negative. With 0 a group's frequency is its own. But K-means cuts what is
      frequent into many groups, and each of them looks rare. With h about .5 similar groups share
      their frequencies, :math:`\sum_j s_{kj} f_j`. The similarity falls from 1 to 0 at h times the
      mean squared distance. K in the formula is then the effective number of kinds,
      :math:`\sum_k f_k / \sum_j s_{kj} f_j`. May be traced.
    centroids: `[K, d]`, real and finite, where the groups begin; such as those that `kmeans` finds
      in a sample larger than a batch. An update then has no loop, for which a GPU waits. A group
      that starts empty stays in its place for L steps. None finds them in the first batch.
    key: int or PRNG key of the seeding in the first batch.
    axis_name: axis or axes of `jax.shard_map`, `jax.pmap` or `jax.vmap` that a batch is cut over.
      Every device then gathers all embeddings, finds the same groups, and keeps the weights of its
      own examples. The state is the same on all devices.

  Returns:
    A `GroupScarcity`. The weights are float32 `[B]` of mean 1 over the
    unmasked.

  Raises:
    ValueError: if an argument is out of its range, a shape does not fit, a state was made with
      other options (make one by `init`), or embeddings of one number are compared by direction.

  Example:
    >>> import jax.numpy as jnp
    >>> import gq_optax as gq
    >>> scarcity = gq.group_scarcity(num_groups=2)
    >>> embeddings = jnp.array([[1., 0.], [1., .1], [.9, 0.], [0., 1.]])
    >>> weights, state = scarcity.update(embeddings, scarcity.init(2))
    >>> print([round(float(w), 2) for w in weights])  # three of a kind weigh as much as the one
    [0.67, 0.67, 0.67, 2.0]

  Reference: the scarcity and the queue of Al Hasib, Grad Queue (arXiv 2404.16917), for kinds of
  examples in place of coordinates; pooling as in Leinster and Cobbold, Measuring diversity: the
  importance of species similarity (2012). See docs/group-scarcity.md.
  """
  num_groups = _validate.static_int("num_groups", num_groups, 1)
  queue_length = _validate.static_int("queue_length", queue_length, 1)
  num_iters = _validate.static_int("num_iters", num_iters, 0)
  _validate.number("exponent", exponent, 0.0, 4.0)
  _validate.number("max_weight", max_weight, 1.0)
  _validate.number("pooling", pooling, 0.0)
  _validate.one_of("metric", metric, ("cosine", "euclidean"))
  _validate.key("key", key)
  _validate.axis_name("axis_name", axis_name)
  given = None
  if centroids is not None:
    given = checks.first_centroids(centroids, num_groups, metric)

  def init(embedding_dim_or_template):
    dim = checks.embedding_dim(embedding_dim_or_template, metric)
    checks.check_centroids(given, dim)
    return GroupScarcityState(
      centroids=jnp.zeros((num_groups, dim), jnp.float32),
      counts=jnp.zeros((queue_length, num_groups), jnp.int32),
      index=jnp.zeros([], jnp.int32),
      count=jnp.zeros([], jnp.int32),
      weights=jnp.ones(num_groups, jnp.float32),
      ages=jnp.zeros(num_groups, jnp.int32),
    )

  def state_and_rows(state, embeddings):
    options = lambda state: [
      ("num_groups", num_groups, state.centroids.shape[-2]),
      ("queue_length and num_groups", (queue_length, num_groups), state.counts.shape),
    ]
    state = checks.state_of("group_scarcity", GroupScarcityState, state, options)
    return state, checks.as_rows(embeddings, state.centroids.shape[1], metric)

  def update(embeddings, state, *, mask=None):
    state, x = state_and_rows(state, embeddings)
    checks.check_centroids(given, x.shape[1])
    unmasked = _axes.alike(_validate.mask("mask", mask, len(x)), x)
    everyone, unmasked = (_axes.gather(part, axis_name) for part in (x, unmasked))
    # No pooling is another program, not a traced number: it needs no distances.
    options = exponent, max_weight, None if _validate.is_zero(pooling) else pooling
    options, prng = jax.lax.stop_gradient(options), _validate.prng_key("key", key)
    weights, state = _update(everyone, unmasked, state, given, prng, options, metric, num_iters)
    return _axes.own(weights, axis_name, len(x)), state

  def explain(embeddings, state, num_examples=8):
    state, x = state_and_rows(state, embeddings)
    return explain_groups(x, state, shares(state.counts), num_examples, metric)

  return GroupScarcity(init, update, explain)


@functools.partial(jax.jit, static_argnames=("metric", "num_iters"))
def _update(x, unmasked, state, given, key, options, metric, num_iters):
  queue_length, num_groups = state.counts.shape
  x, pull, frame = lloyd.enter(x, unmasked.astype(jnp.float32), metric)
  has_group = pull > 0.0
  anything, first = jnp.any(has_group), state.count == 0
  dead, last = jnp.logical_not(jnp.any(state.counts > 0, axis=0)), state.centroids
  if given is not None:
    dead, last = dead & (state.count >= queue_length), jnp.where(first, given, last)
  # Compared, not scattered: with an index that hangs on the state that is a kernel of its own.
  written = jnp.arange(queue_length, dtype=jnp.int32) == state.index

  def weigh(x, centroids):
    if num_iters > 0:
      # A dead group that takes a row becomes that row, and keeps it: once is enough.
      centroids, _ = lloyd.iterations(x, pull, centroids, metric, 1, dead)
      centroids, _ = lloyd.iterations(x, pull, centroids, metric, num_iters - 1, False)
    labels = lloyd.nearest(x, centroids, metric)
    member = jnp.logical_and(_masks.members(labels, num_groups), has_group[None])
    counts = jnp.sum(member, axis=1, dtype=jnp.int32)
    ring = jnp.where(written[:, None], counts[None], state.counts)
    by_group = _group_weights(ring, counts, centroids, *options)
    exact = jax.lax.Precision.HIGHEST
    weights = jnp.einsum("kb,k->b", member.astype(jnp.float32), by_group, precision=exact)
    weights = jnp.where(has_group, weights, unmasked.astype(jnp.float32))
    return weights, lloyd.leave(frame, centroids), ring, by_group

  def seeded(carry):
    pending, _ = carry
    # What hangs on nothing but the data would be taken out of the loop, and done at every step.
    _, own_key, rows = jax.lax.optimization_barrier((pending, jax.random.clone(key), x))
    # Clones: `jax.debug_key_reuse` takes a barrier for a use, and the round for many.
    seeds = lloyd.seed(jax.random.clone(own_key), rows, pull, num_groups)
    centroids, _ = lloyd.iterations(rows, pull, seeds, metric, _FIRST_ITERS, dead)
    return _axes.alike((jnp.zeros_like(pending), weigh(rows, centroids)), carry)

  # The first batch is seeded in a loop of one round or none, not a branch: under `vmap` both sides
  # of a branch would be run. A GPU waits for the host at a loop. So it comes last: all the rest is
  # then under way, and large operations follow.
  found = weigh(x, lloyd.enter_centroids(frame, last))
  if given is None:
    usual = _axes.alike((jnp.logical_and(first, anything), found), x, pull, dead, key)
    _, found = jax.lax.while_loop(lambda carry: carry[0], seeded, usual)
  weights, centroids, ring, by_group = found
  born = jnp.logical_and(dead, ring[state.index] > 0)
  after = GroupScarcityState(
    centroids=centroids,
    counts=ring,
    index=(state.index + 1) % queue_length,
    count=optax.safe_increment(state.count),
    weights=by_group,
    ages=jnp.where(born, 0, state.ages + 1),
  )
  return weights, jax.tree.map(lambda new, old: jnp.where(anything, new, old), after, state)


def shares(counts: jax.Array) -> jax.Array:
  """Mean share of each group `[K]` over the steps of the queue `[L, K]` that were counted."""
  totals = jnp.sum(counts, axis=1, keepdims=True)
  counted = jnp.maximum(jnp.sum(totals > 0), 1).astype(jnp.float32)
  parts = counts.astype(jnp.float32) / jnp.maximum(totals, 1).astype(jnp.float32)
  return jnp.sum(parts, axis=0) / counted


def _similarity(centroids, frequency, pooling):
  r"""How alike two groups are, `[K, K]` in [0, 1].

  .. math:: s_{kj} = \max(0, 1 - d_{kj} / (h \bar d))

  with the squared distance :math:`d_{kj}` of their centroids and its mean over two examples that
  are drawn from different groups.
  """
  apart = jax.vmap(lambda c: jnp.sum(jnp.square(centroids - c[None]), axis=1))(centroids)
  pair = frequency[:, None] * frequency[None]
  others = jnp.sum(pair) - jnp.trace(pair)
  mean = jnp.sum(pair * apart) / jnp.where(others > 0.0, others, 1.0)
  reach = clamped(pooling, 0.0) * mean
  near = jnp.maximum(1.0 - apart / jnp.where(reach > 0.0, reach, 1.0), 0.0)
  return jnp.where(reach > 0.0, near, jnp.eye(len(centroids), dtype=jnp.float32))


def _group_weights(ring, counts, centroids, exponent, max_weight, pooling):
  """What an example of each group weighs; mean 1 over the `counts` of this step."""
  exponent, largest = clamped(exponent, 0.0, 4.0), clamped(max_weight, 1.0)
  seen, size = jnp.any(ring > 0, axis=0), counts.astype(jnp.float32)
  frequency = pooled = shares(ring)
  if pooling is not None:
    similarity = _similarity(centroids, frequency, pooling)
    pooled = jnp.einsum("kj,j->k", similarity, frequency, precision=jax.lax.Precision.HIGHEST)
  pooled = jnp.maximum(pooled, 0.5 / jnp.maximum(jnp.sum(size), 1.0))
  kinds = jnp.sum(seen if pooling is None else frequency / pooled).astype(jnp.float32)
  rarity = 1.0 / (jnp.where(kinds > 0.0, kinds, 1.0) * pooled)
  weight = jnp.where(seen, jnp.clip(rarity, 1.0 / largest, largest) ** exponent, 1.0)
  return to_mean_one(weight, size, largest**exponent)
