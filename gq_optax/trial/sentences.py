# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The plain sentences on top of a report: the figure, the rarest class and kind, what to take."""

from typing import Any

import numpy as np

from gq_optax.trial import arms, tables
from gq_optax.trial.report import FIGURES, find

Summary = dict[str, Any]
MOST = 3  # verdicts in a sentence


def is_control(name: str) -> bool:
  """Whether an arm is there to explain others: it knows too much, or its weights are random."""
  base = name.partition(" on ")[0]
  return any(word in base for word in ("oracle", "random", "shuffled"))


def rare_ones(summary: Summary) -> list[tuple[str, str, str]]:
  """What is rare: where it stands in "against", "class" or "kind" if both are told, its name."""
  name = summary["kind_names"][summary["rarest_kind"]]
  if not summary["has_kinds"]:
    return [("rarest", "", name)]
  return [("class", " class", f"class {summary['rarest_class']}"), ("rarest", " kind", name)]


def figure_name(summary: Summary) -> str:
  """What counts, in words."""
  figure = summary["trial"]["figure"]
  if figure == "mean":
    return "mean recall of the kinds" if summary["has_kinds"] else "mean recall of the classes"
  return FIGURES[figure]


def span(gap: dict[str, Any], unit: str = "") -> str:
  """A difference with its interval, in percentage points."""
  # Few seeds may give more than a difference of shares can be.
  number = lambda value: "?" if value is None else f"{100 * min(max(value, -1.0), 1.0):+.1f}"
  if gap["low"] is None:
    return f"{number(gap['mean'])}{unit}"
  return f"{number(gap['mean'])}{unit} [{number(gap['low'])}, {number(gap['high'])}]"


def contenders(summary: Summary) -> list[dict[str, Any]]:
  """The results that could be acted on: neither plain nor a control."""
  return [r for r in summary["results"] if "against" in r and not is_control(r["arm"])]


def best(results: list[dict[str, Any]]) -> dict[str, Any]:
  """The result that does best on validation."""
  return max(results, key=lambda r: np.mean(r["validation"]))


def verdicts(summary: Summary, what: str, name: str) -> str:
  """One sentence on "figure", "class" or "rarest": who is better or worse, or why nobody is."""
  baseline, rivals = summary["baseline"], contenders(summary)
  if summary["no_verdict"][what]:
    return f"No verdict on the {name}: {summary['no_verdict'][what]}."
  if not rivals:
    return f"No verdict on the {name}: there is no arm to hold against {baseline}."
  shown = [
    f"{r['arm']} at B = {r['batch_size']} is {r['against'][what]['verdict']}"
    f" ({span(r['against'][what])} points)"
    for word in ("better", "worse")
    for r in rivals
    if r["against"][what]["verdict"] == word
  ]
  if len(shown) > MOST:
    shown = [*shown[:MOST], f"{len(shown) - MOST} more are in the table"]
  if shown:
    return f"In the {name}, held against {baseline}: {'; '.join(shown)}."
  closest = max(rivals, key=lambda r: r["against"][what]["mean"])
  gap = closest["against"][what]
  place = "all are lower, the least" if gap["mean"] < 0 else "the highest is"
  return (
    f"In the {name} none of the arms held against {baseline}, controls aside, is shown to differ;"
    f" {place} {closest['arm']} at B = {closest['batch_size']}, by {span(gap)} points."
  )


def price(summary: Summary, result: dict[str, Any]) -> str:
  """What a step costs beside one of the baseline, empty where that is not known."""
  baseline = summary["baseline"]
  cost = summary["cost"].get(str(result["batch_size"]), {}).get(result["arm"])
  if not cost or result["arm"] == baseline:
    return ""
  if cost["ratio_low"] <= 1.0 <= cost["ratio_high"]:
    return f", a step costs about the same as one of {baseline}"
  return f", a step costs {tables.quartiles(cost, 2)} times one of {baseline}"


