# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What a trial says: sentences, verdicts, steps to a target."""

import pytest

from gq_optax.trial import arms, page, report, sentences


def hand_made(**gap):
  """A summary of one plain arm and one that weighs, as far as the sentences read it."""
  tests = {"validation": [0.7], "figure": 0.7, "rarest": 0.5, "batch_size": 64}
  gaps = {k: {"mean": 0.1, "low": 0.02, "high": 0.18, "verdict": "better"} | gap for k in REASONS}
  return {
    "trial": {"figure": "mean"},
    "baseline": "SGDM",
    "kind_names": ["class 0", "class 1"],
    "has_kinds": False,
    "rarest_kind": 1,
    "counts": {"training": [90, 9], "test": [50, 12]},
    "no_verdict": REASONS,
    "cost": {},
    "results": [
      {"arm": "SGDM", **tests},
      {"arm": "class weights", **tests, "validation": [0.8], "against": gaps},
      {"arm": arms.RECOMMENDED[0] + arms.AT_RANDOM, **tests, "validation": [0.9], "against": gaps},
    ],
  }


REASONS = {"figure": "", "rarest": ""}


def test_three_sentences_by_hand():
  figure, rarest, advice = sentences.top(hand_made())
  said = "class weights at B = 64 is better (+10.0 [+2.0, +18.0] points)."
  assert figure == f"In the mean recall of the classes, held against SGDM: {said}"
  assert "recall of class 1, the rarest (9 to train on, 12 tested)" in rarest
  assert advice.endswith("70.0 in the test at that batch size. Take class weights at B = 64.")
  figure, _, advice = sentences.top(hand_made(low=-0.02, verdict="no difference shown"))
  said = "none of the arms held against SGDM, controls aside, is shown to differ;"
  assert figure.startswith(f"In the mean recall of the classes {said}")
  assert "more seeds or test examples may tell. Take SGDM at B = 64." in advice
  assert "; the highest is class weights at B = 64, by +10.0 [-2.0" in figure
  for low, high, said in (
    (0.9, 1.1, "about the same as one of SGDM"),
    (1.2, 1.4, "1.30 (1.20, 1.40)"),
  ):
    cost = {"64": {"class weights": {"ratio": 1.3, "ratio_low": low, "ratio_high": high}}}
    assert f"a step costs {said}" in sentences.top(hand_made() | {"cost": cost})[2]
  summary = hand_made(verdict=None) | {"no_verdict": {"figure": "too few", "rarest": "one"}}
  figure, rarest, _ = sentences.top(summary)
  assert figure == "No verdict on the mean recall of the classes: too few."
  assert rarest.endswith("(9 to train on, 12 tested): one.")
  summary["results"][2]["arm"] = "GQ, K=B/64"
  assert page.quality(summary, "rarest")[3][1].endswith("no verdict), here K = 1")
  rows = page.quality(summary, "rarest")
  assert rows[2] == ["class weights", "50.0 (+10.0 [+2.0, +18.0], no verdict)"]


def test_the_rarest_class_is_told_beside_the_rarest_kind():
  summary = hand_made(verdict="no difference shown", mean=-0.027)
  kinds = {"has_kinds": True, "rarest_class": 1, "kind_names": ["dent", "stain"]}
  summary |= kinds | {"class_counts": {"training": [80, 19], "test": [40, 22]}}
  summary["no_verdict"] = REASONS | {"class": ""}
  baseline, rival = summary["results"][:2]
  baseline["validation"] = [0.85]
  rival["against"]["class"] = rival["against"]["rarest"] | {"mean": 0.1, "verdict": "better"}
  baseline["class"], rival["class"] = 0.5, 0.6
  figure, of_class, of_kind, advice = sentences.top(summary)
  assert "all are lower, the least class weights at B = 64, by -2.7 [" in figure
  assert "recall of class 1, the rarest class (19 to train on, 22 tested)" in of_class
  assert "class weights at B = 64 is better (+10.0" in of_class
  assert "recall of stain, the rarest kind (9 to train on, 12 tested) none of the" in of_kind
  said = "Take SGDM at B = 64, or class weights at B = 64 where class 1 counts most."
  assert advice.endswith(f"70.0 in the test. {said}")
  rival["against"]["class"]["verdict"] = "no difference shown"
  assert sentences.top(summary)[3].endswith("No gain by weights is shown. Take SGDM at B = 64.")


def of_two_sizes(own, other):
  """The summary with class weights at B = 1024, and SGDM there and, best on validation, at 64."""
  summary = hand_made()
  baseline, rival, _ = summary["results"]
  there = baseline | {"batch_size": 1024, "validation": [0.6]} | own
  summary["results"] = [baseline | other, there, rival | {"batch_size": 1024} | own]
  return summary


