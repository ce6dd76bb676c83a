# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The mean gradient of each group of a batch, at about the price of one gradient."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gq_optax import _blocks, _dtypes, _kmeans, _losses, _validate
from gq_optax._gradients import GroupGradients


def grouped_value_and_grad(
  loss_fn: Callable[..., Any],
  num_groups: int,
  *,
  has_aux: bool = False,
  exact: bool = True,
  block_size: int | None = None,
  unroll: bool | None = None,
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
    unroll: run the blocks one by one in the program, or in a loop. None: unrolled for convolutions
      on CPU, where they are slow in loops; else a loop, which takes the memory of one block.

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
  num_groups = _validate.static_int("num_groups", num_groups, 1)
  if block_size is not None:
    block_size = _validate.static_int("block_size", block_size, 1)

  def value_and_grad(params, batch, labels):
    batch_size = _losses.batch_size(batch)
    _validate.shape("labels", labels, f"[B] with B = {batch_size}", (batch_size,))
    _validate.integer("labels", labels)
    aux_shape = _losses.check(loss_fn, params, batch, has_aux)
    work = _losses.work(loss_fn, params, batch)
    size = block_size or _blocks.default_size(work, batch_size, num_groups)
    if not exact:
      size = min(block_size or -(-5 * batch_size // (4 * num_groups)), batch_size)
    unrolled = unroll
    if unrolled is None:
      unrolled = work.convolves and jax.default_backend() == "cpu"
    blocks = _blocks.cut(labels, num_groups, size)
    if not exact:
      blocks = blocks._replace(
        counts=jnp.minimum(blocks.counts, size), last=jnp.arange(1, num_groups + 1, dtype=jnp.int32)
      )

    def add(number, carry):
      sums, losses, aux = carry
      owner, index, valid = _blocks.block(blocks, number, size)
      rows = jax.tree.map(lambda x: x.at[index].get(mode="promise_in_bounds"), batch)
      (loss, part), gradient = _block_gradient(loss_fn, params, rows, valid, has_aux)
      sums = jax.tree.map(
        lambda s, g: s.at[owner].add(g.astype(s.dtype), mode="drop"), sums, gradient
      )
      place = jnp.where(valid, index, batch_size)
      aux = jax.tree.map(lambda a, p: a.at[place].set(p, mode="drop"), aux, part)
      return sums, losses.at[owner].add(loss, mode="drop"), aux

    zeros = lambda p: jnp.zeros((num_groups, *p.shape), _dtypes.at_least_float32(p.dtype))
    carry = (
      jax.tree.map(zeros, params),
      jnp.zeros(num_groups, jnp.float32),
      jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), aux_shape),
    )
    if unrolled:
      number = _blocks.most_blocks(batch_size, num_groups, size) if exact else num_groups
      for j in range(number):
        carry = add(jnp.int32(j), carry)
    else:
      carry = jax.lax.fori_loop(0, blocks.last[-1], add, carry)
    sums, losses, aux = carry
    counts = blocks.counts
    share = 1.0 / jnp.maximum(counts, 1).astype(jnp.float32)

    def mean(s, p):
      return (s * share.astype(s.dtype).reshape(-1, *(1,) * p.ndim)).astype(p.dtype)

    total = jnp.maximum(jnp.sum(counts), 1).astype(jnp.float32)
    groups = GroupGradients(jax.tree.map(mean, sums, params), counts, losses * share)
    value = jnp.sum(losses) / total
    return ((value, aux) if has_aux else value), groups

  return value_and_grad


def _block_gradient(loss_fn, params, rows, valid, has_aux):
  """The summed loss of the examples that count, their aux, and the gradient."""

  def total(params):
    losses, aux = loss_fn(params, rows) if has_aux else (loss_fn(params, rows), None)
    return jnp.sum(jnp.where(valid, losses.astype(jnp.float32), 0.0)), aux

  return jax.value_and_grad(total, has_aux=True)(params)


def clustered_value_and_grad(
  loss_fn: Callable[..., Any],
  num_groups: int,
  *,
  metric: str = "euclidean",
  num_iters: int = 5,
  exact: bool = True,
  block_size: int | None = None,
  unroll: bool | None = None,
) -> Callable[..., tuple[tuple[jax.Array, _kmeans.KMeansResult], GroupGradients]]:
  r"""The whole way from a batch to the mean gradients of its clusters.

  A forward pass yields the embeddings of the examples, K-means groups them, and
  `grouped_value_and_grad` takes the gradient of each group: about a third of a step more than
  groups that are known beforehand.

  Args:
    loss_fn: `(params, batch) -> (losses [b], embeddings [b, d])` for any b. The paper takes the
      features of a dense layer in the middle. No gradient flows through the embeddings.
    num_groups: K.
    metric: "euclidean" or "cosine", see `kmeans`.
    num_iters: Lloyd iterations of K-means, see `kmeans`.
    exact: see `grouped_value_and_grad`, as all that follow.
    block_size: see `grouped_value_and_grad`.
    unroll: see `grouped_value_and_grad`.

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
  losses_alone = lambda params, batch: loss_fn(params, batch)[0]
  grouped = grouped_value_and_grad(
    losses_alone, num_groups, exact=exact, block_size=block_size, unroll=unroll
  )

  def value_and_grad(params, batch, key=None, mask=None):
    batch_size = _losses.batch_size(batch)
    _losses.check(loss_fn, params, batch, has_aux=True)
    _, embeddings = loss_fn(jax.lax.stop_gradient(params), batch)
    _validate.shape("embeddings", embeddings, f"[B, d] with B = {batch_size}", (batch_size, None))
    weight = None if mask is None else mask.astype(jnp.float32)
    clusters = _kmeans.kmeans(
      embeddings, num_groups, key=key, metric=metric, num_iters=num_iters, sample_weight=weight
    )
    labels = clusters.labels if mask is None else jnp.where(mask, clusters.labels, num_groups)
    loss, groups = grouped(params, batch, labels)
    return (loss, clusters), groups

  return value_and_grad
