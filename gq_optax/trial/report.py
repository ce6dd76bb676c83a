# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The report of an A/B trial out of its summary: Markdown, PNG, and one HTML page.

python -m gq_optax.trial.report out/trial/summary.json
"""

import base64
import html
import io
import json
import math
from pathlib import Path
from typing import Any

import matplotlib.figure
import numpy as np
import tyro

from gq_optax.trial import tables
from gq_optax.trial.protocol import paired

Rows = list[list[str]]
FIGURES = {
  "mean": "mean accuracy over kinds",
  "accuracy": "accuracy",
  "macro_f1": "macro-F1",
}
WORDS = {"better": "better", "worse": "worse", "not shown to differ": "no difference shown"}


def find(summary: dict[str, Any], arm: str, batch_size: int) -> dict[str, Any] | None:
  """The result of an arm at a batch size, if there is one."""
  for result in summary["results"]:
    if (result["arm"], result["batch_size"]) == (arm, batch_size):
      return result
  return None


def names(summary: dict[str, Any]) -> tuple[list[str], list[int]]:
  """Arms, the baseline first, and batch sizes."""
  results = summary["results"]
  sizes = sorted({r["batch_size"] for r in results})
  return list(dict.fromkeys(r["arm"] for r in results)), sizes


def values(result: dict[str, Any], figure: str) -> np.ndarray:
  """A figure of the test split for every seed, in percent."""
  return 100 * np.array([test[figure] for test in result["test"]])


def verdict(result: dict[str, Any], baseline: dict[str, Any], figure: str) -> str:
  """In words, what the paired interval over the seeds shows."""
  if len(result["test"]) < 2:
    return "one seed, no verdict"
  return WORDS[paired(values(result, figure), values(baseline, figure))["verdict"]]


def quality_table(summary: dict[str, Any], figure: str | None = None) -> Rows:
  """Mean and spread, the paired difference to the baseline, and the verdict."""
  arms, sizes = names(summary)
  figure = figure or summary["trial"]["figure"]
  rows = [["arm", *(f"B={b}" for b in sizes)]]
  for arm in arms:
    cells = []
    for b in sizes:
      result, baseline = find(summary, arm, b), find(summary, arms[0], b)
      if result is None:
        cells.append("-")
        continue
      own = values(result, figure)
      text = f"{own.mean():.1f}"
      if len(own) > 1:
        text += f" ± {own.std(ddof=1):.1f}"
      if arm != arms[0] and baseline is not None and len(own) > 1:
        gap = paired(own, values(baseline, figure))
        text += f" ({gap['mean']:+.1f} [{gap['low']:+.1f}, {gap['high']:+.1f}], "
        text += f"{WORDS[gap['verdict']]})"
      cells.append(text)
    rows.append([arm, *cells])
  return rows


def target_of(summary: dict[str, Any]) -> float:
  """The target asked for, or what the baseline reaches at every batch size, with .01 to spare."""
  given = summary["trial"].get("target")
  if given is not None:
    return float(given)
  arms, sizes = names(summary)
  curves = [find(summary, arms[0], b)["curves_at_rate"] for b in sizes]  # type: ignore[index]
  return round(float(min(np.mean([curve[-1] for curve in c]) for c in curves)) - 0.01, 3)


def steps_to(result: dict[str, Any], target: float) -> float:
  """Median over seeds of the first evaluated step at or above the target; infinite if not half."""
  first = []
  for curve in result["curves_at_rate"]:
    there = [s for s, v in zip(result["curve_steps"], curve, strict=True) if v >= target]
    first.append(there[0] if there else math.inf)
  return float(np.median(first))


def target_table(summary: dict[str, Any]) -> Rows:
  """Steps, and seconds of training, until validation reaches the target."""
  arms, sizes = names(summary)
  target = target_of(summary)
  rows = [[f"to {100 * target:.1f} on validation", *(f"B={b}" for b in sizes)]]
  for arm in arms:
    cells = []
    for b in sizes:
      result = find(summary, arm, b)
      steps = math.inf if result is None else steps_to(result, target)
      cost = summary["cost"].get(str(b), {}).get(arm)
      text = "not reached" if math.isinf(steps) else f"{steps:.0f} steps"
      if cost and not math.isinf(steps):
        text += f", {steps * cost['median']:.2g} s"
      cells.append(text)
    rows.append([arm, *cells])
  return rows


def cost_table(summary: dict[str, Any]) -> Rows:
  """Milliseconds of a step, and the ratio to the baseline's with quartiles."""
  arms, sizes = names(summary)
  rows = [["a step", *(f"B={b}" for b in sizes)]]
  for arm in arms:
    cells = []
    for b in sizes:
      timed = summary["cost"].get(str(b), {}).get(arm)
      text = f"{1e3 * timed['median']:.2f} ms, {tables.quartiles(timed, 2)}" if timed else "-"
      cells.append(text)
    rows.append([arm, *cells])
  return rows


