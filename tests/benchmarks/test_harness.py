# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Tasks, arms, weights, optimizers and training of the benchmarks."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gq_optax as gq
from benchmarks.harness import (
  arms,
  data,
  optimizers,
  protocol,
  recipes,
  records,
  tasks,
  training,
  weighing,
)  # fmt: skip

slow = lambda name: pytest.param(name, marks=pytest.mark.slow)

# Tasks


def test_long_tails():
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


def test_halves_are_stratified_and_disjoint():
  labels = np.repeat([0, 1, 2], [10, 7, 1])
  validation, test = tasks.halves(labels, seed=0)
  assert sorted([*validation, *test]) == list(range(18))
  counts = [np.bincount(labels[part], minlength=3) for part in (validation, test)]
  assert np.abs(counts[0] - counts[1])[:2].max() <= 1
  assert counts[1][2] == 1  # one example is to be tested
  with pytest.raises(ValueError, match="fraction must lie between 0 and 1"):
    tasks.stratified_split(labels, 1.0, seed=0)


def test_superclasses_are_those_of_the_pages():
  found = [tasks.superclasses(np.arange(10), seed=s).tolist() for s in (5, 6)]
  assert found[0] == [1, 1, 0, 0, 1, 1, 0, 0, 0, 1]
  assert found[0] != found[1]
  five = tasks.superclasses(np.arange(10), 5, num_super=5)
  assert np.bincount(five).tolist() == [2] * 5


def test_noise():
  labels = np.arange(5000) % 10
  noisy = tasks.symmetric_noise(labels, 0.2, 10, seed=0)
  assert np.mean(noisy != labels) == pytest.approx(0.2, abs=0.02)
  assert np.bincount((noisy - labels)[noisy != labels] % 10, minlength=10)[1:].min() > 80
  wrong = tasks.asymmetric_noise(labels, 0.3, 10, seed=0)
  assert set((wrong - labels) % 10) == {0, 1}
  assert np.mean(wrong != labels) == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize("per_feature", [False, True])
def test_standardise(per_feature):
  rng = np.random.RandomState(0)
  train, test = rng.normal(3.0, [1.0, 5.0], (50, 2)), rng.normal(size=(7, 2))
  found, other = tasks.standardise(train, test, per_feature=per_feature)
  axis = 0 if per_feature else None
  np.testing.assert_allclose(found.mean(axis), 0.0, atol=1e-6)
  np.testing.assert_allclose(found.std(axis), 1.0, rtol=1e-5)
  expected = (test - train.mean(axis)) / train.std(axis)
  np.testing.assert_allclose(other, expected, rtol=1e-5)
  assert found.dtype == other.dtype == np.float32


def test_a_task_out_of_images():
  rng = np.random.RandomState(0)
  image = lambda n: rng.randint(256, size=(n, 4, 4)).astype(np.uint8)
  label = lambda n: np.arange(n) % 10
  source = data.Data(image(400), label(400), image(40), label(40))
  recipe = recipes.Recipe("mnist", imbalance=10.0, largest=40, hidden=5, noise="symmetric",
                          noise_rate=0.5)  # fmt: skip
  task, classes_of = recipes.make_task(recipe, source)
  assert np.bincount(task.kinds).tolist() == tasks.tail_sizes(40, 10.0, 10)
  assert task.x.shape == (len(task.kinds), 16)
  hidden = tasks.superclasses(np.arange(10), 5)
  np.testing.assert_array_equal(classes_of, hidden)
  assert 0.3 < np.mean(np.asarray(task.labels) != hidden[task.kinds]) < 0.7
  for _, labels, kinds in (task.validation, task.test):  # never noisy
    np.testing.assert_array_equal(labels, hidden[kinds])
  images, _ = recipes.make_task(recipes.Recipe("mnist", None, convolutions=True), source)
  assert images.x.shape == (400, 4, 4, 1)


