# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The README's blocks run, one after the other as a reader would, and its commands exist."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


@pytest.mark.standard_promotion  # they run under the rules that their readers have
def test_python_blocks_run():
  blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
  assert len(blocks) >= 2
  namespace = {}
  for number, block in enumerate(blocks):
    exec(compile(block, f"README.md, block {number}", "exec"), namespace)
  assert namespace["figures"]["queued"] == 1


def test_make_targets_exist():
  makefile = (ROOT / "Makefile").read_text()
  targets = re.findall(r"^make ([a-z]+)", README, flags=re.MULTILINE)
  assert {"demo", "test"} <= set(targets)
  for target in targets:
    assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_links_lead_somewhere():
  for target in re.findall(r"\]\((?!https?://)([^)#]+)", README):
    assert (ROOT / target).exists(), target
