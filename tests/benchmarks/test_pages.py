# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Pages are what the results give; what is told beside a table is in it; guides are short."""

import re

import numpy as np
import pytest

from benchmarks.harness import arms
from benchmarks.pages import exhibits, plots, writer
from benchmarks.pages.exhibits import GROUPS, OUTPUTS, POOLED, SGDM, TASKS, TEN

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


def test_a_page_without_the_markers_is_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(writer, "DOCS", tmp_path)
  page = tmp_path / "page.md"
  page.write_text("<!-- a (b) -->\nold\n<!-- end of a (b) -->\n")
  numbers = {"x": {"p": 1.5, "q": None}, "y": {"p": None, "q": None}}
  cell = lambda row, column: writer.Cell(f"{row[column]}", 1.0) if row[column] else writer.NOTHING
  table = writer.Table("corner", writer.same("p", "q"), numbers, cell)
  exhibit = writer.Exhibit("page.md", "a (b)", [table])
  writer.write([exhibit])
  body = "| corner | p | q |\n|---|---|---|\n| x | 1.5 | - |"  # y has no cell
  assert page.read_text() == f"<!-- a (b) -->\n{body}\n<!-- end of a (b) -->\n"
  with pytest.raises(ValueError, match="page must have the markers 'c', but .* has none"):
    writer.write([exhibit._replace(name="c")])


def test_cells_by_hand():
  own, base = {"mean": [0.5, 0.75], "worst": [0.25, 0.75]}, {"mean": [0.25, 0.25, 0.0]}
  # 37.5 and 12.71 standard errors of 12.5 either side, over the two seeds of both.
  assert writer.quality(own, base).text == "62.5 ± 17.7 (+37.5 [-121.3, +196.3]), 50"
  assert writer.quality(own, own, worst="").text == "62.5 ± 17.7"
  assert writer.quality(None, base) is writer.NOTHING
  timed = {"ratio": 1.504, "ratio_low": 1.4, "ratio_high": 2.0}
  assert writer.ratio(timed).text == "1.50 (1.40, 2.00)"


def test_the_way_by_hand(monkeypatch):
  row = lambda *means: {"mean": means}
  names = {SGDM: row(0.5, 0.5), "JTT": row(0.5, 0.75), arms.ORACLE: row(1.0, 1.0)}
  monkeypatch.setattr(exhibits, "TASKS", {("hidden5", 64, k): v for k, v in names.items()})
  assert exhibits.part_of_way("JTT", 64).text == "+0.25 (1 task)"
  assert exhibits.part_of_way("LAMB", 64) is writer.NOTHING


@pytest.mark.parametrize("page", [*GUIDES, *EVIDENCE], ids=lambda page: page.stem)
def test_tables_are_narrow_and_guides_are_short(page):
  text = page.read_text()
  for head in re.findall(r"^(\|.*\|)\n\|(?:-+\|)+$", text, re.MULTILINE):
    assert head.count("|") <= 6, head  # five columns
  assert page in EVIDENCE or text.count("\n") <= 150


def differences(text):
  """What a text says of differences: numbers with a sign and one decimal."""
  found = re.findall(r"(?<![\w.])[+-](\d*\.\d)(?!\d)", text)
  return {f"{float(number):.1f}" for number in found}


def prose(text):
  """A page without code and without the tables that are written out of results."""
  text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
  text = re.sub(r"<!-- (.*?) -->\n.*?<!-- end of \1 -->", "", text, flags=re.DOTALL)
  return re.sub(r"`[^`]*`", "", text)


@pytest.mark.parametrize("page", EVIDENCE, ids=lambda page: page.stem)
def test_every_difference_that_a_page_tells_is_in_a_table(page):
  known = differences("\n".join(re.findall(r"^\|.*$", page.read_text(), re.MULTILINE)))
  told = differences(prose(page.read_text()))
  assert page.stem == "protocol" or told <= known, told - known  # it explains the notation


def test_plots_say_the_same_twice_and_no_time(tmp_path):
  one, two = {"a": (0.5, 0.0, 1.0), "groups": (1.5, 1.0, 2.0)}, {"a": (2.0, 1.0, 3.0)}
  for name in ("first", "second"):
    plots.dots({"one": one, "two": two}, "points", tmp_path / f"{name}.svg")
  first = (tmp_path / "first.svg").read_text()
  assert first == (tmp_path / "second.svg").read_text()
  assert "groups" in first
  assert "<dc:date>" not in first
  plots.bars({"one": {"a": 3.0}}, "MiB", tmp_path / "bars.svg", 1.0)
  assert "MiB" in (tmp_path / "bars.svg").read_text()
  series = {"one": {"plain": [(256.0, 1.0), (1024.0, 2.0)]}}
  plots.lines(series, "batch size", tmp_path / "lines.svg", log_x=True)
  assert "1024" in (tmp_path / "lines.svg").read_text()


def test_the_readme_tells_what_was_measured():
  readme = flat(README)
  gap = lambda arm: writer.gap(TASKS["LT100", 4096, arm], TASKS["LT100", 4096, SGDM])[0]
  assert f"the weights bring {gap(OUTPUTS):+.1f} points of mean recall" in readme
  assert f"which are told the counts, bring {gap('class weights'):+.1f}." in readme
  part = exhibits.part_of_way(exhibits.FEATURES, 1024).value
  assert f"On six tasks the weights close {100 * part:.0f} % of the gap" in readme
  on_muon = lambda weights: exhibits.way(TEN, exhibits.KINDS, weights, ("Muon", 1024)).value
  assert "On top of Muon it is a sixth." in readme
  assert 1 / 7 < on_muon(exhibits.FEATURES) - on_muon(writer.EQUAL) < 1 / 5


