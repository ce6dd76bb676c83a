# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Lines of the library, each broken once: do the tests of its module see it?

  python tests/mutants.py [number ...]

Twenty lines were drawn with `random.Random(31).sample` from the 432 lines of `_rarity`,
`_grad_queue` and `_group_gradients` that compute or compare. Drawn anew were those of which a
change makes the library slower alone, or nothing at all. The last two survived an audit. A line
is found by its text, wherever it moves.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parent.parent
CHEAP = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"

# File and function of the day of the draw; text; what stands there instead; tests to run.
MUTANTS = [
  ("adaptive_length.effective_length", "jnp.clip(distance, shortest, longest)",
   "jnp.clip(distance, 0, longest)", "grad_queue/test_parts.py -k within_its_bounds"),
  ("embeddings._sketch_leaf", "folded.at[: size - whole].add(signed[whole:])",
   "folded", "rarity/test_embeddings.py -k place"),
  ("queue.newest", "(queue.index - 1) % _length(queue)",
   "queue.index % _length(queue)", "grad_queue/test_parts.py -k newest"),
  ("lloyd.greedy", "jnp.sum(jnp.square(x[None] - x[rows][:, None]), axis=2)",
   "jnp.sum(jnp.abs(x[None] - x[rows][:, None]), axis=2)", "rarity/test_kmeans.py -k gpu_finds"),
  ("noise.noise_scale", "jnp.where(balanced, x, jnp.nan)",
   "x", "group_gradients/test_noise.py -k uneven"),
  ("scarcity._weighed", "return weights * g.astype(dtype), weights",
   "return weights * x, weights", "grad_queue/test_rules.py -k narrow"),
  ("norms._largest", "functools.reduce(jnp.maximum, map(jnp.abs, family))",
   "functools.reduce(jnp.maximum, family)", "grad_queue/test_rules.py -k raw_mean"),
  ("scarcity._weighed", "weights = jnp.where(active, weights, 1.0)",
   "weights = jnp.where(active, weights, 0.5)", "test_diagnostics.py -k mean_gradient"),
  ("explain.explain_examples", "jnp.where(ranked, found[rarest].T, 0.0)",
   "found[rarest].T", "rarity/test_example_scarcity.py -k rarest"),
  ("blocks.cut", "jnp.full(ends[1], batch_size, jnp.int32)",
   "jnp.full(ends[1], 0, jnp.int32)", "group_gradients/test_grouped.py -k blocks"),
  ("lloyd.reseed", "jnp.where(taken, groups[:, None], -1)",
   "jnp.where(taken, groups[:, None], 0)", "rarity/test_kmeans.py -k one_by_one"),
  ("lloyd.candidates", "jnp.where(_masks.members(owner, len(found)), weight[None], 0.0)",
   "jnp.where(_masks.members(owner, len(found)), 1.0, 0.0)", "rarity/test_kmeans.py -k many_rows"),
  ("scarcity._checked", "fits = jnp.shape(weight) == g.shape and jnp.issubdtype(",
   "fits = jnp.issubdtype(", "test_errors.py -k words"),
  ("lloyd.frame", "power_of_two(jnp.max(jnp.where(weight > 0.0, largest, 0.0)))",
   "power_of_two(jnp.max(largest))", "rarity/test_edges.py -k no_weight"),
  ("norms.norms", "pick(update, n), inverses)",
   "pick(update, n), jnp.ones(2))", "grad_queue/test_rules.py -k scaling"),
  ("scarcity._weighed", "active = jnp.logical_and(active, share > 0.0)",
   "active = jnp.logical_and(active, share >= 0.0)", "grad_queue/test_rules.py -k its_scarcity"),
  ("lloyd.draw", "jnp.pad(mass, (0, side * side - mass.shape[0]))",
   "jnp.pad(mass, (0, side * side - mass.shape[0]), constant_values=1)",
   "rarity/test_kmeans.py -k mass"),
  ("density.weigh", "unit = jnp.sum(trust) / jnp.where(total > 0.0, total, 1.0)",
   "unit = 1.0", "rarity/test_example_scarcity.py -k formula"),
  ("explain.explain_examples", "(ids_of_rows[:, None] != ids[None]) & live",
   "live", "rarity/test_example_scarcity.py -k rarest"),
  ("groups._similarity", "jnp.sum(jnp.square(centroids - c[None]), axis=1)",
   "jnp.sum(jnp.abs(centroids - c[None]), axis=1)", "rarity/test_groups.py -k pooling"),
  ("figures.measure", "jnp.clip(cosine, -1.0, 1.0)", "cosine", "test_diagnostics.py -k cosine"),
  ("examples.example_scarcity", '"bandwidth", bandwidth, 0.0, open_low=True',
   '"bandwidth", bandwidth, 0.0', "test_errors.py -k example_scarcity"),
]  # fmt: skip


def broken(text: str, change: str, place: pathlib.Path) -> str | None:
  """Makes the change in the one file below `place` that has the text, or says why not."""
  files = [path for path in (place / "gq_optax").rglob("*.py") if text in path.read_text()]
  if len(files) != 1 or files[0].read_text().count(text) != 1:
    return f"text not found once but in {len(files)} files: update the table"
  files[0].write_text(files[0].read_text().replace(text, change))
  return None


def fate(text: str, change: str, tests: str) -> str:
  """What becomes of a mutant, in a copy of library and tests."""
  with tempfile.TemporaryDirectory() as name:
    place = pathlib.Path(name)
    shutil.copy(ROOT / "pyproject.toml", place)
    for folder in ("gq_optax", "tests"):
      shutil.copytree(ROOT / folder, place / folder, ignore=shutil.ignore_patterns("__pycache__"))
    why_not = broken(text, change, place)
    if why_not:
      return why_not
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not slow"]
    command += f"tests/{tests}".split()
    cheap = {"XLA_FLAGS": CHEAP, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "PYTHONPATH": name}
    run = subprocess.run(command, cwd=place, env=os.environ | cheap, capture_output=True, text=True)
  seen = [line.split(" - ")[0] for line in run.stdout.splitlines() if line.startswith("FAILED")]
  outcomes = {0: "SURVIVED", 1: f"killed by {' '.join(seen).removeprefix('FAILED ')}"}
  return outcomes.get(run.returncode, f"no answer: {run.stdout[-300:]}{run.stderr[-300:]}")


def main() -> int:
  """Prints the fate of each mutant; 0 if all were killed."""
  parser = argparse.ArgumentParser()
  parser.add_argument("numbers", nargs="*", type=int, default=range(len(MUTANTS)))
  found = []
  for number in parser.parse_args().numbers:
    where, *mutant = MUTANTS[number]
    found.append(fate(*mutant))
    print(f"{number} {where}: {mutant[0]} -> {mutant[1]}: {found[-1]}", flush=True)
  return sum(not fate.startswith("killed") for fate in found)


if __name__ == "__main__":
  sys.exit(main())
