# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The figure of the paper again, on a set small enough for a test."""

import dataclasses
import json

import matplotlib.image
import numpy as np
import pytest

from benchmarks.harness import training
from benchmarks.paper import figure6

pytestmark = pytest.mark.standard_promotion  # the networks of flax, and optax


@pytest.fixture
def small(monkeypatch):
  trial = dataclasses.replace(
    figure6.TRIALS["MNIST"][0],
    data="digits",
    model="logistic",
    largest=100,
    batch_sizes=(128,),
    rates=(0.1, 0.2, 0.4),
    seeds=2,
    epochs=2,
    evaluations=2,
  )
  monkeypatch.setattr(figure6, "TRIALS", {"MNIST": (trial, 0.05)})


@pytest.mark.slow
def test_it_is_run_once_and_told_as_run(tmp_path, monkeypatch, small):
  figure6.main(("MNIST",), out=tmp_path)
  found = figure6.read(tmp_path / "figure6.jsonl")
  assert list(found) == [("MNIST", "fixed"), ("MNIST", "tuned")]
  rows = figure6.table(found)
  assert [row[:2] for row in rows[1:]] == [["MNIST, fixed", "128"], ["MNIST, tuned", "128"]]

  # Every number is that of the runs it stands for.
  def accuracies(arm, batch_size):
    runs = [json.loads(p.read_text()) for p in (tmp_path / "MNIST,_fixed" / "runs").glob("*.json")]
    own = [r for r in runs if (r["arm"], r["batch_size"]) == (arm, batch_size)]
    assert {r["rate"] for r in own} == {0.05}
    assert len(own) == 2
    return 100 * np.array([r["test"]["accuracy"] for r in sorted(own, key=lambda r: r["seed"])])

  sgd, one, many = (accuracies(arm, 128) for arm in figure6.SGD)
  assert rows[1][2] == f"{sgd.mean():.1f} ± {sgd.std(ddof=1):.1f}"
  for cell, own in zip(rows[1][3:5], (one, many), strict=True):
    assert cell == f"{own.mean():.1f} ({(own - sgd).mean():+.1f})"
  assert rows[1][5] == "99.2, 99.3, 99.2"  # the paper's
  assert not any("curve" in key for result in found["MNIST", "tuned"]["results"] for key in result)
  assert matplotlib.image.imread(tmp_path / "figure6.png").std() > 0.01

  def nothing(*_):
    raise AssertionError("what is there is not run again")

  monkeypatch.setattr(training, "side_by_side", nothing)
  monkeypatch.setattr(training, "step_by_step", nothing)
  figure6.main(("MNIST",), out=tmp_path)
  assert figure6.table(figure6.read(tmp_path / "figure6.jsonl")) == rows


def test_one_cluster_of_64_examples_is_no_cluster():
  test = [{"accuracy": 0.25}, {"accuracy": 0.75}]
  results = [{"arm": arm, "batch_size": 64, "test": test} for arm in figure6.SGD]
  summary = {"results": results}
  _, row = figure6.table({("MNIST", "fixed"): summary})
  assert row == ["MNIST, fixed", "64", "50.0 ± 35.4", "50.0 (+0.0)", "-", "99.4, 99.3, -"]


def test_what_is_unknown_is_named(tmp_path):
  with pytest.raises(ValueError, match="names must be of MNIST, CIFAR-10.*'nothing' was found"):
    figure6.main(names=("nothing",), out=tmp_path)
  with pytest.raises(ValueError, match="ways must be of fixed, tuned, but 'nothing' was found"):
    figure6.main(ways=("nothing",), out=tmp_path)


def test_the_trials_are_the_papers():
  for name, (trial, _) in figure6.TRIALS.items():
    assert tuple(figure6.PAPER[name]) == trial.batch_sizes
    assert len(trial.arm_names) == 3
