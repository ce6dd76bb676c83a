# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Derivatives through a training, checkify, and the named axes of shard_map and pmap."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from chains import queue_sgd, tail_probability
from jax.experimental import checkify
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import gq_optax as gq

# Derivatives


def loss_after(make, rate, steps=5):
  """The loss after some steps of a quadratic; the second weight feeds a dead unit."""
  tx, w = make(rate), jnp.array([1.0, 1.0])
  state = tx.init(w)
  for t in range(steps):
    gradient = jnp.array([w[0] * (t + 1.0), w[1] * 0.0])
    updates, state = tx.update(gradient, state, w, value=jnp.sum(w**2))
    w = optax.apply_updates(w, updates)
  return jnp.sum(w**2)


EVERYTHING = {"queue_length": (1, 3), "update_norm": "match", "track": True}


@pytest.mark.parametrize("options", [{}, EVERYTHING, {"scarcity": tail_probability}])
def test_the_derivative_by_the_learning_rate_is_right(options):
  make = lambda rate: queue_sgd(rate, None, **options)
  run = jax.jit(functools.partial(loss_after, make))
  found = jax.jit(jax.grad(run))(0.01)
  forward = jax.jit(lambda x: jax.jvp(run, (x,), (1.0,))[1])(0.01)
  eps = 1e-3
  expected = (run(0.01 + eps) - run(0.01 - eps)) / (2 * eps)
  np.testing.assert_allclose(found, expected, rtol=2e-2)
  np.testing.assert_allclose(forward, found, rtol=1e-4)


@pytest.mark.parametrize("options", [{}, EVERYTHING])
def test_without_weights_the_derivative_is_that_of_sgd(options):
  with_queue = lambda rate: queue_sgd(rate, None, rho=1.0, **options)
  found = jax.jit(jax.grad(functools.partial(loss_after, with_queue)))(0.01)
  plain = functools.partial(loss_after, lambda r: optax.with_extra_args_support(optax.sgd(r)))
  np.testing.assert_allclose(found, jax.jit(jax.grad(plain))(0.01), rtol=1e-5)


def test_the_derivative_through_clusters_and_a_queue_of_equal_gradients_is_finite():
  def run(scale):
    tx = gq.grad_queue(1, num_clusters=2, track=True, update_norm="match")
    state, total = tx.init(jnp.zeros(2)), 0.0
    for t in range(3):
      each = scale * jnp.array([[1.0, 0.0], [1.0, 0.0], [3.0 + t, 0.0]])
      updates, state = tx.update(each, state)
      total += jnp.sum(updates)
    return total

  assert jnp.isfinite(jax.jit(jax.grad(run))(2.0))
  for function in (gq.delta_rho,):
    args = jnp.array([1.0, 1.0, 2.0]), jnp.ones(3), jnp.array([0.0, 1.0, 0.0])
    gradients = jax.grad(
      lambda *a, f=function: jnp.sum(jnp.where(a[2] > 0.0, f(*a), 0.0)), (0, 1, 2)
    )
    chex.assert_tree_all_finite(gradients(*args))


def quadratic(scale):
  """A loss that holds two steps of a queue inside."""
  tx = queue_sgd(0.1, None, queue_length=1)
  w = jnp.array([1.0, -2.0])
  state = tx.init(w)
  for t in range(4):
    updates, state = tx.update(scale * w * (1.0 + t), state, w)
    w = optax.apply_updates(w, updates)
  return jnp.sum(w**2)


def test_linearize_checkpoint_and_vmap_of_vmap_of_a_loss_that_holds_updates():
  x = jnp.array([[0.5, 0.7, 0.9], [1.1, 1.3, 1.5]])
  slope = jax.jit(jax.grad(quadratic))
  _, linear = jax.linearize(quadratic, 0.7)
  np.testing.assert_allclose(linear(1.0), slope(0.7), rtol=1e-5)
  np.testing.assert_allclose(jax.grad(jax.checkpoint(quadratic))(0.7), slope(0.7), rtol=1e-5)
  both = jax.jit(jax.vmap(jax.vmap(jax.value_and_grad(quadratic))))(x)
  for i, j in np.ndindex(x.shape):
    np.testing.assert_allclose(both[0][i, j], quadratic(x[i, j]), rtol=1e-5)
    np.testing.assert_allclose(both[1][i, j], slope(x[i, j]), rtol=1e-4)


# Everything public, on a few rows


X = jax.random.normal(jax.random.key(0), (8, 4)).at[0].set(0.0).at[5].set(jnp.ones(4))
X = X.at[4].set(jnp.ones(4))
LABELS = jnp.array([0, 2, 0, 2, 2, 0, 2, 0])  # group 1 is empty
W = jnp.ones(4)


def loss_fn(w, x):
  return jnp.square(x @ w)


def with_embeddings(w, x):
  return loss_fn(w, x), x


def through_queue(options, updates, **kwargs):
  tx = gq.grad_queue(**options)
  state = tx.init(W)
  for _ in range(3):
    result, state = tx.update(updates, state, W, **kwargs)
  return result, state.queue.slots, gq.diagnostics(state) if options.get("track") else ()


