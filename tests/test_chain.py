# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What grad_queue is chained with, extra arguments and injected hyperparameters."""

import chex
import jax
import jax.numpy as jnp
import optax
import pytest
from chains import (
  BATCHED,
  PARAMS,
  STATIC,
  TWO,
  assert_close,
  assert_differ,
  draw,
  queue_sgd,
  train,
  weighted,
)

import gq_optax as gq

# Optax's and Flax's own code needs the usual promotion rules.
pytestmark = pytest.mark.standard_promotion


# chain


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


@pytest.mark.parametrize("form", BATCHED)
def test_chain_behind_the_batched_forms(form):
  gradients = [form(seed) for seed in range(6)]
  tx = optax.chain(gq.grad_queue(**TWO), CLIP, DECAY, optax.sgd(0.1))
  plain = optax.chain(CLIP, DECAY, optax.sgd(0.1))
  trajectory, _ = train(tx, gradients)
  assert_close(trajectory, train(plain, weighted(gradients, **TWO))[0])


def test_named_chain():
  gradients = [draw(seed) for seed in range(6)]
  named = optax.named_chain(("queue", gq.grad_queue(track=True)), ("sgd", optax.sgd(0.1)))
  trajectory, state = train(named, gradients)
  assert_close(trajectory, train(queue_sgd(0.1, None), gradients)[0])
  assert gq.diagnostics(state)["queued"] == 6
  assert state["queue"].queue.count == 6


# Extra args


@pytest.mark.parametrize("form", [draw, *BATCHED])
def test_unknown_extra_args_are_ignored(form):
  gradients = [form(seed) for seed in range(5)]
  tx = queue_sgd(0.1)
  expected, _ = train(tx, gradients)
  extra = {"value": 1.0, "grad": gradients[0], "something": {"else": jnp.ones(3)}}
  chex.assert_trees_all_equal(train(tx, gradients, **extra)[0], expected)


def test_with_extra_args_support_leaves_it_as_it_is():
  tx = gq.grad_queue(queue_length=(1, 3))
  assert isinstance(tx, optax.GradientTransformationExtraArgs)
  assert optax.with_extra_args_support(tx) is tx


def test_value_reaches_the_queue_and_what_is_behind_it():
  tx = optax.chain(queue_sgd(0.1, queue_length=(1, 3)), optax.contrib.reduce_on_plateau(patience=1))
  _, state = train(tx, [draw(seed) for seed in range(4)], jit=True, value=1.0)
  assert optax.tree.get(state, "losses").count == 4
  assert optax.tree.get(state, "best_value") == 1.0


# inject_hyperparams


@pytest.mark.parametrize("form", [draw, *BATCHED])
@pytest.mark.parametrize("options", [{}, {"rho": 2.0, "update_norm": 1.2, "key": 3}])
def test_injected_grad_queue_equals_plain(form, options):
  gradients = [form(seed) for seed in range(6)]
  options = {**TWO, **options}
  static = (*STATIC, "embed")
  injected = optax.inject_hyperparams(gq.grad_queue, static_args=static)(3, **options)
  trajectory, state = train(injected, gradients)
  assert_close(trajectory, train(gq.grad_queue(3, **options), gradients)[0])
  assert {"rho"} <= set(state.hyperparams)


def test_injected_rho_can_be_changed_between_steps_and_is_clamped():
  tx = optax.inject_hyperparams(gq.grad_queue, static_args=STATIC)(rho=3.0)
  gradients = [draw(seed) for seed in range(6)]
  _, state = train(tx, gradients[:5])
  update = jax.jit(tx.update)
  for rho in (2.0, 1.0, 0.25, -1.0):
    state.hyperparams["rho"] = jnp.asarray(rho)
    result, _ = update(gradients[5], state, PARAMS)
    expected = weighted(gradients, rho=max(rho, 1.0))[-1]
    assert_close(result, expected)


def test_injected_rho_can_be_scheduled():
  rho = optax.linear_schedule(1.0, 4.0, 5)
  queue = optax.inject_hyperparams(gq.grad_queue, static_args=STATIC)(rho=rho)
  tx = optax.chain(queue, optax.sgd(0.1))
  gradients = [draw(seed) for seed in range(6)]
  trajectory, state = train(tx, gradients)
  params = PARAMS
  for step, actual in enumerate(trajectory):
    update = weighted(gradients[: step + 1], rho=float(rho(step)))[-1]
    params = optax.apply_updates(params, jax.tree.map(lambda u: -0.1 * u, update))
    assert_close(actual, params)
  assert state[0].hyperparams["rho"] == 4.0


def test_injected_value_reaches_an_adaptive_queue():
  tx = optax.inject_hyperparams(gq.grad_queue, static_args=STATIC)((1, 3))
  _, state = train(tx, [draw(0), draw(1)], value=2.0)
  assert state.inner_state.losses.count == 2
  with pytest.raises(ValueError, match="pass value="):
    tx.update(draw(2), state, PARAMS)


@pytest.mark.parametrize("name", STATIC)
def test_injecting_a_structural_int_is_refused(name):
  static = [other for other in STATIC if other != name]
  tx = optax.inject_hyperparams(gq.grad_queue, static_args=static)()
  with pytest.raises(ValueError, match=f"{name} .*Python int.*inject_hyperparams.*static_args"):
    tx.init(PARAMS)
