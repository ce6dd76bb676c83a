# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Boxes of Flax around arrays, with names for their axes: Linen's `Partitioned`, NNX's `Variable`.

They are known by what they can do, since the library works without Flax.
"""

from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

_LINEN = ("unbox", "replace_boxed", "add_axis")
_NNX = ("get_metadata", "set_metadata", "add_axis")
# What NNX calls the names of the axes: of a variable, and of what an optimizer makes for it.
_NAMES = ("out_sharding", "optimizer_sharding")


def is_linen(node: Any) -> bool:
  """A box of Linen, such as `nn.Partitioned` and `nn.LogicallyPartitioned`?"""
  return all(hasattr(type(node), name) for name in _LINEN)


def is_variable(node: Any) -> bool:
  """A variable of NNX?"""
  return all(hasattr(type(node), name) for name in _NNX)


def is_box(node: Any) -> bool:
  """A box of either?"""
  return is_linen(node) or is_variable(node)


def value(node: Any) -> Any:
  """What is in the box; anything else as it is."""
  if not is_box(node):
    return node
  inside = jax.tree.leaves(node, is_leaf=lambda x: isinstance(x, PartitionSpec))
  return inside[0] if len(inside) == 1 else None


def fill(node: Any, new: Any) -> Any:
  """The same box around something else; `new` itself where there is no box."""
  return jax.tree.unflatten(jax.tree.structure(node), [new]) if is_box(node) else new


def bare(tree: Any) -> Any:
  """The tree without boxes."""
  return jax.tree.map(value, tree, is_leaf=is_box)


def leaves_with_path(tree: Any, is_leaf: Any = None) -> list[tuple[tuple[Any, ...], Any]]:
  """As in `jax.tree_util`, but the boxes leave no trace in the paths."""
  stop = lambda node: is_box(node) or (is_leaf is not None and is_leaf(node))
  found = jax.tree_util.tree_leaves_with_path(tree, is_leaf=stop)
  return [(path, value(node)) for path, node in found]


def behind_an_axis(node: Any) -> Any:
  """The box of an array that has got one more axis in front: the names get a None there."""
  if is_linen(node):
    return node.add_axis(0, {"partition_name": None})
  if is_variable(node):
    metadata = node.get_metadata()
    for name in _NAMES:
      if metadata.get(name):
        node.set_metadata(name, _behind(metadata[name]))
    node.add_axis(0, None)  # hooks for names that are the user's own
  return node


def _behind(sharding: Any) -> Any:
  if isinstance(sharding, NamedSharding):
    return NamedSharding(sharding.mesh, PartitionSpec(None, *sharding.spec))
  names = (None, *sharding)
  return PartitionSpec(*names) if isinstance(sharding, PartitionSpec) else names
