# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Pages are what the raw results give; guides are short, a plot stands above every table."""

import json
import re

import numpy as np
import pytest

from benchmarks.harness.arms import AT_RANDOM, COMBINED
from benchmarks.pages import (
  alternatives_page,
  combined,
  cost_page,
  examples_page,
  groups_page,
  markers,
  networks_page,
  optimizers_page,
  options_page,
  plots,
  questions_page,
  rare_results,
  rarity_page,
  results_page,
  safety_page,
  scale_page,
  step_page,
  ten_seeds,
)
from benchmarks.paper import figure6

GUIDES = sorted(markers.DOCS.glob("*.md"))
EVIDENCE = sorted(markers.EVIDENCE.glob("*.md"))


@pytest.fixture(scope="module")
def results():
  found = rare_results.read(rare_results.RESULTS)
  assert len(found) >= 60
  return found


def of_pages(results):
  """What stands between the markers of every page."""
  return {
    alternatives_page.PAGE: alternatives_page.bodies(results),
    cost_page.PAGE: cost_page.bodies(),
    cost_page.EVIDENCE: cost_page.full_bodies(),
    examples_page.PAGE: examples_page.bodies(results) | options_page.bodies(results),
    groups_page.PAGE: groups_page.bodies(rare_results.read(groups_page.RESULTS)),
    optimizers_page.PAGE: optimizers_page.bodies(
      optimizers_page.read(), optimizers_page.read_curves()
    ),
    networks_page.PAGE: networks_page.bodies(networks_page.read()),
    questions_page.PAGE: questions_page.bodies(results),
    rarity_page.PAGE: rarity_page.bodies(results),
    rarity_page.TASKS_PAGE: {"tables": rarity_page.tables(results)},
    results_page.PAGE: results_page.bodies(),
    results_page.LONG_TAIL: results_page.long_tail_bodies(),
    safety_page.PAGE: safety_page.bodies(),
    scale_page.PAGE: scale_page.bodies(),
    step_page.PAGE: step_page.bodies(),
  }


def test_every_page_is_what_the_raw_files_give(results):
  pages = of_pages(results)
  written = {page for page in (*GUIDES, *EVIDENCE) if "<!-- end of " in page.read_text()}
  assert written == set(pages)
  for page, bodies in pages.items():
    text = page.read_text()
    assert set(re.findall(r"<!-- end of (.*) -->", text)) == set(bodies), page.name
    for name, body in bodies.items():
      assert markers.between_markers(text, body, name) == text, (page.name, name)
      assert markers.between_markers(text, "other", name) != text, (page.name, name)


def test_a_page_without_the_markers_is_refused(tmp_path):
  page = tmp_path / "page.md"
  page.write_text("<!-- a (b) -->\nold\n<!-- end of a (b) -->\n")
  markers.fill(page, {"a (b)": "new"})
  assert page.read_text() == "<!-- a (b) -->\nnew\n<!-- end of a (b) -->\n"
  with pytest.raises(ValueError, match="page must have the markers 'c', but .* has none"):
    markers.fill(page, {"c": ""})


def tables(text):
  """The heads of all tables."""
  return re.findall(r"^(\|.*\|)\n\|(?:-+\|)+$", text, re.MULTILINE)


def test_a_plot_stands_above_every_table_of_evidence():
  shown = 0
  for page in EVIDENCE:
    bodies = re.findall(r"<!-- (?!end)[^>]*-->\n(.*?)\n<!-- end of", page.read_text(), re.DOTALL)
    for body in bodies:
      heads = tables(body)
      if heads and body.count("\n") > 2:  # one row is a baseline that waits for others
        missing = body.startswith("|") and body.count("\n") == 2
        assert missing or body.index("![") < body.index("|"), (page.name, heads[0])
        shown += 1
  assert shown > 20


@pytest.mark.parametrize("page", [*GUIDES, *EVIDENCE], ids=lambda page: page.stem)
def test_tables_are_narrow_and_guides_are_short(page):
  text = page.read_text()
  for head in tables(text):
    assert head.count("|") <= 6, head  # five columns
  if page in GUIDES:
    assert text.count("\n") <= 150


def differences(text):
  """What a text says of differences: numbers with a sign and one decimal."""
  found = re.findall(r"(?<![\w.])[+-](\d*\.\d)(?!\d)", text)
  return {f"{float(number):.1f}" for number in found}


