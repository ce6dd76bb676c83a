# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What makes two trials the same: arrays, the model's source, options. Kept in config.json."""

import dataclasses
import hashlib
import importlib
import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np

from gq_optax.trial.own_data import Own
from gq_optax.trial.runs import Trial

# What may grow or change from one call to the next; all else makes another trial. Where the file
# lies does not matter: what it holds does.
_FREE = {"arm_names", "batch_sizes", "rates", "seeds", "target", "cost_rounds", "out", "npz"}
_FREE |= {"side_by_side"}


def of_array(array: np.ndarray) -> str:
  """SHA-256 of shape, dtype and values."""
  found = hashlib.sha256(f"{array.dtype.str} {array.shape}".encode())
  found.update(np.ascontiguousarray(array).data)
  return found.hexdigest()


def of_model(name: str) -> str:
  """SHA-256 of the source of the module that holds the user's model; empty for our own."""
  module = name.partition(":")[0]
  if ":" not in name:
    return ""
  return hashlib.sha256(inspect.getsource(importlib.import_module(module)).encode()).hexdigest()


def of_trial(trial: Trial, own: Own | None) -> dict[str, Any]:
  """All that must not change, ready for JSON."""
  options = {k: v for k, v in dataclasses.asdict(trial).items() if k not in _FREE}
  arrays = (
    {} if own is None else {k: of_array(v) for k, v in own._asdict().items() if v is not None}
  )
  found = {**options, "arrays": arrays, "source of the model": of_model(trial.model)}
  return json.loads(json.dumps(found, default=str))


def keep(trial: Trial, own: Own | None) -> None:
  """Writes config.json, or refuses a folder that holds runs of another trial.

  Raises:
    ValueError: if the folder's trial is another one, and what differs.
  """
  path, new = trial.out / "config.json", of_trial(trial, own)
  if path.exists() and any((trial.out / "runs").glob("*.json")):
    changed = differences(json.loads(path.read_text()), new)
    if changed:
      raise ValueError(
        f"out must be another folder: {trial.out} holds runs of another trial"
        f" ({'; '.join(changed)})."
      )
  else:  # what was timed was another trial's, too
    (trial.out / "cost.json").unlink(missing_ok=True)
  (trial.out / "runs").mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(new, indent=1))


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
  """In words, what changed."""
  arrays = [old.get("arrays", {}), new["arrays"]]
  names = sorted(arrays[0].keys() | arrays[1].keys())
  found = [f"{k} was other data" for k in names if arrays[0].get(k) != arrays[1].get(k)]
  for key in [k for k in new if k != "arrays" and old.get(k) != new[k]]:
    if key == "source of the model":
      found.append("the module of the model was changed")
    else:
      found.append(f"{key} was {old.get(key)}, now {new[key]}")
  return found


def check_folder(out: Path) -> None:
  """Refuses an `out` that cannot be a folder."""
  for part in (out, *out.parents):
    if part.exists() and not part.is_dir():
      raise ValueError(f"out must be a folder, but {part} is a file.")
