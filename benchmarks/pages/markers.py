# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Where the pages and the results lie, and how a table gets between two markers of a page."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAPER, COST, RARITY, DEMO = (
  ROOT / "benchmarks" / purpose / "results" for purpose in ("paper", "cost", "rarity", "demo")
)


def between_markers(page: str, body: str, name: str = "tables") -> str:
  """The page with the part between its two markers of this name replaced."""
  pattern = rf"(<!-- {name} -->\n).*?(\n<!-- end of {name} -->)"
  return re.sub(pattern, lambda m: m[1] + body + m[2], page, flags=re.DOTALL)
