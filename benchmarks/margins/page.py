# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Writes curves and comparisons of `deep` into docs/evidence/when-every-example-fits.md.

    python -m benchmarks.margins.page --results benchmarks/margins/results/deep.jsonl

Partial results are as good as whole ones: what is missing is named.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import scipy.stats  # comes with jax

from benchmarks.margins import deep

mpl.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "evidence" / "when-every-example-fits.md"
RESULTS = Path(__file__).parent / "results" / "deep.jsonl"
AFTER, HEAD = "adjustment after training", "last layer again"
REFERENCE = {"classes": "logit adjustment", "kinds": "weights"}  # what an arm has to beat
NAMES = {"conv": "small ResNet", "dense": "dense network"}

# Points of natural accuracy below plain training up to which curves are compared.
GIVEN_UP = 10.0

Points = dict[float, tuple[float, float, float]]  # strength: natural, rarest, mean
Rows = dict[deep.Job, dict[str, Any]]
Draw = tuple[int, int]  # seed, order of the classes


def curves(rows: Rows, draw: Draw) -> dict[str, Points]:
  """Of one task, network, seed and order: by arm the test accuracies over its strengths."""
  read = lambda found: (found["natural"], found["rarest"], found["mean"])
  found: dict[str, Points] = {}
  for job, row in rows.items():
    if (job.seed, job.order) != draw:
      continue
    found.setdefault(job.arm, {})[job.strength] = read(row["test"])
    if job.arm == "none":
      for name, part in ((AFTER, "after"), (HEAD, "head")):
        points = {float(s): read(v) for s, v in row["test"][part].items()}
        # Without strength the last layer is as it was.
        found[name] = {0.0: read(row["test"])} | points
  plain = found.get("none", {})
  # With strength 0 an arm is `none`.
  return {arm: points if arm == "none, longer" else plain | points for arm, points in found.items()}


def at_equal_natural(ours: Points, other: Points, column: int, least: float) -> float | None:
  """The mean lead of one curve over another where both have the same natural accuracy."""
  hull = [np.array(sorted(points.values())) for points in (ours, other)]
  low, high = max(least, *(h[0, 0] for h in hull)), min(h[-1, 0] for h in hull)
  if min(len(h) for h in hull) < 2 or high - low < 0.5:
    return None
  where = np.linspace(low, high, 50)
  a, b = (np.interp(where, h[:, 0], h[:, column]) for h in hull)
  return float(np.mean(a - b))


def interval(values: Sequence[float]) -> str:
  """Mean and 95 % interval; one value stands alone."""
  if not values:
    return "-"
  mean = np.mean(values)
  if len(values) < 2:
    return f"{mean:+.1f} (one run)"
  half = scipy.stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
  return f"{mean:+.1f} [{mean - half:+.1f}, {mean + half:+.1f}], {len(values)}"


def comparison(curves_of: dict[str, dict[Draw, dict[str, Points]]], reference: str) -> str:
  """A table: every arm against what it has to beat, at equal natural accuracy."""
  head = "".join(f" {NAMES[network]}: rarest three | mean |" for network in curves_of)
  lines = [f"| against {reference} |{head}", "|---|" + "---|---|" * len(curves_of)]
  arms = [arm for draws in curves_of.values() for found in draws.values() for arm in found]
  for arm in dict.fromkeys(arms):
    cells = [leads(by_draw, arm, reference) for by_draw in curves_of.values()]
    if any(map(any, cells)):
      lines.append(f"| {arm} |" + "".join(f" {interval(c)} |" for pair in cells for c in pair))
  return "\n".join(lines) if len(lines) > 2 else "Nothing can be compared yet."


def leads(
  by_draw: dict[Draw, dict[str, Points]], arm: str, reference: str
) -> tuple[list[float], list[float]]:
  """What an arm leads by, a number for each draw: on the three rarest, and on the mean."""
  found: tuple[list[float], list[float]] = ([], [])
  for curve in by_draw.values():
    if arm != reference and {arm, reference, "none"} <= set(curve):
      least = curve["none"][0.0][0] - GIVEN_UP
      both = [at_equal_natural(curve[arm], curve[reference], i, least) for i in (1, 2)]
      for values, lead in zip(found, both, strict=True):
        values += [] if lead is None else [lead]
  return found


