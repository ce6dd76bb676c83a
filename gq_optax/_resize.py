# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""A state of some options made into that of others: the newest gradients and group sizes stay."""

from typing import Any

import jax
import jax.numpy as jnp

from gq_optax import _boxes, _dtypes
from gq_optax._coordinates import adaptive_length, figures
from gq_optax._coordinates.queue import Queue
from gq_optax._coordinates.transform import GradQueueState
from gq_optax._rarity.examples import ExampleScarcityState
from gq_optax._rarity.groups import GroupScarcityState


def resize_queue(opt_state: Any, target: Any) -> Any:
  """Fits a state to other options, as after restoring a checkpoint.

  ============================================  ==================================================
  what the target has                           what becomes of the state
  ============================================  ==================================================
  a shorter queue                               the newest gradients stay, the oldest are dropped
  a longer one                                  weighting pauses until it has filled
  another `queue_dtype`                         the gradients are cast to it
  `queue_length=(shortest, longest)`            losses start afresh if there were none
  `track=True`, or another `num_clusters`       figures start afresh
  a `group_scarcity` of another `queue_length`  the newest group sizes and all groups stay
  one of other `num_groups`, or another width   starts afresh: the next batch seeds its groups
  an `example_scarcity` of another size         the newest examples stay
  one of another width                          starts afresh
  ============================================  ==================================================

  All else is handed on. The state of an `nnx.Optimizer` is its `opt_state`; the result comes in the
  variables of the target: `nnx.update(new.opt_state, nnx.state(resize_queue(old.opt_state,
  new.opt_state)))`.

  Args:
    opt_state: any optimizer state that `grad_queue` is part of, a `GroupScarcityState` or an
      `ExampleScarcityState`, or a tree of such.
    target: a state of the new options, or its shapes, `jax.eval_shape(tx.init, params)`.

  Returns:
    A state of the target's structure, shapes and dtypes.

  Raises:
    ValueError: if anything else differs, such as a parameter's shape; the message names it.

  Example:
    >>> import jax
    >>> import jax.numpy as jnp
    >>> import gq_optax as gq
    >>> old, new = gq.grad_queue(queue_length=3), gq.grad_queue(queue_length=2)
    >>> params = jnp.zeros(1)
    >>> state = old.init(params)
    >>> for g in (1., 2., 3., 4.):
    ...   _, state = old.update(jnp.array([g]), state)
    >>> state = gq.resize_queue(state, jax.eval_shape(new.init, params))
    >>> print(state.queue.slots.ravel())
    [3. 4.]
  """
  stop = lambda node: _is_ours(node) or _boxes.is_box(node)
  old, new = (
    jax.tree_util.tree_flatten_with_path(tree, is_leaf=stop) for tree in (opt_state, target)
  )
  for name, (nodes, _) in (("opt_state", old), ("target", new)):
    if not any(_is_ours(node) for _, node in nodes):
      raise ValueError(
        f"{name} must hold the state of a grad_queue, a group_scarcity or an example_scarcity, but"
        " none was found. Of an nnx.Optimizer pass optimizer.opt_state."
      )
  found = [jax.tree_util.keystr(path) for path, _ in old[0]]
  wanted = [jax.tree_util.keystr(path) for path, _ in new[0]]
  if found != wanted:
    first = next(iter([*(set(wanted) - set(found)), *(set(found) - set(wanted))]))
    raise ValueError(
      "opt_state must be of the target's optimizer and parameters, but only one of them has"
      f" {first or 'a leaf at the root'}."
    )
  nodes = []
  for (path, node), (_, goal) in zip(old[0], new[0], strict=True):
    name = jax.tree_util.keystr(path)
    node, bare = _boxes.bare(node), _boxes.bare(goal)
    if isinstance(node, GradQueueState) and isinstance(goal, GradQueueState):
      node = _queue_state(node, bare, name)
    if isinstance(node, GroupScarcityState) and isinstance(goal, GroupScarcityState):
      node = _group_state(node, bare)
    if isinstance(node, ExampleScarcityState) and isinstance(goal, ExampleScarcityState):
      node = _example_state(node, bare)
    _same(node, bare, name)
    nodes.append(jax.tree.map(_boxes.fill, goal, node, is_leaf=_boxes.is_box))
  return jax.tree.unflatten(new[1], nodes)


def _is_ours(node: Any) -> bool:
  return isinstance(node, GradQueueState | GroupScarcityState | ExampleScarcityState)


def _queue_state(state: GradQueueState, goal: GradQueueState, name: str) -> GradQueueState:
  return GradQueueState(
    queue=_queue(state.queue, goal.queue, name),
    losses=_losses(state.losses, goal.losses),
    figures=_figures(state.figures, goal.figures),
  )


