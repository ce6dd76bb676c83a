# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The report: one headline, the rarest class, the rows that fail; tables and details below."""

import base64
import io
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import matplotlib.figure
import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix

from gq_optax.trial import alarms, comparison, failing
from gq_optax.trial.rows import Rows

SHOWN = 50  # rows of the table
PICTURED = 12
CLASSES = 12  # of a confusion matrix


def percent(value: float | None) -> str:
  """A share in percent, or a dash."""
  return "-" if value is None or np.isnan(value) else f"{100 * value:.1f}"


class Told(NamedTuple):
  """What a report is made of.

  Attributes:
    own: the rows.
    seen: what was said before training.
    compared: of `comparison.compare`.
    baseline: the best plain arm.
    taken: the arm to take.
    validation: of each arm.
    found: the rows that fail.
    frame: rows.csv.
    logits: `[S, m, C]` of each arm, on the rows that are tested.
    labels: `[m]`, theirs.
    answers: of each arm.
    notes: sentences.
    bench: what all runs shared.
    more: figures beside the classes.
  """

  own: Rows
  seen: Any
  compared: list[dict[str, Any]]
  baseline: str
  taken: str
  validation: dict[str, float]
  found: failing.Failing
  frame: pd.DataFrame
  logits: dict[str, np.ndarray]
  labels: np.ndarray
  answers: dict[str, Any]
  notes: list[str]
  bench: Any
  more: list[comparison.Figure]


def sentences(told: Told) -> list[str]:
  """The headline first."""
  unequal = max(told.seen.trained) >= 1.5 * max(1, min(told.seen.trained))
  first = comparison.advice(unequal, told.own.images, told.baseline)
  if told.seen.missing:
    found = [f"Undecided: {'; '.join(told.seen.missing)}. Until then: {first}."]
  else:
    say = lambda one: comparison.sentence(one, told.baseline, told.validation)
    gaps = [a["gap"] for one in told.compared for a in one["arms"].values() if a["gap"]]
    found = [say(one) for one in sorted(told.compared, key=lambda one: not comparison.winners(one))]
    if not gaps:
      found = [f"Nothing was held against {told.baseline}; the rows that fail are below."]
    elif told.taken != told.baseline:
      found.append(f"Take {told.taken}.")
    elif any(not np.isnan(gap.low) for gap in gaps):
      found.append(f"Stay with {told.baseline}.")
    else:
      found = [f"Undecided: no figure has rows enough to tell. Until then: {first}.", *found]
  fails, check = told.found.fails, told.found.check
  found.append(
    f"{fails.sum()} of {len(fails)} rows fail by {told.baseline}. Of these"
    f" {(check == failing.ALIKE).sum()} have many alike, and {(check == failing.ALONE).sum()} may"
    " have a wrong label."
  )
  found += [_slice_sentence(one, told.own.classes) for one in told.found.found[:3]]
  rare = np.argsort(-told.found.rarity)[:SHOWN]
  some = f"of the {len(rare)} rows that are rarest by features {fails[rare].sum()} fail"
  if fails[rare].mean() < 3 * fails.mean():
    return [*found, f"What is rare by features is not what fails: {some}."]
  return [*found, f"{some[0].upper()}{some[1:]}."]


def summarise(told: Told) -> dict[str, Any]:
  """All that the report says, ready for JSON."""
  rows, bench = [], told.bench
  for name in told.logits:
    cells = [name]
    for one in told.compared:
      value, gap = (one["arms"][name][k] for k in ("value", "gap"))
      shown = gap is not None and not told.seen.missing
      cells.append(percent(value) + (f" ({comparison.span(gap)})" if shown else ""))
    rows.append(cells)
  plain = lambda a: {"value": a["value"], "gap": None if a["gap"] is None else list(a["gap"])}
  unnamed = ["kind"] if (told.frame["kind"] == "").all() else []
  frame = told.frame.drop(columns=["rarity_by_features", *unnamed])
  frame.insert(3, "check", frame.pop("check"))  # what to do with a row, before figures of it
  return {
    "top": sentences(told),
    "notes": [*told.seen.says, *told.notes],
    "baseline": told.baseline,
    "taken": told.taken,
    "arms": {"head": ["arm", *(one["name"] for one in told.compared)], "rows": rows},
    "compared": [
      {**one, "arms": {n: plain(a) for n, a in one["arms"].items()}} for one in told.compared
    ],
    "alarms": _alarms(told),
    "slices": _slices(told.found, told.own.classes),
    "random": len(told.found.random),
    "confusion": _confusion(told.logits[told.baseline], told.labels, told.own.classes),
    "rates": [
      [n, ", ".join(f"{r:.3g}" for r in a.rates), f"{a.edge} of {len(a.rates)}"]
      for n, a in told.answers.items()
    ],
    "setting": f"{bench.network} network, batches of {bench.batch_size}, {bench.steps} steps,"
    f" {bench.seeds} seeds for each of {len(bench.splits)} splits",
    "failing": frame.head(SHOWN).astype(str).values.tolist(),
    "failing_head": [column.replace("_", " ") for column in frame.columns],
  }


def _slice_sentence(one: dict[str, Any], classes: list[str]) -> str:
  rest, effect = one["recall of the rest"], one["effect"]
  return (
    f"Slice {one['slice']} of {classes[one['label']]}: recall {percent(one['recall'])} on"
    f" {one['size']} rows of the half that it was not found on;"
    f" {'nothing else is of the class' if rest is None else percent(rest)}"
    f"{'' if rest is None else ' on the rest of the class'}."
    f"{'' if effect is None or effect < 0.0 else ' It does not fail there: take it for chance.'}"
  )


