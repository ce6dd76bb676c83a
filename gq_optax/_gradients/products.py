# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""A convolution as a sum of products of shifted slices.

The kernel gradients of many blocks at once are then batched products, where JAX would make one
convolution of many channel groups of them, which is slow everywhere.
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp


def rule(eqn: Any, inputs: list[jax.Array]) -> list[jax.Array] | None:
  """The result of a plain convolution; None for anything else."""
  if eqn.primitive.name != "conv_general_dilated":
    return None
  options, (x, w) = eqn.params, inputs
  groups = options["feature_group_count"], options["batch_group_count"]
  if groups != (1, 1) or set(options["lhs_dilation"]) - {1}:
    return None
  lhs, rhs, out = options["dimension_numbers"]
  x, w = jnp.transpose(x, (lhs[0], *lhs[2:], lhs[1])), jnp.transpose(w, (*rhs[2:], *rhs[1::-1]))
  edges = [(0, 0, 0), *((low, high, 0) for low, high in options["padding"]), (0, 0, 0)]
  x = jax.lax.pad(x, jnp.zeros((), x.dtype), edges)
  strides, space = options["window_strides"], [eqn.outvars[0].aval.shape[d] for d in out[2:]]
  total = None
  for place in itertools.product(*map(range, w.shape[:-2])):
    start = [p * d for p, d in zip(place, options["rhs_dilation"], strict=True)]
    stop = [a + (n - 1) * s + 1 for a, n, s in zip(start, space, strides, strict=True)]
    part = jax.lax.slice(x, (0, *start, 0), (x.shape[0], *stop, x.shape[-1]), (1, *strides, 1))
    product = jax.lax.dot_general(
      part,
      w[place],
      (((x.ndim - 1,), (0,)), ((), ())),
      precision=options["precision"],
      preferred_element_type=options["preferred_element_type"],
    )
    total = product if total is None else total + product
  return [jnp.moveaxis(total, range(total.ndim), (out[0], *out[2:], out[1]))]
