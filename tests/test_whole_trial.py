# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""A whole trial of the default arms on real digits."""

import numpy as np
import pytest

from gq_optax.trial import arms, command, data, tasks
from gq_optax.trial.runs import Trial

pytestmark = pytest.mark.standard_promotion  # the networks of flax, and optax


@pytest.mark.slow
@pytest.mark.parametrize("kinds", [False, True])
def test_a_whole_trial_on_real_digits(tmp_path, kinds):
  """The default arms; with 16 examples of a digit, or with digits hidden in two labels."""
  digits = data.load("digits")
  if kinds:
    rows = tasks.long_tail(digits.y_train, 10.0, 100, seed=0)
    hide = lambda y: tasks.superclasses(y, 5)
    arrays = {"x_train": digits.x_train[rows], "y_train": hide(digits.y_train[rows])}
    arrays |= {"x_test": digits.x_test, "y_test": hide(digits.y_test)}
    arrays |= {"kinds_train": digits.y_train[rows], "kinds_test": digits.y_test}
  else:
    rare = np.flatnonzero(digits.y_train == 8)[16:]
    arrays = {k: np.delete(getattr(digits, k), rare, axis=0) for k in ("x_train", "y_train")}
  np.savez(tmp_path / "own.npz", **arrays)
  trial = Trial(
    npz=tmp_path / "own.npz",
    batch_sizes=(64,),
    seeds=5,
    epochs=10,
    evaluations=2,
    cost_rounds=2,
    out=tmp_path / "out",
  )
  summary = command.run(trial)
  names = {r["arm"].partition(" on ")[0] for r in summary["results"]}
  assert names == {*arms.DEFAULT, *([arms.ORACLE] if kinds else [])}
  assert all(r["figure"] > 0.6 for r in summary["results"])
  assert len(summary["counts"]["test"]) == 10
  assert ("rare" in (tmp_path / "out" / "report.html").read_text()) or kinds
  assert (tmp_path / "out" / "rare.png").exists() != kinds
