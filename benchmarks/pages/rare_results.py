# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The results of `benchmarks.rarity.rare_kinds`, read, and as the cells of tables and plots."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import records
from benchmarks.harness.protocol import paired
from benchmarks.pages import markers, plots

RESULTS = markers.RARITY
BASELINE, ORACLE = "SGDM", "true kinds (oracle)"

Results = dict[tuple[str, int, str], dict[str, Any]]


def read(folder: Path) -> Results:
  """All results by task (with the number of updates, if that was fixed), batch size and arm."""
  results: Results = {}
  for path in sorted(folder.glob("*.jsonl")):
    for run in records.read(path):
      results[run["task"] + run.get("length", ""), run["batch_size"], run["arm"]] = run
  return results


def values(result: dict[str, Any], figure: str) -> list[float]:
  """One figure of the test split for every seed, in percent."""
  return [100 * test[figure] for test in result["test"]]


def cell(result: dict[str, Any] | None, baseline: dict[str, Any] | None, figure: str) -> str:
  """Mean and standard deviation over seeds, and the paired difference with its interval."""
  if result is None:
    return "-"
  own = values(result, figure)
  text = f"{np.mean(own):.1f} ± {np.std(own, ddof=1):.1f}"
  if baseline is None or baseline is result or len(own) != len(baseline["test"]):
    return text
  gap = paired(own, values(baseline, figure))
  return f"{text} ({gap['mean']:+.1f} [{gap['low']:+.1f}, {gap['high']:+.1f}])"


def gap(results: Results, task: str, size: int, arm: str, figure: str) -> plots.Interval | None:
  """The paired difference to the baseline in points, with its interval; None if it was not run."""
  own, base = results.get((task, size, arm)), results.get((task, size, BASELINE))
  if own is None or base is None or own is base or len(own["test"]) != len(base["test"]):
    return None
  found = paired(values(own, figure), values(base, figure))
  return found["mean"], found["low"], found["high"]


def worst(result: dict[str, Any]) -> str:
  """The kind with the lowest recall, in percent."""
  return f"{np.mean(values(result, 'worst')):.0f}"


def rows_of(rows: dict[str, plots.Interval | None]) -> dict[str, plots.Interval]:
  """Those rows of a panel that were run."""
  return {label: interval for label, interval in rows.items() if interval is not None}


def hidden_tasks(results: Results) -> tuple[list[str], list[int]]:
  """The tasks with kinds hidden in classes, without noise, and the batch sizes they were run at."""
  names = sorted({t for t, _, _ in results if re.fullmatch(r"(mnist )?hidden\d", t)})
  return names, sorted({b for t, b, _ in results if t in names})


def part_of_way(results: Results, arm: str, size: int) -> tuple[float, int] | None:
  """How far an arm goes from the baseline to the oracle, and over how many of the hidden tasks.

  A ratio of means: over the tasks where all three were run. None where there is none.
  """
  tasks, _ = hidden_tasks(results)
  ready = [t for t in tasks if all((t, size, a) in results for a in (arm, BASELINE, ORACLE))]
  if not ready:
    return None
  mean = lambda a: np.mean([np.mean(values(results[t, size, a], "mean")) for t in ready])
  part = (mean(arm) - mean(BASELINE)) / (mean(ORACLE) - mean(BASELINE))
  return float(part), len(ready)
