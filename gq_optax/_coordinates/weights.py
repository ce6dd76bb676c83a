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


def z_score(g: jax.Array, mean: jax.Array, std: jax.Array) -> jax.Array:
  r"""Distance from the queue's mean in standard deviations.

  .. math:: z = |g - \mu| / \sigma, \qquad z = 0 \text{ if } g = \mu, \qquad
            z \to \infty \text{ if } \sigma = 0, g \ne \mu

  Args:
    g: gradient, `[*p]`, float32 or wider.
    mean: mean of the queue, `[*p]`, same dtype.
    std: population standard deviation of the queue, `[*p]`, same dtype, not negative.

  Returns:
    `[*p]`, in `[0, inf]`, never NaN for finite input.

  Example:
    >>> import jax.numpy as jnp
    >>> import gq_optax as gq
    >>> g, mean, std = jnp.array([3., 1., 1.]), jnp.array([1., 1., 0.]), jnp.array([4., 0., 0.])
    >>> print(gq.z_score(g, mean, std))
    [0.5 0.  inf]

  Reference: Al Hasib, Grad Queue (arXiv 2404.16917), equation 1.
  """
  g, mean, std = _arrays(g, mean, std)
  distance = jnp.abs(g - mean)
  return _ratio(distance, std)


@jax.custom_jvp
def _ratio(distance: jax.Array, std: jax.Array) -> jax.Array:
  # The divisor is never 0, and the square root behind `std` is used in front of the quotient alone:
  # behind it as well would cost XLA a pass over memory.
  spread = std > 0.0
  beyond = jnp.where(distance > 0.0, jnp.inf, 0.0).astype(distance.dtype)
  return jnp.where(spread, distance, beyond) / jnp.where(spread, std, 1.0)


@_ratio.defjvp
def _ratio_jvp(primals, tangents):
  """The derivative is 0 where nothing spreads: infinity stays infinity."""
  distance, std = primals
  spread = std > 0.0
  z = jnp.where(spread, distance, 0.0) / jnp.where(spread, std, 1.0)
  slope = tangents[0] - z * tangents[1]
  return _ratio(distance, std), jnp.where(spread, slope / jnp.where(spread, std, 1.0), 0.0)


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
  z = z_score(g, mean, std)
  bound = jnp.maximum(_bound("rho", rho, z.dtype), 1.0)
  return jnp.clip(z, 1.0 / bound, bound)


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


def tail_probability(g: jax.Array, mean: jax.Array, std: jax.Array) -> jax.Array:
  r"""The probability of a value *closer* to the mean, were the queue Gaussian.

  .. math:: w = 1 - P(|Z| \ge z) = \mathrm{erf}(z / \sqrt 2)

  Two-sided: 1 minus the p-value of the z-test. Bounds: `[0, 1]`. It never amplifies; .68 at one
  standard deviation, .95 at two; 0 where the gradient repeats its mean.

  Args:
    g: gradient, `[*p]`, float32 or wider.
    mean: mean of the queue, `[*p]`.
    std: population standard deviation of the queue, `[*p]`.

  Returns:
    Weight `[*p]`.

  Example:
    >>> import jax.numpy as jnp
    >>> import gq_optax as gq
    >>> w = gq.tail_probability(jnp.array([1., 2., 3.]), jnp.ones(3), jnp.ones(3))
    >>> print(w.round(2))
    [0.   0.68 0.95]
  """
  return jax.scipy.special.erf(z_score(g, mean, std) * 0.5**0.5)


def surprisal(
  g: jax.Array, mean: jax.Array, std: jax.Array, max_weight: jax.typing.ArrayLike = 9.0
) -> jax.Array:
  r"""The information, in nats, of a value at least this far from the mean.

  .. math:: w = \min(-\log P(|Z| \ge z),\; w_{max})

  Bounds: `[0, max_weight]`. 0 where the gradient repeats its mean, 1.15 at one standard deviation,
  3.1 at two; it grows like half the squared z-score, faster than Delta_rho.

  Args:
    g: gradient, `[*p]`, float32 or wider.
    mean: mean of the queue, `[*p]`.
    std: population standard deviation of the queue, `[*p]`.
    max_weight: upper bound, by default reached at a z-score of 3.84.

  Returns:
    Weight `[*p]`.

  Example:
    >>> import jax.numpy as jnp
    >>> import gq_optax as gq
    >>> w = gq.surprisal(jnp.array([1., 2., 3., 99.]), jnp.ones(4), jnp.ones(4))
    >>> print(w.round(2))
    [0.   1.15 3.09 9.  ]
  """
  # Beyond 1e4 standard deviations -log P exceeds 5e7; the bound keeps z * z finite.
  z = jnp.minimum(z_score(g, mean, std), 1e4)
  log_p = jnp.log(2.0).astype(z.dtype) + jax.scipy.stats.norm.logsf(z)
  return jnp.clip(-log_p, 0.0, _bound("max_weight", max_weight, z.dtype))


def identity(g: jax.Array, mean: jax.Array, std: jax.Array) -> jax.Array:
  """No coordinate scarcity: every weight is exactly 1.

  Use it for group weighting alone, or as a control.

  Args:
    g: gradient, `[*p]`.
    mean: unused.
    std: unused.

  Returns:
    Ones `[*p]`. Bounds: `[1, 1]`.

  Example:
    >>> import jax.numpy as jnp
    >>> import gq_optax as gq
    >>> print(gq.identity(jnp.array([5., 7.]), jnp.zeros(2), jnp.ones(2)))
    [1. 1.]
  """
  g, _, _ = _arrays(g, mean, std)
  return jnp.ones_like(g)


def _bound(name, value, dtype):
  # As an int32 a large int would wrap.
  bound = _inputs.real(name, float(value) if type(value) is int else value)
  _validate.shape(name, bound, "a scalar", ())
  return bound.astype(dtype)
