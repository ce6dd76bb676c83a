# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The mean gradient of each group of a batch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gq_optax import _axes, _dtypes, _masks, _validate
from gq_optax._group_gradients import blocks, checks, linear
from gq_optax._group_gradients.group_gradients import GroupGradients


def grouped_value_and_grad(
  loss_fn: Callable[..., Any], num_groups: int, *, has_aux: bool = False
) -> Callable[[optax.Params, Any, jax.Array], tuple[Any, GroupGradients]]:
  r"""Value of a mean loss, and its gradient group by group.

  .. math:: c_k = \frac{1}{n_k} \sum_{i:\, k(i) = k} \nabla_\theta\, \ell_i(\theta),
            \qquad k = 1 \dots K

  Every example is run forward and back under `jax.vmap`, as a batch of one. A layer across examples
  (BatchNorm in training mode) sees one example. Random keys are data of the batch, one for each
  example. `loss_fn` may not exchange between devices what hangs on the parameters: each device has
  groups of its own.

  All examples are run once, together, back to where weights come in. Only the products that sum a
  weight's gradient over examples are taken group by group. That is exact for groups of any sizes.

  ====================================  =========================================================
  case                                  what happens
  ====================================  =========================================================
  label outside `[0, K)`                the example belongs to no group and weighs nothing
  empty group                           gradient, count and loss 0
  NaN or Inf in an example              stays in its group
  bfloat16, float16                     summed in float32, returned in the parameter's dtype
  ====================================  =========================================================

  A custom backward rule of an activation is run for every example alone, and is exact: what makes
  means of sums comes behind it. A rule of a parameter alone, such as the rounding of a weight, sees
  examples of a group added up: exact where the rule is linear, as a straight-through estimator is.
  `per_example_value_and_grad(microbatch_size=)` runs it for every example.

  Memory: beside the result, that of a plain gradient, and for one weight at a time the gradients of
  at most 2K blocks of examples; 5K where an example uses the weight often (sequences, images). If
  that does not fit, `per_example_value_and_grad(num_groups=, microbatch_size=)` does the same for
  some examples at a time. For images and sequences that is also faster on a CPU.

  Args:
    loss_fn: `(params, batch) -> losses [b]`, one for each example, for any b; or `(losses, aux)`,
      with `[b, ...]` leaves in `aux`.
    num_groups: K.
    has_aux: whether `loss_fn` returns `(losses, aux)`.

  Returns:
    A function `(params, batch, labels) -> (mean_loss, GroupGradients)` of a pytree of `[B, ...]`
    leaves and int labels `[B]`; with `has_aux` `((mean_loss, aux), GroupGradients)`, `aux` in the
    order of the batch, 0 for examples of no group. The mean is over the examples of groups.

  Raises:
    ValueError: if an option is out of its range; and the function, when it is traced, if `loss_fn`
      does not return one loss per example, or exchanges between devices what hangs on the
      parameters, or shapes do not fit.

  Example:
    >>> import jax.numpy as jnp
    >>> import gq_optax as gq
    >>> loss_fn = lambda w, x: 0.5 * (x @ w) ** 2
    >>> value_and_grad = gq.grouped_value_and_grad(loss_fn, num_groups=2)
    >>> x = jnp.array([[1., 0.], [0., 1.], [0., 3.]])
    >>> loss, groups = value_and_grad(jnp.ones(2), x, jnp.array([0, 1, 1]))
    >>> print(groups.grads.tolist(), groups.counts.tolist())
    [[1.0, 0.0], [0.0, 5.0]] [1, 2]

  Reference: Al Hasib, Grad Queue (arXiv 2404.16917), Algorithm 1, the gradients of the clusters.
  """
  _validate.function("loss_fn", loss_fn)
  _validate.flag("has_aux", has_aux)
  num_groups = _validate.static_int("num_groups", num_groups, 1)

  def value_and_grad(params, batch, labels):
    params, batch, size = checks.inputs(loss_fn, params, batch, "aux" if has_aux else "")
    labels = checks.labels(labels, size, num_groups)
    params, batch = _axes.alike((params, batch), labels)
    losses, aux, parts = linear.run(loss_fn, params, batch, has_aux)
    aux = jax.tree.map(lambda a: _masks.masked(a, labels < num_groups), aux)
    value, groups = by_group(params, losses, parts, labels, num_groups)
    return ((value, aux) if has_aux else value), groups

  return value_and_grad


def by_group(
  params: optax.Params,
  losses: jax.Array,
  parts: list[linear.Part],
  labels: jax.Array,
  num_groups: int,
) -> tuple[jax.Array, GroupGradients]:
  """The mean loss and the gradients of groups, of what examples keep when they are run."""
  counts = blocks.sizes(labels, num_groups)
  means = blocks.add_means(zeros(params, num_groups), parts, labels, counts)
  return with_losses(params, means, losses, labels, num_groups)


def with_losses(
  params: optax.Params, means: optax.Updates, losses: jax.Array, labels: jax.Array, num_groups: int
) -> tuple[jax.Array, GroupGradients]:
  """The mean loss over the examples of all groups, 0 if there are none, and `GroupGradients`."""
  member, counts = _masks.members(labels, num_groups), blocks.sizes(labels, num_groups)
  grads = jax.tree.map(lambda mean, p: mean.astype(p.dtype), means, params)
  numbers = counts.astype(losses.dtype)
  share = 1.0 / jnp.maximum(numbers, 1.0)[:, None]
  of_groups = jnp.sum(jnp.where(member, losses[None] * share, 0.0), axis=1)
  value = jnp.sum(of_groups * numbers) / jnp.maximum(jnp.sum(numbers), 1.0)
  return value, GroupGradients(grads, counts, of_groups)


def zeros(params: optax.Params, num_groups: int) -> optax.Updates:
  """What the gradients of K groups are added to, cut over devices as the parameters are."""
  zero = lambda p: jnp.zeros_like(p, _dtypes.at_least_float32(p.dtype))
  return jax.vmap(lambda _: jax.tree.map(zero, params))(jnp.arange(num_groups))
