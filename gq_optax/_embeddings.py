# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What to cluster: low-dimensional descriptions of the examples of a batch."""

import functools
import math
import zlib

import jax
import jax.numpy as jnp
import optax

from gq_optax import _kmeans, _validate


def sketch(per_example_tree: optax.Updates, dim: int, key: jax.Array | int) -> jax.Array:
  r"""A random projection of per-example gradients that keeps inner products on average.

  .. math:: s_{b,j} = \sum_{i \equiv j \,(\mathrm{mod}\ d)} \epsilon_i\, g_{b,i}, \qquad
            \mathrm{E}\,\langle s_b, s_c \rangle = \langle g_b, g_c \rangle

  with independent random signs :math:`\epsilon_i`: a count sketch with strided buckets. It reads
  every gradient once, where it lies: neither a concatenated `[B, P]` copy nor a `[P, dim]` matrix
  exists.

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
  if not leaves:
    raise ValueError("per_example_tree must have at least one leaf, but none was found.")
  parts = []
  for path, leaf in leaves:
    name = jax.tree_util.keystr(path)
    _validate.floating(f"per_example_tree{name}", leaf)
    if leaf.ndim == 0 or leaf.shape[0] != leaves[0][1].shape[0]:
      raise ValueError(
        "every leaf of per_example_tree must have the same leading axis B, but shapes"
        f" {leaves[0][1].shape} and {leaf.shape} (at {name or 'the root'}) were found."
      )
    # The key follows the leaf's name, so that the projection of a leaf does not hang on the others.
    parts.append(_sketch_leaf(leaf, dim, jax.random.fold_in(key, zlib.crc32(name.encode()) >> 1)))
  return functools.reduce(jnp.add, parts)


def unit_sketch(per_example_tree: optax.Updates, key: jax.Array, dim: int = 64) -> jax.Array:
  """Sketches of length one: K-means on them groups gradients by direction, whatever their size."""
  return _kmeans.unit_rows(sketch(per_example_tree, dim, key))


def _sketch_leaf(leaf, dim, key):
  size = math.prod(leaf.shape[1:])
  signs = jax.random.rademacher(key, (size,), jnp.float32)
  whole = size - size % dim

  def one(gradient):
    signed = gradient.reshape(size).astype(jnp.float32) * signs
    folded = jnp.sum(signed[:whole].reshape(-1, dim), axis=0)
    return folded.at[: size - whole].add(signed[whole:])

  # A few examples at a time: XLA on CPU writes the signed gradients out before it sums them.
  return jax.lax.map(one, leaf, batch_size=16)
