# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The tables of docs/results.md, written between its markers out of benchmarks/results.

    python -m benchmarks.results_page
    python -m benchmarks.results_page --keep out/lt100/summary.json --name lt100

The second keeps the summary of a trial of `benchmarks.ab` among the raw results first.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks import ab_report, figure6, pages, steps_to_target

PAGE = pages.DOCS / "results.md"
TRIALS, FIGURE6, TOY = (pages.RESULTS / name for name in ("ab", "figure6", "toy"))
STEPS = pages.RESULTS / "steps_to_target.json"


def read_trial(name: str) -> dict[str, Any]:
  """A summary kept of `benchmarks.ab`."""
  return json.loads((TRIALS / f"{name}.json").read_text())


def trial_tables(summary: dict[str, Any]) -> str:
  """Quality, the worst kind and the learning rates of a trial."""
  worst = ab_report.quality_table(summary, "worst")
  worst[0][0] = "worst kind"
  tables = [ab_report.quality_table(summary), worst, ab_report.rate_table(summary)]
  return "\n\n".join(pages.markdown(rows) for rows in tables)


def toy_table() -> str:
  """One row for each learning rate and arm of `benchmarks.toy_lines`."""
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
  for path in sorted(TOY.glob("*.json"), key=lambda p: json.loads(p.read_text())["rate"]):
    toy = json.loads(path.read_text())
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
  return pages.markdown(rows)


def bodies() -> dict[str, str]:
  """What stands between each pair of markers."""
  found = {f"trial {path.stem}": trial_tables(read_trial(path.stem)) for path in TRIALS.glob("*")}
  found["toy"] = toy_table()
  if trials := figure6.read(FIGURE6):
    found["figure 6"] = pages.markdown(figure6.table(trials))
  if STEPS.exists():
    found["steps"] = pages.markdown(steps_to_target.table(json.loads(STEPS.read_text())))
  return found


def main(keep: Path | None = None, name: str | None = None) -> None:
  """Writes the tables.

  Args:
    keep: a summary.json of a trial to keep.
    name: what it is kept as; its tables go between markers "trial NAME".
  """
  if keep is not None:
    summary = figure6.compact(json.loads(keep.read_text()))
    TRIALS.mkdir(exist_ok=True)
    (TRIALS / f"{name}.json").write_text(json.dumps(summary))
  page = PAGE.read_text()
  for marker, body in bodies().items():
    page = pages.between_markers(page, body, marker)
  PAGE.write_text(page)


if __name__ == "__main__":
  tyro.cli(main)