def test_figures_by_hand():
  # Two kinds hidden in class 0, one in class 1; rows are kinds, columns predictions.
  found = protocol.figures(np.array([[8, 2], [1, 3], [5, 5]]), np.array([0, 0, 1]))
  assert found["mean"] == pytest.approx(1.55 / 3)
  assert (found["worst"], found["worst_class"]) == (0.25, 0.5)
  assert found["accuracy"] == pytest.approx(14 / 24)
  assert found["macro_f1"] == pytest.approx((2 * 9 / (14 + 14) + 2 * 5 / (10 + 10)) / 2)


def test_a_torn_line_is_written_again(tmp_path):
  path = tmp_path / "runs" / "a.jsonl"
  assert records.read(path) == []
  records.append(path, {"seed": 0, "name": "a\nb"})
  path.write_text(path.read_text() + '{"seed": 1')
  assert records.read(path) == [{"seed": 0, "name": "a\nb"}]
  records.append(path, {"seed": 2})
  assert [run["seed"] for run in records.read(path)] == [0, 2]


# Arms and weights


def test_arms_by_name_and_options():
  arm = arms.find("group scarcity, outputs; num_groups=7; exponent=0.5")
  assert arm.groups == arms.Groups("output gradients", num_groups=7, exponent=0.5)
  assert arms.find("JTT on SGDM, one length").optimizer == "scaled"
  assert arms.optimizer_of("JTT on SGDM, one length") == "SGDM, one length"
  assert arms.num_clusters(arms.find("GQ, K=B/64"), 512) == 8
  assert arms.num_clusters(arms.find("GQ, K=1"), 512) == 1
  with pytest.raises(ValueError, match="the arm must be one of SGDM; .*; but 'SGD' was found"):
    arms.find("SGD")
  with pytest.raises(ValueError, match="an option must be one of embedding, .*, but 'rho'"):
    arms.find("group scarcity, outputs; rho=3")
  with pytest.raises(ValueError, match="an arm must be on one of SGDM, .*, but 'JTT' was found"):
    arms.find("class weights on JTT")


def context_of(labels, num_classes, progress=0.0):
  prior = jnp.full(num_classes, 1.0 / num_classes)
  ones, key = jnp.ones(len(labels)), jax.random.key(0)
  return weighing.Context(labels, labels, ones, prior, num_classes, key, jnp.float32(progress))


@pytest.mark.parametrize("name", [*arms.RECOMMENDED, *arms.COMBINED])
def test_recommended_weights_and_the_same_dealt_at_random(name):
  """Two kinds, one of them a twelfth; the control weighs as much, but others."""
  labels = jnp.asarray(np.arange(96) % 12 == 0, jnp.int32)
  features = jnp.eye(4)[labels] + 0.1 * jax.random.normal(jax.random.key(1), (96, 4))
  key, context = jax.random.key(0), context_of(labels, 2)

  @jax.jit
  def both():
    found = []
    for arm in map(arms.find, (name, name + arms.AT_RANDOM)):
      state = weighing.init_state(arm, 4, 2, key, 400)
      found.append(weighing.weigh(arm, features[:, :2], features, context, state, key)[0])
    return found

  own, dealt = both()
  np.testing.assert_allclose(np.sort(own), np.sort(dealt), rtol=1e-6)
  assert not np.array_equal(own, dealt)
  rare = labels == 1
  assert own[rare].mean() > 2.0 * own[~rare].mean()
  assert dealt[rare].mean() < 2.0 * dealt[~rare].mean()
  assert len(weighing.init_state(arms.find(name), 4, 2, key, 400).queue) == 200


@pytest.mark.parametrize("plain", [slow("group scarcity, outputs"), "class weights"])
def test_a_ramp_starts_from_equal_weights(plain):
  rng = np.random.default_rng(1)
  logits = jnp.asarray(rng.normal(size=(32, 4)), jnp.float32)
  labels = jnp.asarray(np.minimum(rng.exponential(0.7, 32), 3).astype(np.int32))

  def weights(name, progress):
    arm, key, context = arms.find(name), jax.random.key(0), context_of(labels, 4, progress)
    state = weighing.init_state(arm, 8, 4, key)
    found, _ = weighing.weigh(arm, logits, jnp.ones((32, 8)), context, state, key)
    return np.asarray(found)

  ramp = f"{plain}; ramp=0.5"
  np.testing.assert_array_equal(weights(ramp, 0.0), 1.0)
  half = np.sqrt(weights(plain, 0.25))
  np.testing.assert_allclose(weights(ramp, 0.25), half / half.mean(), rtol=1e-5)
  np.testing.assert_allclose(weights(ramp, 0.75), weights(plain, 0.75), rtol=1e-5)


