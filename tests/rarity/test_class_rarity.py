# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Rarity by the count of a class: hand cases, dtypes of labels, and what is not counted."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import gq_optax as gq

COUNTS = np.array([100, 20, 400, 0])
EXPECTED = np.float32([4.0, 20.0, 1.0, 400.0])  # the largest count over its own
ints = lambda dtype, *labels: np.array(labels, dtype)


@pytest.mark.parametrize(
  ("labels", "counts", "expected"),
  [
    *[
      (ints(dtype, 2, 0, 1, 3), COUNTS, EXPECTED[[2, 0, 1, 3]])
      for dtype in ("int8", "uint8", "int16", "uint16", "int32", "uint32")
    ],
    # Outside the counts the rarity is 1; 300 classes are more than a small label holds.
    (ints("int32", -1, 4, 2**31 - 1, -(2**31), 1), COUNTS, [1, 1, 1, 1, 20]),
    (ints("uint32", 2**32 - 1, 3), COUNTS, [1, 400]),
    (ints("int64", 2**32, 2**32 + 1, 1), COUNTS, [1, 1, 20]),
    (ints("int8", 0, 127, -1), np.arange(1, 301), np.float32([300, 300 / 128, 1])),
    # Shares are as good as counts, and so is nothing.
    (np.arange(4), np.array([0.5, 0.25, 0.0, 0.25]), [1, 2, 2, 2]),
    (np.arange(2), np.zeros(2), [1, 1]),
  ],
)
def test_by_hand(labels, counts, expected):
  with jax.enable_x64(labels.dtype == np.int64):
    found = jax.jit(lambda labels: gq.class_rarity(labels, counts))(labels)
  chex.assert_type(found, jnp.float32)
  np.testing.assert_array_equal(found, np.float32(expected))


def test_any_shape_and_any_transformation():
  labels = np.arange(8).reshape(4, 2) % 4
  devices = min(4, jax.device_count())
  mesh = jax.make_mesh((devices,), ("b",), (AxisType.Auto,), devices=jax.devices()[:devices])
  spec = {"mesh": mesh, "in_specs": (P("b"), P()), "out_specs": P("b")}
  for way in (
    jax.jit,
    functools.partial(jax.vmap, in_axes=(0, None)),
    lambda f: jax.jit(jax.shard_map(f, **spec)),
  ):
    np.testing.assert_array_equal(way(gq.class_rarity)(labels, COUNTS), EXPECTED[labels])
  assert gq.class_rarity(jnp.int32(1), COUNTS) == 20.0


def test_traced_counts_that_make_no_sense_count_as_one_example():
  @jax.jit
  @functools.partial(jax.value_and_grad, has_aux=True)
  def run(counts):
    rarity = gq.class_rarity(jnp.arange(4), counts)
    return jnp.sum(rarity), rarity

  (_, found), _ = run(np.float32([50.0, -1.0, np.nan, np.inf]))
  np.testing.assert_array_equal(found, [1.0, 50.0, 50.0, 50.0])
  np.testing.assert_array_equal(run(np.ones(4, np.float32))[1], 0.0)
