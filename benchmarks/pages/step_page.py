# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The tables of docs/evidence/group-gradients.md, out of what the benchmarks of cost wrote.

python -m benchmarks.pages.step_page
"""

import json
from pathlib import Path
from typing import Any

import tyro

from benchmarks.cost import step_cost
from benchmarks.harness.tables import markdown, quartiles
from benchmarks.pages import markers, plots

RESULTS, LARGE = markers.COST / "step_cost.jsonl", markers.COST / "step_cost_large_pages.jsonl"
PAGE = markers.EVIDENCE / "group-gradients.md"
ORDER = ("cnn", "encoder", "mlp", "reuters")
# What writes K gradients.
WRITE = ("grouped", "grouped, donated", "whole step with K-means", "whole step, donated")


def read(path: Path) -> dict[str, Any]:
  """The results of each workload, in the order of the page."""
  found = step_cost.read(path)
  return {name: found[name] for name in ORDER if name in found}


def by_pages() -> dict[str, Any]:
  """The dense networks with usual pages of memory and with large ones."""
  usual, large = read(RESULTS), read(LARGE)
  pick = lambda r: r | {"steps": {way: r["steps"][way] for way in WRITE}}
  found = {}
  for name, result in large.items():
    found[result["title"]] = pick(usual[name])
    found[f"{result['title']}, large pages"] = pick(result)
  return {title: result | {"title": title} for title, result in found.items()}


def ratio_table(results: dict[str, Any]) -> str:
  """Time of every way as a ratio to the plain gradient, equal / skewed."""
  lines = [["equal / skewed groups", *(r["title"] for r in results.values())]]
  for step in dict.fromkeys(step for r in results.values() for step in r["steps"]):
    if step == "plain":
      continue
    rows = [r["steps"].get(step) for r in results.values()]
    both = [[_ratio(row, kind) for kind in ("equal", "skewed")] for row in rows]
    lines.append([step, *("-" if pair == ["-", "-"] else " / ".join(pair) for pair in both)])
  return markdown(lines)


def dots_of(results: dict[str, Any]) -> dict[str, dict[str, plots.Interval]]:
  """Equal groups: the ratio and its quartiles, a panel for each network.

  K-means alone is left out: it is so short that it would hide all else.
  """
  left_out = ("plain", "K-means alone")
  dot = lambda timed: (timed["ratio"], timed["ratio_low"], timed["ratio_high"])
  return {
    r["title"]: {w: dot(t.get("equal", t)) for w, t in r["steps"].items() if w not in left_out}
    for r in results.values()
  }


def memory_table(results: dict[str, Any]) -> str:
  """Temporary memory of every way in MiB."""
  lines = [["temporary memory, MiB", *(r["title"] for r in results.values())]]
  for step in results["mlp"]["steps"]:
    rows = [r["steps"].get(step) for r in results.values()]
    cells = ["-" if row is None else f"{row['temp_bytes'] / 2**20:.0f}" for row in rows]
    lines.append([step, *cells])
  return markdown(lines)


def read_peers() -> dict[str, Any]:
  """What `benchmarks.cost.peers` measured."""
  return json.loads((markers.COST / "peers.json").read_text())


def peers_table(results: dict[str, Any]) -> str:
  """Ratios to PyTorch's own plain gradient, with quartiles."""
  lines = [
    ["ratio to PyTorch's plain gradient (quartiles)", *(r["title"] for r in results.values())]
  ]
  for way in dict.fromkeys(w for r in results.values() for w in r["steps"] if w != "plain"):
    rows = [r["steps"].get(way) for r in results.values()]
    lines.append([way, *("-" if row is None else quartiles(row, 1) for row in rows)])
  return markdown(lines)


def _ratio(row: dict[str, Any] | None, kind: str) -> str:
  """A dash where it was not timed."""
  return "-" if row is None or kind not in row else f"{row[kind]['ratio']:.2f}"


def bodies() -> dict[str, str]:
  """What stands between each pair of markers."""
  results = read(RESULTS)
  memory = markers.COST / "step_memory.svg"
  return {
    "time": markers.exhibit(
      markers.COST / "step_time.svg",
      "Time of each way as a ratio to one plain gradient, equal groups, logarithmic",
      ratio_table(results),
    ),
    "memory": markers.exhibit(memory, "Temporary memory of each way", memory_table(results)),
    "pages": markers.exhibit(
      markers.COST / "step_pages.svg",
      "Time of what writes K gradients, with usual and with large pages of memory",
      ratio_table(by_pages()),
    ),
    "peers": markers.exhibit(
      markers.COST / "peers.svg",
      "Time of ways of PyTorch as a ratio to its own plain gradient, logarithmic",
      peers_table(read_peers()),
    ),
  }


def main() -> None:
  """Writes plots and tables."""
  results = read(RESULTS)
  label = "time of a plain gradient of the same library"
  plots.dots(dots_of(results), label, markers.COST / "step_time.svg", 1.0, log=True)
  plots.dots(dots_of(by_pages()), label, markers.COST / "step_pages.svg", 1.0)
  plots.dots(dots_of(read_peers()), label, markers.COST / "peers.svg", 1.0, log=True)
  memory = {
    r["title"]: {w: row["temp_bytes"] / 2**20 for w, row in r["steps"].items()}
    for r in results.values()
  }
  plots.bars(memory, "temporary memory, MiB", markers.COST / "step_memory.svg")
  markers.fill(PAGE, bodies())


if __name__ == "__main__":
  tyro.cli(main)
