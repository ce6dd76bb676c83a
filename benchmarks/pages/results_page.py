# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The tables of docs/results.md, written between its markers out of benchmarks/paper/results.

    python -m benchmarks.pages.results_page
    python -m benchmarks.pages.results_page --keep out/lt100/summary.json --name lt100

The second keeps the summary of a trial of `gq-trial` among the raw results first.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks.pages import markers
from benchmarks.paper import figure6, steps_to_target
from gq_optax.trial import records, report
from gq_optax.trial.tables import markdown

PAGE = markers.DOCS / "results.md"
TRIALS, FIGURE6, TOY = (
  markers.PAPER / f"{name}.jsonl" for name in ("trials", "figure6", "toy_lines")
)
STEPS = markers.PAPER / "steps_to_target.json"


def read_trials() -> dict[str, dict[str, Any]]:
  """The summaries kept of `gq-trial`, by the name that they were kept under."""
  return {trial["name"]: trial for trial in records.read(TRIALS)}


def trial_tables(summary: dict[str, Any]) -> str:
  """Quality, the worst kind and the learning rates of a trial."""
  worst = report.quality_table(summary, "worst")
  worst[0][0] = "worst kind"
  tables = [report.quality_table(summary), worst, report.rate_table(summary)]
  return "\n\n".join(markdown(rows) for rows in tables)


def toy_table() -> str:
  """One row for each learning rate and arm of `benchmarks.paper.toy_lines`."""
  rows = [
    [
      "learning rate, arm",
      "loss",
      "loss of rare lines",
      "rare filter's answer",
      "recognised from step",
      "steps saved",
    ]
  ]
  for toy in sorted(records.read(TOY), key=lambda toy: toy["rate"]):
    for name, arm in toy["arms"].items():
      middle, saved = float(np.median(arm["recognised_from_step"])), arm["steps_saved"]
      rows.append(
        [
          f"{toy['rate']:g}, {name}",
          *(f"{arm[figure]:.2f}" for figure in ("loss", "loss_of_rare", "activation")),
          "never" if middle >= toy["steps"] else f"{middle:.0f}",
          "" if saved is None else f"{saved['mean']:.0f} [{saved['low']:.0f}, {saved['high']:.0f}]",
        ]
      )
  return markdown(rows)


def bodies() -> dict[str, str]:
  """What stands between each pair of markers."""
  found = {f"trial {name}": trial_tables(trial) for name, trial in read_trials().items()}
  found["toy"] = toy_table()
  if trials := figure6.read(FIGURE6):
    found["figure 6"] = markdown(figure6.table(trials))
  if STEPS.exists():
    found["steps"] = markdown(steps_to_target.table(json.loads(STEPS.read_text())))
  return found


def main(keep: Path | None = None, name: str | None = None) -> None:
  """Writes the tables.

  Args:
    keep: a summary.json of a trial to keep.
    name: what it is kept as; its tables go between markers "trial NAME".
  """
  if keep is not None:
    summary = figure6.compact(json.loads(keep.read_text()))
    records.append(TRIALS, {"name": name, **summary})
  page = PAGE.read_text()
  for marker, body in bodies().items():
    page = markers.between_markers(page, body, marker)
  PAGE.write_text(page)


if __name__ == "__main__":
  tyro.cli(main)
