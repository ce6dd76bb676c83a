# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Writes exhibits: tables between the markers of a page, and above them the plot of their cells."""

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.harness.protocol import paired
from benchmarks.pages import plots

ROOT = Path(__file__).parents[2]
DOCS, RESULTS = ROOT / "docs", ROOT / "benchmarks" / "results"
Interval = plots.Interval
Row = dict[str, Any]
EQUAL, OPTIMIZERS = "equal weights", ("SGDM", "AdamW", "Muon", "SGDM, one length")


class Cell(NamedTuple):
  """What stands in a table, and what is plotted of it, if anything."""

  text: str
  value: Any = None  # an interval for dots, a number for bars


NOTHING = Cell("-")


class Table(NamedTuple):
  """A table: `cell(row key, column key)` for each of its rows and columns.

  Attributes:
    corner: what stands above the labels of the rows.
    columns: titles and keys.
    rows: labels and keys; rows without a cell are left out.
    cell: the cell of both keys.
  """

  corner: str
  columns: Mapping[str, Any]
  rows: Mapping[str, Any]
  cell: Callable[[Any, Any], Cell]

  def cells(self) -> dict[str, dict[str, Cell]]:
    """By row and column."""
    found = {
      label: {title: self.cell(row, column) for title, column in self.columns.items()}
      for label, row in self.rows.items()
    }
    return {k: v for k, v in found.items() if any(cell is not NOTHING for cell in v.values())}

  def markdown(self) -> str:
    """The table, its first row the head."""
    lines = [[self.corner, *self.columns]]
    lines += [[label, *(c.text for c in row.values())] for label, row in self.cells().items()]
    text = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([text[0], "|" + "---|" * len(lines[0]), *text[1:]])


class Exhibit(NamedTuple):
  """What stands between a pair of markers.

  Attributes:
    page: below docs/.
    name: of the markers.
    tables: one or more.
    tells: what the plot tells, and its axis; empty for no plot.
    plot: draws panels.
    panels: what is drawn; by default the values of the cells, a panel for each column.
    options: of the plot.
  """

  page: str
  name: str
  tables: Sequence[Table]
  tells: str = ""
  plot: Callable[..., None] = plots.dots
  panels: Callable[[], Any] | None = None
  options: Mapping[str, Any] = {}

  def path(self) -> Path:
    """Of the plot."""
    words = re.sub(r"\W+", "_", f"{Path(self.page).stem} {self.name}").strip("_")
    return RESULTS / f"{words}.svg"

  def body(self) -> str:
    """The plot and the tables as Markdown."""
    parts = [table.markdown() for table in self.tables]
    if self.tells:
      where = Path(os.path.relpath(self.path(), (DOCS / self.page).parent)).as_posix()
      parts = [f"![{self.tells}]({where})", *parts]
    return "\n\n".join(parts)

  def draw(self) -> None:
    """Writes the plot, if there is one."""
    if not self.tells:
      return
    panels: Any = self.panels() if self.panels else {}
    for table in () if self.panels else self.tables:
      for label, row in table.cells().items():
        for title, cell in row.items():
          if cell.value is not None:
            panels.setdefault(title, {})[label] = cell.value
    self.plot(panels, self.tells, self.path(), **self.options)


def between_markers(page: str, body: str, name: str) -> str:
  """The page with the part between its two markers of this name replaced."""
  name = re.escape(name)
  pattern = rf"(<!-- {name} -->\n).*?(\n<!-- end of {name} -->)"
  return re.sub(pattern, lambda m: m[1] + body + m[2], page, flags=re.DOTALL)


def write(exhibits: Iterable[Exhibit], draw: bool = True) -> None:
  """Writes tables, and plots."""
  for exhibit in exhibits:
    page = DOCS / exhibit.page
    text = page.read_text()
    if f"<!-- {exhibit.name} -->\n" not in text:
      raise ValueError(f"page must have the markers {exhibit.name!r}, but {page} has none.")
    page.write_text(between_markers(text, exhibit.body(), exhibit.name))
    if draw:
      exhibit.draw()


# Results and cells


def read(name: str, *keys: str) -> dict[Any, Row]:
  """The rows of a results file by some of their fields; of two of the same the later one.

  An arm is also told as its "weights" and what they are "on".
  """
  found = {}
  for line in (RESULTS / f"{name}.jsonl").read_text().splitlines():
    row = json.loads(line)
    if arm := row.get("arm"):
      weights, _, optimizer = arm.partition(" on ")
      plain = arm in OPTIMIZERS
      row["weights"] = EQUAL if plain else weights
      row["on"] = row.get("optimizer") or optimizer or (arm if plain else "SGDM")
    found[tuple(row[k] for k in keys)] = row
  return found


def percent(row: Row, figure: str = "mean") -> np.ndarray:
  """A figure of every seed."""
  return 100.0 * np.array(row[figure])


def interval(points: Any) -> Interval:
  """The mean over seeds and its 95 % interval."""
  found = paired(points, np.zeros(len(points)))
  return found["mean"], found["low"], found["high"]


def gap(own: Row | None, other: Row | None, figure: str = "mean") -> Interval | None:
  """The paired difference of two arms in points; over the seeds of both."""
  if own is None or other is None or own is other:
    return None
  number = min(len(own[figure]), len(other[figure]))
  return interval(percent(own, figure)[:number] - percent(other, figure)[:number])


def show(found: Interval | None, digits: int = 1) -> str:
  """A difference and its interval."""
  return "{:+.{d}f} [{:+.{d}f}, {:+.{d}f}]".format(*found, d=digits) if found else "-"


def difference(found: Interval | None) -> Cell:
  """A cell with a difference alone."""
  return Cell(show(found), found) if found else NOTHING


def quality(
  own: Row | None,
  other: Row | None,
  figure: str = "mean",
  spread: bool = True,
  worst: str = ".0f",
  verdict: bool = False,
) -> Cell:
  """Mean and deviation over seeds, the difference to another arm, the recall of the worst kind."""
  if own is None:
    return NOTHING
  values, found = percent(own, figure), gap(own, other, figure)
  text = f"{values.mean():.1f}" + (f" ± {values.std(ddof=1):.1f}" if spread else "")
  if found:
    shown = "better" if found[1] > 0 else "worse" if found[2] < 0 else "no difference shown"
    text += f" ({show(found)}{f', {shown}' if verdict else ''})"
  return Cell(text + (f", {percent(own, 'worst').mean():{worst}}" if worst else ""), found)


def ratio(row: Row | None, digits: int = 2, quartiles: bool = True) -> Cell:
  """A ratio with its quartiles."""
  if row is None:
    return NOTHING
  found = tuple(row[k] for k in ("ratio", "ratio_low", "ratio_high"))
  text = "{:.{d}f} ({:.{d}f}, {:.{d}f})" if quartiles else "{:.{d}f}"
  return Cell(text.format(*found, d=digits), found)


def same(*names: str) -> dict[str, str]:
  """Labels that are their own keys."""
  return {name: name for name in names}
