# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What becomes of one leaf of the update: its K gradients weighed against the queue, and added."""

import jax
import jax.numpy as jnp
import optax

from gq_optax import _dtypes, _group_gradients
from gq_optax._coordinates import queue
from gq_optax._coordinates.queue import Queue
from gq_optax._coordinates.weights import ScarcityFn


def weigh(
  past: Queue,
  in_window: list[jax.Array] | None,
  weight_of: ScarcityFn,
  active: jax.Array,
  terms: list[list[jax.Array]],
  compared: list[list[jax.Array]],
  shares: jax.Array,
) -> tuple[list[jax.Array], list[list[jax.Array]]]:
  r"""The weighted update of every leaf, :math:`\sum_k a_k\, w(c_k; \mu, \sigma) \odot c_k`.

  Args:
    past: the queue before this step.
    in_window: for each slot, does it count? None: all do.
    weight_of: the weight of a gradient against mean and standard deviation.
    active: bool `[]`; False: every weight is 1.
    terms: for every leaf the K gradients `[*p]`.
    compared: the same as the queue would store them, see `as_stored`.
    shares: float32 `[K]`, the weight of each group in the update.

  Returns:
    For every leaf the update `[*p]`, and for every leaf the K weights `[*p]`.
  """

  def one(terms, compared, slots):
    newest = (past.index - 1) % slots.shape[0]
    mean, std = queue.mean_and_std(slots, newest, in_window)
    gradients = [g.astype(mean.dtype) for g in compared]
    if len(gradients) > 1:
      gradients = [_without_rounding(g, mean) for g in gradients]
    weights = [jnp.where(active, _checked(weight_of, g, mean, std), 1.0) for g in gradients]
    parts = [w * g.astype(w.dtype) for w, g in zip(weights, terms, strict=True)]
    return (parts[0] if len(parts) == 1 else _group_gradients.combine(parts, shares)), weights

  slots = jax.tree.leaves(past.slots)
  results = [one(*leaf) for leaf in zip(terms, compared, slots, strict=True)]
  return [r[0] for r in results], [r[1] for r in results]


def _checked(weigh: ScarcityFn, g: jax.Array, mean: jax.Array, std: jax.Array) -> jax.Array:
  weight = weigh(g, mean, std)
  if jnp.shape(weight) != g.shape or not jnp.issubdtype(jnp.result_type(weight), jnp.floating):
    raise ValueError(
      f"scarcity must return a float weight of shape {g.shape} for every coordinate, but"
      f" {jax.typeof(weight)} was found."
    )
  return weight.astype(g.dtype)


def as_stored(terms: list[list[jax.Array]], slots: optax.Updates) -> list[list[jax.Array]]:
  """The terms as the queue would store them.

  A constant gradient must equal its own rounded copies in the queue: else its weight would be rho,
  for infinitely scarce, in place of 1/rho.
  """

  def rounded(leaf, dtype):
    if _dtypes.holds(dtype, leaf[0].dtype):
      return leaf
    # The barrier: XLA may keep the excess precision of a cast there and back.
    return jax.lax.optimization_barrier([term.astype(dtype) for term in leaf])

  return [rounded(t, s.dtype) for t, s in zip(terms, jax.tree.leaves(slots), strict=True)]


def _without_rounding(g: jax.Array, mean: jax.Array) -> jax.Array:
  """`g`, or the queue's mean where the two differ by no more than rounding.

  Where all examples have the same gradient, the means of groups of different sizes differ in the
  last bits, and so does what the queue holds: the weight would be one noise over another.
  """
  rounding = 4.0 * float(jnp.finfo(mean.dtype).eps)
  return jnp.where(jnp.abs(g - mean) <= rounding * jnp.abs(mean), mean, g)
