# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Sketches of per-example gradients keep their geometry and make no large copy."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

import gq_optax as gq
from gq_optax._rarity import embeddings

KEYS = [jax.random.key(seed) for seed in range(3)]
sketch = jax.jit(gq.sketch, static_argnums=1)
unit_sketch = jax.jit(embeddings.unit_sketch, static_argnums=2)


def gradients(seed=0):
  rng = np.random.default_rng(seed)
  draw = lambda *shape: rng.normal(size=(16, *shape)).astype(np.float32)
  # The bias is shorter than a sketch.
  return {"conv": draw(3, 3, 8, 16), "dense": draw(40, 33), "bias": draw(5)}


def flat(tree):
  return np.concatenate([np.asarray(x).reshape(x.shape[0], -1) for x in jax.tree.leaves(tree)], 1)


def test_inner_products_are_unbiased():
  tree = gradients()
  exact = flat(tree) @ flat(tree).T
  sketches = np.stack([sketch(tree, 32, key) for key in jax.random.split(KEYS[0], 300)])
  samples = sketches @ sketches.transpose(0, 2, 1)
  error = np.abs(samples.mean(0) - exact) / (samples.std(0) / 300**0.5 + 1e-3)
  assert error.max() < 5.0  # standard errors


def test_cosines_are_kept_and_zero_gradients_have_a_zero_sketch():
  near = jax.tree.map(
    lambda x: np.concatenate([x[:8], x[:8] + 0.3 * np.roll(x[:8], 1, axis=0)]), gradients()
  )
  unit = np.asarray(unit_sketch(near, KEYS[0], 256))
  np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1.0, rtol=1e-5)
  exact = flat(near)
  exact = exact / np.linalg.norm(exact, axis=1, keepdims=True)
  assert np.abs(unit @ unit.T - exact @ exact.T).max() < 5 / 256**0.5
  zeros = jax.tree.map(np.zeros_like, near)
  np.testing.assert_array_equal(unit_sketch(zeros, KEYS[0], 256), 0.0)


def test_no_copy_of_all_gradients():
  shape = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
  tree = {"w": shape(256, 300, 200), "b": shape(256, 200)}
  compiled = sketch.lower(tree, 64, KEYS[0]).compile()
  gradient_bytes = 256 * 300 * 200 * 4
  assert compiled.memory_analysis().temp_size_in_bytes < 0.1 * gradient_bytes


def test_every_number_has_its_place():
  two_rows_and_six = np.eye(70, dtype=np.float32)
  found = np.abs(sketch(two_rows_and_six, 32, KEYS[0]))
  np.testing.assert_array_equal(found.sum(axis=1), 1.0)


def test_output_gradients_of_losses():
  rng, labels = np.random.default_rng(0), np.arange(6) % 3
  logits = rng.normal(size=(6, 3)).astype(np.float32)
  of = lambda loss_fn: jax.jit(functools.partial(gq.output_gradients, loss_fn))
  softmax = of(optax.losses.softmax_cross_entropy_with_integer_labels)
  expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True) - np.eye(3)[labels]
  np.testing.assert_allclose(softmax(logits, labels), expected, atol=1e-6)
  targets = (labels > 0).astype(np.float32)
  binary = of(optax.losses.sigmoid_binary_cross_entropy)(logits[:, 0], targets)
  np.testing.assert_allclose(binary, 1 / (1 + np.exp(-logits[:, 0])) - targets, atol=1e-6)
  squared = of(lambda outputs, targets: jnp.sum(0.5 * jnp.square(outputs - targets), axis=(1, 2)))
  outputs = rng.normal(size=(4, 2, 3)).astype(jnp.bfloat16)
  zeros = np.zeros_like(outputs)
  residual = squared(outputs, zeros)
  assert residual.dtype == jnp.bfloat16
  np.testing.assert_array_equal(residual, outputs)
  slope = jax.jit(jax.grad(lambda x: jnp.sum(squared(x, zeros))))(outputs)
  np.testing.assert_array_equal(slope, 0.0)


def test_shape_dtype_and_determinism():
  tree = gradients()
  first, second = (sketch(tree, 32, key) for key in KEYS[:2])
  chex.assert_shape(first, (16, 32))
  chex.assert_type(first, jnp.float32)
  assert not np.allclose(first, second)
  # An int is a key; and the projection of a leaf does not depend on the other leaves.
  alone = gq.sketch({"bias": tree["bias"]}, 32, key=1)
  rest = {name: np.zeros_like(leaf) for name, leaf in tree.items()}
  np.testing.assert_array_equal(sketch({**rest, "bias": tree["bias"]}, 32, KEYS[1]), alone)
  with jax.enable_x64(True):  # which changes no sign
    np.testing.assert_array_equal(sketch(tree, 32, KEYS[0]), first)
