# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What wraps grad_queue and what it is chained with: works, or is refused with a clear message."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training import train_state

import gq_optax as gq

# Optax's and Flax's own code needs the usual promotion rules.
pytestmark = pytest.mark.standard_promotion

PARAMS = {"w": jnp.full((3, 2), 0.5), "b": jnp.full(2, -0.25)}
STATIC = ("queue_length", "num_clusters")
REFUSED = r"grad_queue inside optax\.masked or optax\.partition.*optax\.chain\(grad_queue"


def draw(seed, *lead):
  rng = np.random.RandomState(seed)
  return jax.tree.map(lambda p: rng.randn(*lead, *p.shape).astype(np.float32), PARAMS)


def per_example(seed):
  return draw(seed, 6)


def groups(seed):
  return gq.GroupGradients(draw(seed, 2), np.array([4, 2]))


BATCHED = [per_example, groups]


def embed(per_example):
  return per_example["b"]


TWO = {"num_clusters": 2, "embed": embed}


def train(tx, gradients, params=PARAMS, *, jit=False, **extra):
  """Parameters after every step, and the last state."""
  # Compiled only where a `lax.cond` would be compiled at every step anyway: a few steps are faster
  # without.
  state, update = tx.init(params), jax.jit(tx.update) if jit else tx.update
  trajectory = []
  for gradient in gradients:
    updates, state = update(gradient, state, params, **extra)
    params = optax.apply_updates(params, updates)
    trajectory.append(params)
  return trajectory, state


def weighted(gradients, *args, **kwargs):
  """What `grad_queue` alone makes of the gradients."""
  tx = gq.grad_queue(*args, **kwargs)
  state = tx.init(PARAMS)
  results = []
  for gradient in gradients:
    result, state = tx.update(gradient, state)
    results.append(result)
  return results


def assert_close(actual, expected):
  chex.assert_trees_all_close(actual, expected, rtol=1e-4, atol=1e-6)


def assert_differ(actual, expected):
  assert not np.allclose(actual["w"], expected["w"], rtol=1e-3, atol=1e-6)


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


@pytest.mark.parametrize(
  ("ours", "written_out"),
  [
    (gq.gq_sgd(0.1), optax.sgd(0.1, momentum=0.9)),
    (gq.gq_sgd(0.1, momentum=None), optax.sgd(0.1)),
    (gq.gq_sgd(0.1, 0.8, nesterov=True), optax.sgd(0.1, momentum=0.8, nesterov=True)),
    (gq.gq_adam(0.1, 0.8, 0.99, 1e-3), optax.adam(0.1, 0.8, 0.99, 1e-3)),
  ],
)
@pytest.mark.parametrize("form", [draw, *BATCHED])
def test_the_aliases_are_chains(ours, written_out, form):
  gradients = [form(seed) for seed in range(6)]
  expected, _ = train(optax.chain(gq.grad_queue(), written_out), gradients)
  chex.assert_trees_all_equal(train(ours, gradients)[0], expected)


@pytest.mark.parametrize(
  "option",
  [
    {"queue_length": (2, 4)},
    {"rho": 2.0},
    {"scarcity": gq.surprisal},
    {"num_clusters": 3},
    {"group_exponent": 0.5},
    {"update_norm": 1.5},
    {"queue_dtype": "bfloat16"},
    {"track": True},
    {"key": 3},
  ],
)
@pytest.mark.parametrize(
  ("alias", "optimizer"),
  [(gq.gq_sgd, optax.sgd(0.1, momentum=0.9)), (gq.gq_adam, optax.adam(0.1))],
)
def test_the_aliases_hand_every_option_on(alias, optimizer, option):
  def program(tx):
    step = lambda g, value: tx.update(g, tx.init(PARAMS), PARAMS, value=value)
    return str(jax.make_jaxpr(step)(per_example(0), 1.0))

  options = {"num_clusters": 2, **option}
  assert program(alias(0.1, **options)) == program(optax.chain(gq.grad_queue(**options), optimizer))
  assert program(alias(0.1, **options)) != program(alias(0.1, num_clusters=2))


def test_named_chain():
  gradients = [draw(seed) for seed in range(6)]
  named = optax.named_chain(("queue", gq.grad_queue(track=True)), ("sgd", optax.sgd(0.1)))
  trajectory, state = train(named, gradients)
  assert_close(trajectory, train(gq.gq_sgd(0.1, None), gradients)[0])
  assert gq.diagnostics(state)["queued"] == 6
  assert state["queue"].queue.count == 6


# Extra args


