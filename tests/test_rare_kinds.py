# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The trials of rare kinds: figures by hand, a small run, and tables that the files give."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.harness import arms, recipes, training, weighing
from benchmarks.pages import markers, questions_page, rare_results, rarity_page
from benchmarks.rarity import rare_kinds

OPTIONS = ("num_groups", "queue_length", "exponent", "pooling")


def test_questions_and_sensitivity_have_rows():
  found = rare_results.read(rare_results.RESULTS)
  for title in questions_page.QUESTIONS:
    table, panels = questions_page.question(found, title)
    assert "| - | - | - |\n" not in table + "\n"
    assert all(panels.values())
  series = [p for by in questions_page.sensitivity(found).values() for p in by.values()]
  assert min(map(len, series)) > 1


def test_figures_of_the_page_of_choices_are_those_of_the_raw_files():
  results = rare_results.read(rare_results.RESULTS)
  rows = re.findall(
    r"^\| (\d+), (\d+), ([\d.]+), ([\d.]+) \| (\S+ ± \S+) \| (\S+) \|$",
    (markers.DOCS / "choosing.md").read_text().replace("**", ""),
    re.MULTILINE,
  )
  assert len(rows) == 6
  for *options, mean, worst in rows:
    (result,) = [
      r
      for (task, size, _), r in results.items()
      if (task, size) == ("hidden5", 1024) and r["options"]["weights"] == "groups"
      if not r["options"]["queue"] and r["options"]["groups"]["embedding"] == "features"
      if [r["options"]["groups"][k] for k in OPTIONS] == [float(x) for x in options]
      if not {"temper", "entropy", "ramp"} & set(re.findall(r"[a-z]+", r["arm"].partition(";")[2]))
      if not r["options"].get("second") and not r["options"].get("teacher")
    ]
    assert rare_results.cell(result, None, "mean") == mean
    assert f"{np.mean(rare_results.values(result, 'worst')):.1f}" == worst


def test_the_best_rival_by_hand():
  def result(*means):
    return {"test": [{"mean": mean} for mean in means]}

  names = ("SGDM", "JTT", "group scarcity, features", rare_results.ORACLE)
  runs = {("hidden5", 64, name): result(k / 8, k / 8 + 0.125) for k, name in enumerate(names)}
  runs["hidden5", 64, "group scarcity, features, pooled"] = result(0.5, 0.75)
  runs["hidden5, 20 % noise", 64, "SGDM"] = result(0.0)
  _, _, row = rarity_page.rivals_table(runs).splitlines()
  # Ahead of JTT by 37.5 and 50 points: 43.75, and 12.71 standard errors of 6.25 either side.
  assert row == "| hidden5 | JTT: +43.8 [-35.7, +123.2] |"


def test_figures_by_hand():
  # Two kinds hidden in class 0, one in class 1; rows are kinds, columns predictions.
  confusion = np.array([[8, 2], [1, 3], [5, 5]])
  found = recipes.figures(confusion, np.array([0, 0, 1]))
  assert found["by_kind"] == [0.8, 0.25, 0.5]
  assert found["mean"] == pytest.approx(1.55 / 3)
  assert found["worst"] == 0.25
  assert found["accuracy"] == pytest.approx(14 / 24)
  assert found["macro_f1"] == pytest.approx((2 * 9 / (14 + 14) + 2 * 5 / (10 + 10)) / 2)


def test_arms_by_name_and_options():
  arm = arms.find("group scarcity, outputs; num_groups=7; exponent=0.5")
  assert arm.groups == arms.Groups("output gradients", num_groups=7, exponent=0.5)
  assert arms.find("SGDM") == arms.Arm()
  with pytest.raises(ValueError, match="the arm must be one of SGDM; .*; but 'SGD' was found"):
    arms.find("SGD")
  with pytest.raises(ValueError, match="an option must be one of embedding, .*, but 'rho'"):
    arms.find("group scarcity, outputs; rho=3")


