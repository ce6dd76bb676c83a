# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Whole trials, small: from a file to a report, kinds that were named, new rows scored."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gq_optax.trial import command, networks
from gq_optax.trial.command import Trial

pytestmark = pytest.mark.standard_promotion  # the networks of flax, and optax


def table(path: Path, rare=24, seed=0) -> Path:
  rng = np.random.default_rng(seed)
  defect = np.arange(200) < rare
  frame = pd.DataFrame({
    "width": rng.normal(size=200) + 2.5 * defect,
    "height": rng.normal(size=200),
    "colour": rng.choice(["red", "blue"], 200),
    "defect": np.where(defect, "dented", "fine"),
  })  # fmt: skip
  frame.to_csv(path, index=False)
  return path


def small(folder: Path, **changes) -> Trial:
  options = {"label": "defect", "seeds": 3, "epochs": 2, "only": ("SGDM", "class weights")}
  return Trial(folder / "parts.csv", **(options | {"out": folder / "out"} | changes))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  folder = tmp_path_factory.mktemp("trial")
  table(folder / "parts.csv")
  with pytest.MonkeyPatch.context() as patch:
    said = []
    patch.setattr("builtins.print", lambda *a, **_: said.append(" ".join(map(str, a))))
    assert command.run(small(folder)) == 0
  return folder, said


def test_a_table_becomes_a_report_and_rows(trained):
  folder, said = trained
  assert said[0] == "200 rows, 2 classes: dented 24, fine 176."
  assert "The rarest class is dented: about 18 rows to train on, 24 tested." in said[1]
  assert any("the first steps are compiled; about" in line for line in said)
  assert any("1 of 2: SGDM" in line for line in said)
  html = (folder / "out" / "report.html").read_text()
  for words in (
    "dented",
    "taken for fine",
    "Recall at 1, 5 and 10 % false alarms",
    "class weights",
  ):
    assert words in html
  assert "http" not in html.split("base64")[0]
  assert "nan" not in html.split("<img")[0]
  frame = pd.read_csv(folder / "out" / "rows.csv", keep_default_na=False)
  assert sorted(frame["row"]) == list(range(200))
  assert frame["held_out_loss"].is_monotonic_decreasing
  assert list(frame.columns)[:7] == [
    "row", "label", "predicted", "held_out_loss", "alike", "slice", "check",
  ]  # fmt: skip


def test_new_rows_are_scored_with_the_best_arm(trained, capsys):
  folder, _ = trained
  table(folder / "new.csv", seed=1)
  frame = pd.read_csv(folder / "new.csv").drop(columns="defect")
  frame.to_csv(folder / "new.csv", index=False)
  assert command.run(Trial(score=folder / "new.csv", out=folder / "out")) == 0
  scores = pd.read_csv(folder / "out" / "scores.csv")
  assert len(scores) == 200
  chance = scores["probability of dented"]
  np.testing.assert_allclose(chance + scores["probability of fine"], 1, atol=1e-4)
  assert chance[:24].mean() > chance[24:].mean()
  with pytest.raises(FileNotFoundError, match="run the trial first, then --score"):
    command.run(Trial(score=folder / "new.csv", out=folder))
  frame.drop(columns="width").to_csv(folder / "less.csv", index=False)
  with pytest.raises(ValueError, match="must have column 'width'"):
    command.run(Trial(score=folder / "less.csv", out=folder / "out"))


def test_named_kinds_get_recalls_and_arms(trained):
  folder, _ = trained
  frame = pd.read_csv(folder / "out" / "rows.csv", keep_default_na=False, dtype=str)
  mine = frame.index[(frame["label"] == "dented")][:12]
  frame.loc[mine, "kind"] = "deep"
  frame.to_csv(folder / "named.csv", index=False)
  trial = small(
    folder, kinds=folder / "named.csv", only=("SGDM", "weights by kind"), out=folder / "kinds"
  )
  assert command.run(trial) == 0
  html = (folder / "kinds" / "report.html").read_text()
  assert "weights by kind" in html
  assert "12 rows are named deep of dented" in html
  assert "<th>kind</th>" in html
  assert "<th>kind</th>" not in (folder / "out" / "report.html").read_text()
  again = pd.read_csv(folder / "kinds" / "rows.csv", keep_default_na=False, dtype=str)
  same = again.set_index("row")["kind"] == frame.set_index("row")["kind"].loc[again["row"]]
  assert same.all()  # rows that resemble them are told beside, not as named
  assert set(again["resembles"]) <= {"", "deep"}


