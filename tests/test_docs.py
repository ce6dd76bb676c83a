# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The blocks of README and docs run, as a reader would; the site builds and can be read."""

import os
import pathlib
import re
import subprocess
import sys

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
FIRST = {"README.md", "quick-start.md", "grad-queue.md", "example-scarcity.md", "checkpoints.md"}


@pytest.mark.standard_promotion  # they run under the rules that their readers have
@pytest.mark.parametrize(
  "page",
  [
    pytest.param(page, id=page.name, marks=[pytest.mark.slow] * (page.name not in FIRST))
    for page in WITH_CODE
  ],
)
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
