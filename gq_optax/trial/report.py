# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Tables and plot of an A/B trial out of its summary; `page` adds what one trial can say by itself.

Intervals here cover the seeds alone: they are those of the pages that compare many trials.
"""

import math
from typing import Any

import matplotlib.figure
import matplotlib.ticker
import numpy as np

from gq_optax.trial import tables
from gq_optax.trial.protocol import paired

Rows = list[list[str]]
FIGURES = {
  "mean": "mean accuracy over kinds",
  "accuracy": "accuracy",
  "macro_f1": "macro-F1",
}
WORDS = {"better": "better", "worse": "worse", "not shown to differ": "no difference shown"}


def find(summary: dict[str, Any], arm: str, batch_size: int) -> dict[str, Any] | None:
  """The result of an arm at a batch size, if there is one."""
  for result in summary["results"]:
    if (result["arm"], result["batch_size"]) == (arm, batch_size):
      return result
  return None


def names(summary: dict[str, Any]) -> tuple[list[str], list[int]]:
  """Arms, the baseline first, and batch sizes."""
  results = summary["results"]
  sizes = sorted({r["batch_size"] for r in results})
  return list(dict.fromkeys(r["arm"] for r in results)), sizes


def values(result: dict[str, Any], figure: str) -> np.ndarray:
  """A figure of the test split for every seed, in percent."""
  return 100 * np.array([test[figure] for test in result["test"]])


def quality_table(summary: dict[str, Any], figure: str | None = None) -> Rows:
  """Mean and spread, the paired difference to the baseline, and the verdict."""
  arms, sizes = names(summary)
  figure = figure or summary["trial"]["figure"]
  rows = [["arm", *(f"B={b}" for b in sizes)]]
  for arm in arms:
    cells = []
    for b in sizes:
      result, baseline = find(summary, arm, b), find(summary, arms[0], b)
      if result is None:
        cells.append("-")
        continue
      own = values(result, figure)
      text = f"{own.mean():.1f}"
      if len(own) > 1:
        text += f" ± {own.std(ddof=1):.1f}"
      if arm != arms[0] and baseline is not None and len(own) > 1:
        gap = paired(own, values(baseline, figure))
        text += f" ({gap['mean']:+.1f} [{gap['low']:+.1f}, {gap['high']:+.1f}], "
        text += f"{WORDS[gap['verdict']]})"
      cells.append(text)
    rows.append([arm, *cells])
  return rows


def target_of(summary: dict[str, Any]) -> float:
  """The target asked for, or what the baseline reaches at every batch size, with .01 to spare."""
  given = summary["trial"].get("target")
  if given is not None:
    return float(given)
  arms, sizes = names(summary)
  curves = [find(summary, arms[0], b)["curves_at_rate"] for b in sizes]  # type: ignore[index]
  return round(float(min(np.mean([curve[-1] for curve in c]) for c in curves)) - 0.01, 3)


def steps_to(result: dict[str, Any], target: float) -> float:
  """Median over seeds of the first evaluated step at or above the target; infinite if not half."""
  first = []
  for curve in result["curves_at_rate"]:
    there = [s for s, v in zip(result["curve_steps"], curve, strict=True) if v >= target]
    first.append(result.get("first_steps", 0) + there[0] if there else math.inf)
  return float(np.median(first))


def target_table(summary: dict[str, Any]) -> Rows:
  """Steps, and seconds of training, until validation reaches the target."""
  arms, sizes = names(summary)
  target = target_of(summary)
  rows = [[f"to {100 * target:.1f} on validation", *(f"B={b}" for b in sizes)]]
  for arm in arms:
    cells = []
    for b in sizes:
      result = find(summary, arm, b)
      steps = math.inf if result is None else steps_to(result, target)
      cost = summary["cost"].get(str(b), {}).get(arm)
      text = "not reached" if math.isinf(steps) else f"{steps:.0f} steps"
      if cost and not math.isinf(steps):
        text += f", {steps * cost['median']:.2g} s"
      cells.append(text)
    rows.append([arm, *cells])
  return rows


def cost_table(summary: dict[str, Any]) -> Rows:
  """Milliseconds of a step, and the ratio to the baseline's with quartiles."""
  arms, sizes = names(summary)
  rows = [["a step", *(f"B={b}" for b in sizes)]]
  for arm in arms:
    cells = []
    for b in sizes:
      timed = summary["cost"].get(str(b), {}).get(arm)
      text = f"{1e3 * timed['median']:.2f} ms, {tables.quartiles(timed, 2)}" if timed else "-"
      cells.append(text)
    rows.append([arm, *cells])
  return rows


