# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Pages are what the results give; what is told beside a table is in it; guides are short."""

import re

import pytest

from benchmarks.harness import arms
from benchmarks.pages import exhibits, plots, writer
from benchmarks.pages.exhibits import GROUPS, OUTPUTS, SGDM, TASKS, TEN

GUIDES = sorted(writer.DOCS.glob("*.md"))
EVIDENCE = sorted((writer.DOCS / "evidence").glob("*.md"))
README = writer.ROOT / "README.md"
flat = lambda page: " ".join(page.read_text().split())


@pytest.mark.parametrize("page", [*GUIDES, *EVIDENCE], ids=lambda page: page.stem)
def test_every_page_is_what_the_results_give(page):
  text, name = page.read_text(), page.relative_to(writer.DOCS).as_posix()
  shown = [exhibit for exhibit in exhibits.ALL if exhibit.page == name]
  if page.stem != "when-every-example-fits":  # which benchmarks.margins.page writes
    assert sorted(re.findall(r"<!-- end of (.*) -->", text)) == sorted(e.name for e in shown)
  for exhibit in shown:
    assert writer.between_markers(text, exhibit.body(), exhibit.name) == text, exhibit.name
    assert writer.between_markers(text, "other", exhibit.name) != text, exhibit.name
    assert not exhibit.tells or exhibit.path().exists(), exhibit.name


def test_results_are_small_and_every_plot_is_shown():
  files = [path for path in writer.RESULTS.iterdir() if path.is_file()]
  assert sum(path.stat().st_size for path in files) < 2_000_000
  drawn = {exhibit.path() for exhibit in exhibits.ALL if exhibit.tells}
  assert {path for path in files if path.suffix == ".svg"} == drawn


def test_cells_by_hand():
  own, base = {"mean": [0.5, 0.75], "worst": [0.25, 0.75]}, {"mean": [0.25, 0.25, 0.0]}
  # 37.5 and 12.71 standard errors of 12.5 either side, over the two seeds of both.
  assert writer.quality(own, base).text == "62.5 ± 17.7 (+37.5 [-121.3, +196.3]), 50"
  assert writer.quality(own, own, worst="").text == "62.5 ± 17.7"
  assert writer.quality(None, base) is writer.NOTHING
  timed = {"ratio": 1.504, "ratio_low": 1.4, "ratio_high": 2.0}
  assert writer.ratio(timed).text == "1.50 (1.40, 2.00)"


def prose(text):
  """A page without code and without the tables that are written out of results."""
  text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
  text = re.sub(r"<!-- (.*?) -->\n.*?<!-- end of \1 -->", "", text, flags=re.DOTALL)
  return re.sub(r"`[^`]*`", "", text)


def differences(text):
  """What a text says of differences: numbers with a sign and one decimal."""
  found = re.findall(r"(?<![\w.])[+-](\d*\.\d)(?!\d)", text)
  return {f"{float(number):.1f}" for number in found}


@pytest.mark.parametrize("page", [README, *GUIDES, *EVIDENCE], ids=lambda page: page.stem)
def test_pages_are_short_and_plain_and_tell_what_is_in_their_tables(page):
  text = page.read_text()
  if page == README:
    assert text.count("\n") <= 120
    assert not [n for n in ("LT100", "hidden5", "JTT", "B/64", "SGDM") if n in text]
  else:
    for head in re.findall(r"^(\|.*\|)\n\|(?:-+\|)+$", text, re.MULTILINE):
      assert head.count("|") <= 6, head  # five columns
  if page in EVIDENCE:
    known = differences("\n".join(re.findall(r"^\|.*$", text, re.MULTILINE)))
    told = differences(prose(text))
    assert page.stem == "protocol" or told <= known, told - known  # it explains the notation
    return
  assert text.count("\n") <= 150
  text = re.sub(r"^\|.*$", "", prose(text), flags=re.MULTILINE)  # without tables
  text = re.sub(r"\]\([^)]*\)", "]", text)
  for paragraph in re.split(r"\n\s*\n|\n(?=[*\d] )", text):
    for sentence in re.split(r"(?<=[.:?!])\s+(?=[A-Z*\"(])", " ".join(paragraph.split())):
      numbers = re.findall(r"(?<![\w-])[+-]?\d*\.?\d+(?!\w)", sentence)
      assert len(numbers) <= 2, sentence


