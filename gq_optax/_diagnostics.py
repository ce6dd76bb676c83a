# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Read-only figures out of any state that holds a `grad_queue` or a scarcity of examples."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gq_optax import _validate
from gq_optax._grad_queue.transform import GradQueueState
from gq_optax._rarity import groups
from gq_optax._rarity.examples import ExampleScarcityState
from gq_optax._rarity.groups import GroupScarcityState


def diagnostics(opt_state: optax.Updates) -> dict[str, jax.Array]:
  """The figures of the last step, as scalars for any logger.

  ====================  ===========================================================================
  name                  meaning
  ====================  ===========================================================================
  effective_length      entries of the queue that the statistics are of
  mean_weight           mean coordinate weight; 1 for the first L + 1 gradients
  amplified, damped     share of coordinates with a weight above, below 1
  cosine, norm_ratio    of the update against the raw mean gradient
  group_count/k         examples in group k of the last step (with num_clusters > 1)
  inertia               of the K-means of the last step (with num_clusters > 1); 0 for groups that
                        `update` was given
  queued                gradients queued so far
  skipped               steps so far that were not queued: not finite, or an empty batch
  ====================  ===========================================================================

  and of a `group_scarcity`

  ====================  ===========================================================================
  name                  meaning
  ====================  ===========================================================================
  group_share/k         mean share of group k over the queue
  group_weight/k        what an example of it weighed at the last step
  group_age/k           steps since it was seeded
  groups_seen           groups with an example in the queue
  effective_examples    of the last step (Kish): as many of equal weight give a mean as certain
  rarest_tenth          share of all weight that the tenth with the largest weights had then
  grouped_steps         steps counted so far
  ====================  ===========================================================================

  and of an `example_scarcity`

  ====================  ===========================================================================
  name                  meaning
  ====================  ===========================================================================
  effective_examples    of the last step (Kish), as above
  queued_examples       rows of the queue that hold an example
  reach                 the distance at which two examples began to differ
  weighed_steps         steps counted so far
  ====================  ===========================================================================

  Works outside and inside `jit`. Nothing here feeds back into training.

  Args:
    opt_state: any pytree that holds the state of a `grad_queue(track=True)`, a `group_scarcity` or
      an `example_scarcity`. With several states, of whatever kinds, the names are prefixed by `0/`,
      `1/`, ... in the order of the tree.

  Returns:
    A dict of scalars `[]`.

  Raises:
    ValueError: if `opt_state` holds none of them, or a `grad_queue` without `track=True`.

  Example:
    >>> import jax.numpy as jnp
    >>> import optax
    >>> import gq_optax as gq
    >>> tx = optax.chain(gq.grad_queue(track=True), optax.sgd(0.1))
    >>> figures = gq.diagnostics(tx.init(jnp.zeros(3)))
    >>> print(figures["mean_weight"], figures["queued"])
    1.0 0
  """
  readers: dict[type, Callable[[Any], dict[str, jax.Array]]] = {
    GradQueueState: _read_queue,
    GroupScarcityState: _read_groups,
    ExampleScarcityState: _read_examples,
  }
  is_ours = lambda node: isinstance(node, tuple(readers))
  nodes = [node for node in jax.tree.leaves(opt_state, is_leaf=is_ours) if is_ours(node)]
  rule = "hold the state of a grad_queue, a group_scarcity or an example_scarcity"
  _validate.require(nodes, "opt_state", rule, "none")
  figures = {}
  for number, state in enumerate(nodes):
    prefix = f"{number}/" if len(nodes) > 1 else ""
    figures.update({prefix + name: value for name, value in readers[type(state)](state).items()})
  return figures


def _read_groups(state: GroupScarcityState) -> dict[str, jax.Array]:
  shares, seen = groups.shares(state.counts), jnp.any(state.counts > 0, axis=0)
  last = state.counts[(state.index - 1) % len(state.counts)].astype(jnp.float32)
  weights = state.weights
  total = jnp.sum(last * weights)
  safe_total = jnp.where(total > 0.0, total, 1.0)
  squares = jnp.sum(last * jnp.square(weights))
  heaviest = jnp.argsort(-weights)
  before = jnp.cumsum(last[heaviest]) - last[heaviest]
  among = jnp.clip(0.1 * jnp.sum(last) - before, 0.0, last[heaviest])
  by_group = {"group_share": shares, "group_weight": weights, "group_age": state.ages}
  figures = {f"{name}/{k}": x[k] for name, x in by_group.items() for k in range(len(weights))}
  return figures | {
    "groups_seen": jnp.sum(seen, dtype=jnp.int32),
    "effective_examples": jnp.square(total) / jnp.where(squares > 0.0, squares, 1.0),
    "rarest_tenth": jnp.sum(among * weights[heaviest]) / safe_total,
    "grouped_steps": jnp.asarray(state.count),
  }


def _read_examples(state: ExampleScarcityState) -> dict[str, jax.Array]:
  return {
    "effective_examples": jnp.asarray(state.effective),
    "queued_examples": jnp.sum(state.filled, dtype=jnp.int32),
    "reach": jnp.asarray(state.reach),
    "weighed_steps": jnp.asarray(state.count),
  }


def _read_queue(state: GradQueueState) -> dict[str, jax.Array]:
  found, rule = state.figures, "be that of a grad_queue(track=True)"
  _validate.require(found is not None, "opt_state", rule, "a state without figures")
  assert found is not None  # for type checkers
  figures = {name: jnp.asarray(value) for name, value in found._asdict().items()}
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
  transforms = callable(getattr(tx, "init", None))
  _validate.require(transforms, "tx", "be a gradient transformation", type(tx).__name__)
  params = _validate.batch("params", params)
  leaves = jax.tree.leaves(jax.eval_shape(tx.init, params))
  return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)
