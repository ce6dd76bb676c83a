# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Group gradients are the means of the examples' gradients, whatever the way back does."""

import functools

import chex
import jax
import jax.experimental.sparse
import jax.export
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from grouped_networks import means

import gq_optax as gq

X = np.random.default_rng(0).normal(size=(24, 4)).astype(np.float32)
LABELS = np.arange(24) % 3  # of two groups: the last is left out


def rule(backward):
  """An activation that hands its input on, with a backward rule of its own."""
  activation = jax.custom_vjp(lambda x: x)
  activation.defvjp(lambda x: (x, None), lambda _, t: (backward(t),))
  return activation


RULES = [
  lambda t: t,
  lambda t: jnp.clip(t, -0.5, 0.5),
  lambda t: jnp.round(4.0 * t) / 4.0,
  jnp.sign,
  lambda t: t + 0.25,  # not 0 of 0
]
each_its_rule = rule(lambda t: jnp.stack([f(t[..., i]) for i, f in enumerate(RULES)], axis=-1))
small = functools.partial(gq.per_example_value_and_grad, microbatch_size=5)
clustered = lambda loss_fn, k: gq.clustered_value_and_grad(lambda w, b: (loss_fn(w, b), b["x"]), k)
ENTRIES = {
  "grouped": gq.grouped_value_and_grad,
  "microbatches": lambda loss_fn, k: small(loss_fn, num_groups=k),
  "clustered": lambda loss_fn, k: lambda w, batch, _: clustered(loss_fn, k)(w, batch),
  "each": lambda loss_fn, _: lambda w, batch, _: small(loss_fn)(w, batch),
}
PAIRS = [("cpu", entry) for entry in ("grouped", "microbatches", "each")]
PAIRS += [("accelerator", "grouped"), pytest.param("cpu", "clustered", marks=pytest.mark.slow)]
by_entries = pytest.mark.parametrize(("each_way", "entry"), PAIRS, indirect=["each_way"])


@functools.cache
def by_example(loss_fn):
  """`jax.grad` of one example after another."""
  loss = lambda w, row: loss_fn(w, jax.tree.map(lambda x: x[None], row))[0]
  return jax.jit(lambda w, batch: jax.lax.map(lambda row: jax.grad(loss)(w, row), batch))


def assert_exact(entry, loss_fn, num_groups, w, batches, **tolerance):
  """Holds gradients to the means, in float64, of those by example."""
  labels = LABELS if num_groups == 2 else 0 * LABELS
  run = jax.jit(ENTRIES[entry](loss_fn, num_groups))
  for batch in batches:
    (value, found), expected = run(w, batch, labels), by_example(loss_fn)(w, batch)
    expected = jax.tree.map(np.float64, expected)
    if entry != "each":
      own = labels if entry != "clustered" else np.asarray(value[1].labels)
      of_groups = lambda each, own=own: means(each, own, num_groups)
      found, expected = found.grads, jax.tree.map(of_groups, expected)
    chex.assert_tree_all_finite(found)
    chex.assert_trees_all_close(jax.tree.map(np.float64, found), expected, **tolerance)


def of_rules(w, batch):
  x = batch["x"]
  once, often = each_its_rule(x @ w[:, 0]), each_its_rule(x[..., None] * w[None, :, 1])
  return 0.5 * jnp.sum(jnp.square(once + jnp.sum(often, axis=1)), axis=1)


def of_float16(w, batch):
  once, twice = w["once"][None], w["twice"][None]
  sums = jnp.sum(batch["x"] * (once + twice * twice * jnp.float16(2.0)), axis=1)
  return sums.astype(jnp.float32) * batch["size"]


@pytest.mark.usefixtures("each_way")
@by_entries
def test_rules_of_activations_and_float16_at_both_ends_are_exact(entry):
  """Also gradients that a division in float16 would lose, and sums that pass 65,504."""
  w = np.stack([np.ones((4, 5)), [np.linspace(-1.0, 1.0, 5)] * 4], axis=1).astype("f")
  assert_exact(entry, of_rules, 2, w, [{"x": X}], rtol=2e-5, atol=1e-6)
  x, w = np.float16(1.0 + 0.25 * np.abs(X)), dict.fromkeys(("once", "twice"), np.ones(4, "f2"))
  sizes = [{"x": x, "size": np.full(24, size, "f")} for size in (2e-6, 1.5, 2e3)]
  assert_exact(entry, of_float16, 1, w, sizes, rtol=2e-3, atol=6e-8)


def test_a_rule_of_a_parameter_sees_the_sum_over_a_group_unless_run_by_example():
  def of(**layers):
    half = lambda w, x, name: 0.5 * jnp.square(x @ layers[name](w[name]))
    return lambda w, batch: sum(half(w, batch["x"], name) for name in layers)

  straight, clipped = rule(lambda t: t), rule(lambda t: jnp.clip(t, -0.5, 0.5))
  w, tolerance = {name: np.ones(4, "f") for name in ("a", "b")}, {"rtol": 1e-5, "atol": 1e-6}
  assert_exact("each", of(a=straight, b=clipped), 2, w, [{"x": X}], **tolerance)
  with pytest.raises(AssertionError, match="'b'"):
    assert_exact("grouped", of(a=straight, b=clipped), 2, w, [{"x": X}], **tolerance)
  assert_exact("grouped", of(a=straight, b=straight), 2, w, [{"x": X}], **tolerance)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64])
