# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""A state made by other options is refused when it is traced; resize_queue makes one that fits."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import gq_optax as gq

PARAMS = {"w": jnp.zeros((3, 2)), "b": jnp.zeros(2)}
GRADIENT = jax.tree.map(jnp.ones_like, PARAMS)
VALUE = np.float32(1.0)

OTHERS = [  # the state's options, those of the step, the option that the message names
  ({"queue_length": 2}, {"queue_length": 6}, "queue_length"),
  ({"queue_length": 6}, {"queue_length": 2}, "queue_length"),
  ({"queue_length": 3}, {"queue_length": (1, 3)}, "queue_length"),
  ({"queue_length": (1, 3)}, {"queue_length": 3}, "queue_length"),
  ({"queue_length": (1, 4)}, {"queue_length": (1, 5)}, "queue_length"),
  ({}, {"track": True}, "track"),
  ({"track": True}, {}, "track"),
  ({"track": True, "num_clusters": 2}, {"track": True, "num_clusters": 3}, "num_clusters"),
  ({"queue_dtype": "bfloat16"}, {}, "queue_dtype"),
  ({}, {"queue_dtype": "bfloat16"}, "queue_dtype"),
  ({"queue_dtype": "bfloat16"}, {"queue_dtype": "float16"}, "queue_dtype"),
]


@pytest.mark.parametrize(("made", "used", "option"), OTHERS)
@pytest.mark.parametrize("params", [PARAMS, None])
def test_a_state_of_other_options_is_refused(made, used, option, params):
  state, tx = gq.grad_queue(**made).init(PARAMS), gq.grad_queue(**used)
  message = rf"state must .*{option}.* was found.*gq\.resize_queue"
  for update in (tx.update, lambda *a, **k: jax.eval_shape(tx.update, *a, **k)):
    with pytest.raises(ValueError, match=message):
      update(GRADIENT, state, params, value=VALUE)
  fits = gq.resize_queue(state, jax.eval_shape(tx.init, PARAMS))
  result, after = tx.update(GRADIENT, fits, params, value=VALUE)
  chex.assert_trees_all_equal(result, GRADIENT)
  chex.assert_trees_all_equal_shapes_and_dtypes(after, tx.init(PARAMS))


def test_a_state_that_is_none_of_ours_is_refused():
  tx = gq.grad_queue()
  for state in (optax.EmptyState(), None, {"queue": 1}, tx.init(PARAMS).queue, 3):
    with pytest.raises(ValueError, match=r"state must be a GradQueueState, .* but \w+ was found"):
      tx.update(GRADIENT, state)
  scarcity = gq.group_scarcity(2)
  for state in (None, 3, {}, tx.init(PARAMS)):
    with pytest.raises(ValueError, match=r"state must be a GroupScarcityState, .* but \w+ was"):
      scarcity.update(jnp.eye(4), state)


def test_the_dtype_of_the_parameters_decides_where_they_are_given():
  params = optax.tree.cast(PARAMS, jnp.bfloat16)
  tx = gq.grad_queue()
  state = tx.init(params)
  tx.update(GRADIENT, state, params)  # float32 gradients of bfloat16 parameters
  with pytest.raises(ValueError, match=r"queue_dtype.*bfloat16.*\['b'\].*params="):
    tx.update(GRADIENT, state)


def test_hyperparameters_are_injected_as_before():
  static = ("queue_length", "num_clusters", "key")
  tx = optax.inject_hyperparams(gq.grad_queue, static_args=static)(2, rho=2.0, track=True)
  state = tx.init(PARAMS)
  _, state = jax.jit(tx.update)(GRADIENT, state, PARAMS)
  other = optax.inject_hyperparams(gq.grad_queue, static_args=static)(4, rho=2.0, track=True)
  with pytest.raises(ValueError, match="queue_length"):
    other.update(GRADIENT, state, PARAMS)
  assert gq.resize_queue(state, other.init(PARAMS)).inner_state.queue.count == 1


