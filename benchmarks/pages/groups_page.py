# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The tables of docs/real-groups.md, out of the results of `rare_kinds` in `real_groups`.

    python -m benchmarks.pages.groups_page

Groups of people that nobody tells, and kinds hidden in the features of a frozen network.
"""

from typing import Any

import numpy as np

from benchmarks.pages import markers
from benchmarks.pages.rarity_page import ORACLE, Results, cell, read, values
from gq_optax.trial.tables import markdown

PAGE = markers.DOCS / "real-groups.md"
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


def bodies(results: Results) -> dict[str, str]:
  """What stands between each pair of markers."""
  tasks = list(dict.fromkeys(task for task, _, _ in results))
  frozen = [task for task in tasks if task.startswith("frozen")]
  found = {}
  for task in (task for task in PEOPLE if task in tasks):
    found[task] = table(results, task, False)
    found[f"{task} by class"] = table(results, task, True)
  if frozen:
    found["frozen"] = "\n\n".join(table(results, task, False) for task in sorted(frozen))
  return found


def main() -> None:
  """Writes the tables."""
  page = PAGE.read_text()
  for marker, body in bodies(read(RESULTS)).items():
    page = markers.between_markers(page, body, marker)
  PAGE.write_text(page)


if __name__ == "__main__":
  main()
