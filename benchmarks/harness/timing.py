# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Times compiled steps against each other in one run: interleaved, compile time apart."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from rich import progress


class Step(NamedTuple):
  """A compiled step that carries its state along.

  Attributes:
    run: does one step and waits for all of it.
    compile_seconds: what compiling took.
    temp_bytes: temporary memory beside arguments and results, as XLA plans it.
    launch: does one step and does not wait, without inputs for the same; None: no such way.
  """

  run: Callable[..., Any]
  compile_seconds: float
  temp_bytes: int
  launch: Callable[..., Any] | None = None


class Timing(NamedTuple):
  """Seconds of one step over the rounds, and of each round as a ratio to the reference."""

  median: float
  low: float
  high: float
  ratio: float
  ratio_low: float
  ratio_high: float


def seconds(run: Callable[[], Any]) -> float:
  """What one run takes."""
  started = time.perf_counter()
  run()
  return time.perf_counter() - started


def compile_step(function: Callable[..., Any], state: Any, *inputs: Any) -> Step:
  """Compiles `function(state, *inputs) -> (state, ...)` with the state donated.

  The state may be memory alone, and not be read. `run` takes other inputs, or none for the same.
  """
  started = time.perf_counter()
  # A copy: donating an array that the caller still needs would take it away.
  state = jax.tree.map(lambda x: x.copy(), state)
  compiled = jax.jit(function, donate_argnums=0, keep_unused=True).lower(state, *inputs).compile()
  compile_seconds = time.perf_counter() - started
  carried = [state]

  def launch(*others):
    results = compiled(carried[0], *(others or inputs))
    carried[0] = results[0]
    return results

  run = lambda *others: jax.block_until_ready(launch(*others))
  return Step(run, compile_seconds, _temp_bytes(compiled), launch)


def back_to_back(step: Step, times: int) -> Step:
  """So many steps in a run, and one wait: an accelerator works while the next is launched."""
  launch = step.launch
  if launch is None:
    raise ValueError("step must have launch, but None was found.")

  def run():
    for _ in range(times):
      results = launch()
    return jax.block_until_ready(results)

  return step._replace(run=run)


def interleaved(steps: dict[str, Step], reference: str, rounds: int) -> dict[str, Timing]:
  """Runs all steps in turn, round after round, so that a drifting machine hits them alike.

  Args:
    steps: name to step; `reference` is one of them.
    reference: what the ratios refer to. Time it twice under two names to see the noise floor.
    rounds: counted rounds, after two that are not.

  Returns:
    For every name the median and quartiles of its seconds and of its ratio within a round.
  """
  times: dict[str, list[float]] = {name: [] for name in steps}
  names = list(steps)
  for number in progress.track(range(rounds + 2), "timing", transient=True):
    # Another order each round: what runs behind a memory-hungry step finds cold caches.
    for name in names[number % len(names) :] + names[: number % len(names)]:
      started = time.perf_counter()
      steps[name].run()
      if number >= 2:
        times[name].append(time.perf_counter() - started)
  base = times[reference]
  result = {}
  for name, values in times.items():
    ratios = [value / other for value, other in zip(values, base, strict=True)]
    low, median, high = statistics.quantiles(values, n=4)
    ratio_low, ratio, ratio_high = statistics.quantiles(ratios, n=4)
    result[name] = Timing(median, low, high, ratio, ratio_low, ratio_high)
  return result


def _temp_bytes(compiled: Any) -> int:
  memory = compiled.memory_analysis()
  return memory.temp_size_in_bytes if memory else -1


def compile_call(function: Callable[..., Any], *inputs: Any) -> Step:
  """Compiles a pure `function(*inputs)`; its `run` takes the inputs."""
  started = time.perf_counter()
  compiled = jax.jit(function).lower(*inputs).compile()
  compile_seconds = time.perf_counter() - started
  run = lambda *args: jax.block_until_ready(compiled(*args))
  launch = lambda *others: compiled(*(others or inputs))
  return Step(run, compile_seconds, _temp_bytes(compiled), launch)
