# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Tasks, arms, weights, optimizers and training of the benchmarks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.harness import arms, optimizers, protocol, tasks, training, weighing

pytestmark = pytest.mark.standard_promotion  # optimizers of optax, networks of flax
slow = lambda name: pytest.param(name, marks=pytest.mark.slow)

# Tasks


def test_tails_halves_and_superclasses_are_those_of_the_pages():
  assert tasks.tail_sizes(6000, 100.0, 10) == [6000, 3596, 2156, 1292, 774, 464, 278, 166, 100, 60]
  labels = np.random.RandomState(0).randint(3, size=600)
  rows = tasks.long_tail(labels, 4, 100, seed=0)
  assert np.bincount(labels[rows]).tolist() == [100, 50, 25]
  assert (np.diff(rows) > 0).all()
  assert not np.array_equal(rows, tasks.long_tail(labels, 4, 100, seed=1))
  with pytest.raises(ValueError, match="largest must leave class 0 at most its"):
    tasks.long_tail(labels, 4, 400, seed=0)
  with pytest.raises(ValueError, match="largest must leave every class an example"):
    tasks.tail_sizes(5, 100.0, 10)
  labels = np.repeat([0, 1, 2], [10, 7, 1])
  validation, test = tasks.halves(labels, seed=0)
  assert sorted([*validation, *test]) == list(range(18))
  counts = [np.bincount(labels[part], minlength=3) for part in (validation, test)]
  assert np.abs(counts[0] - counts[1])[:2].max() <= 1
  assert counts[1][2] == 1  # one example is to be tested
  found = [tasks.superclasses(np.arange(10), seed=s).tolist() for s in (5, 6)]
  assert found[0] == [1, 1, 0, 0, 1, 1, 0, 0, 0, 1]
  assert found[0] != found[1]
  five = tasks.superclasses(np.arange(10), 5, num_super=5)
  assert np.bincount(five).tolist() == [2] * 5


def test_figures_by_hand():
  # Two kinds hidden in class 0, one in class 1; rows are kinds, columns predictions.
  found = protocol.figures(np.array([[8, 2], [1, 3], [5, 5]]), np.array([0, 0, 1]))
  assert found["mean"] == pytest.approx(1.55 / 3)
  assert (found["worst"], found["worst_class"]) == (0.25, 0.5)
  assert found["accuracy"] == pytest.approx(14 / 24)
  assert found["macro_f1"] == pytest.approx((2 * 9 / (14 + 14) + 2 * 5 / (10 + 10)) / 2)


# Arms and weights


def context_of(labels, num_classes, prior=0.5):
  ones, key, prior = np.ones(len(labels), "f"), jax.random.key(0), np.float32([1 - prior, prior])
  return weighing.Context(labels, labels, ones, prior, num_classes, key, jnp.float32(0.25))


@pytest.mark.parametrize("name", arms.RECOMMENDED)
def test_recommended_weights_and_the_same_dealt_at_random(name):
  """Two kinds, one of them a twelfth; the control weighs as much, but others."""
  labels = (np.arange(96) % 12 == 0).astype(np.int32)
  noise = np.random.default_rng(1).normal(size=(96, 4))
  features = (np.eye(4)[labels] + 0.1 * noise).astype(np.float32)
  key, context, kinds = jax.random.key(0), context_of(labels, 2), ("", arms.AT_RANDOM)

  def weights(arm):
    state = weighing.init_state(arm, 4, 2, key, 400)
    assert len(state.queue) == 200
    return weighing.weigh(arm, features[:, :2], features, context, state, key)[0]

  own, dealt = jax.jit(lambda: [weights(arms.find(name + kind)) for kind in kinds])()
  np.testing.assert_allclose(np.sort(own), np.sort(dealt), rtol=1e-6)
  assert not np.array_equal(own, dealt)
  rare = labels == 1
  assert own[rare].mean() > 2.0 * own[~rare].mean()
  assert dealt[rare].mean() < 2.0 * dealt[~rare].mean()


def test_group_dro_and_losses_by_hand():
  losses, kinds = jnp.array([1.0, 3.0, 5.0, 9.0]), jnp.array([0, 0, 0, 2])
  weights, shares = weighing.worst_kinds(losses, kinds, jnp.array([0.5, 0.25, 0.25]))
  raw = np.array([0.5 * np.exp(0.03), 0.25, 0.25 * np.exp(0.09)])
  np.testing.assert_allclose(shares, raw / raw.sum(), rtol=1e-6)
  expected = np.array([raw[0] / 3] * 3 + [raw[2]])
  np.testing.assert_allclose(weights, expected / expected.mean(), rtol=1e-6)
  logits, context = jnp.zeros((1, 2)), context_of(np.array([1]), 2, prior=0.2)
  for name, loss in (
    ("SGDM", np.log(2)),
    ("focal loss", np.log(2) / 4),
    ("logit adjustment", -np.log(0.2)),
  ):
    assert float(weighing.losses(arms.find(name), logits, context)[0]) == pytest.approx(loss)


