# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Rows that share a plain step: compiled, and timed in turn with it, launch behind launch."""

import traceback
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from benchmarks.harness import timing

Row = dict[str, Any]
Bars = dict[str, float | None]
Maker = Callable[[], timing.Step]
ROUNDS = 7
# Seconds of plain steps before there is a wait: many of those that take less than a millisecond.
AT_ONCE = 0.03
MOST = 100


class Job(NamedTuple):
  """Rows that are measured together; `run` takes the names of those that are wanted."""

  part: str
  name: str
  rows: tuple[str, ...]
  run: Callable[[list[str]], dict[str, Row]]


def compare(
  makers: dict[str, Maker], reference: str, wanted: Sequence[str], bars: Bars, bar_of: str = "ratio"
) -> dict[str, Row]:
  """Compiles the wanted ways and times them in turn with the reference, several launches a turn."""
  steps = {}
  for way in dict.fromkeys([reference, *wanted]):
    try:
      step = makers[way]()
      timing.back_to_back(step, 2).run()  # the second meets the state that the first has left
      steps[way] = step
    except Exception:  # out of memory, or what this device cannot do: the others still count
      if way == reference:
        raise
      traceback.print_exc()
  plain = timing.back_to_back(steps[reference], 3)
  often = max(1, min(MOST, int(AT_ONCE / (timing.seconds(plain.run) / 3))))
  runs = {way: timing.back_to_back(step, often) for way, step in steps.items()}
  found = timing.interleaved(runs, reference, ROUNDS)
  ms = lambda seconds: 1e3 * seconds / often
  rows = {}
  for way in (way for way in wanted if way in steps):
    timed, step = found[way], steps[way]
    rows[way] = {
      "ms": ms(timed.median), "ms_low": ms(timed.low), "ms_high": ms(timed.high),
      "ratio": timed.ratio, "ratio_low": timed.ratio_low, "ratio_high": timed.ratio_high,
      "reference": reference, "reference_ms": ms(found[reference].median), "launches": often,
      "compile_seconds": step.compile_seconds, "temp_bytes": step.temp_bytes,
      "reference_compile_seconds": steps[reference].compile_seconds,
      "reference_temp_bytes": steps[reference].temp_bytes,
      "bar": bars.get(way), "bar_of": bar_of,
    }  # fmt: skip
  return rows