def rate_table(summary: dict[str, Any]) -> Rows:
  """The learning rates chosen; a star marks one on the edge of its grid."""
  arms, sizes = names(summary)
  mark = {True: "", False: " *", None: " (fixed)"}
  cell = lambda r: "-" if r is None else f"{r['rate']:g}{mark[r['rate_inside_grid']]}"
  rows = [["learning rate", *(f"B={b}" for b in sizes)]]
  return rows + [[a, *(cell(find(summary, a, b)) for b in sizes)] for a in arms]


def sentences(summary: dict[str, Any]) -> list[str]:
  """The plain verdict: one sentence an arm."""
  arms, sizes = names(summary)
  figure, found = summary["trial"]["figure"], []
  for arm in arms[1:]:
    by_word: dict[str, list[str]] = {}
    for b in sizes:
      result, baseline = find(summary, arm, b), find(summary, arms[0], b)
      if result is not None and baseline is not None:
        by_word.setdefault(verdict(result, baseline, figure), []).append(str(b))
    parts = [f"{word} at B = {', '.join(where)}" for word, where in by_word.items()]
    found.append(f"{arm} against {arms[0]}: {'; '.join(parts)}.")
  return found


def plot(summary: dict[str, Any]) -> matplotlib.figure.Figure:
  """Quality against batch size, learning-rate sensitivity, and the course of training."""
  arms, sizes = names(summary)
  tuned = any(r["validation_by_rate"] for r in summary["results"])
  columns = max(len(sizes), 2)
  figure = matplotlib.figure.Figure(figsize=(3.6 * columns + 2.6, 9.6), layout="constrained")
  grid = figure.add_gridspec(3, columns)
  top = figure.add_subplot(grid[0, :])
  what = summary["trial"]["figure"]
  styles = [("-", "--", ":")[i % 3] for i in range(len(arms))]
  for i, arm in enumerate(arms):
    found = [(b, values(r, what)) for b in sizes if (r := find(summary, arm, b))]
    middle = [own.mean() for _, own in found]
    spread = [own.std(ddof=1) if len(own) > 1 else 0.0 for _, own in found]
    # Beside each other, so that the bars can be told apart.
    shift = 1.0 + 0.03 * (i - len(arms) / 2)
    where = [b * shift for b, _ in found]
    top.errorbar(where, middle, spread, linestyle=styles[i], marker="o", markersize=4, label=arm)
  top.set_xscale("log", base=2)
  top.set_xticks(sizes, [str(b) for b in sizes])
  top.set_xlabel("batch size")
  top.set_ylabel(f"test, {FIGURES[what]}, %")
  top.legend(fontsize=8, bbox_to_anchor=(1.01, 1.0), loc="upper left", frameon=False)
  for column, b in enumerate(sizes):
    rates, course = (figure.add_subplot(grid[row, column]) for row in (1, 2))
    for i, arm in enumerate(arms):
      result = find(summary, arm, b)
      if result is None:
        continue
      if tuned:
        pairs = [(float(r), 100 * s) for r, s in result["validation_by_rate"].items()]
        rates.plot(*zip(*pairs, strict=True), styles[i], color=f"C{i % 10}", marker=".")
      curve = 100 * np.mean(result["curves_at_rate"], axis=0)
      course.plot(result["curve_steps"], curve, styles[i], color=f"C{i % 10}")
    if tuned:  # rates that diverged would flatten the rest
      best = max(s for r in summary["results"] for s in r["validation_by_rate"].values())
      rates.set_ylim(bottom=max(100 * best - 30.0, 0.0))
    rates.set_xscale("log")
    rates.set_xlabel(f"learning rate, B={b}")
    course.set_xlabel(f"step, B={b}")
    course.axhline(100 * target_of(summary), color="grey", linewidth=0.6)
    for ax in (rates, course):
      ax.set_ylabel("validation, %")
  for ax in figure.axes:
    ax.spines[["top", "right"]].set_visible(False)
  return figure


