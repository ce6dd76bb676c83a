# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""grad_queue: scarcity against the queue as an Optax gradient transformation."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gq_optax import _axes, _boxes, _dtypes, _group_gradients, _validate
from gq_optax._grad_queue import adaptive_length, clusters, figures, norms, queue
from gq_optax._grad_queue.adaptive_length import LossWindow
from gq_optax._grad_queue.figures import Figures
from gq_optax._grad_queue.queue import Queue
from gq_optax._grad_queue.scarcity import ScarcityFn, weigh
from gq_optax._group_gradients import GroupGradients


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
  at most L gradients queued        every weight is exactly 1; groups combine as always. Of a pair
                                    L is `shortest`
  sigma = 0                         weight 1/rho where g equals mu, else rho
  groups, per-example gradients     c_k equals mu if they differ by at most 4 units of rounding
  rho = 1                           every weight is 1: the same as without `grad_queue`, bit by bit
  a NaN or Inf in the gradient      the raw mean passes on; only `skipped` changes in the state
  the weighted update overflows     the update passes on, the gradient is not queued
  overflow of `queue_dtype`         counts as not finite
  empty group                       contributes nothing, whatever stands in it
  fewer examples than clusters      the surplus groups are empty
  every group empty                 the update is 0; only `skipped` changes in the state
  `value` not finite                the loss is not recorded, the gradient is
  bfloat16, float16                 statistics in float32, the update in the gradient's dtype
  float64                           weights and norms right within the range of float32
  ================================  ==============================================================

  With batched gradients put nothing in front of it: a clip would take the norm of all gradients at
  once, a scale would change the counts (docs/safety.md). `optax.masked`
  and `optax.partition` would leave other leaves batched, and fail: wrap the optimizer behind it.
  Frozen parameters must not reach it: take the gradients of the trained ones alone
  (docs/recipes.md). `optax.MultiSteps` and `optax.apply_if_finite` go around the mean
  form and behind the batched forms.

  Args:
    queue_length: L, the gradients kept. A pair `(shortest, longest)` follows the trend of the loss:
      the longer it has been falling, the longer the window. `update` then needs `value=`.
    rho: bound of the weights, at least 1 (1 switches them off). May be traced, and is then clamped.
    scarcity: a function `(g, mean, std) -> weight` in place of Delta_rho (`rho` is then unused).
      docs/grad-queue.md has one.
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
  shortest, longest = _queue_lengths(queue_length)
  adaptive = isinstance(queue_length, tuple)
  num_clusters = _validate.static_int("num_clusters", num_clusters, 1)
  _validate.number("rho", rho, 1.0)
  if isinstance(update_norm, str):
    _validate.one_of("update_norm", update_norm, ("match",))
  elif update_norm is not None:
    _validate.number("update_norm", update_norm, 0.0, open_low=True)
  if queue_dtype is not None:
    _validate.storage_dtype("queue_dtype", queue_dtype)
  for name, function in (("scarcity", scarcity), ("embed", embed)):
    if function is not None:
      _validate.function(name, function)
  _validate.flag("track", track)
  _validate.key("key", key)
  _validate.axis_name("axis_name", axis_name)
  rho = rho if isinstance(rho, jax.Array) else float(rho)  # type: ignore[arg-type]  # checked above

  def init_fn(params):
    if type(params).__name__ == "_ParamsPlaceholder":
      raise ValueError(
        "optax.tree_map_params must not be used on a grad_queue: its slots [L, *p] have an axis"
        " more than the parameters [*p]. gq.partition_specs(state_shapes, param_specs) makes the"
        " specs of a whole optimizer state; for all else use jax.tree.map."
      )
    params = _validate.parameters("params", params)
    return GradQueueState(
      queue=queue.init(params, longest, queue_dtype),
      losses=adaptive_length.init(longest) if adaptive else None,
      figures=figures.init(num_clusters) if track else None,
    )

  def update_fn(
    updates, state, params=None, *, value=None, embeddings=None, mask=None, **extra_args
  ):
    del extra_args
    _validate.instance("state", state, GradQueueState)
    state = _validate.state("state", state)
    is_group = isinstance(updates, GroupGradients)
    updates = _group_gradients.arrays("updates", updates) if is_group else updates
    tree = updates.grads if is_group else _validate.gradients("updates", updates)
    like = tree if params is None else _validate.parameters("params", params)
    kinds = [jnp.dtype(queue_dtype or g.dtype) for g in jax.tree.leaves(like)]
    exact = params is not None or queue_dtype is not None
    _check_state(state, longest, adaptive, track, num_clusters, kinds, exact)
    past, losses = state.queue, state.losses
    form = _form(tree, updates.counts if is_group else None, past.slots)
    rule, means = "belong to per-example gradients [B, *p]", "a mean gradient"
    misplaced = form == "mean" and embeddings is not None and num_clusters > 1
    _validate.require(not misplaced, "embeddings", rule, means)
    if mask is not None:
      _validate.require(form == "per_example", "mask", rule, f"{means} or GroupGradients")
      mask = _validate.mask("mask", mask, jax.tree.leaves(tree)[0].shape[0])
    embeddings = None if embeddings is None else _validate.floating("embeddings", embeddings)

    effective_length, in_window = jnp.minimum(jnp.int32(longest), past.count), None
    if adaptive:
      loss = _batch_loss(value, updates)
      losses = adaptive_length.push(losses, loss)
      effective_length = adaptive_length.effective_length(losses, shortest, longest)
      effective_length = jnp.minimum(effective_length, past.count)
      in_window = queue.window(past, effective_length)
    # Delta_rho with rho = 1 is the identity; not applying it makes it one bit by bit.
    weighs = jnp.asarray(rho).astype(jnp.float32) > 1.0
    active = past.count > shortest
    active = active if scarcity is not None else jnp.logical_and(active, weighs)

    groups, mean, inertia = updates, None, jnp.zeros([], jnp.float32)
    if form == "per_example":
      groups, mean, inertia = clusters.cluster_means(
        tree, num_clusters, past.count, embeddings=embeddings, embed=embed, key=key, mask=mask
      )
    gradients, shares, counts = tree, None, jnp.zeros(num_clusters, jnp.float32)
    if form != "mean":
      gradients, counts = groups.grads, _group_gradients.sizes(groups.counts)
      shares = _group_gradients.shares(counts)
      rule = f"be the number of groups of the GroupGradients ({len(counts)})"
      fits = not track or len(counts) == num_clusters
      _validate.require(fits, "with track=True, num_clusters", rule, num_clusters)
    gradients = jax.tree.leaves(gradients)
    weighed = weigh(gradients, mean, shares, past, in_window, active, rho, scarcity, track)
    raw = [m.astype(g.dtype) for m, g in zip(weighed.mean, jax.tree.leaves(tree), strict=True)]

    usable = norms.all_finite([*raw, *queue.narrowed(past, gradients, shares)], axis_name)
    if shares is not None:
      usable = jnp.logical_and(usable, jnp.sum(counts) > 0.0)
    changed = jnp.logical_and(usable, active if shares is None else True)
    factor = jnp.ones([], jnp.float32)
    if track or update_norm is not None:
      measured = norms.norms(raw, weighed.update, axis_name)
    if update_norm is not None:
      factor = norms.factor(update_norm, measured)
    scale = None if update_norm is None else factor
    result = [_chosen(u, r, changed, scale) for u, r in zip(weighed.update, raw, strict=True)]
    # A step whose result overflows is not queued. This also orders the write after the last read of
    # the slots: without that order XLA copies the queue twice a step.
    queued = jnp.logical_and(usable, norms.all_finite(result, axis_name))

    figures_after = None
    if weighed.sums is not None:
      size = _axes.total(jnp.float32(sum(g.size for g in raw)), axis_name)
      weights = _axes.total(weighed.sums, axis_name) / jnp.maximum(size, 1.0)
      factor = jnp.where(changed, factor, 1.0)
      figures_after = figures.measure(
        state.figures, queued, effective_length, weights, measured, factor, counts, inertia
      )
    losses = jax.tree.map(lambda new, old: jnp.where(queued, new, old), losses, state.losses)
    # In the structure of the gradient: boxes of Flax in it name the axes `[*p]`.
    result = jax.tree.unflatten(jax.tree.structure(tree), result)
    return result, GradQueueState(queue.push(past, raw, queued), losses, figures_after)

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)


