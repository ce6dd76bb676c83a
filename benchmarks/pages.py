# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Tables of the documentation: written out of raw results, between two markers of a page."""

import re
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCS, RESULTS = ROOT / "docs", ROOT / "benchmarks" / "results"


def markdown(rows: Sequence[Sequence[str]]) -> str:
  """A table, its first row the head."""
  lines = ["| " + " | ".join(row) + " |" for row in rows]
  return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def quartiles(timed: dict[str, float], digits: int) -> str:
  """A ratio of `benchmarks.timing` with its quartiles."""
  middle, low, high = (f"{timed[k]:.{digits}f}" for k in ("ratio", "ratio_low", "ratio_high"))
  return f"{middle} ({low}, {high})"


def between_markers(page: str, body: str, name: str = "tables") -> str:
  """The page with the part between its two markers of this name replaced."""
  pattern = rf"(<!-- {name} -->\n).*?(\n<!-- end of {name} -->)"
  return re.sub(pattern, lambda m: m[1] + body + m[2], page, flags=re.DOTALL)
