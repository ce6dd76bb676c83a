# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""grad_queue: scarcity against the queue as an Optax gradient transformation."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gq_optax import _axes, _group_gradients, _inputs, _validate
from gq_optax._coordinates import (
  adaptive_length,
  clusters,
  compatible,
  figures,
  forms,
  leaf,
  norms,
  queue,
)
from gq_optax._coordinates.adaptive_length import LossWindow
from gq_optax._coordinates.figures import Figures
from gq_optax._coordinates.queue import Queue
from gq_optax._coordinates.weights import ScarcityFn


class GradQueueState(NamedTuple):
  """State of `grad_queue`, arrays only.

  Attributes:
    queue: the ring of the last L raw gradients: slots `[L, *p]`, index and count.
    losses: the recent losses when the length is adaptive, else None.
    figures: what `diagnostics` reads when `track=True`, else None.
  """

  queue: Queue
  losses: LossWindow | None
  figures: Figures | None


def grad_queue(
  queue_length: int | tuple[int, int] = 3,
  rho: jax.typing.ArrayLike = 3.0,
  *,
  scarcity: ScarcityFn | None = None,
  num_clusters: int = 1,
  embed: Callable[[optax.Updates], jax.Array] | None = None,
  update_norm: str | jax.typing.ArrayLike | None = None,
  queue_dtype: jax.typing.DTypeLike | None = None,
  track: bool = False,
  key: jax.Array | int = 0,
  axis_name: _axes.AxisName | None = None,
) -> optax.GradientTransformationExtraArgs:
  r"""Weighs gradients by how scarce they are against the last L gradients.

  .. math:: \mu, \sigma = \mathrm{mean}, \mathrm{std}(g_{t-1}, \dots, g_{t-L}), \qquad
            g^* = \sum_k a_k\; w(c_k; \mu, \sigma) \odot c_k, \qquad
            w = \mathrm{clip}(|c_k - \mu| / \sigma, 1/\rho, \rho)

  :math:`c_k` are the mean gradients of K groups of the batch, :math:`a_k` their shares. With one
  group :math:`c_1 = g_t`. Chain it before any optimizer. `update` takes one of three:

  - a mean gradient `[*p]`;
  - per-example gradients `[B, *p]`: every leaf has one leading axis more than its parameter. They
    are grouped here by K-means on `embeddings=[B, d]` or on `embed(gradients)`. What `mask=[B]`
    (bool) leaves out, such as padding, is in no group and no mean;
  - a `GroupGradients` of means `[K, *p]`, counts `[K]` and losses `[K]` or None.

  ================================  ==============================================================
  case                              what happens
  ================================  ==============================================================
  at most L gradients seen          every weight is exactly 1; groups combine as always
  sigma = 0                         weight 1/rho where g equals mu, else rho
  several groups                    c_k equals mu if they differ by at most 4 units of rounding
  rho = 1                           every weight is 1: the same as without `grad_queue`, bit by bit
  a NaN or Inf in the gradient      the raw mean gradient passes on, the state stays as it was
  the weighted update overflows     the update passes on, the gradient is not queued
  overflow of `queue_dtype`         counts as not finite
  empty group                       contributes nothing, whatever stands in it
  fewer examples than clusters      the surplus groups are empty
  every group empty                 the update is 0, the state stays as it was
  `value` not finite                the loss is not recorded, the gradient is
  bfloat16, float16                 statistics in float32, the update in the gradient's dtype
  float64                           weights and norms right within the range of float32
  ================================  ==============================================================

  Nothing stands in front of it where it gets one of the two batched forms: a clip would take the
  norm of all gradients at once, a scale would change the counts (docs/safety.md). `optax.masked`
  and `optax.partition` would leave other leaves batched, and fail: wrap the optimizer behind it.
  Frozen parameters must not reach it: take the gradients of the trained ones alone
  (docs/recipes-optimizer.md). `optax.MultiSteps` and `optax.apply_if_finite` go around the mean
  form and behind the batched forms.

  Args:
    queue_length: L, the gradients kept. A pair `(shortest, longest)` follows the trend of the loss:
      the longer it has been falling, the longer the window. `update` then needs `value=`.
    rho: bound of the weights, at least 1 (1 switches them off). May be traced, and is then clamped.
    scarcity: a function `(g, mean, std) -> weight` in place of Delta_rho (`rho` is then unused).
      docs/recipes-optimizer.md has some.
    num_clusters: K of the K-means over per-example gradients. The paper uses B / 64. Mean gradients
      are one group whatever it says.
    embed: a function from per-example gradients to `[B, d]`, used where `embeddings=` is not given.
      None: a sketch of each gradient, 64 numbers of length one.
    update_norm: "match" rescales the update to the norm of the raw mean gradient; a number caps the
      ratio of the two, at the steps at which something is weighted. None leaves it.
    queue_dtype: storage dtype of the queue; None: each parameter's. A wider gradient is rounded to
      it before it is compared.
    track: carry the figures that `gq.diagnostics` reads.
    key: int or PRNG key for K-means and sketch.
    axis_name: axis or axes of `jax.shard_map` or `jax.pmap` that the parameters are cut over,
      every one of them: one that all devices share would count once for each.
      Norms, figures and the check for NaN are then of the whole gradient, not of a part.

  Returns:
    An `optax.GradientTransformationExtraArgs`. Unknown extra args are ignored.

  Raises:
    ValueError: if an argument is out of its range, a parameter is not real floating, an update is
      none of the three forms, or a state was made with other options (make one by `init`).

  Example:
    >>> import jax.numpy as jnp
    >>> import optax
    >>> import gq_optax as gq
    >>> tx = optax.chain(gq.grad_queue(queue_length=3, rho=3.0), optax.sgd(0.1, momentum=0.9))
    >>> params = {"w": jnp.zeros(2)}
    >>> state = tx.init(params)
    >>> updates, state = tx.update({"w": jnp.ones(2)}, state, params)

  Reference: Al Hasib, Grad Queue (arXiv 2404.16917), equations 1 and 2, Algorithm 1.
  """
  bounds = _queue_lengths(queue_length)
  adaptive = isinstance(queue_length, tuple)
  num_clusters = _validate.static_int("num_clusters", num_clusters, 1)
  _check_options(rho, scarcity, embed, update_norm, queue_dtype, track, key, axis_name)
  rho = rho if isinstance(rho, jax.Array) else float(rho)  # type: ignore[arg-type]  # checked above

  def init_fn(params):
    compatible.refuse_placeholder(params)
    params = _inputs.parameters("params", params)
    return GradQueueState(
      queue=queue.init(params, max(bounds), queue_dtype),
      losses=adaptive_length.init(max(bounds)) if adaptive else None,
      figures=figures.init(num_clusters) if track else None,
    )

  def update_fn(
    updates, state, params=None, *, value=None, embeddings=None, mask=None, **extra_args
  ):
    del extra_args
    _validate.instance("state", state, GradQueueState)
    state, updates = _inputs.state("state", state), forms.arrays(updates)
    embeddings = None if embeddings is None else _inputs.floating("embeddings", embeddings)
    compatible.check(state, queue_length, num_clusters, track, queue_dtype, params, updates)
    past = state.queue
    cluster = functools.partial(
      clusters.cluster, count=past.count, embeddings=embeddings, embed=embed, key=key
    )
    batch = _read(updates, past, embeddings, mask, num_clusters, cluster, track)
    losses = state.losses
    if adaptive:  # as if the step were accepted; else it changes nothing
      losses = adaptive_length.push(losses, forms.loss(value, updates), jnp.asarray(True))
    length, active = _window(past, losses, bounds)
    if scarcity is None:
      # Delta_rho with rho = 1 is the identity; not applying it makes it one bit by bit.
      active = jnp.logical_and(active, jnp.asarray(rho) > 1.0)
    in_window = queue.window(past, length) if adaptive else None
    rule = leaf.Rule(active, rho, scarcity, track)
    population = _group_gradients.shares(batch.counts) if batch.raw is None else None
    weighed = leaf.weigh(past, in_window, batch.leaves, batch.shares, rule, population)
    if weighed.means is not None:
      means = [m.astype(g.dtype) for m, g in zip(weighed.means, batch.leaves, strict=True)]
      structure = jax.tree.structure(forms.gradients(updates))
      batch = batch._replace(raw=jax.tree.unflatten(structure, means))
    result, accept, lengths, factor = _finish(batch, weighed.leaves, rule, update_norm, axis_name)
    measured = None
    if weighed.sums is not None:
      measured = figures.measure(
        state.figures, batch, weighed.sums, lengths, factor, length, accept, axis_name
      )
    losses = jax.tree.map(lambda new, old: jnp.where(accept, new, old), losses, state.losses)
    return result, GradQueueState(queue.push(past, batch.raw, accept), losses, measured)

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _check_options(rho, scarcity, embed, update_norm, queue_dtype, track, key, axis_name):
  """Raises ValueError for an option that is out of its range."""
  _validate.real("rho", rho, 1.0)
  if isinstance(update_norm, str):
    _validate.one_of("update_norm", update_norm, ("match",))
  elif update_norm is not None:
    _validate.real("update_norm", update_norm, 0.0, open_low=True)
  if queue_dtype is not None:
    _validate.storage_dtype("queue_dtype", queue_dtype)
  if scarcity is not None:
    _validate.function("scarcity", scarcity)
  if embed is not None:
    _validate.function("embed", embed)
  _validate.flag("track", track)
  _validate.key("key", key)
  _axes.check("axis_name", axis_name)


