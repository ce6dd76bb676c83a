# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""All that is public under all that JAX does to it: a table of steps, a test a transformation.

A maker gives a first state and `step(state, x, labels, mask)`, which returns its next state, and a
pair: what a user takes from it, and all else. Its number and its key stand for options that may be
traced.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from calls import CALLS, CROSS_ENTROPY, X
from jax.experimental import checkify
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import gq_optax as gq
from gq_optax._group_gradients.jaxprs import all_equations

STEPS, B, D, K = 4, 12, 4, 3
W = jnp.ones(D)


def batches(*lead):
  """`STEPS` batches: among them rows that are equal, and a group that is empty."""
  x = np.random.default_rng(0).normal(size=(*lead, STEPS, B, D)).astype(np.float32)
  x[..., 4:6, :] = 1.0
  labels = np.broadcast_to(np.arange(B, dtype=np.int32) % 2 * 2, x.shape[:-1])
  left = np.array([B, B - 2, 0])[: lead[0] if lead else 1]  # all, without padding, nothing
  masks = np.broadcast_to(np.arange(B) < left.reshape(*lead, 1, 1), x.shape[:-1])
  return x, labels, masks


def loss_fn(w, x):
  return jnp.sum(jnp.square(x * w[None]), axis=1)


def with_embeddings(w, x):
  return loss_fn(w, x), x


def queue(form, **options):
  def make(number, key):
    options.setdefault("queue_length", 2)
    tx = gq.grad_queue(rho=1 + number, key=key, track=True, **options)

    def step(state, x, labels, mask):
      updates, extra = {
        "mean": ({"w": x[0]}, {}),
        "examples": ({"w": x}, {"mask": mask}),
        "groups": (gq.GroupGradients({"w": x[:K]}, jnp.array([4, 0, 8]), x[:K, 0]), {}),
      }[form]
      extra["value"] = jnp.mean(jnp.square(x))
      update, state = tx.update(updates, state, **extra)
      return state, (update, gq.diagnostics(state))

    return lambda dtype: tx.init({"w": W.astype(dtype)}), step

  return make


def examples(**options):
  def make(number, key):
    scarcity = gq.example_scarcity(16, **{"exponent": number, "neighbours": number} | options)

    def step(state, x, labels, mask):
      losses = jnp.square(x[:, 0])
      weights, state = scarcity.update(x, state, mask=mask, losses=losses)
      mean = gq.weighted_mean(losses, weights, mask)
      return state, (weights, (mean, gq.diagnostics(state), scarcity.explain(x, state)))

    return lambda dtype: scarcity.init(D), step

  return make


def groups(**options):
  def make(number, key):
    scarcity = gq.group_scarcity(K, 2, **{"key": key, "exponent": number} | options)

    def step(state, x, labels, mask):
      weights, state = scarcity.update(x, state, mask=mask)
      return state, (weights, (gq.diagnostics(state), scarcity.explain(x, state, 2)))

    return lambda dtype: scarcity.init(D), step

  return make


def pure(function):
  """Of a function `(x, labels, mask, number, key)` without a state."""

  def make(*options):
    return lambda dtype: (), lambda _, *batch: ((), function(*batch, *options))

  return make


def kmeans(**options):
  def run(x, labels, mask, number, key):
    init = x[:K] if "init" in options else None
    key = None if init is not None else key
    weight = None if mask is None else mask.astype(jnp.float32)
    return gq.kmeans(x, K, metric=options["metric"], key=key, init=init, sample_weight=weight), ()

  return pure(run)


def grouped(x, labels, mask, number, key):
  value, found = gq.grouped_value_and_grad(loss_fn, K)(W.astype(x.dtype), x, labels)
  return (value, found), gq.noise_scale(gq.GroupGradients(x[:K], jnp.array([4, 4, 4])))


def clustered(x, labels, mask, number, key):
  return gq.clustered_value_and_grad(with_embeddings, K)(W.astype(x.dtype), x, key, mask), ()


def per_example(x, labels, mask, number, key):
  w = W.astype(x.dtype)
  by_group = gq.per_example_value_and_grad(loss_fn, num_groups=K, microbatch_size=5)
  at_once = gq.per_example_value_and_grad(loss_fn)(w, x, mask)
  return at_once, by_group(w, x, labels, mask)


def losses(x, labels, mask, number, key):
  found = jnp.square(x[:, 0])
  found = found if mask is None else jnp.where(mask, found, 1e4)
  mean = lambda found: gq.weighted_mean(found, gq.mean_one(found, mask, strength=number), mask)
  return gq.mean_one(found, mask), jax.value_and_grad(mean)(found)


