# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The peers benchmark: what it says without its extra, and, with it, that all ways agree."""

import importlib.util
import json

import pytest

from benchmarks.cost import peers, step_cost
from benchmarks.harness import models

pytestmark = pytest.mark.standard_promotion
TINY = {
  "mlp": step_cost.Workload("tiny", models.MLP((4,), 3), 16, 4, (5,), 3),
  "encoder": step_cost.Workload("words", models.Encoder(1, 8, 2, 11, 3), 8, 4, (6,), 3, 11),
}
installed = all(importlib.util.find_spec(n) for n in ("torch", "opacus", "torchjd"))
needs_peers = pytest.mark.skipif(not installed, reason="the peers extra is not installed")


def test_a_missing_extra_is_one_clear_line():
  with pytest.raises(SystemExit, match=r"no_such_module is missing: pip install .*peers"):
    peers.load("no_such_module")


def test_an_unknown_workload():
  with pytest.raises(ValueError, match="workloads must be among .* but 'nothing' was found"):
    peers.main(("nothing",))


def test_what_was_measured_is_not_measured_again(tmp_path, monkeypatch, capsys):
  measured = []

  def measure(name, rounds):
    measured.append(name)
    return {"title": name, "steps": {"plain": {"ratio": 1.0}, f"only {name}": {"ratio": 2.345}}}

  monkeypatch.setattr(peers, "measure", measure)
  out = tmp_path / "peers.json"
  peers.main(("mlp",), out=out)
  assert list(peers.main(("mlp", "cnn"), out=out)) == ["mlp", "cnn"]
  assert measured == ["mlp", "cnn"]
  assert list(json.loads(out.read_text())) == ["mlp", "cnn"]
  rows = [row.split() for row in capsys.readouterr().out.splitlines()]
  assert ["only", "cnn", "-", "2.35"] in rows


@needs_peers
@pytest.mark.parametrize("name", ["mlp", "encoder"])
@pytest.mark.filterwarnings("ignore:Full backward hook is firing")  # of Opacus, on token ids
def test_all_ways_yield_groups_whose_mean_is_the_plain_gradient(name, monkeypatch):
  monkeypatch.setattr(step_cost, "WORKLOADS", TINY)
  torch = pytest.importorskip("torch")
  ways = peers.make_ways(name)
  plain = ways["plain"]()
  assert len(ways) == 7
  for way in ways.keys() - {"plain", "plain again"}:
    ways[way]()  # nothing is carried over from one call to the next
    for groups, gradient in zip(ways[way](), plain, strict=True):
      assert groups.shape == (4, *gradient.shape)
      torch.testing.assert_close(groups.mean(0), gradient, rtol=1e-4, atol=1e-6)


@needs_peers
def test_the_networks_have_as_many_parameters():
  count = lambda name: sum(p.numel() for p in peers.make_model(name).parameters())
  assert count("cnn") == 188_810
  assert count("mlp") == 269_322
  assert count("reuters") == 5_144_110