def test_what_is_to_be_taken_is_not_below_the_baseline_at_its_best_batch_size():
  summary = of_two_sizes({"figure": 0.72, "rarest": 0.5}, {"figure": 0.78, "rarest": 0.8})
  advice = sentences.advice(summary)
  said = "SGDM has 72.0 in the test at that batch size, but 78.0 in the test at B = 64."
  assert advice.endswith(f"{said} Take SGDM at B = 64.")
  summary = of_two_sizes({"figure": 0.8, "rarest": 0.9}, {"figure": 0.78, "rarest": 0.8})
  assert sentences.advice(summary).endswith("Take class weights at B = 1024.")


@pytest.mark.parametrize(
  ("verdict", "said"),
  [
    (None, "SGDM at B = 64 does best on validation: 70.0 in the test."),
    ("worse", "at that batch size. The test shows that logit adjustment is worse."),
    (
      "no difference shown",
      "at that batch size. The test does not show that logit adjustment is better:"
      " more seeds or test examples may tell.",
    ),
  ],
)
def test_that_validation_and_test_disagree_is_said(verdict, said):
  summary = hand_made()
  baseline, rival, _ = summary["results"]
  baseline["validation"], rival["figure"], rival["rarest"] = [0.85], 0.8, 0.4
  if verdict:
    gaps = {k: gap | {"verdict": verdict} for k, gap in rival["against"].items()}
    other = {"arm": "logit adjustment", "validation": [0.95], "figure": 0.7, "against": gaps}
    summary["results"].append(rival | other)
  disagree = "Validation and test disagree: class weights at B = 64 has 80.0 in the test."
  assert sentences.advice(summary).endswith(f"{said} {disagree} Take SGDM at B = 64.")


def test_controls_alone_have_a_report_and_no_advice():
  summary = hand_made()
  summary["results"] = summary["results"][2:]
  summary["baseline"] = summary["results"][0]["arm"]
  assert sentences.advice(summary).endswith(" is a control, and not to be taken.")


def result(arm, tests, curves, batch_size=64, rate=0.1):
  return {
    "arm": arm,
    "batch_size": batch_size,
    "rate": rate,
    "rate_inside_grid": True,
    "validation_by_rate": {"0.1": 0.5},
    "validation": tests,
    "test": [{"mean": t, "worst": t / 2} for t in tests],
    "curve_steps": [10, 20],
    "curves_at_rate": curves,
  }


def test_verdicts_and_steps_by_hand():
  low = [[0.1, 0.5], [0.6, 0.7], [0.1, 0.2]]
  summary = {
    "trial": {
      "seeds": 3,
      "target": None,
      "hidden": None,
      "fixed_rate": None,
      "evaluations": 2,
      "figure": "mean",
    },
    "results": [
      result("SGDM", [0.5, 0.6, 0.7], low),
      result("A", [0.52, 0.63, 0.74], [[0.6, 0.7]] * 3),
      result("B", [0.45, 0.54, 0.64], low),
      result("C", [0.4, 0.7, 0.7], [[0.1, 0.2]] * 3),
    ],
    "cost": {"64": {"A": {"median": 0.5, "ratio": 2, "ratio_low": 1.9, "ratio_high": 2.1}}},
  }
  rates = report.plot(summary).axes[1]
  assert [t.get_text() for t in rates.get_xticklabels()] == ["0.1"]
  assert not any(t.get_text() for t in rates.get_xticklabels(minor=True))
  # The mean of what the baseline ends on, less .01.
  assert report.target_of(summary) == pytest.approx(0.457)
  found = [row[1] for row in report.quality_table(summary)[2:]]
  for cell, word in zip(found, ("better)", "worse)", "no difference shown)"), strict=True):
    assert cell.endswith(word)
  assert found[0] == "63.0 ± 11.0 (+3.0 [+0.5, +5.5], better)"
  assert [row[1] for row in report.target_table(summary)[1:]] == [
    "20 steps",
    "10 steps, 5 s",
    "20 steps",
    "not reached",
  ]
  assert report.steps_to(summary["results"][0], 0.5) == 20
  assert report.steps_to(summary["results"][0] | {"first_steps": 7}, 0.5) == 27
  assert report.cost_table(summary)[2][1] == "500.00 ms, 2.00 (1.90, 2.10)"


def test_controls_are_not_recommended():
  for name in ("group DRO (oracle)", "true kinds (oracle) on Muon", "GQ, K=B/64, shuffled weights"):
    assert sentences.is_control(name)
  assert not sentences.is_control("class weights on Muon")


def test_sentences_without_a_plain_arm():
  told = hand_made(verdict="no difference shown", mean=-0.1)
  told["baseline"] = "class weights"
  told["results"] = [told["results"][1] | {"arm": "focal loss"}, told["results"][0]]
  told["results"][1]["arm"] = "class weights"
  told["results"][1]["validation"] = [0.9]
  assert sentences.top(told)[-1].endswith("in the test. Take class weights at B = 64.")
  told["results"] = told["results"][1:]
  assert sentences.top(told)[0] == (
    "No verdict on the mean recall of the classes: there is no arm to hold against class weights."
  )
