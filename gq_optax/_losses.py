# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""How does rarity count? As weights of mean 1 in the mean of the losses, or in the logits."""

import functools

import jax
import jax.numpy as jnp

from gq_optax import _axes, _dtypes, _validate

# Up to so many values every corner is compared with every value: on a GPU one kernel.
_FEW = 512
_TRIED, _TURNS = 33, 6  # 246 / 32^6 octaves are about the last digit of a float32
# Weights are held within [1e-9, 1e9], so that less than this of the largest is all the same.
_LEAST = 1e-20


def weighted_mean(
  losses: jax.Array,
  weights: jax.Array,
  mask: jax.Array | None = None,
  *,
  axis_name: _axes.AxisName | None = None,
) -> jax.Array:
  r"""The mean of the losses by weights whose own mean over the unmasked is 1.

  .. math:: \frac{1}{n} \sum_{i \text{ unmasked}} w_i\, \ell_i, \qquad n = \#\,\text{unmasked}

  A masked loss is left out before it is multiplied: where it is not finite, value and gradient
  still are. An input that is not finite has to be replaced in front of the model, since a
  derivative of the model there may be NaN, and 0 times NaN is NaN (docs/safety.md).

  Args:
    losses: `[B]`, floating; or `[B, ...]`, where every element has a weight of its own.
    weights: as large as the losses, real; of `mean_one` or a scarcity, made with the same mask.
    mask: bool, as large as the losses, False for padding; None takes all.
    axis_name: axis or axes of `jax.shard_map` or `jax.pmap` that the batch is cut over. The value
      is then the mean over the examples of all devices, on each of them. Take `jax.lax.pmean` of
      the gradient, as usual: it is then that of one device with the whole batch, however uneven
      the masks are. (Under the checks of `shard_map` it already is, and `pmean` changes nothing.)

  Returns:
    A scalar `[]`, float32, or float64 for losses of float64; 0 where all is masked.

  Raises:
    ValueError: if the losses are not floating or a scalar, or a shape or dtype does not fit.

  Example:
    >>> import jax.numpy as jnp
    >>> import gq_optax as gq
    >>> mask = jnp.array([True, True, False])
    >>> losses, weights = jnp.array([1., 4., jnp.nan]), jnp.array([.5, 1.5, 0.])
    >>> print(gq.weighted_mean(losses, weights, mask))
    3.25

  Reference: docs/safety.md, and docs/mean-one.md for what the mean is over.
  """
  losses = _validate.floating("losses", losses)
  way_out = "Take no mean before."
  _validate.require(losses.ndim > 0, "losses", "be [B] or [B, ...]", "a scalar", way_out)
  weights = _validate.real("weights", weights)
  _validate.shape("weights", weights, f"as large as the losses, {losses.shape}", losses.shape)
  unmasked = _axes.alike(_validate.mask("mask", mask, *losses.shape), losses)
  _validate.axis_name("axis_name", axis_name)
  dtype = _dtypes.at_least_float32(losses.dtype)
  keep = lambda part: jnp.where(unmasked, part, jnp.zeros_like(part)).astype(dtype)
  total = _axes.total(jnp.sum(keep(losses) * keep(weights)), axis_name)
  number = _axes.total(jnp.sum(unmasked, dtype=jnp.int32), axis_name)
  return total / jnp.maximum(number, 1).astype(dtype)


def mean_one(
  rarity: jax.Array,
  mask: jax.Array | None = None,
  *,
  strength: jax.typing.ArrayLike = 1.0,
  max_weight: jax.typing.ArrayLike = 50.0,
  axis_name: _axes.AxisName | None = None,
) -> jax.Array:
  r"""Weights of mean 1, within bounds, out of any rarity.

  .. math:: w_i = \mathrm{clip}_{1/c}^{c}\big(\lambda\, r_i^{\,a}\big), \qquad
            \frac{1}{n} \sum_i w_i = 1

  What is held at a bound is made up for by the others: the mean stays 1. Only quotients of the
  rarity count, not its unit. No gradient flows through the weights.

  ==================================  ==========
  rarity                              weight
  ==================================  ==========
  NaN, infinite, 0, negative          1
  masked                              0
  ==================================  ==========

  Args:
    rarity: `[B]` or `[B, ...]`, real, larger for what is rarer.
    mask: bool, as large as the rarity, False for padding; None takes all.
    strength: a in `[0, 4]`: 0 weighs all the same. May be traced, and is then clamped.
    max_weight: c, at least 1; a weight lies in :math:`[1/c, c]`. May be traced, as above.
    axis_name: axis or axes of `jax.shard_map`, `jax.pmap` or `jax.vmap` that the batch is cut over.
      The mean is then 1 over the examples of all devices, and not on each of them.

  Returns:
    float32, as large as the rarity.

  Raises:
    ValueError: if an argument is out of its range, or a shape or dtype does not fit.

  Example:
    >>> import jax.numpy as jnp
    >>> import gq_optax as gq
    >>> print(gq.mean_one(jnp.array([1., 1., 4., jnp.nan])))
    [0.5 0.5 2.  1. ]

  Reference: docs/choosing.md.
  """
  rarity = _validate.real("rarity", rarity)
  _validate.require(rarity.ndim > 0, "rarity", "be [B] or [B, ...]", "a scalar")
  unmasked = _validate.mask("mask", mask, *rarity.shape)
  _validate.number("strength", strength, 0.0, 4.0)
  _validate.number("max_weight", max_weight, 1.0)
  _validate.axis_name("axis_name", axis_name)
  options = jax.lax.stop_gradient((strength, max_weight))
  rarity = jax.lax.stop_gradient(rarity).astype(jnp.float32)
  return _mean_one(rarity, _axes.alike(unmasked, rarity), *options, axis_name)


