# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Read-only figures out of any optimizer state that holds a `grad_queue`."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gq_optax._transform import GradQueueState


def diagnostics(opt_state: optax.Updates) -> dict[str, jax.Array]:
  """The figures of the last step, as scalars for any logger.

  ====================  ===========================================================================
  name                  meaning
  ====================  ===========================================================================
  effective_length      entries of the queue that the statistics are of
  mean_weight           mean coordinate weight; 1 until the queue is full
  amplified, damped     share of coordinates with a weight above, below 1
  cosine, norm_ratio    of the update against the raw mean gradient
  group_count/k         examples in group k of the last step (with num_clusters > 1)
  inertia               of the K-means of the last step (with num_clusters > 1)
  queued                gradients queued so far
  skipped               steps so far that were not queued: not finite, or an empty batch
  ====================  ===========================================================================

  Works outside and inside `jit`. Nothing here feeds back into training.

  Args:
    opt_state: the state of any optimizer, however nested, with one `grad_queue(track=True)` or
      several; with several, the names are prefixed by `0/`, `1/`, ... in the order of the state.

  Returns:
    A dict of scalars `[]`.

  Raises:
    ValueError: if `opt_state` holds no `grad_queue`, or one without `track=True`.

  Example:
    >>> import jax.numpy as jnp
    >>> import optax
    >>> import gq_optax as gq
    >>> tx = optax.chain(gq.grad_queue(track=True), optax.sgd(0.1))
    >>> figures = gq.diagnostics(tx.init(jnp.zeros(3)))
    >>> print(figures["mean_weight"], figures["queued"])
    1.0 0
  """
  is_ours = lambda node: isinstance(node, GradQueueState)
  states = [node for node in jax.tree.leaves(opt_state, is_leaf=is_ours) if is_ours(node)]
  if not states:
    raise ValueError("opt_state must hold the state of a grad_queue, but none was found.")
  figures = {}
  for number, state in enumerate(states):
    prefix = f"{number}/" if len(states) > 1 else ""
    figures.update({prefix + name: value for name, value in _read(state).items()})
  return figures


def _read(state: GradQueueState) -> dict[str, jax.Array]:
  if state.figures is None:
    raise ValueError(
      "diagnostics needs grad_queue(track=True), but a state without figures was found."
    )
  figures = {name: jnp.asarray(value) for name, value in state.figures._asdict().items()}
  counts, inertia = figures.pop("group_counts"), figures.pop("inertia")
  if counts.shape[0] > 1:
    figures.update({f"group_count/{k}": count for k, count in enumerate(counts)})
    figures["inertia"] = inertia
  figures["queued"] = jnp.asarray(state.queue.count)
  return figures


def state_bytes(tx: optax.GradientTransformation, params: Any) -> int:
  """Bytes that the state of an optimizer takes, computed without allocating it.

  Args:
    tx: any gradient transformation.
    params: pytree of arrays or `jax.ShapeDtypeStruct`s.

  Returns:
    The sum over all leaves of size times item size.

  Example:
    >>> import jax.numpy as jnp
    >>> import gq_optax as gq
    >>> gq.state_bytes(gq.grad_queue(queue_length=3), jnp.zeros(1000))  # 3 x 4000 and two counters
    12008
  """
  leaves = jax.tree.leaves(jax.eval_shape(tx.init, params))
  return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)
