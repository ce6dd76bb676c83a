# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The page on what was tried with group scarcity: its knobs, and three questions.

    python -m benchmarks.pages.questions_page

Writes docs/evidence/questions.md out of the results of `benchmarks.rarity.rare_kinds`.
"""

from pathlib import Path

import matplotlib
import matplotlib.figure
import numpy as np
import tyro

from benchmarks.harness import arms
from benchmarks.harness.tables import markdown
from benchmarks.pages import markers, plots
from benchmarks.pages.rare_results import (
  BASELINE,
  RESULTS,
  Results,
  cell,
  gap,
  read,
  rows_of,
  values,
)

PAGE = markers.EVIDENCE / "questions.md"
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


def question(results: Results, title: str) -> tuple[str, dict[str, dict[str, plots.Interval]]]:
  """Which variant of an arm does better on what? A table and its plot, all at B = 1024."""
  names, wanted = QUESTIONS[title]
  there = [t for t in wanted if any((t, 1024, name) in results for name in names.values())]
  lines = [[title, *there]]
  for label, name in names.items():
    pairs = [(results.get((t, 1024, name)), results.get((t, 1024, BASELINE))) for t in there]
    if any(own for own, _ in pairs):
      lines.append([label, *(cell(*pair, "mean") for pair in pairs)])
  panel = lambda t: rows_of({k: gap(results, t, 1024, a, "mean") for k, a in names.items()})
  return markdown(lines), {t: panel(t) for t in there}


def sensitivity(results: Results) -> dict[str, dict[str, list[tuple[float, float, float]]]]:
  """By option and task the mean and its standard error for each value, all else as in the arm."""
  found: dict[str, dict[str, list[tuple[float, float, float]]]] = {}
  for (task, size, name), result in results.items():
    base, *changes = (part.strip() for part in name.split(";"))
    if "examples" in arms.find(name).weights:
      continue  # their options stand on their own page
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
  lines = [["option, task", "mean recall over kinds at each value (± standard error)"]]
  for option, series in sensitivity(results).items():
    for name, points in sorted(series.items()):
      cells = [f"{x:g}: {mean:.1f} ± {error:.1f}" for x, mean, error in sorted(points)]
      lines.append([f"{VARIED[option]}; {name}", "; ".join(cells)])
  return markdown(lines)


def plot_sensitivity(results: Results, path: Path) -> None:
  """One panel for each option."""
  found = sensitivity(results)
  with matplotlib.rc_context(plots.STYLE):
    figure = matplotlib.figure.Figure(figsize=(9.0, 3.2), layout="constrained")
    axes = figure.subplots(1, len(VARIED))
  for ax, (option, label) in zip(axes, VARIED.items(), strict=True):
    shown = {name: points for name, points in found.get(option, {}).items() if len(points) > 2}
    for series, points in sorted(shown.items()):
      x, y, error = np.array(sorted(points)).T
      ax.errorbar(x, y, error, marker="o", markersize=3, label=series)
    ax.set_xlabel(label)
    if option != "exponent":
      ax.set_xscale("log")
      ticks = (4, 10, 20, 40, 64) if option == "num_groups" else (1, 2, 5, 10, 20, 50)
      ax.set_xticks(ticks, [str(t) for t in ticks])
      ax.minorticks_off()
  axes[0].set_ylabel("mean recall over kinds, %")
  handles = axes[0].get_legend_handles_labels()
  figure.legend(*handles, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
  plots.save(figure, path)


def bodies(results: Results) -> dict[str, str]:
  """What stands between each pair of markers."""
  plot = RESULTS / "sensitivity.svg"
  tells = "Mean recall over kinds against number of groups, queue length and exponent"
  found = {"sensitivity": markers.exhibit(plot, tells, sensitivity_table(results))}
  for number, title in enumerate(QUESTIONS):
    tells = f"{title}: difference to {BASELINE} in points, with 95 % interval"
    plot = RESULTS / f"question_{number}.svg"
    found[title] = markers.exhibit(plot, tells, question(results, title)[0])
  return found


def main() -> None:
  """Writes plots and tables."""
  results = read(RESULTS)
  plot_sensitivity(results, RESULTS / "sensitivity.svg")
  for number, title in enumerate(QUESTIONS):
    plot = RESULTS / f"question_{number}.svg"
    plots.dots(question(results, title)[1], f"points against {BASELINE}, 95 % interval", plot)
  markers.fill(PAGE, bodies(results))


if __name__ == "__main__":
  tyro.cli(main)
