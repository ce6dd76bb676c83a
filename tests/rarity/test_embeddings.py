# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Sketches of per-example gradients keep their geometry and make no large copy."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

import gq_optax as gq
from gq_optax._rarity import embeddings


def gradients(batch=16, seed=0):
  keys = jax.random.split(jax.random.key(seed), 3)
  return {
    "conv": jax.random.normal(keys[0], (batch, 3, 3, 8, 16)),
    "dense": jax.random.normal(keys[1], (batch, 40, 33)),
    "bias": jax.random.normal(keys[2], (batch, 5)),  # shorter than a sketch
  }


def flat(tree):
  return np.concatenate([np.asarray(x).reshape(x.shape[0], -1) for x in jax.tree.leaves(tree)], 1)


def test_shape_dtype_and_determinism():
  tree = gradients()
  sketch = gq.sketch(tree, 32, key=1)
  chex.assert_shape(sketch, (16, 32))
  chex.assert_type(sketch, jnp.float32)
  chex.assert_trees_all_equal(sketch, gq.sketch(tree, 32, key=jax.random.key(1)))
  assert not np.allclose(sketch, gq.sketch(tree, 32, key=2))


def test_linear():
  a, b = gradients(seed=0), gradients(seed=1)
  total = jax.tree.map(lambda x, y: 2.0 * x - y, a, b)
  expected = 2.0 * gq.sketch(a, 24, key=0) - gq.sketch(b, 24, key=0)
  np.testing.assert_allclose(gq.sketch(total, 24, key=0), expected, rtol=1e-3, atol=1e-3)


def test_inner_products_are_unbiased():
  tree = gradients(batch=4)
  exact = flat(tree) @ flat(tree).T
  draw = jax.jit(lambda key: (s := gq.sketch(tree, 64, key)) @ s.T)
  samples = np.stack([draw(jax.random.key(k)) for k in range(300)])
  error = np.abs(samples.mean(0) - exact) / (samples.std(0) / 300**0.5 + 1e-3)
  assert error.max() < 5.0  # standard errors


def test_cosines_are_kept():
  base = gradients(batch=8)
  near = jax.tree.map(lambda x: x + 0.3 * jnp.roll(x, 1, axis=0), base)
  both = jax.tree.map(lambda x, y: jnp.concatenate([x, y]), base, near)
  unit = embeddings.unit_sketch(both, jax.random.key(0), dim=256)
  np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1.0, rtol=1e-5)
  exact = flat(both)
  exact = exact / np.linalg.norm(exact, axis=1, keepdims=True)
  assert np.abs(unit @ unit.T - exact @ exact.T).max() < 5 / 256**0.5


def test_zero_gradients_have_a_zero_sketch():
  zeros = jax.tree.map(jnp.zeros_like, gradients())
  np.testing.assert_array_equal(embeddings.unit_sketch(zeros, jax.random.key(0)), 0.0)


def test_no_copy_of_all_gradients():
  tree = {"w": jnp.zeros((256, 300, 200)), "b": jnp.zeros((256, 200))}
  compiled = jax.jit(lambda t: gq.sketch(t, 64, key=0)).lower(tree).compile()
  gradient_bytes = 256 * 300 * 200 * 4
  assert compiled.memory_analysis().temp_size_in_bytes < 0.1 * gradient_bytes


def test_leaf_projection_does_not_depend_on_other_leaves():
  tree = gradients()
  alone = gq.sketch({"bias": tree["bias"]}, 32, key=0)
  rest = {name: jnp.zeros_like(leaf) for name, leaf in tree.items() if name != "bias"}
  np.testing.assert_array_equal(gq.sketch({**rest, "bias": tree["bias"]}, 32, key=0), alone)


def test_64_bit_mode_changes_no_sign():
  tree = gradients(batch=4)
  with jax.enable_x64(True):
    wide = gq.sketch(tree, 8, key=0)
  np.testing.assert_array_equal(wide, gq.sketch(tree, 8, key=0))


def test_output_gradients_of_losses():
  key = jax.random.key(0)
  logits, labels = jax.random.normal(key, (6, 3)), jnp.arange(6) % 3
  softmax = optax.losses.softmax_cross_entropy_with_integer_labels
  expected = jax.nn.softmax(logits) - jax.nn.one_hot(labels, 3)
  np.testing.assert_allclose(gq.output_gradients(softmax, logits, labels), expected, atol=1e-6)
  targets = (labels > 0).astype(jnp.float32)
  binary = gq.output_gradients(optax.losses.sigmoid_binary_cross_entropy, logits[:, 0], targets)
  np.testing.assert_allclose(binary, jax.nn.sigmoid(logits[:, 0]) - targets, atol=1e-6)
  squared = lambda outputs, targets: jnp.sum(0.5 * jnp.square(outputs - targets), axis=(1, 2))
  outputs = jax.random.normal(key, (4, 2, 3), jnp.bfloat16)
  residual = gq.output_gradients(squared, outputs, jnp.zeros((4, 2, 3), jnp.bfloat16))
  assert residual.dtype == jnp.bfloat16
  np.testing.assert_array_equal(residual, outputs)
  through = lambda x: jnp.sum(gq.output_gradients(squared, x, jnp.zeros((4, 2, 3))))
  np.testing.assert_array_equal(jax.grad(through)(jnp.ones((4, 2, 3))), 0.0)


def test_every_number_has_its_place():
  sketch = gq.sketch(jnp.eye(70), 32, key=0)  # two whole rows of a sketch, and six numbers
  np.testing.assert_array_equal(np.abs(sketch).sum(axis=1), 1.0)