def _read(updates, past, embeddings, mask, num_clusters, cluster, track):
  """Any of the three forms of an update as a `Batch`."""
  form = forms.form(updates, past.slots)
  inertia = jnp.zeros([], jnp.float32)
  if mask is not None:
    if form != "per_example":
      raise ValueError(
        "mask can only leave out per-example gradients [B, *p], but a mean gradient or"
        " GroupGradients was found."
      )
    mask = _inputs.mask("mask", mask, jax.tree.leaves(updates)[0].shape[0])
  if form == "mean":
    if embeddings is not None and num_clusters > 1:
      raise ValueError(
        "embeddings can only group per-example gradients [B, *p], but a mean gradient was found."
      )
    return forms.single(updates, jnp.zeros(num_clusters, jnp.float32), inertia)
  if form == "per_example" and num_clusters == 1:
    gradient, size = clusters.mean(updates, mask)
    return forms.single(gradient, size[None], inertia, size)
  if form == "per_example":
    found = cluster(updates, num_clusters, mask=mask)
    groups, raw = clusters.group_means(updates, found.labels, num_clusters, mask)
    return forms.grouped(groups, raw, found.inertia)
  if track and updates.counts.shape[0] != num_clusters:
    raise ValueError(
      "with track=True, num_clusters must be the number of groups of the GroupGradients"
      f" ({updates.counts.shape[0]}), but {num_clusters} was found."
    )
  return forms.grouped(updates, None, inertia)


