# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The mean gradient of each group of a batch, from blocks of examples of one group."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gq_optax import _dtypes, _inputs, _validate
from gq_optax._gradients import blocks as _blocks
from gq_optax._gradients import checks, reuse
from gq_optax._group_gradients import GroupGradients
from gq_optax._rarity.kmeans import KMeansResult, kmeans_padded


def grouped_value_and_grad(
  loss_fn: Callable[..., Any],
  num_groups: int,
  *,
  has_aux: bool = False,
  exact: bool = True,
  block_size: int | None = None,
  design: str | None = None,
) -> Callable[[optax.Params, Any, jax.Array], tuple[Any, GroupGradients]]:
  r"""Value of a mean loss, and its gradient group by group.

  .. math:: c_k = \frac{1}{n_k} \sum_{i:\, k(i) = k} \nabla_\theta\, \ell_i(\theta),
            \qquad k = 1 \dots K

  The batch is sorted by group and cut into blocks of one static size, each of one group; each block
  has its own backward pass. That is exact for groups of any sizes, and every example is run once:
  what it costs beyond a plain gradient is the room in blocks that are not full, and the K gradients
  that are written. An example is run beside others of its own block only: where its loss depends on
  the rest of the batch (BatchNorm in training mode) that is another loss. Random keys are data of
  the batch, one for each example.

  ====================================  =========================================================
  case                                  what happens
  ====================================  =========================================================
  label outside `[0, K)`                the example belongs to no group: it is not run (padding)
  empty group                           gradient, count and loss 0
  NaN or Inf in an example              stays in its group
  bfloat16, float16                     summed in float32, returned in the parameter's dtype
  ====================================  =========================================================

  Args:
    loss_fn: `(params, batch) -> losses [b]`, one for each example, for any b; or `(losses, aux)`,
      with `[b, ...]` leaves in `aux`.
    num_groups: K.
    has_aux: whether `loss_fn` returns `(losses, aux)`.
    exact: False takes one block for each group, and leaves out the examples that do not fit into
      it: cheaper where the groups are balanced. `counts` says how many there were room for.
    block_size: examples of a block. None: where weights work often for an example (convolutions,
      sequences) B / 4K, else B / K; if not exact, 1.25 B / K.
    design: "loop" runs one block after the other, in the memory of one; "unrolled" does so without
      a loop, since convolutions on CPU are slow in loops; "batched" runs the first block of every
      group at once, the others in a loop. None: batched where weights work only once or a few times
      for an example, so that writing K gradients is what costs; else unrolled for convolutions on
      CPU, else a loop.

  Returns:
    A function `(params, batch, labels) -> (mean_loss, GroupGradients)` of a pytree of `[B, ...]`
    leaves and int labels `[B]`; with `has_aux` `((mean_loss, aux), GroupGradients)`, `aux` in the
    order of the batch, 0 for examples that were not run. The mean is over the examples that were.

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
  num_groups = _validate.static_int("num_groups", num_groups, 1)
  _validate.flag("has_aux", has_aux)
  _validate.flag("exact", exact)
  if design is not None:
    _validate.one_of("design", design, ("loop", "unrolled", "batched"))
  if block_size is not None:
    block_size = _validate.static_int("block_size", block_size, 1)

  def value_and_grad(params, batch, labels):
    params, batch = checks.arrays(params, batch)
    batch_size = checks.batch_size(batch)
    _validate.shape("labels", labels, f"[B] with B = {batch_size}", (batch_size,))
    labels = _inputs.integer("labels", labels)
    dtype, aux_shape = checks.check(loss_fn, params, batch, has_aux)
    work = checks.work(loss_fn, params, batch)
    size = block_size or _blocks.default_size(work, batch_size, num_groups)
    if not exact:
      size = min(block_size or -(-5 * batch_size // (4 * num_groups)), batch_size)
    strategy = design or _blocks.default_design(work)
    blocks = _blocks.cut(labels, num_groups, size)
    if not exact:
      blocks = blocks._replace(
        counts=jnp.minimum(blocks.counts, size), last=jnp.arange(1, num_groups + 1, dtype=jnp.int32)
      )

    share = 1.0 / jnp.maximum(blocks.counts, 1).astype(dtype)
    times = [n for n in (4, 2, 1) if exact and (n == 1 or n * size <= batch_size - size)]
    kept = None
    if strategy == "batched":
      kept = reuse.forward(loss_fn, params, batch, has_aux, {size, *(n * size for n in times)})

    def gradient(owner, index, valid):
      # Shares in the loss make means of the gradients, which then need no pass of their own.
      weight = jnp.where(valid, share[jnp.minimum(owner, num_groups - 1)], 0.0)
      if kept is not None:
        losses = jnp.where(valid, kept.losses[index].astype(dtype) * weight, 0.0)
        cotangents = weight.astype(kept.losses.dtype)
        return (jnp.sum(losses), None), kept.backward(index, cotangents)
      rows = jax.tree.map(lambda x: x.at[index].get(mode="promise_in_bounds"), batch)
      return _block_gradient(loss_fn, params, rows, weight, has_aux)

    def put(aux, part, index, valid):
      if kept is not None:
        return aux
      place = jnp.where(valid, index, batch_size)
      return jax.tree.map(lambda a, p: a.at[place].set(p, mode="drop"), aux, part)

    def add(number, carry, blocks=blocks, size=size):
      sums, losses, aux = carry
      owner, index, valid = _blocks.block(blocks, number, size)
      (loss, part), grads = gradient(owner, index, valid)
      sums = jax.tree.map(lambda s, g: s.at[owner].add(g.astype(s.dtype), mode="drop"), sums, grads)
      return sums, losses.at[owner].add(loss, mode="drop"), put(aux, part, index, valid)

    wide = lambda p: _dtypes.at_least_float32(p.dtype)
    aux = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), aux_shape)
    if kept is not None:
      run = _blocks.members(blocks)
      aux = jax.tree.map(
        lambda a: jnp.where(run.reshape(-1, *(1,) * (a.ndim - 1)), a, jnp.zeros_like(a)), kept.aux
      )
    if strategy == "batched":
      index, valid, rest = _blocks.firsts(blocks, size)
      (losses, part), grads = jax.vmap(gradient)(jnp.arange(num_groups), index, valid)
      sums = _without_empty(jax.tree.map(lambda g: g.astype(wide(g)), grads), blocks.counts)
      for k in range(num_groups if kept is None else 0):
        aux = put(aux, jax.tree.map(lambda p, k=k: p[k], part), index[k], valid[k])
      carry = (sums, losses, aux)
      # What is left belongs to large groups: in large blocks it takes fewer gradients.
      for n in times:
        these, rest = _blocks.portion(rest, n * size, full=n > 1)
        step = functools.partial(add, blocks=these, size=n * size)
        carry = jax.lax.fori_loop(0, these.last[-1], step, carry)
    else:
      zeros = lambda p: jnp.zeros((num_groups, *p.shape), wide(p))
      carry = (jax.tree.map(zeros, params), jnp.zeros(num_groups, dtype), aux)
      if strategy == "unrolled":
        number = _blocks.most_blocks(batch_size, num_groups, size) if exact else num_groups
        for j in range(number):
          carry = add(jnp.int32(j), carry)
      else:
        carry = jax.lax.fori_loop(0, blocks.last[-1], add, carry)
    sums, losses, aux = carry
    counts = blocks.counts
    groups = GroupGradients(
      jax.tree.map(lambda s, p: s.astype(p.dtype), sums, params), counts, losses
    )
    total = jnp.maximum(jnp.sum(counts), 1).astype(dtype)
    value = jnp.sum(losses * counts.astype(dtype)) / total
    return ((value, aux) if has_aux else value), groups

  return value_and_grad


def _block_gradient(loss_fn, params, rows, weight, has_aux):
  """The weighted loss of a block, its aux, and the gradient; what weighs 0 is left out."""

  def total(params):
    losses, aux = loss_fn(params, rows) if has_aux else (loss_fn(params, rows), None)
    return jnp.sum(jnp.where(weight > 0.0, losses.astype(weight.dtype) * weight, 0.0)), aux

  return jax.value_and_grad(total, has_aux=True)(params)


def _without_empty(sums, counts):
  """Zeros for the groups that are empty: the rows that stood in for their examples may be NaN."""
  empty_first = jnp.argsort(counts > 0, stable=True)
  clear = lambda i, sums: jax.tree.map(lambda s: s.at[empty_first[i]].set(0.0), sums)
  # A pass over those groups alone, not over all gradients.
  return jax.lax.fori_loop(0, jnp.sum(counts == 0), clear, sums)


def clustered_value_and_grad(
  loss_fn: Callable[..., Any],
  num_groups: int,
  *,
  metric: str = "euclidean",
  num_iters: int = 5,
  exact: bool = True,
  block_size: int | None = None,
  design: str | None = None,
) -> Callable[..., tuple[tuple[jax.Array, KMeansResult], GroupGradients]]:
  r"""The whole way from a batch to the mean gradients of its clusters.

  A forward pass yields the embeddings of the examples, K-means groups them, and
  `grouped_value_and_grad` takes the gradient of each group. The forward pass is run once more than
  for groups that are known beforehand; docs/group-gradients.md has what that costs.

  Args:
    loss_fn: `(params, batch) -> (losses [b], embeddings [b, d])` for any b. The paper takes the
      features of a dense layer in the middle. No gradient flows through the embeddings.
    num_groups: K.
    metric: "euclidean" or "cosine", see `kmeans`.
    num_iters: Lloyd iterations of K-means, see `kmeans`.
    exact: see `grouped_value_and_grad`, as all that follow.
    block_size: see `grouped_value_and_grad`.
    design: see `grouped_value_and_grad`.

  Returns:
    A function `(params, batch, key=None, mask=None) -> ((mean_loss, clusters), GroupGradients)`:
    `key` for k-means++, `mask` bool `[B]`, False for padding; `clusters` is the `KMeansResult`.

  Raises:
    ValueError: as `grouped_value_and_grad` and `kmeans`.

  Example:
    >>> import jax.numpy as jnp
    >>> import gq_optax as gq
    >>> loss_fn = lambda w, x: (0.5 * (x @ w) ** 2, x)
    >>> step = gq.clustered_value_and_grad(loss_fn, num_groups=2)
    >>> x = jnp.array([[1., 0.], [0., 9.], [0., 8.]])
    >>> (loss, clusters), groups = step(jnp.ones(2), x)
    >>> print(sorted(groups.counts.tolist()))
    [1, 2]

  Reference: Al Hasib, Grad Queue (arXiv 2404.16917), Algorithm 1.
  """
  _validate.function("loss_fn", loss_fn)
  _validate.one_of("metric", metric, ("euclidean", "cosine"))
  num_iters = _validate.static_int("num_iters", num_iters, 0)
  losses_alone = lambda params, batch: loss_fn(params, batch)[0]
  grouped = grouped_value_and_grad(
    losses_alone, num_groups, exact=exact, block_size=block_size, design=design
  )

  def value_and_grad(params, batch, key=None, mask=None):
    params, batch = checks.arrays(params, batch)
    batch_size = checks.batch_size(batch)
    checks.check(loss_fn, params, batch, has_aux=True)
    _, embeddings = loss_fn(jax.lax.stop_gradient(params), batch)
    _validate.shape("embeddings", embeddings, f"[B, d] with B = {batch_size}", (batch_size, None))
    weight = None
    if mask is not None:
      mask = _inputs.mask("mask", mask, batch_size)
      weight = mask.astype(jnp.float32)
    clusters = kmeans_padded(
      embeddings, num_groups, key=key, metric=metric, num_iters=num_iters, sample_weight=weight
    )
    labels = clusters.labels if mask is None else jnp.where(mask, clusters.labels, num_groups)
    loss, groups = grouped(params, batch, labels)
    return (loss, clusters), groups

  return value_and_grad
