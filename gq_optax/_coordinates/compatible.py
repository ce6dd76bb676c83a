# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Was this state made with these options? Asked when `update` is traced."""

from typing import Any

import jax
import jax.numpy as jnp

from gq_optax import _boxes, _dtypes, _inputs
from gq_optax._coordinates import forms

_WAY_OUT = "Make one by tx.init(params): the queue fills again in a few steps."


def check(
  state: Any,
  queue_length: int | tuple[int, int],
  num_clusters: int,
  track: bool,
  queue_dtype: jax.typing.DTypeLike | None,
  params: Any,
  updates: Any,
) -> None:
  """Raises ValueError with the name of an option that is not the state's.

  Without `params` and without `queue_dtype` nothing tells the dtype of the parameters: then the
  queue must be able to hold the gradients.
  """
  longest = queue_length[1] if isinstance(queue_length, tuple) else queue_length
  adaptive = isinstance(queue_length, tuple)
  for path, slots in _boxes.leaves_with_path(state.queue.slots):
    if jnp.shape(slots)[:1] != (longest,):
      found = f"{jnp.shape(slots)[:1]} slots at {forms.name(path)}"
      raise _error("queue_length", queue_length, found)
  if adaptive != (state.losses is not None):
    kind = "losses" if state.losses is not None else "no losses"
    raise _error("queue_length", queue_length, f"one with {kind}")
  if adaptive and jnp.shape(state.losses.values) != (longest + 2,):
    raise _error("queue_length", queue_length, f"{jnp.shape(state.losses.values)} losses")
  if track != (state.figures is not None):
    kind = "figures" if state.figures is not None else "no figures"
    raise _error("track", track, f"one with {kind}")
  if track and jnp.shape(state.figures.group_counts) != (num_clusters,):
    shape = jnp.shape(state.figures.group_counts)
    raise _error("num_clusters", num_clusters, f"figures of groups {shape}")
  for name in ("index", "count"):
    if jnp.shape(getattr(state.queue, name)) != ():
      raise ValueError(
        f"state must be the state of one grad_queue, but {name} of shape"
        f" {jnp.shape(getattr(state.queue, name))} was found; use a stack of states under jax.vmap."
      )
  _check_dtype(state, queue_dtype, params, forms.gradients(updates))


def refuse_placeholder(params: Any) -> None:
  """`optax.tree_map_params` would give the axis of L in the queue what belongs to a parameter's."""
  if type(params).__name__ == "_ParamsPlaceholder":
    raise ValueError(
      "optax.tree_map_params must not be used on a grad_queue: its slots [L, *p] have an axis more"
      " than the parameters [*p]. gq.partition_specs(state_shapes, param_specs) makes the specs of"
      " a whole optimizer state; for all else use jax.tree.map."
    )


def _check_dtype(state, queue_dtype, params, gradients):
  slots = _boxes.leaves_with_path(state.queue.slots)
  like = _inputs.parameters("params", gradients if params is None else params)
  dtypes = [jnp.dtype(leaf.dtype) for leaf in jax.tree.leaves(like)]
  if queue_dtype is not None:
    dtypes = [jnp.dtype(queue_dtype)] * len(slots)
  if len(dtypes) != len(slots):
    return  # another tree, which the check of the updates names
  for (path, slot), wanted in zip(slots, dtypes, strict=True):
    if slot.dtype == wanted:
      continue
    found = f"{slot.dtype} at {forms.name(path)}"
    if queue_dtype is None and params is None:
      if _dtypes.holds(slot.dtype, wanted):
        continue  # nothing is rounded that should not be
      rule = f"None, and the gradient has {wanted}"
      raise _error("queue_dtype", rule, found, "If that is the parameters' dtype, pass params=. ")
    rule = queue_dtype if queue_dtype is not None else f"None, and the parameter has {wanted}"
    raise _error("queue_dtype", rule, found)


def _error(option, wanted, found, hint=""):
  return ValueError(
    f"state must have been made with the options of this grad_queue, {option}={wanted}, but {found}"
    f" was found. {hint}{_WAY_OUT}"
  )
