# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""grad_queue among the parts of Optax: what it is chained with, and what wraps it."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from chains import (
  BATCHED,
  PARAMS,
  REFUSED,
  STATIC,
  TWO,
  assert_close,
  assert_differ,
  draw,
  groups,
  per_example,
  queue_adam,
  queue_sgd,
  tail_probability,
  train,
  weighted,
)

import gq_optax as gq

pytestmark = pytest.mark.standard_promotion  # Optax's own code needs the usual rules
every_form = pytest.mark.parametrize("form", [draw, *BATCHED])

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
  "adam": functools.partial(queue_adam, 1e-2),
  "in steps": lambda: optax.MultiSteps(small(), 2),
}
every_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)


def problem(start, goal, objective=None):
  distance = lambda p: optax.tree.norm(optax.tree.sub(p, goal), squared=True)
  return start, goal, objective or distance


def valley(p):
  return (1.0 - p[0]) ** 2 + 100.0 * (p[1] - p[0] ** 2) ** 2


MIXED = (jnp.zeros((2, 2, 2)), jnp.zeros((3, 3)), jnp.zeros((2,)))
PROBLEMS = {
  "parabola": problem(jnp.array([-1.0, 10.0]), jnp.array([1.0, 2.0])),
  "rosenbrock": problem(jnp.zeros(2), jnp.ones(2), valley),
  "matrix": problem(jnp.zeros((2, 3)), jnp.arange(6.0).reshape(2, 3)),
  "mixed": problem((*MIXED, {}), (*jax.tree.map(jnp.ones_like, MIXED), {})),
}


def make_step(tx, objective):
  def step(params, state):
    value, gradient = jax.value_and_grad(objective)(params)
    updates, state = tx.update(gradient, state, params, value=value, nobody_expects_this=1)
    return optax.apply_updates(params, updates), state

  return step


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "in steps"])
@pytest.mark.parametrize("of", PROBLEMS)
def test_it_optimizes(name, of):
  params, goal, objective = PROBLEMS[of]
  tx = OPTIMIZERS[name]()
  step = make_step(tx, objective)
  scan = jax.jit(lambda carry: jax.lax.scan(lambda c, _: (step(*c), None), carry, length=30_000)[0])
  params, _ = scan((params, tx.init(params)))
  chex.assert_trees_all_close(params, goal, rtol=3e-2, atol=3e-2)


@every_optimizer
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64])
def test_dtypes_stay_nothing_compiles_twice_and_memory_is_given_away(name, dtype):
  """Through a cond, with a loss of another dtype, and an argument that nobody expects."""
  with jax.enable_x64(dtype == jnp.float64):
    tx, target = OPTIMIZERS[name](), jnp.array([1.0, 2.0], dtype)
    params = jnp.array([-1.0, 10.0], dtype)
    other = jnp.float16 if dtype != jnp.float16 else jnp.bfloat16

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


@every_optimizer
def test_a_restored_checkpoint_continues_bit_by_bit(name, tmp_path):
  tx = OPTIMIZERS[name]()
  step = jax.jit(make_step(tx, lambda p: PROBLEMS["mixed"][2]((*p, {}))))
  run = (MIXED, tx.init(MIXED))
  for _ in range(5):
    run = step(*run)
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(tmp_path / "run", run)
    checkpointer.wait_until_finished()
    target = (MIXED, jax.eval_shape(tx.init, MIXED))
    resumed = tuple(checkpointer.restore(tmp_path / "run", target))
  chex.assert_trees_all_equal(resumed, run)
  for _ in range(5):
    run, resumed = step(*run), step(*resumed)
  chex.assert_trees_all_equal(resumed, run)


# In a chain

CLIP, DECAY = optax.clip_by_global_norm(0.7), optax.add_decayed_weights(0.1)


