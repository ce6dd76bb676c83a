# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Figures in README and docs are those of the raw results."""

import json
import re

import pytest

from benchmarks.pages import examples_page, groups_page, markers, rarity_page, results_page
from benchmarks.paper import figure6
from gq_optax.trial import report

README = (markers.ROOT / "README.md").read_text()


def test_tables_of_the_page_are_those_of_the_raw_files():
  page = results_page.PAGE.read_text()
  bodies = results_page.bodies()
  assert {"toy"} <= set(bodies)
  for marker, body in bodies.items():
    assert f"<!-- {marker} -->" in page
    assert markers.between_markers(page, body, marker) == page, marker
    assert markers.between_markers(page, "other", marker) != page


def test_tables_of_example_scarcity_are_those_of_the_raw_files():
  page = examples_page.PAGE.read_text()
  bodies = examples_page.bodies(rarity_page.read(rarity_page.RESULTS))
  for marker, body in bodies.items():
    assert body.count("\n") >= 2, marker
    assert markers.between_markers(page, body, marker) == page, marker
    assert markers.between_markers(page, "other", marker) != page


def test_tables_of_real_groups_are_those_of_the_raw_files():
  page = groups_page.PAGE.read_text()
  bodies = groups_page.bodies(rarity_page.read(groups_page.RESULTS))
  assert {"adult", "adult by class", "frozen"} <= set(bodies)
  for marker, body in bodies.items():
    assert body.count("\n") > 4, marker
    assert markers.between_markers(page, body, marker) == page, marker
    assert markers.between_markers(page, "other", marker) != page


def points(value):
  """A difference as the README writes it: +.4, -1.2, +2.6."""
  return f"{100 * value:+.1f}".replace("+0.", "+.").replace("-0.", "-.")


def test_the_readme_tells_what_the_demo_found():
  (told,) = re.findall(r"What `make demo` shows.*?\n\n", README, re.DOTALL)
  told = " ".join(told.split())
  arms = json.loads((markers.DEMO / "demo.json").read_text())["arms"]
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
  results = rarity_page.read(rarity_page.RESULTS)

  def gains(arm):
    for size in (256, 1024, 4096):
      own, base = (results["LT100", size, name] for name in (arm, "SGDM"))
      text = rarity_page.cell(own, base, "mean")
      yield re.search(r"\(([+-]\d+\.\d) ", text)[1]

  text = " ".join(README.split())
  first, second, third = gains("group scarcity, outputs")
  assert f"it brings {first}, {second} and {third} points" in text
  assert f"(class weights, which are: {', '.join(gains('class weights'))})" in text
  mean = lambda arm: rarity_page.cell(results["LT100", 1024, arm], None, "mean").split(" ")[0]
  assert f"class weights {mean('class weights')}, groups" in text
  assert f"without labels {mean('group scarcity, outputs')}, plain" in text
  assert f"momentum {mean('SGDM')})" in text
  costs = rarity_page.read_costs()["CNN 32x32x3, B=512"]
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
  timed = json.loads((markers.COST / "update_cost.json").read_text())
  (row,) = [line for line in README.splitlines() if line.startswith(f"| {way} |")]
  cells = row.strip("| ").split(" | ")[1:]
  for cell, size in zip(cells, ("1,000,000", "20,000,000"), strict=True):
    found = timed[f"The update alone, {size} parameters"][WAYS[way]]
    told = [float(x) for x in re.findall(r"\d*\.\d+", cell)]
    for value, key in zip(told, ("ratio", "ratio_low", "ratio_high"), strict=True):
      assert value == pytest.approx(found[key], rel=0.05), cell  # two digits


