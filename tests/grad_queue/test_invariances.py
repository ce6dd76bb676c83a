# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What must not change an update: order of examples and groups, scale; and extreme values."""

import functools

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from forms import EMBEDDINGS, FORMS, LABELS, RHO, as_form, compiled, draw

import gq_optax as gq

few = functools.partial(hypothesis.settings, deadline=None, derandomize=True)


# Invariances.


@few(max_examples=10)
@hypothesis.given(seed=st.integers(0, 10**6))
@pytest.mark.parametrize("given", [True, False])
def test_permuting_the_examples_leaves_the_update(given, seed):
  order = np.random.RandomState(seed).permutation(6)
  state, update = compiled(track=True)
  permuted_state = state
  for step in range(6):
    # Two directions: the sketches of the gradients fall into the same groups as the embeddings.
    batch = jax.tree.map(
      lambda g: (
        g[:1]
        * (np.where(LABELS == 0, 1.0, -1.0) * np.arange(1.0, 7.0)).reshape(-1, *[1] * (g.ndim - 1))
      ).astype(np.float32),
      draw(seed + step),
    )
    kwargs = {"embeddings": EMBEDDINGS} if given else {}
    permuted = {name: value[order] for name, value in kwargs.items()}
    expected, state = update(batch, state, **kwargs)
    result, permuted_state = update(
      jax.tree.map(lambda g: g[order], batch), permuted_state, **permuted
    )
    chex.assert_trees_all_close(result, expected, rtol=1e-3, atol=1e-5)
    assert sorted(permuted_state.figures.group_counts.tolist()) == [2, 4]


@few(max_examples=10)
@hypothesis.given(seed=st.integers(0, 10**6))
def test_permuting_the_groups_leaves_the_update(seed):
  state, update = compiled()
  permuted_state = state
  for step in range(6):
    groups, _ = as_form("group", draw(seed + step))
    flipped = gq.GroupGradients(
      jax.tree.map(lambda g: g[::-1].copy(), groups.grads), groups.counts[::-1].copy()
    )
    expected, state = update(groups, state)
    result, permuted_state = update(flipped, permuted_state)
    chex.assert_trees_all_close(result, expected, rtol=1e-4, atol=1e-5)


@few(max_examples=10)
@hypothesis.given(seed=st.integers(0, 10**6), exponent=st.integers(-90, 90))
@pytest.mark.parametrize("form", [*FORMS, "per_example_without_embeddings"])
def test_scaling_the_gradients_by_a_power_of_two_scales_the_update(form, seed, exponent):
  factor = np.float32(2.0**exponent)
  state, update = compiled(track=True)
  scaled_state = state
  for step in range(6):
    batch = draw(seed + step)
    scaled = jax.tree.map(lambda g: g * factor, batch)
    if form == "per_example_without_embeddings":
      (gradient, kwargs), (scaled, _) = (batch, {}), (scaled, {})
    else:
      (gradient, kwargs), (scaled, _) = as_form(form, batch), as_form(form, scaled)
    expected, state = update(gradient, state, **kwargs)
    result, scaled_state = update(scaled, scaled_state, **kwargs)
    chex.assert_trees_all_close(
      jax.tree.map(lambda u: u / factor, result), expected, rtol=1e-4, atol=1e-5
    )


# Extreme values. Of six at most 5e37 neither the sum overflows nor three times the mean.


extremes = st.sampled_from(
  [0.0, 1.0, -1.0, 1e-38, -1e-38, 1e-45, 1e-30, 1e-19, -1e19, 1e30, 5e37, -5e37, 0.1, 1e4]
)


@few(max_examples=12)
@hypothesis.given(st.lists(st.lists(extremes, min_size=6, max_size=6), min_size=6, max_size=8))
@pytest.mark.parametrize(
  ("form", "update_norm"),
  [(form, None) for form in [*FORMS, "per_example_without_embeddings"]]
  + [("mean", "match"), ("group", "match")],
)
def test_extreme_values_give_finite_bounded_updates(form, update_norm, steps):
  state, update = compiled(update_norm=update_norm, track=True)
  for step in steps:
    column = np.array(step, np.float32)
    batch = {
      "w": np.stack([column, column[::-1], *[np.roll(column, k) for k in range(4)]], axis=1),
      "b": np.stack([column, -column], axis=1),
    }
    batch["w"] = batch["w"].reshape(6, 3, 2)
    gradient, kwargs = as_form(form, batch) if form in FORMS else (batch, {})
    result, state = update(gradient, state, **kwargs)
    chex.assert_tree_all_finite((result, state))
    if update_norm is None:
      bound = jax.tree.map(lambda g: 1.01 * RHO * np.abs(g).max(axis=0) + 1e-37, batch)
      chex.assert_trees_all_equal(
        jax.tree.map(lambda u, m: np.all(np.abs(np.float64(u)) <= m), result, bound),
        {"w": True, "b": True},
      )
  assert state.queue.count == len(steps)
