# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The tables and plots of docs/evidence/example-scarcity.md, and the picture of the first page.

    python -m benchmarks.pages.examples_page

Example scarcity beside group scarcity and what else is done about rare examples, out of the
results of `benchmarks.rarity.rare_kinds`.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro

from benchmarks.harness.tables import markdown
from benchmarks.pages import markers, plots
from benchmarks.pages.rare_results import (
  BASELINE,
  ORACLE,
  RESULTS,
  Results,
  cell,
  gap,
  hidden_tasks,
  part_of_way,
  read,
  rows_of,
  values,
  worst,
)

PAGE = markers.EVIDENCE / "example-scarcity.md"
START = RESULTS / "start.svg"
FEATURES, OUTPUTS = "example scarcity, features", "example scarcity, outputs"
GROUPS_BY_FEATURES, GROUPS_BY_OUTPUTS = (
  "group scarcity, features, pooled",
  "group scarcity, outputs",
)
SIZES = (256, 1024, 4096)
HIDDEN = (BASELINE, "JTT", GROUPS_BY_FEATURES, FEATURES, ORACLE)
CLASSES = (BASELINE, "class weights", GROUPS_BY_OUTPUTS, OUTPUTS)
RARE = (
  BASELINE,
  "class weights",
  GROUPS_BY_OUTPUTS,
  f"{GROUPS_BY_OUTPUTS}; num_groups=46",
  OUTPUTS,
)
AT_RANDOM = (f"{FEATURES}, dealt at random", f"{OUTPUTS}, dealt at random")


def way(results: Results, arm: str, size: int) -> str:
  """Part of the way from the baseline to the oracle over the hidden tasks."""
  part = part_of_way(results, arm, size)
  if part is None:
    return "-"
  return f"{part[0]:.2f}" + (
    "" if part[1] == len(hidden_tasks(results)[0]) else f" ({part[1]} tasks)"
  )


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
      cells.append(text if own is None else f"{text}, {worst(own)}")
    if set(cells) != {"-"}:
      rows.append([arm, *cells])
  return markdown(rows)


class Shown(NamedTuple):
  """A table for each batch size, and one plot above them."""

  tasks: list[str]
  arms: tuple[str, ...]
  sizes: tuple[int, ...] = (1024,)


def shown(results: Results) -> dict[str, Shown]:
  """What stands between each pair of markers."""
  hidden, _ = hidden_tasks(results)
  noisy = ["LT100, 20 % noise", "LT100, 40 % noise", "hidden5, 20 % noise"]
  by_noise = ("class weights", GROUPS_BY_OUTPUTS, GROUPS_BY_FEATURES, OUTPUTS, FEATURES)
  return {
    "hidden": Shown(hidden[:3], HIDDEN, SIZES[1:]),
    "hidden mnist": Shown(hidden[3:], HIDDEN, SIZES[1:]),
    "classes": Shown(["LT100", "balanced"], CLASSES, SIZES),
    "balanced features": Shown(["balanced"], (BASELINE, GROUPS_BY_FEATURES, FEATURES), SIZES),
    "noise": Shown(noisy, (BASELINE, *by_noise)),
    "images": Shown(["CIFAR-10 LT100"], RARE),
    "texts and tables": Shown(["Reuters", "page_blocks0"], RARE, (512,)),
    "controls": Shown(["LT100", "hidden5", "hidden7"], (OUTPUTS, FEATURES, *AT_RANDOM)),
  }


def panels(results: Results, what: Shown) -> dict[str, dict[str, plots.Interval]]:
  """Differences to the baseline: a panel for each task and batch size."""
  found = {}
  for size in what.sizes:
    for task in what.tasks:
      title = task if len(what.sizes) == 1 else f"{task}, B={size}"
      rows = rows_of({arm: gap(results, task, size, arm, "mean") for arm in what.arms})
      if rows:
        found[title] = rows
  return found


def plot_of(name: str) -> Path:
  """Where the plot of a pair of markers lies."""
  return RESULTS / f"examples_{name.replace(' ', '_')}.svg"


def bodies(results: Results) -> dict[str, str]:
  """What stands between each pair of markers."""
  tells = "Part of the way to weights that know every kind, against batch size"
  found = {"way": markers.exhibit(plot_of("way"), tells, way_table(results))}
  for name, what in shown(results).items():
    tables = [task_table(results, what.tasks, what.arms, b) for b in what.sizes]
    tells = f"Difference to {BASELINE} in points with 95 % interval: {', '.join(what.tasks)}"
    found[name] = markers.exhibit(plot_of(name), tells, *tables)
  return found


def start(results: Results) -> dict[str, dict[str, list[plots.Point]]]:
  """The picture of the first page: rare classes against batch size, plain and ours."""
  names = {"plain SGD with momentum": BASELINE, "example scarcity, no class counts": OUTPUTS}
  names["class weights, told the class counts"] = "class weights"
  titles = {"mean": "mean recall over classes, %", "worst": "recall of the worst class, %"}
  line = lambda arm, figure: [
    (float(b), float(np.mean(values(results["LT100", b, arm], figure)))) for b in SIZES
  ]
  return {t: {n: line(a, figure) for n, a in names.items()} for figure, t in titles.items()}


def main() -> None:
  """Writes plots and tables."""
  results = read(RESULTS)
  ways = {a: [(b, part_of_way(results, a, b)) for b in SIZES] for a in HIDDEN[1:-1]}
  there = {a: [(float(b), p[0]) for b, p in points if p] for a, points in ways.items()}
  there = {"JTT, which trains twice" if a == "JTT" else a: points for a, points in there.items()}
  plots.lines({"": there}, "batch size", "part of the way", plot_of("way"), SIZES)
  for name, what in shown(results).items():
    if found := panels(results, what):
      plots.dots(found, f"points against {BASELINE}, 95 % interval", plot_of(name))
  told = {"class weights, told the class counts"}
  plots.lines(start(results), "batch size", "", START, SIZES, told)
  markers.fill(PAGE, bodies(results))


if __name__ == "__main__":
  tyro.cli(main)
