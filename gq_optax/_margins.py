# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""How far an example must be fitted: margins by rarity, and logits moved by class counts."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gq_optax import _masks, _validate
from gq_optax._losses import clamped


def margin_loss(
  loss_fn: Callable[..., jax.Array],
  logits: jax.Array,
  labels: Any,
  rarity: jax.Array,
  *,
  strength: jax.typing.ArrayLike = 0.5,
  max_margin: jax.typing.ArrayLike = 100.0,
) -> jax.Array:
  r"""Losses under which a rare example must be fitted farther than a frequent one.

  .. math:: \ell_i = \frac{1}{t_i}\, L(t_i z_i, y_i), \qquad
            t_i = \mathrm{clip}(r_i^{-g},\; 1 / m,\; 1)

  At zero logits the gradient is that of the plain loss. Later a rare example pulls on, until its
  margin is :math:`1 / t_i` times as large: for a hinge loss exactly so. A weight says how hard an
  example pulls, and says nothing any more once the example fits. Every example is computed alone,
  without a statistic of its batch.

  **This loss is larger than the plain one.** With ten classes, zero logits and a rarity of 100 it
  is 230 in place of 2.3. Logs, early stopping, `losses=` of `example_scarcity` and `value=` of
  `grad_queue` take the plain loss.

  ==================================  ===========================================================
  case                                what happens
  ==================================  ===========================================================
  t = 1                               the plain loss of the float32 logits, bit by bit
  rarity below 1                      t = 1
  rarity NaN, Inf, zero or negative   t = 1
  traced `strength`, `max_margin`     clamped to [0, 4], and to 1 or more
  ==================================  ===========================================================

  Args:
    loss_fn: `(logits, labels) -> losses`, as in `optax.losses`.
    logits: z, `[B, ...]`, floating; cast to float32.
    labels: y, pytree, passed on as it is.
    rarity: r, `[B]`, 1 for the commonest: whoever makes it promises that. `[B, C]` where the losses
      are `[B, C]`, as of many sigmoid labels. In general its axes are the first axes of both logits
      and losses. No gradient flows to it.
    strength: g, in [0, 4]; 0 is the plain loss. The default was chosen on validation
      (docs/evidence/when-every-example-fits.md). No gradient flows to it.
    max_margin: m, at least 1; no margin grows beyond m times the plain one.

  Returns:
    Losses of the shape and dtype that `loss_fn` returns.

  Raises:
    ValueError: if the axes of `rarity` are not the first axes of logits and losses, or an argument
      is out of its range.

  Example:
    >>> import jax.numpy as jnp
    >>> import optax
    >>> import gq_optax as gq
    >>> rarity = gq.class_rarity(jnp.array([0, 1]), jnp.array([900, 9]))
    >>> logits = jnp.array([[2.0, 0.0], [0.0, 2.0]])
    >>> loss_fn = optax.losses.softmax_cross_entropy_with_integer_labels
    >>> print(gq.margin_loss(loss_fn, logits, jnp.array([0, 1]), rarity, strength=0.5).round(2))
    [0.13 5.98]

  Reference: one temperature for each class, without the division, is in Kini, Paraskevas, Oymak,
  Thrampoulidis, Label-imbalanced and group-sensitive classification under overparameterization
  (2021). What is the same for all examples that fit: Byrd, Lipton, What is the effect of
  importance weighting in deep learning? (2019).
  """
  _validate.function("loss_fn", loss_fn)
  _validate.number("strength", strength, 0.0, 4.0)
  _validate.number("max_margin", max_margin, 1.0)
  logits = _validate.floating("logits", logits).astype(jnp.float32)
  t = _temperatures(_validate.real("rarity", rarity), strength, max_margin)
  _check_axes("logits", logits, t)
  losses = loss_fn(logits * _masks.over(t, logits), labels)
  losses = _validate.floating("the result of loss_fn", losses)
  _check_axes("the result of loss_fn", losses, t)
  return losses / _masks.over(t, losses).astype(losses.dtype)


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


def _temperatures(rarity, strength, max_margin):
  """t, float32 in the shape of rarity."""
  rarity = rarity.astype(jnp.float32)
  strength, max_margin = clamped(strength, 0.0, 4.0), clamped(max_margin, 1.0)
  good = jnp.logical_and(jnp.isfinite(rarity), rarity > 0.0)
  t = jnp.clip(jnp.where(good, rarity, 1.0) ** -strength, 1.0 / max_margin, 1.0)
  return jax.lax.stop_gradient(t)


def _check_axes(name, array, t):
  fits, found = array.shape[: t.ndim] == t.shape, f"shapes {t.shape} and {array.shape}"
  rule = f"have the first axes of {name}, as [B] has of [B, ...]"
  _validate.require(fits, "rarity", rule, found, verb="were")
