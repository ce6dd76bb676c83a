# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Per-example gradients a few examples at a time, kept, or reduced to group means on the way."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gq_optax import _axes, _dtypes, _inputs, _validate
from gq_optax._gradients import blocks, checks, grouped
from gq_optax._group_gradients import GroupGradients


def per_example_value_and_grad(
  loss_fn: Callable[..., Any],
  *,
  microbatch_size: int | None = None,
  num_groups: int | None = None,
  nan_safe: bool = False,
) -> Callable[..., tuple[jax.Array, Any]]:
  r"""Value and gradient of every example.

  .. math:: \ell_i(\theta), \quad g_i = \nabla_\theta\, \ell_i(\theta), \qquad i = 1 \dots B

  Every example is run as a batch of one, `microbatch_size` of them at a time, so that nothing but
  the result takes more memory than that many gradients. With `num_groups` the result is small too:
  each microbatch is `grouped_value_and_grad` and added to sums over groups, without a gradient of
  any single example unless `nan_safe`. Beside the batch that takes, in bytes, about

  .. math:: m\, a + 8 K P + 4 (2 K + 1)\, p

  where one example keeps a bytes for its backward pass (at most `m` are run at a time), P is the
  number of parameters and p that of the largest weight; 5 K in place of 2 K where an example uses
  it often.

  Args:
    loss_fn: `(params, batch) -> losses [b]`, one for each example, for any b.
    microbatch_size: examples at a time. None: all. What is left over of a batch is a last, smaller
      microbatch. `largest_microbatch_size` finds what fits.
    num_groups: K; None returns the gradients themselves.
    nan_safe: an example whose loss or gradient is not finite has gradient 0, and belongs to no
      group.

  Returns:
    A function `(params, batch, mask=None) -> (losses [B], gradients [B, *p])`; with `num_groups`
    `(params, batch, labels, mask=None) -> (losses [B], GroupGradients)`, in which a label outside
    `[0, K)` belongs to no group. `mask` is bool `[B]`, False for padding: its losses and gradients
    are 0, and it belongs to no group.

  Raises:
    ValueError: if an option is out of its range; and the function, when it is traced, if `loss_fn`
      does not return one loss per example, or shapes do not fit.

  Example:
    >>> import jax.numpy as jnp
    >>> import gq_optax as gq
    >>> loss_fn = lambda w, x: 0.5 * (x @ w) ** 2
    >>> value_and_grad = gq.per_example_value_and_grad(loss_fn, microbatch_size=2)
    >>> losses, gradients = value_and_grad(jnp.ones(2), jnp.array([[1., 0.], [0., 1.], [0., 3.]]))
    >>> print(gradients.tolist())
    [[1.0, 0.0], [0.0, 1.0], [0.0, 9.0]]
  """
  _validate.function("loss_fn", loss_fn)
  _validate.flag("nan_safe", nan_safe)
  if microbatch_size is not None:
    microbatch_size = _validate.static_int("microbatch_size", microbatch_size, 1)
  if num_groups is not None:
    num_groups = _validate.static_int("num_groups", num_groups, 1)
  number = num_groups or 1

  one = functools.partial(_one, loss_fn, nan_safe)
  each = jax.vmap(one, (None, 0))

  def gradients(params, batch, mask=None):
    params, batch = checks.arrays(params, batch)
    checks.check(loss_fn, params, batch, has_aux=False)
    size = checks.batch_size(batch)
    masked = None if mask is None else _inputs.mask("mask", mask, size)
    if microbatch_size is None or microbatch_size >= size:
      losses, result, _ = each(params, batch)
    else:
      losses, result, _ = jax.lax.map(lambda x: one(params, x), batch, batch_size=microbatch_size)
    return _masked(masked, (losses, result))

  def groups(params, batch, labels, mask=None):
    params, batch = checks.arrays(params, batch)
    size = checks.batch_size(batch)
    dtype, _ = checks.check(loss_fn, params, batch, has_aux=False)
    labels = checks.labels(labels, size, number)
    if mask is not None:
      mask = _inputs.mask("mask", mask, size)
      labels = jnp.where(mask, labels, number)
    params, batch, labels = _axes.alike((params, batch, labels))
    step = min(microbatch_size or size, size)

    def add(sums, part):
      rows, label = part
      if nan_safe:
        losses, part = _finite_sums(each(params, rows), label, number)
      else:
        known = lambda _: (label, ())
        losses, _, part, _ = grouped.by_group(loss_fn, params, rows, False, known, number, False)
      return jax.tree.map(jnp.add, sums, part), losses

    zeros = lambda p: jnp.zeros((number, *p.shape), _dtypes.at_least_float32(p.dtype))
    sums = GroupGradients(
      jax.tree.map(zeros, params), jnp.zeros(number, jnp.int32), jnp.zeros(number, dtype)
    )
    whole = size - size % step
    head, tail = (
      jax.tree.map(lambda x, s=s: x[s], (batch, labels)) for s in (slice(whole), slice(whole, None))
    )
    parts = jax.tree.map(lambda x: x.reshape(-1, step, *x.shape[1:]), head)
    sums, losses = jax.lax.scan(add, _axes.alike(sums, params, batch, labels), parts)
    losses = losses.reshape(-1)
    if whole < size:
      sums, last = add(sums, tail)
      losses = jnp.concatenate([losses, last])
    losses = _masked(mask, losses)
    share = 1.0 / jnp.maximum(sums.counts, 1).astype(dtype)

    def mean(s, p):
      return (s * share.astype(s.dtype).reshape(-1, *(1,) * p.ndim)).astype(p.dtype)

    means = jax.tree.map(mean, sums.grads, params)
    return losses, GroupGradients(means, sums.counts, jnp.asarray(sums.losses) * share)

  return gradients if num_groups is None else groups