def test_the_readme_tells_what_a_fixed_rate_does():
  text, trials = " ".join(README.split()), figure6.read(results_page.FIGURE6)

  def gain(name, way, batch_size):
    own, base = (report.find(trials[name, way], a, batch_size) for a in ("GQ, K=B/64", "SGDM"))
    difference = report.values(own, "accuracy") - report.values(base, "accuracy")
    return f"{difference.mean():+.1f}"

  fixed, tuned = (gain("Reuters-46", way, 512) for way in ("fixed", "tuned"))
  assert f"{fixed} points of accuracy at one fixed rate, {tuned} with both rates tuned" in text
  fixed, tuned = (gain("CIFAR-10", way, 384) for way in ("fixed", "tuned"))
  assert f"CIFAR-10, B = 384: {fixed} and {tuned}" in text


ALTERNATIVES = {
  "class weights": "class weights",
  "logit adjustment": "logit adjustment",
  "focal loss": "focal loss",
  "JTT": "JTT",
  "Adam": "Adam",
  "the weights of our groups, dealt at random": "random groups",
  "group scarcity, output gradients": "group scarcity, outputs",
  "group scarcity, features, pooled": "group scarcity, features, pooled",
  "true kinds weigh the same (oracle)": "true kinds (oracle)",
}


def table(page, head):
  """The rows of a table of a page without its head: cells by their first."""
  text = (markers.DOCS / page).read_text().replace("**", "")
  lines = text[text.index(head) :].split("\n\n")[0].splitlines()[2:]
  rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines]
  return {row[0]: row[1:] for row in rows}


def test_the_page_on_alternatives_tells_what_the_trials_found():
  results = rarity_page.read(rarity_page.RESULTS)
  rows = table("alternatives.md", "| | needs | rare classes (LT100)")
  assert set(rows) == set(ALTERNATIVES)
  for label, (_, *cells) in rows.items():
    for task, told in zip(("LT100", "hidden5", "hidden6"), cells, strict=True):
      result = results.get((task, 1024, ALTERNATIVES[label]))
      if result is None:
        assert told in ("-", "not run"), (label, task)
      else:
        found = rarity_page.cell(result, results[task, 1024, "SGDM"], "mean")
        assert found.endswith(f"({told})"), (label, task)


def test_the_page_on_choosing_tells_what_the_trials_found():
  results = rarity_page.read(rarity_page.RESULTS)
  arm = "group scarcity, features, pooled"
  rows = table("choosing.md", "| `num_groups`, `queue_length`, `exponent`, `pooling` |")
  names = {
    "20, 5, 1, .5": arm,
    "10, 5, 1, 0": "group scarcity, features",
    "40, 5, 1, .5": f"{arm}; num_groups=40",
    "20, 20, 1, .5": f"{arm}; queue_length=20",
    "20, 5, 1.25, .5": f"{arm}; exponent=1.25",
    "20, 5, 1, .7": f"{arm}; pooling=0.7",
  }
  assert set(rows) == set(names)
  for label, (mean, worst) in rows.items():
    result = results["hidden5", 1024, names[label]]
    assert mean == rarity_page.cell(result, None, "mean")
    assert worst == rarity_page.cell(result, None, "worst").split(" ")[0]


def differences(text):
  """What a text says of differences: numbers with a sign and one decimal."""
  found = re.findall(r"(?<![\w.])[+-](\d*\.\d)(?!\d)", text)
  return {f"{float(number):.1f}" for number in found}


def prose(text):
  """A page without code and without the tables that are written out of raw files."""
  text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
  text = re.sub(r"<!-- (.*?) -->\n.*?<!-- end of \1 -->", "", text, flags=re.DOTALL)
  return re.sub(r"`[^`]*`", "", text)


@pytest.mark.parametrize("page", ["results.md", "group-scarcity.md"])
def test_every_difference_that_a_page_tells_is_in_its_tables(page):
  text = (markers.DOCS / page).read_text()
  tables = "\n".join(re.findall(r"^\|.*$", text, re.MULTILINE))
  known = differences(tables)
  for sgd, *others in [v for sizes in figure6.PAPER.values() for v in sizes.values()]:
    known |= {f"{abs(100 * (x - sgd)):.1f}" for x in others if x is not None}
  told = differences(prose(text))
  assert len(told) > 10
  assert told <= known, told - known
  assert not differences(prose("It brings +98.7 points.")) <= known