@jax.jit  # leaves of one shape are traced once
def _chosen(update, raw, changed, factor):
  if factor is not None:
    update = update * factor.astype(update.dtype)
  return jnp.where(changed, update.astype(raw.dtype), raw)


def _form(tree: Any, counts: jax.Array | None, slots: optax.Updates) -> str:
  """Tells "mean", "per_example" and "group" apart by shapes; raises on anything else.

  Args:
    tree: of gradients.
    counts: of `GroupGradients`, else None.
    slots: the queue `[L, *p]`, which knows the parameters' shapes.
  """
  expected, found = (jax.tree.structure(_boxes.bare(t)) for t in (slots, tree))
  same: Any = expected == found  # type: ignore[operator]  # missing in the stubs of jaxlib
  rule = f"have the tree structure of the parameters, {expected}"
  _validate.require(same, "updates", rule, found)
  pairs = zip(_boxes.leaves_with_path(tree), jax.tree.leaves(slots), strict=True)
  shapes = [(path, g.shape, s.shape[1:]) for (path, g), s in pairs]
  if counts is None and all(found == parameter for _, found, parameter in shapes):
    return "mean"
  form, rule = "group", "GroupGradients with grads [K, *p] and counts [K]"
  if counts is None:
    rule = "a mean gradient [*p], per-example gradients [B, *p], or GroupGradients"
    form = "per_example"
  lead = shapes[0][1][:1] if counts is None else counts.shape
  for path, found, parameter in shapes:
    fits = found == (*lead, *parameter) and lead not in ((), (0,))
    where = f"at {_validate.path_name(path)} shape {found}"
    hint = f"The parameter is of shape {parameter}."
    alike = f"be {rule}, alike for all leaves and not empty"
    _validate.require(fits, "updates", alike, where, hint)
  is_masked = lambda node: isinstance(node, optax.MaskedNode)
  # `optax.masked` would hand the leaves it hides on as they are: batched.
  _validate.require(
    not any(map(is_masked, jax.tree.leaves(tree, is_leaf=is_masked))),
    "updates of grad_queue inside optax.masked or optax.partition",
    "be mean gradients [*p]",
    "a batch axis, which the others would be left with,",
    "For several optimizers put the queue in front: optax.chain(grad_queue(...),"
    " optax.partition(...)). Frozen parameters must not reach it at all: take the gradients of the"
    " trained ones alone.",
  )
  return form


