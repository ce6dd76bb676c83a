# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What to group by, which examples a group holds, and the figures of group scarcity."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from kinds import batch, update

import gq_optax as gq


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


def test_output_gradients_stop_and_check():
  squares = lambda outputs, targets: jnp.square(outputs - targets)
  through = lambda x: jnp.sum(gq.output_gradients(squares, x, jnp.zeros(3)))
  np.testing.assert_array_equal(jax.grad(through)(jnp.ones(3)), 0.0)
  with pytest.raises(ValueError, match=r"one loss per example, \[3\], but shape \(\)"):
    gq.output_gradients(lambda o, t: jnp.sum(o), jnp.ones((3, 2)), None)
  with pytest.raises(ValueError, match="outputs must have a real floating dtype"):
    gq.output_gradients(squares, jnp.ones(3, jnp.int32), jnp.zeros(3))
  with pytest.raises(ValueError, match=r"outputs must be \[B, ...\], but a scalar"):
    gq.output_gradients(squares, jnp.float32(1.0), jnp.float32(0.0))


# Explanations and diagnostics


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_explained_groups_name_their_nearest_examples(metric):
  x = np.array([[1, 0], [1, 0.2], [1, 0.1], [0, 1], [np.nan, 0], [1, 0.05]], np.float32)
  scarcity = gq.group_scarcity(2, metric=metric)
  _, state = scarcity.update(jnp.asarray(x), scarcity.init(2))
  explain = jax.jit(scarcity.explain, static_argnames="num_examples")
  groups = explain(jnp.asarray(x), state, num_examples=3)
  rare, frequent = groups.rarest_first
  assert groups.indices[rare].tolist() == [3, -1, -1]
  assert groups.indices[frequent].tolist()[:1] in ([2], [5])
  assert sorted(groups.sizes.tolist()) == [1, 4]
  assert float(groups.shares[rare]) == pytest.approx(0.2)
  assert groups.weights[rare] > groups.weights[frequent]
  centroid = np.asarray(state.centroids)[frequent]
  for index, distance in zip(groups.indices[frequent], groups.distances[frequent], strict=True):
    row = x[index]
    expected = (
      1 - row @ centroid / np.linalg.norm(row)
      if metric == "cosine"
      else ((row - centroid) ** 2).sum()
    )
    assert float(distance) == pytest.approx(expected, abs=1e-6)
  assert (np.diff(groups.distances[frequent]) >= 0).all()
  few = scarcity.explain(jnp.asarray(x[:2]), state, num_examples=4)
  chex.assert_shape(few.indices, (2, 4))


def test_figures_of_group_scarcity():
  kinds = [0] * 16 + [1] * 3 + [2]
  scarcity = gq.group_scarcity(4, 3)
  state = scarcity.init(4)
  for _ in range(2):
    weights, state = update(scarcity, batch(*kinds), state)
  figures = gq.diagnostics({"groups": state})
  chex.assert_shape(list(figures.values()), ())
  shares = sorted(float(figures[f"group_share/{k}"]) for k in range(4))
  assert shares == pytest.approx([0, 1 / 20, 3 / 20, 16 / 20])
  assert (figures["groups_seen"], figures["grouped_steps"]) == (3, 2)
  w = np.asarray(weights, np.float64)
  np.testing.assert_allclose(figures["effective_examples"], w.sum() ** 2 / (w**2).sum(), rtol=1e-5)
  np.testing.assert_allclose(figures["rarest_tenth"], np.sort(w)[-2:].sum() / w.sum(), rtol=1e-5)
  ages = sorted(float(figures[f"group_age/{k}"]) for k in range(4))
  assert ages == [1, 1, 1, 2]  # the group that stays empty was never seeded
