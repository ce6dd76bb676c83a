# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""grad_queue among the parts of Optax: what it is chained with, and what wraps it."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from chains import FORMS, PARAMS, TWO, assert_close, queue_sgd, tail_probability, train, weighted

import gq_optax as gq

pytestmark = pytest.mark.standard_promotion  # Optax's own code needs the usual rules
every_form = pytest.mark.parametrize("form", FORMS)
draw, per_example, groups = FORMS
six = lambda form: [form(seed) for seed in range(6)]
STATIC = ("queue_length", "num_clusters", "embed", "track")
injected = optax.inject_hyperparams(gq.grad_queue, STATIC)

# What Optax demands of every contributed optimizer. The learning rate is a third of what plain SGD
# takes on the Rosenbrock function: weights up to rho amplify, so that the largest stable one falls.

small = functools.partial(queue_sgd, 3e-4)
EVERYTHING = {"queue_length": 4, "rho": 2.0, "update_norm": "match", "track": True}
OPTIMIZERS = {
  "plain": small,
  "adaptive": functools.partial(small, queue_length=(2, 6)),
  "everything": functools.partial(
    small, **EVERYTHING, queue_dtype=jnp.bfloat16, scarcity=tail_probability
  ),
  "cap": functools.partial(small, update_norm=2.0, track=True),
  "adam": lambda: optax.chain(gq.grad_queue(), optax.adam(1e-2)),
  "in steps": lambda: optax.MultiSteps(small(), 2),
}
PROBLEMS = {  # where each begins, and where it ends
  "parabola": (jnp.array([-1.0, 10.0]), jnp.array([1.0, 2.0])),
  "rosenbrock": (jnp.zeros(2), jnp.ones(2)),
  "matrix": (jnp.zeros((2, 3)), jnp.arange(6.0).reshape(2, 3)),
  "mixed": ((jnp.zeros((2, 2, 2)), jnp.zeros(2), {}), (jnp.ones((2, 2, 2)), jnp.ones(2), {})),
}


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "in steps"])
def test_it_optimizes(name):
  """All problems at once."""
  tx = OPTIMIZERS[name]()
  start, goal = ({of: pair[i] for of, pair in PROBLEMS.items()} for i in range(2))

  def objective(params):
    x, y = params["rosenbrock"]
    rest, ends = ({of: p for of, p in t.items() if of != "rosenbrock"} for t in (params, goal))
    valley = (1.0 - x) ** 2 + 100.0 * (y - x**2) ** 2
    return valley + optax.tree.norm(optax.tree.sub(rest, ends), squared=True)

  def step(carry, _):
    params, state = carry
    value, gradient = jax.value_and_grad(objective)(params)
    updates, state = tx.update(gradient, state, params, value=value, nobody_expects_this=1)
    return (optax.apply_updates(params, updates), state), None

  run = jax.jit(lambda carry: jax.lax.scan(step, carry, length=30_000)[0])
  params, _ = run((start, tx.init(start)))
  chex.assert_trees_all_close(params, goal, rtol=3e-2, atol=3e-2)


@pytest.mark.parametrize(
  ("name", "dtype"),
  [("plain", dtype) for dtype in ("float16", "bfloat16", "float32", "float64")]
  + [("adaptive", "float16"), ("everything", "float16"), ("everything", "float64")]
  + [("cap", "bfloat16"), ("adam", "float64"), ("in steps", "bfloat16")],
)
def test_dtypes_stay_nothing_compiles_twice_and_memory_is_given_away(name, dtype):
  """Through a cond, with a loss of another dtype, and an argument that nobody expects."""
  with jax.enable_x64(dtype == "float64"):
    tx, target = OPTIMIZERS[name](), jnp.array([1.0, 2.0], dtype)
    params = jnp.array([-1.0, 10.0], dtype)
    other = jnp.float16 if dtype != "float16" else jnp.bfloat16

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, flag):
      value, gradient = jax.value_and_grad(lambda p: jnp.sum(jnp.square(p - target)))(params)
      take = lambda: tx.update(gradient, state, params, value=value.astype(other), unexpected=1)
      updates, state = jax.lax.cond(flag, take, lambda: (gradient, state))
      return optax.apply_updates(params, updates), state

    run = params, state = params + 0, tx.init(params)
    like = jax.eval_shape(tx.init, jax.ShapeDtypeStruct(params.shape, params.dtype))
    # A buffer that occurs twice, or none to put it into, would be an error or a warning.
    queue = [leaf for leaf in jax.tree.leaves(state) if leaf.ndim == 2]
    for flag in (True, False, *[True] * 8):  # past the point where weighting starts
      run = step(*run, flag)
      chex.assert_trees_all_equal_shapes_and_dtypes(run, (params, like))
    chex.assert_tree_all_finite(run[0])
    assert step._cache_size() == 1
    assert queue
    assert all(leaf.is_deleted() for leaf in queue)