def test_group_dro_by_hand():
  losses, kinds = jnp.array([1.0, 3.0, 5.0, 9.0]), jnp.array([0, 0, 0, 2])
  weights, shares = weighing.worst_kinds(losses, kinds, jnp.array([0.5, 0.25, 0.25]))
  raw = np.array([0.5 * np.exp(0.03), 0.25, 0.25 * np.exp(0.09)])
  np.testing.assert_allclose(shares, raw / raw.sum(), rtol=1e-6)
  expected = np.array([raw[0] / 3] * 3 + [raw[2]])
  np.testing.assert_allclose(weights, expected / expected.mean(), rtol=1e-6)


def test_losses_by_hand():
  logits, labels = jnp.array([[0.0, 0.0]]), jnp.array([1])
  context = context_of(labels, 2)._replace(prior=jnp.array([0.8, 0.2]))
  loss = lambda name: float(weighing.losses(arms.find(name), logits, context)[0])
  assert loss("SGDM") == pytest.approx(np.log(2))
  assert loss("focal loss") == pytest.approx(np.log(2) / 4)
  assert loss("logit adjustment") == pytest.approx(-np.log(0.2))


# Optimizers

PARAMS = {"w": jnp.array([[1.0, -2.0], [0.5, 4.0]]), "b": jnp.array([3.0]), "z": jnp.ones(2)}
GRADIENT = {"w": jnp.array([[3.0, 0.0], [0.0, 4.0]]), "b": jnp.array([-0.01]), "z": jnp.zeros(2)}


def two_updates(name, weight_decay):
  """Of the gradient, and of its opposite, at the rates .1 and .05."""
  tx = optimizers.base(name, jnp.float32(0.1), 2, weight_decay=weight_decay)

  @jax.jit
  def run():
    first, state = tx.update(GRADIENT, tx.init(PARAMS), PARAMS)
    return first, tx.update(jax.tree.map(jnp.negative, GRADIENT), state, PARAMS)[0]

  return run()


def test_every_array_takes_a_step_of_one_length():
  first, second = two_updates("scaled", None)
  np.testing.assert_allclose(first["w"], [[-0.12, 0.0], [0.0, -0.16]], rtol=1e-6)  # of 2 * .1
  np.testing.assert_array_equal(first["z"], 0.0)
  # The momentum is .9 g - g, a tenth as long; the step is half as long since the rate is.
  np.testing.assert_allclose(second["w"], [[0.06, 0.0], [0.0, 0.08]], rtol=1e-5)


@pytest.mark.standard_promotion  # the optimizers of optax
@pytest.mark.parametrize("shape", [(8, 6), (2, 2, 2, 6)])
def test_muon_makes_kernels_of_convolutions_orthogonal_too(shape):
  tx = optimizers.base("muon", jnp.float32(0.1), 10)
  params = {"kernel": jnp.zeros(shape), "bias": jnp.zeros(6)}
  draw = lambda p: jax.random.normal(jax.random.key(p.size), p.shape)
  updates, _ = tx.update(jax.tree.map(draw, params), tx.init(params), params)
  step = np.linalg.svd(updates["kernel"].reshape(8, 6), compute_uv=False)
  assert step.max() < 1.7 * step.min()


@pytest.mark.standard_promotion  # the optimizers of optax
@pytest.mark.parametrize("name", sorted(optimizers.DECAYS))
def test_weight_decay_takes_a_part_off_whatever_the_gradient(name):
  plain, decayed = two_updates(name, 0.0), two_updates(name, 0.5)
  for rate, a, b in zip((0.1, 0.05), plain, decayed, strict=True):
    for leaf, parameter in PARAMS.items():
      np.testing.assert_allclose(b[leaf] - a[leaf], -rate * 0.5 * parameter, rtol=1e-4, atol=1e-6)


