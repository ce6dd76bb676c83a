# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The pages on the paper's method: every arm on a long tail, Figure 6, steps to a target, the toy.

    python -m benchmarks.pages.results_page
    python -m benchmarks.pages.results_page --keep out/lt100/summary.json --name lt100

Out of benchmarks/paper/results. The second keeps the summary of a trial of `gq-trial` there first.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks.harness import records
from benchmarks.harness.protocol import paired
from benchmarks.harness.tables import markdown
from benchmarks.pages import markers, plots
from benchmarks.paper import figure6, steps_to_target
from gq_optax.trial import report

PAGE, LONG_TAIL = markers.EVIDENCE / "paper.md", markers.EVIDENCE / "long-tail.md"
TRIALS, FIGURE6, TOY = (
  markers.PAPER / f"{name}.jsonl" for name in ("trials", "figure6", "toy_lines")
)
STEPS = markers.PAPER / "steps_to_target.json"


def read_trials() -> dict[str, dict[str, Any]]:
  """The summaries kept of `gq-trial`, by the name that they were kept under."""
  return {trial["name"]: trial for trial in records.read(TRIALS)}


def trial_table(summary: dict[str, Any]) -> str:
  """Quality, the worst kind and the learning rate of each arm, at one batch size."""
  parts = [report.quality_table(summary), report.quality_table(summary, "worst")]
  merged = [["arm", "mean over classes", "worst class", "learning rate"]]
  rates = report.rate_table(summary)
  for quality, worst, rate in zip(*parts, rates, strict=True):
    if quality[0] != "arm":
      merged.append([quality[0], quality[1], worst[1], rate[1]])
  return markdown(merged)


def trial_plot(summary: dict[str, Any]) -> dict[str, dict[str, plots.Interval]]:
  """Differences to the first arm."""
  arms, (size,) = report.names(summary)
  panels: dict[str, dict[str, plots.Interval]] = {}
  figures = {"mean over classes": summary["trial"]["figure"], "worst class": "worst"}
  for title, figure in figures.items():
    own = {a: report.values(report.find(summary, a, size) or {}, figure) for a in arms}
    gaps = {a: paired(own[a], own[arms[0]]) for a in arms[1:]}
    panels[title] = {a: (g["mean"], g["low"], g["high"]) for a, g in gaps.items()}
  return panels


def figure6_table(trials: dict[tuple[str, str], dict[str, Any]]) -> str:
  """Ours beside the paper's; data set, way and batch size in one column."""
  rows = [[f"{name}, B={b}" if name else "", *rest] for name, b, *rest in figure6.table(trials)]
  return markdown([["", *rows[0][1:]], *rows[1:]])


def steps_table(results: dict[str, Any]) -> str:
  """Median steps for each batch size; what they save is in the plot."""
  return markdown([row[:-1] for row in steps_to_target.table(results)])


def toy_table() -> str:
  """One row for each learning rate and arm of `benchmarks.paper.toy_lines`."""
  head = ["learning rate, arm", "loss of rare lines", "rare filter's answer"]
  rows = [[*head, "recognised from step", "steps saved"]]
  for toy in sorted(records.read(TOY), key=lambda toy: toy["rate"]):
    for name, arm in toy["arms"].items():
      middle, saved = float(np.median(arm["recognised_from_step"])), arm["steps_saved"]
      rows.append(
        [
          f"{toy['rate']:g}, {name}",
          *(f"{arm[figure]:.2f}" for figure in ("loss_of_rare", "activation")),
          "never" if middle >= toy["steps"] else f"{middle:.0f}",
          "" if saved is None else f"{saved['mean']:.0f} [{saved['low']:.0f}, {saved['high']:.0f}]",
        ]
      )
  return markdown(rows)


def long_tail_bodies() -> dict[str, str]:
  """What stands between the markers of the page on a long tail."""
  return {
    f"trial {name}": markers.exhibit(
      markers.PAPER / f"trial_{name}.svg",
      "Difference of every arm to SGDM in points, with 95 % interval",
      trial_table(trial),
    )
    for name, trial in read_trials().items()
  }


def bodies() -> dict[str, str]:
  """What stands between the markers of the page on the paper."""
  plot = lambda name: markers.PAPER / f"{name}.png"
  return {
    "figure 6": markers.exhibit(
      plot("figure6"),
      "Accuracy against batch size: the paper, ours at a fixed rate, ours tuned",
      figure6_table(figure6.read(FIGURE6)),
    ),
    "steps": markers.exhibit(
      plot("steps_to_target"),
      "Steps to the target against batch size, for a long tail and balanced",
      steps_table(json.loads(STEPS.read_text())),
    ),
    "toy": markers.exhibit(
      plot("toy_lines"),
      "Loss, loss of the rare lines, and the rare filter's answer, at rate .5",
      toy_table(),
    ),
  }


def main(keep: Path | None = None, name: str | None = None) -> None:
  """Writes the tables.

  Args:
    keep: a summary.json of a trial to keep.
    name: what it is kept as; its tables go between markers "trial NAME".
  """
  if keep is not None:
    summary = figure6.compact(json.loads(keep.read_text()))
    records.append(TRIALS, {"name": name, **summary})
  for kept, trial in read_trials().items():
    points = "points against SGDM, 95 % interval"
    plots.dots(trial_plot(trial), points, markers.PAPER / f"trial_{kept}.svg")
  markers.fill(LONG_TAIL, long_tail_bodies())
  markers.fill(PAGE, bodies())


if __name__ == "__main__":
  tyro.cli(main)
