# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The blocks of README and docs run, one after the other as a reader would; commands exist."""

import pathlib
import re

import pytest

import gq_optax as gq

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NO_CODE = {"alternatives.md", "api.md"}  # tables; the examples of the API run as doctests
ONE_STEP = {"README.md", "group-gradients.md", "group-scarcity.md"}  # end in a step of a grad_queue


@pytest.mark.standard_promotion  # they run under the rules that their readers have
@pytest.mark.parametrize(
  "page", [page for page in PAGES if page.name not in NO_CODE], ids=lambda page: page.name
)
def test_python_blocks_run(page):
  blocks = re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)
  assert blocks
  namespace = {}
  for number, block in enumerate(blocks):
    exec(compile(block, f"{page.name}, block {number}", "exec"), namespace)
  if page.name in ONE_STEP:
    assert namespace["opt_state"][0].queue.count == 1


def test_every_public_name_stands_in_the_api_once():
  listed = re.findall(
    r"^::: gq_optax\.(\w+)$", (ROOT / "docs/api.md").read_text(), flags=re.MULTILINE
  )
  assert sorted(listed) == sorted(gq.__all__)


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
