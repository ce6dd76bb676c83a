# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""A/B trials: the user's own arrays and model, resumption, one clear line, verdicts by hand."""

import dataclasses
import json
import math
import sys

import jax
import jax.numpy as jnp
import matplotlib.image
import numpy as np
import optax
import pytest

import gq_optax.trial
from gq_optax.trial import __main__ as trial_main
from gq_optax.trial import arms, command, networks, optimizers, records, report, training
from gq_optax.trial.runs import Trial

pytestmark = pytest.mark.standard_promotion  # the networks of flax, and optax

MODULES = """
import flax.linen as nn
from flax import nnx

class Linen(nn.Module):
  num_classes: int

  @nn.compact
  def __call__(self, x):
    features = nn.tanh(nn.Dense(5)(x.reshape(len(x), -1)))
    return nn.Dense(self.num_classes)(features), features

class Norm(nn.Module):
  @nn.compact
  def __call__(self, x):
    return nn.BatchNorm(use_running_average=False)(x)

class Own(nnx.Module):
  def __init__(self, num_classes, rngs):
    self.layer = nnx.Linear(2, num_classes, rngs=rngs)

  def __call__(self, x):
    return self.layer(x)

class Dropping(Own):
  def __init__(self, num_classes, rngs):
    super().__init__(num_classes, rngs)
    self.dropout = nnx.Dropout(0.5, rngs=rngs)

linen = Linen
norm = lambda num_classes: Norm()
own = lambda num_classes, rngs: Own(num_classes, rngs)
dropping = lambda num_classes, rngs: Dropping(num_classes, rngs)
nothing = lambda num_classes: 3
number = 3
"""


@pytest.fixture
def own_module(tmp_path, monkeypatch):
  (tmp_path / "own_networks.py").write_text(MODULES)
  monkeypatch.syspath_prepend(tmp_path)
  yield "own_networks"
  sys.modules.pop("own_networks", None)
  networks.make.cache_clear()


def write_npz(path, number=160, classes=2):
  rng = np.random.default_rng(0)
  y = np.arange(number) % classes
  x = rng.normal(size=(number, 2)) + 4.0 * y[:, None]
  np.savez(path, x_train=x, y_train=y, x_test=x[:80] + 0.1, y_test=y[:80])
  return path


def small(tmp_path, **changes):
  trial = Trial(
    npz=write_npz(tmp_path / "own.npz"),
    model="logistic",
    arm_names=("SGDM", "GQ, K=B/64"),
    batch_sizes=(128,),
    rates=(0.1, 0.2, 0.4),
    seeds=3,
    tuning_seeds=2,
    epochs=3,
    evaluations=2,
    side_by_side=3,
    cost_rounds=2,
    out=tmp_path / "out",
  )
  return dataclasses.replace(trial, **changes)


def test_a_trial_interrupted_and_resumed(tmp_path, monkeypatch, own_module):
  trial = small(tmp_path)
  train, calls = training.side_by_side, []

  def interrupted(*args):
    calls.append(args)
    if len(calls) == 3:
      raise KeyboardInterrupt
    return train(*args)

  monkeypatch.setattr(training, "side_by_side", interrupted)
  with pytest.raises(KeyboardInterrupt):
    command.run(trial)
  kept = {path: path.stat().st_mtime_ns for path in (trial.out / "runs").glob("*.json")}
  assert len(kept) == 6
  whole = command.run(trial)
  assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
  runs = [json.loads(path.read_text()) for path in (trial.out / "runs").glob("*.json")]
  assert {run["arm"] for run in runs} == {"SGDM", "GQ, K=B/64"}
  assert all(run["environment"]["commit"] for run in runs)
  assert [step for step, _ in runs[0]["curve"]] == [1, 3]

  # Nothing is run again; a run that is lost comes back as it was.
  calls.clear()
  assert command.run(trial)["results"] == whole["results"]
  assert not calls
  lost = next(iter(kept))
  before = json.loads(lost.read_text())
  lost.unlink()
  command.run(trial)
  assert len(calls) == 1
  assert json.loads(lost.read_text()) == before
  assert len(calls[0][3]) == 3  # one shape, one compilation

  first = whole["results"][0]
  assert len(first["test"]) == 3
  assert first["rate"] == max(
    map(float, first["validation_by_rate"]),
    key=lambda r: first["validation_by_rate"][f"{r:.6g}"],
  )
  assert matplotlib.image.imread(trial.out / "report.png").ndim == 3
  text = (trial.out / "report.md").read_text()
  assert "GQ, K=B/64 against SGDM" in text
  assert f"| SGDM | {report.values(first, 'mean').mean():.1f}" in text
  page = (trial.out / "report.html").read_text()
  assert 'src="data:image/png;base64,' in page
  assert "http" not in page
  assert page.count("<table>") == 5

  with pytest.raises(ValueError, match="out must be another folder: .*epochs was 3, now 4"):
    command.run(dataclasses.replace(trial, epochs=4))