def embeddings(x, labels, mask, number, key):
  outputs = gq.output_gradients(CROSS_ENTROPY, x, labels)
  rows = jnp.stack([x, x * 2.0], axis=1)
  return (outputs, gq.sketch({"w": rows, "b": x[:, 0]}, 3, key), gq.random_groups(key, B, 5)), ()


def delta_rho(x, labels, mask, number, key):
  return gq.delta_rho(x, x * 0.0, x * 0.0, rho=1 + number), gq.delta_rho(x, x[::-1], abs(x))


def counted(x, labels, mask, number, key):
  counts = jnp.array([6, 3, 2, 1])
  rarity = gq.class_rarity(labels, counts)
  held_out = gq.held_out_rarity(jnp.abs(x[:, 0]), embeddings=x, labels=labels, neighbours=2)
  return (rarity, held_out, gq.adjusted_logits(x, counts)), ()


MAKERS = {  # the second of a kind has its other options
  "examples": examples(),
  "examples, other": examples(metric="euclidean", queue_dtype=jnp.bfloat16, loss_exponent=0.5),
  "groups": groups(),
  "groups, other": groups(
    metric="euclidean", pooling=0.5, num_iters=0, centroids=batches()[0][0, :K]
  ),
  "kmeans": kmeans(metric="cosine"),
  "kmeans, other": kmeans(metric="euclidean", init=True),
  "queue": queue("mean"),
  "queue, other": queue("mean", queue_length=(1, 3), queue_dtype="bfloat16", update_norm="match"),
  "queue of examples": queue("examples", num_clusters=K, update_norm="match"),
  "queue of groups": queue("groups", queue_length=(1, 2), num_clusters=K, update_norm=1.0),
  "grouped": pure(grouped),
  "clustered": pure(clustered),
  "per example": pure(per_example),
  "losses": pure(losses),
  "embeddings": pure(embeddings),
  "delta_rho": pure(delta_rho),
  "counted": pure(counted),
}


def scanned(name, number, x, labels, mask, key=None, axis_name=None):
  """The last state, and what all steps gave, in one `lax.scan`."""
  init, step = MAKERS[name](number, number if key is None else key)
  state = init(x.dtype)
  if axis_name is not None:  # a loop must carry the same kind from step to step
    state = jax.tree.map(lambda leaf: jax.lax.pcast(leaf, axis_name, to="varying"), state)
  return jax.lax.scan(lambda state, batch: step(state, *batch), state, (x, labels, mask))


def looped(name, masked):
  """A function that does the same in steps: compiled once, given the state's memory."""
  step = lambda state, number, *batch: MAKERS[name](number, number)[1](state, *batch)
  step = jax.jit(step, donate_argnums=0)

  def run(number, x, labels, mask):
    # What is the same twice in a state, or of the options, can not be given away.
    state, found = jax.tree.map(jnp.copy, MAKERS[name](number, number)[0](x.dtype)), []
    for t in range(STEPS):
      state, out = step(state, number, x[t], labels[t], mask[t] if masked else None)
      found.append(out)
    assert step._cache_size() == 1
    return state, jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)

  return run


every_step = pytest.mark.parametrize("name", MAKERS)
close = functools.partial(chex.assert_trees_all_close, rtol=1e-4, atol=1e-5)
row = lambda tree, number: jax.tree.map(lambda leaf: leaf[number], tree)

WITHOUT_MASK = ("examples", "kmeans", "queue of examples", "losses")


@functools.cache
def together(name):
  """Three trainings at once, of options that are traced, with masks of all kinds."""
  return jax.jit(jax.vmap(functools.partial(scanned, name)))(jnp.arange(1, 4), *batches(3))


@every_step
def test_vmap_over_a_scan_is_a_loop_that_compiles_once_and_donates(name):
  run, unmasked = (looped(name, masked) for masked in (True, False))
  with jax.debug_nans(True):
    for i in range(3):
      found = run(jnp.int32(i + 1), *row(batches(3), i))
      close(row(together(name), i), found)
      if i == 0 and name in WITHOUT_MASK:
        close(unmasked(jnp.int32(1), *row(batches(3), 0)), found)


@pytest.mark.slow
@every_step
def test_so_without_a_jit(name):
  with jax.disable_jit(), jax.debug_nans(name != "grouped"):  # noise_scale has a NaN to hand out
    scanned(name, 2, *batches())


# Checks for NaN, division by 0, places out of bounds.

NUMBERS = checkify.float_checks | checkify.div_checks
CHECKS = NUMBERS | checkify.index_checks
# Examples of no group go out of bounds there, to be dropped; in "embeddings" the check of indices
# itself fails, in a gradient of Optax's cross-entropy.
DROPS = ("grouped", "clustered", "per example", "embeddings")