def test_plots_say_the_same_twice_and_no_time(tmp_path):
  path = tmp_path / "plot.svg"
  one, two = {"a": (0.5, 0.0, 1.0), "groups": (1.5, 1.0, 2.0)}, {"a": (2.0, 1.0, 3.0)}
  series = {"one": {"plain": [(256.0, 1.0), (1024.0, 2.0)]}}
  for draw, shown in (
    (lambda: plots.dots({"one": one, "two": two}, "points", path), "groups"),
    (lambda: plots.bars({"one": {"a": 3.0}}, "MiB", path, 1.0), "MiB"),
    (lambda: plots.lines(series, "batch size", path, log_x=True), "1024"),
  ):
    first, again = [(draw(), path.read_text())[1] for _ in range(2)]
    assert first == again
    assert shown in first
    assert "<dc:date>" not in first


@pytest.mark.parametrize("page", [README, writer.DOCS / "index.md"], ids=lambda page: page.stem)
def test_the_first_advice_rests_on_its_cells(page):
  text, told, equal = flat(page), "logit adjustment", writer.EQUAL
  gap = lambda rows, *task, arm, base: writer.gap(rows[*task, arm], rows[*task, base])[0]
  on_sgd = lambda size, arm: gap(TASKS, "LT100", size, arm=arm, base=SGDM)
  on_muon = lambda size, arm: gap(TEN, "LT100", size, "Muon", arm=arm, base=equal)
  cells = lambda size: exhibits.IN_PART[f"a part, B={size}"]
  part = lambda arm, size: exhibits.in_part(("Muon", arm), cells(size)).value[0]
  mean = lambda task, optimizer: writer.percent(exhibits.STRONG[task, 1, optimizer, equal]).mean()
  muon = [mean(t, "Muon") - mean(t, "SGDM") for t in exhibits.THREE]
  tasks = [exhibits.on_muon("mean over tasks", (exhibits.FEATURES, b)).value for b in (1024, 4096)]
  rows = {w: row for (o, w), row in exhibits.DEEP.items() if o == "Muon"}
  deep = {w: writer.gap(row, rows[equal]) for w, row in rows.items() if w != equal}
  claims = [
    f"rare classes: {on_muon(1024, told):+.1f} and {on_muon(1024, OUTPUTS):+.1f} points on top of"
    f" Muon; in batches of 4096 {on_muon(4096, told):+.1f} and {on_muon(4096, OUTPUTS):+.1f} |",
    f"rare classes: {on_sgd(1024, 'class weights'):+.1f} and {on_sgd(1024, OUTPUTS):+.1f} points on"
    " top of SGD |",
    f"{part(OUTPUTS, 1024):+.1f} points on top of Muon by either; in batches of 4096"
    f" {part(OUTPUTS, 4096):+.1f} and {part(told, 4096):+.1f},"
    f" by both at once {part(arms.COMBINED[1], 4096):+.1f} |",
    f"{min(muon):.1f} to {max(muon):.1f} points over SGD by Muon alone; by weights on top"
    f" {tasks[0][0]:+.1f}, in batches of 4096 {tasks[1][0]:+.1f} |",
    f"{deep.pop(told)[0]:+.1f} points on top of Muon, and weights",
  ]
  if page == README:
    closed = 100 * exhibits.part_of_way(exhibits.FEATURES, 1024).value
    claims += [
      f"the weights bring {on_sgd(4096, OUTPUTS):+.1f} points of mean recall",
      f"which are told the counts, bring {on_sgd(4096, 'class weights'):+.1f}.",
      f"On six tasks the weights close {closed:.0f} % of the gap",
      "On top of Muon it is a sixth.",
    ]
  assert not [claim for claim in claims if claim not in text]
  assert f"{part(OUTPUTS, 1024):+.1f}" == f"{part(told, 1024):+.1f}"
  assert min(low for _, low, _ in tasks) > 0.0  # above Muon, with the interval
  assert all(low < 0.0 < high for _, low, high in deep.values())
  way = lambda weights: exhibits.way(TEN, exhibits.KINDS, weights, ("Muon", 1024)).value
  assert 1 / 7 < way(exhibits.FEATURES) - way(equal) < 1 / 5


def test_the_best_rates_lie_inside_their_grids():
  assert all(row["inside"] for row in TASKS.values())
  assert len(TASKS) > 500
  assert TASKS["LT100", 1024, GROUPS]["rate"] == 0.06
