# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""A state of one queue length made into that of another: the newest gradients stay."""

from typing import Any

import jax
import jax.numpy as jnp

from gq_optax._coordinates import adaptive_length
from gq_optax._coordinates.queue import Queue
from gq_optax._coordinates.transform import GradQueueState


def resize_queue(opt_state: Any, target: Any) -> Any:
  """Fits an optimizer state to another queue length, as after restoring a checkpoint.

  The newest gradients stay, the oldest of a longer queue are dropped; in a longer one than before
  weighting pauses until it has filled, as at the start. A queue that begins to follow the loss
  (`queue_length=(shortest, longest)`) starts without losses. All else is handed on.

  Args:
    opt_state: any optimizer state that `grad_queue` is part of.
    target: a state of the new optimizer, or its shapes, `jax.eval_shape(tx.init, params)`.

  Returns:
    A state of the target's shapes and dtypes.

  Raises:
    ValueError: if anything but the length of a queue differs, such as a parameter's shape; the
      message names it.

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
  is_ours = lambda node: isinstance(node, GradQueueState)
  old, new = (
    jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_ours) for tree in (opt_state, target)
  )
  found = [jax.tree_util.keystr(path) for path, _ in old[0]]
  wanted = [jax.tree_util.keystr(path) for path, _ in new[0]]
  if found != wanted:
    first = next(iter([*(set(wanted) - set(found)), *(set(found) - set(wanted))]))
    raise ValueError(
      "opt_state must be of the target's optimizer and parameters, but only one of them has"
      f" {first}."
    )
  nodes = []
  for (path, node), (_, goal) in zip(old[0], new[0], strict=True):
    name = jax.tree_util.keystr(path)
    if is_ours(node) and is_ours(goal):
      node = _resized(node, goal, name)
    _same(node, goal, name)
    nodes.append(node)
  return jax.tree.unflatten(new[1], nodes)


def _resized(state: GradQueueState, goal: GradQueueState, name: str) -> GradQueueState:
  before, after = state.queue, goal.queue
  names = lambda tree: [path for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
  if names(before.slots) != names(after.slots):
    raise ValueError(
      f"opt_state must have a queue of the target's parameters at {name}, but their names differ."
    )
  shortest = lambda old, new: min(old.shape[0], new.shape[0])

  def move(path, old, new):
    where = f"{name}.queue.slots{jax.tree_util.keystr(path)}"
    if old.shape[1:] != new.shape[1:]:
      raise ValueError(
        f"opt_state must have the target's shape {new.shape[1:]} for the parameter at {where},"
        f" but {old.shape[1:]} was found."
      )
    kept = shortest(old, new)
    rows = (before.index - kept + jnp.arange(kept)) % old.shape[0]  # from old to new
    slots = jnp.zeros(new.shape, new.dtype)
    return slots.at[:kept].set(old[rows].astype(new.dtype))

  leaves = jax.tree.leaves(before.slots)
  queue = before
  if leaves:
    slots = jax.tree_util.tree_map_with_path(move, before.slots, after.slots)
    length, longer = jax.tree.leaves(slots)[0].shape[0], leaves[0].shape[0]
    kept = min(longer, length)
    count = jnp.minimum(before.count, kept) if length > longer else before.count
    queue = Queue(slots, jnp.asarray(kept % length, jnp.int32), count)
  losses = state.losses
  if goal.losses is None:
    losses = None
  elif losses is None or losses.values.shape != goal.losses.values.shape:
    longest = goal.losses.values.shape[0] - 2
    fresh = adaptive_length.init(longest)
    if losses is not None:
      kept = min(losses.values.shape[0], longest + 2)
      values = fresh.values.at[:kept].set(losses.values[:kept])
      fresh = adaptive_length.LossWindow(values, jnp.minimum(losses.count, kept))
    losses = fresh
  return state._replace(queue=queue, losses=losses)


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
