# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What everything costs, as ratios to the plain step of the same run.

    python -m benchmarks.cost.timed                              # all, at most six minutes
    python -m benchmarks.cost.timed --parts queue kmeans --minutes 30

Needs no data and no network. Every row goes to `out/timed.jsonl` when it is measured; a row that is
there for this device is not measured again. After a change of the library give another `--out`.
Run it on an idle machine.
"""

import argparse  # an image for accelerators may hold nothing but JAX, Flax, Optax and Rich
import gc
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import optax

from benchmarks.cost import gradients, updates
from benchmarks.cost.steps import Job, Row
from benchmarks.harness import records

PARTS: dict[str, Callable[[bool], Iterable[Job]]] = {
  "groups": gradients.groups,
  "weights": gradients.weights,
  "kmeans": gradients.kmeans,
  "queue": updates.queue,
  "compile": updates.compile_time,
}


def environment(tiny: bool) -> Row:
  """What must be the same for a row to count as measured."""
  device = jax.devices()[0]
  return {"device": device.device_kind, "jax": jax.__version__, "tiny": tiny}


def measured(out: Path, here: Row) -> dict[tuple[str, str, str], Row]:
  """The rows that are there for this device, by part, job and name."""
  rows = [row for row in records.read(out) if here.items() <= row.items()]
  return {(row["part"], row["job"], row["row"]): row for row in rows}


def measure(job: Job, out: Path, here: Row) -> None:
  """Runs what is missing of a job, and appends its rows."""
  done = measured(out, here)
  wanted = [row for row in job.rows if (job.part, job.name, row) not in done]
  if not wanted:
    return
  started = time.perf_counter()
  try:
    found = job.run(wanted)
  except Exception:  # out of memory, or what this device cannot do: the other rows still count
    traceback.print_exc()
    found = {}
  for name, row in found.items():
    bar = None if here["tiny"] else row["bar"]
    value = row.get(row["bar_of"])
    met = None if bar is None or value is None else bool(round(value, 3) <= bar)  # noise is larger
    found_here = {**row, "bar": bar, "met": met, **here, "optax": optax.__version__}
    records.append(out, {"part": job.part, "job": job.name, "row": name, **found_here})
    print(f"{job.part}: {job.name}: {name}: {row['ratio']:.3g}", flush=True)
  print(
    f"{time.perf_counter() - started:.1f} s, {len(wanted) - len(found)} rows failed", flush=True
  )
  del found
  jax.clear_caches()
  gc.collect()  # parameters, states and programs of this job


def main(
  parts: Sequence[str] = tuple(PARTS),
  tiny: bool = False,
  out: Path = Path("out/timed.jsonl"),
  minutes: float = 5.5,
) -> list[Row]:
  """Measures the rows that are missing.

  Args:
    parts: some of `PARTS`.
    tiny: sizes that a CPU does in seconds, to see that the script runs; no bars.
    out: one JSON a line and row.
    minutes: no further job is begun after that; the next call goes on.

  Returns:
    The rows of this device, from this call and earlier ones.
  """
  here, started = environment(tiny), time.perf_counter()
  for job in (job for part in PARTS if part in parts for job in PARTS[part](tiny)):
    if time.perf_counter() - started > 60.0 * minutes:
      print(f"{minutes:g} minutes are over: call again for the rest.")
      break
    measure(job, out, here)
  found: dict[Any, Row] = measured(out, here)
  with_bar = [row["met"] for row in found.values() if row["met"] is not None]
  print(f"{sum(with_bar)} of {len(with_bar)} bars are met.")
  return list(found.values())


if __name__ == "__main__":
  parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
  parser.add_argument("--parts", nargs="+", choices=tuple(PARTS), default=tuple(PARTS))
  parser.add_argument("--tiny", action="store_true", help="sizes that a CPU does in seconds")
  parser.add_argument("--out", type=Path, default=Path("out/timed.jsonl"))
  parser.add_argument("--minutes", type=float, default=5.5, help="then no further job begins")
  main(**vars(parser.parse_args()))
