# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The paper's own figures: the curves of Figure 3 and the three lemmas of appendix A."""

import functools

import jax
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gq_optax as gq

# Momentum on f(t) = 1 if t % 10 == 9 else -1/r, with beta = .9, rho = 3, L = 3, read to 4 digits.
FIGURE_3 = {
  10: """-.1 -.19 -.271 -.3439 -.3428 -.3419 -.341 -.3403 -.3396 2.6944 2.3542 2.0481 1.7726 1.562
         1.3725 1.2019 1.0484 .9102 .7858 3.7073 3.2658 2.8685 2.511 2.2265 1.9705 1.7402 1.5328
         1.3462 1.1782""",
  5: """-.2 -.38 -.542 -.6878 -.6857 -.6838 -.6821 -.6805 -.6791 2.3888 2.0085 1.6662 1.3582 1.1557
        .9734 .8094 .6618 .529 .4094 3.3685 2.8902 2.4598 2.0724 1.7985 1.5519 1.3301 1.1304 .9507
        .789""",
  3: """-.3333 -.6333 -.9033 -1.1463 -1.1428 -1.1396 -1.1368 -1.1342 -1.1319 1.9813 1.5475 1.157
        .8056 .6139 .4414 .2862 .1464 .0207 -.0925 2.9168 2.3894 1.9147 1.4876 1.2277 .9938 .7833
        .5939 .4234 .2699""",
}
BETA = 0.9


LENGTH = 29  # of every signal, so that it compiles once


@functools.partial(jax.jit, static_argnums=1)
def momenta(signal, queue_length, rho):
  """The momentum after each step of a scalar signal, through the public chain."""
  tx = optax.chain(gq.grad_queue(queue_length, rho), optax.sgd(1.0, momentum=BETA))

  def step(state, gradient):
    update, state = tx.update(gradient, state)
    return state, -update

  return jax.lax.scan(step, tx.init(signal[0]), signal)[1]


def periodic(common, rare, period):
  """The signal u, .., u, C: the spike first comes at t = period - 1."""
  return np.where(np.arange(LENGTH) % period == period - 1, rare, common).astype(np.float32)


@pytest.mark.parametrize("r", FIGURE_3)
def test_figure_3(r):
  expected = np.array(FIGURE_3[r].split(), np.float32)
  found = momenta(periodic(-1.0 / r, 1.0, 10), 3, 3.0)
  np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0.0)


def follows(ratio, common, sign, period, *queue):
  """Does the momentum have the sign of the first spike, so many times the common value?"""
  signal = periodic(sign * common, -sign * common * ratio, period)
  return np.sign(momenta(signal, *queue)[period - 1]) == -sign


def geometric(count):
  """beta_x = 1 + beta + ... + beta^(x - 1)."""
  return (BETA**count - 1) / (BETA - 1)


sizes = st.floats(1e-3, 1e3)
signs = st.sampled_from([-1.0, 1.0])
rhos = st.just(1.0) | st.floats(1.1, 8.0)
property_test = settings(max_examples=60, deadline=None, derandomize=True)


@property_test
@given(
  queue_length=st.sampled_from([2, 3, 5]),
  where=st.integers(0, 6),
  common=st.floats(-1e3, 1e3, width=32),
  rare=st.floats(-1e3, 1e3, width=32),
  rho=st.floats(1.01, 10.0),
)
def test_lemma_3_2_the_common_value_is_damped_by_the_length(queue_length, where, common, rare, rho):
  if abs(common - rare) <= 1e-3 * max(abs(common), abs(rare)):
    rare = common + 1.0 + abs(common)
  signal = np.full(LENGTH, common, np.float32)
  # Behind the first gradient comes the queue: one C at any place among L - 1 values u.
  signal[1 + where % queue_length] = rare
  before, after = momenta(signal, queue_length, rho)[queue_length : queue_length + 2]
  expected = max((queue_length - 1) ** -0.5, 1 / rho) * common
  # What the subtraction of two momenta loses is relative to them.
  np.testing.assert_allclose(
    after - BETA * before, expected, rtol=1e-4, atol=1e-5 * abs(before) + 1e-7
  )


@property_test
@given(st.sampled_from([1, 3, 5]), st.integers(2, 20), sizes, signs, rhos)
def test_lemmas_3_1_and_3_3_rho_to_rho_squared_lower_the_threshold_of_plain_momentum(
  queue_length, period, common, sign, rho
):
  """Plain momentum is that of rho 1, and of spikes that come before anything is weighted."""
  plain, case = BETA * geometric(period - 1), (common, sign, period, queue_length, rho)
  rho = rho if period >= queue_length + 2 else 1.0
  assert follows(1.01 * plain / rho, *case)
  assert not follows(0.99 * plain / rho**2, *case)


def test_thresholds_of_plain_momentum_are_those_of_lemma_3_1():
  assert [BETA * geometric(n) for n in (2, 8)] == pytest.approx([1.71, 5.13], abs=0.005)