@pytest.mark.slow
@pytest.mark.standard_promotion  # checkify
@pytest.mark.parametrize("gpu", [False, True])
@every_step
def test_checks_report_nothing(name, gpu, monkeypatch):
  """Of what is lowered for a CPU, and of what is lowered for CUDA, run here."""
  if gpu:
    chosen = lambda *args, default, **ways: ways.get("cuda", default)(*args)
    monkeypatch.setattr(jax.lax, "platform_dependent", chosen)
    jax.clear_caches()  # it may have been traced for another platform
  errors = NUMBERS if name in DROPS else CHECKS
  run = jax.jit(checkify.checkify(functools.partial(scanned, name, 2), errors=errors))
  for batch in zip(*batches(3), strict=True):
    assert run(*batch)[0].get() is None
  if gpu:
    jax.clear_caches()


@pytest.mark.slow
def test_checkify_still_sees_a_real_fault():
  x, labels, masks = batches()
  run = checkify.checkify(functools.partial(scanned, "queue", 2), errors=checkify.nan_checks)
  assert "nan" in run(jnp.log(x - 9.0), labels, masks)[0].get()


DERIVED = ("grouped", "clustered", "per example", "losses", "embeddings", "counted")


@pytest.mark.several_devices
@every_step
def test_shard_map_with_its_default_checks_gives_each_device_its_own(name):
  """What is more than a mere program of each device, run; all else has to pass the checks."""
  mesh = jax.make_mesh((2,), ("b",), (AxisType.Auto,), devices=jax.devices()[:2])

  def own(*args):
    found = scanned(name, *(leaf[0] for leaf in args), axis_name="b")[1][0]
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], found)

  run = jax.shard_map(own, mesh=mesh, in_specs=P("b"), out_specs=P("b"))
  args = jnp.arange(1, 3), *batches(2)
  if name in DERIVED:
    close(jax.jit(run)(*args), row(together(name), slice(2))[1][0])
  else:
    jax.eval_shape(run, *args)


def test_no_key_is_held_to_be_used_twice():
  x, labels, masks = batches()

  def steps(name, key):
    init, step = MAKERS[name](1, key)
    state = init(jnp.float32)
    for t in range(2):
      state, found = step(state, x[t], labels[t], masks[t])
    return found

  def dropout(w, batch):
    x, keys = batch
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, 0.5, (D,)))(keys)
    return (x * kept.astype(jnp.float32)) @ w

  by_example = gq.per_example_value_and_grad(dropout, microbatch_size=5, num_groups=K)
  batch = x[0], jax.random.split(jax.random.key(1), B)
  with jax.debug_key_reuse(True):  # when a program is traced
    for name in ("groups", "queue of examples"):
      for key in (0, jax.random.key(3)):
        jax.jit(functools.partial(steps, name)).trace(key)
    for run in (gq.grouped_value_and_grad(dropout, K), by_example):
      jax.jit(run).trace(jnp.ones(D), batch, labels[0])


# Shapes, dtypes, and what is lowered

# What a step gives: x stands for the dtype of its input.
KMEANS = "f32[3,4] i32[12] i32[3] f32[] bool[]"
SIGNATURES = {
  **dict.fromkeys(["examples", "examples, other", "groups", "groups, other", "losses"], "f32[12]"),
  **dict.fromkeys([name for name in MAKERS if "kmeans" in name], KMEANS),
  **dict.fromkeys([name for name in MAKERS if "queue" in name], "x[4]"),
  "grouped": "f32[] x[3,4] i32[3] f32[3]",
  "clustered": f"f32[] {KMEANS} x[3,4] i32[3] f32[3]",
  "per example": "f32[12] x[12,4]",
  "embeddings": "x[12,4] f32[12,3] i32[12]",
  "delta_rho": "x[12,4]",
  "counted": "f32[12] f32[12] f32[12,4]",
}


def signature(tree):
  return " ".join(jax.typeof(leaf).str_short(short_dtypes=True) for leaf in jax.tree.leaves(tree))