def plot(found: dict[str, Points], title: str, path: Path) -> None:
  """Natural accuracy against the mean of the three rarest, an arm a curve, where it is compared."""
  figure, axes = plt.subplots(figsize=(7.5, 5.0))
  colours = plt.get_cmap("tab20")
  for number, (arm, points) in enumerate(found.items()):
    least = found["none"][0.0][0] - GIVEN_UP if "none" in found else 0.0
    ordered = np.array([points[s] for s in sorted(points) if points[s][0] >= least])
    if not len(ordered):
      continue
    axes.plot(
      ordered[:, 0], ordered[:, 1], "o-", ms=4, lw=1.2, color=colours(number % 20), label=arm
    )
  axes.set(xlabel="natural accuracy", ylabel="mean of the three rarest", title=title)
  axes.legend(fontsize=7, frameon=False, bbox_to_anchor=(1.0, 1.0), loc="upper left")
  figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
  plt.close(figure)


def at_chosen_rates(rows: Rows, task: str, network: str) -> Rows:
  """Of every arm the runs at the rate of its family; other rates were only tried."""
  rate = lambda job: deep.rates(rows, task, network, deep.ARMS[job.arm].family)[1]
  here = {job: row for job, row in rows.items() if (job.task, job.network) == (task, network)}
  return {job: row for job, row in here.items() if job.rate == rate(job)}


def by_draws(rows: Rows) -> dict[Draw, dict[str, Points]]:
  """The curves of each seed and order."""
  return {draw: curves(rows, draw) for draw in sorted({(j.seed, j.order) for j in rows})}


def section(rows: Rows, task: str, figures: Path) -> str:
  """One task, on both networks."""
  parts, curves_of = [f"## {task[0].upper()}{task[1:]}"], {}
  for network, name in NAMES.items():
    chosen = at_chosen_rates(rows, task, network)
    loose = {f"{job.arm} {job.strength:g}" for job, row in chosen.items() if not row["fits"]}
    chosen = {job: row for job, row in chosen.items() if row["fits"]}
    number = sum((job.task, job.network) == (task, network) for job in rows)
    todo = sum((job.task, job.network) == (task, network) for job in deep.left(rows))
    state = f"{name[0].upper()}{name[1:]}: {number} runs are there"
    state += f", at least {todo} are missing." if todo else "."
    if loose:
      state += f" Left out, since not every example fits: {', '.join(sorted(loose))}."
    parts.append(state)
    curves_of[network] = by_draws(chosen)
    if deep.SCREEN in curves_of[network]:
      path = figures / f"{task}_{network}.svg"
      plot(curves_of[network][deep.SCREEN], f"{task}, {name}", path)
      where = Path("../..") / path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
      told = f"Natural accuracy against the mean of the three rarest: {task}, {name}"
      parts.append(f"![{told}]({where.as_posix()})")
  return "\n\n".join([*parts, comparison(curves_of, REFERENCE[task])])


def write(results: Path, page: Path, figures: Path) -> None:
  """Fills the page between its markers."""
  rows = deep.read_rows(results)
  figures.mkdir(parents=True, exist_ok=True)
  body = "\n\n".join(section(rows, task, figures) for task in deep.DECISIVE)
  before, rest = page.read_text().split("<!-- runs -->\n", 1)
  _, after = rest.split("\n<!-- end of runs -->", 1)
  page.write_text(f"{before}<!-- runs -->\n{body}\n<!-- end of runs -->{after}")


def main() -> None:
  """Reads the arguments."""
  parser = argparse.ArgumentParser(description="the page of benchmarks.margins.deep")
  parser.add_argument("--results", type=Path, default=RESULTS)
  parser.add_argument("--page", type=Path, default=PAGE)
  parser.add_argument("--figures", type=Path, default=RESULTS.parent)
  args = parser.parse_args()
  write(args.results, args.page, args.figures)


if __name__ == "__main__":
  main()
