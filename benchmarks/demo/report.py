# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What the first run shows: a table, a conclusion and a plot, written by its numbers alone."""

from pathlib import Path
from typing import Any

import matplotlib.figure
import numpy as np
import rich.box
import rich.table

METRICS = ("test_accuracy", "balanced_accuracy", "worst_recall")

COLORS = ("#555555", "#e69f00", "#d55e00", "#009e73", "#56b4e9", "#0072b2")


def points(difference: dict[str, Any]) -> str:
  """A difference of accuracies in percentage points, and its interval."""
  mean, low, high = (100 * difference[key] for key in ("mean", "low", "high"))
  return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"


def conclude(report: dict[str, Any]) -> str:
  """What was seen, in short sentences that the numbers write."""
  results, contest = report["arms"], report["control_against_best"]
  best, control = contest["best"], "class weights"
  plain, *_, paper = results

  def told(name: str) -> str:
    found = results[name]["against_baseline"]
    text = f"{found['balanced_accuracy']['verdict']}, {points(found['balanced_accuracy'])}"
    return text + " (but worse in accuracy)" * (found["test_accuracy"]["verdict"] == "worse")

  better = lambda name: (
    results[name]["against_baseline"]["balanced_accuracy"]["verdict"] == "better"
  )
  if better(control) and contest["verdict"] != "worse":
    end = (
      "Where labels name the rare cases, as here, class weights do the job more simply"
      f" (against {best}: {contest['verdict']}, {points(contest)})."
    )
  elif better(best):
    end = f"Class weights against {best}: {contest['verdict']}, {points(contest)}."
  else:
    end = "Nothing here is shown to be worth its cost."
  cost = f"at {results[paper]['step_cost']:.1f} times the step cost"
  return (
    f"Points of balanced accuracy against {plain}, with 95 % interval. The best of the weights for"
    f" rare examples, {best}: {told(best)}. Class weights, which read the labels: {told(control)}."
    f" The paper's transformation, {paper}: {told(paper)}, {cost}. {end}"
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
  for header in ("", "accuracy", "balanced", "worst", "against SGDM", "cost"):
    wide = header in ("", "against SGDM")
    result.add_column(header, justify="right" if header else "left", no_wrap=wide)
  for name, arm in report["arms"].items():
    name += "" if arm["rate_inside_grid"] else " (rate at the edge)"
    mean = [f"{100 * np.mean(arm[m]):.1f}" for m in METRICS]
    mean[1] += f"±{100 * np.std(arm['balanced_accuracy'], ddof=1):.1f}"
    difference = points(arm["against_baseline"]["balanced_accuracy"]).replace("[", r"\[")
    result.add_row(name, *mean, difference, f"{arm['step_cost']:.2f}")
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
