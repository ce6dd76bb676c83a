# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The paper's Figure 6 again: accuracy against batch size, at one fixed learning rate and tuned.

    python -m benchmarks.paper.figure6

The paper trains 40 epochs on all examples, at one rate that it does not state. Here networks are
smaller, epochs fewer, and MNIST and CIFAR-10 cut down to the examples that `TRIALS` says, so that
all of it takes hours on two cores; a larger run is the same with other options of `gq-trial`.
Every trial is a folder of `out/figure6`, resumed where it stopped; what is missing stays out.
"""

import dataclasses
from pathlib import Path
from typing import Any

import matplotlib.figure
import tyro

from benchmarks.harness import records
from gq_optax.trial import command, report
from gq_optax.trial.runs import Trial

SGD = ("SGDM", "GQ, K=1", "GQ, K=B/64")
ADAM = ("Adam", "GQ-Adam, K=1", "GQ-Adam, K=B/64")
_SHORT = Trial(
  seeds=3, tuning_seeds=1, figure="accuracy", evaluations=10, cost_rounds=0, arm_names=SGD
)
_MNIST = dataclasses.replace(
  _SHORT,
  data="mnist",
  model="cnn",
  imbalance=1.0,
  largest=600,
  epochs=10,
  batch_sizes=(64, 128, 256, 512),
)
_CIFAR = dataclasses.replace(_MNIST, data="cifar10", largest=500, batch_sizes=(64, 128, 256, 384))
_REUTERS = dataclasses.replace(
  _SHORT, data="reuters", model="mlp", epochs=5, batch_sizes=(64, 128, 256, 512)
)
_ADAM = dataclasses.replace(_REUTERS, arm_names=ADAM)
TRIALS = {
  "MNIST": (_MNIST, 0.03),
  "CIFAR-10": (_CIFAR, 0.03),
  "Reuters-46": (_REUTERS, 0.03),
  "Reuters-46, Adam": (_ADAM, 0.001),
}
# Read off the paper's Figure 6 (test accuracy, +-.002, MNIST +-.0003), by batch size: SGDM, K=1,
# K=B/64. Its CIFAR-10 without dropout; what Reuters was trained with it leaves open.
_PAPER_REUTERS = {
  64: (0.709, 0.713, None),
  128: (0.723, 0.721, 0.717),
  256: (0.708, 0.705, 0.717),
  512: (0.693, 0.690, 0.7035),
}
PAPER: dict[str, dict[int, tuple[float, float, float | None]]] = {
  "MNIST": {
    64: (0.9937, 0.9930, None),
    128: (0.9925, 0.9927, 0.9924),
    256: (0.992, 0.9919, 0.9921),
    512: (0.9909, 0.991, 0.9914),
  },
  "CIFAR-10": {
    64: (0.772, 0.7855, None),
    128: (0.766, 0.772, 0.778),
    256: (0.756, 0.753, 0.761),
    384: (0.737, 0.739, 0.755),
  },
  "Reuters-46": _PAPER_REUTERS,
  "Reuters-46, Adam": _PAPER_REUTERS,
}
WAYS = ("fixed", "tuned")


def read(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
  """The summaries that are there, by name and way; of two of the same the later one."""
  found = {(trial["name"], trial["way"]): trial for trial in records.read(path)}
  return {(n, w): found[n, w] for n in TRIALS for w in WAYS if (n, w) in found}


def table(found: dict[tuple[str, str], dict[str, Any]]) -> report.Rows:
  """Ours beside the paper's, in percent; differences are to the first arm of the same line."""
  rows = [["", "B", "SGDM or Adam", "K = 1", "K = B/64", "the paper: SGDM, K=1, K=B/64"]]
  for (name, way), summary in found.items():
    arms, sizes = report.names(summary)
    for b in sizes:
      ours = [report.find(summary, arm, b) for arm in arms]
      own = [report.values(r, "accuracy") for r in ours if r is not None]
      cells = [f"{own[0].mean():.1f} ± {own[0].std(ddof=1):.1f}"]
      for values in own[1:]:
        cells.append(f"{values.mean():.1f} ({(values - own[0]).mean():+.1f})")
      if b == 64:
        cells[-1] = "-"  # the same as K = 1
      paper = ", ".join("-" if v is None else f"{100 * v:.1f}" for v in PAPER[name][b])
      rows.append([f"{name}, {way}", str(b), *cells, paper])
  return rows