def everything(x, labels):
  """What each public function makes of a batch; leaves of any shape."""
  groups = gq.GroupGradients(x[:3], jnp.array([0, 2, 3]), x[:3, 0])
  cosine = gq.group_scarcity(3, 2)
  pooled = gq.group_scarcity(3, 2, metric="euclidean", pooling=0.5, max_weight=3.0)
  queue = {"num_clusters": 2, "track": True, "update_norm": "match"}
  result = {
    "kmeans": gq.kmeans(x, 2, metric="cosine"),
    "kmeans from init": gq.kmeans(x, 2, init=x[:2], sample_weight=labels),
    "sketch": gq.sketch({"a": x}, 3, 0),
    "outputs": gq.output_gradients(lambda o, t: jnp.sum((o - t) ** 2, axis=1), x, x[::-1]),
    "per example": gq.per_example_value_and_grad(loss_fn)(W, x),
    "per group": gq.per_example_value_and_grad(loss_fn, num_groups=3, microbatch_size=2)(
      W, x, labels
    ),
    "mean": through_queue({"queue_length": 2}, x[0]),
    "adaptive": through_queue({"queue_length": (1, 2), "update_norm": 1.5}, x[0], value=x[0, 0]),
    "each": through_queue(queue, x),
    "groups": through_queue({"queue_length": (1, 2)}, groups),
    "noise": gq.noise_scale(groups._replace(counts=jnp.array([2, 2, 2]))),
    "random": gq.random_groups(0, 8, 3),
    "delta_rho": gq.delta_rho(x, x * 0, x * 0),
  }
  for name, scarcity in {"cosine": cosine, "pooled": pooled}.items():
    weights, state = scarcity.update(x, scarcity.init(4))
    again, state = scarcity.update(x[::-1], state)
    result[name] = weights, again, gq.diagnostics(state), scarcity.explain(x, state, 2)
  return result


@pytest.mark.parametrize(
  ("errors", "platform"),
  [
    (checkify.float_checks, "cpu"),
    (checkify.index_checks, "cpu"),
    (checkify.index_checks, "cuda"),
  ],
)
def test_checkify_raises_no_false_alarm(errors, platform, monkeypatch):
  """In what is lowered for each platform, run here."""
  chosen = lambda *args, default, **ways: ways.get(platform, default)(*args)
  monkeypatch.setattr(jax.lax, "platform_dependent", chosen)
  jax.clear_caches()  # K-means may have been traced for another platform
  error, _ = jax.jit(checkify.checkify(everything, errors=errors))(X, LABELS.at[0].set(-1))
  assert error.get() is None


def test_checkify_still_sees_a_real_fault():
  step = lambda g: through_queue({"queue_length": 2}, g)[0]
  error, _ = checkify.checkify(step, errors=checkify.nan_checks)(jnp.log(X[1] - 9.0))
  assert "nan" in error.get()


# Named axes


def make_mesh(devices=4, name="b"):
  return jax.make_mesh((devices,), (name,), (AxisType.Auto,), devices=jax.devices()[:devices])


def stacked(function):
  return lambda *args: jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], function(*args))


@pytest.mark.several_devices
def test_shard_map_with_its_default_checks_gives_each_device_its_own():
  x, labels = jnp.concatenate([X, X[::-1] * 2.0]), jnp.concatenate([LABELS, LABELS])
  spec = {"mesh": make_mesh(2), "in_specs": (P("b"), P("b")), "out_specs": P("b")}
  found = jax.jit(jax.shard_map(stacked(everything), **spec))(x, labels)
  alone = jax.jit(everything)
  for device in range(2):
    rows = slice(8 * device, 8 * device + 8)
    own = jax.tree.map(lambda leaf, d=device: leaf[d], found)
    chex.assert_trees_all_close(own, alone(x[rows], labels[rows]), rtol=1e-4, atol=1e-5)


KINDS = jnp.repeat(jnp.arange(2), jnp.array([56, 8]), total_repeat_length=64)
ROWS = jax.nn.one_hot(KINDS, 4) + 0.01 * jax.random.normal(jax.random.key(0), (64, 4))
MASK = jnp.arange(64) != 60