def rate_table(summary: dict[str, Any]) -> Rows:
  """The learning rates chosen; a star marks one on the edge of its grid."""
  arms, sizes = names(summary)
  mark = {True: "", False: " *", None: " (fixed)"}
  cell = lambda r: "-" if r is None else f"{r['rate']:g}{mark[r['rate_inside_grid']]}"
  rows = [["learning rate", *(f"B={b}" for b in sizes)]]
  return rows + [[a, *(cell(find(summary, a, b)) for b in sizes)] for a in arms]


def plot(summary: dict[str, Any]) -> matplotlib.figure.Figure:
  """Quality against batch size, learning-rate sensitivity, and the course of training."""
  arms, sizes = names(summary)
  tuned = any(r["validation_by_rate"] for r in summary["results"])
  columns = max(len(sizes), 2)
  figure = matplotlib.figure.Figure(figsize=(3.6 * columns + 2.6, 9.6), layout="constrained")
  grid = figure.add_gridspec(3, columns)
  top = figure.add_subplot(grid[0, :])
  what = summary["trial"]["figure"]
  styles = [("-", "--", ":")[i % 3] for i in range(len(arms))]
  for i, arm in enumerate(arms):
    found = [(b, values(r, what)) for b in sizes if (r := find(summary, arm, b))]
    middle = [own.mean() for _, own in found]
    spread = [own.std(ddof=1) if len(own) > 1 else 0.0 for _, own in found]
    # Beside each other, so that the bars can be told apart.
    shift = 1.0 + 0.03 * (i - len(arms) / 2)
    where = [b * shift for b, _ in found]
    top.errorbar(where, middle, spread, linestyle=styles[i], marker="o", markersize=4, label=arm)
  top.set_xscale("log", base=2)
  top.set_xticks(sizes, [str(b) for b in sizes])
  top.set_xlabel("batch size")
  top.set_ylabel(f"test, {FIGURES[what]}, %")
  top.legend(fontsize=8, bbox_to_anchor=(1.01, 1.0), loc="upper left", frameon=False)
  for column, b in enumerate(sizes):
    rates, course = (figure.add_subplot(grid[row, column]) for row in (1, 2))
    for i, arm in enumerate(arms):
      result = find(summary, arm, b)
      if result is None:
        continue
      if tuned:
        pairs = [(float(r), 100 * s) for r, s in result["validation_by_rate"].items()]
        rates.plot(*zip(*pairs, strict=True), styles[i], color=f"C{i % 10}", marker=".")
      curve = 100 * np.mean(result["curves_at_rate"], axis=0)
      course.plot(result["curve_steps"], curve, styles[i], color=f"C{i % 10}")
    if tuned:  # rates that diverged would flatten the rest
      best = max(s for r in summary["results"] for s in r["validation_by_rate"].values())
      rates.set_ylim(bottom=max(100 * best - 30.0, 0.0))
    rates.set_xscale("log")
    here = [r["validation_by_rate"] for arm in arms if (r := find(summary, arm, b))]
    if tried := sorted({float(rate) for own in here for rate in own}):  # three labels have room
      marks = sorted({tried[0], tried[len(tried) // 2], tried[-1]})
      rates.set_xticks(marks, [f"{rate:.2g}" for rate in marks])
      rates.xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
    rates.set_xlabel(f"learning rate, B={b}")
    course.set_xlabel(f"step, B={b}")
    course.axhline(100 * target_of(summary), color="grey", linewidth=0.6)
    for ax in (rates, course):
      ax.set_ylabel("validation, %")
  for ax in figure.axes:
    ax.spines[["top", "right"]].set_visible(False)
  return figure


def headline(summary: dict[str, Any]) -> str:
  """What was trained on what."""
  trial, environment = summary["trial"], summary["environment"]
  what = trial["npz"] or trial["data"]
  changes = [
    f"long tail 1:{trial['imbalance']:g}" if trial["imbalance"] else "",
    f"classes hidden in two ({trial['hidden']})" if trial["hidden"] is not None else "",
    f"{trial['noise']} noise {trial['noise_rate']:g}" if trial["noise"] else "",
  ]
  made = ", ".join([what, *(c for c in changes if c)])
  versions = ", ".join(f"{k} {v}" for k, v in environment.items() if k != "commit")
  return (
    f"{made}; model {trial['model']}; {summary['training_examples']} training examples,"
    f" {summary['classes']} classes. {versions}; commit {environment['commit'][:12]}."
  )
