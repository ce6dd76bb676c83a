# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Named axes of `jax.shard_map` and `jax.pmap`: what a loop carries, and what all devices share."""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp

T = TypeVar("T")
AxisName = str | tuple[str, ...]


def alike(carry: T, *others: Any) -> T:
  """What a loop carries, made to vary over every axis that it or anything else varies over.

  `shard_map` tells constants from what differs between devices, and a loop must carry the same kind
  from step to step. Elsewhere nothing varies, and nothing is done.
  """
  over = frozenset().union(*(varies_over(x) for x in jax.tree.leaves((carry, others))))

  def leaf(x):
    missing = tuple(sorted(over - varies_over(x)))
    return jax.lax.pcast(x, missing, to="varying") if missing else x

  return jax.tree.map(leaf, carry)


def varies_over(x: jax.Array) -> frozenset[str]:
  """The axes of `shard_map` over which an array differs between devices."""
  kind: Any = jax.typeof(x)
  # The first name is that of older versions of JAX.
  return kind.vma if hasattr(kind, "vma") else kind.manual_axis_type.varying


def gather(x: jax.Array, axis_name: AxisName | None) -> jax.Array:
  """The rows of all devices, the same on all of them."""
  if axis_name is None:
    return x
  # Under the checks of `shard_map` the result is to leave it as one that is the same everywhere.
  checked: Any = {"to": "invarying"} if varies_over(x) else {}
  return jax.lax.all_gather(x, axis_name, tiled=True, **checked)


def own(x: jax.Array, axis_name: AxisName | None, rows: int) -> jax.Array:
  """This device's rows of what was gathered."""
  if axis_name is None:
    return x
  return jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index(axis_name) * rows, rows)


def everywhere(flag: jax.Array, axis_name: AxisName | None) -> jax.Array:
  """Is it so on all devices?"""
  if axis_name is None:
    return flag
  return jax.lax.pmin(flag.astype(jnp.int32), axis_name) > 0


def largest(x: jax.Array, axis_name: AxisName | None) -> jax.Array:
  """The maximum over the devices."""
  return x if axis_name is None else jax.lax.pmax(x, axis_name)


def total(x: jax.Array, axis_name: AxisName | None) -> jax.Array:
  """The sum over the devices."""
  return x if axis_name is None else jax.lax.psum(x, axis_name)
