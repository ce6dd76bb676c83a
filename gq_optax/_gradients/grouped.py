# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The mean gradient of each group of a batch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gq_optax import _axes, _dtypes, _validate
from gq_optax._gradients import blocks, checks, linear
from gq_optax._group_gradients import GroupGradients


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
  A CPU takes blocks of examples in turn, each of one group, where examples keep much for the way
  back, as images and sequences do.

  ====================================  =========================================================
  case                                  what happens
  ====================================  =========================================================
  label outside `[0, K)`                the example belongs to no group and weighs nothing
  empty group                           gradient, count and loss 0
  NaN or Inf in an example              stays in its group
  bfloat16, float16                     summed in float32, returned in the parameter's dtype
  ====================================  =========================================================

  A custom backward rule of an activation is run for every example alone, and is exact. A rule of a
  parameter alone, such as the rounding of a weight, sees the sum over a group: exact where the rule
  is linear, as a straight-through estimator is. `per_example_value_and_grad(microbatch_size=)` runs
  it for every example.

  Memory: beside the result, that of a plain gradient, and for one weight at a time the gradients of
  at most 2K blocks of examples; 5K where an example uses the weight often (sequences, images). If
  that does not fit, `per_example_value_and_grad` does the same for some examples at a time. Blocks
  in turn take what B / 4K examples keep, and one more gradient.

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
    params, batch = checks.arrays(params, batch)
    checks.check(loss_fn, params, batch, has_aux)
    labels = checks.labels(labels, checks.batch_size(batch), num_groups)
    params, batch = _axes.alike((params, batch), labels)
    known = lambda _: (labels, ())
    _, aux, groups, _ = by_group(loss_fn, params, batch, has_aux, known, num_groups)
    spread = lambda a: (labels < num_groups).reshape(-1, *(1,) * (a.ndim - 1))
    aux = jax.tree.map(lambda a: jnp.where(spread(a), a, jnp.zeros_like(a)), aux)
    value = mean_loss(groups.losses, groups.counts)
    return ((value, aux) if has_aux else value), groups

  return value_and_grad


def mean_loss(losses: Any, counts: jax.Array) -> jax.Array:
  """The mean loss over the examples of all groups, 0 if there are none."""
  counts = counts.astype(losses.dtype)
  return jnp.sum(losses * counts) / jnp.maximum(jnp.sum(counts), 1.0)


