# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""A small A/B trial: do weights for rare examples help on these data?

    gq-trial --npz my.npz --model my_package.my_module:make_model
    gq-trial --data digits --batch-sizes 64 256

Every training run is kept in `out/runs`; what is there is not run again, so that a trial that
was interrupted, or gets more arms, batch sizes or seeds, goes on where it stopped. Each arm gets
its own learning rate at each batch size: the best on validation over the first seeds, out of a grid
that grows until the best lies inside it. At that rate all seeds are run; only then the test counts.
The plain arms come first; all others are trained with the optimizer of the best of them. It ends in
a report: report.md, report.html and summary.json in `out`.

A first look takes minutes: --seeds 3 --batch-sizes 64 --epochs 10.

The .npz holds x_train and y_train, and maybe x_test, y_test, x_validation, y_validation,
kinds_train, kinds_test and kinds_validation. Only the oracle trains with kinds. But with
kinds_train the mean over kinds on validation chooses the learning rates and the best arm (unless
--figure is another); kinds_test alone avoids that.

The model is make(num_classes), which returns a Linen module, or make(num_classes, rngs) for an NNX
one. Called with examples it returns logits, (logits, features), or a dict with the keys "logits"
and "features". Without features the logits stand for them.
"""

import dataclasses
import json
import math
import sys
from typing import Any

import tyro
from rich import progress

from gq_optax.trial import (
  arms,
  comparison,
  data,
  identity,
  networks,
  own_data,
  page,
  rarity,
  recipes,
  report,
  runs,
  splits,
  training,
)
from gq_optax.trial.runs import Bench, Trial, environment


def check(trial: Trial) -> None:
  """Says what is wrong with a trial before anything is loaded."""
  for name in trial.arm_names:
    arms.find(name)
  if not trial.arm_names or not trial.batch_sizes or trial.epochs < 1:
    raise ValueError("a trial must have an arm, a batch size and an epoch at least.")
  if trial.noise not in (None, "symmetric", "asymmetric"):
    raise ValueError(f"noise must be symmetric or asymmetric, but {trial.noise!r} was found.")
  if trial.npz and any(v is not None for v in (trial.noise, trial.imbalance, trial.hidden)):
    raise ValueError("noise, imbalance and hidden must be left out with npz: they change `data`.")
  if trial.figure not in report.FIGURES:
    known = ", ".join(report.FIGURES)
    raise ValueError(f"figure must be one of {known}, but {trial.figure!r} was found.")
  if not 1 <= trial.tuning_seeds <= trial.seeds:
    raise ValueError(
      f"tuning_seeds must be 1 to seeds={trial.seeds}, but {trial.tuning_seeds} was found. Set"
      " --tuning-seeds too."
    )
  if trial.evaluations < 1:
    raise ValueError(f"evaluations must be at least 1, but {trial.evaluations} was found.")
  if trial.cost_rounds == 1 or trial.cost_rounds < 0:
    raise ValueError(f"cost_rounds must be 0 or at least 2, but {trial.cost_rounds} was found.")
  for rate in (*(trial.rates or ()), trial.fixed_rate or 1.0):
    if not 0.0 < rate < math.inf:
      raise ValueError(f"a learning rate must be positive and finite, but {rate} was found.")
  identity.check_folder(trial.out)


def warn(trial: Trial, material: splits.Material) -> None:
  """Says what makes a trial tell less than it could."""
  if not any(arms.is_plain(arms.find(name)) for name in trial.arm_names):
    material.warnings.append(
      f"No arm is plain, so all are held against {trial.arm_names[0]}: add SGDM to see what weights"
      " bring."
    )
  for warning in material.warnings:
    print(f"warning: {warning}", file=sys.stderr)


def check_model(trial: Trial, material: splits.Material) -> None:
  """Says what is wrong with a model before anything is trained."""
  num_classes = material.pool.num_classes
  if not networks.check(trial.model, num_classes, material.task_of(0).x.shape[1:]):
    material.notes.append(
      "The model returns no features, so its logits stood for them wherever examples are grouped."
    )
  clustered = [name for name in trial.arm_names if arms.find(name).clusters != "none"]
  if clustered and not networks.make(trial.model, num_classes).plain:
    raise ValueError(
      f"arm_names must leave out {'; '.join(clustered)} for a model with BatchNorm or dropout: the"
      " gradient of a cluster is not defined with them."
    )


def load(trial: Trial) -> tuple[training.Task, int]:
  """The arrays of a trial on a public set, and its number of classes."""
  recipe = recipes.Recipe(
    trial.data,
    trial.imbalance,
    trial.largest,
    trial.hidden,
    trial.noise,
    trial.noise_rate,
    trial.epochs,
  )
  return recipes.make_task(recipe, data.load(trial.data), networks.layout(trial.model))


def run(trial: Trial) -> dict[str, Any]:
  """Runs what is missing of a trial and writes its report.

  Args:
    trial: see `Trial`.

  Returns:
    What is in summary.json.

  Raises:
    ValueError: if the trial, the data or the model break a rule.
    FileNotFoundError: if there is no such file.
  """
  check(trial)
  own = None if trial.npz is None else own_data.load_npz(trial.npz)
  if own is None:
    material = splits.of_recipe(*load(trial), trial.hidden is not None)
  else:
    layout = networks.layout(trial.model)
    material = splits.of_own(own, layout, trial.seeds, trial.standardise)
  warn(trial, material)
  check_model(trial, material)
  if trial.arm_names == arms.DEFAULT and material.oracle:
    trial = dataclasses.replace(trial, arm_names=(*trial.arm_names, arms.ORACLE))
  with progress.Progress(
    progress.TextColumn("{task.description}"),
    progress.BarColumn(),
    progress.MofNCompleteColumn(),
    progress.TimeRemainingColumn(),
  ) as bar:
    bench = Bench(trial, material, bar, environment())
    for batch_size in trial.batch_sizes:  # before the first long run
      runs.sizes_of(bench, batch_size)
    identity.keep(trial, own)
    results, baseline = run_arms(bench)
    material.warnings.extend([*diverged(results), *made_before(results, bench.environment)])
    summary = summarise(bench, results, baseline)
  (trial.out / "summary.json").write_text(json.dumps(summary, indent=1))
  page.write(summary, trial.out, material.pictures)
  return summary


def diverged(results: comparison.Results) -> list[str]:
  """What is to be said of runs that ended in NaN or Inf."""
  return [
    f"{r['arm']} at B = {r['batch_size']} diverged in {r['diverged']} of {len(r['test'])} runs,"
    " which recognise nothing."
    for r in results
    if r["diverged"]
  ]


def made_before(results: comparison.Results, environment: dict[str, str]) -> list[str]:
  """What is to be said of runs that other versions made."""
  found = {
    ", ".join(f"{k} {v}" for k, v in made.items() if v != environment.get(k))
    for result in results
    for made in result["environments"]
  }
  return [f"Some runs were made with {others}." for others in sorted(found - {""})]


def run_arms(bench: Bench) -> tuple[comparison.Results, str]:
  """The results of all arms, the baseline first; the plain ones decide how the others train."""
  trial = bench.trial
  plain = [name for name in trial.arm_names if arms.is_plain(arms.find(name))]
  others = [name for name in trial.arm_names if name not in plain]
  total = bench.bar.add_task(
    "arms and batch sizes", total=len(trial.arm_names) * len(trial.batch_sizes)
  )

  def all_sizes(name: str) -> comparison.Results:
    found = []
    for batch_size in trial.batch_sizes:
      found.append(runs.run_arm(bench, name, batch_size))
      bench.bar.advance(total)
    return found

  results = [result for name in plain for result in all_sizes(name)]
  baseline = comparison.baseline_of(results) if plain else trial.arm_names[0]
  if plain and arms.find(baseline) != arms.Arm():
    own = lambda arm: (arm.optimizer, arm.weight_decay)
    unnamed = lambda name: own(arms.find(name)) == own(arms.Arm()) and " on " not in name
    others = [f"{name} on {baseline}" if unnamed(name) else name for name in others]
  results += [result for name in others for result in all_sizes(name)]
  return sorted(results, key=lambda r: r["arm"] != baseline), baseline


def summarise(bench: Bench, results: comparison.Results, baseline: str) -> dict[str, Any]:
  """What the report is made of: figures, verdicts, rare examples, costs."""
  trial, material = bench.trial, bench.material
  rare, at = None, comparison.best_size(results, baseline)
  if not material.has_kinds:
    rate = next(r["rate"] for r in results if (r["arm"], r["batch_size"]) == (baseline, at))
    rare = rarity.look(bench, baseline, at, rate)
  scores = {(r["arm"], r["batch_size"]): runs.read_scores(bench, r) for r in results}
  of_pool = None if rare is None else rare["of_pool"]
  comparison.compare(material, results, scores, baseline, trial.figure, of_pool)
  whole, rarest = comparison.why_not(material, trial.figure, trial.seeds)
  reasons = {"figure": whole, "rarest": rarest}
  if material.has_kinds:
    reasons["class"] = comparison.why_not_class(material, trial.seeds)
  return {
    "trial": json.loads(json.dumps(dataclasses.asdict(trial), default=str)),
    "training_examples": len(material.task_of(0).x),
    "classes": material.pool.num_classes,
    "kinds": len(material.kind_names),
    "kind_names": material.kind_names,
    "has_kinds": material.has_kinds,
    "counts": material.counts,
    "class_counts": comparison.class_counts(material),
    "rarest_kind": comparison.rarest_kind(material.counts),
    "rarest_class": comparison.rarest_class(material),
    "baseline": baseline,
    "no_verdict": reasons,
    "repeated": material.repeated,
    "notes": material.notes,
    "warnings": material.warnings,
    "rarity": None if rare is None else rarity.told(rare),
    "environment": bench.environment,
    "results": results,
    "cost": runs.step_costs(bench, list(dict.fromkeys(r["arm"] for r in results))),
  }


def main() -> None:
  """The command line."""
  known = f"Arms: {'; '.join(arms.ARMS)}."
  trial = tyro.cli(Trial, prog="gq-trial", description=f"{__doc__}\n{known}")
  try:
    run(trial)
  except (ValueError, FileNotFoundError) as problem:
    print(f"error: {problem}", file=sys.stderr)
    sys.exit(2)
  except KeyboardInterrupt:
    print("stopped: the same command goes on from here.", file=sys.stderr)
    sys.exit(130)
  print(f"report: {trial.out / 'report.html'}")
