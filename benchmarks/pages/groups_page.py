# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The tables and plots of docs/evidence/real-groups.md, out of the results in `real_groups`.

    python -m benchmarks.pages.groups_page

Groups of people that nobody tells, and kinds hidden in the features of a frozen network.
"""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.protocol import paired
from benchmarks.harness.tables import markdown
from benchmarks.pages import markers, plots
from benchmarks.pages.rare_results import ORACLE, Results, cell, read, values

PAGE = markers.EVIDENCE / "real-groups.md"
RESULTS = markers.RARITY / "real_groups"
OPTIMIZERS = ("SGDM", "AdamW", "Muon")
SIZE = 1024
WAYS = (
  "class weights", "logit adjustment", "JTT", "example scarcity, features",
  "example scarcity, outputs", "group scarcity, features, pooled", ORACLE, "group DRO (oracle)",
)  # fmt: skip
PEOPLE = ("adult", "celeba")


def name(way: str | None, optimizer: str) -> str:
  """An arm: a way to weigh, or None for none, on an optimizer."""
  if way is None:
    return optimizer
  return way if optimizer == OPTIMIZERS[0] else f"{way} on {optimizer}"


def table(results: Results, task: str, by_class: bool) -> str:
  """One row a way, one column an optimizer; differences are to the same optimizer alone.

  Args:
    results: as `rarity_page.read` gives them.
    task: of them.
    by_class: at the rates of the best worst class on validation, not of the best mean over kinds.
  """

  def look(arm: str) -> dict[str, Any] | None:
    found = results.get((task, SIZE, arm))
    return found["by_worst_class"] if found and by_class else found

  optimizers = [o for o in OPTIMIZERS if (task, SIZE, o) in results]
  rows = [[f"{task}: mean over kinds, worst kind", *optimizers]]
  for way in (None, *WAYS):
    cells = []
    for optimizer in optimizers:
      own, base = look(name(way, optimizer)), look(optimizer)
      text = cell(own, base, "mean")
      cells.append(text if own is None else f"{text}, {np.mean(values(own, 'worst')):.1f}")
    if set(cells) != {"-"}:
      rows.append([way or "none", *cells])
  return markdown(rows)


def gaps(results: Results, task: str, by_class: bool) -> dict[str, dict[str, plots.Interval]]:
  """The difference of each way to the same optimizer alone, a panel an optimizer."""
  look = lambda arm: (
    results[task, SIZE, arm]["by_worst_class"] if by_class else results[task, SIZE, arm]
  )
  found = {}
  for optimizer in (o for o in OPTIMIZERS if (task, SIZE, o) in results):
    rows = {}
    for way in (w for w in WAYS if (task, SIZE, name(w, optimizer)) in results):
      arm = name(way, optimizer)
      gap = paired(values(look(arm), "mean"), values(look(optimizer), "mean"))
      rows[way] = gap["mean"], gap["low"], gap["high"]
    found[f"{task}, {optimizer}"] = rows
  return found


def shown(results: Results) -> dict[str, tuple[list[str], bool]]:
  """The tasks between each pair of markers, and by what their rates were chosen."""
  tasks = list(dict.fromkeys(task for task, _, _ in results))
  found: dict[str, tuple[list[str], bool]] = {}
  for task in (task for task in PEOPLE if task in tasks):
    found |= {task: ([task], False), f"{task} by class": ([task], True)}
  if frozen := sorted(task for task in tasks if task.startswith("frozen")):
    found["frozen"] = frozen, False
  return found


def plot_of(marker: str) -> Path:
  """Where the plot of a pair of markers lies."""
  return RESULTS / f"{marker.replace(' ', '_')}.svg"


def bodies(results: Results) -> dict[str, str]:
  """What stands between each pair of markers."""
  tells = "Difference to the same optimizer alone in points with 95 % interval"
  return {
    marker: markers.exhibit(
      plot_of(marker), f"{tells}: {marker}", *(table(results, task, by_class) for task in tasks)
    )
    for marker, (tasks, by_class) in shown(results).items()
  }


def main() -> None:
  """Writes plots and tables."""
  results = read(RESULTS)
  for marker, (tasks, by_class) in shown(results).items():
    panels = {k: v for task in tasks for k, v in gaps(results, task, by_class).items()}
    plots.dots(panels, "points against the same optimizer alone, 95 % interval", plot_of(marker))
  markers.fill(PAGE, bodies(results))


if __name__ == "__main__":
  main()