def by_group(
  loss_fn: Callable[..., Any],
  params: optax.Params,
  batch: Any,
  has_aux: bool,
  choose: Callable[[Callable[[], Any]], tuple[jax.Array, Any]],
  num_groups: int,
  mean: bool = True,
) -> tuple[jax.Array, Any, GroupGradients, Any]:
  """Losses `[B]`, aux, the gradients of groups, and what else `choose` found.

  `choose` gets a function that returns aux, and returns the labels `[B]`, K for no group, and more.
  Without `mean` the gradients and losses are sums over examples, in float32 or wider.
  """
  program = linear.trace(loss_fn, params, batch, has_aux)
  block_size = max(1, -(-checks.batch_size(batch) // (4 * num_groups)))

  def run(way):
    def found(params, batch):
      parts = way(program, params, batch, choose, num_groups, block_size)
      return _axes.alike(parts, params, batch)

    return found

  if _keep_much(program, params, block_size):
    ways = {"cpu": run(_in_turn), "default": run(_at_once)}
    found = jax.lax.platform_dependent(params, batch, **ways)
  else:
    found = run(_at_once)(params, batch)
  losses, aux, labels, more, sums = found
  member = blocks.members(labels, num_groups)
  counts = jnp.sum(member, axis=1, dtype=jnp.int32)
  # Only here, in float32: a scale in front of the way back would change what a backward rule that
  # is not linear does, such as one that clips, and would be lost in float16.
  share = 1.0 / jnp.maximum(counts if mean else jnp.ones_like(counts), 1).astype(losses.dtype)
  sum_losses = jnp.sum(jnp.where(member, losses[None] * share[:, None], 0.0), axis=1)
  if mean:
    sums = [mean_of(s, share, p) for s, p in zip(sums, jax.tree.leaves(params), strict=True)]
  grads = jax.tree.unflatten(jax.tree.structure(params), sums)
  return losses, aux, GroupGradients(grads, counts, sum_losses), more


def mean_of(sums: jax.Array, share: jax.Array, parameter: jax.Array) -> jax.Array:
  """Sums `[K, *p]` by the shares `[K]` of one example in its group, in the parameter's dtype."""
  share = share.astype(sums.dtype).reshape(-1, *(1,) * parameter.ndim)
  return (sums * share).astype(parameter.dtype)


def _keep_much(program, params, block_size):
  """Do the examples of a block keep more than one gradient takes?

  A CPU then runs them block by block: what is kept stays in its caches, and a gradient is added for
  each block. Otherwise that would cost more than to gather what all examples keep. Devices that
  exchange statistics run together as well: one with more blocks would wait for the others for ever.
  """
  gradient = sum(
    p.size * _dtypes.at_least_float32(p.dtype).itemsize for p in jax.tree.leaves(params)
  )
  return block_size * program.kept_bytes > gradient and not program.collectives


def _at_once(program, params, batch, choose, num_groups, block_size):
  """All examples run together, and what they kept is gathered by groups."""
  losses, aux, backward = linear.forward(program, params, batch)
  labels, more = choose(lambda: aux)
  found: dict[int, Any] = {}
  for part in backward():
    of_part = blocks.sums(part, labels, num_groups, block_size)
    for n, s in zip(part.leaves, of_part, strict=True):
      found[n] = found[n] + s if n in found else s
  zeros = _zeros(params, num_groups)
  return losses, aux, labels, more, [found.get(n, zero) for n, zero in enumerate(zeros)]


def _in_turn(program, params, batch, choose, num_groups, block_size):
  """One block of examples of a group after another, forward and back."""
  labels, more = choose(lambda: linear.aux(program, params, batch, block_size))
  # Examples of no group are the group K here, run for their losses and aux; K + 1 is empty.
  parts = blocks.cut(labels, num_groups + 1, block_size)
  every = jax.tree.map(lambda *x: jnp.concatenate(x), *parts)
  shared = lambda tree: _axes.alike(tree, params, batch, labels)
  nothing = [jnp.zeros_like(p, _dtypes.at_least_float32(p.dtype)) for p in jax.tree.leaves(params)]

  def one(block):
    rows = jax.tree.map(blocks.take(block.rows), batch)
    losses, aux, backward = linear.forward(program, params, rows)
    grads = list(nothing)
    counted = block.owner < num_groups
    for part in backward():
      cotangents = [blocks.masked(x, block.valid) for x in part.cotangents]
      for n, s in zip(part.leaves, part.contract(part.kept, cotangents), strict=True):
        grads[n] = grads[n] + s.astype(grads[n].dtype)
    grads = [jnp.where(counted, g, zero) for g, zero in zip(grads, nothing, strict=True)]
    return shared((grads, (losses, aux)))

  def add(carry, block):
    sums, results = carry
    skip = lambda block: shared((nothing, jax.tree.map(blocks.take(block.rows), results)))
    grads, found = jax.lax.cond(block.owner <= num_groups, one, skip, block)
    to = jnp.minimum(block.owner, num_groups - 1)
    sums = [s.at[to].add(g) for s, g in zip(sums, grads, strict=True)]
    results = jax.tree.map(lambda old, new: old.at[block.rows].set(new), results, found)
    return (sums, results), None

  shapes = program.first.out_avals[: program.results.num_leaves]
  empty = [jnp.zeros((len(labels), *x.shape), x.dtype) for x in shapes]
  start = _zeros(params, num_groups), jax.tree.unflatten(program.results, empty)
  # A scan, not a loop that ends with the last block that is filled: it can be differentiated.
  (sums, (losses, aux)), _ = jax.lax.scan(add, shared(start), every)
  return losses, aux, labels, more, sums


def _zeros(params, num_groups):
  """`[K, *p]` for each leaf, cut over devices as the leaf is."""

  def zeros(p):
    one = lambda _: jnp.zeros_like(p, _dtypes.at_least_float32(p.dtype))
    return jax.vmap(one, None, axis_size=num_groups)(0)

  return list(map(zeros, jax.tree.leaves(params)))
