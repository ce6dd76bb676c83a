# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The scripts run on a few examples, tune as they say, and go on where they stopped."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.cost import communication, steps, timed, workloads
from benchmarks.harness import optimizers, records, training
from benchmarks.paper import digits
from benchmarks.rarity import experiments
from benchmarks.rarity.experiments import Experiment

pytestmark = pytest.mark.standard_promotion  # the networks of flax


@pytest.fixture
def small_task(monkeypatch):
  """Three kinds in two labels, one of them rare, in place of every task."""
  rng = np.random.default_rng(0)
  kinds = np.repeat([0, 1, 2], [40, 20, 4])
  x = jnp.asarray(np.eye(3)[kinds] * 3 + rng.normal(0, 1, (64, 3)), jnp.float32)
  kinds = jnp.asarray(kinds, jnp.int32)
  split = (x, kinds % 2, kinds)
  made = training.Task(x, kinds % 2, kinds, split, split), np.array([0, 1, 0])
  monkeypatch.setattr(experiments, "_made", lambda _: made)
  monkeypatch.setattr(experiments, "default_epochs", lambda *_: 1)


@pytest.mark.usefixtures("small_task")
def test_a_decay_is_chosen_and_its_arms_keep_it(tmp_path, monkeypatch, capsys):
  monkeypatch.setitem(optimizers.RATES, "scaled", (0.1, 0.2, 0.4))
  name = "class weights on SGDM, one length"
  wanted = Experiment(("hidden7",), (16,), (name,), seeds=3, decays=True)
  out = tmp_path / "rows.jsonl"
  experiments.run(wanted, out)
  plain, weighted = records.read(out)
  assert (plain["arm"], weighted["arm"]) == ("SGDM, one length", name)
  assert plain["weight_decay"] == weighted["weight_decay"]
  scores = plain["validation_by_rate"]
  assert scores[f"{plain['rate']:g}"] == max(scores.values())
  assert len(plain["mean"]) == len(weighted["worst"]) == 3
  experiments.run(wanted, out)
  assert capsys.readouterr().out.count("\n") == 2
  out.write_text(out.read_text()[:-5])  # torn while it was written
  experiments.run(wanted, out)
  assert capsys.readouterr().out.count("\n") == 1
  assert records.read(out)[1]["mean"] == weighted["mean"]


def test_the_rate_is_chosen_by_kinds_and_again_by_the_worst_class(monkeypatch):
  """Kinds 0 and 2 are of class 0 and differ in size, so that the two choices differ."""
  x = np.zeros((4, 1), np.float32)
  split = (x, np.array([0, 1, 0]), np.array([0, 1, 2]))
  made = training.Task(x, split[1], split[2], split, split), np.array([0, 1, 0])
  by_rate = {0.12: [10, 10, 9], 0.24: [90, 5, 0]}  # hits of 90, 10 and 10

  def train(arm, sizes, task, seeds, rates, decay):
    confusions = []
    for r in rates:
      a, b, c = by_rate.get(round(float(r), 3), [0, 0, 0])
      confusions.append([[a, 90 - a], [10 - b, b], [c, 10 - c]])
    return np.array(confusions, float), np.array(confusions, float)

  monkeypatch.setattr(training, "side_by_side", train)
  cell = {"task": "adult", "batch_size": 2, "arm": "SGDM", "seeds": 3, "longer": 1}
  found = experiments.run_cell(Experiment(seeds=3), cell, made, None)
  other = found["by_worst_class"]
  assert (found["rate"], other["rate"]) == (0.12, 0.24)
  assert found["validation"] == pytest.approx((1 / 9 + 1 + 0.9) / 3, rel=1e-4)
  assert other["worst"] == [0.0] * 3
  fixed = experiments.run_cell(Experiment(seeds=3, fixed_rate=0.24), cell, made, None)
  assert (fixed["rate"], fixed["validation_by_rate"]) == (0.24, {})


# The paper


@pytest.mark.slow
def test_digits_in_short(tmp_path, monkeypatch):
  for name, value in {"STEPS": 20, "FIRST": 5, "LAST": 10, "TOLD": 5, "SEEDS": 2}.items():
    monkeypatch.setattr(digits, name, value)
  monkeypatch.setattr(digits, "FACTORS", {"NaN and Inf": 1.0})
  monkeypatch.setattr(digits, "NOISE", (0.4,))
  monkeypatch.delitem(digits.FIGURES, "plain")
  monkeypatch.delitem(digits.FIGURES, "queue")
  monkeypatch.delitem(digits.DTYPES, "float16")
  names = ("queue, sgd", "apply_if_finite(queue, sgd)")
  chains = digits.chains()
  monkeypatch.setattr(digits, "chains", lambda: {name: chains[name] for name in names})
  out = tmp_path / "digits.jsonl"
  digits.main(out=out)
  rows = {(row["part"], row["row"]): row for row in records.read(out)}
  assert len(rows) == 2 + 2 + 2
  assert all(rows["poison", name]["clean"] for name in names)
  assert rows["poison", names[0]]["back"] == [None, None]  # lost
  assert rows["labels", "matched queue"]["norm_ratio"] == pytest.approx([1.0, 1.0], abs=1e-5)
  errors = rows["dtype", "float32"]["errors"]
  assert errors["float32"] == [[0.0, 0.0]] * 2
  assert 0.0 < errors["bfloat16"][0][0] < 0.02
  digits.main(out=out)
  assert len(records.read(out)) == 6


# Costs


@pytest.fixture
def quick(monkeypatch):
  """What other tests have compiled stays, and a network is timed twice."""
  monkeypatch.setattr(jax, "clear_caches", lambda: None)
  monkeypatch.setattr(workloads, "TINY", workloads.TINY[:1])
  monkeypatch.setattr(steps, "ROUNDS", 2)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_every_part(tmp_path):
  rows = timed.main(tiny=True, out=tmp_path / "rows.jsonl", minutes=60.0)
  all_jobs = [job for part in timed.PARTS.values() for job in part(True)]
  assert len(rows) == sum(len(job.rows) for job in all_jobs)
  assert {row["part"] for row in rows} == set(timed.PARTS)
  assert all(row["met"] is None for row in rows)


@pytest.mark.usefixtures("quick")
def test_a_bar_is_met_or_not(tmp_path, capsys):
  here, row = timed.environment(tiny=False), {"ratio": 1.3, "bar_of": "ratio"}
  run = lambda wanted: {"good": row | {"bar": 1.3}, "bad": row | {"bar": 1.2}}
  job, out = steps.Job("groups", "a network", ("good", "bad", "failed"), run), tmp_path / "r.jsonl"
  timed.measure(job, out, here)
  assert [row["met"] for row in records.read(out)] == [True, False]
  assert "1 rows failed" in capsys.readouterr().out

  def fails(wanted):
    assert wanted == ["failed"]
    raise RuntimeError("out of memory")

  timed.measure(job._replace(run=fails), out, here)
  assert len(records.read(out)) == 2


HLO = """
%body (p: f32[4]) -> f32[4] {
  %r = (f32[4]{0}, s32[]) all-reduce(%p, %q), to_apply=%add
}

ENTRY %main (a: f32[8]) -> f32[8] {
  %g = f32[8,2]{1,0} all-gather(%a), dimensions={0}
  %w = f32[4] while(%g), condition=%c, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  %v = f32[4] while(%g), condition=%c, body=%body
}
"""


def test_bytes_sent_by_hand():
  assert communication.sent(HLO) == ({"all-gather": 64, "all-reduce": 20 * 5 + 20}, 1)
