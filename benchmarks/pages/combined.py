# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Labels that name a part of what is rare: logit adjustment, example scarcity, and both at once.

The table of stage 4 of `benchmarks.rarity.optimizers`, for `benchmarks.pages.optimizers_page`.
"""

import numpy as np

from benchmarks.harness.tables import markdown
from benchmarks.pages import markers, plots, ten_seeds
from benchmarks.pages.rare_results import ORACLE, values
from benchmarks.rarity import optimizers

PLOT = ten_seeds.plot_of("combined")
# Where the kinds are the classes, the true kinds weigh as class weights do.
COLUMNS = {"a part": optimizers.BOTH, "all": ("LT100",)}  # what labels name
ARMS = ("SGDM", "Muon", *(f"{arm} on Muon" for arm in (*optimizers.ON_BOTH, ORACLE)))


def short(arm: str) -> str:
  """Its name in the table and in the plot."""
  name = arm.removesuffix(" on Muon")
  return name.replace("logit adjustment and example scarcity", "both")


def read() -> ten_seeds.Rows:
  """All rows of stage 4."""
  return ten_seeds.read(4)


def difference(rows: ten_seeds.Rows, column: str, size: int, arm: str, to: str) -> np.ndarray:
  """That of each seed to another arm, in points, the mean over the tasks of a column."""
  each = [ten_seeds.difference(rows, task, size, arm, to) for task in COLUMNS[column]]
  return np.mean(np.array(each), axis=0)


def gaps(rows: ten_seeds.Rows) -> dict[str, dict[str, plots.Interval]]:
  """The difference of every arm to Muon, a panel for each column and batch size."""
  return {
    f"{column}, B={size}": {
      short(arm): ten_seeds.interval(difference(rows, column, size, arm, "Muon"))
      for arm in ARMS
      if arm != "Muon"
    }
    for column in COLUMNS
    for size in ten_seeds.SIZES
  }


def table(rows: ten_seeds.Rows) -> str:
  """Mean recall over kinds, the difference to Muon, and the recall of the worst kind."""
  found = gaps(rows)
  lines = [["labels name", *found]]
  for arm in ARMS:
    cells = []
    for column, tasks in COLUMNS.items():
      for size in ten_seeds.SIZES:
        mean, worst = (
          float(np.mean([values(rows[task, size, arm], figure) for task in tasks]))
          for figure in ("mean", "worst")
        )
        gap = found[f"{column}, B={size}"].get(short(arm))
        cells.append(ten_seeds.cell(mean, gap, worst))
    lines.append([short(arm), *cells])
  return markdown(lines)


def bodies() -> dict[str, str]:
  """What stands between the markers of this table."""
  against = "Difference to Muon in points with 95 % interval"
  return {"named in part": markers.exhibit(PLOT, against, table(read()))}


def draw() -> None:
  """The plot."""
  panels = gaps(read())
  for found in panels.values():
    del found["SGDM"]  # so far behind that the others would fall together
  plots.dots(panels, "points against Muon, 95 % interval", PLOT)
