# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The table and the plot of docs/alternatives.md: what else is done about rare examples.

python -m benchmarks.pages.alternatives_page
"""

import tyro

from benchmarks.harness.tables import markdown
from benchmarks.pages import markers, plots
from benchmarks.pages.rare_results import BASELINE, RESULTS, Results, cell, gap, read, rows_of

PAGE, PLOT = markers.DOCS / "alternatives.md", RESULTS / "alternatives.svg"
SIZE = 1024
TASKS = {
  "LT100": "rare classes (LT100)",
  "hidden5": "kinds hidden in classes (hidden5)",
  "hidden6": "(hidden6)",
}
ARMS = {  # label, name among the results, what it needs
  "class weights": ("class weights", "label counts"),
  "logit adjustment": ("logit adjustment", "label counts"),
  "focal loss": ("focal loss", "-"),
  "JTT": ("JTT", "a first run"),
  "Adam": ("Adam", "-"),
  "the weights of our groups, dealt at random": ("random groups", "-"),
  "group scarcity, output gradients": ("group scarcity, outputs", "-"),
  "group scarcity, features, pooled": ("group scarcity, features, pooled", "-"),
  "example scarcity, output gradients": ("example scarcity, outputs", "-"),
  "example scarcity, features": ("example scarcity, features", "-"),
  "true kinds weigh the same (oracle)": ("true kinds (oracle)", "labels for kinds"),
}


def table(results: Results) -> str:
  """Differences to the baseline, one row an arm."""
  rows = [["", "needs", *TASKS.values()]]
  for label, (name, needs) in ARMS.items():
    pairs = [(results.get((t, SIZE, name)), results[t, SIZE, BASELINE]) for t in TASKS]
    cells = [cell(*pair, "mean").partition("(")[2].removesuffix(")") or "-" for pair in pairs]
    rows.append([label, needs, *cells])
  return markdown(rows)


def panels(results: Results) -> dict[str, dict[str, plots.Interval]]:
  """The same as dots, a panel for each task."""
  dots = lambda t: rows_of(
    {k: gap(results, t, SIZE, name, "mean") for k, (name, _) in ARMS.items()}
  )
  return {t: dots(t) for t in TASKS}


def bodies(results: Results) -> dict[str, str]:
  """What stands between the markers of the page."""
  tells = "Difference to SGD with momentum in points, with 95 % interval, on three tasks"
  return {"alternatives": markers.exhibit(PLOT, tells, table(results), page=PAGE)}


def main() -> None:
  """Writes plot and table."""
  results = read(RESULTS)
  plots.dots(panels(results), "points against SGD with momentum, 95 % interval", PLOT)
  markers.fill(PAGE, bodies(results))


if __name__ == "__main__":
  tyro.cli(main)