# In a chain

CLIP, DECAY = optax.clip_by_global_norm(0.7), optax.add_decayed_weights(0.1)
LABELS = {"w": "ours", "b": "theirs"}
SGDM = optax.sgd(0.1, momentum=0.9)
SCHEDULE = optax.warmup_cosine_decay_schedule(0.0, 0.1, 2, 6)
BEHIND = {
  "clip and decay": optax.chain(CLIP, DECAY, optax.sgd(0.1)),
  "steps": optax.MultiSteps(SGDM, 2).gradient_transformation(),
  "if finite": optax.apply_if_finite(SGDM, 3),
  "partition": optax.partition({"ours": optax.sgd(0.1), "theirs": optax.set_to_zero()}, LABELS),
  "schedule": optax.sgd(SCHEDULE, momentum=0.9),
  "schedule of adam": optax.adam(SCHEDULE),
}


@pytest.mark.parametrize(
  ("form", "name"),
  [(draw, name) for name in BEHIND] + [(per_example, "partition"), (groups, "if finite")],
)
def test_what_is_behind_sees_weighted_gradients(form, name):
  jit = name in ("steps", "if finite")
  trajectory, _ = train(optax.chain(gq.grad_queue(**TWO), BEHIND[name]), six(form), jit=jit)
  expected, _ = train(BEHIND[name], weighted(six(form), **TWO), jit=jit)
  assert_close(trajectory, expected)
  assert not np.allclose(trajectory[-1]["w"], PARAMS["w"], rtol=1e-3, atol=1e-6)
  if name == "partition":  # the recipe of the message, see below
    chex.assert_trees_all_equal([p["b"] for p in trajectory], [PARAMS["b"]] * 6)


@pytest.mark.parametrize("queue", [gq.grad_queue((1, 3)), injected((1, 3))])
def test_value_reaches_an_adaptive_queue_and_what_is_behind_it(queue):
  tx = optax.chain(queue, optax.sgd(0.1), optax.contrib.reduce_on_plateau(patience=1))
  extra = {"value": 1.0, "nobody_expects_this": draw(0)}
  _, state = train(tx, six(draw)[:4], jit=True, **extra)
  assert optax.tree.get(state, "losses").count == 4
  assert optax.tree.get(state, "best_value") == 1.0
  with pytest.raises(ValueError, match="pass value="):
    queue.update(draw(4), state[0], PARAMS)


# Wrapped

AROUND = {
  "flatten": optax.flatten,
  "conditionally": lambda tx: optax.conditionally_transform(tx, lambda step: step >= 0),
  "if finite": lambda tx: optax.apply_if_finite(tx, 3),
  "steps": lambda tx: optax.MultiSteps(tx, 2),
  "named": lambda tx: optax.named_chain(("queue", tx)),
  "all of it": lambda tx: optax.masked(tx, {"w": True, "b": True}),
}


@pytest.mark.parametrize("name", [name for name in AROUND if name != "steps"])
def test_wrappers_of_the_mean_form_change_nothing(name):
  found, state = train(AROUND[name](queue_sgd(0.1, track=True)), six(draw), jit=True)
  assert_close(found, train(queue_sgd(0.1), six(draw))[0])
  assert gq.diagnostics(state)["queued"] == 6