@pytest.mark.parametrize("name", ["linen", "own"])
def test_the_users_own_model(tmp_path, own_module, name):
  trial = small(
    tmp_path, model=f"{own_module}:{name}", arm_names=("SGDM",), side_by_side=1, cost_rounds=0
  )
  summary = command.run(dataclasses.replace(trial, fixed_rate=0.3, seeds=1, tuning_seeds=1))
  (result,) = summary["results"]
  assert result["rate"] == 0.3
  assert result["rate_inside_grid"] is None
  assert result["test"][0]["mean"] > 0.9
  assert "one seed" not in report.sentences(summary)  # the baseline alone has no verdict
  assert "No arm" not in (trial.out / "report.md").read_text()


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"npz": "missing.npz"}, "path must be an .npz file, but nothing was found at"),
    ({"arm_names": ("SGD",)}, "the arm must be one of SGDM; .*; but 'SGD' was found"),
    ({"data": "minst", "npz": None}, "minst"),
    ({"batch_sizes": (256,)}, "batch_sizes must be 1 to the 160 training examples, but 256"),
    ({"model": "mpl"}, "model must be mlp, logistic, cnn or module:function, but 'mpl'"),
    ({"model": "no_such_module:f"}, "model 'no_such_module:f' must be importable from here"),
    ({"model": "own_networks:missing"}, "must name a function of own_networks, but there is none"),
    ({"model": "own_networks:number"}, "must name a function of own_networks"),
    ({"model": "own_networks:nothing"}, "must return a Linen module, .* but int was found"),
    ({"model": "own_networks:norm"}, "model must have parameters alone, but batch_stats"),
    ({"model": "own_networks:dropping"}, "model must have parameters alone, but Rng"),
    ({"model": "cnn"}, "model must not be a convolutional one for examples of shape"),
    ({"noise": "other"}, "noise must be symmetric or asymmetric, but 'other'"),
    ({"figure": "f1"}, "figure must be one of mean, accuracy, macro_f1, but 'f1'"),
    ({"tuning_seeds": 4}, "tuning_seeds must be 1 to seeds=3, but 4"),
    ({"fixed_rate": math.inf}, "a learning rate must be positive and finite, but inf"),
    ({"rates": (0.1, -1.0)}, "a learning rate must be positive and finite, but -1"),
    ({"arm_names": ()}, "a trial must have an arm"),
  ],
)
def test_bad_input_is_one_clear_line(tmp_path, own_module, capsys, monkeypatch, changes, message):
  trial = small(tmp_path, **changes)
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    command.run(trial)
  assert not (trial.out / "runs").exists()  # found before anything was begun
  monkeypatch.setattr(command.tyro, "cli", lambda *args, **kwargs: trial)
  with pytest.raises(SystemExit) as stopped:
    command.main()
  assert stopped.value.code == 2
  lines = capsys.readouterr().err.strip().splitlines()
  assert len(lines) == 1
  assert lines[0].startswith("error: ")


def test_one_class_only_is_one_clear_line(tmp_path):
  trial = small(tmp_path)
  write_npz(tmp_path / "own.npz", classes=1)
  with pytest.raises(ValueError, match="y_train must hold more than one class"):
    command.run(trial)


def result(arm, tests, curves, batch_size=64, rate=0.1):
  return {
    "arm": arm,
    "batch_size": batch_size,
    "rate": rate,
    "rate_inside_grid": True,
    "validation_by_rate": {"0.1": 0.5},
    "validation": tests,
    "test": [{"mean": t, "worst": t / 2} for t in tests],
    "curve_steps": [10, 20],
    "curves_at_rate": curves,
  }


