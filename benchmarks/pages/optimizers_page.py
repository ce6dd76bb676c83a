# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The tables and plots of docs/evidence/optimizers.md: weights by rarity on strong optimizers.

    python -m benchmarks.pages.optimizers_page

Out of the results of `benchmarks.rarity.optimizers` and `benchmarks.rarity.why`.
"""

from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.figure
import numpy as np
import tyro

from benchmarks.harness import records
from benchmarks.harness.arms import RECOMMENDED
from benchmarks.harness.protocol import paired
from benchmarks.harness.recipes import RECIPES
from benchmarks.harness.tables import markdown
from benchmarks.pages import combined, markers, plots, ten_seeds
from benchmarks.pages.rare_results import ORACLE, values
from benchmarks.rarity import optimizers, why

PAGE = markers.EVIDENCE / "optimizers.md"
RESULTS = markers.RARITY / "optimizers"
TASKS = ("hidden5", "hidden7", "mnist hidden6", "LT100", "balanced")
NONE = "equal weights"
Rows = dict[tuple[str, str, int], dict[str, Any]]  # by task, arm and times the epochs
CURVES = {
  "gradient": "length of the mean gradient",
  "step": "length of the step",
  "share of rare": "share of the rare kinds in the gradient",
  "training loss, rare": "training loss of rare kinds",
  "training loss, frequent": "training loss of frequent kinds",
  "validation accuracy, rare": "accuracy of rare kinds",
}
NOISY = ("gradient", "share of rare")  # shown as means of seven points


def read() -> Rows:
  """The rows of B = 1024 with five seeds."""
  paths = (RESULTS / f"stage_{stage}.jsonl" for stage in (1, 3))
  found = [row for path in paths for row in records.read(path)]
  return {(r["task"], r["arm"], r["longer"]): r for r in found if r["batch_size"] == 1024}


def weights_of(task: str) -> tuple[str, ...]:
  """What is tried on each optimizer. Where kinds are classes, class weights are the oracle."""
  return optimizers.CLASSES if RECIPES[task].hidden is None else optimizers.KINDS


def best_plain(rows: Rows, task: str, longer: int = 1) -> str:
  """The optimizer with equal weights that is best on validation."""
  there = [name for name in optimizers.PLAIN if (task, name, longer) in rows]
  return max(there, key=lambda name: np.mean(rows[task, name, longer]["validation"]))


def cell(rows: Rows, task: str, arm: str, longer: int = 1) -> str:
  """Mean over kinds, the difference to the best plain optimizer, and the worst kind."""
  row = rows.get((task, arm, longer))
  if row is None:
    return "-"
  best = best_plain(rows, task, longer)
  text = f"{np.mean(values(row, 'mean')):.1f}"
  if arm != best:
    gap = paired(values(row, "mean"), values(rows[task, best, longer], "mean"))
    text += f" ({gap['mean']:+.1f} [{gap['low']:+.1f}, {gap['high']:+.1f}])"
  return f"{text}, {np.mean(values(row, 'worst')):.0f}"


def task_table(rows: Rows, task: str, longer: int = 1) -> str:
  """One row for each kind of weights, one column an optimizer."""
  there = [name for name in optimizers.PLAIN if (task, name, longer) in rows]
  table = [[f"{task}: weights", *there]]
  for weights in (NONE, *weights_of(task)):
    name = lambda o, w=weights: o if w == NONE else optimizers.on(w, o)
    cells = [cell(rows, task, name(o), longer) for o in there]
    if set(cells) != {"-"}:
      table.append([weights, *cells])
  return markdown(table)


def gaps(rows: Rows, task: str, longer: int = 1) -> dict[str, plots.Interval]:
  """The difference of every arm to the best plain optimizer."""
  if not any((t, times) == (task, longer) for t, _, times in rows):
    return {}
  best, found = best_plain(rows, task, longer), {}
  for (t, arm, times), row in rows.items():
    if (t, times) == (task, longer) and arm != best:
      gap = paired(values(row, "mean"), values(rows[task, best, longer], "mean"))
      found[arm] = gap["mean"], gap["low"], gap["high"]
  order = [optimizers.on(w, o) for w in weights_of(task) for o in optimizers.PLAIN]
  return {arm: found[arm] for arm in (*optimizers.PLAIN, *order) if arm in found}


def ways(rows: Rows) -> tuple[list[str], dict[str, dict[str, float]]]:
  """From the best plain optimizer to the best oracle, over the hidden tasks together.

  Both ends are chosen on validation, for each task.

  Returns:
    The tasks, and for each optimizer the part that each kind of weights goes on it.
  """
  hidden = [t for t in TASKS if (t, optimizers.on(ORACLE, "Muon"), 1) in rows]
  ready = lambda arm: all((t, arm, 1) in rows for t in hidden)
  there = [name for name in optimizers.PLAIN if ready(name)]
  mean = lambda task, arm: float(np.mean(values(rows[task, arm, 1], "mean")))
  first = {t: best_plain(rows, t) for t in hidden}
  oracles = [arm for arm in (optimizers.on(ORACLE, o) for o in there) if ready(arm)]
  on_validation = lambda task, arm: float(np.mean(rows[task, arm, 1]["validation"]))
  length = 0.0
  for task in hidden:
    last = max((on_validation(task, arm), arm) for arm in oracles)[1]
    length += mean(task, last) - mean(task, first[task])
  found: dict[str, dict[str, float]] = {}
  for optimizer in there:
    arms = {w: optimizers.on(w, optimizer) for w in optimizers.KINDS}
    found[optimizer] = {
      weights: sum(mean(t, arm) - mean(t, first[t]) for t in hidden) / length
      for weights, arm in ({NONE: optimizer} | arms).items()
      if ready(arm)
    }
  return hidden, found


def way_table(rows: Rows) -> str:
  """One row for each kind of weights, one column an optimizer."""
  tasks, found = ways(rows)
  table = [["part of the way: " + ", ".join(tasks), *found]]
  for weights in (NONE, *optimizers.KINDS):
    cells = [f"{part[weights]:+.2f}" if weights in part else "-" for part in found.values()]
    table.append([weights, *cells])
  return markdown(table)


def smooth(values: list[float], width: int = 7) -> np.ndarray:
  """The mean over the points around each."""
  ones = np.ones(width)
  return np.convolve(values, ones, "same") / np.convolve(np.ones(len(values)), ones, "same")


def plot_why(curves: list[dict[str, Any]], task: str) -> None:
  """Six figures over the steps, a line for each arm."""
  with matplotlib.rc_context(plots.STYLE):
    figure = matplotlib.figure.Figure(figsize=(9.0, 5.4), layout="constrained")
    axes = figure.subplots(2, 3)
  colors = {"SGDM": "#444444", "SGDM, one length": "#0072b2", "Muon": "#d55e00"}
  for ax, (key, title) in zip(axes.flat, CURVES.items(), strict=True):
    for row in (r for r in curves if r["task"] == task):
      style = "--" if "scarcity" in row["arm"] else "-"
      color = colors[optimizers.optimizer_of(row["arm"])]
      values = smooth(row["curves"][key]) if key in NOISY else row["curves"][key]
      # At the last step the rate is 0.
      ax.plot(row["steps"][:-1], values[:-1], style, color=color, label=row["arm"], linewidth=1.3)
    ax.set_title(title, fontsize=9)
    ax.grid(alpha=0.2)
    if not key.startswith(("share", "validation")):
      ax.set_yscale("log")
  for ax in axes[1]:
    ax.set_xlabel("step")
  handles, labels = axes[0, 0].get_legend_handles_labels()
  figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
  plots.save(figure, plot_of(f"why {task}"))


def why_table(curves: list[dict[str, Any]], task: str) -> str:
  """Means over the first quarter and over the second half; loss and accuracy at the end."""
  head = [
    f"{task}: first quarter / second half", "length of the step", "share of the rare",
    "their training loss, at the end", "their accuracy, at the end",
  ]  # fmt: skip
  table = [head]
  for row in (r for r in curves if r["task"] == task):
    steps, found = np.array(row["steps"]), row["curves"]
    first, second = steps < row["updates"] / 4, steps >= row["updates"] / 2
    both = lambda key, f=found, p=(first, second): " / ".join(
      f"{np.mean(np.array(f[key])[part]):.2g}" for part in p
    )
    ends = [f"{found[key][-1]:.2g}" for key in ("training loss, rare", "validation accuracy, rare")]
    table.append([row["arm"], both("step"), both("share of rare"), *ends])
  return markdown(table)


def longer_ones(rows: Rows) -> list[tuple[str, int]]:
  """Tasks that were trained longer, and how many times."""
  return sorted({(t, times) for t, _, times in rows if times > 1 and gaps(rows, t, times)})


def plot_of(name: str) -> Path:
  """Where a plot lies."""
  return RESULTS / f"{name.replace(' ', '_')}.svg"


def bodies(rows: Rows, curves: list[dict[str, Any]]) -> dict[str, str]:
  """What stands between each pair of markers."""
  tells = "Difference to the best plain optimizer in points with 95 % interval"
  way = "Part of the way from the best plain optimizer to the best oracle"
  found = {"way": markers.exhibit(plot_of("way"), way, way_table(rows))}
  for task in (t for t in TASKS if gaps(rows, t)):
    found[task] = markers.exhibit(plot_of(task), f"{tells}: {task}", task_table(rows, task))
  found |= ten_seeds.bodies() | combined.bodies()
  if several := longer_ones(rows):
    tables = [task_table(rows, t, times) for t, times in several]
    found["longer"] = markers.exhibit(plot_of("longer"), f"{tells}, trained longer", *tables)
  for task in dict.fromkeys(row["task"] for row in curves):
    shows = f"Gradient, share of rare kinds, loss and accuracy over the steps: {task}"
    found[f"why {task}"] = markers.exhibit(plot_of(f"why {task}"), shows, why_table(curves, task))
  return found


def read_curves() -> list[dict[str, Any]]:
  """The rows of `why`, SGD with momentum first."""
  order = [optimizers.on(w, o) for o in why.PLAIN for w in (o, *RECOMMENDED)]
  order = [*why.PLAIN, *order]
  found = list(records.read(RESULTS / "why.jsonl"))
  return sorted(found, key=lambda r: (r["task"], order.index(r["arm"])))


def main() -> None:
  """Writes plots and tables."""
  rows, curves = read(), read_curves()
  plots.bars(ways(rows)[1], "part of the way", plot_of("way"), 0.0)
  xlabel = "points against the best plain optimizer, 95 % interval"
  for task in TASKS:
    if found := gaps(rows, task):
      plots.dots({task: found}, xlabel, plot_of(task))
  ten_seeds.draw()
  combined.draw()
  if several := longer_ones(rows):
    panels = {f"{t}, {times} times as long": gaps(rows, t, times) for t, times in several}
    plots.dots(panels, xlabel, plot_of("longer"))
  for task in dict.fromkeys(row["task"] for row in curves):
    plot_why(curves, task)
  markers.fill(PAGE, bodies(rows, curves))


if __name__ == "__main__":
  tyro.cli(main)