def _queue(before: Queue, after: Queue, name: str) -> Queue:
  old, new = (jax.tree_util.tree_leaves_with_path(q.slots) for q in (before, after))
  if [path for path, _ in old] != [path for path, _ in new]:
    raise ValueError(
      f"opt_state must have a queue of the target's parameters at {name}, but their names differ."
    )
  if not old:
    return before
  moved = []
  for (path, slots), (_, wanted) in zip(old, new, strict=True):
    if slots.shape[1:] != wanted.shape[1:]:
      raise ValueError(
        f"opt_state must have the target's shape {wanted.shape[1:]} for the parameter at"
        f" {name}.queue.slots{jax.tree_util.keystr(path)}, but {slots.shape[1:]} was found."
      )
    moved.append(_ring(slots, before.index, wanted))
  length, longer = moved[0].shape[0], old[0][1].shape[0]
  kept = min(longer, length)
  count = jnp.asarray(before.count)
  count = jnp.minimum(count, kept) if length > longer else count
  slots = jax.tree.unflatten(jax.tree.structure(after.slots), moved)
  return Queue(slots, jnp.asarray(kept % length, jnp.int32), count)


def _ring(old: jax.Array, index: jax.Array, new: jax.Array) -> jax.Array:
  """The newest rows of a ring, the oldest of them first, in one of another length or dtype."""
  kept = min(old.shape[0], new.shape[0])
  rows = (index - kept + jnp.arange(kept, dtype=jnp.int32)) % old.shape[0]
  newest = jnp.asarray(old)[rows]
  if jnp.issubdtype(new.dtype, jnp.floating) and not _dtypes.holds(new.dtype, newest.dtype):
    most = jnp.finfo(new.dtype).max.astype(newest.dtype)
    newest = jnp.clip(newest, -most, most)  # Inf would stay in the queue for ever
  return jnp.zeros(new.shape, new.dtype).at[:kept].set(newest.astype(new.dtype))


def _losses(losses, goal):
  if goal is None or (losses is not None and losses.values.shape == goal.values.shape):
    return None if goal is None else losses
  fresh = adaptive_length.init(goal.values.shape[0] - 2)
  if losses is None:
    return fresh
  kept = min(losses.values.shape[0], fresh.values.shape[0])
  values = fresh.values.at[:kept].set(losses.values[:kept])
  return adaptive_length.LossWindow(values, jnp.minimum(losses.count, kept))


def _figures(measured, goal):
  if goal is None or (measured is not None and _shapes(measured) == _shapes(goal)):
    return None if goal is None else measured
  return figures.init(goal.group_counts.shape[0])


def _shapes(tree):
  return [leaf.shape for leaf in jax.tree.leaves(tree)]


def _group_state(state: GroupScarcityState, goal: GroupScarcityState) -> GroupScarcityState:
  if state.centroids.shape != goal.centroids.shape:
    # As `init` makes it: what is kept of other groups would not be groups of these.
    fresh = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), goal)
    return fresh._replace(weights=jnp.ones_like(fresh.weights))
  length = goal.counts.shape[0]
  kept = min(state.counts.shape[0], length)
  return state._replace(
    counts=_ring(state.counts, state.index, goal.counts),
    index=jnp.asarray(kept % length, jnp.int32),
  )


def _example_state(state: ExampleScarcityState, goal: ExampleScarcityState) -> ExampleScarcityState:
  if state.queue.shape[1] != goal.queue.shape[1]:
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), goal)

  def newest(old, new):
    if old.ndim == 0:
      return old
    kept = min(old.shape[0], new.shape[0])  # the newest are in front
    return jnp.zeros(new.shape, new.dtype).at[:kept].set(old[:kept].astype(new.dtype))

  return jax.tree.map(newest, state, goal)


def _same(node: Any, goal: Any, name: str) -> None:
  """Raises where shapes, dtypes or names differ."""
  leaves, goals = (jax.tree_util.tree_leaves_with_path(tree) for tree in (node, goal))
  if [path for path, _ in leaves] != [path for path, _ in goals]:
    raise ValueError(f"opt_state must have the target's options at {name}, but they differ.")
  for (path, leaf), (_, wanted) in zip(leaves, goals, strict=True):
    if (leaf.shape, leaf.dtype) != (wanted.shape, wanted.dtype):
      raise ValueError(
        f"opt_state must have {wanted.dtype} of shape {wanted.shape} at"
        f" {name}{jax.tree_util.keystr(path)}, but {leaf.dtype} of shape {leaf.shape} was found."
      )
