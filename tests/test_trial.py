# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""A/B trials: the user's own arrays and model, resumption, the report, one clear line."""

import dataclasses
import math
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from trials import blobs, small

import gq_optax.trial
from gq_optax.trial import __main__ as trial_main
from gq_optax.trial import (
  arms,
  command,
  networks,
  page,
  rarity,
  training,
)

pytestmark = pytest.mark.standard_promotion  # the networks of flax, and optax

MODULES = """
import flax.linen as nn

class Linen(nn.Module):
  num_classes: int

  @nn.compact
  def __call__(self, x, train):
    x = nn.Dropout(0.1, deterministic=not train)(nn.tanh(nn.Dense(5)(x)))
    return nn.Dense(self.num_classes)(x), x

class Wide(nn.Module):
  @nn.compact
  def __call__(self, x):
    return nn.Dense(5)(x)

linen = Linen
wide = lambda num_classes: Wide()
"""


@pytest.fixture
def own_module(tmp_path, monkeypatch):
  (tmp_path / "own_models.py").write_text(MODULES)
  monkeypatch.syspath_prepend(tmp_path)
  yield "own_models"
  sys.modules.pop("own_models", None)
  networks.make.cache_clear()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """A trial on classes of which one is rare, interrupted in its third call and then resumed."""
  trial = small(tmp_path_factory.mktemp("trial"))
  train, calls = training.each_on_its_own, []

  def interrupted(*args):
    calls.append(args)
    if len(calls) == 3:
      raise KeyboardInterrupt
    return train(*args)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(training, "each_on_its_own", interrupted)
    with pytest.raises(KeyboardInterrupt):
      command.run(trial)
    files = (trial.out / "runs").glob("*.json")
    kept = {path: path.stat().st_mtime_ns for path in files}
    summary = command.run(trial)
  assert len(calls[0][3]) == 5  # one shape, one compilation
  return trial, summary, kept


def test_what_is_there_is_not_run_again(trained, monkeypatch):
  trial, summary, kept = trained
  assert len(kept) == 6
  assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
  train, calls = training.each_on_its_own, []
  monkeypatch.setattr(training, "each_on_its_own", lambda *a: calls.append(a) or train(*a))
  monkeypatch.setattr(rarity, "trained_features", None)  # kept, too
  assert command.run(trial)["results"] == summary["results"]
  assert not calls

  # A run that is lost comes back as it was; so do scores without figures, and figures without.
  first = summary["results"][0]
  stem = f"{first['arm']}_B=64_rate={first['rate']:.6g}_seed="
  for seed, suffix in ((0, ".json"), (1, ".npz")):
    path = trial.out / "runs" / f"{stem}{seed}{suffix}"
    before = path.read_bytes()
    path.unlink()
    assert command.run(trial)["results"] == summary["results"]
    assert path.read_bytes() == before or suffix == ".npz"
  assert len(calls) == 2


def test_only_the_rate_chosen_on_validation_meets_the_test(trained):
  trial, summary, _ = trained
  for result in summary["results"]:
    by_rate = result["validation_by_rate"]
    assert by_rate[f"{result['rate']:.6g}"] == max(by_rate.values())
    stem = result["arm"].replace(" ", "_").replace(",", "")
    assert len(list((trial.out / "runs").glob(f"{stem}_B=64_rate=*_seed=*.json"))) >= 9
    kept = list((trial.out / "runs").glob(f"{stem}_B=64_rate=*_seed=*.npz"))
    assert {path.name.split("rate=")[1].split("_")[0] for path in kept} == {f"{result['rate']:g}"}
    assert len(kept) == 5
  with np.load(kept[0]) as file:
    assert file["scores"].dtype == np.float16
    assert file["scores"].shape[1] == 3
    assert (file["scores"].max(axis=1) == 0).all()


def test_the_others_train_as_the_best_plain_arm_does(trained):
  _, summary, _ = trained
  means = {r["arm"]: np.mean(r["validation"]) for r in summary["results"]}
  best = max(("SGDM", "Nesterov"), key=lambda name: means[name])
  assert summary["baseline"] == best == summary["results"][0]["arm"]
  suffix = "" if best == "SGDM" else f" on {best}"
  assert set(means) == {"SGDM", "Nesterov", f"class weights{suffix}", f"GQ, K=1{suffix}"}
  assert ["against" in r for r in summary["results"]] == [False, False, True, True]
  assert arms.find("class weights on Nesterov") == arms.Arm(weights="class", optimizer="nesterov")
  with pytest.raises(ValueError, match=r"must be on one of SGDM, .*, but 'class weights'"):
    arms.find("Delta_rho on class weights")


