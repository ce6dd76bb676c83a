# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Steps to a target: counted by hand, and a small case from end to end."""

import dataclasses
import json
import math

import matplotlib.image
import numpy as np
import pytest

from benchmarks.harness import training
from benchmarks.paper import steps_to_target

pytestmark = pytest.mark.standard_promotion  # the networks of flax, and optax


def test_the_first_step_at_the_target():
  first = lambda curve: steps_to_target.first_step(np.array(curve), [3, 7, 11], 0.5)
  assert first([0.1, 0.5, 0.4]) == 8.0
  assert first([0.9, 0.1, 0.1]) == 4.0
  assert first([0.1, 0.2, 0.49]) == math.inf


def test_as_many_updates_at_least():
  trial = steps_to_target.TRIALS["LT100"][0]
  assert steps_to_target.epochs(trial, 6400, 64) == trial.epochs
  assert steps_to_target.epochs(trial, 6400, 3200) == steps_to_target.UPDATES / 2


@pytest.fixture
def small(monkeypatch):
  trial = dataclasses.replace(
    steps_to_target.TRIALS["balanced"][0],
    data="digits",
    model="logistic",
    arm_names=("SGDM",),
    batch_sizes=(64, 256),
    largest=100,
    seeds=2,
    epochs=2,
    evaluations=20,
  )
  monkeypatch.setattr(steps_to_target, "TRIALS", {"digits": (trial, 0.85)})
  monkeypatch.setattr(steps_to_target, "UPDATES", 40)
  rates = {"sgd": (0.01, 0.02, 0.04)}
  monkeypatch.setattr(steps_to_target.optimizers, "RATES", rates)


@pytest.mark.slow
def test_the_fewest_steps_at_the_best_rate(tmp_path, monkeypatch, small):
  out = tmp_path / "steps.json"
  steps_to_target.main(("digits",), out=out)
  (task,) = json.loads(out.read_text()).values()
  assert [(r["arm"], r["batch_size"]) for r in task["runs"]] == [("SGDM", 64), ("SGDM", 256)]
  for run in task["runs"]:
    reached = [s for s in run["by_rate"].values() if s is not None]
    assert steps_to_target.median(run) == min(reached) == run["by_rate"][f"{run['rate']:g}"]
    assert 0 < min(reached) <= run["updates"]
    assert len(run["by_rate"]) >= 3
  assert len(task["noise_scale"]) == 2
  assert matplotlib.image.imread(out.with_suffix(".png")).std() > 0.01

  head, sgd = steps_to_target.table({"digits": task})
  assert head == ["task, arm", "B=64", "B=256", "B=64 to 256: fewer by"]
  first, last = (steps_to_target.median(r) for r in task["runs"][:2])
  assert sgd[1].startswith(f"{first:.0f} (")
  assert sgd[3] == f"{first / last:.1f} times"

  # What is there is not run again; what was lost comes back as it was.
  lost = task["runs"].pop()
  out.write_text(json.dumps({"digits": task}))
  train, calls = training.side_by_side, []
  monkeypatch.setattr(
    training, "side_by_side", lambda arm, *rest: calls.append(rest) or train(arm, *rest)
  )
  steps_to_target.main(("digits",), out=out)
  assert json.loads(out.read_text())["digits"]["runs"][-1] == lost
  assert len(calls) == len(lost["by_rate"])


def test_what_is_not_reached_is_told():
  run = {"arm": "SGDM", "rate": 0.1, "rate_inside_grid": False}
  runs = [{**run, "batch_size": 64, "steps": [30.0]}, {**run, "batch_size": 256, "steps": [None]}]
  _, row = steps_to_target.table({"a task": {"runs": runs}})
  assert row == ["a task, SGDM", "30 (0.1 *)", "not reached (0.1 *)", "-"]


def test_what_is_unknown_is_named(tmp_path):
  with pytest.raises(ValueError, match="names must be of LT100, balanced, but 'nothing'"):
    steps_to_target.main(names=("nothing",), out=tmp_path / "steps.json")
