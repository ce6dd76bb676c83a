# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""How rare is an example by what a network that never saw it makes of it?"""

import functools
import math

import jax
import jax.numpy as jnp

from gq_optax import _validate
from gq_optax._losses import clamped
from gq_optax._rarity import density, lloyd


def held_out_rarity(
  losses: jax.Array,
  *,
  embeddings: jax.Array | None = None,
  labels: jax.Array | None = None,
  neighbours: int = 10,
  largest: jax.typing.ArrayLike = 50.0,
) -> jax.Array:
  r"""How improbable the label of an example was to a network that was not trained on it.

  .. math:: r_i = \mathrm{clip}\Big(\frac{1}{\bar p_i},\; 1,\; m\Big), \qquad
            \bar p_i = \frac{1}{|N_i|} \sum_{j \in N_i} e^{-\ell_j}

  Without embeddings :math:`N_i` is the example alone, and r is :math:`e^{\ell_i}` within bounds.
  With embeddings it holds the `neighbours` examples of the same label that are nearest by cosine,
  the example itself among them: one that is odd by itself is then less rare than a kind.

  It is computed once for a training set, before the training that uses it: n² d products, of which
  a few rows lie in memory at a time. **A wrong label looks rare.** Where labels may be wrong, look
  at the rarest examples first.

  ========================================  =====================================================
  case                                      what happens
  ========================================  =====================================================
  a loss that is NaN or Inf                 rarity 1, and a neighbour to none
  a loss below 0                            counts as 0
  an embedding that is not finite           a neighbour to none; its rarity is by its own loss
  fewer than `neighbours` of a label        all of that label
  ========================================  =====================================================

  Args:
    losses: cross-entropy of each example while it was held out, `[n]`, floating, in nats.
    embeddings: what describes an example, such as the features of the same network, `[n, ...]` with
      two numbers or more, floating. Examples are compared across the halves: from two networks the
      features of one half say nothing about those of the other. Call once for each half then.
    labels: `[n]`, integer; with embeddings, and only then.
    neighbours: how many examples are averaged over, at least 1; 1 is without embeddings.
    largest: m, at least 1. Traced values are clamped.

  Returns:
    float32 `[n]`, in `[1, m]`; no gradient flows through it.

  Raises:
    ValueError: if only one of `embeddings` and `labels` is given, or a shape, a dtype or an option
      is wrong.

  Example:
    >>> import jax.numpy as jnp
    >>> import gq_optax as gq
    >>> losses = jnp.array([0.0, 0.1, 3.0, 9.0])
    >>> print(gq.held_out_rarity(losses).round(1))
    [ 1.   1.1 20.1 50. ]

  Reference: none that we know; the recipe in docs/adjustment.md trains two halves.
  """
  neighbours = _validate.static_int("neighbours", neighbours, 1)
  _validate.number("largest", largest, 1.0)
  losses = jax.lax.stop_gradient(_validate.floating("losses", losses).astype(jnp.float32))
  _validate.require(losses.ndim == 1, "losses", "be [n]", f"shape {losses.shape}")
  both = (embeddings is None) == (labels is None)
  found = "embeddings without labels" if labels is None else "labels without embeddings"
  way_out = "Neighbours are sought among examples of the same label."
  _validate.require(both, "embeddings and labels", "be given together", found, way_out)
  probability = jnp.exp(-jnp.maximum(losses, 0.0))
  if embeddings is not None:
    rows, finite = _rows(embeddings, losses.size)
    labels = _validate.integer("labels", labels)
    _validate.shape("labels", labels, f"[n] with n = {losses.size}", losses.shape)
    finite = jnp.logical_and(finite, jnp.isfinite(losses))
    probability = _smoothed(probability, rows, labels, finite, min(neighbours, losses.size))
  rarity = jnp.clip(1.0 / probability, 1.0, clamped(largest, 1.0))
  return jnp.where(jnp.isfinite(losses), rarity, 1.0)


def _rows(embeddings, size):
  """Rows of length one `[n, d]`, and which are finite; those that are not become zero."""
  x = jax.lax.stop_gradient(_validate.floating("embeddings", embeddings))
  fits = x.shape[:1] == (size,) and math.prod(x.shape[1:]) >= 2
  rule = f"be [n, ...] with n = {size} and two numbers or more for each example"
  way_out = "One number alone has no direction."
  _validate.require(fits, "embeddings", rule, f"shape {x.shape}", way_out)
  x = x.reshape(size, -1).astype(jnp.float32)
  finite = jnp.all(jnp.isfinite(x), axis=1)
  return lloyd.unit_rows(x)[0], finite


@functools.partial(jax.jit, static_argnames="neighbours")
def _smoothed(probability, rows, labels, finite, neighbours):
  """The mean probability of the nearest rows of the same label, the row itself always there."""
  numbers = jnp.arange(len(rows), dtype=jnp.int32)

  def of_one(number, row, label):
    alike = jnp.einsum("nd,d->n", rows, row, precision=jax.lax.Precision.HIGHEST)
    near = (labels == label) & (numbers != number) & finite & finite[number]
    nearness, which = jax.lax.top_k(jnp.where(near, alike, -jnp.inf), neighbours - 1)
    there = nearness > -jnp.inf
    total = probability[number] + jnp.sum(jnp.where(there, probability[which], 0.0))
    return total / (1.0 + jnp.sum(there, dtype=jnp.float32))

  return density.in_blocks(jax.vmap(of_one), (numbers, rows, labels), len(rows))
