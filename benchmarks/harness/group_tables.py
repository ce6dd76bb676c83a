# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Tables about people: a kind is a class within a group, and neither inputs nor labels tell which.

A kind is numbered 2 * group + label, so that the label is the kind modulo 2.
"""

import io

import numpy as np

from benchmarks.harness.tasks import stratified_split

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]

CELEBA_TRAINING = 162_770  # the published split; its validation and test sets follow


def read_csv(file: bytes) -> tuple[list[str], list[str]]:
  """The names of the columns, and the lines behind them."""
  head, *lines = io.TextIOWrapper(io.BytesIO(file), encoding="utf-8").read().splitlines()
  return head.split(","), lines


def adult(file: bytes, fraction: float, seed: int) -> Arrays:
  """Income above 50,000 dollars; sex and white or not are withheld, and make the four groups.

  The sampling weight `fnlwgt` is no attribute of a person and is left out.

  Args:
    file: the one-hot table of all 45,222 complete rows, in an order of its own.
    fraction: of each kind that is the test set.
    seed: of the draw.

  Returns:
    float32 `[n, 96]` and kinds `[n]` of training, then of test. A group is 2 * white + male.
  """
  names, lines = read_csv(file)
  values = np.loadtxt(lines, np.float32, delimiter=",", ndmin=2)
  column = lambda name: values[:, names.index(name)].astype(np.int64)
  groups = 2 * column("race_White") + column("sex_Male")
  kinds = 2 * groups + column("salary_>50K")
  withheld = ("race_", "sex_", "salary_", "fnlwgt")
  x = values[:, [i for i, name in enumerate(names) if not name.startswith(withheld)]]
  train, test = stratified_split(kinds, fraction, seed)
  return x[train], kinds[train], x[test], kinds[test]


def celeba(file: bytes) -> Arrays:
  """Blond hair out of the other attributes of a photo; male or not is withheld: two groups.

  Args:
    file: the attributes, -1 or 1, of all 202,599 photos in the published order.

  Returns:
    float32 zeros and ones `[n, 38]` and kinds `[n]` of training, then of the published validation
    and test sets together.
  """
  names, lines = read_csv(file)
  columns = range(1, len(names))  # the first is the name of a photo
  values = np.loadtxt(lines, np.float32, delimiter=",", usecols=columns, ndmin=2) > 0
  column = lambda name: values[:, names.index(name) - 1].astype(np.int64)
  kinds = 2 * column("Male") + column("Blond_Hair")
  keep = [i - 1 for i in columns if names[i] not in ("Male", "Blond_Hair")]
  x, n = values[:, keep].astype(np.float32), CELEBA_TRAINING
  return x[:n], kinds[:n], x[n:], kinds[n:]