@pytest.mark.standard_promotion  # the optimizers of optax
@pytest.mark.parametrize("name", sorted(optimizers.RATES))
def test_every_optimizer_learns(name):
  tx = optimizers.base(name, jnp.float32(0.1), 50)
  loss = lambda params: jnp.sum(jnp.square(params["w"] - 1.0))

  def step(carry, _):
    params, state = carry
    again = lambda params, _: jax.grad(loss)(params)
    updates, state = tx.update(jax.grad(loss)(params), state, params, grad_fn=again)
    return (optax.apply_updates(params, updates), state), None

  params = {"w": jnp.full((2, 2), 3.0)}
  (trained, _), _ = jax.lax.scan(step, (params, tx.init(params)), None, length=50)
  assert loss(trained) < 0.5 * loss(params)


def test_a_decay_that_an_optimizer_does_not_take():
  with pytest.raises(ValueError, match="weight_decay must be None for 'sam', but"):
    optimizers.base("sam", jnp.float32(0.1), 2, weight_decay=0.1)


def test_shuffled_weights_are_the_same_weights():
  g = jnp.array([[1.0, -2.0, 3.0], [0.1, 0.0, 9.0]])
  mean, std = jnp.ones_like(g), jnp.full_like(g, 0.7)
  found, own = optimizers.shuffled(g, mean, std), gq.delta_rho(g, mean, std, optimizers.RHO)
  np.testing.assert_array_equal(np.sort(found.ravel()), np.sort(own.ravel()))
  assert not np.array_equal(found, own)


# Training


def blobs(spread):
  """Three kinds in two labels, one of them rare."""
  rng = np.random.default_rng(0)
  kinds = np.repeat([0, 1, 2], [40, 20, 4])
  x = jnp.asarray(np.eye(3)[kinds] * 3 + rng.normal(0, spread, (64, 3)), jnp.float32)
  kinds = jnp.asarray(kinds, jnp.int32)
  split = (x, kinds % 2, kinds)
  return training.Task(x, kinds % 2, kinds, split, split)


@pytest.mark.standard_promotion  # the networks of flax
@pytest.mark.parametrize("name", ["JTT", slow("group scarcity, outputs; ramp=1")])
def test_step_by_step_trains_as_side_by_side(name):
  task, arm = blobs(2.0), arms.find(name)
  sizes = training.Sizes(16, epochs=4, num_classes=2, num_kinds=3)
  pairs = jnp.arange(2), jnp.array([0.1, 0.05], jnp.float32)
  together = training.side_by_side(arm, sizes, task, *pairs)
  alone = training.step_by_step(arm, sizes, task, *pairs)
  # Rounding may turn an example that lies on the border.
  np.testing.assert_allclose(alone[0], together[0], atol=1.0)


@pytest.mark.standard_promotion  # the networks of flax
@pytest.mark.parametrize(
  "name", [slow("group scarcity, features"), slow("GQ, K=B/64"), "group DRO (oracle)"]
)
def test_a_small_run_learns(name):
  task = blobs(0.3)
  sizes = training.Sizes(batch_size=16, epochs=10, num_classes=2, num_kinds=3)
  rates = jnp.array([0.1, 0.1], jnp.float32)
  _, test = training.side_by_side(arms.find(name), sizes, task, jnp.arange(2), rates)
  np.testing.assert_array_equal(test.sum(axis=(1, 2)), 64)
  figures = [protocol.figures(np.asarray(c), np.array([0, 1, 0]))["mean"] for c in test]
  assert min(figures) > 0.8
  assert float(weighing.balanced(task.kinds, 3)[task.kinds == 2].sum()) == pytest.approx(64 / 3)


@pytest.mark.standard_promotion
def test_what_diverged_recognises_nothing():
  task, sizes = blobs(0.3), training.Sizes(16, 1, 2, 3)
  (params, *_), *_ = training.start(arms.find("SGDM"), sizes, task, jnp.int32(0), jnp.float32(0.1))
  confusion = training.judge(jax.tree.map(lambda p: p * jnp.nan, params), task.test, sizes)
  assert protocol.figures(np.asarray(confusion), np.array([0, 1, 0]))["mean"] == 0.0