@pytest.mark.slow
def test_kinds_are_named_in_what_is_trained_on_and_their_gain_is_read_on_the_test(tmp_path):
  """Of a kind that resembles the other class; its test rows were neither named nor looked at."""
  rng = np.random.default_rng(0)
  x = rng.normal(size=(900, 6))
  fault, deep = np.arange(900) % 3 == 0, np.arange(900) % 6 == 0
  x[fault & ~deep, 0] += 4
  x[deep, 1] += 4
  y = np.where(fault, "fault", "ok")
  np.savez(tmp_path / "a.npz", x_train=x[:600], y_train=y[:600], x_test=x[600:], y_test=y[600:])
  frame = pd.DataFrame({"row": [f"train {i}" for i in range(600)], "label": y[:600], "kind": ""})
  frame.loc[deep[:600] & (np.arange(600) < 540), "kind"] = "deep"
  frame.to_csv(tmp_path / "rows.csv", index=False)
  only = ("SGDM", "weights by kind", "sampling by kind", "detector by kind")
  trial = Trial(tmp_path / "a.npz", kinds=tmp_path / "rows.csv", seeds=3, only=only)
  assert command.run(dataclasses.replace(trial, epochs=2, out=tmp_path / "out")) == 0
  summary = json.loads((tmp_path / "out" / "summary.json").read_text())
  (told,) = [one for one in summary["compared"] if "deep of fault" in one["name"]]
  assert abs(told["rows"] - deep[600:].sum()) <= 5
  assert all(np.isfinite(told["arms"][name]["gap"][:3]).all() for name in only[1:])
  assert any("the recall of deep of fault at 10 % false alarms" in line for line in summary["top"])
  assert any("A detector goes by resemblance too" in line for line in summary["notes"])


def test_a_kind_of_fewer_than_five_named_rows_is_said_to_have_no_detector():
  from gq_optax.trial import course
  from gq_optax.trial.splits import Split

  by_name = np.array([1] * 5 + [2] * 4 + [-1] * 3)
  split = [Split(rows, rows, rows, rows) for rows in (np.arange(12), np.arange(1, 12))]
  one, two = course.undetected(["ok", "deep", "flat"], by_name, split)
  assert one.startswith("deep has no detector in 1 of 2 splits: fewer than 5 of the rows")
  assert two.startswith("flat has no detector in 2 of 2 splits")


def test_a_plain_optimizer_alone_names_the_rows_and_says_that_nothing_rivalled(trained, capsys):
  folder, _ = trained
  assert command.run(small(folder, only=("SGDM",), out=folder / "alone")) == 0
  said = capsys.readouterr().out
  assert "Nothing was held against SGDM; the rows that fail are below." in said
  assert "Undecided" not in said
  assert (folder / "alone" / "rows.csv").exists()


def test_where_no_verdict_is_possible_all_reasons_are_said_and_nothing_is_trained(tmp_path, capsys):
  table(tmp_path / "parts.csv", rare=3)
  assert command.run(small(tmp_path, seeds=2)) == 3
  said = capsys.readouterr().out
  assert "3 of dented are tested, and a verdict needs at least 10" in said
  assert "2 seeds say too little" in said
  assert "Until then: take the best plain optimizer, Muon or Adam with class weights." in said
  assert not (tmp_path / "out").exists()


def test_what_can_be_seen_is_said_before_jax_is_imported(tmp_path):
  table(tmp_path / "parts.csv", rare=3)
  code = (
    "import sys, pathlib\nfrom gq_optax.trial import command\n"
    f"command.run(command.Trial(pathlib.Path({str(tmp_path)!r}, 'parts.csv'), 'defect'))\n"
    "assert 'jax' not in sys.modules and 'flax' not in sys.modules"
  )
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
  assert "No verdict is possible" in done.stdout


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"seeds": 0}, "seeds must be at least 1, but 0 was found"),
    ({"only": ("class weigths",)}, "only must be of SGDM; .*logit adjustment; .*'class weigths'"),
    ({"batch_size": 4096}, "batch_size must be at most 120"),
    ({"model": "my.py"}, "model must be dense, series, images, or module:function"),
    ({"source": None}, "source must be a .csv"),
  ],
)
def test_bad_options_are_one_clear_line(tmp_path, changes, message):
  table(tmp_path / "parts.csv")
  source = changes.pop("source", tmp_path / "parts.csv")
  trial = small(tmp_path, **changes)
  with pytest.raises(ValueError, match=message):
    command.run(dataclasses.replace(trial, source=source))


MODULE = """
import flax.linen as nn

class Probabilities(nn.Module):
  num_classes: int

  @nn.compact
  def __call__(self, x):
    return nn.softmax(nn.Dense(self.num_classes)(x))
"""


def test_a_model_that_returns_probabilities_is_refused_with_the_reason(tmp_path, monkeypatch):
  (tmp_path / "my_models.py").write_text(MODULE)
  monkeypatch.syspath_prepend(tmp_path)
  with pytest.raises(ValueError, match="must return logits, but its outputs are probabilities"):
    networks.check("my_models:Probabilities", 3, np.ones((2, 4), np.float32))


@pytest.mark.slow
def test_help_fits_a_screen():
  command_line = [sys.executable, "-m", "gq_optax.trial", "--help"]
  done = subprocess.run(command_line, capture_output=True, text=True, check=True)
  lines = done.stdout.splitlines()
  assert len(lines) <= 50
  assert max(map(len, lines)) <= 80