def _batch_loss(value: Any, updates: Any) -> jax.Array:
  """The batch loss for the adaptive length, from `value=` or from the groups' losses."""
  if value is not None:
    _validate.shape("value", value, "a scalar", ())
    return _validate.real("value", value).astype(jnp.float32)
  if isinstance(updates, GroupGradients) and updates.losses is not None:
    return _group_gradients.batch_loss(updates)
  raise ValueError(
    "an adaptive queue_length (shortest, longest) needs the loss at every update: pass value=, or"
    " GroupGradients with losses; neither was found."
  )


def _check_state(state, longest, adaptive, track, num_clusters, kinds, exact) -> None:
  """Raises ValueError with the name of an option that is not the state's.

  Args:
    state: what `update` was given.
    longest: slots of the queue.
    adaptive: whether there are losses.
    track: whether there are figures.
    num_clusters: of the figures.
    kinds: dtypes of the slots.
    exact: False: only the gradients' dtypes are known, and the queue must be able to hold these.
  """
  losses = None if state.losses is None else state.losses.values.shape
  groups = None if state.figures is None else state.figures.group_counts.shape
  slots = _boxes.leaves_with_path(state.queue.slots)
  rows = [
    ("one grad_queue (a stack of states goes under jax.vmap)", (), state.queue.index.shape),
    *(("queue_length", longest, len(s)) for _, s in slots if s.shape),
    ("queue_length with its losses", (longest + 2,) if adaptive else None, losses),
    ("track", track, groups is not None),
    ("num_clusters", (num_clusters,) if track else None, groups),
  ]
  if len(slots) == len(kinds):  # else another tree, which the check of the updates names
    for (path, s), kind in zip(slots, kinds, strict=True):
      hint = "" if exact else ", or params= where that is the parameters' dtype"
      if exact or not _dtypes.holds(s.dtype, kind):
        rows.append((f"queue_dtype at {_validate.path_name(path)}{hint}", kind, s.dtype))
  way_out = "Make one by tx.init(params): the queue fills again in a few steps."
  for option, wanted, found in rows:
    rule = f"have been made with the options of this grad_queue, {option}: {wanted}"
    _validate.require(wanted == found, "state", rule, found, way_out)


def _queue_lengths(queue_length: Any) -> tuple[int, int]:
  if not isinstance(queue_length, tuple):
    length = _validate.static_int("queue_length", queue_length, 1)
    return length, length
  rule = "be an int or a pair (shortest, longest)"
  _validate.require(len(queue_length) == 2, "queue_length", rule, queue_length)
  shortest = _validate.static_int("queue_length[0], the shortest,", queue_length[0], 1)
  longest = _validate.static_int("queue_length[1], the longest,", queue_length[1], shortest)
  return shortest, longest
