# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Compiled steps, timed in turn with a plain one, launch behind launch; compile time apart."""

import statistics
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

Row = dict[str, Any]
Bars = dict[str, float | None]
ROUNDS = 7
# Seconds of plain steps before there is a wait: many of those that take less than a millisecond.
AT_ONCE = 0.03
MOST = 100


class Step(NamedTuple):
  """A compiled step.

  Attributes:
    launch: does one step and does not wait; takes other inputs, or none for those it was made for.
    compile_seconds: what compiling took.
    temp_bytes: temporary memory beside arguments and results, as XLA plans it.
  """

  launch: Callable[..., Any]
  compile_seconds: float
  temp_bytes: int


Maker = Callable[[], Step]


class Job(NamedTuple):
  """Rows that are measured together; `run` takes the names of those that are wanted."""

  part: str
  name: str
  rows: tuple[str, ...]
  run: Callable[[list[str]], dict[str, Row]]


def compile_call(function: Callable[..., Any], *inputs: Any, **options: Any) -> Step:
  """Compiles a pure `function(*inputs)`; options are those of `jax.jit`."""
  started = time.perf_counter()
  compiled = jax.jit(function, **options).lower(*inputs).compile()
  compile_seconds = time.perf_counter() - started
  memory = compiled.memory_analysis()
  launch = lambda *others: compiled(*(others or inputs))
  return Step(launch, compile_seconds, memory.temp_size_in_bytes if memory else -1)


def compile_step(function: Callable[..., Any], state: Any, *inputs: Any) -> Step:
  """Compiles `function(state, *inputs) -> (state, ...)`, which carries its state along, donated.

  The state may be memory alone, and not be read.
  """
  # A copy: donating an array that the caller still needs would take it away.
  carried = [jax.tree.map(lambda x: x.copy(), state)]
  step = compile_call(function, carried[0], *inputs, donate_argnums=0, keep_unused=True)

  def launch(*others):
    results = step.launch(carried[0], *(others or inputs))
    carried[0] = results[0]
    return results

  return step._replace(launch=launch)


def seconds(step: Step, times: int) -> float:
  """What one takes of so many in a row: an accelerator works while the next is launched."""
  started = time.perf_counter()
  for _ in range(times):
    results = step.launch()
  jax.block_until_ready(results)
  return (time.perf_counter() - started) / times


def interleaved(steps: dict[str, Step], times: int) -> dict[str, list[float]]:
  """Seconds in each round: all steps in turn, so that a drifting machine hits them alike."""
  found: dict[str, list[float]] = {name: [] for name in steps}
  names = list(steps)
  for number in range(ROUNDS + 2):  # two that do not count
    # Another order each round: what runs behind a memory-hungry step finds cold caches.
    for name in names[number % len(names) :] + names[: number % len(names)]:
      found[name].append(seconds(steps[name], times))
  return {name: values[2:] for name, values in found.items()}


def compare(
  makers: dict[str, Maker], reference: str, wanted: Sequence[str], bars: Bars, bar_of: str = "ratio"
) -> dict[str, Row]:
  """Compiles the wanted ways and times them in turn with the reference: medians and quartiles."""
  steps = {}
  for way in dict.fromkeys([reference, *wanted]):
    try:
      step = makers[way]()
      seconds(step, 2)  # the second meets the state that the first has left
      steps[way] = step
    except Exception:  # out of memory, or what this device cannot do: the others still count
      if way == reference:
        raise
      traceback.print_exc()
  plain = steps[reference]
  often = max(1, min(MOST, int(AT_ONCE / seconds(plain, 3))))
  found, rows = interleaved(steps, often), {}
  for way in (way for way in wanted if way in steps):
    ratios = [own / other for own, other in zip(found[way], found[reference], strict=True)]
    low, median, high = statistics.quantiles(found[way], n=4)
    ratio_low, ratio, ratio_high = statistics.quantiles(ratios, n=4)
    rows[way] = {
      "ms": 1e3 * median, "ms_low": 1e3 * low, "ms_high": 1e3 * high,
      "ratio": ratio, "ratio_low": ratio_low, "ratio_high": ratio_high,
      "reference": reference, "reference_ms": 1e3 * statistics.median(found[reference]),
      "launches": often, "compile_seconds": steps[way].compile_seconds,
      "temp_bytes": steps[way].temp_bytes,
      "reference_compile_seconds": plain.compile_seconds,
      "reference_temp_bytes": plain.temp_bytes, "bar": bars.get(way), "bar_of": bar_of,
    }  # fmt: skip
  return rows
