# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""NumPy arrays, lists, Python numbers and all keys do as well as JAX arrays, or are named."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gq_optax as gq

RNG = np.random.RandomState(0)
X = RNG.randn(8, 3).astype(np.float32)
LABELS = np.arange(8) % 2
W = np.ones(3, np.float32)
PARAMS = {"w": W, "b": np.float32(0.5)}


def loss_fn(params, batch):
  return (batch @ params["w"] + params["b"]) ** 2


def with_embeddings(params, batch):
  return loss_fn(params, batch), batch


def lists(tree):
  """NumPy arrays as lists; those of a params tree stay, since a list is a tree there."""
  return jax.tree.map(lambda x: x.tolist(), tree)


GROUPS = gq.GroupGradients({"w": X[:2], "b": X[:2, 0]}, np.array([5, 3]), np.float32([1, 2]))
SCARCITY = gq.group_scarcity(2, 3)
TX = gq.grad_queue((1, 2), num_clusters=2, track=True)
EACH = {"w": X, "b": X[:, 0]}


def queue_step(updates, **kwargs):
  """Three steps; the state goes through NumPy in between."""

  def call(updates, **kwargs):
    state = TX.init(PARAMS)
    for _ in range(3):
      result, state = TX.update(updates, jax.tree.map(np.asarray, state), **kwargs)
    return result, state

  return call, (updates,), kwargs


def scarcity_step(x, mask):
  def call(x, mask):
    state = jax.tree.map(np.asarray, SCARCITY.init(3))
    weights, state = SCARCITY.update(x, state, mask=mask)
    return weights, SCARCITY.explain(x, jax.tree.map(np.asarray, state), 2)

  return call, (x, mask), {}


MASK = np.arange(8) < 6
CALLS = {  # a function, arguments of NumPy, and the names of those that may be lists
  "mean": (*queue_step(PARAMS, value=np.float32(1.0)), {"value"}),
  "each": (*queue_step(EACH, value=np.float32(1.0), embeddings=X), {"value", "embeddings"}),
  "groups": (*queue_step(GROUPS), set()),
  "scarcity": (*scarcity_step(X, MASK), {0, 1}),
  "kmeans": (gq.kmeans, (X, 2), {"sample_weight": LABELS}, {0, "sample_weight"}),
  "kmeans from init": (gq.kmeans, (X, 2), {"init": X[:2]}, {0, "init"}),
  "sketch": (functools.partial(gq.sketch, dim=4, key=0), (EACH,), {}, set()),
  "output": (
    lambda o, y: gq.output_gradients(lambda o, y: jnp.sum((o - y) ** 2, axis=1), o, y),
    (X, X[::-1].copy()),
    {},
    {0},
  ),
  "grouped": (gq.grouped_value_and_grad(loss_fn, 2), (PARAMS, X, LABELS), {}, {2}),
  "per example": (gq.per_example_value_and_grad(loss_fn), (PARAMS, X), {}, set()),
  "per example groups": (
    gq.per_example_value_and_grad(loss_fn, num_groups=2, microbatch_size=3),
    (PARAMS, X, LABELS),
    {},
    {2},
  ),
  "clustered": (
    gq.clustered_value_and_grad(with_embeddings, 2),
    (PARAMS, X),
    {"mask": MASK, "key": np.uint32([0, 7])},
    {"mask"},
  ),
  "noise": (gq.noise_scale, (GROUPS._replace(counts=np.array([4, 4])),), {}, set()),
  "delta": (gq.delta_rho, (X, X * 0, X * 0 + 1), {"rho": np.float32(2)}, {0, 1, 2}),
}


@pytest.mark.parametrize("name", CALLS)
def test_numpy_and_lists_without_jit_give_what_jax_arrays_do(name):
  function, args, kwargs, listed = CALLS[name]
  as_jax = lambda tree: jax.tree.map(lambda x: jnp.asarray(x) if np.ndim(x) else x, tree)
  expected = function(*as_jax(args), **as_jax(kwargs))
  found = function(*args, **kwargs)
  chex.assert_trees_all_equal(found, expected)
  chex.assert_trees_all_equal_dtypes(found, expected)
  args = [lists(x) if i in listed else x for i, x in enumerate(args)]
  kwargs = {k: lists(x) if k in listed else x for k, x in kwargs.items()}
  chex.assert_trees_all_equal(function(*args, **kwargs), expected)


def test_a_python_number_is_a_parameter_too():
  tx = gq.grad_queue(2)
  state = tx.init({"a": 1.0, "b": np.float32(2.0)})
  assert state.queue.slots["a"].shape == (2,)
  for _ in range(3):
    updates, state = tx.update({"a": 1.0, "b": jnp.float32(2.0)}, state)
  chex.assert_trees_all_equal_dtypes(updates, {"a": jnp.float32(0), "b": jnp.float32(0)})


# Keys