def prose(text):
  """A page without code and without the tables that are written out of raw files."""
  text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
  text = re.sub(r"<!-- (.*?) -->\n.*?<!-- end of \1 -->", "", text, flags=re.DOTALL)
  return re.sub(r"`[^`]*`", "", text)


@pytest.mark.parametrize("page", EVIDENCE, ids=lambda page: page.stem)
def test_every_difference_that_a_page_tells_is_in_its_tables(page):
  text = page.read_text()
  known = differences("\n".join(re.findall(r"^\|.*$", text, re.MULTILINE)))
  for sgd, *others in [v for sizes in figure6.PAPER.values() for v in sizes.values()]:
    known |= {f"{abs(100 * (x - sgd)):.1f}" for x in others if x is not None}
  if page.stem != "protocol":  # it explains the notation
    told = differences(prose(text))
    assert told <= known, told - known
  assert not differences(prose("It brings +98.7 points.")) <= known


def test_plots_say_the_same_twice_and_no_time(tmp_path):
  one, two = {"a": (0.5, 0.0, 1.0), "grouped": (1.5, 1.0, 2.0)}, {"a": (2.0, 1.0, 3.0)}
  panels = {"one": one, "two": two}
  for name in ("first", "second"):
    plots.dots(panels, "points", tmp_path / f"{name}.svg")
  first = (tmp_path / "first.svg").read_text()
  assert first == (tmp_path / "second.svg").read_text()
  assert "grouped" in first
  assert "<dc:date>" not in first
  bars = {name: {label: row[0] for label, row in rows.items()} for name, rows in panels.items()}
  plots.bars(bars, "MiB", tmp_path / "bars.svg", 1.0)
  assert "MiB" in (tmp_path / "bars.svg").read_text()
  series = {"one": {"plain": [(256.0, 1.0), (1024.0, 2.0)]}}
  plots.lines(series, "batch size", "%", tmp_path / "lines.svg", (256, 1024), {"plain"})
  assert "1024" in (tmp_path / "lines.svg").read_text()


def test_the_readme_tells_what_was_measured(results):
  readme = " ".join((markers.ROOT / "README.md").read_text().split())
  gap = lambda arm: rare_results.gap(results, "LT100", 4096, arm, "mean")[0]
  assert f"the weights bring {gap(examples_page.OUTPUTS):+.1f} points of mean recall" in readme
  assert f"which are told the counts, bring {gap('class weights'):+.1f}." in readme
  part, tasks = rare_results.part_of_way(results, examples_page.FEATURES, 1024)
  assert tasks == 6
  assert f"On six tasks the weights close {100 * part:.0f} % of the gap" in readme
  report = json.loads((markers.DEMO / "demo.json").read_text())
  best = report["control_against_best"]["best"]
  points = lambda arm: 100 * report["arms"][arm]["against_baseline"]["balanced_accuracy"]["mean"]
  assert f"the best of the weights brings {points(best):+.1f} points over plain training" in readme
  assert f"Class weights bring {points('class weights'):+.1f}." in readme