@pytest.mark.parametrize("form", [per_example, groups])
@pytest.mark.parametrize("name", list(AROUND)[:4])
def test_wrappers_that_need_the_parameters_shapes_fail_around_the_batched_forms(name, form):
  tx = AROUND[name](queue_sgd(0.1, num_clusters=2))
  with pytest.raises((ValueError, TypeError), match=r"type|structure|shape|Expected"):
    jax.eval_shape(tx.update, form(0), jax.eval_shape(tx.init, PARAMS), PARAMS)


def test_multi_steps_around_the_mean_form_averages_before_the_queue():
  gradients = [draw(seed) for seed in range(12)]
  pairs = zip(gradients[::2], gradients[1::2], strict=True)
  means = [jax.tree.map(lambda a, b: (a + b) / np.float32(2), *pair) for pair in pairs]
  trajectory, state = train(optax.MultiSteps(queue_sgd(0.1), 2), gradients, jit=True)
  expected, expected_state = train(queue_sgd(0.1), means)
  assert_close(trajectory[1::2], expected)
  assert_close(state.inner_opt_state, expected_state)
  chex.assert_trees_all_equal(trajectory[2], trajectory[1])  # nothing moves half-way


def test_multi_steps_records_the_value_of_the_last_micro_batch_unless_it_is_their_mean():
  gradient, tx = draw(0), optax.MultiSteps(gq.grad_queue(queue_length=(1, 4)), 2)
  update = jax.jit(tx.update)
  state, averaged, mean = tx.init(PARAMS), tx.init(PARAMS), np.float32(0.0)
  for loss in np.float32([9.0, 1.0, 7.0, 2.0, 5.0, 3.0]):
    mean += (loss - mean) / np.float32(averaged.mini_step + 1)
    _, state = update(gradient, state, PARAMS, value=loss)
    _, averaged = update(gradient, averaged, PARAMS, value=mean)
  np.testing.assert_allclose(state.inner_opt_state.losses.values[:3], [3.0, 2.0, 1.0])
  np.testing.assert_allclose(averaged.inner_opt_state.losses.values[:3], [4.0, 4.5, 5.0])


def broken(gradient):
  gradient = jax.tree.map(np.array, gradient)
  leaf = gradient.grads["w"] if isinstance(gradient, gq.GroupGradients) else gradient["w"]
  leaf.reshape(-1)[0] = np.nan
  return gradient


@pytest.mark.parametrize(("around", "form"), [(True, draw), *((False, form) for form in FORMS)])
def test_apply_if_finite_recovers(around, form):
  """Around the mean form; behind any form."""
  gradients, guard = [form(seed) for seed in range(8)], lambda tx: optax.apply_if_finite(tx, 3)
  queue = gq.grad_queue(**TWO)
  tx = guard(optax.chain(queue, SGDM)) if around else optax.chain(queue, guard(SGDM))
  with_nan = [*gradients[:5], broken(form(50)), broken(form(51)), *gradients[5:]]
  trajectory, state = train(tx, with_nan, jit=True)
  expected, expected_state = train(optax.chain(queue, SGDM), gradients)
  chex.assert_trees_all_equal(trajectory[4], trajectory[5], trajectory[6])
  assert_close(trajectory[:5] + trajectory[7:], expected)
  inner = state.inner_state if around else (state[0], state[1].inner_state)
  assert_close(inner, expected_state)
  assert (state if around else state[1]).total_notfinite == 2


# masked and partition


@pytest.mark.parametrize("mask", [{"w": True, "b": False}, lambda t: {n: n == "w" for n in t}])
def test_masked_leaves_the_others_of_a_mean_form(mask):
  tx = optax.masked(gq.grad_queue(), mask)
  state = tx.init(PARAMS)
  for gradient, expected in zip(six(draw), weighted(six(draw)), strict=True):
    result, state = tx.update(gradient, state)
    chex.assert_trees_all_equal(result["b"], gradient["b"])
    assert_close(result["w"], expected["w"])
  assert set(jax.tree.leaves(jax.tree.map(jnp.shape, state.inner_state.queue.slots))) == {2, 3}


def test_masked_that_hides_every_parameter():
  tx = optax.masked(gq.grad_queue(track=True), {"w": False, "b": False})
  state, update = tx.init(PARAMS), jax.jit(tx.update)
  for gradient in six(draw):
    result, state = update(gradient, state)
    chex.assert_trees_all_equal(result, gradient)
    chex.assert_tree_all_finite(state)