@pytest.mark.parametrize("form", [draw, *BATCHED])
def test_unknown_extra_args_are_ignored(form):
  gradients = [form(seed) for seed in range(5)]
  tx = gq.gq_sgd(0.1)
  expected, _ = train(tx, gradients)
  extra = {"value": 1.0, "grad": gradients[0], "something": {"else": jnp.ones(3)}}
  chex.assert_trees_all_equal(train(tx, gradients, **extra)[0], expected)


def test_with_extra_args_support_leaves_it_as_it_is():
  tx = gq.grad_queue(queue_length=(1, 3))
  assert isinstance(tx, optax.GradientTransformationExtraArgs)
  assert optax.with_extra_args_support(tx) is tx


def test_value_reaches_the_queue_and_what_is_behind_it():
  tx = optax.chain(gq.gq_sgd(0.1, queue_length=(1, 3)), optax.contrib.reduce_on_plateau(patience=1))
  _, state = train(tx, [draw(seed) for seed in range(4)], jit=True, value=1.0)
  assert optax.tree.get(state, "losses").count == 4
  assert optax.tree.get(state, "best_value") == 1.0


# inject_hyperparams


@pytest.mark.parametrize("form", [draw, *BATCHED])
@pytest.mark.parametrize(
  "options", [{}, {"rho": 2.0, "group_exponent": 0.5, "update_norm": 1.2, "key": 3}]
)
def test_injected_grad_queue_equals_plain(form, options):
  gradients = [form(seed) for seed in range(6)]
  options = {**TWO, **options}
  static = (*STATIC, "embed")
  injected = optax.inject_hyperparams(gq.grad_queue, static_args=static)(3, **options)
  trajectory, state = train(injected, gradients)
  assert_close(trajectory, train(gq.grad_queue(3, **options), gradients)[0])
  assert {"rho", "group_exponent"} <= set(state.hyperparams)


@pytest.mark.parametrize("alias", [gq.gq_sgd, gq.gq_adam])
@pytest.mark.parametrize("options", [{}, {"update_norm": "match", "queue_dtype": "float16"}])
def test_injected_aliases_equal_plain(alias, options):
  gradients = [draw(seed) for seed in range(6)]
  injected = optax.inject_hyperparams(alias, static_args=STATIC)(0.1, **options)
  assert_close(train(injected, gradients)[0], train(alias(0.1, **options), gradients)[0])


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
  tx = optax.inject_hyperparams(gq.gq_sgd, static_args=STATIC)(0.1, None, rho=rho)
  gradients = [draw(seed) for seed in range(6)]
  trajectory, state = train(tx, gradients)
  params = PARAMS
  for step, actual in enumerate(trajectory):
    update = weighted(gradients[: step + 1], rho=float(rho(step)))[-1]
    params = optax.apply_updates(params, jax.tree.map(lambda u: -0.1 * u, update))
    assert_close(actual, params)
  assert state.hyperparams["rho"] == 4.0


def test_injected_value_reaches_an_adaptive_queue():
  tx = optax.inject_hyperparams(gq.grad_queue, static_args=STATIC)((1, 3))
  _, state = train(tx, [draw(0), draw(1)], value=2.0)
  assert state.inner_state.losses.count == 2
  with pytest.raises(ValueError, match="pass value="):
    tx.update(draw(2), state, PARAMS)


def test_injected_scarcity_must_be_static():
  static = (*STATIC, "scarcity")
  tx = optax.inject_hyperparams(gq.grad_queue, static_args=static)(scarcity=gq.tail_probability)
  gradients = [draw(seed) for seed in range(6)]
  expected = train(gq.grad_queue(scarcity=gq.tail_probability), gradients)[0]
  assert_close(train(tx, gradients)[0], expected)


@pytest.mark.parametrize("name", STATIC)
def test_injecting_a_structural_int_is_refused(name):
  static = [other for other in STATIC if other != name]
  tx = optax.inject_hyperparams(gq.grad_queue, static_args=static)()
  with pytest.raises(ValueError, match=f"{name} .*Python int.*inject_hyperparams.*static_args"):
    tx.init(PARAMS)


# MultiSteps


def test_multi_steps_around_the_mean_form_averages_before_the_queue():
  gradients = [draw(seed) for seed in range(12)]
  pairs = zip(gradients[::2], gradients[1::2], strict=True)
  means = [jax.tree.map(lambda a, b: (a + b) / np.float32(2), *pair) for pair in pairs]
  tx = optax.MultiSteps(gq.gq_sgd(0.1), every_k_schedule=2)
  trajectory, state = train(tx, gradients, jit=True)
  expected, expected_state = train(gq.gq_sgd(0.1), means)
  assert_close(trajectory[1::2], expected)
  assert_close(state.inner_opt_state, expected_state)
  chex.assert_trees_all_equal(trajectory[2], trajectory[1])  # nothing moves half-way