def adjusted_logits(
  logits: jax.Array, counts: jax.Array, strength: jax.typing.ArrayLike = 1.0
) -> jax.Array:
  r"""Logits moved by the logarithm of how frequent each class is.

  .. math:: z'_c = z_c + \tau \log \frac{n_c}{\sum_k n_k}

  In training they go into the loss: the network then has to make up for the difference. After
  training, with a negative strength, they take the bias towards frequent classes out of the
  predictions of a network that was trained on plain logits. One or the other, not both.

  Args:
    logits: z, `[..., C]`, floating; cast to float32.
    counts: n, `[C]`, the examples of each class in the training set; or its shares. A class that
      was never seen counts as one example; among shares, as the rarest class does. No gradient
      flows to it.
    strength: tau, any number. 1 in training, -1 after it: balanced classes in place of those of the
      training set.

  Returns:
    float32 `[..., C]`.

  Raises:
    ValueError: if `counts` is not `[C]`, or holds negative numbers, NaN or Inf.

  Example:
    >>> import jax.numpy as jnp
    >>> import gq_optax as gq
    >>> print(gq.adjusted_logits(jnp.zeros((1, 2)), jnp.array([90, 10])).round(2))
    [[-0.11 -2.3 ]]
    >>> gq.adjusted_logits(jnp.array([1.0, 0.0]), jnp.array([90, 10]), -1.0).argmax().item()
    1

  Reference: Menon et al., Long-tail learning via logit adjustment (2021), equations 9 and 10.
  """
  logits = _validate.floating("logits", logits).astype(jnp.float32)
  counts = _validate.counts("counts", counts)
  _validate.number("strength", strength, -float(jnp.finfo(jnp.float32).max))
  fits, found = logits.shape[-1:] == counts.shape, f"shapes {counts.shape} and {logits.shape}"
  _validate.require(fits, "counts", "be [C] with the C of logits [..., C]", found, verb="were")
  move = jnp.asarray(strength, jnp.float32) * jnp.log(counts / jnp.sum(counts))
  return logits + jnp.broadcast_to(jax.lax.stop_gradient(move), logits.shape)


@functools.partial(jax.jit, static_argnames="axis_name")
def _mean_one(rarity, unmasked, strength, max_weight, axis_name):
  counted = jnp.logical_and(unmasked, jnp.logical_and(jnp.isfinite(rarity), rarity > 0.0))
  strength, bound = clamped(strength, 0.0, 4.0), clamped(max_weight, 1.0, 1e9)
  rarity = jnp.where(counted, rarity, 0.0)
  top = _axes.largest(jnp.max(rarity), axis_name)
  # In units of the largest no power overflows.
  part = jnp.where(counted, rarity / jnp.where(top > 0.0, top, 1.0), 1.0)
  values = jnp.maximum(jnp.maximum(part, _LEAST) ** strength, _LEAST).reshape(-1)
  mass = counted.astype(jnp.float32).reshape(-1)
  everyone, of_everyone = (_axes.gather(each, axis_name) for each in (values, mass))
  weights = _axes.own(to_mean_one(everyone, of_everyone, bound), axis_name, len(values))
  return jnp.where(counted, weights.reshape(rarity.shape), unmasked.astype(jnp.float32))


def clamped(option: jax.typing.ArrayLike, low: float, high: float = 1e30) -> jax.Array:
  """An option within its range, float32; traced ones were not checked. NaN is the lowest."""
  return jnp.minimum(jnp.fmax(jnp.asarray(option, jnp.float32), low), high)


def to_mean_one(values: jax.Array, mass: jax.Array, bound: jax.Array) -> jax.Array:
  """`clip(s * values, 1 / bound, bound)` with the s that makes their mean 1.

  The mean rises with s, in straight lines between corners where a value meets a bound. Of a few
  values all corners are tried; of many a row of scales, closer and closer. Which values lie at
  which bound is known in between, and s follows. Where the bound is 1, any s does.

  Args:
    values: float32 `[n]`, positive.
    mass: float32 `[n]`, how many there are of each value.
    bound: float32 `[]`, at least 1.
  """
  low, high = 1.0 / bound, bound
  total, few = jnp.sum(mass), len(values) <= _FEW
  before, after = jnp.float32(2.0**-123), jnp.float32(2.0**123)
  for _ in range(1 if few else _TURNS):
    if few:
      scales = jnp.clip(jnp.concatenate([low / values, high / values]), before, after)
    else:
      part = jnp.linspace(0.0, 1.0, _TRIED, dtype=jnp.float32)
      root = (jnp.sqrt(after) / jnp.sqrt(before)) ** part
      scales = before * root * root  # the square alone may be too large
    totals = jnp.sum(mass[None] * jnp.clip(scales[:, None] * values[None], low, high), axis=1)
    most = totals <= total
    before = jnp.max(jnp.where(most, scales, before))
    after = jnp.min(jnp.where(most, after, scales))
  between = jnp.sqrt(before) * jnp.sqrt(after)

  below, above = values * between < low, values * between > high
  free = jnp.logical_not(jnp.logical_or(below, above))
  of = lambda some, parts: jnp.sum(jnp.where(some, parts, 0.0))
  left = total - low * of(below, mass) - high * of(above, mass)
  rest = of(free, mass * values)
  scale = jnp.where(rest > 0.0, left / jnp.where(rest > 0.0, rest, 1.0), between)
  return jnp.clip(scale * values, low, high)
