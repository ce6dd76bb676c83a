# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What becomes of each leaf of the update: its K gradients weighed against the queue, and added."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gq_optax import _axes, _dtypes, _group_gradients
from gq_optax._coordinates import norms, queue, weights
from gq_optax._coordinates.queue import Queue, Spread
from gq_optax._coordinates.weights import ScarcityFn


class Weighed(NamedTuple):
  """A leaf over all its groups.

  Attributes:
    update: `[*p]`, the weighted gradients added by their shares, in float32 or wider.
    stored: `[]`, the largest entry as the queue would store it, in its dtype; 0 where nothing is
      rounded.
  """

  update: jax.Array
  stored: jax.Array


class Update(NamedTuple):
  """All leaves over all their groups.

  Attributes:
    leaves: in their order.
    sums: float32 `[3]`, sums over all coordinates of the weight, and the numbers of those above 1
      and below 1, groups by their share; None where nobody asks.
    means: the mean gradient of the batch `[*p]` of each leaf, in float32 or wider; None where
      nobody asks.
  """

  leaves: list[Weighed]
  sums: jax.Array | None
  means: list[jax.Array] | None


class Rule(NamedTuple):
  """How a gradient is weighed.

  Attributes:
    active: bool `[]`; False: every weight is 1.
    rho: the bound of Delta_rho.
    scarcity: a function in its stead, or None.
    tracked: whether sums of the weights are asked for.
  """

  active: jax.Array
  rho: jax.typing.ArrayLike
  scarcity: ScarcityFn | None
  tracked: bool


def weigh(
  past: Queue,
  in_window: jax.Array | None,
  leaves: list[jax.Array],
  shares: jax.Array | None,
  rule: Rule,
  population: jax.Array | None = None,
) -> Update:
  r"""The weighted update of every leaf, :math:`\sum_k a_k\, w(c_k; \mu, \sigma) \odot c_k`.

  Args:
    past: the queue before this step.
    in_window: bool `[L]`, which slots count; None: all do.
    leaves: mean gradients `[*p]`, or those of K groups `[K, *p]`.
    shares: float32 `[K]`, the weight of each group in the update; None for mean gradients. Groups
      of share 0 are never read.
    rule: how a gradient is weighed.
    population: float32 `[K]`, the part of the batch in each group, if its mean is asked for.
  """
  slots = jax.tree.leaves(past.slots)
  newest = (past.index - 1) % (slots[0].shape[0] if slots else 1)
  spreads = [_spread(s, newest, in_window) for s in slots]
  dtypes = [s.dtype for s in slots]
  # Only what is passed as an array is traced once; the user's function may hold tracers.
  one = _one_traced_once if rule.scarcity is None else _one

  def weighed(totals, gradients, share):
    results = [
      one(total, g, share, spread, rule.active, rule.rho, dtype, rule.scarcity, rule.tracked)
      for total, g, spread, dtype in zip(totals, gradients, spreads, dtypes, strict=True)
    ]
    return [leaf for leaf, _ in results], _sums([w for _, w in results]) if rule.tracked else None

  if shares is None:
    found, sums = weighed([None] * len(leaves), leaves, None)
    return Update(found, sums, None)

  def add(k, totals):
    gradients = [_group_gradients.one_of(g, k) for g in leaves]
    found, sums = weighed(totals.leaves, gradients, shares[k])
    means = totals.means
    if population is not None:
      pairs = zip(totals.means, gradients, strict=True)
      means = [_group_gradients.add(mean, g, population[k]) for mean, g in pairs]
    return Update(found, None if sums is None else totals.sums + shares[k] * sums, means)

  nothing = [
    Weighed(jnp.zeros_like(s.mean), jnp.zeros([], dtype))
    for s, dtype in zip(spreads, dtypes, strict=True)
  ]
  means = None if population is None else _group_gradients.zeros(leaves)
  start = Update(nothing, jnp.zeros(3, jnp.float32) if rule.tracked else None, means)
  start = _axes.alike(start, (leaves, spreads, shares))
  return _group_gradients.over_groups(add, start, shares.shape[0])


def _sums(weights: list[jax.Array]) -> jax.Array:
  """Sums over all coordinates: of the weight, and the numbers of those above 1 and below 1."""
  nothing = (jnp.zeros([], jnp.float32),) * 3
  parts = [_counted(norms.pick(weights, numbers)) for numbers in norms.families(weights)]
  return norms.add_rows([nothing, *parts])


@jax.jit  # leaves of one shape are traced once
def _counted(weights):
  count = lambda w: [w, (w > 1.0).astype(w.dtype), (w < 1.0).astype(w.dtype)]
  return norms.sum_each(map(count, weights))


_spread = jax.jit(queue.spread)  # leaves of one shape are traced once


def _one(total, g, share, spread, active, rho, storage, scarcity, tracked):
  """One gradient `[*p]` weighed, and added to the total of its leaf; and its weights, if asked."""
  dtype = spread.mean.dtype
  if share is not None:
    g = jnp.where(share > 0.0, g, jnp.zeros_like(g))  # what stands in an empty group may be NaN
  largest = jnp.zeros([], storage) if total is None else total.stored
  stored = g
  if not _dtypes.holds(storage, g.dtype):
    # A constant gradient must equal its own rounded copies in the queue: else its weight would be
    # rho, for infinitely scarce. The barrier: XLA may keep the excess precision of a cast.
    stored = jax.lax.optimization_barrier(g.astype(storage))
    largest = jnp.maximum(largest, jnp.max(jnp.abs(stored), initial=0))
  x = stored.astype(dtype)
  if share is not None:
    x = _without_rounding(x, spread)
  if scarcity is None:
    bound = jnp.maximum(jnp.asarray(rho).astype(dtype), 1.0)
    weight = weights.bounded_ratio(queue.distance(spread, x), spread.std, bound)
  else:
    weight = _checked(scarcity, x, *queue.in_units(spread))
  weighs = active if share is None else jnp.logical_and(active, share > 0.0)
  weight = jnp.where(weighs, weight, 1.0)
  update = weight * g.astype(dtype)
  if share is not None:
    update = total.update + share.astype(dtype) * update
  return Weighed(update, largest), weight if tracked else None


_one_traced_once = jax.jit(_one, static_argnames=("storage", "scarcity", "tracked"))


def _checked(weigh: ScarcityFn, g: jax.Array, mean: jax.Array, std: jax.Array) -> jax.Array:
  weight = weigh(g, mean, std)
  if jnp.shape(weight) != g.shape or not jnp.issubdtype(jnp.result_type(weight), jnp.floating):
    raise ValueError(
      f"scarcity must return a float weight of shape {g.shape} for every coordinate, but"
      f" {jax.typeof(weight)} was found."
    )
  return weight.astype(g.dtype)


def _without_rounding(g: jax.Array, spread: Spread) -> jax.Array:
  """`g`, or the queue's mean where the two differ by no more than rounding.

  Where all examples have the same gradient, the means of groups of different sizes differ in the
  last bits, and so does what the queue holds: the weight would be one noise over another.
  """
  mean, _ = queue.in_units(spread)
  rounding = 4.0 * float(jnp.finfo(mean.dtype).eps)
  return jnp.where(jnp.abs(g - mean) <= rounding * jnp.abs(mean), mean, g)
