# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Rarity by the count of a class: hand cases, dtypes of labels, and what is not counted."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import gq_optax as gq

COUNTS = jnp.array([100, 20, 400, 0])
EXPECTED = np.float32([4.0, 20.0, 1.0, 400.0])


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32"])
def test_the_largest_count_over_its_own(dtype):
  labels = jnp.array([2, 0, 1, 3], dtype)
  found = gq.class_rarity(labels, COUNTS)
  chex.assert_type(found, jnp.float32)
  np.testing.assert_array_equal(found, EXPECTED[[2, 0, 1, 3]])


def test_labels_outside_the_counts_have_rarity_one():
  found = gq.class_rarity(jnp.array([-1, 4, 2**31 - 1, -(2**31), 1]), COUNTS)
  np.testing.assert_array_equal(found, [1.0, 1.0, 1.0, 1.0, 20.0])
  largest = jnp.array([2**32 - 1, 3], jnp.uint32)
  np.testing.assert_array_equal(gq.class_rarity(largest, COUNTS), [1.0, 400.0])


def test_more_classes_than_a_small_label_holds():
  counts = jnp.arange(1, 301)
  labels = jnp.array([0, 127, -1], jnp.int8)
  np.testing.assert_allclose(gq.class_rarity(labels, counts), [300.0, 300 / 128, 1.0], rtol=1e-6)


def test_wide_labels_of_64_bits_are_not_cut():
  with jax.enable_x64(True):
    labels = jnp.array([2**32, 2**32 + 1, 1], jnp.int64)
    found = gq.class_rarity(labels, COUNTS)
  np.testing.assert_array_equal(found, [1.0, 1.0, 20.0])
  assert found.dtype == jnp.float32


def test_shares_are_as_good_as_counts():
  shares = jnp.array([0.5, 0.25, 0.0, 0.25])
  found = gq.class_rarity(jnp.arange(4), shares)
  np.testing.assert_allclose(found, [1.0, 2.0, 2.0, 2.0])
  np.testing.assert_array_equal(gq.class_rarity(jnp.arange(2), jnp.zeros(2)), 1.0)


def test_any_shape_and_any_transformation():
  labels = jnp.arange(8).reshape(4, 2) % 4
  expected = EXPECTED[np.asarray(labels)]
  np.testing.assert_array_equal(gq.class_rarity(labels, COUNTS), expected)
  np.testing.assert_array_equal(jax.jit(gq.class_rarity)(labels, COUNTS), expected)
  np.testing.assert_array_equal(jax.vmap(gq.class_rarity, (0, None))(labels, COUNTS), expected)
  assert gq.class_rarity(jnp.int32(1), COUNTS) == 20.0
  devices = min(4, jax.device_count())
  mesh = jax.make_mesh((devices,), ("b",), (AxisType.Auto,), devices=jax.devices()[:devices])
  spec = {"mesh": mesh, "in_specs": (P("b"), P()), "out_specs": P("b")}
  found = jax.jit(jax.shard_map(gq.class_rarity, **spec))(labels, COUNTS)
  np.testing.assert_array_equal(found, expected)


def test_traced_counts_that_make_no_sense_count_as_one_example():
  counts = jnp.array([50.0, -1.0, jnp.nan, jnp.inf])
  found = jax.jit(gq.class_rarity)(jnp.arange(4), counts)
  np.testing.assert_array_equal(found, [1.0, 50.0, 50.0, 50.0])
  slope = jax.grad(lambda n: jnp.sum(gq.class_rarity(jnp.arange(4), n)))(jnp.ones(4))
  np.testing.assert_array_equal(slope, 0.0)


@pytest.mark.parametrize(
  ("labels", "counts", "message"),
  [
    (jnp.ones(3), COUNTS, "labels must have an integer dtype, but float32"),
    (np.array(["a"]), COUNTS, r"labels must be numbers.*np\.unique"),
    (jnp.arange(3), jnp.float32(3.0), r"counts must be \[C\]"),
    (jnp.arange(3), jnp.zeros(0), r"counts must be \[C\]"),
    (jnp.arange(3), jnp.array([1.0, jnp.nan]), "counts must be finite and at least 0, but nan"),
  ],
)
def test_what_is_wrong_is_named(labels, counts, message):
  with pytest.raises(ValueError, match=message):
    gq.class_rarity(labels, counts)
