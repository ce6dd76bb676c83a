# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Trials that get other seeds, that diverge, or that lack a class in the test."""

import dataclasses
import json

import numpy as np
import pytest
from trials import blobs, small

from gq_optax.trial import command

pytestmark = pytest.mark.standard_promotion  # the networks of flax, and optax


def test_more_or_fewer_seeds_are_as_those_from_the_start(tmp_path):
  """Without a test set each seed tests other examples, and which there are hangs on the seeds."""
  fast = {"arm_names": ("SGDM", "class weights"), "rates": (0.1,), "epochs": 2, "cost_rounds": 0}
  read = lambda summary: [
    (r["arm"], r["figure"], r["reading"], r.get("against")) for r in summary["results"]
  ]
  whole = {
    n: read(command.run(small(tmp_path, **fast, seeds=n, out=tmp_path / f"{n}"))) for n in (3, 7)
  }
  grown = small(tmp_path, **fast, seeds=3, out=tmp_path / "grown")
  assert read(command.run(grown)) == whole[3]
  assert read(command.run(dataclasses.replace(grown, seeds=7))) == whole[7]
  assert read(command.run(grown)) == whole[3]


def test_what_diverged_recognises_nothing(tmp_path):
  trial = small(tmp_path, arm_names=("SGDM",), rates=(0.1, 3e38), epochs=8, cost_rounds=0)
  summary = command.run(trial)
  (result,) = summary["results"]
  assert result["validation_by_rate"]["3e+38"] == 0.0
  assert (result["rate"], result["diverged"], summary["warnings"]) == (0.1, 0, [])
  summary = command.run(dataclasses.replace(trial, rates=(3e38,), out=tmp_path / "far"))
  (result,) = summary["results"]
  assert result["validation"] == [0.0] * 5
  assert result["reading"]["recall"] == [0.0, 0.0, 0.0]
  said = "SGDM at B = 64 diverged in 5 of 5 runs, which recognise nothing."
  assert summary["warnings"] == [said]
  assert said in (tmp_path / "far" / "report.md").read_text()


def test_the_last_class_is_not_tested(tmp_path):
  (x, y), (x_test, y_test) = blobs((60, 60, 30)), blobs((30, 30, 0), seed=1)
  np.savez(tmp_path / "k.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)
  trial = small(
    tmp_path,
    npz=tmp_path / "k.npz",
    arm_names=("SGDM", "class weights"),
    rates=(0.3,),
    seeds=3,
    epochs=2,
    cost_rounds=0,
    batch_sizes=(24,),
  )
  summary = command.run(trial)
  assert summary["results"][0]["reading"]["recall"][2] is None
  text = (trial.out / "report.md").read_text()
  assert "The test split has nothing of class 2, so nothing can be said of it." in text
  assert "class 2 has 0 test examples; a verdict takes at least 10: add more of them, or" in text
  assert "The test does not show" not in text  # more seeds would not help
  assert "| 2 | 0 | - |" in text


def test_arms_whose_names_differ_in_a_point_have_runs_of_their_own(tmp_path):
  names = ("SGDM, decay .3", "SGDM, decay 3", "class weights")
  trial = small(tmp_path, arm_names=names, rates=(0.1,), seeds=2, epochs=2, cost_rounds=0)
  results = {r["arm"]: r for r in command.run(trial)["results"]}
  first, second, weights = results
  assert results["SGDM, decay .3"]["curves"] != results["SGDM, decay 3"]["curves"]
  # And the others are trained as the best of them is.
  assert {first, second} == set(names[:2])
  assert weights == f"class weights on {first}"
  with pytest.raises(ValueError, match=r"'SGDM, decay 1e\+3'.*but those of 'SGDM, decay 1e-3'"):
    command.run(dataclasses.replace(trial, arm_names=("SGDM, decay 1e-3", "SGDM, decay 1e+3")))


def test_a_folder_is_gone_on_with(tmp_path):
  """Without runs it may hold another trial; with runs of another version the report says so."""
  trial = small(tmp_path, arm_names=("SGDM", "JTT"), rates=(0.1,), seeds=2, epochs=4)
  (tmp_path / "out").mkdir()
  (tmp_path / "out" / "config.json").write_text(json.dumps({"epochs": 77}))
  (tmp_path / "out" / "cost.json").write_text(json.dumps({"64": {"SGDM": {"ratio": 1.0}}}))
  summary = command.run(trial)
  assert summary["warnings"] == []
  assert set(summary["cost"]["64"]) == {"SGDM", "JTT"}
  sgdm, jtt = summary["results"]
  assert (sgdm["first_steps"], jtt["first_steps"] * 2) == (0, jtt["steps"])
  for path in (tmp_path / "out" / "runs").glob("SGDM*.json"):
    run = json.loads(path.read_text())
    run["environment"] = {"gq_optax": "0.0.1"} if "seed=0" in path.name else {}
    path.write_text(json.dumps(run))
  others = ("SGDM", "Nesterov")
  summary = command.run(dataclasses.replace(trial, arm_names=others, cost_rounds=0))
  assert summary["warnings"] == ["Some runs were made with gq_optax 0.0.1."]
  at = summary["cost"]
  assert at == {} or at["64"][summary["baseline"]]["ratio"] == 1.0
