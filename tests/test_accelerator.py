# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The script for accelerators at a tiny size: it runs, resumes, and sees wrong gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.cost import accelerator, accelerator_gradients, jobs, workloads
from benchmarks.harness import records

# A program of its own, under JAX's usual rules.
pytestmark = pytest.mark.standard_promotion


@pytest.fixture(autouse=True)
def keep_caches(monkeypatch):
  """What other tests have compiled stays."""
  monkeypatch.setattr(jax, "clear_caches", lambda: None)


def test_rows_are_measured_once_and_shown(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(workloads, "TINY", workloads.TINY[:1])
  monkeypatch.setattr(jobs, "ROUNDS", 2)
  out = tmp_path / "rows.jsonl"
  rows = accelerator.main(("correct", "groups"), tiny=True, out=out)
  by_name = {(row["part"], row["row"]): row for row in rows}
  assert len(rows) == len(by_name) == 8
  for way in ("groups", "whole step"):
    assert by_name["correct", way]["error"] < 1e-6
    for kind in ("equal", "skewed"):
      row = by_name["groups", f"{way}, {kind}"]
      assert row["ratio"] > 0
      assert row["reference_ms"] > 0
      assert row["compile_seconds"] > 0
      # K-means finds the groups that were planned.
      planned = [4, 4, 4, 4] if kind == "equal" else [8, 4, 4, 0]
      planned = [7, 4, 4, 1] if (way, kind) == ("whole step", "skewed") else planned
      assert sorted(row["counts"]) == sorted(planned)
  text = out.with_suffix(".md").read_text()
  assert text in capsys.readouterr().out
  assert "MLP 5-4-3: whole step, skewed" in text

  stored = records.read(out)
  out.unlink()
  for row in stored[:-1]:
    records.append(out, row | {"kept": True})
  missing = stored[-1]["row"]
  again = accelerator.main(("correct", "groups"), tiny=True, out=out)
  assert [row["row"] for row in again if not row.get("kept")] == [missing]
  assert accelerator.main(("groups",), tiny=True, out=out, minutes=-1.0) == again


@pytest.mark.slow
def test_every_part(tmp_path):
  rows = accelerator.main(tiny=True, out=tmp_path / "rows.jsonl")
  assert {row["part"] for row in rows} == set(accelerator.PARTS)
  all_jobs = [job for part in accelerator.PARTS.values() for job in part(True)]
  assert len(rows) == sum(len(job.rows) for job in all_jobs)
  assert all(row["met"] is None for row in rows)


def test_jobs_of_full_size_have_names_of_their_own():
  all_jobs = [job for part in accelerator.PARTS.values() for job in part(False)]
  names = [(job.part, job.name, row) for job in all_jobs for row in job.rows]
  assert len(set(names)) == len(names) > 80
  assert {w.title for w in workloads.FULL} >= set(workloads.WEIGHED[:3])
  leaves = jax.eval_shape(lambda: workloads.transformer(12, 768, False))
  assert len(leaves) == 145
  assert sum(leaf.size for leaf in leaves.values()) == 12 * (12 * 768 + 13) * 768 + 50_257 * 768


def test_a_bar_is_met_or_not(tmp_path):
  here = accelerator.environment(tiny=False)
  row = {"ratio": 1.3, "bar_of": "ratio"}
  run = lambda wanted: {"good": row | {"bar": 1.3}, "bad": row | {"bar": 1.2}}
  job = jobs.Job("groups", "a network", ("good", "bad", "failed"), run)
  out = tmp_path / "rows.jsonl"
  accelerator.measure(job, out, here)
  good, bad = records.read(out)
  assert (good["met"], bad["met"]) == (True, False)
  text = accelerator.report([good, bad], here)
  assert "1 of 2 bars are met" in text
  assert "| 1.2 | NO |" in text

  def fails(wanted):
    assert wanted == ["failed"]
    raise RuntimeError("out of memory")

  accelerator.measure(job._replace(run=fails), out, here)
  assert len(records.read(out)) == 2


def test_a_wrong_gradient_is_seen():
  expected = {"w": np.ones((3, 4)), "b": np.zeros((3, 2))}
  expected["w"][2] = 0.0  # an empty group
  right = jax.tree.map(jnp.asarray, expected)
  error = lambda **wrong: accelerator_gradients.relative_error({**right, **wrong}, expected)
  assert error() == 0.0
  assert error(w=right["w"].at[1, 0].add(0.2)) > 0.09
  assert error(b=right["b"].at[2, 0].add(0.2)) > 0.09