def test_the_report_says_what_was_tested_and_how_sure_it_is(trained):
  trial, summary, _ = trained
  # 14 rare ones: 2 for validation, and 12 that are tested in turn.
  assert summary["counts"]["test"][2] == 12
  assert summary["counts"]["validation"][2] == 2
  assert summary["repeated"]
  assert summary["no_verdict"] == {"figure": "", "rarest": ""}
  for result in summary["results"][2:]:
    for gap in result["against"].values():
      assert gap["low"] <= gap["mean"] <= gap["high"]
      assert gap["verdict"] == "no difference shown"
  table = np.array(summary["results"][0]["reading"]["confusion"])
  np.testing.assert_allclose(table.sum(axis=1), summary["counts"]["test"], atol=0.1)
  assert np.isclose(table[2, 2] / 12, summary["results"][0]["rarest"], atol=0.01)

  text, html = ((trial.out / f"report.{kind}").read_text() for kind in ("md", "html"))
  assert [line[:2] for line in text.splitlines()[2:5]] == ["* "] * 3
  for said in ("every seed has another split", "class 2, the rarest (9 to train on, 12 tested)"):
    assert said in text
  for said in ("average precision", "false alarms in 1,000 others", "taken for 2", "rarest tenth"):
    assert said in html
  assert "nan" not in text.replace("finance", "")
  assert "http" not in html
  assert (
    html.count("<table>")
    == html.count('<div class="scroll"><table>')
    == len([rows for _, _, found in page.sections(summary) for rows in found])
  )
  assert 'name="viewport" content="width=device-width' in html
  assert matplotlib.image.imread(trial.out / "report.png").ndim == 3
  with np.load(trial.npz) as file:
    for row, label in (n for r in summary["rarity"] for n in (r["example"], *r["neighbours"])):
      assert file["y_train"][row] == label
  page.main(trial.out / "summary.json")
  assert (trial.out / "report.md").read_text() == text


def test_another_trial_in_the_same_folder_is_refused(trained, tmp_path):
  trial, _, _ = trained
  with pytest.raises(ValueError, match=r"out must be another folder: .*epochs was 4, now 5"):
    command.run(dataclasses.replace(trial, epochs=5))
  other = small(tmp_path)
  with np.load(other.npz) as file:
    arrays = dict(file)
  arrays["x_train"][3, 0] += 1.0
  np.savez(other.npz, **arrays)
  with pytest.raises(ValueError, match=r"another trial \(x_train was other data\)"):
    command.run(dataclasses.replace(other, out=trial.out))


