# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The mean gradient of each group of a batch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gq_optax import _axes, _dtypes, _masks, _validate
from gq_optax._group_gradients import blocks, checks, jaxprs, linear
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

  A custom backward rule of an activation is run for every example alone, and is exact: what makes
  means of sums comes behind it. A rule of a parameter alone, such as the rounding of a weight, sees
  examples of a group added up: exact where the rule is linear, as a straight-through estimator is.
  `per_example_value_and_grad(microbatch_size=)` runs it for every example.

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
    params, batch, size = checks.inputs(loss_fn, params, batch, "aux" if has_aux else "")
    labels = checks.labels(labels, size, num_groups)
    params, batch = _axes.alike((params, batch), labels)
    known = lambda _: (labels, blocks.sizes(labels, num_groups), ())
    losses, aux, *_, means = group_means(loss_fn, params, batch, has_aux, known, num_groups)
    aux = jax.tree.map(lambda a: _masks.masked(a, labels < num_groups), aux)
    value, groups = with_losses(params, means, losses, labels, num_groups)
    return ((value, aux) if has_aux else value), groups

  return value_and_grad


def group_means(
  loss_fn: Callable[..., Any], params: Any, batch: Any, has_aux: bool, choose: Any, num_groups: int
) -> tuple[jax.Array, Any, jax.Array, Any, optax.Updates]:
  """The mean gradient of each group, `[K, *p]` in float32 or wider, and what led to it.

  Args:
    loss_fn: `(params, batch) -> losses [B]`, or `(losses, aux)`.
    params: pytree of arrays.
    batch: pytree of `[B, ...]` arrays.
    has_aux: whether there is aux.
    choose: gets a function that returns aux, and returns the labels `[B]`, K for an example of no
      group; the sizes `[K]` that the sums are divided by, those of the whole batch where this is a
      microbatch; and anything else.
    num_groups: K.

  Returns:
    Losses `[B]`, aux, labels, what else `choose` returned, and the means.
  """
  program = linear.trace(loss_fn, params, batch, has_aux)
  block_size = -(-len(jax.tree.leaves(batch)[0]) // (4 * num_groups))

  def way(go):
    results = lambda: go(program, params, batch, choose, num_groups, block_size)
    return lambda: _axes.alike(results(), params, batch)

  if _keep_much(program, params, block_size):
    *results, means = jax.lax.platform_dependent(cpu=way(_in_turn), default=way(_at_once))
  else:
    *results, means = way(_at_once)()
  return *results, jax.tree.unflatten(jax.tree.structure(params), means)


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


def _keep_much(program, params, block_size):
  """Do the examples of a block keep more than one gradient takes?

  A CPU then runs them block by block: what is kept stays in its caches, and a gradient is added for
  each block. Otherwise that would cost more than to gather what all examples keep. Devices that
  exchange statistics run together as well: one with more blocks would wait for the others for ever.
  """
  kept = zip(program.linear.constvars, program.kept_axes, strict=True)
  kept = sum(v.aval.size * v.aval.dtype.itemsize for v, axis in kept if axis == 0)
  wide = [(p.size, _dtypes.at_least_float32(p.dtype)) for p in jax.tree.leaves(params)]
  gradient = sum(size * dtype.itemsize for size, dtype in wide)
  return block_size * kept > gradient and not jaxprs.collectives(program.jaxpr.jaxpr)


def _at_once(program, params, batch, choose, num_groups, block_size):
  """All examples run together, and what they kept is gathered by groups."""
  losses, aux, parts = linear.run(program, params, batch)
  labels, counts, more = choose(lambda: aux)
  by_group = lambda part: blocks.means(part, labels, counts, block_size)
  return losses, aux, labels, more, linear.added(zeros(params, num_groups), parts, by_group)


def _in_turn(program, params, batch, choose, num_groups, block_size):
  """One block of examples of a group after another, forward and back."""
  aux_of = lambda example: program.forward(params, example)[0][1]
  labels, counts, more = choose(lambda: jax.lax.map(aux_of, batch, batch_size=block_size))
  counts = jnp.pad(counts, (0, 2))
  # Examples of no group are the group K here, run for their losses and aux; K + 1 is empty.
  first_and_others = blocks.cut(labels, num_groups + 1, block_size)
  every = jax.tree.map(lambda *x: jnp.concatenate(x), *first_and_others)
  alike = lambda tree: _axes.alike(tree, params, batch, labels)
  shapes = program.jaxpr.out_avals[: program.results.num_leaves]
  results = [jnp.zeros((block_size, *x.shape), x.dtype) for x in shapes]
  nothing = jax.tree.map(lambda s: s[0], zeros(params, 1))
  scale_first = linear.may_scale_first(program)

  def one(block):
    examples = jax.tree.map(blocks.take(block.examples), batch)
    scaled = lambda x: blocks.scaled(x, block, counts)
    scales = jnp.ones(block_size, shapes[0].dtype)
    scales = scaled(scales) if scale_first else scales
    losses, aux, parts = linear.run(program, params, examples, scales)
    of = lambda part: part.cotangents if scale_first else list(map(scaled, part.cotangents))
    gradient = linear.added(nothing, parts, lambda part: part.contract(part.kept, of(part)))
    return alike((gradient, jax.tree.leaves((losses, aux))))

  def add(sums, block):
    skip = lambda _: alike((jax.tree.leaves(nothing), results))
    gradient, found = jax.lax.cond(block.group <= num_groups, one, skip, block)
    return [s.at[block.group].add(g) for s, g in zip(sums, gradient, strict=True)], found

  # A scan, not a loop that ends with the last block that is filled: it can be differentiated.
  sums, found = jax.lax.scan(add, alike(jax.tree.leaves(zeros(params, num_groups))), every)
  place = jnp.where(every.valid, every.examples, len(labels))
  in_order = lambda x: jnp.zeros((len(labels), *x.shape[2:]), x.dtype).at[place].set(x, mode="drop")
  losses, aux = jax.tree.unflatten(program.results, map(in_order, found))
  return losses, aux, labels, more, sums
