# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""All that is public under all that JAX does to it: a table of steps, a test a transformation."""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from calls import CALLS, GROUPS, SCARCITY, STATE, TX, W, X
from jax.experimental import checkify
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from steps import MAKERS, STEPS, B, D, batches, looped, scanned

import gq_optax as gq

every_step = pytest.mark.parametrize("name", MAKERS)
close = functools.partial(chex.assert_trees_all_close, rtol=1e-4, atol=1e-5)


@every_step
def test_vmap_over_a_scan_and_traced_options_is_a_loop_that_compiles_once_and_donates(name):
  x, labels, masks = batches(2)
  numbers = jnp.arange(1, 3, dtype=jnp.int32)
  over = jax.vmap(functools.partial(scanned, name))
  together = jax.jit(over)(numbers, x, labels, masks)
  alone = looped(name, 2, x[1], labels[1], masks[1])
  close(jax.tree.map(lambda leaf: leaf[1], together), alone)


@pytest.mark.several_devices
def test_shard_map_with_its_default_checks_gives_each_device_its_own():
  mesh = jax.make_mesh((2,), ("b",), (AxisType.Auto,), devices=jax.devices()[:2])
  x, labels, masks = batches(2)
  numbers = jnp.arange(1, 3, dtype=jnp.int32)

  def each(names, *args):
    run = lambda name: scanned(name, *(leaf[0] for leaf in args), axis_name="b")[1][0]
    return {name: jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], run(name)) for name in names}

  names = [name for name in MAKERS if "," not in name]
  spec = {"mesh": mesh, "in_specs": P("b"), "out_specs": P("b")}
  run = jax.shard_map(functools.partial(each, names), **spec)
  found = jax.jit(run)(numbers, x, labels, masks)
  over = jax.vmap(lambda *args: {name: scanned(name, *args)[1][0] for name in names})
  close(found, jax.jit(over)(numbers, x, labels, masks))
  rest = functools.partial(each, [name for name in MAKERS if "," in name])
  jax.eval_shape(jax.shard_map(rest, **spec), numbers, x, labels, masks)  # which checks as much


# Checks for NaN, division by 0, places out of bounds, and keys that are used twice.

NUMBERS = checkify.float_checks | checkify.div_checks
CHECKS = NUMBERS | checkify.index_checks
# Examples of no group go out of bounds there, to be dropped; in "embeddings" the check of indices
# itself fails, in a gradient of Optax's cross-entropy.
DROPS = ("grouped", "clustered", "per example", "embeddings")
WITHOUT_MASK = ("examples", "groups", "kmeans, cosine", "queue of examples", "clustered", "losses")


@pytest.mark.standard_promotion
@pytest.mark.parametrize(
  ("name", "masked"), [*((n, True) for n in MAKERS), *((n, False) for n in WITHOUT_MASK)]
)
def test_checks_report_nothing_in_a_healthy_step(name, masked):
  x, labels, mask = batches()
  errors = NUMBERS if name in DROPS else CHECKS
  run = jax.jit(checkify.checkify(functools.partial(scanned, name, 2), errors=errors))
  with jax.debug_nans(True):
    for left in (B, B - 2, 0) if masked else (B,):  # all, without padding, nothing
      mask = jnp.broadcast_to(jnp.arange(B) < left, (STEPS, B)) if masked else None
      error, found = run(x, labels, mask)
      assert error.get() is None
      jax.block_until_ready(found)


@pytest.mark.slow
@every_step
def test_so_without_a_jit(name):
  with jax.disable_jit(), jax.debug_nans(True):
    scanned(name, 2, *batches())


def test_so_in_what_is_lowered_for_a_gpu(monkeypatch):
  chosen = lambda *args, default, **ways: ways.get("cuda", default)(*args)
  monkeypatch.setattr(jax.lax, "platform_dependent", chosen)
  jax.clear_caches()  # K-means may have been traced for another platform
  x, labels, masks = batches()
  for name in ("groups, pooled", "kmeans, cosine", "queue of examples"):
    run = checkify.checkify(functools.partial(scanned, name, 2), errors=CHECKS)
    assert jax.jit(run)(x, labels.at[:, 0].set(-1), masks)[0].get() is None


def test_checkify_still_sees_a_real_fault():
  x, labels, masks = batches()
  run = checkify.checkify(functools.partial(scanned, "queue", 2), errors=checkify.nan_checks)
  assert "nan" in run(jnp.log(x - 9.0), labels, masks)[0].get()


