# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Tables and plots out of the files that `benchmarks.rarity.rare_kinds` wrote.

    python -m benchmarks.pages.rarity_page

Writes docs/evidence/group-scarcity.md, and docs/evidence/all-tasks.md with every arm on every task.
"""

import json
import re
from typing import Any

import numpy as np
import tyro

from benchmarks.cost import scarcity_cost
from benchmarks.harness import arms
from benchmarks.harness.protocol import paired
from benchmarks.harness.tables import markdown, quartiles
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

PAGE, TASKS_PAGE = markers.EVIDENCE / "group-scarcity.md", markers.EVIDENCE / "all-tasks.md"

_OUTPUTS, _POOLED = "group scarcity, outputs", "group scarcity, features, pooled"
MORE = {"Reuters": (("macro_f1", "macro-F1"), ("accuracy", "accuracy"))}
SHOWN = (BASELINE, "Adam", "class weights", "JTT", _OUTPUTS, _POOLED)  # against batch size


def sizes_of(results: Results, task: str) -> list[int]:
  """The batch sizes at which a task was run."""
  return sorted({b for t, b, _ in results if t == task})


def arms_of(results: Results, task: str) -> list[str]:
  """The arms that were run on a task. Variants of an arm stand on the page of questions."""
  ran = {a for t, _, a in results if t == task}
  names = [a for a in arms.ARMS if a in ran]
  return names + sorted(a for a in ran if task in MORE and ";" in a)


def task_table(results: Results, task: str, figure: str = "mean", label: str = "") -> str:
  """One row per arm and one column per batch size: mean, difference, and the worst kind."""
  sizes = sizes_of(results, task)
  lines = [[label or f"{task}: mean recall, worst kind", *(f"B={b}" for b in sizes)]]
  for name in arms_of(results, task):
    cells = []
    for b in sizes:
      own = results.get((task, b, name))
      text = cell(own, results.get((task, b, BASELINE)), figure)
      cells.append(f"{text}, {worst(own)}" if own is not None and figure == "mean" else text)
    lines.append([name, *cells])
  return markdown(lines)


def task_tables(results: Results, task: str) -> list[str]:
  """The table of a task, and one for each further figure that it has."""
  more = [
    task_table(results, task, figure, f"{task}: {label}") for figure, label in MORE.get(task, ())
  ]
  return [task_table(results, task), *more]


def task_plot(results: Results, task: str) -> dict[str, dict[str, plots.Interval]]:
  """Differences to the baseline, a panel for each batch size."""
  names = arms_of(results, task)
  panel = lambda b: rows_of({a: gap(results, task, b, a, "mean") for a in names})
  return {f"B={b}": panel(b) for b in sizes_of(results, task)}


def order(results: Results) -> list[str]:
  """The tasks in the order of the page."""
  names = list(dict.fromkeys(t for t, _, _ in results))
  return sorted(names, key=lambda t: (not t.startswith("hidden"), t != "LT100", t))


def task_file(task: str) -> str:
  """The name of a task's plot."""
  return "task_" + re.sub(r"\W+", "_", task.replace("%", "pct")) + ".svg"


def closed_table(results: Results) -> str:
  """How much of the way from the baseline to the oracle each arm goes, over all hidden tasks."""
  sizes = hidden_tasks(results)[1]
  lines = [["part of the way from SGDM to the oracle", *(f"B={b}" for b in sizes)]]
  for name in arms.ARMS:
    parts = [part_of_way(results, name, b) for b in sizes]
    cells = ["-" if p is None else f"{p[0]:+.2f} ({p[1]} tasks)" for p in parts]
    if set(cells) != {"-"} and name not in (BASELINE, ORACLE):
      lines.append([name, *cells])
  return markdown(lines)


def closed_plot(results: Results) -> dict[str, dict[str, float]]:
  """The same for arms that were run on all hidden tasks."""
  hidden, sizes = hidden_tasks(results)
  panels: dict[str, dict[str, float]] = {}
  for b in sizes:
    parts = {a: part_of_way(results, a, b) for a in arms.ARMS if a not in (BASELINE, ORACLE)}
    panels[f"B={b}"] = {a: p[0] for a, p in parts.items() if p and p[1] == len(hidden)}
  return panels


def rivals(results: Results, task: str, b: int) -> tuple[str, plots.Interval]:
  """The best arm that is neither ours nor the oracle, and how far pooled features are ahead."""
  own = results[task, b, _POOLED]
  others = {
    a: np.mean(values(results[task, b, a], "mean"))
    for a in arms.ARMS
    if (task, b, a) in results
    and a != ORACLE
    and not a.startswith(("group scarcity", "example scarcity"))
  }
  best = max(others, key=lambda a: others[a])
  found = paired(values(own, "mean"), values(results[task, b, best], "mean"))
  return best, (found["mean"], found["low"], found["high"])


def rivals_table(results: Results) -> str:
  """Pooled features against the best arm that is neither ours nor the oracle, on hidden tasks."""
  hidden, sizes = hidden_tasks(results)
  lines = [["pooled features against the best other arm", *(f"B={b}" for b in sizes)]]
  for task in hidden:
    cells = []
    for b in sizes:
      best, (mean, low, high) = rivals(results, task, b)
      cells.append(f"{best}: {mean:+.1f} [{low:+.1f}, {high:+.1f}]")
    lines.append([task, *cells])
  return markdown(lines)


