# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The demo: its data, its protocol, its sentence, and a run of a few steps."""

import json
import math

import matplotlib.image
import numpy as np
import pytest

from benchmarks.demo import __main__ as demo
from benchmarks.harness import protocol

# The demo is a program of its own and runs under JAX's usual rules.
pytestmark = pytest.mark.standard_promotion


def test_splits_share_no_image_and_only_training_has_a_tail():
  rng = np.random.default_rng(0)
  images, labels = rng.random((5000, 6)).astype(np.float32), np.repeat(np.arange(10), 500)
  setup = demo.Setup()
  splits = demo.make_splits(images, labels, 3, setup)
  rows = [{row.tobytes() for row in np.asarray(split.images)} for split in splits]
  assert sum(map(len, rows)) == len(set.union(*rows)) == sum(len(s.labels) for s in splits)
  training, validation, test = (np.bincount(split.labels).tolist() for split in splits)
  assert training == [350, 226, 146, 95, 61, 39, 25, 16, 10, 7]
  assert (validation, test) == ([50] * 10, [100] * 10)
  other = demo.make_splits(images, labels, 4, setup)
  assert not np.array_equal(other[0].images, splits[0].images)


@pytest.mark.parametrize(
  ("optimum", "best", "inside"), [(0.1, 0.1, True), (0.8, 0.8, True), (1e-3, 0.00625, False)]
)
def test_the_grid_grows_until_the_best_rate_lies_inside(optimum, best, inside):
  score = lambda rate: -abs(math.log(rate / optimum))
  rate, scores, found = protocol.tune(score, (0.05, 0.1, 0.2), max_extensions=3)
  assert (rate, found) == (pytest.approx(best), inside)
  assert list(scores) == sorted(scores)
  assert (min(scores) < rate < max(scores)) == inside


def test_a_diverged_rate_is_never_the_best():
  rate, _, inside = protocol.tune(lambda r: math.nan if r > 0.15 else r, (0.05, 0.1, 0.2), 3)
  assert (rate, inside) == (0.1, True)


def test_paired_differences():
  better = protocol.paired([0.52, 0.63, 0.74], [0.5, 0.6, 0.7])
  assert better["mean"] == pytest.approx(0.03)
  # Student's t with two degrees of freedom: 4.303 standard errors of .01 / sqrt(3).
  assert better["high"] - better["low"] == pytest.approx(2 * 4.3027 * 0.01 / 3**0.5, rel=1e-4)
  assert better["verdict"] == "better"
  assert protocol.paired([0.5, 0.6, 0.7], [0.52, 0.63, 0.74])["verdict"] == "worse"
  assert protocol.paired([0.5, 0.6, 0.7], [0.4, 0.7, 0.7])["verdict"] == "not shown to differ"


def test_a_few_steps_of_everything(tmp_path, capsys):
  report = demo.main(seeds=2, out=tmp_path, quick=True)
  assert json.loads((tmp_path / "demo.json").read_text())["sentence"] == report["sentence"]
  assert matplotlib.image.imread(tmp_path / "demo.png").ndim == 3
  shown = capsys.readouterr().out
  for name, arm in report["arms"].items():
    assert name in shown
    recall = np.asarray(arm["recall_per_class"])
    assert recall.shape == (2, 10)
    np.testing.assert_allclose(recall.mean(1), arm["balanced_accuracy"])
    assert (recall >= 0).all()
    assert (recall <= 1).all()
    assert arm["step_cost"] > 0
  assert report["arms"]["SGDM"]["step_cost"] == 1.0
  assert report["sentence"] in shown
  with pytest.raises(ValueError, match="seeds must be at least 2"):
    demo.main(seeds=1, out=tmp_path)