def test_no_key_is_held_to_be_used_twice():
  x, labels, masks = batches()

  def dropout(w, batch):
    x, keys = batch
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, 0.5, (D,)))(keys)
    return (x * kept.astype(jnp.float32)) @ w

  with jax.debug_key_reuse(True):
    for name in ("groups", "queue of sketches"):
      for key in (0, jax.random.key(3)):
        init, step = MAKERS[name](1, key)
        state = init(jnp.float32)
        for t in range(2):
          state, _ = step(state, x[t], labels[t], masks[t])
    by_example = gq.per_example_value_and_grad(dropout, microbatch_size=5, num_groups=3)
    for run in (gq.grouped_value_and_grad(dropout, 3), by_example):
      jax.jit(run)(jnp.ones(D), (x[0], jax.random.split(jax.random.key(1), B)), labels[0])


# Shapes, dtypes, and what is lowered

# What a step gives: x stands for the dtype of its input.
KMEANS = "f32[3,4] i32[12] i32[3] f32[] bool[]"
SIGNATURES = {
  **dict.fromkeys(["examples", "examples, euclidean", "examples, losses"], "f32[12]"),
  **dict.fromkeys(["groups", "groups, pooled", "groups, given", "losses"], "f32[12]"),
  **dict.fromkeys([name for name in MAKERS if "kmeans" in name], KMEANS),
  **dict.fromkeys([name for name in MAKERS if "queue" in name], "x[4]"),
  "grouped": "f32[] x[3,4] i32[3] f32[3]",
  "clustered": f"f32[] {KMEANS} x[3,4] i32[3] f32[3]",
  "per example": "f32[12] x[12,4]",
  "embeddings": "x[12,4] f32[12,3] i32[12]",
  "delta_rho": "x[12,4]",
  "margins": "f32[12] f32[12] f32[12] f32[12,4]",
}


