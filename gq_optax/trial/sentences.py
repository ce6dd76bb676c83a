# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The three plain sentences on top of a report: the figure, the rarest kind, and what to do."""

from typing import Any

import numpy as np

from gq_optax.trial import arms
from gq_optax.trial.report import FIGURES, find

Summary = dict[str, Any]
MOST = 3  # verdicts in a sentence


def is_control(name: str) -> bool:
  """Whether an arm is there to explain others: it knows too much, or its weights are random."""
  base = name.partition(" on ")[0]
  return base.startswith(arms.ORACLE) or "random" in base


def rarest_name(summary: Summary) -> str:
  """The name of the rarest kind."""
  return summary["kind_names"][summary["rarest_kind"]]


def figure_name(summary: Summary) -> str:
  """What counts, in words."""
  figure = summary["trial"]["figure"]
  if figure == "mean":
    return "mean recall of the kinds" if summary["has_kinds"] else "mean recall of the classes"
  return FIGURES[figure]


def span(gap: dict[str, Any], unit: str = "") -> str:
  """A difference with its interval, in percentage points."""
  number = lambda value: "?" if value is None else f"{100 * value:+.1f}"
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
  """One sentence on "figure" or "rarest": who is better, who is worse, or why nobody is."""
  baseline, rivals = summary["baseline"], contenders(summary)
  if summary["no_verdict"][what]:
    return f"No verdict on the {name}: {summary['no_verdict'][what]}."
  if not rivals:
    return f"No verdict on the {name}: there are plain arms only."
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
  return (
    f"In the {name} no arm is shown to differ from {baseline}; the highest, {closest['arm']} at"
    f" B = {closest['batch_size']}, differs by {span(closest['against'][what])} points."
  )


def advice(summary: Summary) -> str:
  """What does best on validation, what it costs, and whether a plain arm would do."""
  baseline = summary["baseline"]
  top = best([r for r in summary["results"] if not is_control(r["arm"])])
  cost = summary["cost"].get(str(top["batch_size"]), {}).get(top["arm"])
  price = ""
  if cost and top["arm"] != baseline:
    price = f", a step costs {cost['ratio']:.2f} of that of {baseline}"
  tell = lambda value: "not tested" if value is None else f"{100 * value:.1f} in the test"
  says = (
    f"Of all arms and batch sizes {top['arm']} at B = {top['batch_size']} does best on validation:"
    f" {tell(top['figure'])}{price}"
  )
  if top["arm"] == baseline:
    return f"{says}." + (" So nothing here is gained by weights." if contenders(summary) else "")
  if "against" not in top:
    return f"{says}. It is plain, so an optimizer does more here than weights do."
  plain = find(summary, baseline, top["batch_size"])
  there = "" if plain is None else f"; {baseline} has {tell(plain['figure'])} at that batch size"
  if top["against"]["figure"]["verdict"] == "better":
    return f"{says}{there}. Take it."
  return f"{says}{there}. The test does not show that it is better: more seeds or examples would."


def top(summary: Summary) -> list[str]:
  """The three sentences."""
  rarest = f"recall of {rarest_name(summary)}, the rarest"
  if "training" in summary["counts"]:
    trained, tested = (summary["counts"][p][summary["rarest_kind"]] for p in ("training", "test"))
    rarest += f" ({trained} to train on, {tested} tested)"
  return [
    verdicts(summary, "figure", figure_name(summary)),
    verdicts(summary, "rarest", rarest),
    advice(summary),
  ]
