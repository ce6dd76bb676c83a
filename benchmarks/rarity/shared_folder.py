# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Several processes share the cells of an experiment through a folder, and none runs one twice.

Each process appends to a file of its own. A lock of the operating system says who runs a cell: it
is gone with its process, so that what was interrupted is free again.
"""

import contextlib
import fcntl
import hashlib
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.harness import records

Row = dict[str, Any]
Cell = TypeVar("Cell")
WAIT = 0.5  # seconds, where all that is left is run by others or waits for them


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool]:
  """Whether the lock of this name is ours; it is until the end of the block."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.open("w") as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      yield False
    else:
      yield True


def read(folder: Path) -> list[Row]:
  """The rows of all files of a folder."""
  return [row for path in sorted(folder.glob("*.jsonl")) for row in records.read(path)]


@contextlib.contextmanager
def own_file(folder: Path) -> Iterator[Path]:
  """The first file that no other process appends to."""
  with contextlib.ExitStack() as stack:
    number = 0
    while not stack.enter_context(locked(folder / "locks" / f"file{number}")):
      number += 1
    yield folder / f"{number}.jsonl"


def share(
  cells: Sequence[Cell],
  folder: Path,
  key: Callable[[Row], Cell],
  needs: Callable[[Cell], Cell | None],
  run: Callable[[Cell, Row | None], Row],
  emit: Callable[[Row], None],
) -> list[Cell]:
  """Runs what is not in the folder yet; ends when nothing is left, here or in another process.

  Args:
    cells: what is to be run, and in which order it is tried.
    folder: of the rows; those of any file of it count.
    key: the cell of a row.
    needs: the cell whose row must be there first; it is one of `cells`, or in the folder.
    run: the row of a cell, out of the row that it needs.
    emit: gets every new row.

  Returns:
    The cells that failed here, or that need one of them.
  """
  waiting, failed = list(cells), []
  finished = lambda: {key(row): row for row in read(folder)}

  def attempt(cell: Cell, path: Path) -> None:
    """Runs a cell whose lock is ours, unless another process did since we looked."""
    done, first = finished(), needs(cell)
    if cell in done:
      return
    try:
      row = run(cell, None if first is None else done[first])
    except Exception:  # the other cells still count
      traceback.print_exc()
      failed.append(cell)
      return
    records.append(path, row)
    emit(row)

  with own_file(folder) as path:
    while True:
      done = finished()
      failed += [cell for cell in waiting if needs(cell) in failed and needs(cell) not in done]
      waiting = [cell for cell in waiting if cell not in done and cell not in failed]
      if not waiting:
        return failed
      tried = False
      for cell in waiting:
        if needs(cell) is None or needs(cell) in done:
          name = hashlib.sha256(repr(cell).encode()).hexdigest()[:16]
          with locked(folder / "locks" / name) as ours:
            if ours:
              attempt(cell, path)
              tried = True
      if not tried:
        time.sleep(WAIT)