def better_on(summary: Summary, what: str) -> list[dict[str, Any]]:
  """The results that the test shows to be better than the baseline."""
  return [r for r in contenders(summary) if r["against"][what]["verdict"] == "better"]


def named(result: dict[str, Any]) -> str:
  """An arm at its batch size."""
  return f"{result['arm']} at B = {result['batch_size']}"


def higher(result: dict[str, Any], other: dict[str, Any], what: str) -> bool:
  """Whether the test gives a result more than another one, at whatever batch sizes."""
  own, others = result.get(what), other.get(what)
  return own is not None and others is not None and own > others


def take(summary: Summary, result: dict[str, Any]) -> str:
  """What to take, and what in its stead if the rare ones count most; nothing if it is a control."""
  if is_control(result["arm"]):
    return f"{result['arm']} is a control, and not to be taken."
  for what, _, name in rare_ones(summary):
    found = better_on(summary, what)
    if result in found:
      break
    if found := [r for r in found if higher(r, result, what)]:
      return f"Take {named(result)}, or {named(best(found))} where {name} counts most."
  return f"Take {named(result)}."


def disagreement(summary: Summary, top: dict[str, Any]) -> str:
  """What the test shows to be better than the baseline, and above the best on validation."""
  found = [r for r in better_on(summary, "figure") if higher(r, top, "figure")]
  if not found or top in better_on(summary, "figure"):
    return ""
  more = max(found, key=lambda r: r["figure"])
  return f" Validation and test disagree: {named(more)} has {100 * more['figure']:.1f} in the test."


def advice(summary: Summary) -> str:
  """What does best on validation, what it costs, what the test shows of it, and what to take."""
  baseline, results = summary["baseline"], summary["results"]
  top = best([r for r in results if not is_control(r["arm"])] or results)
  own = best([r for r in results if r["arm"] == baseline])
  tell = lambda value: "not tested" if value is None else f"{100 * value:.1f} in the test"
  says = (
    f"Of all arms and batch sizes {named(top)} does best on validation:"
    f" {tell(top['figure'])}{price(summary, top)}"
  )
  but = disagreement(summary, top)
  if "against" not in top:  # a plain arm
    there = ("figure", *(what for what, _, _ in rare_ones(summary)))
    gains = any(better_on(summary, what) for what in there)
    silent = gains or not contenders(summary) or not arms.is_plain(arms.find(baseline))
    shown = "" if silent else " No gain by weights is shown."
    return f"{says}.{shown}{but} {take(summary, top)}"
  plain = find(summary, baseline, top["batch_size"])
  if plain is not None:
    says += f"; {baseline} has {tell(plain['figure'])} at that batch size"
  verdict = top["against"]["figure"]["verdict"]
  if verdict == "better" and higher(own, top, "figure"):
    return f"{says}, but {tell(own['figure'])} at B = {own['batch_size']}. {take(summary, own)}"
  if verdict == "better":
    return f"{says}. {take(summary, top)}"
  if verdict == "worse":
    return f"{says}. The test shows that {top['arm']} is worse.{but} {take(summary, own)}"
  if summary["no_verdict"]["figure"]:
    return f"{says}. The test allows no verdict on that. {take(summary, own)}"
  return (
    f"{says}. The test does not show that {top['arm']} is better: more seeds or test examples may"
    f" tell.{but} {take(summary, own)}"
  )


def top(summary: Summary) -> list[str]:
  """The sentences: three, or four where kinds are known beside the classes."""
  found = [verdicts(summary, "figure", figure_name(summary))]
  for what, more, name in rare_ones(summary):
    counts, k = summary["counts"], summary["rarest_kind"]
    if what == "class":
      counts, k = summary["class_counts"], summary["rarest_class"]
    rarest = f"recall of {name}, the rarest{more}"
    if "training" in counts:
      rarest += f" ({counts['training'][k]} to train on, {counts['test'][k]} tested)"
    found.append(verdicts(summary, what, rarest))
  return [*found, advice(summary)]
