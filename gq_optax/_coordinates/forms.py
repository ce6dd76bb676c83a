# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The three forms of an update, told apart by their shapes and brought into one."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gq_optax import _boxes, _group_gradients, _inputs, _validate
from gq_optax._group_gradients import GroupGradients


class Batch(NamedTuple):
  """An update in any of its forms.

  Attributes:
    raw: the raw mean gradient `[*p]`, in the gradients' dtype; None where it is the mean of the
      groups, which `leaf.weigh` makes on its way.
    leaves: what is weighed, for every leaf of the parameters: `[*p]`, or `[K, *p]` of K groups.
    shares: float32 `[K]`, the weight of each group in the update; None for a mean gradient.
    counts: float32 `[num_clusters]`, examples per group; 0 where nothing is grouped.
    size: float32 `[]`; 0 means that the batch holds no example.
    inertia: float32 `[]`, of the K-means; 0 where none was run.
  """

  raw: optax.Updates | None
  leaves: list[jax.Array]
  shares: jax.Array | None
  counts: jax.Array
  size: jax.Array
  inertia: jax.Array


def single(
  gradient: optax.Updates, counts: jax.Array, inertia: jax.Array, size: jax.Array | None = None
) -> Batch:
  """A mean gradient `[*p]` of `size` examples; of at least one, where nothing is said."""
  size = jnp.ones([], jnp.float32) if size is None else size
  return Batch(gradient, jax.tree.leaves(gradient), None, counts, size, inertia)


def grouped(groups: GroupGradients, raw: optax.Updates | None, inertia: jax.Array) -> Batch:
  """K group gradients; `raw` is the mean of the batch, None for the mean of the groups."""
  counts = _group_gradients.sizes(groups.counts)
  return Batch(
    raw=raw,
    leaves=jax.tree.leaves(groups.grads),
    shares=_group_gradients.shares(counts),
    counts=counts,
    size=jnp.sum(counts),
    inertia=inertia,
  )


def arrays(updates: Any) -> Any:
  """An update of any form, of JAX arrays."""
  if not isinstance(updates, GroupGradients):
    return _inputs.gradients("updates", updates)
  return _group_gradients.arrays("updates", updates)


def gradients(updates: Any) -> optax.Updates:
  """The gradient tree of an update of any form."""
  return updates.grads if isinstance(updates, GroupGradients) else updates


def name(path: tuple[Any, ...]) -> str:
  """A path as it stands in messages."""
  return jax.tree_util.keystr(path) or "the root"


def form(updates: Any, slots: optax.Updates) -> str:
  """Tells "mean", "per_example" and "group" apart; raises on anything else.

  Args:
    updates: what was passed to `update`.
    slots: the queue `[L, *p]`, which knows the parameters' shapes.
  """
  is_group = isinstance(updates, GroupGradients)
  tree = gradients(updates)
  expected, found = (jax.tree.structure(_boxes.bare(t)) for t in (slots, tree))
  if not expected == found:  # type: ignore[operator]  # missing in the stubs of jaxlib
    raise ValueError(
      f"updates must have the tree structure of the parameters, {expected}, but {found} was found."
    )
  leaves = [
    (name(path), g, s.shape[1:])
    for (path, g), s in zip(_boxes.leaves_with_path(tree), jax.tree.leaves(slots), strict=True)
  ]
  if not is_group and all(jnp.shape(g) == p for _, g, p in leaves):
    return "mean"

  size = updates.counts.shape[0] if is_group and jnp.ndim(updates.counts) == 1 else None
  for where, g, p in leaves:
    size = jnp.shape(g)[0] if size is None and jnp.ndim(g) else size
    if size == 0 or jnp.shape(g) != (size, *p):
      rule = (
        "GroupGradients with grads [K, *p] and counts [K]"
        if is_group
        else "a mean gradient [*p], per-example gradients [B, *p], or GroupGradients"
      )
      raise ValueError(
        f"updates must be {rule}, alike for all leaves and not empty, but at {where} shape"
        f" {jnp.shape(g)} was found for a parameter of shape {p}."
      )
  if is_group:
    _validate.shape("counts of the GroupGradients", updates.counts, "[K]", (size,))
    if updates.losses is not None:
      _validate.shape("losses of the GroupGradients", updates.losses, f"[K] = [{size}]", (size,))
  _refuse_masked(tree)
  return "group" if is_group else "per_example"


def _refuse_masked(tree: optax.Updates) -> None:
  """`optax.masked` would hand the leaves it hides on as they are: batched."""
  is_masked = lambda node: isinstance(node, optax.MaskedNode)
  if any(is_masked(node) for node in jax.tree.leaves(tree, is_leaf=is_masked)):
    raise ValueError(
      "updates of grad_queue inside optax.masked or optax.partition must be mean gradients [*p]:"
      " the others would be left with a batch axis. For several optimizers put the queue in"
      " front: optax.chain(grad_queue(...), optax.partition(...)). Frozen parameters must not reach"
      " it at all: take the gradients of the trained ones alone."
    )


def loss(value: Any, updates: Any) -> jax.Array:
  """The batch loss for the adaptive length, from `value=` or from the groups' losses."""
  if value is not None:
    _validate.shape("value", value, "a scalar", ())
    return _inputs.real("value", value).astype(jnp.float32)
  if isinstance(updates, GroupGradients) and updates.losses is not None:
    return _group_gradients.batch_loss(updates)
  raise ValueError(
    "an adaptive queue_length (shortest, longest) needs the loss at every update: pass value=, or"
    " GroupGradients with losses; neither was found."
  )
