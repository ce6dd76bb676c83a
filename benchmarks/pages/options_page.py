# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What each option of example scarcity does, on docs/evidence/example-scarcity.md.

python -m benchmarks.pages.options_page
"""

import tyro

from benchmarks.harness.protocol import paired
from benchmarks.harness.tables import markdown
from benchmarks.pages import markers, plots
from benchmarks.pages.examples_page import FEATURES, OUTPUTS, PAGE, plot_of
from benchmarks.pages.rare_results import (
  RESULTS,
  Results,
  hidden_tasks,
  part_of_way,
  read,
  values,
)

TASKS = {"hidden7": FEATURES, "mnist hidden6": FEATURES, "LT100": OUTPUTS}


def difference(results: Results, task: str, size: int, arm: str) -> plots.Interval | None:
  """In points to the same arm with its defaults, over the seeds of both."""
  own, base = results.get((task, size, arm)), results.get((task, size, arm.partition(";")[0]))
  if own is None or base is None:
    return None
  found = paired(values(own, "mean"), values(base, "mean")[: len(own["test"])])
  return found["mean"], found["low"], found["high"]


def changes(results: Results, queue: bool) -> list[str]:
  """The options that were changed, one at a time: those of the queue, or all others."""
  arms_there = {arm for task, _, arm in results if task in TASKS}
  found = {
    arm.partition("; ")[2] for arm in arms_there if arm.startswith(tuple(set(TASKS.values())))
  }
  single = (c for c in found if c and ";" not in c and " on " not in c)
  order = lambda c: (c.partition("=")[0], float(c.partition("=")[2]))
  return sorted((c for c in single if c.startswith("queue_size") == queue), key=order)


def panels(results: Results, size: int, chosen: list[str]) -> dict[str, dict[str, plots.Interval]]:
  """A panel for each task, a row for each change."""
  found = {}
  for task, base in TASKS.items():
    rows = {c: difference(results, task, size, f"{base}; {c}") for c in chosen}
    there = {c: gap for c, gap in rows.items() if gap is not None}
    if there:
      found[f"{task}, B={size}"] = there
  return found


def table(found: dict[str, dict[str, plots.Interval]]) -> str:
  """One row for each change, one column for each task."""
  rows = [["changed option", *found]]
  for change in dict.fromkeys(c for panel in found.values() for c in panel):
    there = [panel.get(change) for panel in found.values()]
    show = lambda gap: "-" if gap is None else f"{gap[0]:+.1f} [{gap[1]:+.1f}, {gap[2]:+.1f}]"
    rows.append([change, *map(show, there)])
  return markdown(rows)


def price(results: Results) -> dict[str, dict[str, plots.Interval]]:
  """Balanced data at B = 256: the difference to SGDM with other options of features."""
  base = values(results["balanced", 256, "SGDM"], "mean")
  rows = {}
  for task, size, arm in sorted(results):
    if (task, size) == ("balanced", 256) and arm.startswith(FEATURES):
      found = paired(values(results[task, size, arm], "mean"), base)
      rows[arm.partition("; ")[2] or "defaults"] = found["mean"], found["low"], found["high"]
  return {"balanced, B=256": rows}


def way_of(results: Results, change: str) -> str:
  """Part of the way over the hidden tasks, where all of them were run."""
  arm = FEATURES if change == "defaults" else f"{FEATURES}; {change}"
  part = part_of_way(results, arm, 1024)
  return "-" if part is None or part[1] < len(hidden_tasks(results)[0]) else f"{part[0]:.2f}"


def shown(results: Results) -> dict[str, dict[str, dict[str, plots.Interval]]]:
  """The panels between each pair of markers."""
  of_queue = changes(results, queue=True)
  return {
    "options": panels(results, 1024, changes(results, queue=False)),
    "queue": panels(results, 256, of_queue) | panels(results, 1024, of_queue),
    "price": price(results),
  }


def against(name: str) -> str:
  """What the differences of a pair of markers are to."""
  return "SGDM" if name == "price" else "the defaults"


def bodies(results: Results) -> dict[str, str]:
  """What stands between each pair of markers."""
  found = {}
  for name, there in shown(results).items():
    tables = [table(there)]
    if name == "price":
      tables = [price_table(results, there)]
    elif name == "queue":
      sizes = [{t: r for t, r in there.items() if t.endswith(f"B={b}")} for b in (256, 1024)]
      tables = [table(part) for part in sizes if part]
    tells = f"Difference to {against(name)} in points with 95 % interval: {name}"
    found[name] = markers.exhibit(plot_of(name), tells, *tables)
  return found


def price_table(results: Results, found: dict[str, dict[str, plots.Interval]]) -> str:
  """The price on balanced data beside what is gained on the hidden tasks."""
  rows = [["changed option", "balanced, B=256", "hidden tasks, B=1024: part of the way"]]
  for change, gap in found["balanced, B=256"].items():
    rows.append([change, f"{gap[0]:+.1f} [{gap[1]:+.1f}, {gap[2]:+.1f}]", way_of(results, change)])
  return markdown(rows)


def main() -> None:
  """Writes plots and tables."""
  results = read(RESULTS)
  for name, found in shown(results).items():
    plots.dots(found, f"points against {against(name)}, 95 % interval", plot_of(name))
  markers.fill(PAGE, bodies(results))


if __name__ == "__main__":
  tyro.cli(main)