@pytest.mark.parametrize(
  ("made", "used", "dim", "option"),
  [
    ((3,), (12,), 4, "num_groups"),
    ((12,), (3,), 4, "num_groups"),
    ((3, 5), (3, 2), 4, "queue_length"),
    ((3, 2), (3, 5), 4, "queue_length"),
    ((3,), (3,), 5, "embeddings"),
  ],
)
def test_a_state_of_other_groups_is_refused(made, used, dim, option):
  before, scarcity = gq.group_scarcity(*made), gq.group_scarcity(*used)
  x = jax.random.normal(jax.random.key(0), (8, 4))
  state = before.init(4)
  for _ in range(4):
    _, state = before.update(x, state)
  x = jnp.pad(x, ((0, 0), (0, dim - 4)))
  for update in (scarcity.update, lambda *a: jax.eval_shape(scarcity.update, *a)):
    with pytest.raises(ValueError, match=rf"(?s){option}.* was found.*gq\.resize_queue"):
      update(x, state)
  resized = gq.resize_queue(state, jax.eval_shape(lambda: scarcity.init(dim)))
  chex.assert_trees_all_equal_shapes_and_dtypes(resized, scarcity.init(dim))
  weights, after = scarcity.update(x, resized)
  chex.assert_tree_all_finite((weights, after))


@pytest.mark.parametrize("length", [1, 2, 4, 6])
def test_the_newest_group_sizes_stay(length):
  before, scarcity = gq.group_scarcity(2, 4), gq.group_scarcity(2, length)
  state = before.init(2)
  for rare in (1, 2, 3, 1, 2, 3):
    x = jnp.eye(2)[jnp.arange(8) // (8 - rare)]
    _, state = before.update(x, state)
  resized = gq.resize_queue(state, scarcity.init(2))
  newest = [
    sorted(resized.counts[(resized.index - 1 - i) % length].tolist()) for i in range(min(length, 4))
  ]
  assert newest == [[3, 5], [2, 6], [1, 7], [3, 5]][:length]
  assert resized.count == state.count
  chex.assert_trees_all_equal(resized.centroids, state.centroids)
  weights, _ = scarcity.update(x, resized)
  if length > 4:  # the rare kind had 3, 1, 2, 3 of 8 and now 3; what was never written is no step
    f = np.float32([28, 12]) / 40
    np.testing.assert_allclose(weights[-1] / weights[0], f[0] / f[1], rtol=1e-5)


def test_a_state_of_nnx_is_resized():
  model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
  make = lambda **options: nnx.Optimizer(model, gq.gq_sgd(0.1, **options), wrt=nnx.Param)
  old, new = make(queue_length=2), make(queue_length=4, track=True)
  grads = jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param))
  for _ in range(3):
    old.update(model, grads)
  fresh = new.opt_state
  for target in (fresh, jax.eval_shape(new.tx.init, nnx.state(model, nnx.Param))):
    resized = gq.resize_queue(old.opt_state, target)
    nnx.update(new.opt_state, nnx.state(resized))
    queue = new.opt_state[0].queue
    assert queue.count.get_value() == 2
    np.testing.assert_array_equal(queue.slots["bias"].get_value()[:2], 1.0)
    momentum = new.opt_state[1][0].trace["bias"].get_value()
    np.testing.assert_array_equal(momentum, old.opt_state[1][0].trace["bias"].get_value())
  new.update(model, grads)
  assert gq.diagnostics(new.opt_state)["queued"] == 3
  with pytest.raises(ValueError, match=r"none was found.*optimizer\.opt_state"):
    gq.resize_queue(nnx.state(old), nnx.state(new))


def test_a_state_of_another_example_scarcity():
  x = jax.random.normal(jax.random.key(0), (6, 3))
  scarcity = gq.example_scarcity(4)
  _, state = scarcity.update(x, scarcity.init(3))
  for option, other in {
    "queue_size": gq.example_scarcity(8),
    "queue_dtype": gq.example_scarcity(4, queue_dtype=jnp.bfloat16),
  }.items():
    with pytest.raises(ValueError, match=rf"(?s){option}=.* found.*gq\.resize_queue"):
      other.update(x, state)
    resized = gq.resize_queue(state, other.init(3))
    assert int(resized.filled.sum()) == 4
    np.testing.assert_allclose(resized.queue[:4].astype(jnp.float32), state.queue, atol=0.01)
    other.update(x, resized)
  shorter = gq.resize_queue(state, gq.example_scarcity(2).init(3))
  np.testing.assert_array_equal(shorter.queue, state.queue[:2])  # the newest
  assert not gq.resize_queue(state, scarcity.init(5)).filled.any()
