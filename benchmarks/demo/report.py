# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What the first run shows: a table, a sentence and a plot, written by its numbers alone."""

from pathlib import Path
from typing import Any

import matplotlib.figure
import numpy as np
import rich.box
import rich.table

METRICS = ("test_accuracy", "balanced_accuracy", "worst_recall")

COLORS = ("#555555", "#56b4e9", "#0072b2", "#d55e00", "#009e73")


def points(difference: dict[str, Any]) -> str:
  """A difference of accuracies in percentage points, and its interval."""
  mean, low, high = (100 * difference[key] for key in ("mean", "low", "high"))
  return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"


def conclude(report: dict[str, Any]) -> str:
  """What was seen, as one sentence that the numbers write."""
  results, contest, setup = report["arms"], report["control_against_best"], report["setup"]
  baseline, *others = results
  parts, better = [], []
  for name in others:
    balanced = results[name]["against_baseline"]["balanced_accuracy"]
    plain = results[name]["against_baseline"]["test_accuracy"]
    loss = " (but worse in test accuracy)" if plain["verdict"] == "worse" else ""
    cost = f"at {results[name]['step_cost']:.1f} times the step cost"
    parts.append(f"{name} {balanced['verdict']}{loss}, {points(balanced)}, {cost}")
    if balanced["verdict"] == "better":
      better.append(name)

  best, control, gain = contest["best"], others[-1], points(contest)
  if control in better and contest["verdict"] != "worse":
    end = (
      "where the rare kinds are labelled classes, as here, class weights do the job more simply"
      f" (against {best}: {contest['verdict']}, {gain})"
    )
  elif better:
    end = f"class weights against {best}: {contest['verdict']}, {gain}"
  else:
    end = "nothing here is shown to be worth its cost"
  return (
    f"Balanced accuracy against {baseline} in points with 95 % interval, {setup['seeds']} seeds,"
    f" batches of {setup['batch_size']}: {'; '.join(parts)}; {end}."
  )


def make_table(report: dict[str, Any]) -> rich.table.Table:
  """One row per arm: mean and standard deviation over seeds, in percent."""
  result = rich.table.Table(
    title="Test split in %, mean ± standard deviation over seeds",
    caption="accuracy: classes as frequent as in training; balanced: all alike;\nworst: the lowest"
    " recall of a class; against SGDM: balanced, with 95 % interval;\ncost: time of a step against"
    " SGDM's, one seed of this small network",
    box=rich.box.SIMPLE_HEAD,
    padding=0,
  )
  for header in ("", "rate", "accuracy", "balanced", "worst", "against SGDM", "cost"):
    result.add_column(header, justify="right" if header else "left")
  for name, arm in report["arms"].items():
    rate = f"{arm['rate']:g}" + ("" if arm["rate_inside_grid"] else " (edge)")
    spread = [f"{100 * np.mean(arm[m]):.1f}±{100 * np.std(arm[m], ddof=1):.1f}" for m in METRICS]
    difference = points(arm["against_baseline"]["balanced_accuracy"]).replace("[", r"\[")
    result.add_row(name, rate, *spread, difference, f"{arm['step_cost']:.2f}")
  return result


def plot(report: dict[str, Any], path: Path) -> None:
  """Recall per class from frequent to rare, and its difference to the baseline."""
  figure = matplotlib.figure.Figure(figsize=(7, 7), layout="constrained")  # no global state
  top, bottom = figure.subplots(2, sharex=True, height_ratios=(3, 2))
  curves = {n: np.mean(arm["recall_per_class"], axis=0) for n, arm in report["arms"].items()}
  baseline = next(iter(curves))
  for (name, recall), color in zip(curves.items(), COLORS, strict=True):
    style = {"color": color, "marker": "o", "markersize": 4, "label": name}
    top.plot(recall, **style)
    bottom.plot(100 * (recall - curves[baseline]), **style)
  counts = report["training_images_per_class"]
  bottom.set_xticks(range(len(counts)), [str(n) for n in counts])
  bottom.set_xlabel("training images of the class")
  bottom.set_ylabel(f"recall minus {baseline}'s, points")
  top.set_ylabel("test recall")
  top.set_title(f"From frequent to rare classes, mean of {report['setup']['seeds']} seeds")
  top.legend(frameon=False)
  for axes in (top, bottom):
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
  figure.savefig(path, dpi=150)
