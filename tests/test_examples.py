# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The examples run, learn, fill their queues and compile their step once."""

import csv
import re

import jax
import matplotlib.image
import numpy as np
import pytest

from examples import (
  batchnorm_cnn,
  batchnorm_nnx,
  linen_loop,
  monitoring,
  nnx_loop,
  random_keys,
  rare_classes_linen,
  rare_classes_nnx,
  rare_groups_linen,
  rare_groups_nnx,
  text_transformer,
  two_processes,
)


@pytest.fixture
def compiled_once(caplog):
  """Runs an example, whose step is compiled once unless it is said otherwise."""

  def run(main, step="train_step", times=1, **options):
    caplog.clear()
    with jax.log_compiles():
      figures = main(**options)
    assert sum(r.startswith(f"Compiling jit({step})") for r in caplog.messages) == times
    return figures

  return run


def drawn(path):
  return matplotlib.image.imread(path)[..., :3].std() > 0.05


@pytest.mark.parametrize(
  ("main", "step"),
  [
    (linen_loop.main, "train_step"),
    pytest.param(nnx_loop.main, "train_step", marks=pytest.mark.slow),
    pytest.param(linen_loop.main, "plain_step", marks=pytest.mark.slow),
  ],
)
def test_example(main, step, compiled_once, capsys):
  options = {"plain": True} if step == "plain_step" else {}
  figures = compiled_once(main, step, epochs=10, batch_size=128, **options)
  losses = [float(loss) for loss in re.findall(r"loss (\S+)", capsys.readouterr().out)]
  assert len(losses) == 10
  assert np.isfinite(losses).all()
  assert losses[0] > losses[1] > losses[2]  # three steps each
  assert losses[-1] < losses[0] / 2

  assert figures["queued"] > 8  # the longest queue of the examples
  assert figures["skipped"] == 0
  assert figures["mean_weight"] != 1.0  # so the queue is in use
  assert figures["group_count/0"] + figures["group_count/1"] == 128
  assert 0.5 < figures["balanced_accuracy"] <= 1.0  # guessing gives 0.1
  assert 0.5 < figures["accuracy"] <= 1.0


@pytest.mark.parametrize(
  "example", [rare_classes_linen, pytest.param(rare_classes_nnx, marks=pytest.mark.slow)]
)
def test_weights_for_rare_classes(example, compiled_once):
  figures = compiled_once(example.main, epochs=10)
  assert 20 < figures["effective_examples"] < 128
  assert figures["balanced_accuracy"] > example.main(epochs=10, plain=True)["balanced_accuracy"]


@pytest.mark.slow
def test_rare_groups_with_linen(compiled_once, tmp_path):
  pictures = tmp_path / "groups.png", tmp_path / "examples.png"
  options = {"picture": pictures[0], "rarest": pictures[1]}
  figures = compiled_once(rare_groups_linen.main, epochs=20, **options)
  assert figures["loss"] < 0.3
  assert figures["groups_seen"] > 5
  assert 20 < figures["effective_examples"] < 128
  assert figures["rarest_tenth"] > 0.15
  assert figures["mean_of_kinds"] > 0.7
  assert all(map(drawn, pictures))


@pytest.mark.slow
def test_rare_groups_with_nnx(compiled_once):
  figures = compiled_once(rare_groups_nnx.main, epochs=20)
  assert figures["loss"] < 0.3
  assert figures["queued"] == figures["grouped_steps"] == 40  # both scarcities saw every step
  assert figures["mean_weight"] != 1.0
  assert figures["mean_of_kinds"] > 0.7


@pytest.mark.slow
def test_every_example_has_a_dropout_mask_of_its_own():
  assert random_keys.main(batch_size=6) == {"linen": 6, "nnx": 6}


@pytest.mark.slow
def test_batchnorm_in_nnx_and_a_restored_state(tmp_path, compiled_once):
  # Once, and once for arrays that Orbax has bound to their device.
  figures = compiled_once(batchnorm_nnx.main, times=2, epochs=6, path=tmp_path)
  assert figures["queued"] == 18  # those before the checkpoint among them
  assert figures["loss"] < figures["middle"]
  assert figures["accuracy"] > 0.5


@pytest.mark.slow
def test_batchnorm_and_dropout(tmp_path):
  means = batchnorm_cnn.main(epochs=2, picture=tmp_path / "recalls.png")
  assert set(means) == {"plain", "group scarcity", "group scarcity and queue"}
  assert all(0.1 <= mean <= 1.0 for mean in means.values())
  assert drawn(tmp_path / "recalls.png")


@pytest.mark.slow
@pytest.mark.standard_promotion  # Adam, and attention of flax
def test_text(tmp_path):
  means = text_transformer.main(epochs=8, picture=tmp_path / "recalls.png")
  assert means["group scarcity"] > means["plain"] > 1 / 7  # guessing
  assert drawn(tmp_path / "recalls.png")


@pytest.mark.slow
def test_monitoring(tmp_path):
  rows = monitoring.main(epochs=4, tensorboard=True, out=tmp_path)
  with (tmp_path / "figures.csv").open() as file:
    written = list(csv.DictReader(file))
  assert [int(row.pop("epoch")) for row in written] == [0, 1, 2, 3]
  assert [{k: float(v) for k, v in row.items()} for row in written] == rows
  assert rows[3]["loss"] < rows[0]["loss"]
  assert rows[3]["norm_ratio"] == pytest.approx(1.0, abs=1e-5)  # the norm is matched
  assert {"cosine", "group_share/19", "effective_examples"} <= set(rows[0])
  assert matplotlib.image.imread(tmp_path / "figures.png").ndim == 3
  assert list(tmp_path.glob("events.*"))


@pytest.mark.slow
def test_two_processes_one_of_them_killed(tmp_path):
  sizes = {"steps": 12, "save_every": 4}
  two_processes.run(tmp_path / "one", 1, **sizes)
  two_processes.run(tmp_path / "two", 2, **sizes)
  killed = two_processes.run(tmp_path / "killed", 2, **sizes, kill_at=6)
  assert 6 <= killed < 12
  steps = (tmp_path / "killed" / "losses.jsonl").read_text().count("\n")
  assert steps > 12  # what came after the last checkpoint was done again
  reference = two_processes.losses(tmp_path / "one")
  assert sorted(reference) == list(range(1, 13))
  assert reference[12] < 0.8 * reference[1]
  arrays = {}
  for name in ("one", "two", "killed"):
    found = two_processes.losses(tmp_path / name)
    assert found == pytest.approx(reference, rel=1e-5)
    arrays[name] = dict(np.load(tmp_path / name / "params.npz"))
  for key, value in arrays["two"].items():
    np.testing.assert_array_equal(arrays["killed"][key], value)  # nothing is lost
    np.testing.assert_allclose(value, arrays["one"][key], rtol=1e-4, atol=1e-5)
