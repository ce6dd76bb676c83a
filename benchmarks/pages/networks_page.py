# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The tables and plots of docs/evidence/real-networks.md, out of `benchmarks.rarity.real_networks`.

python -m benchmarks.pages.networks_page
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import records
from benchmarks.harness.protocol import paired
from benchmarks.harness.tables import markdown
from benchmarks.pages import markers, plots
from benchmarks.rarity.real_networks import PLAIN

PAGE = markers.EVIDENCE / "real-networks.md"
RESULTS = markers.RARITY / "real_networks"
OPTIMIZERS = ("Muon", "SGDM")
FINAL, LONG = "final", "long"
Row = dict[str, Any]


def read(task: str = "LT100") -> list[Row]:
  """All runs of a task; of two with the same name the later one."""
  rows = (row for row in records.read(RESULTS / "runs.jsonl") if row["task"] == task)
  name = lambda r: (r["stage"], r["optimizer"], r["way"], r["seed"], r["rate"], r["epochs"])
  return list({name(row): row for row in rows}.values())


def chosen(rows: Sequence[Row], optimizer: str, way: str, stage: str = FINAL) -> list[Row]:
  """The runs of an arm, by seed."""
  found = [r for r in rows if (r["optimizer"], r["way"], r["stage"]) == (optimizer, way, stage)]
  return sorted(found, key=lambda row: row["seed"])


def ways(rows: Sequence[Row], optimizer: str) -> list[str]:
  """The ways to weigh that were run to the end, none first."""
  return list(
    dict.fromkeys(r["way"] for r in rows if (r["optimizer"], r["stage"]) == (optimizer, FINAL))
  )


def percent(rows: Sequence[Row], figure: str) -> np.ndarray:
  """A figure of the test split for each seed."""
  return np.array([100.0 * row["test"][figure] for row in rows])


def gap(rows: Sequence[Row], optimizer: str, way: str) -> dict[str, Any]:
  """The paired difference to the optimizer alone, in points."""
  own, alone = (percent(chosen(rows, optimizer, w), "mean") for w in (way, PLAIN))
  return paired(own, alone)


def at_the_edge(rows: Sequence[Row], optimizer: str, way: str) -> bool:
  """Whether the rate that was taken is the lowest or the highest that was tried."""
  tried = {row["rate"] for row in chosen(rows, optimizer, way, "rate")}
  return chosen(rows, optimizer, way)[0]["rate"] in (min(tried), max(tried))


def table(rows: Sequence[Row], optimizer: str) -> str:
  """One row a way."""
  lines = [[f"60 epochs, {optimizer}", "mean", "difference", "worst class", "rate"]]
  for way in ways(rows, optimizer):
    own = chosen(rows, optimizer, way)
    found = gap(rows, optimizer, way)
    interval = f"{found['mean']:+.1f} [{found['low']:+.1f}, {found['high']:+.1f}]"
    edge = ", the edge of the grid" if at_the_edge(rows, optimizer, way) else ""
    lines.append([
      "equal weights" if way == PLAIN else way,
      f"{np.mean(percent(own, 'mean')):.1f}",
      "-" if way == PLAIN else interval,
      f"{np.mean(percent(own, 'worst')):.1f}",
      f"{own[0]['rate']:g}{edge}",
    ])  # fmt: skip
  return markdown(lines)


def rates_table(rows: Sequence[Row], optimizer: str) -> str:
  """Validation after the short runs that chose the rates."""
  found = {way: chosen(rows, optimizer, way, "rate") for way in ways(rows, optimizer)}
  tried = sorted({row["rate"] for own in found.values() for row in own})
  lines = [[f"15 epochs, {optimizer}: validation", *(f"{rate:g}" for rate in tried)]]
  for way, own in found.items():
    by_rate = {row["rate"]: f"{100.0 * row['validation']['mean']:.1f}" for row in own}
    name = "equal weights" if way == PLAIN else way
    lines.append([name, *(by_rate.get(rate, "-") for rate in tried)])
  return markdown(lines)


def gaps(rows: Sequence[Row]) -> dict[str, dict[str, plots.Interval]]:
  """A panel for each optimizer."""
  found: dict[str, dict[str, plots.Interval]] = {}
  for optimizer in OPTIMIZERS:
    for way in ways(rows, optimizer)[1:]:
      one = gap(rows, optimizer, way)
      found.setdefault(optimizer, {})[way] = one["mean"], one["low"], one["high"]
  return found


def plot_of(optimizer: str) -> Path:
  """Where a plot lies."""
  return RESULTS / f"{optimizer}.svg"


def bodies(rows: Sequence[Row]) -> dict[str, str]:
  """What stands between each pair of markers."""
  tells = "Difference to the optimizer alone in points with 95 % interval"
  return {
    optimizer: markers.exhibit(
      plot_of(optimizer),
      f"{tells}: {optimizer}",
      table(rows, optimizer),
      rates_table(rows, optimizer),
    )
    for optimizer in OPTIMIZERS
  }


def main() -> None:
  """Writes plots and tables."""
  rows = read()
  for optimizer, panel in gaps(rows).items():
    xlabel = "points against the optimizer alone, 95 % interval"
    plots.dots({optimizer: panel}, xlabel, plot_of(optimizer))
  markers.fill(PAGE, bodies(rows))


if __name__ == "__main__":
  main()
