# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""A state made by other options is refused when it is traced, with the way out."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

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
  message = rf"state must .*{option}.* found.*tx\.init\(params\)"
  for update in (tx.update, lambda *a, **k: jax.eval_shape(tx.update, *a, **k)):
    with pytest.raises(ValueError, match=message):
      update(GRADIENT, state, params, value=VALUE)


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
  with pytest.raises(ValueError, match=r"queue_dtype at \['b'\], or params=.*bfloat16 was found"):
    tx.update(GRADIENT, state)


def test_hyperparameters_are_injected_as_before():
  static = ("queue_length", "num_clusters", "key")
  tx = optax.inject_hyperparams(gq.grad_queue, static_args=static)(2, rho=2.0, track=True)
  state = tx.init(PARAMS)
  _, state = jax.jit(tx.update)(GRADIENT, state, PARAMS)
  other = optax.inject_hyperparams(gq.grad_queue, static_args=static)(4, rho=2.0, track=True)
  with pytest.raises(ValueError, match="queue_length"):
    other.update(GRADIENT, state, PARAMS)


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
    with pytest.raises(ValueError, match=rf"(?s){option}.* found.*scarcity\.init\(d\)"):
      update(x, state)


@pytest.mark.parametrize(
  ("option", "other"),
  [
    ("queue_size", gq.example_scarcity(8)),
    ("queue_dtype", gq.example_scarcity(4, queue_dtype=jnp.bfloat16)),
  ],
)
def test_a_state_of_another_example_scarcity_is_refused(option, other):
  x, scarcity = jax.random.normal(jax.random.key(0), (6, 3)), gq.example_scarcity(4)
  _, state = scarcity.update(x, scarcity.init(3))
  with pytest.raises(ValueError, match=rf"(?s){option}=.* found.*scarcity\.init\(d\)"):
    other.update(x, state)