def test_multi_steps_hands_value_to_an_adaptive_queue():
  tx = optax.MultiSteps(gq.gq_sgd(0.1, queue_length=(1, 3)), every_k_schedule=2)
  _, state = train(tx, [draw(seed) for seed in range(4)], jit=True, value=1.0)
  assert optax.tree.get(state, "losses").count == 2


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
  tx = wrap(gq.gq_sgd(0.1, num_clusters=2))
  with pytest.raises((ValueError, TypeError), match=r"type|structure|shape"):
    tx.update(form(0), tx.init(PARAMS), PARAMS)


# apply_if_finite


def broken(gradient):
  gradient = jax.tree.map(np.array, gradient)
  leaf = gradient.grads["w"] if isinstance(gradient, gq.GroupGradients) else gradient["w"]
  leaf.reshape(-1)[0] = np.nan
  return gradient


def test_apply_if_finite_around_the_mean_form_recovers():
  gradients = [draw(seed) for seed in range(8)]
  tx = optax.apply_if_finite(gq.gq_sgd(0.1), max_consecutive_errors=3)
  with_nan = [*gradients[:5], broken(draw(50)), broken(draw(51)), *gradients[5:]]
  trajectory, state = train(tx, with_nan, jit=True)
  expected, expected_state = train(gq.gq_sgd(0.1), gradients)
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
  tx = partition({"ours": gq.gq_sgd(0.1), "theirs": optax.adam(0.1)}, labels)
  trajectory, _ = train(tx, gradients)
  ours, _ = train(gq.gq_sgd(0.1), gradients)
  theirs, _ = train(optax.adam(0.1), gradients)
  assert_close([p["w"] for p in trajectory], [p["w"] for p in ours])
  assert_close([p["b"] for p in trajectory], [p["b"] for p in theirs])


def test_partition_with_two_queues_is_read_by_diagnostics():
  tx = optax.partition(
    {"ours": gq.gq_sgd(0.1, track=True), "theirs": gq.gq_adam(0.1, track=True)}, LABELS
  )
  _, state = train(tx, [draw(seed) for seed in range(3)])
  figures = gq.diagnostics(state)
  assert (figures["0/queued"], figures["1/queued"]) == (3, 3)


@pytest.mark.parametrize("mask", [{"w": True, "b": False}, only_w])
def test_masked_around_per_example_gradients_is_refused(mask):
  tx = optax.masked(gq.grad_queue(), mask)
  with pytest.raises(ValueError, match=REFUSED):
    tx.update(per_example(0), tx.init(PARAMS))


@pytest.mark.parametrize("other", [optax.set_to_zero(), optax.sgd(0.1), gq.gq_sgd(0.1)])
@pytest.mark.parametrize("labels", [LABELS, lambda tree: {name: LABELS[name] for name in tree}])
def test_partition_of_per_example_gradients_is_refused(other, labels):
  tx = optax.partition({"ours": gq.gq_sgd(0.1), "theirs": other}, labels)
  with pytest.raises(ValueError, match=REFUSED):
    tx.update(per_example(0), tx.init(PARAMS), PARAMS)


@pytest.mark.parametrize(
  "tx",
  [
    optax.masked(gq.grad_queue(), {"w": True, "b": False}),
    optax.masked(gq.grad_queue(), {"w": True, "b": True}),
    optax.partition({"ours": gq.gq_sgd(0.1), "theirs": gq.gq_sgd(0.1)}, LABELS),
  ],
)
def test_masked_and_partition_of_group_gradients_are_refused_by_optax(tx):
  # The mask is a tree of the parameters, which GroupGradients do not match: Optax comes first.
  with pytest.raises(ValueError, match=r"different types[\s\S]*GroupGradients"):
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
  for inner in (gq.gq_sgd(0.1), optax.sgd(0.1, momentum=0.9)):
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
  expected, _ = train(gq.gq_sgd(0.1), gradients)
  assert_close(train(optax.flatten(gq.gq_sgd(0.1)), gradients)[0], expected)
  always = optax.conditionally_transform(gq.gq_sgd(0.1), lambda step: step >= 0)
  assert_close(train(always, gradients, jit=True)[0], expected)


@pytest.mark.parametrize("alias", [gq.gq_sgd, gq.gq_adam])
def test_learning_rate_schedules(alias):
  schedule = optax.warmup_cosine_decay_schedule(0.0, 0.1, 2, 6)
  plain = {gq.gq_sgd: lambda lr: optax.sgd(lr, momentum=0.9), gq.gq_adam: optax.adam}[alias]
  gradients = [draw(seed) for seed in range(6)]
  trajectory, _ = train(alias(schedule), gradients)
  assert_close(trajectory, train(plain(schedule), weighted(gradients))[0])
  chex.assert_trees_all_equal(trajectory[0], PARAMS)  # the schedule starts at 0
  assert_differ(trajectory[-1], PARAMS)