def test_verdicts_and_steps_by_hand():
  low = [[0.1, 0.5], [0.6, 0.7], [0.1, 0.2]]
  summary = {
    "trial": {
      "seeds": 3,
      "target": None,
      "hidden": None,
      "fixed_rate": None,
      "evaluations": 2,
      "figure": "mean",
    },
    "results": [
      result("SGDM", [0.5, 0.6, 0.7], low),
      result("A", [0.52, 0.63, 0.74], [[0.6, 0.7]] * 3),
      result("B", [0.45, 0.54, 0.64], low),
      result("C", [0.4, 0.7, 0.7], [[0.1, 0.2]] * 3),
    ],
    "cost": {"64": {"A": {"median": 0.5, "ratio": 2, "ratio_low": 1.9, "ratio_high": 2.1}}},
  }
  # The mean of what the baseline ends on, less .01.
  assert report.target_of(summary) == pytest.approx(0.457)
  found = {r["arm"]: report.verdict(r, summary["results"][0], "mean") for r in summary["results"]}
  assert (found["A"], found["B"], found["C"]) == ("better", "worse", "no difference shown")
  assert report.quality_table(summary)[2][1] == "63.0 ± 11.0 (+3.0 [+0.5, +5.5], better)"
  assert [row[1] for row in report.target_table(summary)[1:]] == [
    "20 steps",
    "10 steps, 5 s",
    "20 steps",
    "not reached",
  ]
  assert report.steps_to(summary["results"][0], 0.5) == 20
  assert report.cost_table(summary)[2][1] == "500.00 ms, 2.00 (1.90, 2.10)"
  assert report.sentences(summary)[0] == "A against SGDM: better at B = 64."


@pytest.mark.parametrize("name", sorted(optimizers.RATES))
def test_every_optimizer_learns(name):
  tx = optimizers.base(name, jnp.float32(0.1), 50)
  loss = lambda params: jnp.sum(jnp.square(params["w"] - 1.0))

  def step(carry, _):
    params, state = carry
    again = lambda params, _: jax.grad(loss)(params)
    updates, state = tx.update(jax.grad(loss)(params), state, params, grad_fn=again)
    return (optax.apply_updates(params, updates), state), None

  params = {"w": jnp.full((2, 2), 3.0)}
  first = loss(params)
  (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), None, length=50)
  assert loss(params) < 0.5 * first


def test_shuffled_weights_are_the_same_weights():
  g = jnp.array([[1.0, -2.0, 3.0], [0.1, 0.0, 9.0]])
  mean, std = jnp.ones_like(g), jnp.full_like(g, 0.7)
  found = optimizers.shuffled(g, mean, std)
  own = optimizers.gq.delta_rho(g, mean, std, optimizers.RHO)
  np.testing.assert_array_equal(np.sort(found.ravel()), np.sort(own.ravel()))
  assert not np.array_equal(found, own)


def test_clusters_of_the_paper():
  assert arms.num_clusters(arms.find("GQ, K=B/64"), 512) == 8
  assert arms.num_clusters(arms.find("GQ, K=B/64, random groups"), 32) == 1
  assert arms.num_clusters(arms.find("GQ, K=1"), 512) == 1


def test_runs_are_kept_line_by_line_and_a_torn_line_is_left_out(tmp_path):
  path = tmp_path / "folder" / "runs.jsonl"
  assert records.read(path) == []
  records.append(path, {"seed": 0, "name": "a\nb"})
  with path.open("a") as file:
    file.write('{"seed": 1')
  assert records.read(path) == [{"seed": 0, "name": "a\nb"}]
  records.append(path, {"seed": 2})
  assert [run["seed"] for run in records.read(path)] == [0, 2]


def test_a_missing_extra_is_one_clear_line(monkeypatch, capsys):
  monkeypatch.setitem(sys.modules, "tyro", None)
  monkeypatch.delitem(sys.modules, "gq_optax.trial.command")
  monkeypatch.delattr(gq_optax.trial, "command")
  monkeypatch.setattr(sys, "path", list(sys.path))
  with pytest.raises(SystemExit):
    trial_main.main()
  assert capsys.readouterr().err == "error: tyro is missing: pip install 'gq_optax[trial]'\n"