def test_what_is_thrown_away_behind_the_queue_rules_it():
  """So frozen parameters must not reach it (docs/recipes.md): its norm and its NaN count."""
  freeze = optax.partition({"ours": optax.sgd(1.0), "theirs": optax.set_to_zero()}, LABELS)
  tx = optax.chain(gq.grad_queue(2, update_norm="match"), freeze)
  large = [jax.tree.map(lambda g, s=s: g * s, draw(0)) for s in (1.0, 3.0, 2.0, 5.0)]
  large = [g | {"b": np.float32([500.0, -500.0])} for g in large]
  state = tx.init(PARAMS)
  for gradient in large:
    update, state = tx.update(gradient, state, PARAMS)
  assert abs(optax.tree.norm(update["w"]) / optax.tree.norm(large[-1]["w"]) - 1.0) > 0.2
  _, after = tx.update(large[0] | {"b": np.float32([np.nan, 1.0])}, state, PARAMS)
  assert after[0].queue.count == state[0].queue.count == 4


@pytest.mark.parametrize("labels", [LABELS, lambda t: {n: LABELS[n] for n in t}])
def test_partition_of_the_mean_form(labels):
  adam = optax.chain(gq.grad_queue(track=True), optax.adam(0.1))
  parts = {"ours": queue_sgd(0.1, track=True), "theirs": adam}
  own = {name: train(parts[label], six(draw))[0] for name, label in LABELS.items()}
  for partition in (optax.partition, optax.multi_transform):
    trajectory, state = train(partition(parts, labels), six(draw))
    for name in LABELS:
      assert_close([p[name] for p in trajectory], [p[name] for p in own[name]])
    figures = gq.diagnostics(state)
    assert (figures["0/queued"], figures["1/queued"]) == (6, 6)


REFUSED = r"grad_queue inside optax\.masked or optax\.partition.*optax\.chain\(grad_queue"
BY_OPTAX = r"(different types|Expected)[\s\S]*GroupGradients"
OURS = queue_sgd(0.1)


@pytest.mark.parametrize(
  ("tx", "form", "message"),
  [
    *(
      (optax.partition({"ours": OURS, "theirs": other}, labels), per_example, REFUSED)
      for other in (optax.set_to_zero(), optax.sgd(0.1), OURS)
      for labels in (LABELS, lambda t: {n: LABELS[n] for n in t})
    ),
    (optax.masked(OURS, {"w": True, "b": False}), per_example, REFUSED),
    (optax.masked(OURS, lambda t: {n: n == "w" for n in t}), per_example, REFUSED),
    # The mask is a tree of the parameters, which GroupGradients do not match: Optax comes first.
    (optax.masked(OURS, {"w": True, "b": False}), groups, BY_OPTAX),
    (optax.masked(OURS, {"w": True, "b": True}), groups, BY_OPTAX),
    (optax.partition({"ours": OURS, "theirs": OURS}, LABELS), groups, BY_OPTAX),
  ],
)
def test_masked_and_partition_of_batched_forms_are_refused(tx, form, message):
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(tx.update, form(0), tx.init(PARAMS), PARAMS)


# Injected hyperparameters


@pytest.mark.parametrize(
  ("form", "options"),
  [(form, {"rho": 2.0, "update_norm": 1.2, "key": 3, "track": True}) for form in FORMS]
  + [(draw, {})],
)
def test_injected_grad_queue_equals_plain(form, options):
  trajectory, state = train(injected(3, **TWO, **options), six(form))
  assert_close(trajectory, train(gq.grad_queue(3, **TWO, **options), six(form))[0])
  assert state.hyperparams["rho"] == options.get("rho", 3.0)


def test_injected_rho_can_be_changed_between_steps_and_is_clamped():
  tx, gradients = injected(rho=3.0), six(draw)
  _, state = train(tx, gradients[:5])
  for rho in (2.0, 1.0, 0.25, -1.0):
    state.hyperparams["rho"] = jnp.asarray(rho)
    result, _ = tx.update(gradients[5], state, PARAMS)
    assert_close(result, weighted(gradients, rho=max(rho, 1.0))[-1])
