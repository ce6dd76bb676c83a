# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The tables of docs/evidence/scale.md: bytes sent between devices, bytes kept on them.

    python -m benchmarks.pages.scale_page

Out of what `benchmarks.cost.communication` wrote.
"""

import json
from typing import Any

import tyro

from benchmarks.cost import communication
from benchmarks.harness.tables import markdown
from benchmarks.pages import markers, plots

PAGE = markers.EVIDENCE / "scale.md"


def read() -> dict[str, Any]:
  """The raw file."""
  found: dict[str, Any] = json.loads(communication.RAW.read_text())
  return found


def sent(results: dict[str, Any]) -> dict[str, dict[str, float]]:
  """KiB a step on the most devices, a panel for each placing."""
  most = str(max(communication.DEVICES))
  return {
    f"{placing}, {most} devices": {way: by[most]["total"] / 1024 for way, by in ways.items()}
    for placing, ways in results["ways"].items()
  }


def kept() -> dict[str, dict[str, float]]:
  """GiB on each device, a panel for each number of devices."""
  head, *rows = communication.plan()
  return {name: {r[0]: float(r[i]) for r in rows} for i, name in enumerate(head) if i}


def bodies() -> dict[str, str]:
  """What stands between each pair of markers."""
  return {
    "communication": markers.exhibit(
      markers.COST / "communication.svg",
      "KiB that a device gets in a step, eight devices",
      markdown(communication.table(read())),
    ),
    "plan": markers.exhibit(
      markers.COST / "plan.svg",
      "GiB of optimizer state on each device, a billion parameters",
      markdown(communication.plan()),
    ),
  }


def main() -> None:
  """Writes plots and tables."""
  plots.bars(sent(read()), "KiB a step", markers.COST / "communication.svg")
  plots.bars(kept(), "GiB on each device", markers.COST / "plan.svg")
  markers.fill(PAGE, bodies())


if __name__ == "__main__":
  tyro.cli(main)
