# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What is compared: an arm is a line in a table, and says in which way it is not plain.

Knows no JAX, so that what a trial could show is told at once.
"""

import dataclasses

import numpy as np

MAX_WEIGHT = 50.0


@dataclasses.dataclass(frozen=True)
class Arm:
  """One way to train on top of an optimizer."""

  weigh: str = ""  # "class", "kind": as if all were equally frequent; by the root of that
  adjust: str = ""  # "in training", "after training"; "threshold": tuned by false alarms
  sample: str = ""  # "class", "kind": drawn equally often
  scarcity: str = ""  # "features", "outputs" of an example; "groups" of features
  detect: str = ""  # "kind": a linear model of each, added to the network's odds of its class


PLAIN = ("SGDM", "Adam", "Muon")
BY_CLASS = {
  "logit adjustment": Arm(adjust="in training"),
  "class weights": Arm(weigh="class"),
  "balanced sampling": Arm(sample="class"),
  "adjustment after training": Arm(adjust="after training"),
  "threshold by false alarms": Arm(adjust="threshold"),
}
BY_RARITY = {
  "example scarcity, features": Arm(scarcity="features"),
  "example scarcity, outputs": Arm(scarcity="outputs"),
  "group scarcity": Arm(scarcity="groups"),
}
BY_KIND = {
  "weights by kind": Arm(weigh="kind"),
  "sampling by kind": Arm(sample="kind"),
  "detector by kind": Arm(detect="kind"),
}
NEEDS = {  # what an arm must be told
  **dict.fromkeys(BY_CLASS, "the counts of classes"),
  **dict.fromkeys(BY_RARITY, "nothing"),
  **dict.fromkeys(BY_KIND, "kinds of the training rows"),
}
ARMS = {**BY_CLASS, **BY_RARITY, **BY_KIND}


def rarity(numbers: np.ndarray, own: np.ndarray) -> np.ndarray:
  """The largest count among the rows `own`, over that of each row's class or kind, `[n]`."""
  counts = np.bincount(numbers[own], minlength=numbers.max() + 1)
  return (counts.max() / np.maximum(counts, 1))[numbers].astype(np.float32)


def weights(numbers: np.ndarray, own: np.ndarray) -> np.ndarray:
  """Weights `[n]` of mean 1 over the rows `own`, under which all numbers count the same."""
  found = np.minimum(rarity(numbers, own), MAX_WEIGHT)
  return found / found[own].mean()


def order(
  rng: np.random.Generator, rows: np.ndarray, numbers: np.ndarray | None, shape: tuple[int, int]
) -> np.ndarray:
  """Batches of rows, int32 `[steps, B]`: epoch by epoch, or all `numbers` equally often."""
  size = shape[0] * shape[1]
  if numbers is None:
    epochs = -(-size // len(rows))
    drawn = np.concatenate([rng.permutation(rows) for _ in range(epochs)])[:size]
  else:
    chance = rarity(numbers, rows)[rows].astype(np.float64)
    drawn = rng.choice(rows, size, p=chance / chance.sum())
  return drawn.reshape(shape).astype(np.int32)