def rates_note(results: Results) -> str:
  """Whether every learning rate lies inside its grid."""
  outside = [key for key, result in results.items() if not result["rate_inside_grid"]]
  if not outside:
    return f"The best learning rate lies inside its grid in all {len(results)} cells."
  names = "; ".join(f"{t}, B={b}, {a}" for t, b, a in outside)
  return f"The best learning rate lies on the edge of its grid for: {names}."


def against_batch_size(results: Results, task: str) -> dict[str, list[plots.Point]]:
  """Mean recall over kinds at each batch size, one line an arm."""
  found = {}
  for name in SHOWN:
    there = [b for b in sizes_of(results, task) if (task, b, name) in results]
    if there:
      found[name] = [
        (float(b), float(np.mean(values(results[task, b, name], "mean")))) for b in there
      ]
  return found


def batch_table(results: Results, tasks: tuple[str, ...]) -> str:
  """The figures of that plot."""
  sizes = sizes_of(results, tasks[0])
  lines = [["mean recall over kinds", *(f"B={b}" for b in sizes)]]
  for task in tasks:
    for name, points in against_batch_size(results, task).items():
      by_size = dict(points)
      cells = [f"{by_size[b]:.1f}" if b in by_size else "-" for b in sizes]
      lines.append([f"{task}, {name}", *cells])
  return markdown(lines)


def read_costs() -> dict[str, Any]:
  """What `benchmarks.cost.scarcity_cost` measured."""
  return json.loads((markers.COST / "scarcity_cost.json").read_text())


def cost_table(results: dict[str, Any]) -> str:
  """Median and quartiles of the ratio to a plain gradient."""
  lines = [["ratio to a plain gradient (quartiles)", *results]]
  for way in scarcity_cost.WAYS:
    lines.append([way, *(quartiles(workload[way], 2) for workload in results.values())])
  return markdown(lines)


def cost_plot(results: dict[str, Any]) -> dict[str, dict[str, plots.Interval]]:
  """The same as dots with quartiles."""
  dot = lambda timed: (timed["ratio"], timed["ratio_low"], timed["ratio_high"])
  return {
    name: {w: dot(ways[w]) for w in list(scarcity_cost.WAYS)[1:]} for name, ways in results.items()
  }


def bodies(results: Results) -> dict[str, str]:
  """What stands between each pair of markers of the page."""
  plot = lambda name: RESULTS / f"{name}.svg"
  return {
    "way": markers.exhibit(
      plot("way"), "Part of the way from SGDM to the oracle, a panel for each batch size",
      closed_table(results),
    ),
    "rivals": markers.exhibit(
      plot("rivals"), "Pooled features against the best other arm, points with 95 % interval",
      rivals_table(results),
    ),
    "batch sizes": markers.exhibit(
      plot("group_batch_sizes"), "Mean recall over kinds against batch size, two tasks",
      batch_table(results, ("LT100", "balanced")),
    ),
    "costs": markers.exhibit(
      markers.COST / "scarcity_cost.svg", "Time of a gradient with weights, against a plain one",
      cost_table(read_costs()),
    ),
    "rates": rates_note(results),
  }  # fmt: skip


def tables(results: Results) -> str:
  """Every arm on every task: a plot, then its tables."""
  parts = []
  for task in order(results):
    tells = f"{task}: difference to {BASELINE} in points, with 95 % interval"
    shown = markers.exhibit(RESULTS / task_file(task), tells, *task_tables(results, task))
    parts.append(f"## {task}\n\n{shown}")
  return "\n\n".join(parts)


def main() -> None:
  """Writes plots and tables."""
  found = read(RESULTS)
  if not found:
    raise FileNotFoundError(f"results must hold files of rare_kinds, but {RESULTS} does not.")
  points = f"points against {BASELINE}, 95 % interval"
  for task in order(found):
    plots.dots(task_plot(found, task), points, RESULTS / task_file(task))
  plots.bars(closed_plot(found), "part of the way to the oracle", RESULTS / "way.svg", 0.0)
  hidden, sizes = hidden_tasks(found)
  panels = {f"B={b}": {t: rivals(found, t, b)[1] for t in hidden} for b in sizes}
  plots.dots(panels, "points against the best other arm, 95 % interval", RESULTS / "rivals.svg")
  titles = {"LT100": "a long tail (LT100)", "balanced": "balanced classes"}
  series = {title: against_batch_size(found, task) for task, title in titles.items()}
  sizes = sizes_of(found, "LT100")
  dashed = set(SHOWN) - {BASELINE, _OUTPUTS, _POOLED}
  plots.lines(
    series, "batch size", "mean recall, %", RESULTS / "group_batch_sizes.svg", sizes, dashed
  )
  plots.dots(
    cost_plot(read_costs()), "time of a plain gradient", markers.COST / "scarcity_cost.svg", 1.0
  )
  markers.fill(PAGE, bodies(found))
  markers.fill(TASKS_PAGE, {"tables": tables(found)})


if __name__ == "__main__":
  tyro.cli(main)