def keys():
  for kind in ("threefry2x32", "rbg", "unsafe_rbg"):
    typed = jax.random.key(3, impl=kind)
    yield kind, typed
    yield f"{kind} raw", jax.random.key_data(typed)
    yield f"{kind} raw, NumPy", np.asarray(jax.random.key_data(typed))


@pytest.mark.parametrize("key", [pytest.param(k, id=name) for name, k in keys()])
def test_every_kind_of_key(key):
  cold = gq.group_scarcity(2, key=key)
  weights, _ = jax.eval_shape(cold.update, X, cold.init(3))
  assert weights.shape == (8,)
  tx = gq.grad_queue(num_clusters=2, key=key)
  jax.eval_shape(tx.update, EACH, tx.init(PARAMS))
  jax.eval_shape(lambda x: gq.kmeans(x, 2, key=key), X)
  step = gq.clustered_value_and_grad(with_embeddings, 2)
  jax.eval_shape(lambda k: step(PARAMS, X, k), key)
  labels = gq.random_groups(key, 8, 2)
  assert jnp.bincount(labels).tolist() == [4, 4]
  again = jax.jit(lambda k: gq.random_groups(k, 8, 2))(key)
  np.testing.assert_array_equal(labels, again)
  # A raw key is as good as the typed one that it is the data of.
  if key.ndim and key.shape[0] == 2:
    np.testing.assert_array_equal(labels, gq.random_groups(jax.random.wrap_key_data(key), 8, 2))


def test_the_key_is_used_whatever_its_kind():
  for kind in ("threefry2x32", "rbg", "unsafe_rbg"):
    sketches = [gq.sketch(EACH, 4, jax.random.key(seed, impl=kind)) for seed in (0, 1)]
    assert np.abs(sketches[0] - sketches[1]).max() > 0.1


@pytest.mark.parametrize("default", ["rbg", "unsafe_rbg"])
def test_a_raw_key_is_of_the_default_implementation(default):
  with jax.default_prng_impl(default):
    raw = jax.random.PRNGKey(5)
    expected = gq.random_groups(jax.random.key(5), 8, 2)
    np.testing.assert_array_equal(gq.random_groups(raw, 8, 2), expected)


# Refused


NOT_REAL = [
  (jax.nn.relu, "custom_jvp"),
  ("relu", "str"),
  (3, "int32"),
  (True, "bool"),
  (1j, "complex64"),
  (np.complex64([1j]), "complex64"),
  (np.array(["a"]), "an array of dtype <U1"),
  (object(), "object"),
  (jax.random.key(0), "key<fry>"),
]


@pytest.mark.parametrize(("leaf", "found"), NOT_REAL)
def test_a_leaf_that_is_no_real_array_is_named_with_its_path(leaf, found):
  tree = {"layers": [np.ones((2, 2), np.float32), leaf]}
  tx = gq.grad_queue()
  rule = rf"\['layers'\]\[1\] must .*, but {found} was found"
  with pytest.raises(ValueError, match=rf"params: the parameter at {rule}.*Filter"):
    tx.init(tree)
  state = tx.init({"layers": [np.ones((2, 2), np.float32), np.ones(2, np.float32)]})
  with pytest.raises(ValueError, match=rf"updates: the update at {rule}"):
    tx.update(tree, state)
  for step in (gq.per_example_value_and_grad(loss_fn), gq.clustered_value_and_grad(loss_fn, 2)):
    with pytest.raises(ValueError, match=rf"params: the parameter at {rule}"):
      step(tree, X)
  if not isinstance(leaf, int | complex | jax.Array) and np.shape(leaf) == ():
    with pytest.raises(ValueError, match=rf"batch at {rule}"):
      gq.per_example_value_and_grad(loss_fn)(PARAMS, tree)


@pytest.mark.parametrize("mask", [LABELS, np.float32(LABELS), LABELS.tolist(), "x", 3, MASK[:5]])
def test_masks_are_bool(mask):
  with pytest.raises(ValueError, match="mask must be"):
    SCARCITY.update(X, SCARCITY.init(3), mask=mask)
  with pytest.raises(ValueError, match="mask must be"):
    gq.clustered_value_and_grad(with_embeddings, 2)(PARAMS, X, mask=mask)


def test_text_is_refused_with_a_way_to_labels():
  rule = "labels must be numbers, but an array of dtype <U1 was found. np.unique"
  with pytest.raises(ValueError, match=rule):
    gq.grouped_value_and_grad(loss_fn, 2)(PARAMS, X, np.array(["a"] * len(X)))
  with pytest.raises(ValueError, match=r"labels must be numbers, but list was found\. np.unique"):
    gq.grouped_value_and_grad(loss_fn, 2)(PARAMS, X, ["a"] * len(X))
  with pytest.raises(ValueError, match=r"labels must be numbers, but list was found\.$"):
    gq.grouped_value_and_grad(loss_fn, 2)(PARAMS, X, [[1], [1, 2]])