def plot(found: dict[tuple[str, str], dict[str, Any]], path: Path) -> None:
  """One column a data set: the paper's, ours at a fixed rate, ours tuned."""
  figure = matplotlib.figure.Figure(figsize=(3.6 * len(TRIALS), 8.4), layout="constrained")
  grid = figure.subplots(3, len(TRIALS), squeeze=False)
  for column, name in enumerate(TRIALS):
    top = grid[0][column]
    for i, label in enumerate(SGD):
      points = [(b, 100 * v[i]) for b, v in PAPER[name].items() if v[i] is not None]  # type: ignore[operator]
      top.plot(*zip(*points, strict=True), "o-", markersize=4, label=label)
    top.set_title(f"{name}: the paper", fontsize=10)
    for ax, way in zip((grid[1][column], grid[2][column]), WAYS, strict=True):
      ax.set_title(f"{name}: ours, {way}", fontsize=10)
      if (name, way) not in found:
        ax.text(0.5, 0.5, "not run", ha="center", transform=ax.transAxes)
        continue
      arms, sizes = report.names(found[name, way])
      for i, arm in enumerate(arms):
        there = [b for b in sizes if i < 2 or b > 64]
        own = [
          report.values(report.find(found[name, way], arm, b) or {}, "accuracy") for b in there
        ]
        spread = [v.std(ddof=1) for v in own]
        where = [b * (1 + 0.03 * (i - 1)) for b in there]
        ax.errorbar(where, [v.mean() for v in own], spread, fmt="o-", markersize=4, label=arm)
    for ax in (row[column] for row in grid):
      ax.set_xscale("log", base=2)
      ax.set_xticks(list(PAPER[name]), [str(b) for b in PAPER[name]])
      ax.spines[["top", "right"]].set_visible(False)
      if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize=7)
  figure.supylabel("test accuracy, %")
  figure.supxlabel("batch size")
  figure.savefig(path, dpi=120)


def main(
  names: tuple[str, ...] = tuple(TRIALS),
  ways: tuple[str, ...] = WAYS,
  out: Path = Path("out/figure6"),
) -> None:
  """Runs what is missing, then plots what is there.

  Args:
    names: data sets, see `TRIALS`.
    ways: "fixed", "tuned" or both.
    out: folder of trials, summaries and plot.
  """
  for option, known, asked in (("names", tuple(TRIALS), names), ("ways", WAYS, ways)):
    for value in asked:
      if value not in known:
        raise ValueError(f"{option} must be of {', '.join(known)}, but {value!r} was found.")
  for way in ways:
    for name in names:
      trial, rate = TRIALS[name]
      folder = out / f"{name}, {way}".replace(" ", "_")
      trial = dataclasses.replace(trial, fixed_rate=rate if way == "fixed" else None, out=folder)
      summary = command.run(trial)
      records.append(out / "figure6.jsonl", {"name": name, "way": way, **compact(summary)})
      plot(read(out / "figure6.jsonl"), out / "figure6.png")


def compact(summary: dict[str, Any]) -> dict[str, Any]:
  """A summary without courses of training and accuracies of single kinds: small enough to keep."""
  results = []
  for result in summary["results"]:
    kept = {k: v for k, v in result.items() if not k.startswith("curve")}
    kept["test"] = [{k: v for k, v in t.items() if k != "by_kind"} for t in result["test"]]
    results.append(kept)
  return {**summary, "results": results}


if __name__ == "__main__":
  tyro.cli(main)