@pytest.mark.parametrize(
  ("before", "after"),
  [
    ([CLIP], []),
    ([], [CLIP]),
    ([DECAY], [CLIP]),
    ([CLIP], [DECAY]),
    ([CLIP, DECAY], []),
    ([], [DECAY, CLIP]),
  ],
)
def test_chain_in_any_order_is_one_after_the_other(before, after):
  stages = [*before, gq.grad_queue(), *after, optax.sgd(0.1)]
  gradients = [draw(seed) for seed in range(6)]
  trajectory, _ = train(optax.chain(*stages), gradients)
  params, states = PARAMS, [stage.init(PARAMS) for stage in stages]
  for gradient, actual in zip(gradients, trajectory, strict=True):
    for i, stage in enumerate(stages):
      gradient, states[i] = stage.update(gradient, states[i], params)
    params = optax.apply_updates(params, gradient)
    assert_close(actual, params)
  without, _ = train(optax.chain(*before, *after, optax.sgd(0.1)), gradients)
  assert_differ(trajectory[-1], without[-1])


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


@every_form
@pytest.mark.parametrize("name", BEHIND)
def test_what_is_behind_sees_weighted_gradients(name, form):
  gradients = [form(seed) for seed in range(6)]
  trajectory, _ = train(optax.chain(gq.grad_queue(**TWO), BEHIND[name]), gradients, jit=True)
  expected, _ = train(BEHIND[name], weighted(gradients, **TWO), jit=True)
  assert_close(trajectory, expected)
  assert_differ(trajectory[-1], PARAMS)
  if name == "partition":  # the recipe of the message, see below
    chex.assert_trees_all_equal([p["b"] for p in trajectory], [PARAMS["b"]] * 6)


@every_form
def test_schedule_free(form):
  gradients = [form(seed) for seed in range(6)]
  wrap = lambda inner: optax.contrib.schedule_free(inner, learning_rate=0.1, b1=0.9)
  trajectory, state = train(wrap(optax.chain(gq.grad_queue(**TWO), optax.sgd(0.1))), gradients)
  expected = train(wrap(optax.sgd(0.1)), weighted(gradients, **TWO))
  assert_close(trajectory, expected[0])
  averaged = optax.contrib.schedule_free_eval_params(state, trajectory[-1])
  assert_close(averaged, optax.contrib.schedule_free_eval_params(expected[1], expected[0][-1]))


def test_lookahead():
  gradients = [draw(seed) for seed in range(6)]
  final = []
  for inner in (queue_sgd(0.1), SGDM):
    tx = optax.lookahead(inner, sync_period=3, slow_step_size=0.5)
    params = optax.LookaheadParams.init_synced(PARAMS)
    final.append(train(tx, weighted(gradients) if final else gradients, params, jit=True)[0])
  assert_close(*final)


def test_value_reaches_the_queue_and_what_is_behind_it():
  tx = gq.grad_queue(queue_length=(1, 3))
  assert optax.with_extra_args_support(tx) is tx
  tx = optax.chain(queue_sgd(0.1, queue_length=(1, 3)), optax.contrib.reduce_on_plateau(patience=1))
  _, state = train(tx, [draw(seed) for seed in range(4)], jit=True, value=1.0)
  assert optax.tree.get(state, "losses").count == 4
  assert optax.tree.get(state, "best_value") == 1.0


@every_form
def test_unknown_extra_args_are_ignored(form):
  gradients, tx = [form(seed) for seed in range(5)], queue_sgd(0.1)
  extra = {"value": 1.0, "grad": gradients[0], "something": {"else": jnp.ones(3)}}
  chex.assert_trees_all_equal(train(tx, gradients, **extra)[0], train(tx, gradients)[0])


# Wrapped

AROUND = {
  "flatten": optax.flatten,
  "conditionally": lambda tx: optax.conditionally_transform(tx, lambda step: step >= 0),
  "named": lambda tx: optax.named_chain(("queue", tx)),
  "if finite": lambda tx: optax.apply_if_finite(tx, 3),
  "all of it": lambda tx: optax.masked(tx, {"w": True, "b": True}),
}


@pytest.mark.parametrize("name", AROUND)
def test_wrappers_of_the_mean_form_change_nothing(name):
  gradients = [draw(seed) for seed in range(6)]
  found, state = train(AROUND[name](queue_sgd(0.1, track=True)), gradients, jit=True)
  assert_close(found, train(queue_sgd(0.1), gradients)[0])
  assert gq.diagnostics(state)["queued"] == 6


