# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The blocks of README and docs run, as a reader would; the site builds and can be read."""

import os
import pathlib
import re
import subprocess
import sys
import types

import pytest

import gq_optax as gq
from docs import hooks

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
WITH_A_LOOP = {  # whose state has seen a step
  "README.md": "recent",
  "quick-start.md": "recent",
  "example-scarcity.md": "recent",
  "group-scarcity.md": "groups",
  "grad-queue.md": "opt_state",
  "group-gradients.md": "opt_state",
}
WITH_CODE = [page for page in PAGES if "```python" in page.read_text()]


@pytest.mark.standard_promotion  # they run under the rules that their readers have
@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.name)
def test_python_blocks_run(page):
  namespace = {}
  for number, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)):
    exec(compile(block, f"{page.name}, block {number}", "exec"), namespace)
  assert namespace["gq"] is gq
  if page.name in WITH_A_LOOP:
    name = WITH_A_LOOP[page.name]
    state = namespace[name]
    assert (state[0].queue if name == "opt_state" else state).count == 1


def test_the_pages_with_code_are_found():
  assert {"recipes.md"} | set(WITH_A_LOOP) <= {page.name for page in WITH_CODE}


def test_the_api_page_names_all_that_is_public():
  page = (ROOT / "docs" / "api.md").read_text()
  assert sorted(re.findall(r"^::: gq_optax\.(\w+)$", page, re.MULTILINE)) == sorted(gq.__all__)


def test_every_page_is_in_the_navigation():
  nav = (ROOT / "mkdocs.yml").read_text()
  for page in PAGES[1:]:
    assert f" {page.relative_to(ROOT / 'docs').as_posix()}\n" in nav, page


def test_make_targets_exist():
  makefile = (ROOT / "Makefile").read_text()
  targets = re.findall(r"^make ([a-z]+)", README, flags=re.MULTILINE)
  assert {"demo", "test"} <= set(targets)
  for target in targets:
    assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
  for target in re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text()):
    assert (page.parent / target).exists(), target


# The site


@pytest.fixture(scope="module")
def site(tmp_path_factory):
  out = tmp_path_factory.mktemp("site")
  build = subprocess.run(
    [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", out],
    cwd=ROOT,
    env=os.environ | {"PYTHONPATH": str(ROOT)},
    capture_output=True,
    text=True,
  )
  assert build.returncode == 0, build.stderr
  return out


def test_docstrings_can_be_read(site):
  page = (site / "api" / "index.html").read_text()
  assert page.count("<math") > 20
  assert '<p><span><math xmlns="http://www.w3.org/1998/Math/MathML" display="inline">' in page
  assert page.count("<span><math") == page.count('display="inline"')  # a formula parts no sentence
  for source in (":math:", ".. math::", "=====", "<summary>Example"):
    assert source not in page, source
  rows = re.findall(r"<td>(.*?)</td>", page)
  assert "all embeddings the same" in rows
  assert "one group: every weight is 1" in rows
  assert "batch larger than the queue" in rows


def test_formulas_are_drawn_and_links_out_of_the_site_are_gone(site):
  page = (site / "theory" / "index.html").read_text()
  assert page.count('<div class="formula"><math') == 2
  for page in site.rglob("*.html"):
    assert "../benchmarks/" not in page.read_text(), page


def test_plots_are_on_the_site(site):
  shown = set()
  for page in site.rglob("*.html"):
    for source in re.findall(r'<img alt="[^"]+" src="([^"]+)"', page.read_text()):
      assert (page.parent / source).is_file(), source
      shown.add(pathlib.Path(source).name)
  assert {"safety_poison.svg", "cost_groups.svg", "example_scarcity_start.svg"} <= shown


def test_links_out_of_the_site_go_and_other_brackets_stay():
  page_of = lambda name: types.SimpleNamespace(file=types.SimpleNamespace(src_uri=name))
  page = "A label outside `[0, K)` is padding. See [the table](../x/y.json) and [costs](cost.md)."
  kept = "A label outside `[0, K)` is padding. See the table and [costs](cost.md)."
  assert hooks.on_page_markdown(page, page_of("a.md")) == kept
  deep = "![plot](../../benchmarks/results/x.svg), [costs](../cost.md), [raw](../../x)"
  kept = "![plot](../figures/x.svg), [costs](../cost.md), raw"
  assert hooks.on_page_markdown(deep, page_of("evidence/a.md")) == kept


def test_a_long_formula_is_drawn_in_parts_that_a_narrow_page_can_put_on_lines():
  drawn = hooks.mathml(r"a = b, \qquad c = d \quad\text{if } e", "block")
  assert drawn.count("<math") == drawn.count('display="block"') == 3
  assert hooks.mathml("a", "inline").count("<math") == 1
