# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The report of a trial: three or four sentences, then tables, as Markdown and as one HTML page.

python -m gq_optax.trial.page out/trial/summary.json
"""

import base64
import html
import io
import json
from pathlib import Path
from typing import Any

import matplotlib.figure
import numpy as np
import tyro

from gq_optax.trial import reading, report, sentences, tables
from gq_optax.trial.report import Rows, find, names

Summary = dict[str, Any]
Section = tuple[str, str, list[Rows]]
MOST = 30  # rows of a table of kinds
CLASSES = 12  # of a confusion matrix
LONG = 16  # letters of a cell that wants some width on a narrow screen


def percent(value: float | None) -> str:
  """A share in percent, or a dash."""
  return "-" if value is None else f"{100 * value:.1f}"


def quality(summary: Summary, what: str) -> Rows:
  """For each arm and batch size "figure", "class" or "rarest", and what differs."""
  arms, sizes = names(summary)
  rows = [["arm", *(f"B={b}" for b in sizes)]]
  for arm in arms:
    cells = []
    for b in sizes:
      result = find(summary, arm, b)
      if result is None:
        cells.append("-")
        continue
      cell = percent(result[what])
      if what == "figure" and not summary["repeated"] and len(result["test"]) > 1:
        cell += f" ± {report.values(result, summary['trial']['figure']).std(ddof=1):.1f}"
      if gap := result.get("against", {}).get(what):
        cell += f" ({sentences.span(gap)}, {gap['verdict'] or 'no verdict'})"
      cells.append(cell + (", here K = 1" if "K=B/64" in arm and b < 128 else ""))
    rows.append([arm + (" (baseline)" if arm == summary["baseline"] else ""), *cells])
  return rows


def shown(summary: Summary) -> tuple[int, list[dict[str, Any]]]:
  """The batch size that is told in detail, where the baseline is best, and the arms that are.

  These are the baseline and whatever else does best on validation there, and the oracle.
  """
  at = sentences.best([r for r in summary["results"] if r["arm"] == summary["baseline"]])
  found, b = [at], at["batch_size"]
  rivals = [r for r in sentences.contenders(summary) if r["batch_size"] == b]
  if rivals:
    found.append(sentences.best(rivals))
  found += [r for r in summary["results"] if "oracle" in r["arm"] and r["batch_size"] == b]
  return b, found


def counts(number: dict[str, list[int]], names: list[str]) -> Rows:
  """Examples of every class or kind in every split, the rarest first."""
  order = np.argsort(next(iter(number.values())), kind="stable")[:MOST]
  cells = lambda k: [str(own[k]) for own in number.values()]
  return [["", *number], *([names[k], *cells(k)] for k in order)]


def by_class(summary: Summary, told: list[dict[str, Any]]) -> Rows:
  """Recall, precision and support of every class."""
  heads = [f"{what}, {r['arm']}" for r in told for what in ("recall", "precision")]
  rows = [["class", "tested", *heads]]
  for c in range(min(summary["classes"], MOST)):
    support = sum(told[0]["reading"]["confusion"][c])
    cells = [percent(r["reading"][what][c]) for r in told for what in ("recall", "precision")]
    rows.append([str(c), f"{support:.0f}", *cells])
  return rows


def by_kind(summary: Summary, told: list[dict[str, Any]]) -> Rows:
  """Recall of every kind, the worst of the baseline first."""
  recalls = [r["reading"]["recall_of_kinds"] for r in told]
  there = [k for k, value in enumerate(recalls[0]) if value is not None]
  order = sorted(there, key=lambda k: recalls[0][k])[:MOST]
  cells = lambda k: [percent(own[k]) for own in recalls]
  tested = lambda k: str(summary["counts"]["test"][k])
  rows = [[summary["kind_names"][k], tested(k), *cells(k)] for k in order]
  return [["kind", "tested", *(f"recall, {r['arm']}" for r in told)], *rows]


def worst_kinds(summary: Summary, told: list[dict[str, Any]]) -> str:
  """The worst kind of each arm by its name."""
  found = []
  for result in told:
    recalls = result["reading"]["recall_of_kinds"]
    k = min((k for k, v in enumerate(recalls) if v is not None), key=lambda k: recalls[k])
    name, tested = summary["kind_names"][k], summary["counts"]["test"][k]
    found.append(f"{result['arm']}: {name}, recall {percent(recalls[k])} ({tested} tested)")
  return "The worst kind of " + "; ".join(found) + "."


def confusion(result: dict[str, Any]) -> Rows:
  """Examples of each class by the class that they were taken for; of many classes the worst."""
  table = np.array(result["reading"]["confusion"])
  number = lambda value: f"{value:.1f}".removesuffix(".0")
  if len(table) <= CLASSES:
    rows = [[str(c), *(number(value) for value in table[c])] for c in range(len(table))]
    return [[result["arm"], *(f"taken for {c}" for c in range(len(table)))], *rows]
  np.fill_diagonal(table, 0.0)
  order = np.argsort(-table, axis=None)[:CLASSES]
  pairs = [np.unravel_index(i, table.shape) for i in order]
  rows = [[str(c), str(d), number(table[c, d])] for c, d in pairs]
  return [[f"{result['arm']}: class", "taken for", "examples"], *rows]


def rare_class(summary: Summary, at: int) -> Rows:
  """What finding the rarest class costs, for every arm."""
  c = summary["rarest_class"]
  alarms = f"false alarms in 1,000 others at a recall of {100 * reading.RECALL:.0f}"
  rows = [["arm", "recall", "precision", "average precision", alarms]]
  for r in (r for r in summary["results"] if r["batch_size"] == at):
    own = r["reading"]
    cells = [percent(own["recall"][c]), percent(own["precision"][c])]
    cells.append(percent(own["average_precision"]))
    cells.append("-" if own["false_alarms"] is None else f"{own['false_alarms']:.1f}")
    rows.append([r["arm"], *cells])
  return rows


def rare_examples(summary: Summary, told: list[dict[str, Any]]) -> list[Rows]:
  """Recall by tenths of rarity, and the rarest training examples."""
  tenths = ["rarest tenth", *(f"{i}th" for i in range(2, 10)), "commonest tenth"]
  tenths[1:3] = ["2nd", "3rd"]
  deciles = [[r["arm"], *map(percent, r["reading"]["by_decile"])] for r in told]
  word = lambda example: f"{example[0]} (class {example[1]})"
  near = lambda r: zip(r["neighbours"], r["cosine"], strict=True)
  rare = [
    [word(r["example"]), *(f"{word(n)}, {cosine:.2f}" for n, cosine in near(r))]
    for r in summary["rarity"]
  ]
  heads = [f"neighbour {i + 1}, cosine" for i in range(len(rare[0]) - 1)]
  return [[["recall", *tenths], *deciles], [["row of training", *heads], *rare]]


def sections(summary: Summary) -> list[Section]:
  """Heading, a few sentences and tables for each part of the report."""
  at, told = shown(summary)
  number, what = summary["trial"]["seeds"], sentences.figure_name(summary)
  seeds = f"{number} seed{'s' * (number != 1)}"
  edge = [r for r in summary["results"] if r["rate_inside_grid"] is False]
  rates = "Each lies inside its grid."
  if edge:
    rates = f"{len(edge)} lie on the edge of their grid (*): their arms may do better."
  if any(r["rate_inside_grid"] is None for r in summary["results"]):
    rates = "A rate that is fixed was not tuned, so a difference may be the rate's alone."
  classes = [f"class {c}" for c in range(summary["classes"])]
  tested = [counts(summary["class_counts"], classes)]
  if summary["has_kinds"]:
    tested.append(counts(summary["counts"], summary["kind_names"]))
  found: list[Section] = [
    (
      "Quality",
      f"{what[0].upper()}{what[1:]} on the test examples, in percent, over {seeds}; in"
      " brackets the difference to the baseline with its interval. The interval covers the seeds"
      " and the test examples (a bootstrap over both, the same draws for both arms). It is so wide"
      " that in 95 % of trials no verdict in the table is wrong.",
      [quality(summary, "figure")],
    ),
    *(
      (f"Recall of the rarest{more}: {name}", "", [quality(summary, what)])
      for what, more, name in sentences.rare_ones(summary)
    ),
    ("What was tested", " ".join(summary["notes"]), tested),
    (f"Classes at B = {at}", "", [by_class(summary, told)]),
  ]
  if summary["has_kinds"]:
    found.append((f"Kinds at B = {at}", worst_kinds(summary, told), [by_kind(summary, told)]))
  else:
    text = (
      "The baseline tells how rare an example is: by how few training examples resemble it in its"
      " features. Recall from the rarest tenth of the test examples to the commonest; below it the"
      " rarest training examples, by row, with those that resemble them most."
    )
    found.append((f"Rare examples at B = {at}", text, rare_examples(summary, told)))
  return [
    *found,
    (
      f"Class {summary['rarest_class']}, the rarest, at B = {at}",
      "Average precision and false alarms do not depend on a threshold; recall and precision do.",
      [rare_class(summary, at)],
    ),
    (
      f"Who is taken for whom at B = {at}",
      "A row is a class, a column what its test examples were taken for.",
      [confusion(r) for r in told],
    ),
    (
      "Steps to a target",
      "Median over seeds, at the learning rate chosen for the end of training, looked at"
      f" {summary['trial']['evaluations']} times in a run; seconds are steps times their cost.",
      [report.target_table(summary)],
    ),
    (
      "Cost of a step",
      "Median time, and ratio to the baseline with quartiles. Steps are timed in turn. The ratio is"
      " the median over pairs, so it may differ from the ratio of the two medians.",
      [report.cost_table(summary)],
    ),
    ("Learning rates", f"Chosen on validation. {rates}", [report.rate_table(summary)]),
  ]


def pictures(summary: Summary, images: np.ndarray) -> matplotlib.figure.Figure:
  """The rarest training examples, each with its neighbours beside it."""
  rows = summary["rarity"]
  width = 1 + len(rows[0]["neighbours"])
  figure = matplotlib.figure.Figure(figsize=(1.3 * width, 1.45 * len(rows)), layout="constrained")
  grid = figure.subplots(len(rows), width, squeeze=False)
  for axes, row in zip(grid, rows, strict=True):
    for ax, (i, label) in zip(axes, [row["example"], *row["neighbours"]], strict=True):
      image = images[i].astype(np.float32)
      low, high = float(image.min()), float(image.max())
      ax.imshow((image - low) / max(high - low, 1e-9), cmap="gray_r")
      ax.set_title(f"{i}, class {label}", fontsize=7)
      ax.set_axis_off()
  return figure


def markdown(summary: Summary, images: dict[str, bytes]) -> str:
  """The report as Markdown; its pictures lie beside it."""
  top = [*sentences.top(summary), *(f"**{warning}**" for warning in summary["warnings"])]
  parts = ["# A/B trial", "\n".join(f"* {s}" for s in top)]
  parts.append(report.headline(summary))
  for heading, text, found in sections(summary):
    parts += [
      f"## {heading}",
      *([text] if text else []),
      *(tables.markdown(rows) for rows in found),
    ]
  parts += ["## Pictures", *(f"![{name}]({name}.png)" for name in images)]
  return "\n\n".join(parts) + "\n"


_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 1.5rem auto;
  padding: 0 1rem; color: #222; background: #fff; overflow-wrap: anywhere }
ol { padding-left: 1.3rem; font-size: 1.05rem } li { margin: .4rem 0 }
.scroll { overflow-x: auto; margin: 1rem 0; border: 1px solid #ddd; border-radius: 4px }
table { border-collapse: collapse; min-width: 100% }
th, td { padding: .3rem .8rem; border-bottom: 1px solid #eee; text-align: left; min-width: 3.5rem;
  vertical-align: top; font-variant-numeric: tabular-nums; overflow-wrap: normal }
th { background: #f6f6f6 } td:first-child { min-width: 7.5rem }
.long { min-width: 8.5rem }
img { display: block; max-width: none } .report { width: 60rem } .rare { width: 26rem }
"""


