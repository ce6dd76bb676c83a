# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What wraps grad_queue: works, or is refused with a clear message."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
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
  train,
  weighted,
)

import gq_optax as gq

# Optax's and Flax's own code needs the usual promotion rules.
pytestmark = pytest.mark.standard_promotion


# MultiSteps


def test_multi_steps_around_the_mean_form_averages_before_the_queue():
  gradients = [draw(seed) for seed in range(12)]
  pairs = zip(gradients[::2], gradients[1::2], strict=True)
  means = [jax.tree.map(lambda a, b: (a + b) / np.float32(2), *pair) for pair in pairs]
  tx = optax.MultiSteps(queue_sgd(0.1), every_k_schedule=2)
  trajectory, state = train(tx, gradients, jit=True)
  expected, expected_state = train(queue_sgd(0.1), means)
  assert_close(trajectory[1::2], expected)
  assert_close(state.inner_opt_state, expected_state)
  chex.assert_trees_all_equal(trajectory[2], trajectory[1])  # nothing moves half-way


def test_multi_steps_hands_value_to_an_adaptive_queue():
  tx = optax.MultiSteps(queue_sgd(0.1, queue_length=(1, 3)), every_k_schedule=2)
  _, state = train(tx, [draw(seed) for seed in range(4)], jit=True, value=1.0)
  assert optax.tree.get(state, "losses").count == 2


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


@pytest.mark.parametrize("form", BATCHED)
def test_multi_steps_behind_the_batched_forms(form):
  gradients = [form(seed) for seed in range(8)]
  downstream = optax.MultiSteps(optax.sgd(0.1, momentum=0.9), 2).gradient_transformation()
  tx = optax.chain(gq.grad_queue(**TWO), downstream)
  trajectory, _ = train(tx, gradients, jit=True)
  every = weighted(gradients, **TWO)
  means = [
    jax.tree.map(lambda a, b: (a + b) / 2, a, b)
    for a, b in zip(every[::2], every[1::2], strict=True)
  ]
  assert_close(trajectory[1::2], train(optax.sgd(0.1, momentum=0.9), means)[0])


@pytest.mark.parametrize("form", BATCHED)
@pytest.mark.parametrize(
  "wrap",
  [
    lambda tx: optax.MultiSteps(tx, 2),
    lambda tx: optax.apply_if_finite(tx, 3),
    optax.flatten,
    lambda tx: optax.conditionally_transform(tx, lambda step: step >= 0),
  ],
)
def test_wrappers_that_need_the_parameters_shapes_fail_around_the_batched_forms(wrap, form):
  tx = wrap(queue_sgd(0.1, num_clusters=2))
  with pytest.raises((ValueError, TypeError), match=r"type|structure|shape|Expected"):
    tx.update(form(0), tx.init(PARAMS), PARAMS)


# apply_if_finite


def broken(gradient):
  gradient = jax.tree.map(np.array, gradient)
  leaf = gradient.grads["w"] if isinstance(gradient, gq.GroupGradients) else gradient["w"]
  leaf.reshape(-1)[0] = np.nan
  return gradient


def test_apply_if_finite_around_the_mean_form_recovers():
  gradients = [draw(seed) for seed in range(8)]
  tx = optax.apply_if_finite(queue_sgd(0.1), max_consecutive_errors=3)
  with_nan = [*gradients[:5], broken(draw(50)), broken(draw(51)), *gradients[5:]]
  trajectory, state = train(tx, with_nan, jit=True)
  expected, expected_state = train(queue_sgd(0.1), gradients)
  chex.assert_trees_all_equal(trajectory[4], trajectory[5], trajectory[6])
  assert_close(trajectory[:5] + trajectory[7:], expected)
  assert_close(state.inner_state, expected_state)
  assert state.total_notfinite == 2


@pytest.mark.parametrize("form", [draw, *BATCHED])
def test_apply_if_finite_behind_any_form_recovers(form):
  gradients = [form(seed) for seed in range(8)]
  guarded = optax.apply_if_finite(optax.sgd(0.1, momentum=0.9), max_consecutive_errors=3)
  tx = optax.chain(gq.grad_queue(**TWO), guarded)
  with_nan = [*gradients[:5], broken(form(50)), *gradients[5:]]
  trajectory, state = train(tx, with_nan, jit=True)
  expected, expected_state = train(
    optax.chain(gq.grad_queue(**TWO), optax.sgd(0.1, momentum=0.9)), gradients
  )
  chex.assert_trees_all_equal(trajectory[4], trajectory[5])
  assert_close(trajectory[:5] + trajectory[6:], expected)
  assert_close(state[0], expected_state[0])
  assert state[1].total_notfinite == 1


# masked and partition


def only_w(tree):
  return {name: name == "w" for name in tree}


@pytest.mark.parametrize("mask", [{"w": True, "b": False}, only_w])
def test_masked_around_the_mean_form_leaves_the_others_untouched(mask):
  gradients = [draw(seed) for seed in range(6)]
  tx = optax.masked(gq.grad_queue(), mask)
  state, update = tx.init(PARAMS), jax.jit(tx.update)
  for gradient, expected in zip(gradients, weighted(gradients), strict=True):
    result, state = update(gradient, state)
    chex.assert_trees_all_equal(result["b"], gradient["b"])
    assert_close(result["w"], expected["w"])
  assert set(jax.tree.leaves(jax.tree.map(jnp.shape, state.inner_state.queue.slots))) == {2, 3}


def test_masked_that_hides_every_parameter():
  tx = optax.masked(gq.grad_queue(track=True), {"w": False, "b": False})
  state, update = tx.init(PARAMS), jax.jit(tx.update)
  for seed in range(5):
    result, state = update(draw(seed), state)
    chex.assert_trees_all_equal(result, draw(seed))
    chex.assert_tree_all_finite(state)


