# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""How rare is the class of this example, or its kind, where both are named and counted?"""

import jax
import jax.numpy as jnp

from gq_optax import _validate


def class_rarity(labels: jax.Array, counts: jax.Array) -> jax.Array:
  r"""How many times larger the largest class is than an example's own.

  .. math:: r_i = \frac{\max_k n_k}{n_{y_i}} \ge 1

  Named kinds count as classes do: hospitals, dialects, or pairs of class and background.

  Args:
    labels: y, any integer dtype, `[B]` or any shape. A label outside `[0, C)`, such as that of a
      kind without a name, has rarity 1.
    counts: n, `[C]`, the examples of each class in the training set, not in the batch; or its
      shares. A class that was never seen counts as one example; among shares, as the rarest class
      does.

  Returns:
    float32 in the shape of `labels`, at least 1; no gradient flows to `counts`.

  Raises:
    ValueError: if `labels` are no integers, or `counts` is not `[C]`, or holds negative numbers,
      NaN or Inf.

  Example:
    >>> import jax.numpy as jnp
    >>> import gq_optax as gq
    >>> print(gq.class_rarity(jnp.array([0, 1, 1, 2, -1]), jnp.array([900, 90, 0])))
    [  1.  10.  10. 900.   1.]

  Reference: what weights of classes are made of, `mean_one(class_rarity(labels, counts))`.
  """
  labels = _validate.integer("labels", labels)
  counts = _validate.counts("counts", counts)
  known = jnp.logical_and(labels >= 0, labels < counts.size)
  own = jnp.where(known, labels, 0).astype(jnp.int32)
  return jnp.where(known, jax.lax.stop_gradient(jnp.max(counts) / counts)[own], 1.0)