def largest_microbatch_size(
  loss_fn: Callable[..., Any], params: optax.Params, batch: Any, max_bytes: int
) -> int:
  """The largest power of two of examples whose gradients fit into a given memory.

  Compiles `per_example_value_and_grad` for the largest power of two within the batch, half of it,
  and so on, and reads what XLA plans. Nothing is run: shapes will do.

  Args:
    loss_fn: `(params, batch) -> losses [b]`.
    params: pytree of arrays or `jax.ShapeDtypeStruct`s.
    batch: pytree of `[B, ...]` arrays or `jax.ShapeDtypeStruct`s.
    max_bytes: what one microbatch may take: its gradients and all temporary memory.

  Returns:
    A microbatch size from 1 to B.

  Raises:
    ValueError: if even one example does not fit.
    NotImplementedError: if the backend does not tell what memory a program takes.

  Example:
    >>> import jax.numpy as jnp
    >>> import gq_optax as gq
    >>> loss_fn = lambda w, x: 0.5 * (x @ w) ** 2
    >>> gq.largest_microbatch_size(loss_fn, jnp.ones(1000), jnp.ones((64, 1000)), max_bytes=10**5)
    16
  """
  _validate.function("loss_fn", loss_fn)
  max_bytes = _validate.static_int("max_bytes", max_bytes, 0)
  params, batch = _inputs.parameters("params", params), _inputs.batch("batch", batch)
  size = 2 ** (checks.batch_size(batch).bit_length() - 1)
  compute = jax.jit(per_example_value_and_grad(loss_fn))
  while True:
    rows = jax.tree.map(lambda x, n=size: jax.ShapeDtypeStruct((n, *x.shape[1:]), x.dtype), batch)
    memory = compute.lower(params, rows).compile().memory_analysis()
    if memory is None:
      raise NotImplementedError(f"{jax.default_backend()} does not tell what memory it plans.")
    needed = memory.temp_size_in_bytes + memory.output_size_in_bytes
    if needed <= max_bytes:
      return size
    if size == 1:
      raise ValueError(
        f"max_bytes must hold the gradient of one example, {needed} bytes, but {max_bytes} was"
        " found."
      )
    size //= 2


def _masked(mask, tree):
  """Zeros in the rows that are masked, whatever stands there."""
  if mask is None:
    return tree
  rows = lambda x: mask.reshape(-1, *(1,) * (x.ndim - 1))
  return jax.tree.map(lambda x: jnp.where(rows(x), x, jnp.zeros_like(x)), tree)


def _one(loss_fn, nan_safe, params, example):
  """Loss and gradient of one example, and whether it is kept."""

  def loss(params):
    losses = loss_fn(params, jax.tree.map(lambda x: x[None], example))
    return checks.of_one(losses)

  value, gradient = jax.value_and_grad(loss)(params)
  keep = jnp.asarray(True)
  if nan_safe:
    finite = [jnp.all(jnp.isfinite(x)) for x in (value, *jax.tree.leaves(gradient))]
    keep = jnp.all(jnp.stack(finite))
    gradient = jax.tree.map(lambda g: jnp.where(keep, g, jnp.zeros_like(g)), gradient)
  return value, gradient, keep


def _finite_sums(found, labels, num_groups):
  """Losses, and the sums over each group of the examples whose loss and gradient are finite."""
  losses, gradient, keep = found
  member = jnp.logical_and(keep[None], blocks.members(labels, num_groups))
  return losses, GroupGradients(
    jax.tree.map(lambda g: _sum_by(member, g), gradient),
    jnp.sum(member, axis=1, dtype=jnp.int32),
    jnp.sum(jnp.where(member, losses, 0.0), axis=1),
  )


def _sum_by(member, g):
  """Sums `[b, *p]` over the members `[K, b]` of each group."""
  return jax.lax.dot_general(
    member.astype(g.dtype),
    g,
    (((1,), (0,)), ((), ())),
    precision=jax.lax.Precision.HIGHEST,
    preferred_element_type=_dtypes.at_least_float32(g.dtype),
  )
