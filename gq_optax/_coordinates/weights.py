# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Coordinate scarcity: how unusual is a gradient against the queue? `(g, mean, std) -> weight`."""

from typing import Protocol

import jax
import jax.numpy as jnp

from gq_optax import _inputs, _validate

_TINY = float(jnp.finfo(jnp.float32).tiny)


class ScarcityFn(Protocol):
  """A pure, coordinatewise function from a gradient and the queue's statistics to a weight."""

  def __call__(self, g: jax.Array, mean: jax.Array, std: jax.Array, /) -> jax.Array:
    """Returns the weight `[*p]` of every coordinate of `g`; all three arguments are `[*p]`."""


def _arrays(g: jax.Array, mean: jax.Array, std: jax.Array) -> tuple[jax.Array, ...]:
  """The three as JAX arrays of one shape."""
  g, mean, std = (_inputs.floating(name, x) for name, x in (("g", g), ("mean", mean), ("std", std)))
  for name, x in (("mean", mean), ("std", std)):
    _validate.shape(name, x, f"of the shape of g, {g.shape}", g.shape)
  return g, mean, std


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
  g, mean, std = _arrays(g, mean, std)
  # As an int32 a large int would wrap.
  bound = _inputs.real("rho", float(rho) if type(rho) is int else rho)
  _validate.shape("rho", bound, "a scalar", ())
  bound = jnp.maximum(bound.astype(g.dtype), 1.0)
  distance, spread = jnp.abs(g - mean), std > 0.0
  weight = jnp.clip(distance / jnp.where(spread, std, 1.0), 1.0 / bound, bound)
  return jnp.where(spread, weight, jnp.where(distance > 0.0, bound, 1.0 / bound))


@jax.custom_jvp
def bounded_ratio(distance: jax.Array, std: jax.Array, bound: jax.Array) -> jax.Array:
  """`delta_rho` of a distance in the unit of `std`, which is 0 or of the order of 1."""
  return jnp.clip(distance / jnp.maximum(std, _TINY), 1.0 / bound, bound)


@bounded_ratio.defjvp
def _bounded_ratio_jvp(primals, tangents):
  """At a bound, and where nothing spreads, the derivative is 0 (but for that of the bound)."""
  distance, std, bound = primals
  weight = bounded_ratio(distance, std, bound)
  between = jnp.logical_and(weight > 1.0 / bound, weight < bound)
  inside = (tangents[0] - weight * tangents[1]) / jnp.where(between, std, 1.0)
  at_bound = jnp.where(weight >= bound, tangents[2], -tangents[2] / jnp.square(bound))
  return weight, jnp.where(between, inside, at_bound)
