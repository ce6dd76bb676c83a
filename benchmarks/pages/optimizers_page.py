# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The tables and plots of docs/evidence/optimizers.md: weights by rarity on strong optimizers.

    python -m benchmarks.pages.optimizers_page

Out of the results of `benchmarks.rarity.optimizers` and `benchmarks.rarity.why`.
"""

import matplotlib
import matplotlib.figure
import numpy as np
import tyro

from benchmarks.pages import markers, plots
from benchmarks.pages.rare_results import ORACLE, values
from benchmarks.rarity import optimizers
from gq_optax.trial import records
from gq_optax.trial.protocol import paired
from gq_optax.trial.recipes import RECIPES
from gq_optax.trial.tables import markdown

PAGE = markers.EVIDENCE / "optimizers.md"
RESULTS = markers.RARITY / "optimizers"
TASKS = ("hidden5", "hidden7", "mnist hidden6", "LT100", "balanced")
NONE = "equal weights"
Rows = dict[tuple[str, str, int], dict]  # by task, arm and times the epochs
CURVES = {
  "gradient": "length of the mean gradient",
  "share of rare": "share of the rare kinds in it",
  "training loss, rare": "training loss of rare kinds",
  "validation accuracy, rare": "accuracy of rare kinds",
}


def read() -> Rows:
  """The rows of B = 1024."""
  found = [row for path in sorted(RESULTS.glob("stage*.jsonl")) for row in records.read(path)]
  return {(r["task"], r["arm"], r["longer"]): r for r in found if r["batch_size"] == 1024}


def weights_of(task: str) -> tuple[str, ...]:
  """What is tried on each optimizer. Where kinds are classes, class weights are the oracle."""
  return optimizers.CLASSES if RECIPES[task].hidden is None else optimizers.KINDS


def oracle_of(task: str) -> str:
  """The weights that are told the kinds."""
  return "class weights" if RECIPES[task].hidden is None else ORACLE


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


def way_table(rows: Rows) -> str:
  """From the best plain optimizer to the best oracle, over the hidden tasks together."""
  hidden = [t for t in TASKS if RECIPES[t].hidden is not None and (t, ORACLE, 1) in rows]
  there = [o for o in optimizers.PLAIN if all((t, o, 1) in rows for t in hidden)]
  mean = lambda task, arm: float(np.mean(values(rows[task, arm, 1], "mean")))
  # Both ends are chosen on validation, for each task.
  first = {t: best_plain(rows, t) for t in hidden}
  oracles = [optimizers.on(ORACLE, o) for o in there]
  ready = lambda arm: all((t, arm, 1) in rows for t in hidden)
  by_validation = lambda t: lambda arm: np.mean(rows[t, arm, 1]["validation"])
  last = {t: max(filter(ready, oracles), key=by_validation(t)) for t in hidden}
  length = sum(mean(t, last[t]) - mean(t, first[t]) for t in hidden)
  table = [["part of the way, " + ", ".join(hidden), *there]]
  for weights in (NONE, *optimizers.KINDS):
    cells = []
    for optimizer in there:
      arm = optimizer if weights == NONE else optimizers.on(weights, optimizer)
      part = sum(mean(t, arm) - mean(t, first[t]) for t in hidden) / length if ready(arm) else None
      cells.append("-" if part is None else f"{part:+.2f}")
    table.append([weights, *cells])
  return markdown(table)


def plot_why(curves: list[dict], task: str) -> None:
  """Four figures over the steps, a line for each arm."""
  chosen = [row for row in curves if row["task"] == task]
  with matplotlib.rc_context(plots.STYLE):
    figure = matplotlib.figure.Figure(figsize=(9.0, 5.6), layout="constrained")
    axes = figure.subplots(2, 2)
  colors = {"SGDM": "#444444", "SGDM, one length": "#0072b2", "Muon": "#d55e00"}
  for ax, (key, title) in zip(axes.flat, CURVES.items(), strict=True):
    for row in chosen:
      weighted = "scarcity" in row["arm"]
      color = colors[optimizers.optimizer_of(row["arm"])]
      style = "--" if weighted else "-"
      ax.plot(row["steps"], row["curves"][key], style, color=color, label=row["arm"], linewidth=1.3)
    ax.set_title(title, fontsize=9)
    ax.grid(alpha=0.2)
    if key != "validation accuracy, rare" and key != "share of rare":
      ax.set_yscale("log")
  for ax in axes[1]:
    ax.set_xlabel("step")
  handles, labels = axes[0, 0].get_legend_handles_labels()
  figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
  plots.save(figure, why_plot(task))


def why_plot(task: str):
  """Where the curves of a task lie."""
  return RESULTS / f"why_{task.replace(' ', '_')}.svg"


def why_table(curves: list[dict], task: str) -> str:
  """The figures in the middle and at the end of the training."""
  table = [[f"{task}: middle, last step", *CURVES.values()]]
  for row in (r for r in curves if r["task"] == task):
    middle = len(row["steps"]) // 2
    show = lambda key, row=row, m=middle: " , ".join(
      f"{row['curves'][key][i]:.2g}" for i in (m, -1)
    )
    table.append([row["arm"], *map(show, CURVES)])
  return markdown(table)


def bodies(rows: Rows, curves: list[dict]) -> dict[str, str]:
  """What stands between each pair of markers."""
  tells = "Difference to the best plain optimizer in points with 95 % interval"
  there = [t for t in TASKS if gaps(rows, t)]
  found = {"way": way_table(rows)}
  for task in there:
    plot = RESULTS / f"{task.replace(' ', '_')}.svg"
    found[task] = markers.exhibit(plot, f"{tells}: {task}", task_table(rows, task))
  longer = sorted({(t, times) for t, _, times in rows if times > 1})
  if longer:
    found["longer"] = "\n\n".join(task_table(rows, t, times) for t, times in longer)
  for task in dict.fromkeys(row["task"] for row in curves):
    tells = f"Gradient, share of rare kinds, loss and accuracy over the steps: {task}"
    found[f"why {task}"] = markers.exhibit(why_plot(task), tells, why_table(curves, task))
  return found


def main() -> None:
  """Writes plots and tables."""
  rows, curves = read(), list(records.read(RESULTS / "why.jsonl"))
  for task in TASKS:
    if found := gaps(rows, task):
      panels = {task: found}
      plot = RESULTS / f"{task.replace(' ', '_')}.svg"
      plots.dots(panels, "points against the best plain optimizer, 95 % interval", plot)
  for task in dict.fromkeys(row["task"] for row in curves):
    plot_why(curves, task)
  markers.fill(PAGE, bodies(rows, curves))


if __name__ == "__main__":
  tyro.cli(main)
