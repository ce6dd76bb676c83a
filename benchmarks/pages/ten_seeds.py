# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Ten seeds at two batch sizes: what weights and other ideas add to the best plain optimizer.

The tables of stage 2 of `benchmarks.rarity.optimizers`, for `benchmarks.pages.optimizers_page`.
"""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import records
from benchmarks.harness.protocol import paired
from benchmarks.harness.tables import markdown
from benchmarks.pages import markers, plots
from benchmarks.pages.rare_results import ORACLE, values
from benchmarks.rarity import optimizers

RESULTS = markers.RARITY / "optimizers"
SIZES = (1024, 4096)
OURS = "example scarcity, features"
IDEAS = (OURS, "Delta_rho", "orthogonal groups, K=B/64")
STRONG = ("Muon", "SGDM, one length")
NONE = "equal weights"
CLASSES = (
  "SGDM", "class weights", "logit adjustment", "example scarcity, outputs", "Muon",
  "class weights on Muon", "logit adjustment on Muon", "example scarcity, outputs on Muon",
  "group scarcity, outputs on Muon",
)  # fmt: skip
Rows = dict[tuple[str, int, str], dict[str, Any]]  # by task, batch size and arm


def read(stage: int = 2) -> Rows:
  """All rows of a stage."""
  found = records.read(RESULTS / f"stage_{stage}.jsonl")
  return {(row["task"], row["batch_size"], row["arm"]): row for row in found}


def show(gap: plots.Interval | None) -> str:
  """A difference and its interval."""
  return f"{gap[0]:+.1f} [{gap[1]:+.1f}, {gap[2]:+.1f}]" if gap else "-"


def cell(mean: float, gap: plots.Interval | None, worst: float) -> str:
  """Mean over kinds, the difference if there is one, and the worst kind."""
  return f"{mean:.1f}{f' ({show(gap)})' if gap else ''}, {worst:.0f}"


def interval(points: np.ndarray) -> plots.Interval:
  """The mean over seeds and its 95 % interval."""
  found = paired(points, 0.0 * points)
  return found["mean"], found["low"], found["high"]


def difference(rows: Rows, task: str, size: int, arm: str, to: str) -> np.ndarray | None:
  """That of each seed to another arm, in points; None if the arm was not run."""
  row = rows.get((task, size, arm))
  if row is None:
    return None
  return np.subtract(values(row, "mean"), values(rows[task, size, to], "mean"))


def idea_gaps(rows: Rows, size: int) -> dict[str, dict[str, plots.Interval]]:
  """The difference to Muon, a panel for each hidden task, and one for their mean."""
  panels: dict[str, dict[str, plots.Interval]] = {}
  for idea in IDEAS:
    found = {
      task: d
      for task in optimizers.HIDDEN
      if (d := difference(rows, task, size, f"{idea} on Muon", "Muon")) is not None
    }
    if len(found) == len(optimizers.HIDDEN):
      found["mean over tasks"] = np.mean(list(found.values()), axis=0)
    for task, d in found.items():
      panels.setdefault(task, {})[idea] = interval(d)
  order = [*optimizers.HIDDEN, "mean over tasks"]
  return {task: panels[task] for task in order if task in panels}


def idea_table(rows: Rows, size: int) -> str:
  """One row a task, one column an idea."""
  table = [[f"difference to Muon, B={size}", *IDEAS]]
  for task, found in idea_gaps(rows, size).items():
    table.append([task, *(show(found.get(idea)) for idea in IDEAS)])
  return markdown(table)


def ways(rows: Rows, size: int) -> dict[str, dict[str, float]]:
  """The part of the way from the best plain optimizer to the best oracle, six tasks together.

  Both ends are chosen on validation, for each task. Returns it by optimizer and weights.
  """
  mean = lambda task, arm: float(np.mean(values(rows[task, size, arm], "mean")))
  best = lambda task, arms: max(arms, key=lambda a: np.mean(rows[task, size, a]["validation"]))
  first = {t: best(t, STRONG) for t in optimizers.HIDDEN}
  last = {t: best(t, [optimizers.on(ORACLE, o) for o in STRONG]) for t in optimizers.HIDDEN}
  gain = lambda arms: sum(mean(t, arms[t]) - mean(t, first[t]) for t in optimizers.HIDDEN)
  found: dict[str, dict[str, float]] = {}
  for optimizer in STRONG:
    names = {NONE: optimizer} | {w: optimizers.on(w, optimizer) for w in (OURS, ORACLE)}
    found[f"{optimizer}, B={size}"] = {
      weights: gain(dict.fromkeys(optimizers.HIDDEN, arm)) / gain(last)
      for weights, arm in names.items()
    }
  return found


def all_ways(rows: Rows) -> dict[str, dict[str, float]]:
  """`ways` at both batch sizes."""
  return {name: part for size in SIZES for name, part in ways(rows, size).items()}


def way_table(rows: Rows) -> str:
  """One row a kind of weights, one column an optimizer at a batch size."""
  found = all_ways(rows)
  table = [["part of the way, six tasks", *found]]
  for weights in (NONE, OURS, ORACLE):
    table.append([weights, *(f"{part[weights]:+.2f}" for part in found.values())])
  return markdown(table)


def class_gaps(rows: Rows) -> dict[str, dict[str, plots.Interval]]:
  """LT100: the difference of every arm to Muon, a panel for each batch size."""
  return {
    f"LT100, B={size}": {
      arm: interval(d)
      for arm in CLASSES
      if arm != "Muon" and (d := difference(rows, "LT100", size, arm, "Muon")) is not None
    }
    for size in SIZES
  }


def class_table(rows: Rows) -> str:
  """LT100: mean over classes, the difference to Muon, and the worst class."""
  table, gaps = [["LT100", *(f"B={size}" for size in SIZES)]], class_gaps(rows)
  for arm in CLASSES:
    cells = []
    for size in SIZES:
      row = rows["LT100", size, arm]
      mean, worst = (float(np.mean(values(row, figure))) for figure in ("mean", "worst"))
      cells.append(cell(mean, gaps[f"LT100, B={size}"].get(arm), worst))
    table.append([arm, *cells])
  return markdown(table)


def plot_of(name: str) -> Path:
  """Where a plot lies."""
  return RESULTS / f"ten_seeds_{name}.svg"


def bodies() -> dict[str, str]:
  """What stands between the markers of these tables."""
  rows = read()
  against = "Difference to Muon in points with 95 % interval"
  found = {
    f"ideas {size}": markers.exhibit(
      plot_of(f"ideas_{size}"), f"{against}, B={size}", idea_table(rows, size)
    )
    for size in SIZES
  }
  way = "Part of the way from the best plain optimizer to the best oracle, six tasks, ten seeds"
  found["six tasks"] = markers.exhibit(plot_of("way"), way, way_table(rows))
  found["LT100, ten seeds"] = markers.exhibit(plot_of("LT100"), against, class_table(rows))
  return found


def draw() -> None:
  """The plots."""
  rows, xlabel = read(), "points against Muon, 95 % interval"
  for size in SIZES:
    plots.dots(idea_gaps(rows, size), xlabel, plot_of(f"ideas_{size}"))
  plots.bars(all_ways(rows), "part of the way", plot_of("way"), 0.0)
  plots.dots(class_gaps(rows), xlabel, plot_of("LT100"))