@pytest.mark.parametrize("page", [README, writer.DOCS / "index.md"], ids=lambda page: page.stem)
def test_the_first_advice_rests_on_its_cells(page):
  text, told = flat(page), "logit adjustment"
  on_muon = lambda size, arm: writer.gap(
    TEN["LT100", size, "Muon", arm], TEN["LT100", size, "Muon", writer.EQUAL]
  )[0]
  assert (
    f"rare classes: {on_muon(1024, told):+.1f} and {on_muon(1024, OUTPUTS):+.1f} points on top of"
    f" Muon; in batches of 4096 {on_muon(4096, told):+.1f} and {on_muon(4096, OUTPUTS):+.1f} |"
  ) in text
  on_sgd = [
    writer.gap(TASKS["LT100", 1024, arm], TASKS["LT100", 1024, SGDM])[0]
    for arm in ("class weights", OUTPUTS)
  ]
  assert f"rare classes: {on_sgd[0]:+.1f} and {on_sgd[1]:+.1f} points on top of SGD |" in text
  part = lambda arm, size: exhibits.in_part(
    ("Muon", arm), exhibits.IN_PART[f"a part, B={size}"]
  ).value[0]
  assert f"{part(OUTPUTS, 1024):+.1f}" == f"{part(told, 1024):+.1f}"
  assert (
    f"{part(OUTPUTS, 1024):+.1f} points on top of Muon by either; in batches of 4096"
    f" {part(OUTPUTS, 4096):+.1f} and {part(told, 4096):+.1f},"
    f" by both at once {part(arms.COMBINED[1], 4096):+.1f} |"
  ) in text
  mean = lambda task, optimizer: writer.percent(
    exhibits.STRONG[task, 1, optimizer, writer.EQUAL]
  ).mean()
  muon = [mean(t, "Muon") - mean(t, "SGDM") for t in exhibits.THREE]
  small, large = (
    exhibits.on_muon("mean over tasks", exhibits.FEATURES, b).value for b in (1024, 4096)
  )
  assert (
    f"{min(muon):.1f} to {max(muon):.1f} points over SGD by Muon alone; by weights on top"
    f" {small[0]:+.1f}, in batches of 4096 {large[0]:+.1f} |"
  ) in text
  assert min(small[1], large[1]) > 0.0  # above Muon, with the interval
  rows = {w: row for (o, w), row in exhibits.DEEP.items() if o == "Muon"}
  deep = {w: writer.gap(row, rows[writer.EQUAL]) for w, row in rows.items() if w != writer.EQUAL}
  assert f"{deep.pop(told)[0]:+.1f} points on top of Muon, and weights" in text
  assert all(low < 0.0 < high for _, low, high in deep.values())


def test_the_page_of_choices_tells_what_was_measured():
  rows = re.findall(
    r"^\| (\d+), (\d+), ([\d.]+), ([\d.]+) \| (\S+ ± \S+) \| (\S+) \|$",
    (writer.DOCS / "choosing.md").read_text().replace("**", ""),
    re.MULTILINE,
  )
  found = {}
  for (task, size, name), row in TASKS.items():
    known = name.partition(";")[0] in ("group scarcity, features", POOLED)
    if (
      (task, size) == ("hidden5", 1024)
      and known
      and not {"temper", "entropy", "ramp"} & set(re.findall(r"[a-z]+", name.partition(";")[2]))
    ):
      g = arms.find(name).groups
      found[g.num_groups, g.queue_length, g.exponent, g.pooling] = row
  assert len(rows) == 6
  for groups, length, exponent, pooling, mean, worst in rows:
    row = found[int(groups), int(length), float(exponent), float(pooling)]
    assert writer.quality(row, None, worst="").text == mean
    assert f"{writer.percent(row, 'worst').mean():.1f}" == worst


def test_the_best_rates_lie_inside_their_grids():
  assert all(row["inside"] for row in TASKS.values())
  assert len(TASKS) > 500
  assert TASKS["LT100", 1024, GROUPS]["rate"] == 0.06


def test_the_readme_is_short():
  text = README.read_text()
  assert text.count("\n") <= 120
  for name in ("LT100", "hidden5", "JTT", "B/64", "SGDM"):
    assert name not in text


@pytest.mark.parametrize("page", [README, *GUIDES], ids=lambda page: page.stem)
def test_a_sentence_has_at_most_two_figures(page):
  text = re.sub(r"^\|.*$", "", prose(page.read_text()), flags=re.MULTILINE)  # without tables
  text = re.sub(r"\]\([^)]*\)", "]", text)
  for paragraph in re.split(r"\n\s*\n|\n(?=[*\d] )", text):
    for sentence in re.split(r"(?<=[.:?!])\s+(?=[A-Z*\"(])", " ".join(paragraph.split())):
      numbers = re.findall(r"(?<![\w-])[+-]?\d*\.?\d+(?!\w)", sentence)
      assert len(numbers) <= 2, np.array(sentence)
