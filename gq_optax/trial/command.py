# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The options of a trial, and what is said before JAX is imported."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import tyro

from gq_optax.trial import arms, comparison, rows, sight, splits

ABOUT = """Which of my rows fail, and what helps? Ends in report.html and rows.csv.

gq-trial parts.csv --label defect: a table; categories become one-hot.

gq-trial photos/: one folder of images for each class.

gq-trial arrays.npz: x_train, y_train; maybe x_test, y_test, kinds_*, groups_*.

Name kinds in rows.csv, column kind, and run again with --kinds rows.csv."""


@dataclasses.dataclass(frozen=True)
class Trial:
  """What is asked for."""

  source: tyro.conf.Positional[Path | None] = None
  """A .csv, an .npz, or a folder of images."""
  label: str | None = None
  """Column of the class."""
  kind: str | None = None
  """Column of known kinds."""
  group: str | None = None
  """Column of what must not be split apart."""
  leave_out: tuple[str, ...] = ()
  """Columns that are not used."""
  kinds: Path | None = None
  """rows.csv with kinds that you named."""
  score: Path | None = None
  """New rows, scored by the trial in --out."""
  model: str | None = None
  """dense, series, images, or module:make."""
  batch_size: int | None = None
  """Rows of a step; fits the data by default."""
  seeds: int | None = None
  """Networks for each fold."""
  epochs: int | None = None
  """Passes over the rows."""
  only: tuple[str, ...] = ()
  """Arms, by default all."""
  anyway: bool = False
  """Train where no verdict is possible."""
  out: Path = Path("out/trial")
  """Folder of the report."""


def default_seeds(own: rows.Rows) -> int:
  """Networks for each fold. With a test set there is one fold, and its seeds are all that vary."""
  return 3 if own.test is None else 10


def chosen(trial: Trial, has_kinds: bool) -> dict[str, arms.Arm]:
  """The arms of a trial that are not plain."""
  known = {**arms.BY_CLASS, **arms.BY_RARITY, **(arms.BY_KIND if has_kinds else {})}
  for name in trial.only:
    if name not in (*arms.PLAIN, *known):
      raise ValueError(
        f"only must be of {'; '.join((*arms.PLAIN, *known))}, but {name!r} was found."
      )
  return {name: arm for name, arm in known.items() if not trial.only or name in trial.only}


def plain_of(trial: Trial) -> tuple[str, ...]:
  """The plain arms of a trial: those that are named, or all."""
  return tuple(name for name in arms.PLAIN if name in trial.only) or arms.PLAIN


def check(trial: Trial) -> None:
  """Says what is wrong with the options alone."""
  for name in ("batch_size", "seeds", "epochs"):
    value = getattr(trial, name)
    if value is not None and value < 1:
      raise ValueError(f"{name} must be at least 1, but {value} was found.")
  if trial.out.exists() and not trial.out.is_dir():
    raise ValueError(f"out must be a folder, but {trial.out} is a file.")


def run(trial: Trial) -> int:
  """From the options to the report; the exit code."""
  check(trial)
  if trial.source is None:
    if trial.score is None:
      raise ValueError("source must be a .csv, an .npz or a folder of images: see gq-trial --help.")
    return score(trial.out, trial.score)
  own = rows.read(trial.source, trial.label, trial.kind, trial.group, trial.leave_out)
  clusters = splits.together(own.x, own.groups)
  seeds = trial.seeds or default_seeds(own)
  named = own.kinds is not None or trial.kinds is not None
  rivals = chosen(trial, named)
  seen = sight.look(own, clusters, seeds, max(1, 2 * len(rivals)))
  for line in [*own.notes, *seen.says]:
    print(line, flush=True)
  copies = len(own.labels) - len(np.unique(clusters)) if own.groups is None else 0
  if copies:
    print(f"{copies} rows are exact copies of others; copies stay in one fold.", flush=True)
  if seen.missing:
    print(f"No verdict is possible: {'; '.join(seen.missing)}.", flush=True)
    unequal = max(seen.trained) >= 1.5 * max(1, min(seen.trained))
    print(f"Until then: {comparison.advice(unequal, own.images, None)}.", flush=True)
    if not trial.anyway:
      print("Nothing was trained. --anyway trains all the same, and names the rows that fail.")
      return 3
  from gq_optax.trial import course  # JAX comes in here

  course.run(trial, own, clusters, seen, rivals, seeds)
  return 0 if trial.score is None else score(trial.out, trial.score)


def score(folder: Path, source: Path) -> int:
  """Scores new rows with the trial that lies in a folder."""
  from gq_optax.trial import scoring

  print(f"scores: {scoring.score(folder, source)}")
  return 0


def main() -> None:
  """The command line."""
  trial = tyro.cli(
    Trial, prog="gq-trial", description=ABOUT, config=(tyro.conf.OmitSubcommandPrefixes,)
  )
  try:
    sys.exit(run(trial))
  except (ValueError, FileNotFoundError) as problem:
    print(f"error: {problem}", file=sys.stderr)
    sys.exit(2)
  except KeyboardInterrupt:
    print("stopped.", file=sys.stderr)
    sys.exit(130)
