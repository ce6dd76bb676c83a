# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Steps of one length, weight decay, and the cells that several processes share."""

import math
import threading
import time

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gq_optax as gq
from benchmarks.harness import arms, optimizers, records, training
from benchmarks.rarity import optimizers as script
from benchmarks.rarity import shared_folder, why

PARAMS = {"w": jnp.array([[1.0, -2.0], [0.5, 4.0]]), "b": jnp.array([3.0]), "z": jnp.ones(2)}
GRADIENT = {"w": jnp.array([[3.0, 0.0], [0.0, 4.0]]), "b": jnp.array([-0.01]), "z": jnp.zeros(2)}


def two_updates(name: str, weight_decay: float | None) -> list:
  """Of the gradient, and of its opposite, at the rates .1 and .05."""
  tx = optimizers.base(name, jnp.float32(0.1), 2, weight_decay=weight_decay)

  @jax.jit
  def run():
    first, state = tx.update(GRADIENT, tx.init(PARAMS), PARAMS)
    return first, tx.update(jax.tree.map(jnp.negative, GRADIENT), state, PARAMS)[0]

  return run()


def test_every_array_takes_a_step_of_one_length():
  first, second = two_updates("scaled", None)
  np.testing.assert_allclose(first["w"], [[-0.12, 0.0], [0.0, -0.16]], rtol=1e-6)  # of 2 * .1
  np.testing.assert_allclose(first["b"], [0.1], rtol=1e-6)
  np.testing.assert_array_equal(first["z"], 0.0)
  # The momentum is .9 g - g, a tenth as long; the step is half as long since the rate is.
  np.testing.assert_allclose(second["w"], [[0.06, 0.0], [0.0, 0.08]], rtol=1e-5)
  np.testing.assert_allclose(second["b"], [-0.05], rtol=1e-5)


@pytest.mark.standard_promotion  # the optimizers of optax
@pytest.mark.parametrize("shape", [(8, 6), (2, 2, 2, 6)])
def test_muon_makes_kernels_of_convolutions_orthogonal_too(shape):
  tx = optimizers.base("muon", jnp.float32(0.1), 10)
  params = {"kernel": jnp.zeros(shape), "bias": jnp.zeros(6), "heads": jnp.zeros((4, 2, 3))}
  draw = lambda p: jax.random.normal(jax.random.key(p.size), p.shape)
  updates, _ = tx.update(jax.tree.map(draw, params), tx.init(params), params)
  step = np.linalg.svd(updates["kernel"].reshape(8, 6), compute_uv=False)
  assert step.max() < 1.7 * step.min()
  for name in ("bias", "heads"):  # Adam's first step has one length
    np.testing.assert_allclose(jnp.abs(updates[name]), jnp.abs(updates["bias"][0]), rtol=1e-3)
  plain = optax.contrib.muon(0.1)
  if len(shape) == 2:  # what was published
    expected, _ = plain.update(jax.tree.map(draw, params), plain.init(params), params)
    chex.assert_trees_all_close(updates, expected, rtol=1e-5)


@pytest.mark.standard_promotion  # the optimizers of optax
@pytest.mark.parametrize("name", sorted(optimizers.DECAYS))
def test_weight_decay_takes_a_part_off_whatever_the_gradient(name):
  plain, decayed = two_updates(name, 0.0), two_updates(name, 0.5)
  for rate, a, b in zip((0.1, 0.05), plain, decayed, strict=True):
    for leaf, parameter in PARAMS.items():
      np.testing.assert_allclose(b[leaf] - a[leaf], -rate * 0.5 * parameter, rtol=1e-4, atol=1e-6)
  default = two_updates(name, None)  # what was published
  same = two_updates(name, 0.01 if name == "adamw" else 0.0)
  for a, b in zip(jax.tree.leaves(default), jax.tree.leaves(same), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-6)