def test_the_users_own_model_and_kinds(tmp_path, own_module):
  x, kinds = blobs((60, 60, 30))
  x_test, kinds_test = blobs((30, 30, 30), seed=1)
  names = np.array(["scratch", "dent", "stain"])
  arrays = {"x_train": x, "y_train": kinds % 2, "x_test": x_test, "y_test": kinds_test % 2}
  np.savez(tmp_path / "k.npz", **arrays, kinds_train=names[kinds], kinds_test=names[kinds_test])
  trial = small(
    tmp_path,
    npz=tmp_path / "k.npz",
    model=f"{own_module}:linen",
    arm_names=("SGDM", "true kinds (oracle)"),
    rates=(0.3,),
    seeds=3,
    epochs=8,
    cost_rounds=0,
    batch_sizes=(24,),
  )
  summary = command.run(trial)
  assert summary["kind_names"] == ["scratch", "stain", "dent"]
  assert summary["counts"]["test"] == [30, 30, 30]
  assert summary["counts"]["training"] == [48, 24, 48]
  assert summary["class_counts"]["training"] == [72, 48]
  first = summary["results"][0]
  assert (first["rate"], first["rate_inside_grid"]) == (0.3, None)
  assert first["figure"] > 0.8
  text = (trial.out / "report.md").read_text()
  assert "The worst kind of SGDM: " in text
  assert "mean over kinds on validation chooses learning rates and the best arm" in text
  assert "recall of class 1, the rarest class (48 to train on, 30 tested)" in text
  assert "recall of stain, the rarest kind (24 to train on, 30 tested)" in text
  oracle = summary["results"][1]  # class 1 has one kind, so its recall is that of the kind
  recall = oracle["class"] - first["class"]
  assert oracle["against"]["class"]["mean"] == pytest.approx(recall, abs=1e-6)
  assert oracle["class"] == pytest.approx(oracle["reading"]["recall"][1], abs=1e-6)
  assert summary["no_verdict"]["class"] == ""
  assert summary["rarity"] is None
  own = sys.modules[own_module]
  source = (tmp_path / "own_models.py").read_text()
  (tmp_path / "own_models.py").write_text(source.replace("0.1", "0.2"))
  del sys.modules[own_module]
  networks.make.cache_clear()
  with pytest.raises(ValueError, match=r"another trial \(the module of the model was changed\)"):
    command.run(trial)
  del own


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"npz": "missing.npz"}, "path must be an .npz file, but nothing was found at"),
    ({"arm_names": ("SGD",)}, "the arm must be one of SGDM; .*; but 'SGD' was found"),
    ({"arm_names": ("class weigths",)}, "Did you mean 'class weights'?"),
    ({"data": "minst", "npz": None}, "minst"),
    ({"batch_sizes": (256,)}, "batch_sizes must be 1 to the 106 training examples, but 256"),
    ({"model": "own_models:wide"}, r"model must return a logit for each of 3 classes"),
    (
      {"model": "own_models:linen", "arm_names": ("SGDM", "GQ, K=B/64")},
      "arm_names must leave out GQ, K=B/64 for a model with BatchNorm or dropout",
    ),
    ({"model": "cnn"}, "model must not be a convolutional one for examples of shape"),
    ({"noise": "other"}, "noise must be symmetric or asymmetric, but 'other'"),
    ({"imbalance": 3.0}, "noise, imbalance and hidden must be left out with npz"),
    ({"figure": "f1"}, "figure must be one of mean, accuracy, macro_f1, but 'f1'"),
    ({"evaluations": 0}, "evaluations must be at least 1, but 0"),
    ({"cost_rounds": 1}, "cost_rounds must be 0 or at least 2, but 1"),
    ({"tuning_seeds": 6}, "tuning_seeds must be 1 to seeds=5, but 6"),
    ({"fixed_rate": math.inf}, "a learning rate must be positive and finite, but inf"),
    ({"rates": (0.1, -1.0)}, "a learning rate must be positive and finite, but -1"),
    ({"arm_names": ()}, "a trial must have an arm"),
    ({"out": "own.npz/deeper"}, "out must be a folder, but own.npz is a file"),
  ],
)
def test_bad_input_is_one_clear_line(tmp_path, own_module, capsys, monkeypatch, changes, message):
  monkeypatch.chdir(tmp_path)
  changes = {k: Path(v) if k == "out" else v for k, v in changes.items()}
  trial = small(tmp_path, **changes)
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    command.run(trial)
  assert not (tmp_path / "out" / "runs").exists()  # found before anything was begun
  monkeypatch.setattr(command.tyro, "cli", lambda *args, **kwargs: trial)
  with pytest.raises(SystemExit) as stopped:
    command.main()
  assert stopped.value.code == 2
  lines = capsys.readouterr().err.strip().splitlines()
  assert len(lines) == 1
  assert lines[0].startswith("error: ")


def test_ctrl_c_is_one_clear_line_and_help_names_the_arms(monkeypatch, capsys):
  told = []
  monkeypatch.setattr(command.tyro, "cli", lambda *a, description, **k: told.append(description))

  def stop(trial):
    raise KeyboardInterrupt

  monkeypatch.setattr(command, "run", stop)
  with pytest.raises(SystemExit) as stopped:
    command.main()
  assert stopped.value.code == 130
  assert capsys.readouterr().err == "stopped: the same command goes on from here.\n"
  assert all(name in told[0] for name in arms.ARMS)


def test_a_missing_extra_is_one_clear_line(monkeypatch, capsys):
  monkeypatch.setitem(sys.modules, "tyro", None)
  monkeypatch.delitem(sys.modules, "gq_optax.trial.command")
  monkeypatch.delattr(gq_optax.trial, "command")
  monkeypatch.setattr(sys, "path", list(sys.path))
  with pytest.raises(SystemExit):
    trial_main.main()
  assert capsys.readouterr().err == "error: tyro is missing: pip install 'gq_optax[trial]'\n"
