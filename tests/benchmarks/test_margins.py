# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The margins benchmark: its splits, its recipes, and a run."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

import gq_optax as gq
from benchmarks.margins import deep

pytestmark = pytest.mark.standard_promotion  # a script, and networks of its own


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Images whose brightness tells their class."""
  rng, path = np.random.RandomState(0), tmp_path_factory.mktemp("data")
  made = {}
  for split, each in (("train", 60), ("test", 20)):
    y = np.repeat(np.arange(10), each)
    x = rng.randint(0, 20, (len(y), 32, 32, 3)) + 20 * y[:, None, None, None]
    made |= {f"x_{split}": x.astype(np.uint8), f"y_{split}": y}
  np.savez(path / "cifar10.npz", **made)
  return path


def job(arm="none", strength=0.0, task="classes", network="dense", rate=0.02, seed=0, order=0):
  return deep.Job(task, network, arm, strength, rate, seed, order)


@pytest.mark.parametrize("task", ["classes", "kinds"])
def test_the_tail_is_long_and_the_splits_are_apart(folder, task):
  first, second = (deep.long_tail(folder, task, order, deep.TINY) for order in (0, 1))
  counts = np.bincount(first.kind["train"])
  assert counts[0] == 40
  assert (np.diff(counts) <= 0).all()
  assert first.rarity.max() == pytest.approx(40.0)
  assert [len(first.x[s]) for s in ("validation", "test")] == [50, 200]
  images = lambda split: {image.tobytes() for image in first.x[split]}
  assert not images("train") & images("validation")
  assert set(first.y["train"]) == set(range(10 if task == "classes" else 2))
  brightest = lambda d: d.x["test"][d.kind["test"] == 0].mean()
  assert brightest(first) != pytest.approx(brightest(second))
  if task == "kinds":  # a class has its label in both orders
    np.testing.assert_array_equal(first.y["test"][::20], second.y["test"][::20])


def test_recipes_are_what_their_names_say(folder):
  data = deep.long_tail(folder, "classes", 0, deep.TINY)
  n, labels = len(data.rarity), jnp.asarray(data.y["train"])
  logits = np.random.default_rng(0).normal(size=(n, 10)).astype(np.float32)
  plain, counts = deep.cross_entropy(logits, labels), np.bincount(data.y["train"])
  of = lambda arm, strength: deep.recipe(job(arm, strength), data, lambda *_: data.rarity)
  loss = lambda recipe, late=True: deep.example_losses(recipe, np.arange(n), late, logits, labels)
  close = lambda found, expected: np.testing.assert_allclose(found, expected, rtol=1e-4)
  t = data.rarity**-0.7
  with_margins = deep.cross_entropy(logits * t[:, None], labels) / t
  for arm in ("margins", "held-out margins", "early margins, smoothed"):
    close(loss(of(arm, 0.7))[0], with_margins)
  adjusted = deep.cross_entropy(gq.adjusted_logits(logits, counts, 2.0), labels)
  close(loss(of("logit adjustment", 2.0))[0], adjusted)
  close(loss(of("weights", 2.0))[1], data.rarity**2)
  close(loss(of("late weights", 2.0), False)[1], 1.0)
  np.testing.assert_array_equal(loss(of("none", 0.0))[0], plain)
  vs, margins = of("VS", 0.5), of("margins", 0.5)
  close(loss(vs)[0] / margins.temperature, loss(margins)[0])
  dealt = of("random margins", 0.5).temperature
  close(np.sort(dealt), np.sort(margins.temperature))
  assert not np.allclose(dealt, margins.temperature)
  assert len(set(np.asarray(of("one temperature", 0.5).temperature))) == 1
  close(of("balanced sampling", 1.0).chance, data.rarity)


slow = pytest.mark.slow


@pytest.mark.parametrize(
  ("arm", "strength", "task", "network"),
  [
    ("none", 0.0, "classes", "dense"),
    pytest.param("none", 0.0, "classes", "conv", marks=slow),
    pytest.param("held-out margins, smoothed", 1.0, "classes", "dense", marks=slow),
    pytest.param("density margins", 0.5, "kinds", "dense", marks=slow),
  ],
)
def test_a_run_gives_all_figures_and_the_same_again(folder, arm, strength, task, network):
  data, wanted = deep.long_tail(folder, task, 0, deep.TINY), job(arm, strength, task, network)
  found = deep.run(wanted, data, deep.TINY)
  assert found["test"]["natural"] > 12.0  # brightness is easily learnt
  assert ("after" in found["test"]) == ("head" in found["test"]) == (arm == "none")
  assert arm != "none" or set(found["test"]["after"]) == {str(s) for s in deep.AFTER}
  json.dumps(found)
  if task == "kinds":
    assert deep.run(wanted, data, deep.TINY) | {"seconds": 0} == found | {"seconds": 0}