@pytest.mark.parametrize("form", BATCHED)
@pytest.mark.parametrize(
  "wrap",
  [lambda tx: optax.MultiSteps(tx, 2), *[AROUND[n] for n in list(AROUND)[:2]], AROUND["if finite"]],
)
def test_wrappers_that_need_the_parameters_shapes_fail_around_the_batched_forms(wrap, form):
  tx = wrap(queue_sgd(0.1, num_clusters=2))
  with pytest.raises((ValueError, TypeError), match=r"type|structure|shape|Expected"):
    tx.update(form(0), tx.init(PARAMS), PARAMS)


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
  losses, gradient = [9.0, 1.0, 7.0, 2.0, 5.0, 3.0], draw(0)
  tx = optax.MultiSteps(gq.grad_queue(queue_length=(1, 4)), 2)
  update = jax.jit(tx.update)
  state, averaged, mean = tx.init(PARAMS), tx.init(PARAMS), jnp.float32(0.0)
  for loss in losses:
    mean += (loss - mean) / (averaged.mini_step + 1)
    _, state = update(gradient, state, PARAMS, value=jnp.float32(loss))
    _, averaged = update(gradient, averaged, PARAMS, value=mean)
  np.testing.assert_allclose(state.inner_opt_state.losses.values[:3], [3.0, 2.0, 1.0])
  np.testing.assert_allclose(averaged.inner_opt_state.losses.values[:3], [4.0, 4.5, 5.0])


def broken(gradient):
  gradient = jax.tree.map(np.array, gradient)
  leaf = gradient.grads["w"] if isinstance(gradient, gq.GroupGradients) else gradient["w"]
  leaf.reshape(-1)[0] = np.nan
  return gradient


@pytest.mark.parametrize("around", [True, False])
@every_form
def test_apply_if_finite_recovers(around, form):
  """Around the mean form; behind any form."""
  if around and form is not draw:
    return
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
def test_masked_leaves_the_others_of_a_mean_form_and_refuses_examples(mask):
  gradients = [draw(seed) for seed in range(6)]
  tx = optax.masked(gq.grad_queue(), mask)
  state, update = tx.init(PARAMS), jax.jit(tx.update)
  for gradient, expected in zip(gradients, weighted(gradients), strict=True):
    result, state = update(gradient, state)
    chex.assert_trees_all_equal(result["b"], gradient["b"])
    assert_close(result["w"], expected["w"])
  assert set(jax.tree.leaves(jax.tree.map(jnp.shape, state.inner_state.queue.slots))) == {2, 3}
  with pytest.raises(ValueError, match=REFUSED):
    tx.update(per_example(0), tx.init(PARAMS))


def test_masked_that_hides_every_parameter():
  tx = optax.masked(gq.grad_queue(track=True), {"w": False, "b": False})
  state, update = tx.init(PARAMS), jax.jit(tx.update)
  for seed in range(5):
    result, state = update(draw(seed), state)
    chex.assert_trees_all_equal(result, draw(seed))
    chex.assert_tree_all_finite(state)


every_label = pytest.mark.parametrize("labels", [LABELS, lambda t: {n: LABELS[n] for n in t}])


@pytest.mark.parametrize("partition", [optax.partition, optax.multi_transform])
@every_label
def test_partition_of_the_mean_form(partition, labels):
  gradients = [draw(seed) for seed in range(6)]
  parts = {"ours": queue_sgd(0.1, track=True), "theirs": queue_adam(0.1, track=True)}
  trajectory, state = train(partition(parts, labels), gradients)
  for name, label in LABELS.items():
    own, _ = train(parts[label], gradients)
    assert_close([p[name] for p in trajectory], [p[name] for p in own])
  figures = gq.diagnostics(state)
  assert (figures["0/queued"], figures["1/queued"]) == (6, 6)


@pytest.mark.parametrize("other", [optax.set_to_zero(), optax.sgd(0.1), queue_sgd(0.1)])
@every_label
def test_partition_of_per_example_gradients_is_refused(other, labels):
  tx = optax.partition({"ours": queue_sgd(0.1), "theirs": other}, labels)
  with pytest.raises(ValueError, match=REFUSED):
    tx.update(per_example(0), tx.init(PARAMS), PARAMS)