def signature(tree):
  return " ".join(jax.typeof(leaf).str_short(short_dtypes=True) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@every_step
def test_shapes_and_dtypes(name, dtype):
  x, labels, masks = batches()
  x = x.astype(dtype)
  init, step = MAKERS[name](2, 2)
  state = jax.eval_shape(lambda: init(dtype))
  after, (found, _) = jax.eval_shape(step, state, x[0], labels[0], masks[0])
  chex.assert_trees_all_equal_shapes_and_dtypes(after, state)
  assert signature(found) == SIGNATURES[name].replace("x[", f"{signature(x[0, 0, 0])[:-2]}[")


@every_step
def test_64_bits_and_strict_promotion(name):
  with jax.enable_x64(True):
    for dtype in (jnp.float64, jnp.float32):
      x, labels, masks = batches()
      jax.eval_shape(functools.partial(scanned, name, 2), x.astype(dtype), labels, masks)


@every_step
def test_accelerators_need_no_host_and_products_ask_for_all_digits(name):
  """Accelerators leave digits of float32 products out by default."""
  with jax.default_matmul_precision("default"):
    traced = jax.jit(functools.partial(scanned, name, 2)).trace(*batches())
  for platform in ("cpu", "cuda", "tpu"):
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert "callback" not in text
    products = [t for t in text.splitlines() if "dot_general" in t or "convolution" in t]
    assert not [line for line in products if "[HIGHEST, HIGHEST]" not in line]


def test_products_of_users_keep_their_precision():
  grouped = gq.grouped_value_and_grad(lambda w, x: x @ w, 2)
  with jax.default_matmul_precision("default"):
    text = jax.jit(grouped).lower(W, X, np.arange(8) % 2).as_text()
  assert "[DEFAULT, DEFAULT]" in text


# What comes in: NumPy arrays, lists, keys; or is refused

LISTED = {*("x", "labels", "embeddings", "mask", "value", "losses", "weights", "sample_weight")}
LISTED |= {"outputs", "g", "mean", "std", "rarity"}
NO_ARRAYS = ["grad_queue", "group_scarcity", "example_scarcity", "partition_specs"]
NO_ARRAYS += ["suggest_num_clusters"]


@pytest.mark.parametrize("name", [name for name in CALLS if name not in NO_ARRAYS])
def test_numpy_and_lists_without_jit_give_what_jax_arrays_do(name):
  function, right, _ = CALLS[name]
  as_jax = lambda tree: jax.tree.map(lambda x: jnp.asarray(x) if np.ndim(x) else x, tree)
  as_numpy = lambda tree: jax.tree.map(lambda x: np.asarray(x) if np.ndim(x) else x, tree)
  listed = lambda name, x: x.tolist() if name in LISTED and isinstance(x, np.ndarray) else x
  expected = function(**{key: as_jax(value) for key, value in right.items()})
  right = {key: as_numpy(value) if key != "tx" else value for key, value in right.items()}
  found = function(**right)
  chex.assert_trees_all_equal(found, expected)
  chex.assert_trees_all_equal_dtypes(found, expected)
  if name == "margin_loss":  # which hands labels on to a loss of the user's
    return
  found = function(**{key: listed(key, value) for key, value in right.items()})
  chex.assert_trees_all_equal(found, expected)


def test_a_python_number_is_a_parameter_too():
  tx = gq.grad_queue(2)
  state = tx.init({"a": 1.0, "b": np.float32(2.0)})
  assert state.queue.slots["a"].shape == (2,)
  for _ in range(3):
    updates, state = tx.update({"a": 1.0, "b": jnp.float32(2.0)}, state)
  chex.assert_trees_all_equal_dtypes(updates, {"a": jnp.float32(0), "b": jnp.float32(0)})


data = jax.random.key_data
KINDS_OF_KEYS = ("threefry2x32", "rbg", "unsafe_rbg")


@pytest.mark.parametrize("form", [lambda k: k, data, lambda k: np.asarray(data(k))])
@pytest.mark.parametrize("kind", KINDS_OF_KEYS)
def test_every_kind_of_key(kind, form):
  key = form(jax.random.key(3, impl=kind))
  for name in ("groups", "queue of examples", "kmeans, cosine", "clustered", "embeddings"):
    jax.eval_shape(lambda *a, name=name: scanned(name, 1, *a, key=key), *batches())
  labels = gq.random_groups(key, 8, 2)
  assert jnp.bincount(labels).tolist() == [4, 4]
  np.testing.assert_array_equal(labels, jax.jit(lambda k: gq.random_groups(k, 8, 2))(key))
  # A raw key is as good as the typed one that it is the data of.
  if key.ndim and key.shape[0] == 2:
    np.testing.assert_array_equal(labels, gq.random_groups(jax.random.wrap_key_data(key), 8, 2))
  sketches = [gq.sketch({"w": X}, 4, form(jax.random.key(seed, impl=kind))) for seed in (0, 1)]
  assert np.abs(sketches[0] - sketches[1]).max() > 0.1
  with jax.default_prng_impl(kind):
    raw, typed = jax.random.PRNGKey(5), jax.random.key(5)
    np.testing.assert_array_equal(gq.random_groups(raw, 8, 2), gq.random_groups(typed, 8, 2))


def complaint(call):
  """The words of an error of ours, or what happened in its place."""
  try:
    call()
  except (ValueError, TypeError) as error:
    return str(error)
  except Exception as error:  # noqa: BLE001  # told apart by its words
    return f"{type(error).__name__}: {error}"
  return "nothing"


@pytest.mark.parametrize("name", CALLS)
def test_the_calls_are_right_but_for_what_is_changed(name):
  function, right, _ = CALLS[name]
  jax.eval_shape(lambda: [function(**right), None][1])


@pytest.mark.parametrize("name", CALLS)
def test_every_wrong_call_names_the_argument_the_rule_and_what_was_found_and_harms_nothing(name):
  function, right, wrong = CALLS[name]
  before = jax.device_get((STATE, GROUPS))
  for argument, values in wrong.items():
    words = re.compile(rf"(?s)(?=.*\b{argument}\b).*\b(must|needs|can only)\b.*\bfound\b")
    for value in values:
      call = lambda kwargs={**right, argument: value}: [function(**kwargs), None][1]  # noqa: B006
      for found in (complaint(call), complaint(lambda call=call: jax.eval_shape(call))):
        assert words.match(found), f"{argument}={value!r:.80}: {found:.300}"
  chex.assert_trees_all_equal(jax.device_get((STATE, GROUPS)), before)


def test_after_all_that_the_states_go_on():
  assert TX.update(W, STATE, value=1.0)[1].queue.count == 1
  assert SCARCITY.update(X, GROUPS)[1].count == 1
