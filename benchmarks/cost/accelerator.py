# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What everything costs on an accelerator, as ratios to the plain step of the same run.

    python -m benchmarks.cost.accelerator                        # all, at most six minutes
    python -m benchmarks.cost.accelerator --parts queue kmeans

Needs no data and no network. Every row goes to `out/accelerator.jsonl` when it is measured; a row
that is there for this device is not measured again. After a change of the library give another
`--out`. The tables lie beside it as Markdown.
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

from benchmarks.cost import accelerator_gradients as gradients
from benchmarks.cost import accelerator_updates as updates
from benchmarks.cost.jobs import Job, Row
from benchmarks.harness import records, tables

PARTS: dict[str, Callable[[bool], Iterable[Job]]] = {
  "correct": gradients.correct,
  "groups": gradients.groups,
  "weights": gradients.weights,
  "kmeans": gradients.kmeans,
  "queue": updates.queue,
  "compile": updates.compile_time,
  "large": updates.large,
}
OUT = Path("out/accelerator.jsonl")
HEAD = "row, ratio (quartiles), ms, of, ms of it, compile s, of it, temp MiB, of it, bar, met"


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
  spent = time.perf_counter() - started
  left = len(wanted) - len(found)
  failed = f", {left} failed" if left else ""
  print(f"{spent:5.1f} s  {job.part}: {job.name}: {len(found)} rows{failed}", flush=True)
  del found
  jax.clear_caches()
  gc.collect()  # parameters, states and programs of this job


def cells(row: Row) -> tuple[str, ...]:
  """One line of a table."""
  show = lambda key, digits, unit=1.0: f"{row[key] / unit:.{digits}f}" if key in row else "-"
  ratio = show("ratio", 2)
  if "ratio_low" in row:
    ratio += f" ({row['ratio_low']:.2f}, {row['ratio_high']:.2f})"
  if "error" in row:
    ratio = f"error {row['error']:.1e}"
  bar = "-" if row["bar"] is None else f"{row['bar']:g}{' ms' * (row['bar_of'] == 'ms')}"
  met = {None: "-", True: "yes", False: "NO"}[row["met"]]
  return (
    f"{row['job']}: {row['row']}", ratio, show("ms", 3), row.get("reference", "-"),
    show("reference_ms", 3), show("compile_seconds", 1), show("reference_compile_seconds", 1),
    show("temp_bytes", 0, 2**20), show("reference_temp_bytes", 0, 2**20), bar, met,
  )  # fmt: skip


def report(rows: Sequence[Row], here: Row) -> str:
  """A table for every part, and how many bars are met."""
  lines = [f"On {here['device']}, JAX {here['jax']}{', tiny sizes' * here['tiny']}."]
  for part in PARTS:
    of_part = [cells(row) for row in rows if row["part"] == part]
    if of_part:
      lines += [
        f"## {part}\n\n{(PARTS[part].__doc__ or '').strip()}",
        tables.markdown([HEAD.split(", "), *of_part]),
      ]
  with_bar = [row["met"] for row in rows if row["met"] is not None]
  lines.append(f"{sum(with_bar)} of {len(with_bar)} bars are met.")
  return "\n\n".join(lines) + "\n"


def main(
  parts: Sequence[str] = tuple(PARTS), tiny: bool = False, out: Path = OUT, minutes: float = 5.5
) -> list[Row]:
  """Measures the rows that are missing, and reports all that are there.

  Args:
    parts: some of `PARTS`.
    tiny: sizes that a CPU does in seconds, to see that the script runs; no bars.
    out: one JSON a line and row.
    minutes: no further job is begun after that; the next call goes on.

  Returns:
    The rows of this device, from this call and earlier ones.
  """
  here, started = environment(tiny), time.perf_counter()
  jobs = [job for part in PARTS if part in parts for job in PARTS[part](tiny)]
  for job in jobs:
    if time.perf_counter() - started > 60.0 * minutes:
      print(f"{minutes:g} minutes are over: call again for the rest.")
      break
    measure(job, out, here)
  found: dict[Any, Row] = measured(out, here)
  text = report(list(found.values()), here)
  print(text)
  out.parent.mkdir(parents=True, exist_ok=True)
  out.with_suffix(".md").write_text(text)
  return list(found.values())


def arguments() -> argparse.Namespace:
  """From the command line."""
  parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
  parser.add_argument("--parts", nargs="+", choices=tuple(PARTS), default=tuple(PARTS))
  parser.add_argument("--tiny", action="store_true", help="sizes that a CPU does in seconds")
  parser.add_argument("--out", type=Path, default=OUT, help="one JSON a line and row")
  parser.add_argument("--minutes", type=float, default=5.5, help="then no further job begins")
  return parser.parse_args()


if __name__ == "__main__":
  main(**vars(arguments()))