@pytest.mark.parametrize("page", [markers.ROOT / "README.md", markers.DOCS / "index.md"])
def test_the_first_advice_rests_on_its_cells(page, results):
  text, rows = " ".join(page.read_text().split()), optimizers_page.read()
  ten = ten_seeds.read()
  gain = lambda size, arm: np.mean(
    ten_seeds.difference(ten, "LT100", size, f"{arm} on Muon", "Muon")
  )
  told, ours = ("logit adjustment", "example scarcity, outputs")
  assert (
    f"rare classes: {gain(1024, told):+.1f} and {gain(1024, ours):+.1f} points on top of Muon;"
    f" in batches of 4096 {gain(4096, told):+.1f} and {gain(4096, ours):+.1f} |"
  ) in text
  assert min(gain(size, told) - gain(size, "class weights") for size in ten_seeds.SIZES) > 0.5
  on_sgd = [
    rare_results.gap(results, "LT100", 1024, arm, "mean")[0] for arm in ("class weights", ours)
  ]
  assert f"rare classes: {on_sgd[0]:+.1f} and {on_sgd[1]:+.1f} points on top of SGD |" in text
  part = combined.gaps(combined.read())
  at_once = {size: part[f"a part, B={size}"] for size in ten_seeds.SIZES}
  assert f"{at_once[1024][ours][0]:+.1f}" == f"{at_once[1024][told][0]:+.1f}"
  assert (
    f"{at_once[1024][ours][0]:+.1f} points on top of Muon by either; in batches of 4096"
    f" {at_once[4096][ours][0]:+.1f} and {at_once[4096][told][0]:+.1f},"
    f" by both at once {at_once[4096]['both, outputs'][0]:+.1f} |"
  ) in text
  mean = lambda task, arm: np.mean(rare_results.values(rows[task, arm, 1], "mean"))
  hidden = [t for t in optimizers_page.TASKS if "hidden" in t]
  muon = [mean(t, "Muon") - mean(t, "SGDM") for t in hidden]
  small, large = (
    ten_seeds.idea_gaps(ten, size)["mean over tasks"][ten_seeds.OURS] for size in ten_seeds.SIZES
  )
  assert (
    f"{min(muon):.1f} to {max(muon):.1f} points over SGD by Muon alone; by weights on top"
    f" {small[0]:+.1f}, in batches of 4096 {large[0]:+.1f} |"
  ) in text
  assert min(small[1], large[1]) > 0.0  # above Muon, with the interval
  runs = networks_page.read()
  deep = {way: networks_page.gap(runs, "Muon", way) for way in networks_page.ways(runs, "Muon")[1:]}
  assert f"{deep.pop('logit adjustment')['mean']:+.1f} points on top of Muon, and weights" in text
  assert all(gap["low"] < 0.0 < gap["high"] for gap in deep.values())


def test_logit_adjustment_and_weights_at_once():
  """What the page says of them beside the table, by the differences of each seed."""
  rows = combined.read()
  weights, told = "logit adjustment and example scarcity, outputs", "logit adjustment"
  names = {"alone": told, "at random": weights + AT_RANDOM}
  gap = lambda column, size, to, arm=weights: ten_seeds.interval(
    combined.difference(rows, column, size, f"{arm} on Muon", f"{to} on Muon")
  )
  large = {name: gap("a part", 4096, to) for name, to in names.items()}
  assert all(round(found[0], 1) == 0.5 and found[1] > 0.0 for found in large.values())
  small = gap("a part", 1024, told)
  assert small[1] < 0.0 < small[2]
  for size in ten_seeds.SIZES:
    for arm in COMBINED:
      lost = gap("all", size, told, arm)
      assert 0.35 < -lost[0] < 0.55
      assert lost[2] < 0.0
    worst = [
      np.mean(rare_results.values(rows["LT100", size, f"{arm} on Muon"], "worst"))
      for arm in (weights, told)
    ]
    assert 9.0 < worst[0] - worst[1] < 12.0
  assert all(row["rate_inside_grid"] for row in rows.values())


def test_the_readme_tells_the_way_on_top_of_muon():
  readme = " ".join((markers.ROOT / "README.md").read_text().split())
  part = ten_seeds.ways(ten_seeds.read(), 1024)["Muon, B=1024"]
  assert "On top of Muon it is a sixth." in readme
  assert 1 / 7 < part[ten_seeds.OURS] - part[ten_seeds.NONE] < 1 / 5


def test_the_readme_is_short():
  readme = (markers.ROOT / "README.md").read_text()
  assert readme.count("\n") <= 120
  for name in ("LT100", "hidden5", "JTT", "B/64", "SGDM"):
    assert name not in readme


@pytest.mark.parametrize("page", [markers.ROOT / "README.md", *GUIDES], ids=lambda page: page.stem)
def test_a_sentence_has_at_most_two_figures(page):
  text = re.sub(r"^\|.*$", "", prose(page.read_text()), flags=re.MULTILINE)  # without tables
  text = re.sub(r"\]\([^)]*\)", "]", text)
  for paragraph in re.split(r"\n\s*\n|\n(?=[*\d] )", text):
    for sentence in re.split(r"(?<=[.:?!])\s+(?=[A-Z*\"(])", " ".join(paragraph.split())):
      figures = re.findall(r"(?<![\w-])[+-]?\d*\.?\d+(?!\w)", sentence)
      assert len(figures) <= 2, sentence
