# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Coordinate scarcity: a weight for every coordinate of a gradient, and the weighted update."""

from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from gq_optax import _axes, _dtypes, _group_gradients, _masks, _validate
from gq_optax._grad_queue import norms, queue
from gq_optax._grad_queue.queue import Queue, Statistics

_TINY = float(jnp.finfo(jnp.float32).tiny)


class ScarcityFn(Protocol):
  """A pure, coordinatewise function from a gradient and the queue's statistics to a weight."""

  def __call__(self, g: jax.Array, mean: jax.Array, std: jax.Array, /) -> jax.Array:
    """Returns the weight `[*p]` of every coordinate of `g`; all three arguments are `[*p]`."""


def delta_rho(
  g: jax.Array, mean: jax.Array, std: jax.Array, rho: jax.typing.ArrayLike = 3.0
) -> jax.Array:
  r"""The paper's scarcity: the z-score, bounded on both sides.

  .. math:: w = \mathrm{clip}(|g - \mu| / \sigma,\; 1/\rho,\; \rho)

  Bounds: `[1/rho, rho]`. Below 1 (damped) within one standard deviation of the mean.

  Args:
    g: gradient, `[*p]`, float32 or wider.
    mean: mean of the queue, `[*p]`.
    std: population standard deviation of the queue, `[*p]`.
    rho: bound, at least 1; a smaller one counts as 1.

  Returns:
    Weight `[*p]`. Where `std` is 0 it is `1/rho` if `g` equals `mean`, else `rho`.

  Example:
    >>> import jax.numpy as jnp
    >>> import gq_optax as gq
    >>> print(gq.delta_rho(jnp.array([1., 3., 99.]), jnp.ones(3), jnp.ones(3), rho=4.0))
    [0.25 2.   4.  ]

  Reference: Al Hasib, Grad Queue (arXiv 2404.16917), equation 2.
  """
  g, mean, std = (
    _validate.floating(name, x) for name, x in (("g", g), ("mean", mean), ("std", std))
  )
  for name, x in (("mean", mean), ("std", std)):
    _validate.shape(name, x, f"of the shape of g, {g.shape}", g.shape)
  # As an int32 a large int would wrap.
  bound = _validate.real("rho", float(rho) if type(rho) is int else rho)
  _validate.shape("rho", bound, "a scalar", ())
  bound = jnp.maximum(bound.astype(g.dtype), 1.0)
  distance, spread = jnp.abs(g - mean), std > 0.0
  weight = jnp.clip(distance / jnp.where(spread, std, 1.0), 1.0 / bound, bound)
  return jnp.where(spread, weight, jnp.where(distance > 0.0, bound, 1.0 / bound))


@jax.custom_jvp
def _bounded_ratio(distance: jax.Array, std: jax.Array, bound: jax.Array) -> jax.Array:
  """`delta_rho` as a step computes it: distance and deviation scaled alike, see `Statistics`."""
  return jnp.clip(distance / jnp.maximum(std, _TINY), 1.0 / bound, bound)


@_bounded_ratio.defjvp
def _bounded_ratio_jvp(primals, tangents):
  """At a bound, and where nothing spreads, the derivative is 0 (but for that of the bound)."""
  distance, std, bound = primals
  weight = _bounded_ratio(distance, std, bound)
  between = jnp.logical_and(weight > 1.0 / bound, weight < bound)
  inside = (tangents[0] - weight * tangents[1]) / jnp.where(between, std, 1.0)
  at_bound = jnp.where(weight >= bound, tangents[2], -tangents[2] / jnp.square(bound))
  return weight, jnp.where(between, inside, at_bound)


class Weighed(NamedTuple):
  r"""What a step makes of its gradient, leaf by leaf.

  .. math:: \sum_k a_k\, w(c_k; \mu, \sigma) \odot c_k

  Attributes:
    mean: the raw mean gradient `[*p]` of the batch; of groups in float32 or wider.
    update: the weighted one, in float32 or wider.
    sums: float32 `[3]`, sums over all coordinates of the weight, and the numbers of those above 1
      and below 1, groups by their share; None where nobody asks.
  """

  mean: list[jax.Array]
  update: list[jax.Array]
  sums: jax.Array | None