# optax.tree


@pytest.mark.parametrize("options", [{}, {"track": True, "queue_length": (1, 3)}])
def test_map_params_takes_the_slots_for_parameters_and_nothing_else_of_ours(options):
  tx = gq.gq_sgd(0.1, **options)
  names = {"w": "W", "b": "B"}
  state = tx.init(PARAMS)
  mapped = optax.tree.map_params(
    tx, lambda _, name: name, state, names, transform_non_params=lambda _: None
  )
  assert mapped[0].queue.slots == names
  assert optax.tree.get(mapped, "trace") == names
  assert len(jax.tree.leaves(mapped)) == 4  # no counter, loss or figure among them
  # The slots have the axis L in front of the parameter's.
  chex.assert_tree_shape_prefix(state[0].queue.slots, (3,))


def test_tree_get_and_set_reach_the_state():
  tx = optax.inject_hyperparams(gq.gq_sgd, static_args=STATIC)(0.1, track=True)
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


# Flax


class Net(nn.Module):
  @nn.compact
  def __call__(self, x):
    return nn.Dense(2)(x)


@pytest.mark.parametrize("form", ["mean", "per_example", "group"])
def test_linen_train_state(form):
  net, x = Net(), jax.random.normal(jax.random.key(0), (6, 3))
  variables = net.init(jax.random.key(1), x)
  tx = optax.chain(
    gq.grad_queue(num_clusters=2, embed=lambda each: each["Dense_0"]["bias"]),
    optax.sgd(0.1, momentum=0.9),
  )
  state = train_state.TrainState.create(apply_fn=net.apply, params=variables["params"], tx=tx)
  params, opt_state = state.params, tx.init(state.params)

  def gradient(params, x):
    one = lambda p, row: jnp.sum(net.apply({"params": p}, row) ** 2)
    each = jax.vmap(jax.grad(one), (None, 0))(params, x)
    if form == "per_example":
      return each
    if form == "mean":
      return jax.tree.map(lambda g: g.mean(0), each)
    halves = jax.tree.map(lambda g: jnp.stack([g[:4].mean(0), g[4:].mean(0)]), each)
    return gq.GroupGradients(halves, jnp.array([4, 2]))

  jit_gradient = jax.jit(gradient)
  step = jax.jit(lambda state, x: state.apply_gradients(grads=gradient(state.params, x)))
  for i in range(6):
    batch = jnp.roll(x, i, axis=1) * (1.0 + i)
    updates, opt_state = tx.update(jit_gradient(params, batch), opt_state, params)
    params = optax.apply_updates(params, updates)
    state = step(state, batch)
  assert_close(state.params, params)
  assert state.step == 6
  # Outside jit as well.
  chex.assert_tree_all_finite(state.apply_gradients(grads=gradient(state.params, x)).params)


@pytest.mark.parametrize("form", ["mean", "per_example"])
def test_nnx_optimizer_with_extra_args(form):
  model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
  tx = gq.gq_sgd(0.1, queue_length=(1, 3), num_clusters=2)
  optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
  graph, params = nnx.split(model, nnx.Param)
  opt_state = tx.init(nnx.as_pure(params))
  x = jax.random.normal(jax.random.key(0), (6, 3))
  extra = {"value": jnp.float32(1.0)}
  if form == "per_example":
    extra["embeddings"] = jnp.eye(2)[jnp.array([0, 0, 0, 0, 1, 1])]

  @jax.jit
  def gradient(params, rows):
    loss = lambda params, rows: jnp.mean(nnx.merge(graph, params)(rows) ** 2)
    if form == "mean":
      return jax.grad(loss)(params, rows)
    return jax.vmap(jax.grad(loss), (None, 0))(params, rows[:, None])

  for i in range(5):
    params = nnx.state(model, nnx.Param)
    grads = gradient(params, jnp.roll(x, i, axis=1) * (1.0 + i))
    pure = nnx.as_pure(params)
    updates, opt_state = tx.update(nnx.as_pure(grads), opt_state, pure, **extra)
    expected = optax.apply_updates(pure, updates)
    optimizer.update(model, grads, **extra)
    assert_close(nnx.as_pure(nnx.state(model, nnx.Param)), expected)
  assert optimizer.step[...] == 5


def test_nnx_optimizer_without_value_says_what_an_adaptive_queue_needs():
  model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
  optimizer = nnx.Optimizer(model, gq.gq_sgd(0.1, queue_length=(1, 3)), wrt=nnx.Param)
  grads = nnx.grad(lambda model: jnp.mean(model(jnp.ones((1, 3)))))(model)
  with pytest.raises(ValueError, match="pass value="):
    optimizer.update(model, grads)
