# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Figures in README and docs are those of the raw results."""

import json
import re

import pytest

from benchmarks import pages, rare_report, results_page

README = (pages.ROOT / "README.md").read_text()


def test_tables_of_the_page_are_those_of_the_raw_files():
  page = results_page.PAGE.read_text()
  bodies = results_page.bodies()
  assert {"toy"} <= set(bodies)
  for marker, body in bodies.items():
    assert f"<!-- {marker} -->" in page
    assert pages.between_markers(page, body, marker) == page, marker
    assert pages.between_markers(page, "other", marker) != page


def points(value):
  """A difference as the README writes it: +.4, -1.2, +2.6."""
  return f"{100 * value:+.1f}".replace("+0.", "+.").replace("-0.", "-.")


def test_the_readme_tells_what_the_demo_found():
  (told,) = re.findall(r"What `make demo` shows.*?\n\n", README, re.DOTALL)
  told = " ".join(told.split())
  arms = json.loads((pages.RESULTS / "demo.json").read_text())["arms"]
  found = {name: arm["against_baseline"]["balanced_accuracy"] for name, arm in arms.items()}
  one, four, weights = (found[name] for name in ("GQ K=1", "GQ K=4", "class weights"))
  low, mean, high = (points(one[k]) for k in ("low", "mean", "high"))
  assert f"{mean} points with K = 1 (95 % interval {low.lstrip('+')} to {high})" in told
  low, mean, high = (points(four[k]) for k in ("low", "mean", "high"))
  cost = f"{arms['GQ K=4']['step_cost']:.1f}"
  assert f"{mean} with K = 4 groups ({low} to {high}) at {cost} times" in told
  low, mean, high = (points(weights[k]) for k in ("low", "mean", "high"))
  assert f"{mean} ({low} to {high}) with class weights" in told


def test_the_readme_tells_what_group_scarcity_found():
  results = rare_report.read(rare_report.RESULTS)

  def gains(arm):
    for size in (256, 1024, 4096):
      own, base = (results["LT100", size, name] for name in (arm, "SGDM"))
      text = rare_report.cell(own, base, "mean")
      yield re.search(r"\(([+-]\d+\.\d) ", text)[1]

  text = " ".join(README.split())
  first, second, third = gains("group scarcity, outputs")
  assert f"it brings {first}, {second} and {third} points" in text
  assert f"(class weights, which are: {', '.join(gains('class weights'))})" in text
  mean = lambda arm: rare_report.cell(results["LT100", 1024, arm], None, "mean").split(" ")[0]
  assert f"class weights {mean('class weights')}, groups" in text
  assert f"without labels {mean('group scarcity, outputs')}, plain" in text
  assert f"momentum {mean('SGDM')})" in text
  costs = rare_report.read_costs()["CNN 32x32x3, B=512"]
  ratios = [costs[way]["ratio"] for way in costs if not way.startswith("plain")]
  low, high = (f"{x:.2f}".lstrip("0") for x in (min(ratios), max(ratios)))
  assert (
    f"({low} to {high} of it; the step against itself {costs['plain again']['ratio']:.2f})" in text
  )


def short(value, digits):
  return f"{value:.{digits}f}".removeprefix("0")


WAYS = {
  "`optax.sgd` against itself": "sgd again",
  "a plain copy of as many bytes as `grad_queue(queue_length=3)` touches": (
    "copy of the bytes of grad_queue(3)"
  ),
  "`grad_queue(queue_length=3)` alone": "grad_queue(3)",
  "`grad_queue(queue_length=3)`, then `optax.sgd`": "grad_queue(3), sgd",
  "`grad_queue(queue_length=8)` alone": "grad_queue(8)",
}


@pytest.mark.parametrize("way", WAYS)
def test_the_readme_tells_what_an_update_costs(way):
  timed = json.loads((pages.RESULTS / "update_cost.json").read_text())
  (row,) = [line for line in README.splitlines() if line.startswith(f"| {way} |")]
  cells = row.strip("| ").split(" | ")[1:]
  for cell, size in zip(cells, ("1,000,000", "20,000,000"), strict=True):
    found = timed[f"The update alone, {size} parameters"][WAYS[way]]
    told = [float(x) for x in re.findall(r"\d*\.\d+", cell)]
    for value, key in zip(told, ("ratio", "ratio_low", "ratio_high"), strict=True):
      assert value == pytest.approx(found[key], rel=0.05), cell  # two digits