@pytest.mark.several_devices
def test_groups_over_devices_are_those_of_one():
  alone, over = gq.group_scarcity(2, 3), gq.group_scarcity(2, 3, axis_name="b")
  weights, state = alone.update(ROWS, alone.init(4), mask=MASK)
  np.testing.assert_allclose(weights[-1] / weights[0], 8.0, rtol=0.2)
  _, state = alone.update(ROWS * 2.0, state)
  weights, state = alone.update(ROWS, state, mask=MASK)

  def train(rows, mask, state):
    _, state = over.update(rows, state, mask=mask)
    _, state = over.update(rows * 2.0, state)
    return over.update(rows, state, mask=mask)

  # The state comes out as one that is the same on all devices: JAX checks that.
  spec = {"mesh": make_mesh(), "in_specs": (P("b"), P("b"), P()), "out_specs": (P("b"), P())}
  found = jax.jit(jax.shard_map(train, **spec))(ROWS, MASK, alone.init(4))
  chex.assert_trees_all_close(found, (weights, state), rtol=1e-5, atol=1e-6)

  copies = jax.tree.map(lambda leaf: jnp.stack([leaf] * 4), alone.init(4))
  parts = (ROWS.reshape(4, 16, 4), MASK.reshape(4, 16), copies)
  for mapped in (jax.pmap(train, axis_name="b"), jax.jit(jax.vmap(train, axis_name="b"))):
    by_device, states = mapped(*parts)
    chex.assert_trees_all_close(by_device.reshape(64), weights, rtol=1e-5, atol=1e-6)
    for device in range(4):
      own = jax.tree.map(lambda leaf, d=device: leaf[d], states)
      chex.assert_trees_all_close(own, state, rtol=1e-5, atol=1e-6)


@pytest.mark.several_devices
def test_groups_over_two_axes():
  over = gq.group_scarcity(2, axis_name=("a", "b"))
  mesh = jax.make_mesh((2, 2), ("a", "b"), (AxisType.Auto,) * 2, devices=jax.devices()[:4])
  cut = P(("a", "b"))
  spec = {"mesh": mesh, "in_specs": (cut, P()), "out_specs": (cut, P())}
  found = jax.jit(jax.shard_map(over.update, **spec))(ROWS, over.init(4))
  alone = gq.group_scarcity(2)
  chex.assert_trees_all_close(found, alone.update(ROWS, alone.init(4)), rtol=1e-5, atol=1e-6)


@pytest.mark.several_devices
@pytest.mark.parametrize("form", ["mean", "group"])
def test_the_queue_of_parameters_cut_over_devices_is_that_of_one(form):
  options = {"queue_length": 2, "update_norm": "match", "track": True, "num_clusters": 2}
  if form == "mean":
    del options["num_clusters"]
  alone, over = gq.grad_queue(**options), gq.grad_queue(**options, axis_name="b")
  params = {"w": jnp.zeros((8, 3)), "b": jnp.zeros(4)}
  draw = lambda key: {
    "w": jax.random.normal(key, (2, 8, 3)) * jnp.arange(1.0, 9.0)[None, :, None],
    "b": jax.random.normal(key, (2, 4)),
  }
  batches = [draw(jax.random.key(i)) for i in range(4)]
  batches[2]["w"] = batches[2]["w"].at[0, 7, 0].set(jnp.nan)  # on the last device alone

  def train(tx, batches, state):
    results = []
    for grads in batches:
      mean = jax.tree.map(lambda g: (3.0 * g[0] + g[1]) / 4.0, grads)
      updates = mean if form == "mean" else gq.GroupGradients(grads, jnp.array([3, 1]))
      result, state = tx.update(updates, state)
      results.append(result)
    return results, state

  expected = jax.jit(functools.partial(train, alone))(batches, alone.init(params))
  assert expected[1].queue.count == 3
  cut = gq.partition_specs(alone.init(params), {"w": P("b"), "b": P("b")})
  rows = {"w": P(None, "b"), "b": P(None, "b")}
  spec = {
    "mesh": make_mesh(),
    "in_specs": ([rows] * 4, cut),
    "out_specs": ([{"w": P("b"), "b": P("b")}] * 4, cut),
  }
  found = jax.jit(jax.shard_map(functools.partial(train, over), **spec))(batches, over.init(params))
  chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("axis_name", [3, "", (), ("b", 1), ["b"], True])
def test_an_axis_has_a_name(axis_name):
  for make in (gq.grad_queue, functools.partial(gq.group_scarcity, 2)):
    with pytest.raises(ValueError, match="axis_name must be the name of an axis"):
      make(axis_name=axis_name)


@pytest.mark.several_devices
def test_grouped_gradients_under_shard_map_are_each_device_s_own():
  def often(w, x):  # every weight works 16 times for an example, which wants another loop
    return jnp.sum(jnp.square(jnp.einsum("btd,d->bt", jnp.stack([x] * 16, axis=1), w)), axis=1)

  def groups(x, labels):
    return (
      gq.grouped_value_and_grad(loss_fn, 3)(W, x, labels),
      gq.grouped_value_and_grad(often, 3)(W, x, labels),
      gq.clustered_value_and_grad(with_embeddings, 2)(W, x),
    )

  x, labels = jnp.concatenate([X, X[::-1] * 2.0]), jnp.concatenate([LABELS, LABELS])
  spec = {"mesh": make_mesh(2), "in_specs": (P("b"), P("b")), "out_specs": P("b")}
  found = jax.jit(jax.shard_map(stacked(groups), **spec))(x, labels)
  for device in range(2):
    rows = slice(8 * device, 8 * device + 8)
    own = jax.tree.map(lambda leaf, d=device: leaf[d], found)
    chex.assert_trees_all_close(own, groups(x[rows], labels[rows]), rtol=1e-4, atol=1e-5)
