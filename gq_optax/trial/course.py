# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The course of a trial, from the rows to the report."""

import dataclasses
import json
import sys
import time
from typing import Any

import jax
import numpy as np

from gq_optax.trial import (
  arms,
  comparison,
  descriptors,
  failing,
  kinds,
  networks,
  page,
  rows,
  runs,
  scoring,
  sight,
  splits,
  training,
)
from gq_optax.trial.command import Trial, plain_of

MOST_FIGURES = 3  # slices, or kinds, that get a verdict


class Clock:
  """Says how far a trial is: a line for each arm, and how long it will take once that is known."""

  def __init__(self, arms: int):
    self.arms, self.begun, self.parts = arms, 0, 0
    self.begin = self.last = time.monotonic()
    self.times: list[float] = []

  def part(self) -> None:
    """A part of a training is over."""
    now = time.monotonic()
    self.times.append(now - self.last)
    self.last = now
    self.parts += 1
    if self.parts == 2:  # the first held the compilation
      self._say("the first steps are compiled")

  def arm(self, name: str) -> None:
    """An arm begins."""
    self.begun += 1
    self._say(f"{self.begun} of {self.arms}: {name}")
    self.last = time.monotonic()

  def _say(self, what: str) -> None:
    rest = ""
    if self.parts >= 2:  # the median leaves compilations out, so that each is added
      each, first = float(np.median(self.times[1:])), self.times[0]
      left = 2 * training.PARTS * (self.arms - self.begun + 1) - (self.begun == 1) * self.parts
      rest = f"; about {_duration(left * each + 0.5 * first * (self.arms - self.begun))} left"
    print(f"[{_duration(time.monotonic() - self.begin)}] {what}{rest}", file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
  return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def fit(trial: Trial, least: int) -> tuple[int, int]:
  """The batch size and the number of steps that fit the data; `least` rows are trained on."""
  size = trial.batch_size or int(2 ** np.clip(np.floor(np.log2(max(least, 2) / 16)), 3, 8))
  if size > least:
    raise ValueError(
      f"batch_size must be at most {least}, the rows trained on, but {size} was found."
    )
  each = max(1, least // size)
  epochs = trial.epochs or max(10, -(-300 // each))
  steps = max(training.PARTS, epochs * each)
  return size, -(-steps // training.PARTS) * training.PARTS


def run(
  trial: Trial,
  own: rows.Rows,
  clusters: np.ndarray,
  seen: sight.Sight,
  rivals: dict[str, arms.Arm],
  seeds: int,
) -> dict[str, Any]:
  """Trains, compares, and writes report.html, rows.csv, summary.json and the best arm."""
  trial.out.mkdir(parents=True, exist_ok=True)
  labels, words = own.labels, np.array(own.classes)[own.labels]
  split, folds = splits.deal(labels, clusters, own.test)
  pool = np.arange(len(labels)) if own.test is None else np.flatnonzero(~own.test)
  tested = pool if own.test is None else np.flatnonzero(own.test)
  features = descriptors.describe(own.x, candidates(own)[-1])
  named, unseen = own.kinds, np.ones(len(labels), bool)
  resemblance: list[str] = []
  if trial.kinds is not None:
    given = np.full(len(labels), "", object)
    given[pool] = kinds.read(trial.kinds, [own.names[i] for i in pool], words[pool].tolist())
    named, unseen, resemblance = kinds.spread(given.astype(str), words, features, folds)
  kind_names, kind_of = number_kinds(words, named)
  known = unseen if trial.kinds is None else ~unseen  # a detector learns from no guess
  by_name = np.full(len(labels), -1)
  if named is not None:
    by_name = np.where(known & (named != words), kind_of, -1)
  detected = any(arm.detect for arm in rivals.values())
  seen_by, ruler = look_again(own, pool) if detected else (np.zeros((len(labels), 0)), None)
  bench = prepare(trial, own, split, kind_of, seeds, by_name, seen_by)
  answers, baseline, bench, notes = train_all(trial, own, bench, rivals)
  if detected:
    resemblance += undetected(kind_names, by_name, split)
    if trial.kinds is not None:
      resemblance.append(
        "Other rows of a kind are told by resemblance. A detector goes by resemblance too, on other"
        " random features: its gain is read on rows that are told so, not on all of the kind."
      )
  found = failing.look(labels[pool], answers[baseline].logits[:, pool], features[pool], folds[pool])
  if named is not None:
    more = of_kinds(own, kind_names, kind_of, unseen, tested)
  else:
    more = [] if own.test is not None else of_slices(own, found, folds % 2 == 1)
  figures = comparison.figures(labels[tested], own.classes, seen.rarest, clusters[tested]) + more
  logits = {name: a.logits[:, tested] for name, a in answers.items()}
  compared = comparison.compare(
    figures, logits, baseline, arms.PLAIN, labels[tested], clusters[tested], folds[tested]
  )
  validation = {name: a.validation for name, a in answers.items()}
  taken = comparison.take(compared, baseline, validation)
  frame = failing.table(found, [own.names[i] for i in pool], labels[pool], own.classes)
  if named is not None:
    at = pool[frame.index]
    kind = np.where(named[at] != words[at], named[at], "")
    if trial.kinds is None:
      frame["kind"] = kind
    else:  # what was guessed is no name that a person gave
      frame["kind"] = np.where(unseen[at], "", kind)
      frame["resembles"] = np.where(unseen[at], kind, "")
  frame.to_csv(trial.out / "rows.csv", index=False)
  scoring.keep(trial.out, taken, answers[taken], own, ruler)
  told = page.Told(
    own, seen, compared, baseline, taken, validation, found, frame, logits, labels[tested], answers,
    [*notes, *resemblance], bench, more,
  )  # fmt: skip
  summary = page.summarise(told)
  (trial.out / "summary.json").write_text(json.dumps(summary, indent=1, default=str))
  page.write(trial.out, summary, own, frame)
  for line in summary["top"]:
    print(line)
  print(f"report: {trial.out / 'report.html'}, rows: {trial.out / 'rows.csv'}")
  return summary


def number_kinds(words: np.ndarray, named: np.ndarray | None) -> tuple[list[str], np.ndarray]:
  """Kinds of all rows as integers, and their names; the classes where none are named.

  A kind that is in two classes counts as two.
  """
  pairs = [
    k if k == w else f"{k} of {w}"
    for k, w in zip(words if named is None else named, words, strict=True)
  ]
  names, number = np.unique(pairs, return_inverse=True)
  return names.tolist(), number.reshape(-1)


def prepare(
  trial: Trial,
  own: rows.Rows,
  split: list[splits.Split],
  kind_of: np.ndarray,
  seeds: int,
  told: np.ndarray,
  features: np.ndarray,
) -> runs.Bench:
  """What all runs share; the first network is one that fits the data."""
  size, steps = fit(trial, min(len(s.inner) for s in split))
  name = trial.model or candidates(own)[0]
  examples = jax.numpy.asarray(own.x[:2], jax.numpy.float32)
  networks.check(name, len(own.classes), examples)
  return runs.Bench(
    own.x, own.labels, kind_of, split, seeds, size, steps, name, not own.images, told, features
  )


def look_again(own: rows.Rows, pool: np.ndarray) -> tuple[np.ndarray, descriptors.Ruler]:
  """Features for detectors, disjoint from those that told kinds; measured by the rows `pool`."""
  found, ruler = descriptors.measure(own.x[pool], candidates(own)[-1], seed=1)
  features = np.zeros((len(own.x), found.shape[1]), np.float32)
  features[pool] = found
  if own.test is not None:
    features[own.test] = descriptors.measure(own.x[own.test], ruler.layout, ruler.seed, ruler)[0]
  return features, ruler


def undetected(names: list[str], by_name: np.ndarray, split: list[splits.Split]) -> list[str]:
  """Which kinds have no detector, in sentences."""
  counts = np.array([(by_name[s.train, None] == np.arange(len(names))).sum(axis=0) for s in split])
  few = (counts < failing.LEAST).sum(axis=0)
  return [
    f"{names[k]} has no detector in {few[k]} of {len(split)} splits: fewer than {failing.LEAST} of"
    " the rows to train on are named so."
    for k in np.unique(by_name[by_name >= 0])
    if few[k]
  ]


def train_all(
  trial: Trial, own: rows.Rows, bench: runs.Bench, rivals: dict[str, arms.Arm]
) -> tuple[dict[str, runs.Answers], str, runs.Bench, list[str]]:
  """The answers of all arms, the best plain one, the bench with the better network, and notes."""
  others = [] if trial.model else candidates(own)[1:]
  number = len(plain_of(trial)) + len(rivals) + len(others)
  clock = Clock(number)
  bench.tell = clock.part
  answers, notes = {}, list(own.notes)
  for optimizer in plain_of(trial):
    clock.arm(optimizer)
    answers[optimizer] = runs.run_arm(bench, arms.Arm(), optimizer)
  baseline = max(answers, key=lambda name: answers[name].validation)
  for name in others:
    clock.arm(f"{baseline}, a network for {name}")
    there = dataclasses.replace(bench, network=name)
    other = runs.run_arm(there, arms.Arm(), baseline)
    better = other.validation > answers[baseline].validation
    notes.append(
      f"The columns look like a series, so a network for {name} was tried. On validation it is"
      f" {'better' if better else 'worse'} than a dense one, and {'' if better else 'not '}taken."
    )
    if better:
      bench, answers = there, {baseline: other}
  for name, arm in rivals.items():
    clock.arm(name)
    answers[name] = runs.run_arm(bench, arm, baseline)
  return answers, baseline, bench, notes


def of_kinds(
  own: rows.Rows, names: list[str], kind_of: np.ndarray, unseen: np.ndarray, tested: np.ndarray
) -> list[comparison.Figure]:
  """Recalls of the rarest kinds, on rows that nobody named."""
  found: list[comparison.Figure] = []
  for k in np.argsort(np.bincount(kind_of, minlength=len(names)), kind="stable"):
    label = int(own.labels[kind_of == k][0])
    strata = np.where((kind_of == k) & unseen, 0, -1)[tested]
    if names[k] != own.classes[label] and (strata >= 0).any() and len(found) < MOST_FIGURES:
      name = f"recall of {names[k]} at 10 % false alarms"
      found.append(comparison.Figure(name, strata, label))
  return found


def of_slices(
  own: rows.Rows, found: failing.Failing, second: np.ndarray
) -> list[comparison.Figure]:
  """Recalls of the largest slices, on the half that they were not found on."""
  return [
    comparison.Figure(
      f"recall of slice {one['slice']} of {own.classes[one['label']]} at 10 % false alarms",
      np.where((found.slices == one["slice"]) & second, 0, -1),
      one["label"],
    )
    for one in found.found[:MOST_FIGURES]
    if one["size"]
  ]


def candidates(own: rows.Rows) -> list[str]:
  """The networks that fit the data."""
  if own.images:
    return ["images"]
  if own.x.ndim > 2:
    return ["series"] if own.x.ndim == 3 else ["dense"]
  return ["dense", "series"] if rows.looks_like_series(own) else ["dense"]
