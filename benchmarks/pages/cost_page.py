# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What everything costs: the tables of docs/cost.md, and of docs/evidence/cost.md in full.

    python -m benchmarks.pages.cost_page

Out of what `accelerator` and `update_cost` of benchmarks/cost wrote.
"""

import json
import re
from typing import Any

import tyro

from benchmarks.cost import accelerator
from benchmarks.cost.jobs import Row
from benchmarks.harness import records
from benchmarks.harness.tables import markdown, quartiles
from benchmarks.pages import markers, plots

PAGE, EVIDENCE = markers.DOCS / "cost.md", markers.EVIDENCE / "cost.md"
ACCELERATOR, UPDATES = markers.COST / "accelerator.jsonl", markers.COST / "update_cost.json"
NOT_YET = "Not measured on a GPU with this version yet."
PARTS = {  # of the short page: what is shown of each job
  "groups": ("groups, equal", "groups, skewed", "whole step, equal", "whole step, skewed"),
  "weights": (
    "examples by features",
    "groups of features, K=20, pooled",
    "groups of features, K=10, centroids given",
    "groups of output gradients, K=10",
  ),
  "queue": ("adam", "queue", "queue in bfloat16"),
}

Timed = dict[str, dict[str, Row]]  # by job and way


def read_part(part: str) -> Timed:
  """The timed rows of a part; of two of the same the later one."""
  found: Timed = {}
  for row in records.read(ACCELERATOR):
    if row["part"] == part and "ratio" in row and not row["tiny"]:
      found.setdefault(row["job"], {})[row["row"]] = timed_once(row) if part == "compile" else row
  return found


def timed_once(row: Row) -> Row:
  """A compilation as a row like the others: it has no quartiles."""
  seconds, reference = row["compile_seconds"], row["reference_compile_seconds"]
  alone = {"ratio_low": row["ratio"], "ratio_high": row["ratio"]}
  return row | alone | {"ms": 1e3 * seconds, "reference_ms": 1e3 * reference}


def ways(part: str, jobs: Timed) -> list[str]:
  """The columns of a part's short table that were measured."""
  measured = list(dict.fromkeys(way for rows in jobs.values() for way in rows))
  wanted = [way for way in PARTS.get(part, ()) if way in measured]
  return wanted or measured[:3]


def short_table(part: str) -> str:
  """One row a network: the plain step in ms, and the ratios to it."""
  jobs = read_part(part)
  columns = ways(part, jobs)
  both = part == "groups"  # equal and skewed groups share a cell
  names = ["groups alone", "whole step with K-means"] if both else columns
  heads = {"groups": "network; equal / skewed groups", "weights": "network", "queue": "parameters"}
  lines = [[heads.get(part, part), "plain, ms", *names]]
  for job, rows in jobs.items():
    cells = [f"{rows[way]['ratio']:.2f}" if way in rows else "-" for way in columns]
    if both:
      cells = [f"{cells[0]} / {cells[1]}", f"{cells[2]} / {cells[3]}"]
    first = next(iter(rows.values()))
    lines.append([job, f"{first['reference_ms']:.3g}, {card(first)}", *cells])
  return markdown(lines)


def full_table(part: str) -> str:
  """Every row that was timed, with its bar."""
  lines = [["row", "ratio (quartiles)", "ms", "plain, ms", "bar"]]
  for job, rows in read_part(part).items():
    for way, row in rows.items():
      bar = "-" if row["bar"] is None else f"{row['bar']:g}{' ms' * (row['bar_of'] == 'ms')}"
      met = {None: "", True: ", met", False: ", **not met**"}[row["met"]]
      times = f"{row['ms']:.3f}", f"{row['reference_ms']:.3f}, {card(row)}"
      lines.append([f"{job}: {way}", quartiles(row, 2), *times, bar + met])
  return markdown(lines)


def card(row: Row) -> str:
  """The name of the device, short."""
  return str(row["device"]).removeprefix("NVIDIA ").split()[0]


def dots_of(part: str, columns: list[str]) -> dict[str, dict[str, plots.Interval]]:
  """A panel for each way."""
  dot = lambda row: (row["ratio"], row["ratio_low"], row["ratio_high"])
  jobs = read_part(part)
  return {w: {j: dot(rows[w]) for j, rows in jobs.items() if w in rows} for w in columns}


def plot_of(part: str) -> Any:
  """Where the plot of a part lies."""
  return markers.COST / f"accelerator_{part}.svg"


def device() -> str:
  """Where the kept rows were measured, but for compilation."""
  rows = [row for row in records.read(ACCELERATOR) if row["part"] != "compile"]
  places = sorted({(row["device"], row["jax"]) for row in rows})
  return f"Measured on {'; on '.join(f'one {name}, JAX {version}' for name, version in places)}."


def read_updates() -> dict[str, Any]:
  """What `benchmarks.cost.update_cost` measured on a CPU."""
  found: dict[str, Any] = json.loads(UPDATES.read_text())
  return {title: timed for title, timed in found.items() if title != "environment"}


def update_table(title: str) -> str:
  """The rows of one of its tables."""
  lines = [[title, "ratio (quartiles)", "temporary memory"]]
  for way, timed in read_updates()[title].items():
    lines.append([way, quartiles(timed, 2), f"{timed['temp_bytes'] / 2**20:.1f} MiB"])
  return markdown(lines)


def update_dots() -> dict[str, dict[str, plots.Interval]]:
  """A panel for each table, the per-example forms left out: they would hide all else."""
  dot = lambda timed: (timed["ratio"], timed["ratio_low"], timed["ratio_high"])
  short = lambda title: re.sub(
    r"The update alone, |A training step of the |A training step of ", "", title
  )
  return {
    short(title): {way: dot(t) for way, t in timed.items() if t["ratio"] < 10.0}
    for title, timed in read_updates().items()
  }


def bodies() -> dict[str, str]:
  """What stands between each pair of markers of the short page."""
  found = {"device": device()}
  for part in PARTS:
    tells = f"Ratio to the plain step on an accelerator: {', '.join(ways(part, read_part(part)))}"
    shown = lambda part, tells: markers.exhibit(plot_of(part), tells, short_table(part), page=PAGE)
    found[part] = shown(part, tells) if read_part(part) else NOT_YET
  return found


def full_bodies() -> dict[str, str]:
  """What stands between each pair of markers of the page of evidence."""
  sections = []
  for part, jobs in accelerator.PARTS.items():
    if read_part(part) and part != "compile":
      tells = f"Ratio to the plain step: {part}"
      shown = markers.exhibit(plot_of(part), tells, full_table(part))
      sections.append(f"### {(jobs.__doc__ or part).strip()}\n\n{shown}")
  compiled = "Seconds to compile, as a ratio to those of clip and Adam, on two CPU cores"
  plot, tells = markers.COST / "update_cost.svg", "Ratio to the step with SGD, on two CPU cores"
  return {
    "accelerator": device() + "\n\n" + "\n\n".join(sections),
    "compilation": markers.exhibit(plot_of("compile"), compiled, full_table("compile")),
    "updates": markers.exhibit(plot, tells, *map(update_table, read_updates())),
  }


def main() -> None:
  """Writes plots and tables."""
  for part in accelerator.PARTS:
    if jobs := read_part(part):
      plots.dots(dots_of(part, ways(part, jobs)), "ratio to the plain step", plot_of(part), 1.0)
  plots.dots(update_dots(), "ratio to SGD", markers.COST / "update_cost.svg", 1.0)
  markers.fill(PAGE, bodies())
  markers.fill(EVIDENCE, full_bodies())


if __name__ == "__main__":
  tyro.cli(main)