def test_labels_of_narrow_dtypes(dtype):
  labels, loss_fn = np.array([0, 1, 1, 2, 99, 99], dtype), lambda w, x: x @ w
  numbers = (100, 256, 300, 300)
  functions = [gq.grouped_value_and_grad(loss_fn, k) for k in numbers[:3]]
  functions.append(gq.per_example_value_and_grad(loss_fn, num_groups=300, microbatch_size=4))
  run = jax.jit(lambda labels: [fn(jnp.ones(4), X[:6], labels)[1].counts for fn in functions])
  for k, counts in zip(numbers, run(labels), strict=True):
    np.testing.assert_array_equal(counts, np.bincount(labels, minlength=k))


def info_nce(w, x):
  a, b = x @ w, (x + 0.1) @ w
  return -jnp.diagonal(jax.nn.log_softmax(a @ b.T))


def test_a_loss_that_compares_examples_gets_a_hint():
  w = np.ones((4, 3), "f")
  calls = [
    lambda: gq.grouped_value_and_grad(info_nce, 2)(w, X, LABELS),
    lambda: gq.per_example_value_and_grad(jax.checkpoint(info_nce))(w, X),
  ]
  for call in calls:
    with pytest.warns(UserWarning, match="compare the examples of a batch"):
      jax.eval_shape(call)


# What is refused, with a way out.

BATCH = jax.ShapeDtypeStruct(jax.export.symbolic_shape("b, 4"), jnp.float32)
ENTRY = np.ones((24, 1), np.float32), np.zeros((24, 1, 1), np.int32)  # one in each row
SPARSE = jax.experimental.sparse.BCOO(ENTRY, shape=(24, 4))
STATIC = "must have a static shape.*batch of fixed size"
NO_RULE = r"jax\.vmap can batch.*ragged_dot.*example_scarcity"
NO_MAP = r"optax\.tree_map_params.*gq\.partition_specs"
linear, of_a_dict = lambda w, x: x @ w, lambda w, batch: batch["x"] @ w
weigh = lambda scarcity: lambda x: scarcity.update(x, scarcity.init(4))
traced = lambda call: lambda: jax.eval_shape(call)
symbolic = lambda function: lambda: jax.export.export(jax.jit(function))(BATCH)
queue = optax.chain(gq.grad_queue(), optax.sgd(0.1))


def experts(w, x):
  sizes = jnp.array([x.shape[0], 0], jnp.int32)
  return jnp.sum(jax.lax.ragged_dot(x, jnp.ones((2, 4, 3)) * w[None, :, None], sizes), axis=1)


def of_two_groups(loss_fn, x, labels=LABELS):
  return gq.grouped_value_and_grad(loss_fn, 2)(np.ones(4, "f"), x, labels)


def each(loss_fn, x, **options):
  return gq.per_example_value_and_grad(loss_fn, **options)(np.ones(4, "f"), x)


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (symbolic(lambda x: of_two_groups(linear, x, jnp.zeros(x.shape[0], jnp.int32))), STATIC),
    (symbolic(lambda x: each(linear, x, microbatch_size=2)), STATIC),
    (symbolic(lambda x: gq.kmeans(x, 2)), STATIC),
    (symbolic(weigh(gq.example_scarcity())), STATIC),
    (symbolic(weigh(gq.group_scarcity(2))), STATIC),
    (symbolic(lambda x: gq.sketch(x, 2, 0)), STATIC),
    (traced(lambda: of_two_groups(of_a_dict, {"x": SPARSE})), r"BCOO at \['x'\] was.*todense"),
    (traced(lambda: weigh(gq.example_scarcity())(SPARSE)), "must be numbers, but BCOO was found"),
    (traced(lambda: of_two_groups(experts, X)), NO_RULE),
    (traced(lambda: each(experts, X)), NO_RULE),
    (lambda: optax.tree_map_params(queue, abs, queue.init(jnp.ones(3))), NO_MAP),
  ],
)
def test_what_is_refused_with_a_way_out(call, message):
  with pytest.raises(ValueError, match=message):
    call()


@pytest.mark.several_devices
def test_explicit_axes_are_refused_with_a_way_out():
  mesh = jax.make_mesh((4,), ("d",), axis_types=(jax.sharding.AxisType.Explicit,))
  with jax.set_mesh(mesh):
    x, labels = jax.device_put((X, LABELS), jax.NamedSharding(mesh, jax.P("d")))
    for name, call in (
      ("embeddings", lambda: weigh(gq.example_scarcity())(x)),
      ("embeddings", lambda: weigh(gq.group_scarcity(2))(x)),
      ("x", lambda: gq.kmeans(x, 2)),
      ("batch", lambda: of_two_groups(linear, x, labels)),
    ):
      with pytest.raises(ValueError, match=rf"^{name} must .* AxisType\.Auto.*explicit.*'d'"):
        jax.jit(call)()
    np.testing.assert_array_equal(jax.jit(lambda x: each(linear, x)[1])(x), X)
