# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Tables and plots out of the files that `benchmarks.rarity.rare_kinds` wrote.

    python -m benchmarks.pages.rarity_page --results out/rare_kinds

Writes the tables into docs/group-scarcity.md between its markers; plots lie beside the results.
"""

import json
import re
from pathlib import Path
from typing import Any

import matplotlib.figure
import numpy as np
import tyro

from benchmarks.cost import scarcity_cost
from benchmarks.pages import markers
from gq_optax.trial import arms, records
from gq_optax.trial.protocol import paired
from gq_optax.trial.tables import markdown, quartiles

RESULTS = markers.RARITY
PAGE = markers.DOCS / "group-scarcity.md"
BASELINE, ORACLE = "SGDM", "true kinds (oracle)"
VARIED = {"num_groups": "groups", "queue_length": "queue length", "exponent": "exponent"}

_OUTPUTS, _POOLED = "group scarcity, outputs", "group scarcity, features, pooled"
_NOISY = ("LT100", "LT100, 20 % noise", "LT100, 40 % noise", "LT100, 30 % asymmetric")
QUESTIONS: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
  "(a) one embedding for both": (
    {
      BASELINE: BASELINE,
      "output gradients": _OUTPUTS,
      "features, pooled": _POOLED,
      "both beside each other": "group scarcity, both",
      "gradients of the last layer, pooled": "group scarcity, last layer, pooled",
      "the same beside features": "group scarcity, features and last layer, pooled",
      "features and label beside each other, pooled": "group scarcity, features and label, pooled",
      "two levels": "group scarcity, two levels",
      "weights of output gradients, dealt at random": "random groups; embedding=output gradients",
      "weights of features, pooled, dealt at random": "random groups; num_groups=20; pooling=0.5",
      "features of a first training, pooled": f"{_POOLED}, of a teacher",
    },
    ("LT100", "hidden5", "hidden6"),
  ),
  "(b) confidence, output gradients": (
    {
      BASELINE: BASELINE,
      "class weights": "class weights",
      "as they are": _OUTPUTS,
      "coherence": f"{_OUTPUTS}; temper=coherence",
      "recurrence": f"{_OUTPUTS}; temper=recurrence",
    },
    _NOISY,
  ),
  "(b) confidence, features, pooled": (
    {
      BASELINE: BASELINE,
      "as they are": _POOLED,
      "coherence": f"{_POOLED}; temper=coherence",
      "recurrence": f"{_POOLED}; temper=recurrence",
    },
    ("hidden5", "hidden5, 20 % noise"),
  ),
  "(c) exponent, output gradients": (
    {
      BASELINE: BASELINE,
      "1": _OUTPUTS,
      "by entropy, factor 4": f"{_OUTPUTS}; entropy_factor=4",
      "by entropy, factor 8": f"{_OUTPUTS}; entropy_factor=8",
      "rising over half of the training": f"{_OUTPUTS}; ramp=0.5",
      "rising over the training": f"{_OUTPUTS}; ramp=1",
      "class weights": "class weights",
      "class weights, rising over the training": "class weights; ramp=1",
    },
    ("LT100", "balanced", "CIFAR-10 LT100"),
  ),
  "(c) exponent, features, pooled": (
    {
      BASELINE: BASELINE,
      "1": _POOLED,
      "by entropy, factor 4": f"{_POOLED}; entropy_factor=4",
      "by entropy, factor 8": f"{_POOLED}; entropy_factor=8",
      "rising over the training": f"{_POOLED}; ramp=1",
    },
    ("hidden5", "balanced"),
  ),
  "(c) rho of Delta_rho, norm-matched": (
    {BASELINE: BASELINE, "3": "Delta_rho", "by the groups' shares": "Delta_rho, rho by groups"},
    ("LT100", "balanced"),
  ),
}

MORE = {"Reuters": (("macro_f1", "macro-F1"), ("accuracy", "accuracy"))}

COLORS = {  # of the arms in the plot of batch sizes
  BASELINE: "#555555",
  "Adam": "#cc79a7",
  "class weights": "#009e73",
  "JTT": "#e69f00",
  _OUTPUTS: "#d55e00",
  _POOLED: "#0072b2",
  ORACLE: "#999999",
}

Results = dict[tuple[str, int, str], dict[str, Any]]


def read(folder: Path) -> Results:
  """All results by task (with the number of updates, if that was fixed), batch size and arm."""
  results: Results = {}
  for path in sorted(folder.glob("*.jsonl")):
    for run in records.read(path):
      results[run["task"] + run.get("length", ""), run["batch_size"], run["arm"]] = run
  return results


def values(result: dict[str, Any], figure: str) -> list[float]:
  """One figure of the test split for every seed, in percent."""
  return [100 * test[figure] for test in result["test"]]


def cell(result: dict[str, Any] | None, baseline: dict[str, Any] | None, figure: str) -> str:
  """Mean and standard deviation over seeds, and the paired difference with its interval."""
  if result is None:
    return "-"
  own = values(result, figure)
  text = f"{np.mean(own):.1f} ± {np.std(own, ddof=1):.1f}"
  if baseline is None or baseline is result or len(own) != len(baseline["test"]):
    return text
  gap = paired(own, values(baseline, figure))
  return f"{text} ({gap['mean']:+.1f} [{gap['low']:+.1f}, {gap['high']:+.1f}])"


def task_table(results: Results, task: str) -> str:
  """One row per arm; for each batch size all kinds alike, other figures, and the worst kind."""
  more = MORE.get(task, ())
  sizes = sorted({b for t, b, _ in results if t == task})
  names = [a for a in arms.ARMS if any((task, b, a) in results for b in sizes)]
  if task in MORE:  # other tasks have their variants in the tables of sensitivity and of questions
    names += sorted({a for t, _, a in results if t == task and ";" in a})
  head = [f"B={b}" for b in sizes]
  head += [f"{label}, B={b}" for _, label in more for b in sizes]
  head += [f"worst kind, B={b}" for b in sizes]
  lines = [[task, *head]]
  for name in names:
    rows = [(results.get((task, b, name)), results.get((task, b, BASELINE))) for b in sizes]
    cells = [cell(*row, figure) for figure, _ in (("mean", ""), *more) for row in rows]
    cells += ["-" if r is None else f"{np.mean(values(r, 'worst')):.1f}" for r, _ in rows]
    lines.append([name, *cells])
  return markdown(lines)


def hidden_tasks(results: Results) -> tuple[list[str], list[int]]:
  """The tasks with kinds hidden in classes, without noise, and the batch sizes they were run at."""
  names = sorted({t for t, _, _ in results if re.fullmatch(r"(mnist )?hidden\d", t)})
  return names, sorted({b for t, b, _ in results if t in names})


def closed_table(results: Results) -> str:
  """How much of the way from the baseline to the oracle each arm goes, over all hidden tasks."""
  hidden, sizes = hidden_tasks(results)
  lines = [["part of the way from SGDM to the oracle", *(f"B={b}" for b in sizes)]]
  for name in arms.ARMS:
    cells = []
    for b in sizes:
      ready = [t for t in hidden if all((t, b, a) in results for a in (name, BASELINE, ORACLE))]
      gain = [
        [np.mean(values(results[t, b, a], "mean")) for a in (name, BASELINE, ORACLE)] for t in ready
      ]
      if not gain:
        cells.append("-")
        continue
      own, base, oracle = np.mean(gain, axis=0)
      cells.append(f"{(own - base) / (oracle - base):+.2f} ({len(ready)} tasks)")
    if set(cells) != {"-"} and name not in (BASELINE, ORACLE):
      lines.append([name, *cells])
  return markdown(lines)


def rivals_table(results: Results) -> str:
  """Pooled features against the best arm that is neither ours nor the oracle, on hidden tasks."""
  hidden, sizes = hidden_tasks(results)
  lines = [["pooled features against the best other arm", *(f"B={b}" for b in sizes)]]
  for task in hidden:
    cells = []
    for b in sizes:
      own = results[task, b, _POOLED]
      others = {
        a: np.mean(values(results[task, b, a], "mean"))
        for a in arms.ARMS
        if (task, b, a) in results
        and a != ORACLE
        and not a.startswith(("group scarcity", "example scarcity"))
      }
      best = max(others, key=lambda a: others[a])
      gap = paired(values(own, "mean"), values(results[task, b, best], "mean"))
      cells.append(f"{best}: {gap['mean']:+.1f} [{gap['low']:+.1f}, {gap['high']:+.1f}]")
    lines.append([task, *cells])
  return markdown(lines)


def questions(results: Results) -> str:
  """Three questions, each a table: which variant of an arm does better on what? All at B=1024."""
  tables = []
  for title, (names, wanted) in QUESTIONS.items():
    there = [t for t in wanted if any((t, 1024, name) in results for name in names.values())]
    lines = [[title, *there]]
    for label, name in names.items():
      pairs = [(results.get((t, 1024, name)), results.get((t, 1024, BASELINE))) for t in there]
      if not any(own for own, _ in pairs):
        continue
      lines.append([label, *(cell(*pair, "mean") for pair in pairs)])
    tables.append(markdown(lines))
  return "\n\n".join(tables)


def rates_note(results: Results) -> str:
  """Whether every learning rate lies inside its grid."""
  outside = [key for key, result in results.items() if not result["rate_inside_grid"]]
  if not outside:
    return f"The best learning rate lies inside its grid in all {len(results)} cells."
  names = "; ".join(f"{t}, B={b}, {a}" for t, b, a in outside)
  return f"The best learning rate lies on the edge of its grid for: {names}."


def tables(results: Results) -> str:
  """All tables, in the order of the page."""
  names = list(dict.fromkeys(t for t, _, _ in results))
  order = sorted(names, key=lambda t: (not t.startswith("hidden"), t != "LT100", t))
  parts = [
    closed_table(results),
    rivals_table(results),
    *(task_table(results, t) for t in order),
    rates_note(results),
  ]
  return "\n\n".join(parts)


def sensitivity(results: Results) -> dict[str, dict[str, list[tuple[float, float, float]]]]:
  """By option and task the mean and its standard error for each value, all else as in the arm."""
  found: dict[str, dict[str, list[tuple[float, float, float]]]] = {}
  for (task, size, name), result in results.items():
    base, *changes = (part.strip() for part in name.split(";"))
    if "examples" in arms.find(name).weights:
      continue  # those have a page of their own
    for option in VARIED:
      if changes and (len(changes) > 1 or not changes[0].startswith(f"{option}=")):
        continue
      if not any(
        (t, b, a.split(";")[0]) == (task, size, base) and f"; {option}=" in a for t, b, a in results
      ):
        continue
      own = values(result, "mean")
      error = np.std(own, ddof=1) / len(own) ** 0.5
      point = (float(result["options"]["groups"][option]), float(np.mean(own)), float(error))
      found.setdefault(option, {}).setdefault(f"{task}, B={size}, {base}", []).append(point)
  several = lambda series: {name: points for name, points in series.items() if len(points) > 1}
  return {option: several(series) for option, series in found.items()}


def sensitivity_table(results: Results) -> str:
  """Mean and standard error at each value of an option."""
  lines = [["option, task", "mean accuracy over kinds at each value (± standard error)"]]
  for option, series in sensitivity(results).items():
    for name, points in sorted(series.items()):
      cells = [f"{x:g}: {mean:.1f} ± {error:.1f}" for x, mean, error in sorted(points)]
      lines.append([f"{VARIED[option]}; {name}", "; ".join(cells)])
  return markdown(lines)


def plot_sensitivity(results: Results, path: Path) -> None:
  """One panel for each option."""
  found = sensitivity(results)
  figure = matplotlib.figure.Figure(figsize=(12, 3.6), layout="constrained")
  for ax, (option, label) in zip(figure.subplots(1, len(VARIED)), VARIED.items(), strict=True):
    shown = {name: points for name, points in found.get(option, {}).items() if len(points) > 2}
    for series, points in sorted(shown.items()):
      x, y, error = np.array(sorted(points)).T
      ax.errorbar(x, y, error, marker="o", markersize=3, label=series)
    ax.set_xlabel(label)
    if option != "exponent":
      ax.set_xscale("log")
      ticks = sorted({int(x) for points in shown.values() for x, *_ in points})
      ax.set_xticks(ticks, [str(t) for t in ticks])
      ax.minorticks_off()
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(fontsize=6)
  figure.supylabel("mean accuracy over kinds, %")
  figure.savefig(path, dpi=130)


def plot_batch_sizes(results: Results, path: Path) -> None:
  """Quality against batch size on the main tasks, one line an arm."""
  names = [*hidden_tasks(results)[0], "LT100", "balanced"]
  figure = matplotlib.figure.Figure(figsize=(13, 6.5), layout="constrained")
  for ax, task in zip(figure.subplots(2, 4).flat, names, strict=False):
    for name, color in COLORS.items():
      own = {b: r for (t, b, a), r in results.items() if (t, a) == (task, name)}
      means = [np.mean(values(own[b], "mean")) for b in sorted(own)]
      style = "-o" if name.startswith("group scarcity") else "--"
      ax.plot(sorted(own), means, style, ms=4, color=color, label=name)
    ax.set_xscale("log", base=2)
    ax.set_xticks([256, 1024, 4096], ["256", "1024", "4096"])
    ax.set_title(task, fontsize=10)
    ax.spines[["top", "right"]].set_visible(False)
  handles, labels = figure.axes[0].get_legend_handles_labels()
  figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
  figure.supxlabel("batch size", fontsize=10)
  figure.supylabel("mean accuracy over kinds, %", fontsize=10)
  figure.savefig(path, dpi=110)


def read_costs() -> dict[str, Any]:
  """What `benchmarks.cost.scarcity_cost` measured."""
  return json.loads((markers.COST / "scarcity_cost.json").read_text())


def cost_table(results: dict[str, Any]) -> str:
  """Median and quartiles of the ratio to a plain gradient."""
  lines = [["ratio to a plain gradient (quartiles)", *results]]
  for way in scarcity_cost.WAYS:
    lines.append([way, *(quartiles(workload[way], 2) for workload in results.values())])
  return markdown(lines)


def main(results: Path = RESULTS, page: Path = PAGE) -> None:
  """Writes tables and plots.

  Args:
    results: folder of the result files.
    page: a Markdown page with the markers of the tables.
  """
  found = read(results)
  if not found:
    raise FileNotFoundError(f"results must hold files of rare_kinds, but {results} does not.")
  text = markers.between_markers(page.read_text(), tables(found))
  page.write_text(markers.between_markers(text, cost_table(read_costs()), "costs"))
  text = markers.between_markers(page.read_text(), questions(found), "questions")
  page.write_text(markers.between_markers(text, sensitivity_table(found), "sensitivity"))
  plot_sensitivity(found, results / "sensitivity.png")
  plot_batch_sizes(found, results / "batch_sizes.png")


if __name__ == "__main__":
  tyro.cli(main)
