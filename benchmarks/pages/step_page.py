# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The tables of docs/group-gradients.md, out of the files that the benchmarks of cost wrote.

python -m benchmarks.pages.step_page --results out/step_cost.jsonl
"""

import json
from pathlib import Path
from typing import Any

import tyro

from benchmarks.cost import step_cost
from benchmarks.pages import markers
from gq_optax.trial.tables import markdown, quartiles

RESULTS = markers.COST / "step_cost.jsonl"
PAGE = markers.DOCS / "group-gradients.md"
ORDER = ("cnn", "encoder", "mlp", "reuters")


def read(path: Path) -> dict[str, Any]:
  """The results of each workload, in the order of the page."""
  found = step_cost.read(path)
  return {name: found[name] for name in ORDER}


def ratio_table(results: dict[str, Any]) -> str:
  """Time of every way as a ratio to the plain gradient, equal / skewed."""
  head = ["ratio to one plain gradient, equal / skewed groups"]
  lines = [[*head, *(r["title"] for r in results.values()), "geometric mean"]]
  for step in results["mlp"]["steps"]:
    if step == "plain":
      continue
    rows = [r["steps"].get(step) for r in results.values()]
    both = [[_ratio(row, kind) for kind in ("equal", "skewed")] for row in rows]
    mean = ["-", "-"]
    for i, kind in enumerate(("equal", "skewed")):
      if all(pair[i] != "-" for pair in both):
        mean[i] = f"{step_cost.geometric_mean(results, step, kind):.2f}"
    cells = ["-" if pair == ["-", "-"] else " / ".join(pair) for pair in (*both, mean)]
    lines.append([step, *cells])
  return markdown(lines)


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


def tables(results: dict[str, Any]) -> str:
  """Both, in the order of the page."""
  return ratio_table(results) + "\n\n" + memory_table(results)


def main(results: Path = RESULTS, page: Path = PAGE) -> None:
  """Writes the tables.

  Args:
    results: a file with a line for each workload.
    page: a Markdown page with the markers of the tables.
  """
  text = markers.between_markers(page.read_text(), tables(read(results)))
  page.write_text(markers.between_markers(text, peers_table(read_peers()), "peers"))


if __name__ == "__main__":
  tyro.cli(main)