def weigh(
  gradients: list[jax.Array],
  mean: list[jax.Array] | None,
  shares: jax.Array | None,
  past: Queue,
  in_window: jax.Array | None,
  active: jax.Array,
  rho: jax.typing.ArrayLike,
  scarcity: ScarcityFn | None,
  track: bool,
) -> Weighed:
  r"""Weighs a mean gradient, or those of K groups, against the queue.

  Args:
    gradients: leaves `[*p]`, or `[K, *p]`.
    mean: the raw mean gradient of the batch beside those of the groups; None: it is added up.
    shares: float32 `[K]`, the part of the batch in each group; None for a mean gradient. A group of
      share 0 is never read.
    past: the queue before this step.
    in_window: bool `[L]`, which slots count; None: all do.
    active: bool `[]`; False: every weight is 1.
    rho: the bound of Delta_rho.
    scarcity: a function in its stead, or None.
    track: whether sums of the weights are asked for.
  """
  slots = jax.tree.leaves(past.slots)
  statistics = [queue.statistics(s, queue.newest(past), in_window) for s in slots]
  kinds = [s.dtype for s in slots]
  # Only what is passed as an array is traced once; the user's function may hold tracers.
  one = _weighed_once if scarcity is None else _weighed

  def weighed(gradients, share):
    parts = zip(gradients, statistics, kinds, strict=True)
    found = [one(g, share, s, active, rho, scarcity, kind) for g, s, kind in parts]
    return [update for update, _ in found], [weights for _, weights in found]

  if shares is None:
    update, weights = weighed(gradients, None)
    return Weighed(gradients, update, _sums(weights) if track else None)

  def add(k, total):
    share = shares[k]
    # What stands in an empty group may be NaN.
    group = [_group_gradients.one_of(g, k) for g in gradients]
    group = [_masks.masked(g, share > 0.0) for g in group]
    update, weights = weighed(group, share)
    plus = lambda old, new: old + share.astype(old.dtype) * new.astype(old.dtype)
    return Weighed(
      mean=list(map(plus, total.mean, group)) if mean is None else mean,
      update=list(map(plus, total.update, update)),
      sums=plus(total.sums, _sums(weights)) if track else None,
    )

  zeros = lambda: [jnp.zeros_like(s.mean) for s in statistics]
  sums = jnp.zeros(3, jnp.float32) if track else None
  start = Weighed(zeros() if mean is None else mean, zeros(), sums)
  start = _axes.alike(start, (gradients, statistics, shares))
  return _group_gradients.over_groups(add, start, shares.shape[0])


def _weighed(g, share, past, active, rho, scarcity, storage):
  """A gradient `[*p]` times its weights, and the weights."""
  dtype, stored = past.mean.dtype, g
  if not _dtypes.holds(storage, g.dtype):
    # A constant gradient must equal its own rounded copies in the queue: else its weight would be
    # rho, for infinitely scarce. The barrier: XLA may keep the excess precision of a cast.
    stored = jax.lax.optimization_barrier(g.astype(storage))
  x = stored.astype(dtype)
  if share is not None:
    active = jnp.logical_and(active, share > 0.0)
    x = _without_rounding(x, past)
  if scarcity is None:
    bound = jnp.maximum(jnp.asarray(rho).astype(dtype), 1.0)
    weights = _bounded_ratio(queue.distance(past, x), past.std, bound)
  else:
    weights = _checked(scarcity, x, *queue.mean_and_std(past))
  weights = jnp.where(active, weights, 1.0)
  return weights * g.astype(dtype), weights


_weighed_once = jax.jit(_weighed, static_argnames=("scarcity", "storage"))


def _without_rounding(g: jax.Array, past: Statistics) -> jax.Array:
  """`g`, or the queue's mean where the two differ by no more than rounding.

  Where all examples have the same gradient, the means of groups of different sizes differ in the
  last bits, and so does what the queue holds: the weight would be one noise over another.
  """
  mean, _ = queue.mean_and_std(past)
  rounding = 4.0 * float(jnp.finfo(mean.dtype).eps)
  return jnp.where(jnp.abs(g - mean) <= rounding * jnp.abs(mean), mean, g)


def _checked(scarcity: ScarcityFn, g: jax.Array, mean: jax.Array, std: jax.Array) -> jax.Array:
  weight = scarcity(g, mean, std)
  fits = jnp.shape(weight) == g.shape and jnp.issubdtype(jnp.result_type(weight), jnp.floating)
  rule = f"return a float weight of shape {g.shape} for every coordinate"
  _validate.require(fits, "scarcity", rule, jax.typeof(weight))
  return weight.astype(g.dtype)


def _sums(weights):
  """Sums over all coordinates: of the weight, and the numbers of those above 1 and below 1."""
  return norms.add_rows([_counted(norms.pick(weights, n)) for n in norms.families(weights)])


@jax.jit  # leaves of one shape are traced once
def _counted(weights):
  count = lambda w: [w, (w > 1.0).astype(w.dtype), (w < 1.0).astype(w.dtype)]
  return norms.sum_each(map(count, weights))