def test_arms_with_a_weight_decay_by_name():
  assert arms.find("Muon, decay 0.01") == arms.Arm(optimizer="muon", weight_decay=0.01)
  found = arms.find("group scarcity, outputs; num_groups=7 on SGDM, one length, decay 1e-3")
  groups = arms.Groups("output gradients", num_groups=7)
  assert found == arms.Arm(weights="groups", groups=groups, optimizer="scaled", weight_decay=1e-3)
  assert arms.is_plain(arms.find("SGDM, decay 0.1"))
  assert training.first_arm(arms.find("JTT, decay 0.1")).weight_decay == 0.1
  for name in ("Muon, decay x", "Muon, decay -1", "Muon, decay nan"):
    with pytest.raises(ValueError, match="the decay of an arm must be a number from 0, but"):
      arms.find(name)
  with pytest.raises(ValueError, match="an arm with a decay must be on one of sgd, .*, but 'lamb'"):
    arms.find("class weights on LAMB, decay 0.1")
  with pytest.raises(ValueError, match="weight_decay must be None for 'sam', but"):
    optimizers.base("sam", jnp.float32(0.1), 2, weight_decay=0.1)


def test_several_share_the_cells_and_none_is_run_twice(tmp_path, monkeypatch):
  monkeypatch.setattr(shared_folder, "WAIT", 0.001)
  ran, cells = [], [*range(0, 40, 2), *range(1, 40, 2)]  # an odd one needs the even one before it

  def run(cell, first):
    ran.append(cell)
    assert (first is None) == (cell % 2 == 0)
    assert first is None or first["cell"] == cell - 1
    if cell == 4:
      raise RuntimeError("of a cell")
    time.sleep(0.001)
    return {"cell": cell}

  def work(_=None):
    needs = lambda cell: cell - 1 if cell % 2 else None
    return shared_folder.share(
      cells, tmp_path, lambda row: row["cell"], needs, run, lambda row: None
    )

  threads = [threading.Thread(target=work) for _ in range(3)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  there = sorted(row["cell"] for row in shared_folder.read(tmp_path))
  assert there == [cell for cell in range(40) if cell not in (4, 5)]
  assert sorted(cell for cell in ran if cell != 4) == there
  assert len(list(tmp_path.glob("*.jsonl"))) > 1
  assert work() == [4, 5]


@pytest.fixture
def small_task(monkeypatch):
  """Three blobs in two labels, one of them rare, in place of every task."""
  rng = np.random.default_rng(0)
  kinds = np.repeat([0, 1, 2], [40, 20, 4])
  x = jnp.asarray(np.eye(3)[kinds] * 3 + rng.normal(0, 1, (64, 3)), jnp.float32)
  kinds = jnp.asarray(kinds, jnp.int32)
  split = (x, kinds % 2, kinds)
  task = training.Task(x, kinds % 2, kinds, split, split)
  monkeypatch.setattr(script, "made", lambda _: (task, 2, np.array([0, 1, 0])))


@pytest.mark.standard_promotion  # the networks of flax
@pytest.mark.usefixtures("small_task")
def test_the_script_tunes_and_goes_on_where_it_stopped(tmp_path, monkeypatch):
  monkeypatch.setitem(optimizers.RATES, "scaled", (0.1, 0.2, 0.4))
  argv = [
    *("--task-names", "hidden7", "--batch-sizes", "16", "--seeds", "3", "--tiny"),
    *("--arm-names", "class weights on SGDM, one length", "--out", str(tmp_path)),
  ]
  lines: list[str] = []
  assert script.main(argv, lines.append) == 0
  plain, weighted = shared_folder.read(tmp_path)
  assert (plain["arm"], weighted["arm"]) == (
    "SGDM, one length",
    "class weights on SGDM, one length",
  )
  tried = {
    part["weight_decay"]: part["validation_by_rate"] for part in plain["validation_by_decay"]
  }
  grid = optimizers.DECAYS["scaled"]
  assert tuple(tried)[: len(grid)] == grid
  best = max(tried, key=lambda decay: max(tried[decay].values()))
  assert plain["weight_decay"] == best
  assert best < max(tried) or len(tried) == script.MAX_DECAYS
  assert tried[best][str(plain["rate"])] == max(tried[best].values())
  assert [part["weight_decay"] for part in weighted["validation_by_decay"]] == [best]
  assert weighted["options"]["weight_decay"] == best
  assert len(plain["test"]) == len(plain["validation"]) == 3
  # The first seeds of the final runs are those that were tuned with.
  assert np.mean(plain["validation"][:2]) == pytest.approx(max(tried[best].values()))
  assert math.isfinite(weighted["test"][0]["mean"])

  assert script.main(argv, lines.append) == 0
  assert len(lines) == 2
  (file,) = tmp_path.glob("*.jsonl")
  file.write_text(file.read_text()[:-5])  # torn while it was written
  assert script.main(argv, lines.append) == 0
  assert len(lines) == 3
  again = shared_folder.read(tmp_path)[1]
  assert again["test"] == weighted["test"]


@pytest.mark.standard_promotion  # the networks of flax
@pytest.mark.usefixtures("small_task")
def test_curves_of_a_run(tmp_path):
  names = ("SGDM", "example scarcity, features")
  for name in names:
    cell = script.Cell("hidden7", 16, name, 5, 1)._asdict()
    records.append(tmp_path / "0.jsonl", {**cell, "rate": 0.1, "weight_decay": 0.0})
  argv = [
    *("--task-names", "hidden7", "--batch-size", "16", "--optimizers", "SGDM", "--seeds", "2"),
    *("--results", str(tmp_path), "--out", str(tmp_path / "why"), "--tiny"),
  ]
  lines: list[str] = []
  assert why.main(argv, lines.append) == 0
  assert why.main(argv, lines.append) == 0
  assert len(lines) == 2
  plain, weighted = shared_folder.read(tmp_path / "why")
  assert (plain["arm"], weighted["arm"]) == names
  assert plain["rare_kinds"] == [2]
  for row in (plain, weighted):
    assert row["steps"] == [0, 1, 2, 3]
    found = {key: np.array(values) for key, values in row["curves"].items()}
    assert found["step"][0] == pytest.approx(0.1 * found["gradient"][0], rel=1e-3)
    parts = found["gradient, rare"] + found["gradient, frequent"]
    assert (found["gradient"] <= parts * (1 + 1e-3)).all()
    assert found["training loss, frequent"][-1] < found["training loss, frequent"][0]
    for key in ("training accuracy, rare", "validation accuracy, frequent"):
      assert ((found[key] >= 0) & (found[key] <= 1)).all()
  # All starts from the same variables, and the first weights are of the batch alone.
  first = [row["curves"]["training loss, rare"][0] for row in (plain, weighted)]
  assert first[0] == pytest.approx(first[1])
  with pytest.raises(ValueError, match="results must hold the rate of every arm, but 'Muon' on"):
    why.main([*argv, "--optimizers", "Muon"])


def test_cells_of_the_stages():
  first = script.cells(script.parse(["--stage", "1"]))
  assert len(first) == 5 * 4 + 4 * (3 * 4 + 2 * 3)
  assert [script.plain_of(cell) is None for cell in first] == [True] * 20 + [False] * 72
  assert all(script.optimizer_of(cell.arm) in script.PLAIN for cell in first)
  second = script.parse(["--stage", "2", "--arm-names", "JTT on Muon", "JTT"])
  found = script.cells(second)
  assert len(found) == 7 * 2 * 4  # the plain ones too
  assert {cell.seeds for cell in found} == {10}
  assert script.plain_of(found[-1]) == found[-1]._replace(arm=script.optimizer_of(found[-1].arm))


@pytest.mark.standard_promotion  # the optimizers of optax
def test_gradients_of_groups_are_made_orthogonal_before_they_are_added():
  rng = np.random.default_rng(0)
  c = {"w": rng.normal(size=(3, 6, 4)), "b": rng.normal(size=(3, 4))}
  c = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), c)
  summed = jax.jit(optimizers.orthogonal)
  found = summed(gq.GroupGradients(c, jnp.array([1, 2, 0])))
  u, _, v = np.linalg.svd(np.asarray(c["w"]), full_matrices=False)
  # Muon's polynomial leaves singular values between .7 and 1.2.
  np.testing.assert_allclose(found["w"], ((u @ v)[0] + 2 * (u @ v)[1]) / 3, atol=0.15)
  np.testing.assert_allclose(found["b"], (c["b"][0] + 2 * c["b"][1]) / 3, rtol=1e-6)
  longer = c | {"w": c["w"] * jnp.array([100.0, 1.0, 1.0])[:, None, None]}
  again = summed(gq.GroupGradients(longer, jnp.array([1, 2, 0])))
  np.testing.assert_allclose(again["w"], found["w"], atol=1e-5)  # how long a gradient is
