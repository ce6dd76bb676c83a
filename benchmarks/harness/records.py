# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Finished runs in a file, one JSON a line: what was interrupted goes on where it stopped."""

import json
from pathlib import Path
from typing import Any


def read(path: Path) -> list[dict[str, Any]]:
  """The runs of a file, in the order in which they ended; none if there is no file.

  A last line without its end is a write that was interrupted, and is left out.
  """
  if not path.exists():
    return []
  return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


def append(path: Path, run: dict[str, Any]) -> None:
  """Adds a run behind those that are whole."""
  path.parent.mkdir(parents=True, exist_ok=True)
  if path.exists():
    text = path.read_text()
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
      path.write_text(whole)
  with path.open("a") as file:
    file.write(json.dumps(run) + "\n")
