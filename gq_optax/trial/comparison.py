# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Which arm is held against which, where there is a verdict, and where there is none and why."""

import math
from typing import Any

import numpy as np

from gq_optax.trial import arms, reading, uncertainty
from gq_optax.trial.splits import FOLDS, Material

Results = list[dict[str, Any]]


def baseline_of(results: Results) -> str:
  """The best plain arm: that of the highest mean on validation over the batch sizes."""
  names = list(dict.fromkeys(r["arm"] for r in results))
  score = lambda name: np.mean([np.mean(r["validation"]) for r in results if r["arm"] == name])
  return max(names, key=score)


def rarest_kind(counts: dict[str, list[int]]) -> int:
  """The kind with the fewest training examples, of those the one with the fewest to test."""
  columns = [counts[part] for part in ("training", "test") if part in counts]
  return int(np.lexsort(columns[::-1])[0])


def class_counts(material: Material) -> dict[str, list[int]]:
  """For training and validation of seed 0, and for all that is tested, examples of each class."""
  task = material.task_of(0)
  trained = material.classes_of[np.asarray(task.kinds)]  # not its labels: some may be wrong
  parts = {"training": trained, "validation": task.validation[1], "test": material.pool.labels}
  number = lambda y: np.bincount(np.asarray(y), minlength=material.pool.num_classes).tolist()
  return {part: number(y) for part, y in parts.items()}


def rarest_class(material: Material) -> int:
  """The class with the fewest training examples, of those the one with the fewest to test."""
  return rarest_kind(class_counts(material))


def why_not(material: Material, figure: str, num_seeds: int) -> tuple[str, str]:
  """Why there is no verdict on the figure, and on the rarest kind; empty where there is one."""
  if num_seeds < uncertainty.MIN_SEEDS:
    few_seeds = (
      f"fewer than {uncertainty.MIN_SEEDS} seeds say too little of the spread between them"
    )
    return few_seeds, few_seeds
  few, need = material.counts["test"], uncertainty.MIN_TEST
  rarest = rarest_kind(material.counts)
  cures = ["add more of them"]
  if not material.repeated:
    cures.append("leave x_test and y_test out, so that all examples are tested in turn")
  elif num_seeds < FOLDS and FOLDS / (FOLDS - 1) * material.counts["training"][rarest] >= need:
    cures.append(f"take {FOLDS} seeds, which test all in turn")
  tell = lambda k: f"{material.kind_names[k]} has {few[k]} test example{'s' * (few[k] != 1)}"
  short = [k for k in np.argsort(few, kind="stable") if few[k] < need]
  at_least = lambda *cures: f"a verdict takes at least {need}: {', or '.join(cures)}"
  whole = rare = ""
  if short and figure != "accuracy":
    words = ("kind", "kinds") if material.has_kinds else ("class", "classes")
    others = len(short) - 1
    more = f" and {others} more {words[others > 1]} {'have' if others > 1 else 'has'} too few"
    more = more if others else ""
    whole = f"{tell(short[0])}{more}; {at_least(*cures, 'judge by --figure accuracy')}"
  if figure == "accuracy" and len(material.pool.labels) < need:
    n = len(material.pool.labels)
    whole = f"the test has {n} example{'s' * (n != 1)}; {at_least(*cures)}"
  if few[rarest] < need:
    rare = f"{tell(rarest)}; {at_least(*cures)}"
  return whole, rare


def why_not_class(material: Material, num_seeds: int) -> str:
  """Why there is no verdict on the rarest class where kinds are known; empty where there is one."""
  if num_seeds < uncertainty.MIN_SEEDS:
    return why_not(material, "accuracy", num_seeds)[0]
  c, need = rarest_class(material), uncertainty.MIN_TEST
  n = class_counts(material)["test"][c]
  if n >= need:
    return ""
  return f"class {c} has {n} test example{'s' * (n != 1)}, and a verdict takes at least {need}"


def compare(
  material: Material,
  results: Results,
  scores: dict[tuple[str, int], reading.Scores],
  baseline: str,
  figure: str,
  rarity: np.ndarray | None,
) -> None:
  """Adds to every result what is read of it, and its difference to the baseline at its batch size.

  Args:
    material: what was tested.
    results: of `runs.run_arm`; each gets "reading", "figure", "rarest" and, if it is not plain,
      "against": for "figure" and "rarest" the difference, its interval and the verdict, or None.
      Where kinds are known, "rarest" is of them, and "class" of the rarest class is added.
    scores: of every result, by arm and batch size.
    baseline: an arm.
    figure: what counts.
    rarity: of the examples of the pool, or None.
  """
  pool, rarest = material.pool, rarest_kind(material.counts)
  num_seeds = len(results[0]["validation"])
  reasons = why_not(material, figure, num_seeds)
  draws = uncertainty.draw(pool, num_seeds, figure=figure)
  answers = {key: reading.predicted(own, pool) for key, own in scores.items()}
  drawn = {k: uncertainty.bootstrap(own, pool, draws, figure) for k, own in answers.items()}
  judged = [r for r in results if r["arm"] != baseline and not arms.is_plain(arms.find(r["arm"]))]
  counted = [n for n in material.counts["test"] if n]
  smallest = len(pool.labels) if figure == "accuracy" else min(counted)
  sizes = (smallest, material.counts["test"][rarest])
  # All arms test the same examples.
  times = uncertainty.times(next(iter(answers.values()))) if material.repeated else math.inf
  number = lambda value: None if np.isnan(value) else float(value)
  for result in results:
    key = (result["arm"], result["batch_size"])
    result["reading"] = reading.read(scores[key], pool, rarest_class(material), rarity)
    result["figure"], result["rarest"] = (
      number(drawn[key].found[column]) for column in (0, 1 + rarest)
    )

  def hold(what: str, from_draws: dict[Any, Any], column: int, n: int, reason: str) -> None:
    for result in judged:
      own, other = (from_draws[arm, result["batch_size"]] for arm in (result["arm"], baseline))
      gap = uncertainty.difference(own, other, column, num_seeds, n, len(judged), times)
      values = {k: number(v) for k, v in gap._asdict().items()}
      verdict = None if reason else gap.verdict
      result.setdefault("against", {})[what] = {**values, "verdict": verdict}

  for result in judged:
    result.pop("against", None)
  hold("figure", drawn, 0, sizes[0], reasons[0])
  hold("rarest", drawn, 1 + rarest, sizes[1], reasons[1])
  if material.has_kinds:  # the classes are drawn by themselves: a kind of one example never varies
    c = rarest_class(material)
    classes = uncertainty.Pool(pool.labels, pool.labels, pool.num_classes, pool.num_classes)
    draws = uncertainty.draw(classes, num_seeds)
    of_class = {k: uncertainty.bootstrap(a, classes, draws, "mean") for k, a in answers.items()}
    for result in results:
      result["class"] = number(of_class[result["arm"], result["batch_size"]].found[1 + c])
    n = int((pool.labels == c).sum())
    hold("class", of_class, 1 + c, n, why_not_class(material, num_seeds))


def best_size(results: Results, arm: str) -> int:
  """The batch size at which an arm does best on validation."""
  own = [r for r in results if r["arm"] == arm]
  return max(own, key=lambda r: np.mean(r["validation"]))["batch_size"]
