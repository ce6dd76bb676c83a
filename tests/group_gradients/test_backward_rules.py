# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Group gradients are the means of the examples' gradients, whatever the way back does."""

import functools

import jax
import jax.experimental.sparse
import jax.export
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gq_optax as gq

X = jax.random.normal(jax.random.key(0), (24, 4))
LABELS = np.arange(24) % 3  # the last group is left out: K = 2


def rule(backward):
  """An activation that hands its input on, with a backward rule of its own."""
  activation = jax.custom_vjp(lambda x: x)
  activation.defvjp(lambda x: (x, None), lambda _, t: (backward(t),))
  return activation


ACTIVATIONS = {
  "linear": lambda h: h,
  "clip": rule(lambda t: jnp.clip(t, -0.5, 0.5)),
  "round": rule(lambda t: jnp.round(4.0 * t) / 4.0),
  "sign": rule(jnp.sign),
  "not 0 of 0": rule(lambda t: t + 0.25),
}


def means(loss_fn, w, x, labels, num_groups):
  """A loop over `jax.grad`, in float64."""
  one = lambda w, i: loss_fn(w, x[i : i + 1])[0]
  each = np.stack([np.float64(jax.grad(one)(w, i)) for i in range(len(x))])
  return np.stack([each[labels == k].mean(axis=0) for k in range(num_groups)])


def entry_points(loss_fn, w, x, labels, num_groups):
  """Gradients of groups by each of the ways to them, and the groups."""
  yield gq.grouped_value_and_grad(loss_fn, num_groups)(w, x, labels)[1].grads, labels
  small = gq.per_example_value_and_grad(loss_fn, num_groups=num_groups, microbatch_size=5)
  yield small(w, x, labels)[1].grads, labels
  _, each = gq.per_example_value_and_grad(loss_fn)(w, x)
  member = np.arange(num_groups)[:, None] == labels[None]
  yield np.tensordot(member / member.sum(axis=1, keepdims=True), np.float64(each), 1), labels
  pair = lambda w, x: (loss_fn(w, x), x)
  (_, clusters), groups = gq.clustered_value_and_grad(pair, num_groups)(w, x)
  yield groups.grads, np.asarray(clusters.labels)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.usefixtures("each_way")
def test_rules_of_activations_are_exact(name):
  layer = ACTIVATIONS[name]
  loss_fn = lambda w, x: (
    0.5 * jnp.square(layer(x @ w[:, 0]) + jnp.sum(layer(x * w[None, :, 1]), axis=1))
  )
  w = jnp.stack([jnp.ones(4), jnp.linspace(-1.0, 1.0, 4)], axis=1)
  for found, labels in entry_points(loss_fn, w, X, LABELS, 2):
    np.testing.assert_allclose(found, means(loss_fn, w, X, labels, 2), rtol=2e-5, atol=1e-6)


def test_a_rule_of_a_parameter_sees_the_sum_over_a_group_unless_run_by_example():
  rounded, clipped = rule(lambda t: t), rule(lambda t: jnp.clip(t, -0.5, 0.5))
  for layer, exact in ((rounded, True), (clipped, False)):
    loss_fn = lambda w, x, layer=layer: 0.5 * jnp.square(x @ layer(w))
    expected = means(loss_fn, jnp.ones(4), X, LABELS, 2)
    found = gq.grouped_value_and_grad(loss_fn, 2)(jnp.ones(4), X, LABELS)[1].grads
    assert np.allclose(found, expected, rtol=1e-5) == exact
    _, each = gq.per_example_value_and_grad(loss_fn, microbatch_size=8)(jnp.ones(4), X)
    by_hand = np.stack([each[k == LABELS].mean(axis=0) for k in range(2)])
    np.testing.assert_allclose(by_hand, expected, rtol=1e-5)


@pytest.mark.parametrize("size", [2e-6, 1.5, 2e3])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.usefixtures("each_way")
def test_float16_at_both_ends(size, layers):
  """Gradients that a division in float16 would lose, and sums that pass 65,504."""
  x = jnp.asarray(1.0 + 0.25 * np.abs(X), jnp.float16)
  w = jnp.full(4, 1.0, jnp.float16)
  scale = jnp.float16(1.0) if layers == 1 else (w * jnp.float16(2.0))[None]
  loss_fn = lambda w, x: jnp.sum(x * scale * w[None], axis=1).astype(jnp.float32) * size
  labels = LABELS % 1
  expected = means(loss_fn, w, x, labels, 1)
  for found, _ in entry_points(loss_fn, w, x, labels, 1):
    assert np.isfinite(found).all()
    np.testing.assert_allclose(np.float64(found), expected, rtol=2e-3, atol=6e-8)


def test_a_mean_of_many_float16_gradients_does_not_overflow_on_its_way():
  x, w = jnp.full((512, 3), 300.0, jnp.float16), jnp.ones((3, 2), jnp.float16)
  loss_fn = lambda w, x: jnp.sum(x @ w, axis=1).astype(jnp.float32)
  groups = gq.grouped_value_and_grad(loss_fn, 1)(w, x, np.zeros(512, int))[1]
  np.testing.assert_array_equal(groups.grads, 300.0)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int64])
