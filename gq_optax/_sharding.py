# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Where the state lives on a mesh: specs for optimizer states that hold ours."""

from typing import Any

import jax
from jax.sharding import PartitionSpec

from gq_optax import _axes, _boxes, _validate
from gq_optax._grad_queue.transform import GradQueueState
from gq_optax._rarity.examples import ExampleScarcityState
from gq_optax._rarity.groups import GroupScarcityState


def partition_specs(
  opt_state_shapes: Any, param_specs: Any, *, axis_name: _axes.AxisName | None = None
) -> Any:
  """Partition specs for an optimizer state: everything lies where its parameter does.

  ===================================  =====================================================
  leaf of the state                    its spec
  ===================================  =====================================================
  the queue's slots `[L, *p]`          that of the parameter `[*p]` behind a replicated axis
  as large as its parameter            that of the parameter: momentum, `mu`, `nu`, ...
  rows `[M, ...]` of recent examples   cut over `axis_name`, if it is given
  all else                             replicated: counters, losses, figures, groups, examples
  ===================================  =====================================================

  A leaf belongs to the parameter whose path its own path ends with; boxes of Flax around arrays are
  seen through. In the result a spec stands in the place of a box of Linen, and inside a variable of
  NNX, as `nn.get_partition_spec` and `nnx.get_partition_spec` have it. Statistics of the queue are
  taken slot by slot and coordinate by coordinate, so that no device needs to hear of another.

  Args:
    opt_state_shapes: a state, or its shapes, `jax.eval_shape(tx.init, params)`; of any optimizer
      that `grad_queue` is part of. A `GroupScarcityState` or an `ExampleScarcityState` may be
      anywhere in it, or be all of it.
    param_specs: pytree like the parameters, with a `jax.sharding.PartitionSpec` for each.
    axis_name: that of the `example_scarcity`, where each device keeps a part of the queue.

  Returns:
    A pytree like the state, with a `PartitionSpec` for every leaf.

  Raises:
    ValueError: if the state holds nothing of ours, a parameter has no spec, or a spec has more
      entries than its parameter has axes.

  Example:
    >>> import jax
    >>> import jax.numpy as jnp
    >>> import optax
    >>> from jax.sharding import PartitionSpec as P
    >>> import gq_optax as gq
    >>> tx = optax.chain(gq.grad_queue(queue_length=3), optax.sgd(0.1, momentum=0.9))
    >>> shapes = jax.eval_shape(tx.init, {"w": jnp.zeros((8, 2))})
    >>> queue, (momentum, _) = gq.partition_specs(shapes, {"w": P("data")})
    >>> print([tuple(s) for s in (queue.queue.slots["w"], queue.queue.count, momentum.trace["w"])])
    [(None, 'data'), (), ('data',)]
  """
  _validate.axis_name("axis_name", axis_name)
  specs: dict[tuple[Any, ...], PartitionSpec] = {}
  for path, spec in _boxes.leaves_with_path(param_specs, is_leaf=_is_spec):
    rule = f"hold a PartitionSpec at {_validate.path_name(path)}"
    _validate.require(_is_spec(spec), "param_specs", rule, type(spec).__name__)
    specs[path] = spec
  nodes = jax.tree_util.tree_leaves_with_path(opt_state_shapes, is_leaf=_is_ours)
  ours = [node for _, node in nodes if _is_ours(node)]
  rule = "hold the state of grad_queue, of group_scarcity or of example_scarcity"
  way_out = "Of an nnx.Optimizer pass optimizer.opt_state."
  _validate.require(ours, "opt_state_shapes", rule, "none", way_out)
  shapes: dict[tuple[Any, ...], tuple[int, ...]] = {}
  for state in ours:
    if isinstance(state, GradQueueState):
      for path, leaf in _boxes.leaves_with_path(state.queue.slots):
        shapes[path] = leaf.shape[1:]

  def own(path):
    where = _validate.path_name(path)
    _validate.require(path in specs, "param_specs", f"have a spec for {where}", "none")
    few, found = len(specs[path]) <= len(shapes[path]), f"{specs[path]} for shape {shapes[path]}"
    rule = f"have at most one entry for each axis at {where}"
    _validate.require(few, "param_specs", rule, found)
    return specs[path]

  def place(path, node):
    if isinstance(node, GroupScarcityState | ExampleScarcityState):
      cut = isinstance(node, ExampleScarcityState) and axis_name is not None
      spec = lambda leaf: PartitionSpec(axis_name) if cut and leaf.shape else PartitionSpec()
      return jax.tree.map(spec, node)
    if isinstance(node, GradQueueState):
      behind = lambda path, slots: _spec_of(slots, PartitionSpec(None, *own(path)))
      slots = jax.tree_util.tree_map_with_path(behind, node.queue.slots, is_leaf=_boxes.is_box)
      everywhere = lambda leaf: _spec_of(leaf, PartitionSpec())
      rest = jax.tree.map(
        everywhere, node._replace(queue=node.queue._replace(slots=None)), is_leaf=_boxes.is_box
      )
      return rest._replace(queue=rest.queue._replace(slots=slots))
    return _spec_of(node, mirrored(path, _boxes.value(node)))

  def mirrored(path, leaf):
    for start in range(len(path) + 1):  # the longest end that is a parameter's path
      end = path[start:]
      if end in specs:
        # Where the queue has not seen the parameter (it was masked) its number of axes must do.
        same = shapes[end] == leaf.shape if end in shapes else len(specs[end]) <= len(leaf.shape)
        return specs[end] if same else PartitionSpec()
    return PartitionSpec()

  stop = lambda node: _is_ours(node) or _boxes.is_box(node)
  return jax.tree_util.tree_map_with_path(place, opt_state_shapes, is_leaf=stop)


def _spec_of(node: Any, spec: PartitionSpec) -> Any:
  """The spec as Flax has it: in the place of a box of Linen, inside a variable of NNX."""
  return _boxes.fill(node, spec) if _boxes.is_variable(node) else spec


def _is_spec(node: Any) -> bool:
  return isinstance(node, PartitionSpec)


def _is_ours(node: Any) -> bool:
  return isinstance(node, GradQueueState | GroupScarcityState | ExampleScarcityState)