def sections(summary: dict[str, Any]) -> list[tuple[str, str, Rows]]:
  """Heading, a sentence and a table for each part of the report."""
  seeds, what = summary["trial"]["seeds"], FIGURES[summary["trial"]["figure"]]
  kinds = "the hidden ones" if summary["trial"]["hidden"] is not None else "the classes"
  outside = [r for r in summary["results"] if r["rate_inside_grid"] is False]
  edge = (
    f"{len(outside)} of them lie on the edge of their grid (*): their arms may do better."
    if outside
    else "Each lies inside its grid."
  )
  if summary["trial"]["fixed_rate"] is not None:
    edge = "One fixed rate for all: no arm is tuned, so differences may be the rate's alone."
  return [
    (
      "Quality",
      f"{what[0].upper()}{what[1:]} on the test split, in percent (kinds are {kinds}): mean ±"
      f" standard deviation over {seeds} seeds, and the paired difference to the first arm with its"
      " 95 % interval. The intervals are not corrected for the number of comparisons.",
      quality_table(summary),
    ),
    ("The worst kind", "Accuracy of the kind recognised worst.", quality_table(summary, "worst")),
    (
      "Steps to a target",
      "Median over seeds, at the learning rate chosen for the end of training, looked at"
      f" {summary['trial']['evaluations']} times in a run; seconds are steps times their cost.",
      target_table(summary),
    ),
    (
      "Cost of a step",
      "Median, and ratio to the first arm with quartiles, taken in turn in one run.",
      cost_table(summary),
    ),
    ("Learning rates", f"Chosen on the validation split. {edge}", rate_table(summary)),
  ]


def headline(summary: dict[str, Any]) -> str:
  """What was trained on what."""
  trial, environment = summary["trial"], summary["environment"]
  what = trial["npz"] or trial["data"]
  changes = [
    f"long tail 1:{trial['imbalance']:g}" if trial["imbalance"] else "",
    f"classes hidden in two ({trial['hidden']})" if trial["hidden"] is not None else "",
    f"{trial['noise']} noise {trial['noise_rate']:g}" if trial["noise"] else "",
  ]
  made = ", ".join([what, *(c for c in changes if c)])
  versions = ", ".join(f"{k} {v}" for k, v in environment.items() if k != "commit")
  return (
    f"{made}; model {trial['model']}; {summary['training_examples']} training examples,"
    f" {summary['classes']} classes. {versions}; commit {environment['commit'][:12]}."
  )


def markdown(summary: dict[str, Any]) -> str:
  """The report as Markdown; its picture is report.png beside it."""
  parts = ["# A/B trial", headline(summary), "\n".join(f"* {s}" for s in sentences(summary))]
  parts.append("![Quality, learning rates and course of training](report.png)")
  for heading, text, rows in sections(summary):
    parts += [f"## {heading}", text, tables.markdown(rows)]
  return "\n\n".join(parts) + "\n"


_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; background: #fff }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto }
th, td { padding: .3rem .8rem; border-bottom: 1px solid #ddd; text-align: left;
  font-variant-numeric: tabular-nums }
img { max-width: 100% }
"""


def page(summary: dict[str, Any], png: bytes) -> str:
  """The report as one HTML page that needs no other file."""
  text = lambda s: html.escape(s)
  row = lambda cells, tag: "<tr>" + "".join(f"<{tag}>{text(c)}</{tag}>" for c in cells) + "</tr>"
  parts = ["<h1>A/B trial</h1>", f"<p>{text(headline(summary))}</p>", "<ul>"]
  parts += [f"<li>{text(s)}</li>" for s in sentences(summary)]
  image = base64.b64encode(png).decode()
  parts.append(f'</ul><img alt="plots" src="data:image/png;base64,{image}">')
  for heading, sentence, rows in sections(summary):
    body = "".join(row(r, "td") for r in rows[1:])
    parts.append(f"<h2>{text(heading)}</h2><p>{text(sentence)}</p>")
    parts.append(f"<table>{row(rows[0], 'th')}{body}</table>")
  return (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>A/B trial</title>'
    f"<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>"
  )


def write(summary: dict[str, Any], folder: Path) -> None:
  """Writes report.md, report.png and report.html."""
  memory = io.BytesIO()
  plot(summary).savefig(memory, format="png", dpi=120)
  (folder / "report.png").write_bytes(memory.getvalue())
  (folder / "report.md").write_text(markdown(summary))
  (folder / "report.html").write_text(page(summary, memory.getvalue()))


def main(summary: tyro.conf.Positional[Path]) -> None:
  """Writes the report beside a summary.json.

  Args:
    summary: the file.
  """
  write(json.loads(summary.read_text()), summary.parent)


if __name__ == "__main__":
  tyro.cli(main)
