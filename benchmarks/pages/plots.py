# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Plots of the pages: dots with intervals, bars and lines, as small SVG files."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.figure

Interval = tuple[float, float, float]  # mean, low, high
Point = tuple[float, float]

OURS, PLAIN = "#d55e00", "#444444"
OTHERS = ("#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999")
INCH = 0.24  # height of a row
# Text stays text: the files are small, and a reader's own font draws it.
STYLE: Any = {"svg.fonttype": "none", "svg.hashsalt": "gq_optax", "font.size": 9.0}


def is_ours(label: str) -> bool:
  """Whether a way is one of this library's, which the plots colour."""
  ours = ("example scarcity", "group scarcity", "grouped", "whole step", "GQ", "grad_queue")
  return label.startswith(ours) and "at random" not in label


def save(figure: matplotlib.figure.Figure, path: Path) -> None:
  """The same bytes for the same plot; nothing in it tells the time."""
  for ax in figure.axes:
    ax.spines[["top", "right"]].set_visible(False)
  with matplotlib.rc_context(STYLE):
    figure.savefig(path, metadata={"Date": None})
  text = path.read_text()
  path.write_text("\n".join(line.rstrip() for line in text.splitlines()) + "\n")


def _rows(panels: Iterable[Iterable[str]]) -> list[str]:
  """The labels of all panels, in the order of the longest."""
  longest_first = sorted(map(list, panels), key=len, reverse=True)
  return list(dict.fromkeys(label for panel in longest_first for label in panel))


def _short(value: float) -> str:
  """A number behind its bar: 1,478, 39.7, 0.46."""
  return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.{1 if abs(value) >= 10 else 2}f}"


def _grid(panels: Mapping[str, object], labels: Sequence[str]) -> matplotlib.figure.Figure:
  """A figure with a panel for each title, at most four abreast, and one row for each label."""
  across = len(panels) if len(panels) <= 4 else 3
  down = math.ceil(len(panels) / across)
  height = 0.5 + down * (0.5 + INCH * max(len(labels), 3))
  with matplotlib.rc_context(STYLE):
    figure = matplotlib.figure.Figure(figsize=(9.0, height), layout="constrained")
    axes = figure.subplots(down, across, sharey=True, sharex="col", squeeze=False).flat
  for ax in list(axes)[len(panels) :]:
    ax.remove()
  for ax, title in zip(figure.axes, panels, strict=True):
    ax.set_title(title, fontsize=9)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.set_yticks(range(len(labels)), labels)
    ax.grid(axis="y", alpha=0.15)
  for ax in figure.axes[-across:]:  # the lowest of each column, where the last row is not full
    ax.tick_params(axis="x", labelbottom=True)
  return figure


def dots(
  panels: Mapping[str, Mapping[str, Interval]],
  xlabel: str,
  path: Path,
  reference: float = 0.0,
  log: bool = False,
) -> None:
  """A dot and its interval for each row; a line marks what it is held against."""
  panels = {title: rows for title, rows in panels.items() if rows}
  labels = _rows(panels.values())
  figure = _grid(panels, labels)
  for ax, rows in zip(figure.axes, panels.values(), strict=True):
    ax.axvline(reference, color="#888888", linewidth=0.8)
    for label, (mean, low, high) in rows.items():
      color = OURS if is_ours(label) else PLAIN
      ax.plot([low, high], [labels.index(label)] * 2, color=color, linewidth=1.4)
      ax.plot(mean, labels.index(label), "o", color=color, markersize=4)
    if log:
      ax.set_xscale("log")
  figure.supxlabel(xlabel, fontsize=9)
  save(figure, path)


def bars(
  panels: Mapping[str, Mapping[str, float]],
  xlabel: str,
  path: Path,
  reference: float | None = None,
  log: bool = False,
) -> None:
  """A bar for each row, its value behind it."""
  labels = _rows(panels.values())
  figure = _grid(panels, labels)
  for ax, rows in zip(figure.axes, panels.values(), strict=True):
    for label, value in rows.items():
      color = OURS if is_ours(label) else "#9a9a9a"
      ax.barh(labels.index(label), value, color=color, height=0.7)
      side = "left" if value >= 0.0 else "right"
      where = (value, labels.index(label))
      ax.annotate(f" {_short(value)} ", where, va="center", ha=side, fontsize=7)
    if reference is not None:
      ax.axvline(reference, color="black", linewidth=0.8)
    if log:
      ax.set_xscale("log")
    ax.margins(x=0.35)
  figure.supxlabel(xlabel, fontsize=9)
  save(figure, path)


def lines(
  panels: Mapping[str, Mapping[str, Sequence[Point]]], xlabel: str, path: Path, log_x: bool = False
) -> None:
  """A line for each way. With `log_x` the axis doubles from mark to mark."""
  labels = _rows(panels.values())
  others = iter(OTHERS * 3)
  colors = {label: PLAIN if i == 0 else next(others) for i, label in enumerate(labels)}
  if ours := [label for label in labels if is_ours(label)]:
    colors[ours[-1]] = OURS
  with matplotlib.rc_context(STYLE):
    size = (1.2 + 2.6 * len(panels), 3.4)
    figure = matplotlib.figure.Figure(figsize=size, layout="constrained")
    figure.subplots(1, len(panels), squeeze=False)
  handles: dict[str, Any] = {}
  for ax, (title, series) in zip(figure.axes, panels.items(), strict=True):
    for label, points in series.items():
      x, y = zip(*points, strict=True)
      marker = "o-" if len(points) < 10 else "-"
      (line,) = ax.plot(x, y, marker, color=colors[label], linewidth=1.3, markersize=3)
      handles.setdefault(label, line)
    ax.set_title(title, fontsize=9)
    ax.grid(axis="y", alpha=0.2)
    if log_x:
      ticks = sorted({x for points in series.values() for x, _ in points})
      ax.set_xscale("log", base=2)
      ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
      ax.minorticks_off()
  figure.supxlabel(xlabel, fontsize=9)
  figure.legend(
    list(handles.values()), list(handles), loc="outside lower center", ncols=2,
    frameon=False, fontsize=8,
  )  # fmt: skip
  save(figure, path)
