# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What each option of example scarcity does, on docs/evidence/example-scarcity.md.

python -m benchmarks.pages.options_page
"""

import tyro

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
from gq_optax.trial import arms
from gq_optax.trial.protocol import paired
from gq_optax.trial.tables import markdown

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


def main() -> None:
  """Writes plots and tables."""
  results = read(RESULTS)
  defaults = {arm: arms.find(arm).examples for arm in (FEATURES, OUTPUTS)}
  assert all(d.queue_size == 1024 for d in defaults.values())
  shown = {
    "options": panels(results, 1024, changes(results, queue=False)),
    "queue": {
      title: rows
      for size in (256, 1024)
      for title, rows in panels(results, size, changes(results, queue=True)).items()
    },
    "price": price(results),
  }
  bodies = {}
  priced = markdown([
    ["changed option", "balanced, B=256", "hidden tasks, B=1024: part of the way"],
    *(
      [change, f"{gap[0]:+.1f} [{gap[1]:+.1f}, {gap[2]:+.1f}]", way_of(results, change)]
      for change, gap in shown["price"]["balanced, B=256"].items()
    ),
  ])  # fmt: skip
  for name, found in shown.items():
    against = "SGDM" if name == "price" else "the defaults"
    plots.dots(found, f"points against {against}, 95 % interval", plot_of(name))
    tells = f"Difference to {against} in points with 95 % interval: {name}"
    halves = (
      [found]
      if len(found) < 5
      else [{t: r for t, r in found.items() if t.endswith(f"B={size}")} for size in (256, 1024)]
    )
    tables = [priced] if name == "price" else map(table, halves)
    bodies[name] = markers.exhibit(plot_of(name), tells, *tables)
  markers.fill(PAGE, bodies)


if __name__ == "__main__":
  tyro.cli(main)
