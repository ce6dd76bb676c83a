# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Where the pages and the results lie, and how a table gets between two markers of a page."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
EVIDENCE = DOCS / "evidence"
PAPER, COST, RARITY, DEMO = (
  ROOT / "benchmarks" / purpose / "results" for purpose in ("paper", "cost", "rarity", "demo")
)


def between_markers(page: str, body: str, name: str = "tables") -> str:
  """The page with the part between its two markers of this name replaced."""
  name = re.escape(name)
  pattern = rf"(<!-- {name} -->\n).*?(\n<!-- end of {name} -->)"
  return re.sub(pattern, lambda m: m[1] + body + m[2], page, flags=re.DOTALL)


def exhibit(plot: Path, tells: str, *tables: str, page: Path = EVIDENCE / "page.md") -> str:
  """A plot, what it tells in place of it, and below it the tables that it shows."""
  where = Path(os.path.relpath(plot, page.parent)).as_posix()
  return "\n\n".join([f"![{tells}]({where})", *tables])


def fill(page: Path, bodies: Mapping[str, str]) -> None:
  """Writes what stands between the markers of a page."""
  text = page.read_text()
  for name, body in bodies.items():
    if f"<!-- {name} -->\n" not in text:
      raise ValueError(f"page must have the markers {name!r}, but {page} has none.")
    text = between_markers(text, body, name)
  page.write_text(text)
