# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The blocks of README and docs run, one after the other as a reader would; commands exist."""

import pathlib
import re

import pytest

import gq_optax as gq

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