def _finish(batch, weighed, rule, update_norm, axis_name):
  """The update that leaves, whether the step is queued; and where they are needed the lengths."""
  raw, updates = jax.tree.leaves(batch.raw), [w.update for w in weighed]
  # A group that is not finite makes the mean so; a cast to the queue may overflow in a group alone.
  accept = norms.all_finite([*raw, *(w.stored for w in weighed)], axis_name)
  accept = jnp.logical_and(accept, batch.size > 0.0)
  changed = jnp.logical_and(accept, jnp.logical_or(rule.active, batch.shares is not None))

  lengths = None
  factor = jnp.ones([], jnp.float32)
  if rule.tracked or update_norm is not None:
    lengths = norms.lengths(raw, updates, rule.tracked, axis_name)
    if update_norm is not None:
      factor = norms.factor(update_norm, lengths)
  scale = None if update_norm is None else factor
  leaves = [_chosen(u, r, changed, scale) for u, r in zip(updates, raw, strict=True)]
  # The names in boxes of Flax are those of the gradient, not of the slots.
  result = jax.tree.unflatten(jax.tree.structure(batch.raw), leaves)
  # Besides keeping the gradient of a failed step out, looking at the result orders the write after
  # the last read of the slots; without that order XLA copies the queue, twice, every step.
  accept = jnp.logical_and(accept, norms.all_finite(leaves, axis_name))
  return result, accept, lengths, jnp.where(changed, factor, 1.0)


@jax.jit  # leaves of one shape are traced once
def _chosen(update, raw, changed, factor):
  if factor is not None:
    update = update * factor.astype(update.dtype)
  return jnp.where(changed, update.astype(raw.dtype), raw)


def _window(past, losses, lengths):
  """How many entries of the queue count, and whether enough were seen to weigh by them."""
  shortest, longest = lengths
  length = jnp.int32(longest)
  if losses is not None:
    length = adaptive_length.effective_length(losses, shortest, longest)
  return jnp.minimum(length, past.count), past.count > shortest


def _queue_lengths(queue_length: Any) -> tuple[int, int]:
  if not isinstance(queue_length, tuple):
    length = _validate.static_int("queue_length", queue_length, 1)
    return length, length
  if len(queue_length) != 2:
    raise ValueError(
      f"queue_length must be an int or a pair (shortest, longest), but {queue_length} was found."
    )
  shortest = _validate.static_int("queue_length[0], the shortest,", queue_length[0], 1)
  longest = _validate.static_int("queue_length[1], the longest,", queue_length[1], shortest)
  return shortest, longest
