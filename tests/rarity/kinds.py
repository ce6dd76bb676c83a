# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What the tests of K-means and group scarcity share: batches in which there are kinds."""

import jax.numpy as jnp
import numpy as np
import sklearn.datasets


def blobs(seed, rows=200, dim=5, centers=6, spread=2.0):
  x, _ = sklearn.datasets.make_blobs(
    rows, dim, centers=centers, cluster_std=spread, random_state=seed
  )
  return x.astype(np.float32)


def batch(*kinds, dim=4):
  """Embeddings on the axes, one for each kind listed."""
  return jnp.asarray(np.eye(dim, dtype=np.float32)[list(kinds)])


def update(scarcity, x, state):
  """Padded to one shape by masked rows, so that the tests share a few compilations."""
  missing = 24 - len(x)
  mask = jnp.arange(24) < len(x)
  weights, state = scarcity.update(jnp.pad(x, ((0, missing), (0, 0))), state, mask=mask)
  np.testing.assert_array_equal(weights[len(x) :], 0.0)
  return weights[: len(x)], state
