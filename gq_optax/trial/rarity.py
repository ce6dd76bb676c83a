# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Where no kinds are named: which examples does the trained baseline find unlike all others?

The best plain arm is trained once more, and every example is described by its features. An example
is rare where few training examples lie near it. That orders the test examples by rarity, so that
recall can be told tenth by tenth, and names the rarest training examples with their neighbours.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gq_optax as gq
from gq_optax.trial import arms, runs, training

REFERENCE = 4096  # training examples that all are compared with; more make it slower, not better
NAMED, NEIGHBOURS = 8, 3
_ROWS = 2048  # at once


def rarity_of(
  embeddings: np.ndarray, reference: np.ndarray, own: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  r"""How few of the reference resemble each example.

  .. math:: -\log \frac{1}{m} \sum_{j \ne i} k_{ij}

  with the similarity k of `gq.example_scarcity`, whose queue holds the reference.

  Args:
    embeddings: `[n, d]`.
    reference: `[m, d]`.
    own: int `[n]`, an example's own row in the reference, which is left out; -1 if it has none.

  Returns:
    The rarity `[n]`, and of the nearest `NEIGHBOURS` their rows in the reference and their cosines.
  """
  number = len(reference)
  scarcity = gq.example_scarcity(number)
  _, state = scarcity.update(jnp.asarray(reference, jnp.float32), scarcity.init(reference.shape[1]))
  unit = lambda x: x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
  reference, found = unit(np.asarray(reference, np.float32)), []
  for i in range(0, len(embeddings), _ROWS):
    part, itself = np.asarray(embeddings[i : i + _ROWS], np.float32), own[i : i + _ROWS]
    explained = scarcity.explain(jnp.asarray(part), state, len(part), 1)
    rows = np.asarray(explained.indices)
    there = rows >= 0  # what has no direction is not among them, and is held common
    resembling = np.ones(len(part))
    resembling[rows[there]] = np.asarray(explained.densities)[there]
    (inside,) = np.nonzero(itself >= 0)
    resembling[inside] -= 1.0 / number
    cosine = unit(part) @ reference.T
    cosine[inside, itself[inside]] = -np.inf
    nearest = np.argsort(-cosine, axis=1)[:, :NEIGHBOURS]
    near = np.take_along_axis(cosine, nearest, axis=1)
    found.append((-np.log(np.maximum(resembling, 1e-6 / number)), nearest, near))
  rarity, nearest, near = (np.concatenate(part) for part in zip(*found, strict=True))
  return rarity, nearest, near


def look(bench: runs.Bench, name: str, batch_size: int, rate: float) -> dict[str, np.ndarray]:
  """Trains an arm once more, and says which examples are rare for its features.

  Args:
    bench: of the trial.
    name: the arm.
    batch_size: of its run.
    rate: of its run.

  Returns:
    "of_pool": the rarity of every example of the pool `[N]`; "rarest": rows of the rarest training
    examples, the rarest first; "nearest" and "cosine": of each the nearest others; "label_rarest"
    and "label_nearest": their classes. Read from the trial's folder if they are there for the same
    run.
  """
  path = bench.trial.out / "rarity.npz"
  identity = f"{name}, B={batch_size}, rate={rate:.6g}, seeds={bench.trial.seeds}"
  if path.exists():
    with np.load(path) as file:
      kept = dict(file)
    if str(kept["identity"]) == identity:
      return kept
  x, train, pool = bench.material.everything()
  sizes = runs.sizes_of(bench, batch_size)
  features = trained_features(arms.find(name), sizes, bench.material.task_of(0), rate, x)
  chosen = np.sort(np.random.RandomState(0).permutation(train)[:REFERENCE])
  own = np.full(len(x), -1)
  own[chosen] = np.arange(len(chosen))
  rarity, nearest, cosine = rarity_of(features, features[chosen], own)
  rarest = train[np.argsort(-rarity[train], kind="stable")[:NAMED]]
  task = bench.material.task_of(0)
  labels = np.zeros(len(x), int)
  labels[train] = np.asarray(task.labels)
  near = chosen[nearest[rarest]]
  found = {
    "identity": np.array(identity),
    "of_pool": rarity[pool],
    "rarest": rarest,
    "nearest": near,
    "cosine": cosine[rarest],
    "label_rarest": labels[rarest],
    "label_nearest": labels[near],
  }
  runs.write(path, lambda p: np.savez(p, **found))
  return found


def trained_features(
  arm: arms.Arm, sizes: training.Sizes, task: training.Task, rate: float, x: np.ndarray
) -> np.ndarray:
  """The features `[n, d]` of examples, as the arm has them after a training with seed 0."""
  earlier = training.Earlier(jnp.ones(len(task.x)))
  variables, _ = training.steps(arm, sizes, task, jnp.int32(0), jnp.float32(rate), earlier)
  apply = jax.jit(training.make_network(sizes, x.shape[1:]).apply)
  parts = np.array_split(x, range(_ROWS, len(x), _ROWS))
  return np.concatenate([np.asarray(apply(variables, jnp.asarray(p))[1]) for p in parts])


def told(rare: dict[str, np.ndarray]) -> list[dict[str, Any]]:
  """The rarest training examples and their neighbours, each `[row, class]`, ready for JSON."""
  return [
    {
      "example": [int(row), int(label)],
      "neighbours": [[int(r), int(c)] for r, c in zip(near, classes, strict=True)],
      "cosine": [round(float(c), 3) for c in cosine],
    }
    for row, label, near, classes, cosine in zip(
      *(rare[k] for k in ("rarest", "label_rarest", "nearest", "label_nearest", "cosine")),
      strict=True,
    )
  ]
