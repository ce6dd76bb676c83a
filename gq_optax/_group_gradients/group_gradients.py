# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Group gradients: the mean gradient of each of K groups of a batch."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gq_optax import _validate

# So many groups go in a straight line. More go round a loop, and a program does not grow with K.
# Several a turn compile for longer and run no faster.
_STRAIGHT = 8


class GroupGradients(NamedTuple):
  """The mean gradients of K groups, as an update that `grad_queue` recognises by its type.

  Other transformations do not: in front of `grad_queue` they would change the counts as well. Apply
  them to `grads` (docs/safety.md).

  Attributes:
    grads: pytree of `[K, *p]` leaves: the mean gradient of each group. What stands in an empty
      group (also NaN) is never read.
    counts: `[K]`, integer or floating: how many examples each group has; 0 means empty.
    losses: `[K]`, the mean loss of each group, or None. Where `value=` is not given, an adaptive
      queue length takes the batch loss from here.
  """

  grads: optax.Updates
  counts: jax.Array
  losses: jax.Array | None = None


def arrays(name: str, groups: GroupGradients) -> GroupGradients:
  """Group gradients of JAX arrays, or refused under the name of the argument."""
  of = "of the GroupGradients"
  grads = _validate.gradients(name, groups.grads)
  counts, losses = _validate.real(f"{name}: counts {of}", groups.counts), groups.losses
  _validate.shape(f"counts {of}", counts, "[K]", (None,))
  if losses is not None:
    losses = _validate.real(f"{name}: losses {of}", losses)
    _validate.shape(f"losses {of}", losses, f"[K] = [{len(counts)}]", counts.shape)
  return GroupGradients(grads, counts, losses)


def sizes(counts: jax.Array) -> jax.Array:
  """Group sizes as float32; a count that is negative or NaN is an empty group."""
  counts = jnp.asarray(counts).astype(jnp.float32)
  return jnp.where(counts > 0.0, counts, 0.0)


def shares(counts: jax.Array) -> jax.Array:
  r"""The part of the batch in each group, float32 `[K]`; all 0 if every group is empty.

  .. math:: a_k = n_k / \textstyle\sum_j n_j
  """
  mass = sizes(counts)
  total = jnp.sum(mass)
  return mass / jnp.where(total > 0.0, total, 1.0)


def over_groups(add: Callable[..., Any], totals: Any, number: int) -> Any:
  """`totals = add(k, totals)` for every group k: straight on for a few, else round a loop."""
  if number > _STRAIGHT:
    return jax.lax.fori_loop(0, number, add, totals)
  for k in range(number):
    totals = add(k, totals)
  return totals


def one_of(leaf: jax.Array, k: int | jax.Array) -> jax.Array:
  """The gradient `[*p]` of group k out of `[K, *p]`."""
  if isinstance(k, int):
    return leaf[k]
  return jax.lax.dynamic_index_in_dim(leaf, k, keepdims=False, allow_negative_indices=False)


def batch_loss(groups: GroupGradients) -> jax.Array:
  """The mean loss of the batch out of the groups' mean losses."""
  filled = sizes(groups.counts) > 0.0
  losses = jnp.where(filled, jnp.asarray(groups.losses).astype(jnp.float32), 0.0)
  return jnp.sum(shares(groups.counts) * losses)
