# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The best arm of a trial, kept in its folder, and new rows scored with it."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd

from gq_optax.trial import descriptors, detectors, failing, rows, training
from gq_optax.trial.runs import Answers

FILE = "best.npz"


def keep(
  folder: Path, name: str, answers: Answers, own: rows.Rows, ruler: descriptors.Ruler | None
) -> None:
  """Writes the networks of an arm with their detectors, and what new rows need to be alike."""
  about = {
    "arm": name,
    "classes": own.classes,
    "images": own.images,
    "shape": own.x.shape[1:],
    "encoding": own.encoding,
    "setup": answers.setup._asdict(),
  }
  flat = jax.tree.leaves(answers.variables)
  leaves: dict[str, Any] = {f"leaf{i}": np.asarray(a) for i, a in enumerate(flat)}
  lanes, kinds = answers.lanes, answers.detectors
  if ruler is not None and len(kinds[0].labels):
    leaves |= {f"ruler_{key}": value for key, value in ruler._asdict().items()}
    leaves |= {
      f"kinds_{key}": np.stack([getattr(k, key) for k in kinds]) for key in kinds[0]._fields
    }
  np.savez(
    folder / FILE,
    about=np.array(json.dumps(about)),
    shift=lanes.shift,
    scale=lanes.scale,
    bias=answers.bias,
    **leaves,
  )


def score(folder: Path, source: Path) -> Path:
  """Scores new rows with the arm that is kept in a folder; returns the file that holds them.

  Raises:
    FileNotFoundError: if the folder keeps no arm, or there are no new rows.
    ValueError: if the new rows are not like those of the trial.
  """
  if not (folder / FILE).is_file():
    raise FileNotFoundError(
      f"out must be the folder of a finished trial, but {folder / FILE} was not found:"
      " run the trial first, then --score."
    )
  with np.load(folder / FILE) as file:
    arrays = dict(file)
  about = json.loads(str(arrays["about"]))
  setup = training.Setup(**about["setup"])
  names, x = _new(source, about)
  width = len(arrays["bias"])
  lanes = training.Lanes(
    np.zeros((width, 1, 1), np.int32), np.zeros(width, np.float32), np.zeros(width, np.int32),
    arrays["shift"], arrays["scale"], np.ones((width, 1)),
    np.zeros((width, setup.num_classes)),
  )  # fmt: skip
  structure: Any = jax.tree.structure(jax.eval_shape(
    lambda: training.start(setup, x[:1], lanes)[0]
  ))  # fmt: skip
  variables = jax.tree.unflatten(
    structure, [arrays[f"leaf{i}"] for i in range(structure.num_leaves)]
  )
  logits = training.predict(setup, x, lanes, variables)
  if "kinds_labels" in arrays:
    logits = _detect(logits, x, arrays)
  chance = failing.probabilities(logits - arrays["bias"][:, None])
  frame = pd.DataFrame({"row": names, "predicted": np.array(about["classes"])[chance.argmax(1)]})
  for c, name in enumerate(about["classes"]):
    frame[f"probability of {name}"] = chance[:, c].round(5)
  path = folder / "scores.csv"
  frame.to_csv(path, index=False)
  return path


def _detect(logits: np.ndarray, x: np.ndarray, arrays: dict[str, np.ndarray]) -> np.ndarray:
  read: dict[str, Any] = {key: arrays[f"ruler_{key}"] for key in descriptors.Ruler._fields}
  read |= {key: read[key].item() for key in ("layout", "seed", "rows")}
  ruler = descriptors.Ruler(**read)
  features, _ = descriptors.measure(x, ruler.layout, ruler.seed, ruler)
  fields = zip(*(arrays[f"kinds_{key}"] for key in detectors.Detectors._fields), strict=True)
  return np.stack([
    detectors.add(own, features, detectors.Detectors(*of_lane))
    for own, of_lane in zip(logits, fields, strict=True)
  ])  # fmt: skip


def _new(source: Path, about: dict[str, Any]) -> tuple[list[str], np.ndarray]:
  if not source.exists():
    raise FileNotFoundError(f"score must be a file or folder, but nothing was found at {source}.")
  if source.is_dir():
    from PIL import Image

    files = sorted(p for p in source.rglob("*") if p.suffix.lower() in rows.IMAGES)
    if not files or "size" not in about["encoding"]:
      raise ValueError(f"score must hold rows as the trial's, but {source} was found.")
    mode, size = "RGB" if len(about["shape"]) == 3 else "L", tuple(about["encoding"]["size"])
    images = [np.asarray(Image.open(f).convert(mode).resize(size)) for f in files]
    return [str(f.relative_to(source)) for f in files], np.stack(images)
  if source.suffix == ".npz":
    with np.load(source) as file:
      key = next((k for k in ("x", "x_test", "x_train") if k in file.files), None)
      if key is None:
        raise ValueError(f"score must hold x, but {', '.join(file.files)} was found.")
      x = file[key]
  else:
    x, _ = rows.encode(rows.read_frame(source), about["encoding"].get("categories") or {"?": None})
  if list(x.shape[1:]) != list(about["shape"]):
    raise ValueError(
      f"score must hold examples of shape {tuple(about['shape'])}, but {x.shape[1:]} was found."
    )
  return [str(i) for i in range(len(x))], x if about["images"] else x.astype(np.float32)
