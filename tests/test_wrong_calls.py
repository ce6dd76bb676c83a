# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Two hundred wrong calls over all that is public: each names the argument, and harms nothing."""

import random
import re

import chex
import jax
import pytest
from calls import CALLS, GROUPS, SCARCITY, STATE, TX, W, X


def draw(number, seed):
  """`number` wrong calls, every function in turn, every argument alike often."""
  rng = random.Random(seed)
  names = list(CALLS)
  for i in range(number):
    name = names[i % len(names)]
    argument = rng.choice(list(CALLS[name][2]))
    yield name, argument, rng.choice(CALLS[name][2][argument])


def complaint(call):
  """None if the call passes, else its error."""
  try:
    call()
  except (ValueError, TypeError) as error:
    return error
  except Exception as error:  # noqa: BLE001  # told apart below
    return RuntimeError(f"{type(error).__name__}: {error}")
  return None


def named(argument, error):
  return isinstance(error, ValueError | TypeError) and re.search(rf"\b{argument}\b", str(error))


@pytest.mark.parametrize("name", CALLS)
def test_the_calls_are_right_but_for_what_is_changed(name):
  function, right, _ = CALLS[name]
  jax.eval_shape(lambda: [function(**right), None][1])


def test_two_hundred_wrong_calls_name_the_argument_and_harm_nothing():
  before = jax.device_get((STATE, GROUPS))
  wrong = []
  for name, argument, value in draw(200, seed=15):
    function, right, _ = CALLS[name]
    call = lambda f=function, kwargs={**right, argument: value}: [f(**kwargs), None][1]  # noqa: B006
    errors = complaint(call), complaint(lambda call=call: jax.eval_shape(call))
    if not all(named(argument, error) for error in errors):
      wrong.append(f"{name}({argument}={value!r:.80}): {errors!r:.300}")
  assert not wrong, "\n".join(wrong)
  chex.assert_trees_all_equal(jax.device_get((STATE, GROUPS)), before)
  # And the states go on.
  _, state = TX.update(W, STATE, value=1.0)
  assert state.queue.count == 1
  _, groups = SCARCITY.update(X, GROUPS)
  assert groups.count == 1
