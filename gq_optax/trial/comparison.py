# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Arms held against the best plain optimizer, and what is said of it. Knows no JAX."""

import dataclasses
from typing import Any

import numpy as np

from gq_optax.trial import alarms, uncertainty
from gq_optax.trial.sight import points
from gq_optax.trial.uncertainty import Difference

WIDE = 0.5  # half an interval that tells nothing


@dataclasses.dataclass
class Figure:
  """Something that arms are compared in.

  Attributes:
    name: in words.
    strata: int `[n]`, see `uncertainty.difference`.
    label: of the class whose false alarms count; None where the likeliest class is taken.
    level: the share of false alarms.
  """

  name: str
  strata: np.ndarray
  label: int | None = None
  level: float = 0.1

  def hits(self, logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Which rows are recognised, bool `[S, n]` from logits `[S, n, C]`."""
    if self.label is None:
      return logits.argmax(axis=-1) == labels
    return alarms.hits(logits, labels, self.label, self.level)


def figures(
  labels: np.ndarray, classes: list[str], rarest: int, clusters: np.ndarray
) -> list[Figure]:
  """The mean recall of the classes that allow a verdict, and the recall of the rarest one."""
  numbers = [len(np.unique(clusters[labels == c])) for c in range(len(classes))]
  enough = np.array([n >= uncertainty.MIN_TEST for n in numbers])
  found = []
  if enough.sum() >= 2:
    few = int((~enough).sum())
    name = "mean recall of the classes" + (f" ({few} too rare to count)" if few else "")
    found.append(Figure(name, np.where(enough[labels], labels, -1)))
  found.append(Figure(f"recall of {classes[rarest]}", np.where(labels == rarest, 0, -1)))
  return found


def compare(
  figures: list[Figure],
  arms: dict[str, np.ndarray],
  baseline: str,
  plain: tuple[str, ...],
  labels: np.ndarray,
  clusters: np.ndarray,
  folds: np.ndarray | None = None,
) -> list[dict[str, Any]]:
  """For every figure the value of each arm, and how those that are not plain differ.

  Args:
    figures: what is compared.
    arms: logits `[S, n, C]` of each.
    baseline: the best plain arm.
    plain: the plain arms, which get no verdict.
    labels: int `[n]`.
    clusters: int `[n]`.
    folds: see `uncertainty.difference`.
  """
  rivals = [name for name in arms if name not in plain]
  comparisons = max(1, len(rivals) * len(figures))
  found = []
  for figure in figures:
    hits = {name: figure.hits(logits, labels) for name, logits in arms.items()}
    of_arm = {}
    counted = figure.strata >= 0
    if not counted.any():
      continue
    enough = uncertainty.clusters_of(figure.strata, clusters) >= uncertainty.MIN_TEST
    for name, own in hits.items():
      value = np.mean(
        [own[:, figure.strata == s].mean() for s in np.unique(figure.strata[counted])]
      )
      gap = None
      if name in rivals:
        gap = uncertainty.difference(
          own, hits[baseline], figure.strata, clusters, comparisons, folds
        )
        if not enough or len(own) < uncertainty.MIN_SEEDS or gap.half > WIDE:
          gap = gap._replace(low=np.nan, high=np.nan)
      of_arm[name] = {"value": float(value), "gap": gap}
    found.append({"name": figure.name, "rows": int(counted.sum()), "arms": of_arm})
  return found


def span(gap: Difference) -> str:
  """A difference in points with its interval, or why there is none."""
  if np.isnan(gap.low):
    return "too few to tell"
  low, high = max(gap.low, -1.0), min(gap.high, 1.0)  # a recall cannot differ by more
  return f"{100 * gap.mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def winners(told: dict[str, Any]) -> list[str]:
  """The arms that beat the baseline in a figure."""
  return [n for n, a in told["arms"].items() if a["gap"] and a["gap"].verdict == "better"]


def sentence(told: dict[str, Any], baseline: str, validation: dict[str, float]) -> str:
  """What is shown in one figure: who beat the baseline and by how much, or what could be shown."""
  gaps = {n: a["gap"] for n, a in told["arms"].items() if a["gap"] is not None}
  if not gaps:
    return f"In the {told['name']} nothing was held against {baseline}."
  better = winners(told)
  worse = [n for n, gap in gaps.items() if gap.verdict == "worse"]
  if better:
    top = max(better, key=lambda n: validation[n])
    more = f" {len(better) - 1} more did, too." if len(better) > 1 else ""
    return f"{_upper(top)} beat {baseline} by {span(gaps[top])} points in the {told['name']}.{more}"
  halves = [gap.half for gap in gaps.values() if not np.isnan(gap.low)]
  if not halves:
    return f"The {told['name']}: {told['rows']} rows are too few to tell."
  limit = max(gaps.values(), key=lambda gap: gap.mean).limit
  cure = "seeds" if limit == "seeds" else "test rows"
  less = f" Worse: {', '.join(worse)}." if worse else ""
  return (
    f"Nothing beat {baseline} in the {told['name']}; this trial could have shown"
    f" {points(float(np.median(halves)))} points, and with more {cure} fewer.{less}"
  )


def _upper(text: str) -> str:
  return text[:1].upper() + text[1:]


def take(compared: list[dict[str, Any]], baseline: str, validation: dict[str, float]) -> str:
  """The arm that a verdict speaks for, first in the first figure; else the baseline."""
  for told in compared:
    if better := winners(told):
      return max(better, key=lambda n: validation[n])
  return baseline


def advice(unequal: bool, images: bool, baseline: str | None) -> str:
  """The first advice for a case, where no verdict is possible."""
  plain = baseline or "the best plain optimizer, Muon or Adam"
  if not unequal:
    return f"take {plain}; no class is rare by its label"
  return f"take {plain} with {'logit adjustment' if images else 'class weights'}"