@pytest.mark.parametrize(
  "tx",
  [
    optax.masked(gq.grad_queue(), {"w": True, "b": False}),
    optax.masked(gq.grad_queue(), {"w": True, "b": True}),
    optax.partition({"ours": queue_sgd(0.1), "theirs": queue_sgd(0.1)}, LABELS),
  ],
)
def test_masked_and_partition_of_group_gradients_are_refused_by_optax(tx):
  # The mask is a tree of the parameters, which GroupGradients do not match: Optax comes first.
  with pytest.raises(ValueError, match=r"(different types|Expected)[\s\S]*GroupGradients"):
    tx.update(groups(0), tx.init(PARAMS), PARAMS)


# Injected hyperparameters


def injected(*args, **kwargs):
  return optax.inject_hyperparams(gq.grad_queue, (*STATIC, "embed", "track"))(*args, **kwargs)


@every_form
@pytest.mark.parametrize("options", [{}, {"rho": 2.0, "update_norm": 1.2, "key": 3, "track": True}])
def test_injected_grad_queue_equals_plain(form, options):
  gradients, options = [form(seed) for seed in range(6)], {**TWO, **options}
  trajectory, state = train(injected(3, **options), gradients)
  assert_close(trajectory, train(gq.grad_queue(3, **options), gradients)[0])
  assert state.hyperparams["rho"] == options.get("rho", 3.0)


def test_injected_rho_can_be_changed_between_steps_and_is_clamped():
  tx, gradients = injected(rho=3.0), [draw(seed) for seed in range(6)]
  _, state = train(tx, gradients[:5])
  update = jax.jit(tx.update)
  for rho in (2.0, 1.0, 0.25, -1.0):
    state.hyperparams["rho"] = jnp.asarray(rho)
    result, _ = update(gradients[5], state, PARAMS)
    assert_close(result, weighted(gradients, rho=max(rho, 1.0))[-1])


def test_injected_rho_can_be_scheduled():
  rho = optax.linear_schedule(1.0, 4.0, 5)
  gradients = [draw(seed) for seed in range(6)]
  trajectory, state = train(optax.chain(injected(rho=rho), optax.sgd(0.1)), gradients)
  params = PARAMS
  for step, actual in enumerate(trajectory):
    update = weighted(gradients[: step + 1], rho=float(rho(step)))[-1]
    params = optax.apply_updates(params, jax.tree.map(lambda u: -0.1 * u, update))
    assert_close(actual, params)
  assert state[0].hyperparams["rho"] == 4.0


def test_injected_value_reaches_an_adaptive_queue():
  _, state = train(injected((1, 3)), [draw(0), draw(1)], value=2.0)
  assert state.inner_state.losses.count == 2
  with pytest.raises(ValueError, match="pass value="):
    injected((1, 3)).update(draw(2), state, PARAMS)


@pytest.mark.parametrize("name", STATIC)
def test_injecting_a_structural_int_is_refused(name):
  static = [other for other in STATIC if other != name]
  tx = optax.inject_hyperparams(gq.grad_queue, static_args=static)()
  with pytest.raises(ValueError, match=f"{name} .*Python int.*inject_hyperparams.*static_args"):
    tx.init(PARAMS)


def test_tree_get_and_set_reach_the_state():
  tx = injected(track=True)
  _, state = train(tx, [draw(seed) for seed in range(4)])
  newest = jax.tree.map(lambda s: s[0], optax.tree.get(state, "slots"))
  chex.assert_trees_all_equal(newest, draw(3))
  assert isinstance(optax.tree.get(state, "GradQueueState"), gq.GradQueueState)
  assert optax.tree.get(state, "skipped") == 0
  changed = optax.tree.set(state, rho=jnp.float32(1.0))
  assert optax.tree.get(changed, "rho") == 1.0
  assert_differ(tx.update(draw(9), changed, PARAMS)[0], tx.update(draw(9), state, PARAMS)[0])
