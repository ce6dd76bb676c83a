# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Per-example gradients a few examples at a time, kept, or reduced to group means on the way."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gq_optax import _axes, _dtypes, _inputs, _validate
from gq_optax._gradients import checks, grouped
from gq_optax._group_gradients import GroupGradients


def per_example_value_and_grad(
  loss_fn: Callable[..., Any],
  *,
  microbatch_size: int | None = None,
  num_groups: int | None = None,
) -> Callable[..., tuple[jax.Array, Any]]:
  r"""Value and gradient of every example.

  .. math:: \ell_i(\theta), \quad g_i = \nabla_\theta\, \ell_i(\theta), \qquad i = 1 \dots B

  Every example is run as a batch of one, `microbatch_size` of them at a time, so that nothing but
  the result takes more memory than that many gradients. With `num_groups` the result is small too:
  each microbatch is `grouped_value_and_grad` and added to sums over groups, without a gradient of
  any single example. Beside the batch that takes, in bytes, about

  .. math:: m\, a + 8 K P + 4 (2 K + 1)\, p

  where one example keeps a bytes for its backward pass (at most `m` are run at a time), P is the
  number of parameters and p that of the largest weight; 5 K in place of 2 K where an example uses
  it often.

  Args:
    loss_fn: `(params, batch) -> losses [b]`, one for each example, for any b.
    microbatch_size: examples at a time. None: all. What is left over of a batch is a last, smaller
      microbatch.
    num_groups: K; None returns the gradients themselves.

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
  if microbatch_size is not None:
    microbatch_size = _validate.static_int("microbatch_size", microbatch_size, 1)
  if num_groups is not None:
    num_groups = _validate.static_int("num_groups", num_groups, 1)
  number = num_groups or 1

  one = functools.partial(_one, loss_fn)

  def gradients(params, batch, mask=None):
    params, batch = checks.arrays(params, batch)
    checks.check(loss_fn, params, batch, has_aux=False)
    size = checks.batch_size(batch)
    masked = None if mask is None else _inputs.mask("mask", mask, size)
    if microbatch_size is not None:
      _inputs.static("batch", (size,))
    with checks.batched():
      if microbatch_size is None or microbatch_size >= size:
        losses, result = jax.vmap(one, (None, 0))(params, batch)
      else:
        losses, result = jax.lax.map(lambda x: one(params, x), batch, batch_size=microbatch_size)
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
    means = jax.tree.map(lambda s, p: grouped.mean_of(s, share, p), sums.grads, params)
    return losses, GroupGradients(means, sums.counts, jnp.asarray(sums.losses) * share)

  return gradients if num_groups is None else groups


def _masked(mask, tree):
  """Zeros in the rows that are masked, whatever stands there."""
  if mask is None:
    return tree
  rows = lambda x: mask.reshape(-1, *(1,) * (x.ndim - 1))
  return jax.tree.map(lambda x: jnp.where(rows(x), x, jnp.zeros_like(x)), tree)


def _one(loss_fn, params, example):
  """Loss and gradient of one example."""

  def loss(params):
    losses = loss_fn(params, jax.tree.map(lambda x: x[None], example))
    return checks.of_one(losses)

  return jax.value_and_grad(loss)(params)
