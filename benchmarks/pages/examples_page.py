# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The tables and the plot of docs/example-scarcity.md, out of the results of `rare_kinds`.

    python -m benchmarks.pages.examples_page

Example scarcity beside group scarcity and what else is done about rare examples.
"""

from pathlib import Path

import matplotlib.figure
import numpy as np
import tyro

from benchmarks.pages import markers, rarity_page
from benchmarks.pages.rarity_page import BASELINE, ORACLE, Results, cell, values
from gq_optax.trial.tables import markdown

PAGE = markers.DOCS / "example-scarcity.md"
PLOT = markers.RARITY / "example_scarcity.png"
FEATURES, OUTPUTS = "example scarcity, features", "example scarcity, outputs"
GROUPS_BY_FEATURES, GROUPS_BY_OUTPUTS = (
  "group scarcity, features, pooled",
  "group scarcity, outputs",
)
SIZES = (256, 1024, 4096)
HIDDEN = (BASELINE, "JTT", GROUPS_BY_FEATURES, FEATURES, ORACLE)
CLASSES = (BASELINE, "class weights", GROUPS_BY_OUTPUTS, OUTPUTS)
MUON = ("Muon", f"{FEATURES} on Muon", f"{OUTPUTS} on Muon")
AT_RANDOM = (f"{FEATURES}, dealt at random", f"{OUTPUTS}, dealt at random")
SENSITIVE = (f"{FEATURES}; bandwidth=0.2", FEATURES, f"{FEATURES}; bandwidth=0.3")


def way(results: Results, arm: str, size: int) -> str:
  """Part of the way from the baseline to the oracle over the hidden tasks, a ratio of means."""
  tasks, _ = rarity_page.hidden_tasks(results)
  ready = [t for t in tasks if all((t, size, a) in results for a in (arm, BASELINE, ORACLE))]
  if not ready:
    return "-"
  mean = lambda a: np.mean([np.mean(values(results[t, size, a], "mean")) for t in ready])
  part = (mean(arm) - mean(BASELINE)) / (mean(ORACLE) - mean(BASELINE))
  return f"{part:.2f}" + ("" if len(ready) == len(tasks) else f" ({len(ready)} tasks)")


def way_table(results: Results) -> str:
  """One row an arm, one column a batch size."""
  rows = [["part of the way to weights that know every kind", *(f"B={b}" for b in SIZES)]]
  rows += [[arm, *(way(results, arm, b) for b in SIZES)] for arm in HIDDEN[1:-1]]
  return markdown(rows)


def task_table(results: Results, tasks: list[str], arms: tuple[str, ...], size: int) -> str:
  """Mean accuracy over kinds, the difference to SGDM, and the worst kind; one row an arm."""
  rows = [[f"B={size}: mean (difference to {BASELINE}), worst kind", *tasks]]
  for arm in arms:
    cells = []
    for task in tasks:
      own, base = results.get((task, size, arm)), results.get((task, size, BASELINE))
      text = cell(own, base, "mean")
      cells.append(text if own is None else f"{text}, {np.mean(values(own, 'worst')):.0f}")
    if set(cells) != {"-"}:
      rows.append([arm, *cells])
  return markdown(rows)


def bodies(results: Results) -> dict[str, str]:
  """What stands between each pair of markers."""
  hidden, _ = rarity_page.hidden_tasks(results)
  of = lambda tasks, arms, sizes: "\n\n".join(task_table(results, tasks, arms, b) for b in sizes)
  halves = (hidden[:3], hidden[3:])
  return {
    "way": way_table(results),
    "hidden": "\n\n".join(of(tasks, HIDDEN, SIZES[1:]) for tasks in halves),
    "classes": of(["LT100", "balanced"], CLASSES, SIZES),
    "balanced features": of(["balanced"], (BASELINE, GROUPS_BY_FEATURES, FEATURES), SIZES),
    "noise": of(
      ["LT100, 20 % noise", "LT100, 40 % noise", "hidden5, 20 % noise"],
      (BASELINE, "class weights", GROUPS_BY_OUTPUTS, GROUPS_BY_FEATURES, OUTPUTS, FEATURES),
      (1024,),
    ),
    "controls": of(["LT100", "hidden5", "hidden7"], (OUTPUTS, FEATURES, *AT_RANDOM), (1024,)),
    "bandwidth": of(["hidden5", "hidden7", "mnist hidden6"], SENSITIVE, (1024,)),
    "muon": of(["LT100", "hidden5", "hidden7", "mnist hidden6"], (BASELINE, *MUON), (1024,)),
  }


def plot(results: Results, path: Path) -> None:
  """The way to the oracle, and long-tailed classes, at each batch size."""
  figure = matplotlib.figure.Figure(figsize=(9, 3.4), layout="constrained")
  left, right = figure.subplots(1, 2)
  for arm, color in zip(HIDDEN[1:-1], ("#e69f00", "#0072b2", "#d55e00"), strict=True):
    points = [(b, way(results, arm, b)) for b in SIZES]
    there = [(b, float(text.split(" ")[0])) for b, text in points if text != "-"]
    left.plot(*zip(*there, strict=True), "o-", color=color, label=arm)
  left.axhline(0.0, color="#555555", linewidth=0.8)
  left.set_title("hidden kinds: part of the way to weights that know them", fontsize=9)
  for arm, color in zip(CLASSES, ("#555555", "#009e73", "#0072b2", "#d55e00"), strict=True):
    there = [
      (b, float(np.mean(values(results["LT100", b, arm], "mean"))))
      for b in SIZES
      if ("LT100", b, arm) in results
    ]
    right.plot(*zip(*there, strict=True), "o-", color=color, label=arm)
  right.set_title("long-tailed classes: mean accuracy, %", fontsize=9)
  for ax in (left, right):
    ax.set_xscale("log", base=2)
    ax.set_xticks(SIZES, [str(b) for b in SIZES])
    ax.set_xlabel("batch size")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(fontsize=7)
  figure.savefig(path, dpi=130)


def main() -> None:
  """Writes tables and plot."""
  results = rarity_page.read(rarity_page.RESULTS)
  page = PAGE.read_text()
  for name, body in bodies(results).items():
    page = markers.between_markers(page, body, name)
  PAGE.write_text(page)
  plot(results, PLOT)


if __name__ == "__main__":
  tyro.cli(main)
