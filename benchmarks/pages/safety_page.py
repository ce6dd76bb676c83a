# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The tables of docs/evidence/safety.md: poisoned gradients, wrong labels, a narrower queue.

    python -m benchmarks.pages.safety_page

Out of what `poison`, `alarm` and `queue_dtype` of benchmarks/paper wrote.
"""

import json
from pathlib import Path
from typing import Any

import tyro

from benchmarks.harness.protocol import paired
from benchmarks.harness.tables import markdown
from benchmarks.pages import markers, plots
from benchmarks.paper import alarm, poison, queue_dtype

PAGE = markers.EVIDENCE / "safety.md"


def read(path: Path) -> dict[str, Any]:
  """One of the raw files."""
  found: dict[str, Any] = json.loads(path.read_text())
  return found


def poison_tables(results: dict[str, Any]) -> list[str]:
  """A table for each poison."""
  head, *rows = poison.table(results)
  tables = []
  for name in results:
    own = [row for row in rows if row[0].startswith(f"{name}; ")]
    label = lambda row: row[0].removeprefix(f"{name}; ")  # noqa: B023
    # What it was before the poison is in the plot.
    tables.append(markdown([[name, *head[2:]], *([label(row), *row[2:]] for row in own)]))
  return tables


def alarm_tables(results: dict[str, Any]) -> list[str]:
  """What was won, the figures of the queue, those of agreement, and those of the groups."""
  rows = alarm.table(results)
  parts = ((10, 13), (1, 5), (5, 8), (8, 10))
  return [markdown([[row[0], *row[a:b]] for row in rows]) for a, b in parts]


def won(results: dict[str, Any]) -> dict[str, dict[str, plots.Interval]]:
  """Points won against the plain chain, a panel for each way."""
  panels: dict[str, dict[str, plots.Interval]] = {}
  for way in alarm.FIGURES:
    for noise, ways in results.items():
      gap = paired(ways[way]["accuracy"], ways["plain"]["accuracy"])
      interval = (100 * gap["mean"], 100 * gap["low"], 100 * gap["high"])
      panels.setdefault(f"won by {way}", {})[f"{100 * float(noise):.0f} % random labels"] = interval
  return panels


def dtype_errors(results: dict[str, Any]) -> dict[str, dict[str, float]]:
  """The figures of the first two columns of its table."""
  _, *rows = queue_dtype.table(results)
  titles = ("mean error of a weight, %", "weights off by a tenth, %")
  return {t: {r[0]: float(r[1 + i].split(" ")[0]) for r in rows} for i, t in enumerate(titles)}


def bodies() -> dict[str, str]:
  """What stands between each pair of markers."""
  return {
    "poison": markers.exhibit(
      markers.PAPER / "poison.png",
      "Test accuracy in the course of training under four poisons",
      *poison_tables(read(poison.RAW)),
    ),
    "alarm": markers.exhibit(
      markers.PAPER / "alarm.svg",
      "Points won against the plain chain at four shares of random labels",
      *alarm_tables(read(alarm.RAW)),
    ),
    "queue dtype": markers.exhibit(
      markers.PAPER / "queue_dtype.svg",
      "Errors of the weights of a queue in bfloat16 and float16",
      markdown(queue_dtype.table(read(queue_dtype.RAW))),
    ),
  }


def main() -> None:
  """Writes plots and tables."""
  poison.plot(read(poison.RAW), markers.PAPER / "poison.png")
  label = "points against the plain chain, 95 % interval"
  plots.dots(won(read(alarm.RAW)), label, markers.PAPER / "alarm.svg")
  plots.bars(dtype_errors(read(queue_dtype.RAW)), "%", markers.PAPER / "queue_dtype.svg")
  markers.fill(PAGE, bodies())


if __name__ == "__main__":
  tyro.cli(main)
