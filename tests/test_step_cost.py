# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The cost benchmark on a network so small that it takes seconds; it resumes where it stopped."""

import json

import jax.numpy as jnp
import matplotlib.image
import pytest

from benchmarks.cost import step_cost
from benchmarks.harness import models, records, timing

# A program of its own, under JAX's usual rules.
pytestmark = pytest.mark.standard_promotion
TINY = step_cost.Workload("tiny", models.MLP((4,), 3), 16, 4, (5,), 3)


def test_sizes_of_groups():
  assert step_cost.sizes(TINY, "equal") == [4, 4, 4, 4]
  assert step_cost.sizes(TINY, "skewed") == [8, 4, 4, 0]
  assert sum(step_cost.sizes(step_cost.WORKLOADS["mlp"], "skewed")) == 1024


@pytest.mark.slow
def test_a_tiny_workload(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(step_cost, "WORKLOADS", {"tiny": TINY})
  monkeypatch.setattr(step_cost, "SLOW", 1e9)  # everything is timed for both kinds of groups
  out = tmp_path / "step_cost.jsonl"
  results = step_cost.main(("tiny",), rounds=2, out=out)
  steps = results["tiny"]["steps"]
  assert {"plain", "grouped", step_cost.QUEUED, "whole step with K-means"} <= set(steps)
  for row in steps.values():
    assert row["equal"]["ratio"] > 0
    assert row["skewed"]["median"] > 0
    assert row["compile_seconds"] > 0
  assert steps["plain"]["equal"]["ratio"] == 1.0
  assert matplotlib.image.imread(tmp_path / "step_cost.png").ndim == 3
  assert "geometric mean" in capsys.readouterr().out

  (kept,) = records.read(out)
  out.write_text(json.dumps(kept | {"title": "not measured again"}) + "\n")
  assert step_cost.main(("tiny",), rounds=2, out=out)["tiny"]["title"] == "not measured again"


def test_a_step_that_is_given_memory_takes_other_inputs():
  step = timing.compile_step(lambda memory, x: (jnp.cumsum(x),), jnp.zeros(3), jnp.ones(3))
  assert step.run()[0].tolist() == [1.0, 2.0, 3.0]
  assert step.run(jnp.full(3, 2.0))[0].tolist() == [2.0, 4.0, 6.0]


def test_an_unknown_workload():
  with pytest.raises(ValueError, match="workloads must be among .* but 'nothing' was found"):
    step_cost.main(("nothing",))
