# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Tables and their cells, as Markdown."""

from collections.abc import Sequence


def markdown(rows: Sequence[Sequence[str]]) -> str:
  """A table, its first row the head."""
  lines = ["| " + " | ".join(row) + " |" for row in rows]
  return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def quartiles(timed: dict[str, float], digits: int) -> str:
  """A ratio of `timing` with its quartiles."""
  middle, low, high = (f"{timed[k]:.{digits}f}" for k in ("ratio", "ratio_low", "ratio_high"))
  return f"{middle} ({low}, {high})"
