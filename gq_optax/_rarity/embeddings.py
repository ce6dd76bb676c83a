# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What describes an example: the gradient of its outputs, or a sketch of its gradient."""

import functools
import math
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gq_optax import _validate
from gq_optax._rarity import lloyd


def output_gradients(
  loss_fn: Callable[..., jax.Array], outputs: jax.Array, targets: Any
) -> jax.Array:
  r"""The gradient of every example's loss by the network's outputs: what the example asks for.

  .. math:: e_i = \nabla_{o_i}\, \ell(o_i, y_i)

  For softmax cross-entropy that is the predicted probabilities minus the label. Its direction says
  which class is to be had at the cost of which others. It costs one pass over the outputs, and none
  through the network.

  Args:
    loss_fn: `(outputs, targets) -> losses [B]`, as in `optax.losses`; any dtype and any axes behind
      the first in `outputs`, as long as each example's loss hangs on its own outputs alone.
    outputs: `[B, ...]`, floating.
    targets: pytree, passed on as it is.

  Returns:
    `[B, ...]`, the shape and dtype of `outputs`; no gradient flows through it.

  Raises:
    ValueError: if `outputs` is not floating, or `loss_fn` does not return one loss per example.

  Example:
    >>> import jax.numpy as jnp
    >>> import optax
    >>> import gq_optax as gq
    >>> loss_fn = optax.losses.softmax_cross_entropy_with_integer_labels
    >>> print(gq.output_gradients(loss_fn, jnp.zeros((2, 2)), jnp.array([0, 1])))
    [[-0.5  0.5]
     [ 0.5 -0.5]]

  Reference: what `example_scarcity` and `group_scarcity` find rare classes by; docs/choosing.md.
  """
  _validate.function("loss_fn", loss_fn)
  outputs = jax.lax.stop_gradient(_validate.floating("outputs", outputs))

  def total(outputs):
    losses = _validate.floating("the result of loss_fn", loss_fn(outputs, targets))
    rule = f"one loss per example, [{outputs.shape[0]}]"
    _validate.shape("the result of loss_fn", losses, rule, outputs.shape[:1])
    return jnp.sum(losses)

  _validate.require(outputs.ndim > 0, "outputs", "be [B, ...]", "a scalar")
  return jax.lax.stop_gradient(jax.grad(total)(outputs))


def sketch(per_example_tree: optax.Updates, dim: int, key: jax.Array | int) -> jax.Array:
  r"""A random projection of per-example gradients that keeps inner products on average.

  .. math:: s_{b,j} = \sum_{i \equiv j \,(\mathrm{mod}\ d)} \epsilon_i\, g_{b,i}, \qquad
            \mathrm{E}\,\langle s_b, s_c \rangle = \langle g_b, g_c \rangle

  The signs :math:`\epsilon_i` are random and independent: a count sketch with strided buckets. It
  reads every gradient once, where it lies. No concatenated `[B, P]` copy is made, and no `[P, dim]`
  matrix.

  Args:
    per_example_tree: pytree of `[B, *p]` leaves, floating.
    dim: d, the length of a sketch; the error of a cosine is about `1 / sqrt(dim)`.
    key: int or PRNG key. The same key gives the same projection.

  Returns:
    float32 `[B, dim]`.

  Raises:
    ValueError: if the tree has no leaves, or the leaves disagree on B.

  Example:
    >>> import jax.numpy as jnp
    >>> import gq_optax as gq
    >>> gradients = {"w": jnp.ones((8, 20, 30)), "b": jnp.ones((8, 30))}
    >>> gq.sketch(gradients, 16, key=0).shape
    (8, 16)

  Reference: Charikar, Chen, Farach-Colton, Finding frequent items in data streams (2002).
  """
  dim = _validate.static_int("dim", dim, 1)
  key = _validate.prng_key("key", key)
  leaves = jax.tree_util.tree_leaves_with_path(per_example_tree)
  _validate.require(leaves, "per_example_tree", "have at least one leaf", "none")
  parts = []
  for path, leaf in leaves:
    name = jax.tree_util.keystr(path)
    leaf = _validate.floating(f"per_example_tree{name}", leaf)
    _validate.static_shape(f"per_example_tree{name}", leaf.shape)
    first = jnp.shape(leaves[0][1])
    fits = leaf.ndim > 0 and leaf.shape[:1] == first[:1]
    found = f"shapes {first} and {leaf.shape} (at {name or 'the root'})"
    rule = "have the same leading axis B"
    _validate.require(fits, "every leaf of per_example_tree", rule, found, verb="were")
    # The key follows the leaf's name, so that the projection of a leaf does not hang on the others.
    parts.append(_sketch_leaf(leaf, dim, jax.random.fold_in(key, zlib.crc32(name.encode()) >> 1)))
  return functools.reduce(jnp.add, parts)


def unit_sketch(per_example_tree: optax.Updates, key: jax.Array, dim: int = 64) -> jax.Array:
  """Sketches of length one: K-means on them groups gradients by direction, whatever their size."""
  return lloyd.unit_rows(sketch(per_example_tree, dim, key))[0]


def _sketch_leaf(leaf, dim, key):
  size = math.prod(leaf.shape[1:])
  # As `jax.random.rademacher` draws them, but in 64-bit mode the same ones.
  heads = jax.random.bernoulli(key, jnp.float32(0.5), (size,))
  signs = jnp.where(heads, jnp.float32(1.0), jnp.float32(-1.0))
  whole = size - size % dim

  def one(gradient):
    signed = gradient.reshape(size).astype(jnp.float32) * signs
    folded = jnp.sum(signed[:whole].reshape(-1, dim), axis=0)
    return folded.at[: size - whole].add(signed[whole:])

  # A few examples at a time: XLA on CPU writes the signed gradients out before it sums them.
  return jax.lax.map(one, leaf, batch_size=16)