@every_step
def test_shapes_and_dtypes(name):
  init, step = MAKERS[name](2, 2)
  for dtype in (jnp.float32, jnp.bfloat16, jnp.float16):
    x, labels, mask = (jax.ShapeDtypeStruct(a.shape[1:], a.dtype) for a in batches())
    x = x.update(dtype=dtype)
    state = jax.eval_shape(lambda dtype=dtype: init(dtype))
    after, (found, _) = jax.eval_shape(step, state, x, labels, mask)
    chex.assert_trees_all_equal_shapes_and_dtypes(after, state)
    short = {jnp.float32: "f32", jnp.bfloat16: "bf16", jnp.float16: "f16"}[dtype]
    assert signature(found) == SIGNATURES[name].replace("x[", f"{short}[")


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
  text = traced.lower(lowering_platforms=("cpu", "cuda", "tpu")).as_text()
  assert "callback" not in text
  products = [t for t in text.splitlines() if "dot_general" in t or "convolution" in t]
  assert not [line for line in products if "[HIGHEST, HIGHEST]" not in line]
  # Random bits of four axes take XLA on CPU ten times as long to compile.
  bits = [e for e in all_equations(traced.jaxpr.eqns) if e.primitive.name == "random_bits"]
  assert not [e for e in bits if len(e.params["shape"]) > 2]


def test_products_of_users_keep_their_precision():
  grouped = gq.grouped_value_and_grad(lambda w, x: x @ w, 2)
  with jax.default_matmul_precision("default"):
    text = jax.jit(grouped).lower(X[0], X, np.arange(8) % 2).as_text()
  assert "[DEFAULT, DEFAULT]" in text


# What comes in: NumPy arrays, lists, keys; or is refused

LISTED = {*("x", "labels", "embeddings", "mask", "value", "losses", "weights", "sample_weight")}
LISTED |= {"outputs", "g", "mean", "std", "rarity"}
NO_ARRAYS = ["grad_queue", "group_scarcity", "example_scarcity", "partition_specs"]
NO_ARRAYS += ["suggest_num_clusters"]


@pytest.mark.parametrize("name", [name for name in CALLS if name not in NO_ARRAYS])
def test_numpy_and_lists_are_read_as_jax_arrays_are(name):
  function, right, _ = CALLS[name]
  as_jax = lambda tree: jax.tree.map(lambda x: jnp.asarray(x) if np.ndim(x) else x, tree)
  as_numpy = lambda tree: jax.tree.map(lambda x: np.asarray(x) if np.ndim(x) else x, tree)
  listed = lambda name, x: x.tolist() if name in LISTED and isinstance(x, np.ndarray) else x
  program = lambda right: jax.eval_shape(lambda: function(**right))
  expected = program({key: as_jax(value) for key, value in right.items()})
  right = {key: as_numpy(value) if key != "tx" else value for key, value in right.items()}
  assert program(right) == expected
  lists = {key: listed(key, value) for key, value in right.items()}
  assert program(lists) == expected
  if name in ("mean_one", "weighted_mean", "class_rarity", "adjusted_logits", "noise_scale"):
    chex.assert_trees_all_equal(function(**lists), function(**right))


def test_a_python_number_is_a_parameter_too():
  tx = gq.grad_queue(2)
  state = tx.init({"a": 1.0, "b": np.float32(2.0)})
  assert state.queue.slots["a"].shape == (2,)
  for _ in range(3):
    updates, state = tx.update({"a": 1.0, "b": jnp.float32(2.0)}, state)
  chex.assert_trees_all_equal_dtypes(updates, {"a": jnp.float32(0), "b": jnp.float32(0)})


data = jax.random.key_data


@pytest.mark.parametrize("form", [lambda k: k, data, lambda k: np.asarray(data(k))])
@pytest.mark.parametrize("kind", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_every_kind_of_key(kind, form):
  key = form(jax.random.key(3, impl=kind))
  labels = gq.random_groups(key, 8, 2)
  assert np.bincount(labels).tolist() == [4, 4]
  np.testing.assert_array_equal(labels, jax.jit(lambda k: gq.random_groups(k, 8, 2))(key))
  # A raw key is as good as the typed one that it is the data of.
  if key.ndim and key.shape[0] == 2:
    np.testing.assert_array_equal(labels, gq.random_groups(jax.random.wrap_key_data(key), 8, 2))
  sketches = [gq.sketch({"w": X}, 4, form(jax.random.key(seed, impl=kind))) for seed in (0, 1)]
  assert np.abs(sketches[0] - sketches[1]).max() > 0.1
  with jax.default_prng_impl(kind):
    raw, typed = jax.random.PRNGKey(5), jax.random.key(5)
    np.testing.assert_array_equal(gq.random_groups(raw, 8, 2), gq.random_groups(typed, 8, 2))


@pytest.mark.parametrize("name", ["groups", "queue of examples", "kmeans", "clustered"])
def test_what_takes_a_key_takes_every_kind(name):
  for key in (jax.random.key(3, impl="rbg"), np.asarray(data(jax.random.key(3, impl="rbg")))):
    jax.eval_shape(lambda *a, key=key: scanned(name, 1, *a, key=key), *batches())