def page(summary: Summary, images: dict[str, bytes]) -> str:
  """The report as one HTML page that needs no other file."""
  text = lambda s: html.escape(s).replace("B = ", "B&nbsp;=&nbsp;")
  cell = lambda c, tag: f'<{tag} class="long">' if len(c) > LONG else f"<{tag}>"
  row = lambda cells, tag: f"<tr>{''.join(cell(c, tag) + text(c) for c in cells)}</tr>"
  pictures = {name: _image(name, png) for name, png in images.items()}
  parts = ["<h1>A/B trial</h1><ol>", *(f"<li>{text(s)}</li>" for s in sentences.top(summary))]
  parts += [f"<li><b>{text(warning)}</b></li>" for warning in summary["warnings"]]
  parts.append(f"</ol><p>{text(report.headline(summary))}</p>")
  for heading, sentence, found in sections(summary):
    parts.append(f"<h2>{text(heading)}</h2>" + (f"<p>{text(sentence)}</p>" if sentence else ""))
    for rows in found:
      body = "".join(row(r, "td") for r in rows[1:])
      parts.append(f'<div class="scroll"><table>{row(rows[0], "th")}{body}</table></div>')
    if heading.startswith("Rare examples"):
      parts.append(pictures.get("rare", ""))
  parts.append(f"<h2>Batch sizes, learning rates, course of training</h2>{pictures['report']}")
  return (
    '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1"><title>A/B trial</title>'
    f"<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>"
  )


def _image(name: str, png: bytes) -> str:
  source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
  return f'<div class="scroll"><img class="{name}" alt="{name}" src="{source}"></div>'


def write(summary: Summary, folder: Path, images: np.ndarray | None = None) -> None:
  """Writes report.md, report.html and their pictures; `images` are all examples, if they are."""
  drawn = {"report": report.plot(summary)}
  if images is not None and summary["rarity"]:
    drawn["rare"] = pictures(summary, images)
  found = {}
  for name, figure in drawn.items():
    memory = io.BytesIO()
    figure.savefig(memory, format="png", dpi=120)
    found[name] = memory.getvalue()
    (folder / f"{name}.png").write_bytes(found[name])
  (folder / "report.md").write_text(markdown(summary, found))
  (folder / "report.html").write_text(page(summary, found))


def main(summary: tyro.conf.Positional[Path]) -> None:
  """Writes the report beside a summary.json.

  Args:
    summary: the file.
  """
  write(json.loads(summary.read_text()), summary.parent)


if __name__ == "__main__":
  tyro.cli(main)
