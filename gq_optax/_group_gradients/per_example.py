# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Per-example gradients a few examples at a time, kept, or reduced to group means on the way."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gq_optax import _axes, _masks, _validate
from gq_optax._group_gradients import blocks, checks, grouped, linear


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
    microbatch_size: at most so many examples at a time. None: all. With `num_groups` microbatches
      are of one size; the last may run its last example again, which then counts for nothing.
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
  count = lambda name, value: None if value is None else _validate.static_int(name, value, 1)
  microbatch_size = count("microbatch_size", microbatch_size)
  number: Any = count("num_groups", num_groups)
  one = jax.value_and_grad(checks.of_one(loss_fn), has_aux=True)

  def gradients(params, batch, mask=None):
    params, batch, size = checks.inputs(loss_fn, params, batch)
    mask = None if mask is None else _validate.mask("mask", mask, size)
    with checks.batched():
      if microbatch_size is None:
        (losses, _), result = jax.vmap(one, (None, 0))(params, batch)
      else:
        _validate.static_shape("batch", (size,))
        each = lambda example: one(params, example)
        (losses, _), result = jax.lax.map(each, batch, batch_size=microbatch_size)
    if mask is None:
      return losses, result
    return jax.tree.map(lambda x: _masks.masked(x, mask), (losses, result))

  def groups(params, batch, labels, mask=None):
    params, batch, size = checks.inputs(loss_fn, params, batch)
    mask = _validate.mask("mask", mask, size)
    labels = jnp.where(mask, checks.labels(labels, size, number), number)
    params, batch, labels = _axes.alike((params, batch, labels))
    parts = -(-size // (microbatch_size or size))
    missing = -size % parts
    # The last example is repeated, as one of no group, to make the microbatches equal.
    known_labels = jnp.pad(labels, (0, missing), constant_values=number).reshape(parts, -1)
    repeated = jnp.minimum(jnp.arange(size + missing, dtype=jnp.int32), size - 1)
    equal = (lambda x: x) if missing == 0 else blocks.take(repeated)
    rows = jax.tree.map(lambda x: equal(x).reshape(parts, -1, *x.shape[1:]), batch)
    counts = blocks.sizes(labels, number)

    def add(means, part):
      rows, known_labels = part
      losses, _, parts = linear.run(loss_fn, params, rows)
      return blocks.add_means(means, parts, known_labels, counts), losses

    zeros = _axes.alike(grouped.zeros(params, number), params, batch, labels)
    means, losses = jax.lax.scan(add, zeros, (rows, known_labels))
    losses = losses.reshape(-1)[:size]
    _, groups_of_batch = grouped.with_losses(params, means, losses, labels, number)
    return _masks.masked(losses, mask), groups_of_batch

  return gradients if num_groups is None else groups