def _slices(found: failing.Failing, classes: list[str]) -> list[list[str]]:
  tell = lambda one, name: [
    name, classes[one["label"]], str(one["found"]), str(one["size"]), percent(one["recall"]),
    percent(one["recall of the rest"]), percent(one["effect"]),
  ]  # fmt: skip
  rows = [tell(one, f"slice {one['slice']}") for one in found.found]
  return rows + [tell(one, f"random {one['slice']}") for one in found.random]


def _alarms(told: Told) -> list[list[str]]:
  """Recall of every class, slice and kind at a few false alarms, by the baseline and the best."""
  strata = [
    (name, np.where(told.labels == c, 0, -1), c)
    for c, name in enumerate(told.own.classes[:CLASSES])
  ]
  short = lambda figure: figure.name.removeprefix("recall of ").partition(" at ")[0]
  strata += [(short(f), f.strata, f.label) for f in told.more if f.label is not None]
  rows = []
  for name, stratum, label in strata:
    own = stratum >= 0
    for arm in dict.fromkeys((told.baseline, told.taken)) if own.any() else ():
      hits = [alarms.hits(told.logits[arm], told.labels, label, at)[:, own] for at in alarms.LEVELS]
      rows.append([name, arm, str(int(own.sum())), *(percent(float(h.mean())) for h in hits)])
  return rows


def _confusion(logits: np.ndarray, labels: np.ndarray, classes: list[str]) -> list[list[str]]:
  """Mean counts over seeds; of many classes the pairs that are mistaken most."""
  tables = [
    confusion_matrix(labels, own.argmax(axis=-1), labels=range(len(classes))) for own in logits
  ]
  table = np.mean(tables, axis=0)
  number = lambda v: f"{v:.1f}".removesuffix(".0")
  if len(classes) <= CLASSES:
    head = ["mean of seeds", *(f"taken for {c}" for c in classes)]
    return [head, *([c, *map(number, row)] for c, row in zip(classes, table, strict=True))]
  np.fill_diagonal(table, 0)
  pairs = [np.unravel_index(i, table.shape) for i in np.argsort(-table, axis=None)[:CLASSES]]
  rows = [[classes[a], classes[b], number(table[a, b])] for a, b in pairs]
  return [["class", "taken for", "rows, mean of seeds"], *rows]


def pictures(own: Rows, frame: pd.DataFrame, pool: np.ndarray) -> matplotlib.figure.Figure:
  """Rows that fail, the highest held-out loss first: images; else values, of tables deviations."""
  figure = matplotlib.figure.Figure(figsize=(4.2, 5.6), layout="constrained")
  shown = frame[frame["label"] != frame["predicted"]].head(PICTURED)
  for ax, (i, row) in zip(figure.subplots(4, 3).flat, shown.iterrows(), strict=False):
    x = own.x[pool[i]]
    if own.images:
      ax.imshow(x, cmap="gray" if x.ndim == 2 else None)
    elif x.ndim == 1 and len(x) < 16:
      deviation = (x - own.x.mean(axis=0)) / np.maximum(own.x.std(axis=0), 1e-12)
      ax.barh(own.columns or range(len(x)), deviation, color="#0072b2")
      ax.axvline(0, color="#888", lw=0.6)
    else:
      ax.plot(x.reshape(len(x), -1), lw=0.8)
    ax.tick_params(labelsize=5)
    if own.images:
      ax.set_axis_off()
    ax.set_title(f"{row['row']}: {row['label']},\ntaken for {row['predicted']}", fontsize=7)
  for ax in figure.axes[len(shown) :]:
    ax.set_axis_off()
  return figure


def differences(summary: dict[str, Any]) -> matplotlib.figure.Figure:
  """Differences to the baseline with their intervals, a panel for each figure."""
  told = [t for t in summary["compared"] if any(a["gap"] for a in t["arms"].values())]
  height = sum(0.9 + 0.24 * len(t["arms"]) for t in told) or 1
  figure = matplotlib.figure.Figure(figsize=(4.6, height), layout="constrained")
  for ax, one in zip(np.atleast_1d(figure.subplots(max(1, len(told)), 1)), told, strict=False):
    gaps = {n: a["gap"] for n, a in one["arms"].items() if a["gap"]}
    for y, (_name, (mean, low, high, _)) in enumerate(reversed(list(gaps.items()))):
      if not np.isnan(low):
        ax.plot([100 * low, 100 * high], [y, y], color="#0072b2", lw=2)
      ax.plot([100 * mean], [y], "o", color="#0072b2", ms=4)
    ax.axvline(0, color="#888", lw=0.8)
    ax.set_yticks(range(len(gaps)), list(reversed(gaps)), fontsize=8)
    ax.set_ylim(-0.6, len(gaps) - 0.4)
    ax.set_title(f"{one['name']}, points over {summary['baseline']}", fontsize=8.5, loc="right")
    ax.tick_params(axis="x", labelsize=8)
  return figure


def _png(figure: matplotlib.figure.Figure) -> str:
  memory = io.BytesIO()
  figure.savefig(memory, format="png", dpi=130)
  return f"data:image/png;base64,{base64.b64encode(memory.getvalue()).decode()}"


def write(folder: Path, summary: dict[str, Any], own: Rows, frame: pd.DataFrame) -> None:
  """Writes report.html, one page that needs no other file."""
  pool = np.arange(len(own.labels)) if own.test is None else np.flatnonzero(~own.test)
  page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
    Path(__file__).with_name("report.html").read_text()
  )
  shown = {"failing": _png(pictures(own, frame, pool)), "arms": _png(differences(summary))}
  (folder / "report.html").write_text(page.render(s=summary, pictures=shown, pictured=PICTURED))