@pytest.mark.parametrize("num_groups", [100, 256, 300])
def test_labels_of_narrow_dtypes(dtype, num_groups):
  loss_fn = lambda w, x: jnp.sum(x * w[None], axis=1)
  labels = np.array([0, 1, 1, 2, 99, 99], dtype)
  for fn in (
    gq.grouped_value_and_grad(loss_fn, num_groups),
    gq.per_example_value_and_grad(loss_fn, num_groups=num_groups, microbatch_size=4),
  ):
    counts = np.asarray(fn(jnp.ones(4), X[:6], labels)[1].counts)
    np.testing.assert_array_equal(counts, np.bincount(labels, minlength=num_groups))


def info_nce(w, x):
  a, b = x @ w, (x + 0.1) @ w
  return -jnp.diagonal(jax.nn.log_softmax(a @ b.T))


def test_a_loss_that_compares_examples_gets_a_hint():
  w = jnp.ones((4, 3))
  calls = [
    lambda: gq.grouped_value_and_grad(info_nce, 2)(w, X, LABELS),
    lambda: gq.per_example_value_and_grad(jax.checkpoint(info_nce))(w, X),
    lambda: gq.clustered_value_and_grad(lambda w, x: (info_nce(w, x), x), 2)(w, X),
  ]
  for call in calls:
    with pytest.warns(UserWarning, match="compare the examples of a batch"):
      call()


SYMBOLIC = {
  "grouped": lambda x: gq.grouped_value_and_grad(lambda w, x: x @ w, 2)(
    X[0], x, jnp.zeros(x.shape[0], jnp.int32)
  ),
  "each": lambda x: gq.per_example_value_and_grad(lambda w, x: x @ w, microbatch_size=2)(X[0], x),
  "kmeans": lambda x: gq.kmeans(x, 2),
  "examples": lambda x: gq.example_scarcity().update(x, gq.example_scarcity().init(4)),
  "groups": lambda x: gq.group_scarcity(2).update(x, gq.group_scarcity(2).init(4)),
  "sketch": lambda x: gq.sketch(x, 2, 0),
}


@pytest.mark.parametrize("name", SYMBOLIC)
def test_a_symbolic_batch_is_refused_with_a_way_out(name):
  shape = jax.export.symbolic_shape("b, 4")
  with pytest.raises(ValueError, match="must have a static shape.*batch of fixed size"):
    jax.export.export(jax.jit(SYMBOLIC[name]))(jax.ShapeDtypeStruct(shape, jnp.float32))


def test_output_gradients_of_a_symbolic_batch():
  shape = jax.ShapeDtypeStruct(jax.export.symbolic_shape("b, 4"), jnp.float32)
  step = functools.partial(gq.output_gradients, lambda o, t: jnp.sum(o * t, axis=1))
  exported = jax.export.export(jax.jit(step))(shape, shape)
  np.testing.assert_array_equal(exported.call(X, X + 1.0), X + 1.0)


def test_what_jax_can_not_batch_is_ours_to_explain():
  def experts(w, x):
    sizes = jnp.array([x.shape[0], 0], jnp.int32)
    return jnp.sum(jax.lax.ragged_dot(x, w, sizes), axis=1)

  w = jnp.ones((2, 4, 3))
  for fn in (
    lambda: gq.per_example_value_and_grad(experts)(w, X),
    lambda: gq.grouped_value_and_grad(experts, 2)(w, X, LABELS),
  ):
    with pytest.raises(ValueError, match=r"jax\.vmap can batch.*ragged_dot.*example_scarcity"):
      fn()


def test_sparse_batches_are_refused_by_path():
  sparse = jax.experimental.sparse.BCOO.fromdense(np.eye(24, 4, dtype=np.float32), n_batch=1)
  loss_fn = lambda w, batch: batch["x"] @ w
  with pytest.raises(ValueError, match=r"dense arrays, but BCOO at \['x'\] was found.*todense"):
    gq.grouped_value_and_grad(loss_fn, 2)(jnp.ones(4), {"x": sparse}, LABELS)
  with pytest.raises(ValueError, match="embeddings must be numbers, but BCOO was found"):
    gq.example_scarcity().update(sparse, gq.example_scarcity().init(4))


@pytest.mark.several_devices
def test_explicit_axes_are_refused_with_a_way_out():
  mesh = jax.make_mesh((4,), ("d",), axis_types=(jax.sharding.AxisType.Explicit,))
  put = lambda x: jax.device_put(x, jax.NamedSharding(mesh, jax.P("d")))
  with jax.set_mesh(mesh):
    x, labels = put(X), put(LABELS)
    calls = {
      "embeddings": [gq.example_scarcity(), gq.group_scarcity(2)],
      "x": [lambda: gq.kmeans(x, 2)],
      "batch": [lambda: gq.grouped_value_and_grad(lambda w, x: x @ w, 2)(jnp.ones(4), x, labels)],
    }
    for name, functions in calls.items():
      for f in functions:
        call = f if callable(f) else lambda s=f: s.update(x, s.init(4))
        with pytest.raises(ValueError, match=rf"^{name} must .* AxisType\.Auto.*explicit.*'d'"):
          jax.jit(call)()
    _, each = jax.jit(gq.per_example_value_and_grad(lambda w, x: x @ w))(jnp.ones(4), x)
    np.testing.assert_array_equal(each, X)


def test_tree_map_params_names_the_function_for_specs():
  tx = optax.chain(gq.grad_queue(), optax.sgd(0.1))
  with pytest.raises(ValueError, match=r"optax\.tree_map_params.*gq\.partition_specs"):
    optax.tree_map_params(tx, lambda v: v, tx.init(jnp.ones(3)))
