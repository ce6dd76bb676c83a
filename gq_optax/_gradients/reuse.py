# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""One forward pass of the whole batch, whose backward pass can be run for any rows of it."""

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax
import optax


class Forward(NamedTuple):
  """A forward pass that was run.

  Attributes:
    losses: `[B]`.
    aux: what `loss_fn` returned beside them, or None.
    backward: `(index [b], cotangents [b]) -> gradient` of the losses of these rows, for the b that
      were asked for.
  """

  losses: jax.Array
  aux: Any
  backward: Callable[[jax.Array, jax.Array], Any]


def forward(
  loss_fn: Callable[..., Any],
  params: optax.Params,
  batch: Any,
  has_aux: bool,
  sizes: Collection[int],
) -> Forward | None:
  """Runs a batch forward, and keeps what the backward pass of some of its rows needs.

  What JAX keeps of a function of independent examples has an axis of examples. The same function of
  fewer examples keeps the same arrays, shorter along that axis. So the backward pass of some rows
  is that of the smaller function, given these rows of what the whole batch kept.

  Args:
    loss_fn: `(params, batch) -> losses [b]`, or `(losses, aux)`, for any b.
    params: pytree of arrays.
    batch: pytree of `[B, ...]` arrays.
    has_aux: whether `loss_fn` returns `(losses, aux)`.
    sizes: how many rows the backward pass is to be run for.

  Returns:
    None where the rows cannot be told: the axis of examples is merged with another, or b = B.
  """
  total = jax.tree.leaves(batch)[0].shape[0]

  def start(params, rows):
    def losses(params):
      return loss_fn(params, rows) if has_aux else (loss_fn(params, rows), None)

    return jax.vjp(losses, params, has_aux=True)

  losses, pull, aux = start(params, batch)
  kept = jax.tree.leaves(pull)
  plans = {}
  for size in sizes:
    shape = lambda x, n=size: jax.ShapeDtypeStruct((n, *x.shape[1:]), x.dtype)
    fewer = jax.eval_shape(lambda p, b: start(p, b)[1], params, jax.tree.map(shape, batch))
    leaves, structure = jax.tree.flatten(fewer)
    if size >= total or [x.dtype for x in leaves] != [x.dtype for x in kept]:
      return None
    axes = [_axis(x.shape, y.shape, total, size) for x, y in zip(kept, leaves, strict=True)]
    if None in axes:
      return None
    plans[size] = structure, axes

  def backward(index, cotangents):
    structure, axes = plans[index.shape[0]]
    take = lambda x, axis: (
      x if axis < 0 else x.at[(slice(None),) * axis + (index,)].get(mode="promise_in_bounds")
    )
    return jax.tree.unflatten(structure, map(take, kept, axes))(cotangents)[0]

  return Forward(losses, aux, backward)


def _axis(whole, part, total, size):
  """The axis of examples by two shapes; -1 if there is none, None if it cannot be told."""
  if whole == part:
    return -1
  differ = [i for i, (n, m) in enumerate(zip(whole, part, strict=False)) if n != m]
  if len(whole) != len(part) or len(differ) > 1:
    return None
  return differ[0] if (whole[differ[0]], part[differ[0]]) == (total, size) else None
