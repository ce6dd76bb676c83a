# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The script for real networks at a tiny size: it chooses, resumes exactly, and weighs as told."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.harness import records
from benchmarks.rarity import frozen_encoder, images, network_runs, real_networks
from gq_optax.trial.own_data import Data

# A program of its own, under JAX's usual rules.
pytestmark = pytest.mark.standard_promotion


def make_source() -> Data:
  """Noise with a colour for each class."""
  rng = np.random.RandomState(0)
  y = np.repeat(np.arange(10), [6, 5, 4, 3, 3, 2, 2, 2, 2, 2])
  y_test = np.tile(np.arange(10), 4)
  noise = lambda y: rng.randint(128, size=(len(y), 8, 8, 3))
  x = lambda y: (noise(y) + 12 * y[:, None, None, None]).astype(np.uint8)
  return Data(x(y), y, x(y_test), y_test)


def test_a_packed_file_is_the_set(tmp_path):
  source = make_source()
  images.pack(tmp_path / "set.npz", source)
  for found, value in zip(images.unpack(tmp_path / "set.npz"), source, strict=True):
    np.testing.assert_array_equal(found, value)
    assert found.dtype == value.dtype


def test_crops_are_shifted_and_mirrored_views():
  task = images.make(make_source(), "hidden")
  rows = jnp.arange(31)
  found = np.asarray(jax.jit(images.augmented)(task, rows, jax.random.key(0)))
  views = set()
  for row, x in enumerate(found):
    views_of = {
      (i, j, step): np.asarray(images.normalise(task, task.padded[row, i : i + 8, j : j + 8]))
      for i in range(9)
      for j in range(9)
      for step in (1, -1)
    }
    (view,) = [v for v, y in views_of.items() if np.allclose(y[:, :: v[2]], x, atol=1e-5)]
    views.add(view)
  assert len(views) > 20
  assert {v[2] for v in views} == {1, -1}
  assert len({v[0] for v in views}) > 6


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  """All tiny runs of one optimizer on one task without a stop, and the packed data."""
  folder = tmp_path_factory.mktemp("networks")
  images.pack(folder / "set.npz", make_source())
  kept = {"tiny": True, "optimizers": ("SGDM",), "tasks": ("LT100",), "data": folder / "set.npz"}
  return real_networks.main(**kept, minutes=10, out=folder / "rows.jsonl"), kept


def test_every_run_is_there_and_the_choices_are_made_on_validation(whole, capsys):
  rows, kept = whole
  by_stage = {s: [r for r in rows if r["stage"] == s] for s in real_networks.STAGES}
  assert {s: len(found) for s, found in by_stage.items()} == {"rate": 8, "final": 8, "long": 4}
  assert not any("test" in row for row in by_stage["rate"])
  for row in by_stage["final"]:
    own = {r["rate"]: r["validation"]["mean"] for r in by_stage["rate"] if r["way"] == row["way"]}
    assert own[row["rate"]] == max(own.values())
  mean = lambda way: np.mean(
    [r["validation"]["mean"] for r in by_stage["final"] if r["way"] == way]
  )
  (other,) = {r["way"] for r in by_stage["long"]} - {"SGDM"}
  assert mean(other) == max(mean(w) for w in real_networks.WAYS["LT100"] if w != "SGDM")
  # Nothing is run again, and the table tells of each way.
  out = kept["data"].with_name("rows.jsonl")
  assert real_networks.main(**kept, out=out) == rows
  text = out.with_suffix(".md").read_text()
  assert text in capsys.readouterr().out
  assert text.count("| LT100 | SGDM |") == 6


def test_a_run_that_stops_after_each_chunk_ends_the_same(whole, tmp_path):
  rows, kept = whole
  final = next(r for r in rows if r["stage"] == "final" and "example" in r["way"])
  out = tmp_path / "rows.jsonl"
  for row in rows[: rows.index(final)]:
    records.append(out, row)
  before = len(records.read(out))
  again = real_networks.main(**kept, minutes=0, out=out)
  assert (len(again), out.with_suffix(".npz").exists()) == (before, True)
  again = real_networks.main(**kept, minutes=0, out=out)
  assert (len(again), out.with_suffix(".npz").exists()) == (before + 1, False)
  assert again[-1]["resumed_after"] == 1
  for key in ("validation", "test", "way", "rate", "seed"):
    assert again[-1][key] == final[key]