LABELS = {"w": "ours", "b": "theirs"}


@pytest.mark.parametrize("partition", [optax.partition, optax.multi_transform])
@pytest.mark.parametrize("labels", [LABELS, lambda tree: {name: LABELS[name] for name in tree}])
def test_partition_of_the_mean_form(partition, labels):
  gradients = [draw(seed) for seed in range(6)]
  tx = partition({"ours": queue_sgd(0.1), "theirs": optax.adam(0.1)}, labels)
  trajectory, _ = train(tx, gradients)
  ours, _ = train(queue_sgd(0.1), gradients)
  theirs, _ = train(optax.adam(0.1), gradients)
  assert_close([p["w"] for p in trajectory], [p["w"] for p in ours])
  assert_close([p["b"] for p in trajectory], [p["b"] for p in theirs])


def test_partition_with_two_queues_is_read_by_diagnostics():
  tx = optax.partition(
    {"ours": queue_sgd(0.1, track=True), "theirs": queue_adam(0.1, track=True)}, LABELS
  )
  _, state = train(tx, [draw(seed) for seed in range(3)])
  figures = gq.diagnostics(state)
  assert (figures["0/queued"], figures["1/queued"]) == (3, 3)


@pytest.mark.parametrize("mask", [{"w": True, "b": False}, only_w])
def test_masked_around_per_example_gradients_is_refused(mask):
  tx = optax.masked(gq.grad_queue(), mask)
  with pytest.raises(ValueError, match=REFUSED):
    tx.update(per_example(0), tx.init(PARAMS))


@pytest.mark.parametrize("other", [optax.set_to_zero(), optax.sgd(0.1), queue_sgd(0.1)])
@pytest.mark.parametrize("labels", [LABELS, lambda tree: {name: LABELS[name] for name in tree}])
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


@pytest.mark.parametrize("form", BATCHED)
def test_the_recipe_of_the_message_works(form):
  gradients = [form(seed) for seed in range(6)]
  parts = optax.partition({"ours": optax.sgd(0.1), "theirs": optax.set_to_zero()}, LABELS)
  trajectory, _ = train(optax.chain(gq.grad_queue(**TWO), parts), gradients)
  expected, _ = train(optax.chain(gq.grad_queue(**TWO), optax.sgd(0.1)), gradients)
  assert_close([p["w"] for p in trajectory], [p["w"] for p in expected])
  chex.assert_trees_all_equal([p["b"] for p in trajectory], [PARAMS["b"]] * 6)


# Other wrappers


def test_lookahead():
  gradients = [draw(seed) for seed in range(6)]
  final = []
  for inner in (queue_sgd(0.1), optax.sgd(0.1, momentum=0.9)):
    tx = optax.lookahead(inner, sync_period=3, slow_step_size=0.5)
    params = optax.LookaheadParams.init_synced(PARAMS)
    final.append(train(tx, weighted(gradients) if final else gradients, params, jit=True)[0])
  assert_close(*final)


@pytest.mark.parametrize("form", [draw, *BATCHED])
def test_schedule_free(form):
  gradients = [form(seed) for seed in range(6)]
  wrap = lambda inner: optax.contrib.schedule_free(inner, learning_rate=0.1, b1=0.9)
  tx = wrap(optax.chain(gq.grad_queue(**TWO), optax.sgd(0.1)))
  trajectory, state = train(tx, gradients)
  expected = train(wrap(optax.sgd(0.1)), weighted(gradients, **TWO))
  assert_close(trajectory, expected[0])
  averaged = optax.contrib.schedule_free_eval_params(state, trajectory[-1])
  assert_close(averaged, optax.contrib.schedule_free_eval_params(expected[1], expected[0][-1]))


def test_flatten_and_conditionally_transform_around_the_mean_form():
  gradients = [draw(seed) for seed in range(6)]
  expected, _ = train(queue_sgd(0.1), gradients)
  assert_close(train(optax.flatten(queue_sgd(0.1)), gradients)[0], expected)
  always = optax.conditionally_transform(queue_sgd(0.1), lambda step: step >= 0)
  assert_close(train(always, gradients, jit=True)[0], expected)


@pytest.mark.parametrize("alias", [queue_sgd, queue_adam])
def test_learning_rate_schedules(alias):
  schedule = optax.warmup_cosine_decay_schedule(0.0, 0.1, 2, 6)
  plain = {queue_sgd: lambda lr: optax.sgd(lr, momentum=0.9), queue_adam: optax.adam}[alias]
  gradients = [draw(seed) for seed in range(6)]
  trajectory, _ = train(alias(schedule), gradients)
  assert_close(trajectory, train(plain(schedule), weighted(gradients))[0])
  chex.assert_trees_all_equal(trajectory[0], PARAMS)  # the schedule starts at 0
  assert_differ(trajectory[-1], PARAMS)


# optax.tree


def test_tree_get_and_set_reach_the_state():
  tx = optax.inject_hyperparams(gq.grad_queue, static_args=STATIC)(track=True)
  _, state = train(tx, [draw(seed) for seed in range(4)])
  newest = jax.tree.map(lambda s: s[0], optax.tree.get(state, "slots"))
  chex.assert_trees_all_equal(newest, draw(3))
  assert isinstance(optax.tree.get(state, "GradQueueState"), gq.GradQueueState)
  assert optax.tree.get(state, "skipped") == 0
  changed = optax.tree.set(state, rho=jnp.float32(1.0))
  result, _ = tx.update(draw(9), changed, PARAMS)
  weighted_result, _ = tx.update(draw(9), state, PARAMS)
  assert optax.tree.get(changed, "rho") == 1.0
  assert_differ(result, weighted_result)