def small_task(spread: float) -> training.Task:
  """Three blobs in two labels, one of them rare."""
  rng = np.random.default_rng(0)
  kinds = np.repeat([0, 1, 2], [40, 20, 4])
  x = jnp.asarray(np.eye(3)[kinds] * 3 + rng.normal(0, spread, (64, 3)), jnp.float32)
  kinds = jnp.asarray(kinds, jnp.int32)
  split = (x, kinds % 2, kinds)
  return training.Task(x, kinds % 2, kinds, split, split)


@pytest.mark.standard_promotion  # the networks of flax
@pytest.mark.parametrize(
  "name",
  [
    "JTT",
    pytest.param("group scarcity, features, pooled, of a teacher", marks=pytest.mark.slow),
    pytest.param("group scarcity, outputs; ramp=1", marks=pytest.mark.slow),
  ],
)
def test_step_by_step_trains_as_side_by_side(name):
  task, arm = small_task(2.0), arms.find(name)
  sizes = training.Sizes(16, epochs=4, num_classes=2, num_kinds=3, evaluations=2)
  pairs = jnp.arange(2), jnp.array([0.1, 0.05], jnp.float32)
  together = training.side_by_side(arm, sizes, task, *pairs)
  alone = training.step_by_step(arm, sizes, task, *pairs)
  # Rounding may turn an example that lies on the border.
  np.testing.assert_allclose(alone.validation, together.validation, atol=1.0)
  np.testing.assert_allclose(alone.curve, together.curve, atol=0.1)


@pytest.mark.parametrize("plain", ["group scarcity, outputs", "class weights"])
def test_a_ramp_starts_from_equal_weights(plain):
  rng = np.random.default_rng(1)
  logits = jnp.asarray(rng.normal(size=(32, 4)), jnp.float32)
  labels = jnp.asarray(np.minimum(rng.exponential(0.7, 32), 3).astype(np.int32))

  def weights(name: str, progress: float) -> np.ndarray:
    arm, key = arms.find(name), jax.random.key(0)
    context = weighing.Context(
      labels, labels, jnp.ones(32), jnp.full(4, 0.25), 4, key, jnp.float32(progress)
    )
    watch = weighing.init_watch(arm, 8, 4, key)
    return np.asarray(weighing.weigh(arm, logits, jnp.ones((32, 8)), context, watch, key)[0])

  ramp = f"{plain}; ramp=0.5"
  np.testing.assert_array_equal(weights(ramp, 0.0), 1.0)
  half = np.sqrt(weights(plain, 0.25))
  assert half.std() > 0.1
  np.testing.assert_allclose(weights(ramp, 0.25), half / half.mean(), rtol=1e-5)
  np.testing.assert_allclose(weights(ramp, 0.75), weights(plain, 0.75), rtol=1e-5)


@pytest.mark.standard_promotion  # the networks of flax
def test_a_small_run_learns_and_oracle_weights_are_balanced():
  task = small_task(0.3)
  kinds = task.kinds
  sizes = training.Sizes(batch_size=16, epochs=10, num_classes=2, num_kinds=3)
  seeds, rates = jnp.arange(2), jnp.array([0.1, 0.1], jnp.float32)
  validation, test, curve = training.side_by_side(
    arms.find("group scarcity, features"), sizes, task, seeds, rates
  )
  assert curve.shape == (2, 0)
  assert validation.shape == (2, 3, 2)
  np.testing.assert_array_equal(test.sum(axis=(1, 2)), 64)
  assert float(recipes.figures(np.asarray(test[0]), np.array([0, 1, 0]))["mean"]) > 0.8
  weights = weighing.balanced(kinds, 3)
  for kind in range(3):
    assert float(weights[kinds == kind].sum()) == pytest.approx(64 / 3, rel=1e-5)


def test_unknown_task_is_one_clear_line(tmp_path):
  with pytest.raises(ValueError, match="a task must be one of .*, but 'hidden99' was found"):
    rare_kinds.main(task_names=("hidden99",), out=tmp_path)