def test_a_state_on_disk_is_restored_bit_by_bit_for_its_own_run_alone(tmp_path):
  job = real_networks.Job("final", "LT100", "SGDM", "SGDM", 0.1, 0, 2, True)
  carry = {"w": jnp.arange(3.0), "n": jnp.int32(7)}
  new = jax.tree.map(jnp.zeros_like, carry)
  path = tmp_path / "state.npz"
  real_networks.save(path, job, 1, carry)
  epoch, found = real_networks.restore(path, job, new)
  assert (epoch, found["w"].tolist(), int(found["n"])) == (1, [0, 1, 2], 7)
  assert real_networks.restore(path, job._replace(seed=1), new) == (0, new)


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
  shifted = logits - logits.max(1, keepdims=True)
  return np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(labels)), labels]


def test_each_way_has_its_own_loss_and_one_queue():
  task = images.make(make_source(), "hidden")
  job = real_networks.Job("rate", "hidden", "Muon", "SGDM", 0.1, 0, 1, True)
  sizes = real_networks.sizes_of(job, real_networks.TINY)
  plan, key, rows = network_runs.plan(0, 0.1, 0, 1), jax.random.key(1), jnp.arange(0, 30, 3)

  @jax.jit
  def losses(ways):
    carry = network_runs.start(sizes, task, plan)
    x = images.augmented(task, rows, key)
    logits = network_runs.network(sizes).apply(carry.params, x)[0]
    loss = lambda way: network_runs.mean_loss(
      sizes, task, plan._replace(way=way), carry.watch, carry.params, rows, key
    )
    return *jax.vmap(loss)(ways), logits

  found, watch, logits = losses(jnp.arange(5))
  logits, labels, kinds = (np.asarray(a) for a in (logits, task.labels[rows], task.kinds[rows]))
  each = cross_entropy(logits, labels)
  by = lambda groups: np.mean([each[groups == g].mean() for g in np.unique(groups)])
  prior = np.bincount(np.asarray(task.labels)) / len(task.labels)
  adjusted = cross_entropy(logits + np.log(prior), labels).mean()
  expected = [each.mean(), by(labels), adjusted, found[3], by(kinds)]
  np.testing.assert_allclose(found, expected, rtol=1e-4)
  assert len(set(np.round(found, 4).tolist())) == 5
  np.testing.assert_array_equal(watch.first.count, 1)
  # Convolutions are made orthogonal too; scales and biases are not.
  carry = jax.eval_shape(lambda: network_runs.start(sizes, task, plan))
  momentum = carry.opt_state.inner_states["muon"].inner_state[0].mu
  assert {leaf.ndim for leaf in jax.tree.leaves(momentum)} == {2, 4}


@pytest.mark.slow
def test_a_frozen_encoder_never_sees_the_classes_that_it_encodes():
  source = make_source()
  found, accuracy = frozen_encoder.encode(source, epochs=1, batch_size=16)
  assert (found.x_train.shape, found.x_test.shape) == ((10, 128), (20, 128))
  assert found.x_train.dtype == np.float32
  np.testing.assert_array_equal(np.bincount(found.y_test), 4)
  assert accuracy.keys() == {"validation", "test"}
  unseen = (source.y_train >= 5)[:, None, None, None]
  other, same = frozen_encoder.encode(
    source._replace(x_train=np.where(unseen, 0, source.x_train)), epochs=1, batch_size=16
  )
  assert same == accuracy
  np.testing.assert_array_equal(other.x_test, found.x_test)
  assert not np.array_equal(other.x_train, found.x_train)


@pytest.mark.slow
def test_every_optimizer_and_task(whole, tmp_path):
  kept = whole[1] | {"tasks": images.TASKS, "optimizers": tuple(network_runs.RATES)}
  rows = real_networks.main(**kept, minutes=10, out=tmp_path / "rows.jsonl")
  assert len(rows) == 2 * (8 + 8 + 10 + 10) + 4