# Optimizers

PARAMS = {"w": jnp.array([[1.0, -2.0], [0.5, 4.0]]), "b": jnp.array([3.0]), "z": jnp.ones(2)}
GRADIENT = {"w": jnp.array([[3.0, 0.0], [0.0, 4.0]]), "b": jnp.array([-0.01]), "z": jnp.zeros(2)}


@pytest.mark.parametrize("name", sorted(optimizers.DECAYS))
def test_weight_decay_takes_a_part_off_whatever_the_gradient(name):
  @jax.jit
  def run(weight_decay):
    """The updates of the gradient, and of its opposite, at the rates .1 and .05."""
    tx = optimizers.base(name, jnp.float32(0.1), 2, weight_decay=weight_decay)
    first, state = tx.update(GRADIENT, tx.init(PARAMS), PARAMS)
    return first, tx.update(jax.tree.map(jnp.negative, GRADIENT), state, PARAMS)[0]

  plain, decayed = run(0.0), run(0.5)
  for rate, a, b in zip((0.1, 0.05), plain, decayed, strict=True):
    for leaf, parameter in PARAMS.items():
      np.testing.assert_allclose(b[leaf] - a[leaf], -rate * 0.5 * parameter, rtol=1e-4, atol=1e-6)
  if name == "scaled":  # steps of one length, for every array
    np.testing.assert_allclose(plain[0]["w"], [[-0.12, 0.0], [0.0, -0.16]], rtol=1e-6)  # of 2 * .1
    np.testing.assert_array_equal(plain[0]["z"], 0.0)
    # The momentum is .9 g - g, a tenth as long; the step is half as long since the rate is.
    np.testing.assert_allclose(plain[1]["w"], [[0.06, 0.0], [0.0, 0.08]], rtol=1e-5)


# Training


def blobs(spread):
  """Three kinds in two labels, one of them rare."""
  rng = np.random.default_rng(0)
  kinds = np.repeat(np.arange(3, dtype=np.int32), [40, 20, 4])
  x = jnp.asarray(np.eye(3)[kinds] * 3 + rng.normal(0, spread, (64, 3)), jnp.float32)
  split = (x, jnp.asarray(kinds % 2), jnp.asarray(kinds))
  return training.Task(*split, split, split)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["JTT", "group scarcity, outputs; ramp=1"])
def test_step_by_step_trains_as_side_by_side(name):
  task, arm = blobs(2.0), arms.find(name)
  sizes = training.Sizes(16, epochs=4, num_classes=2, num_kinds=3)
  pairs = jnp.arange(2), jnp.array([0.1, 0.05], jnp.float32)
  together = training.side_by_side(arm, sizes, task, *pairs)
  alone = training.step_by_step(arm, sizes, task, *pairs)
  # Rounding may turn an example that lies on the border.
  np.testing.assert_allclose(alone[0], together[0], atol=1.0)


@pytest.mark.parametrize(
  "name", [slow("group scarcity, features"), slow("GQ, K=B/64"), "group DRO (oracle)"]
)
def test_a_small_run_learns_and_what_diverged_recognises_nothing(name):
  task, arm = blobs(0.3), arms.find(name)
  sizes = training.Sizes(batch_size=16, epochs=10, num_classes=2, num_kinds=3)
  rates = jnp.array([0.1, 0.1], jnp.float32)
  _, test = training.side_by_side(arm, sizes, task, jnp.arange(2), rates)
  np.testing.assert_array_equal(test.sum(axis=(1, 2)), 64)
  mean = lambda confusion: protocol.figures(np.asarray(confusion), np.array([0, 1, 0]))["mean"]
  assert min(map(mean, test)) > 0.8
  assert float(weighing.balanced(task.kinds, 3)[task.kinds == 2].sum()) == pytest.approx(64 / 3)
  params = jax.eval_shape(lambda: training.start(arm, sizes, task, jnp.int32(0), rates[0])[0][0])
  lost = jax.tree.map(lambda p: jnp.full(p.shape, jnp.nan), params)
  assert mean(training.judge(lost, task.test, sizes)) == 0.0
