# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Where weights meet examples: one plain product over all rows, so that its transpose is one too.

Left to `jax.vmap`, a gradient has several axes to sum over, which CPUs transpose first, and a
kernel's for many blocks at once is a convolution of many groups of channels, slow everywhere.
"""

import functools
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp


def rule(eqn: Any, inputs: Any, axes: list[int | None]) -> list[jax.Array] | None:
  """The result of an equation for many examples, axis 0 of some inputs; None if it has no rule.

  A product with a weight, and a convolution as a sum of products of shifted slices.
  """
  name, options = eqn.primitive.name, eqn.params
  if name == "dot_general" and options["dimension_numbers"][1] == ((), ()) and None in axes:
    (of_x, of_y), _ = options["dimension_numbers"]
    if axes[0] == 0:
      return [_product(inputs[0], inputs[1], of_x, of_y, options)]
    result = _product(inputs[1], inputs[0], of_y, of_x, options)
    number = inputs[1].ndim - 1 - len(of_y)  # its axes stand behind those of a weight on the left
    return [jnp.moveaxis(result, range(1, 1 + number), range(result.ndim - number, result.ndim))]
  if name == "conv_general_dilated" and axes == [0, None]:
    groups = options["feature_group_count"], options["batch_group_count"]
    if groups == (1, 1) and set(options["lhs_dilation"]) <= {1}:
      return [_convolution(inputs[0], inputs[1], options, eqn.outvars[0].aval.shape)]
  return None


def _matmul(x, w, options):
  """`[..., n] [n, m]`, the leading axes as one."""
  kind = {name: options[name] for name in ("precision", "preferred_element_type")}
  return jax.lax.dot(x.reshape(-1, w.shape[0]), w, **kind).reshape(*x.shape[:-1], w.shape[1])


def _product(x, w, of_x, of_w, options):
  """Examples `[B, ...]` and a weight, summed over some axes of each."""
  x = jnp.moveaxis(x, [d + 1 for d in of_x], range(x.ndim - len(of_x), x.ndim))
  w = jnp.moveaxis(w, of_w, range(len(of_w)))
  free, size = x.shape[: x.ndim - len(of_x)], math.prod(w.shape[: len(of_w)])
  result = _matmul(x.reshape(*free, size), w.reshape(size, -1), options)
  return result.reshape(*free, *w.shape[len(of_w) :])


def _convolution(x, w, options, shape):
  lhs, rhs, out = options["dimension_numbers"]
  x = jnp.transpose(x, (0, *(d + 1 for d in (lhs[0], *lhs[2:], lhs[1]))))
  w = jnp.transpose(w, (*rhs[2:], rhs[1], rhs[0]))
  edges = [(0, 0, 0)] * 2 + [(low, high, 0) for low, high in options["padding"]] + [(0, 0, 0)]
  x = jax.lax.pad(x, jnp.zeros((), x.dtype), edges)
  strides = options["window_strides"]

  def term(place):
    start = [p * d for p, d in zip(place, options["rhs_dilation"], strict=True)]
    spans = [(shape[d] - 1) * s + 1 for d, s in zip(out[2:], strides, strict=True)]
    stop = [a + n for a, n in zip(start, spans, strict=True)]
    limits = (0, 0, *start, 0), (*x.shape[:2], *stop, x.shape[-1])
    return _matmul(jax.lax.slice(x, *limits, (1, 1, *strides, 1)), w[place], options)

  total = functools.reduce(jnp.add, map(term, itertools.product(*map(range, w.shape[:-2]))))
  return jnp.moveaxis(total, range(1, total.ndim), [d + 1 for d in (out[0], *out[2:], out[1])])
