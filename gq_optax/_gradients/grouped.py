# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The mean gradient of each group of a batch, out of one forward pass of all its examples."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gq_optax import _dtypes, _validate
from gq_optax._gradients import checks, linear
from gq_optax._group_gradients import GroupGradients


def grouped_value_and_grad(
  loss_fn: Callable[..., Any], num_groups: int, *, has_aux: bool = False
) -> Callable[[optax.Params, Any, jax.Array], tuple[Any, GroupGradients]]:
  r"""Value of a mean loss, and its gradient group by group.

  .. math:: c_k = \frac{1}{n_k} \sum_{i:\, k(i) = k} \nabla_\theta\, \ell_i(\theta),
            \qquad k = 1 \dots K

  Every example is run once, forward and back to where weights come in, under `jax.vmap` as a batch
  of one. Only the products that sum a weight's gradient over examples are taken group by group.
  That is exact for groups of any sizes. A layer across examples (BatchNorm in training mode) sees
  one example. Random keys are data of the batch, one for each example.

  ====================================  =========================================================
  case                                  what happens
  ====================================  =========================================================
  label outside `[0, K)`                the example belongs to no group and weighs nothing
  empty group                           gradient, count and loss 0
  NaN or Inf in an example              stays in its group
  bfloat16, float16                     summed in float32, returned in the parameter's dtype
  ====================================  =========================================================

  Memory: beside the result, that of a plain gradient, and for one weight at a time the gradients of
  at most 2K blocks of examples; 5K where an example uses the weight often (sequences, images). If
  that does not fit, `per_example_value_and_grad` does the same for some examples at a time.

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
      does not return one loss per example, or shapes do not fit.

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
    _, aux, groups = by_group(loss_fn, params, batch, has_aux, lambda _: labels, num_groups)
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
  choose: Callable[[Any], jax.Array],
  num_groups: int,
  mean: bool = True,
) -> tuple[jax.Array, Any, GroupGradients]:
  """Losses `[B]`, aux, and the gradients of groups, the labels `[B]` of which may hang on aux.

  Without `mean` they are sums over examples, in float32 or wider, as are the groups' losses.
  """
  losses, aux, backward = linear.forward(loss_fn, params, batch, has_aux)
  labels = choose(aux)
  member = labels[None] == jnp.arange(num_groups, dtype=jnp.int32)[:, None]
  counts = jnp.sum(member, axis=1, dtype=jnp.int32)
  share = 1.0 / jnp.maximum(counts if mean else jnp.ones_like(counts), 1).astype(losses.dtype)
  # Shares in the loss make means of the gradients, which then need no pass of their own.
  weights = jnp.sum(jnp.where(member, share[:, None], 0.0), axis=0)
  leaves, structure = jax.tree.flatten(params)
  found: dict[int, Any] = {}
  for part in backward(weights):
    for n, s in zip(part.leaves, _sums(part, labels, counts), strict=True):
      found[n] = found[n] + s if n in found else s
  wide = lambda p: _dtypes.at_least_float32(p.dtype)
  zeros = lambda p: jnp.zeros((num_groups, *p.shape), wide(p))
  sums = [found[n] if n in found else zeros(p) for n, p in enumerate(leaves)]
  if mean:
    sums = [s.astype(p.dtype) for s, p in zip(sums, leaves, strict=True)]
  group_losses = jnp.sum(jnp.where(member, losses * weights, 0.0), axis=1)
  return losses, aux, GroupGradients(jax.tree.unflatten(structure, sums), counts, group_losses)


def _sums(part, labels, counts):
  """The sums of a part over the examples of each group, `[K, *p]` in float32 or wider."""
  (index, valid, _), (more, more_valid, owner) = _blocks(labels, counts, part.often)

  def block(index, valid):
    some = valid[0]  # of an empty block all examples are made up
    spread = lambda x: valid.reshape(-1, *(1,) * (x.ndim - 1))
    # As flat rows: a GPU would otherwise transpose what it gathers, by strided reads.
    flat = lambda x: x.reshape(len(x), math.prod(x.shape[1:]))
    rows = lambda x: flat(x).at[index].get(mode="promise_in_bounds")
    take = lambda x: rows(x).reshape(len(index), *x.shape[1:])
    kept = lambda x: take(x) if part.whole else jnp.where(some, take(x), jnp.ones_like(x[:1]))
    only = lambda x: jnp.where(spread(x), take(x), jnp.zeros_like(x[:1]))
    sums = part.contract(list(map(kept, part.kept)), list(map(only, part.cotangents)))
    if part.whole:
      sums = [jnp.where(some, s, jnp.zeros_like(s)) for s in sums]
    return [s.astype(_dtypes.at_least_float32(s.dtype)) for s in sums]

  def at_once(sums):
    others = jax.vmap(block)(more, more_valid)
    to = jnp.minimum(owner, len(counts) - 1)  # an empty block adds zeros
    return [s.at[to].add(m) for s, m in zip(sums, others, strict=True)]

  def in_turn(sums):
    def add(j, sums):
      others = block(more[j], more_valid[j])
      return [s.at[owner[j]].add(m) for s, m in zip(sums, others, strict=True)]

    return jax.lax.fori_loop(0, jnp.sum(owner < counts.shape[0]), add, sums)

  # On CPU memory is slow: only the blocks that are there, in place. Accelerators are slow to loop.
  return jax.lax.platform_dependent(jax.vmap(block)(index, valid), cpu=in_turn, default=at_once)


def _blocks(labels, counts, often):
  """The first block of each group, and blocks enough for what is left of groups of any sizes.

  Returns:
    For each of the two `(examples [blocks, size], which of them count, groups of the blocks)`; the
    group of an empty block is K.
  """
  num_groups, batch_size = counts.shape[0], labels.shape[0]
  # Small blocks waste little on groups that do not fill them. But each makes a whole gradient, and
  # where an example uses a weight only once, writing that is what costs.
  size = max(1, -(-batch_size // ((4 if often else 1) * num_groups)))
  other = size if often else 2 * size
  most = range(1, min(num_groups, batch_size // (size + 1)) + 1)  # groups that have a second block
  number = max((n + (batch_size - n * (size + 1)) // other for n in most), default=1)
  order = jnp.argsort(labels, stable=True).astype(jnp.int32)
  group = labels[order]
  before = lambda n: jnp.pad(jnp.cumsum(n, dtype=jnp.int32), (1, 0))[group]
  rank = jnp.arange(batch_size, dtype=jnp.int32) - before(counts)
  behind = before(jnp.maximum(counts - size + other - 1, 0) // other) * other + rank - size
  ends = num_groups * size, num_groups * size + number * other
  place = jnp.where(rank < size, group * size + rank, ends[0] + behind)
  place = jnp.where(group < num_groups, place, ends[1])
  slots = jnp.full(ends[1] + 1, batch_size, jnp.int32).at[place].set(order)[: ends[1]]

  def cut(slots):
    valid = slots < batch_size
    # A block that is not full repeats an example of its own group: no other's NaN gets in.
    index = jnp.minimum(jnp.where(valid, slots, slots[:, :1]), batch_size - 1)
    return index, valid, jnp.where(valid[:, 0], labels[index[:, 0]], num_groups)

  return cut(slots[: ends[0]].reshape(-1, size)), cut(slots[ends[0] :].reshape(-1, other))
