# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Figures of both scarcities, epoch by epoch, to TensorBoard and to CSV.

    pip install tensorboardX
    python -m examples.monitoring && tensorboard --logdir out/monitoring

The loop is that of `examples.rare_groups_linen` with `grad_queue` in front of the optimizer.
"""

import csv
import pathlib
from typing import Any

import jax
import matplotlib.figure
import numpy as np
import optax
import tyro

import gq_optax as gq
from examples import digits, rare_groups_linen

SHOWN = ("loss", "mean_weight", "cosine", "effective_examples", "rarest_tenth", "groups_seen")


def figures(state: rare_groups_linen.GroupedTrainState, loss: jax.Array) -> dict[str, float]:
  """All figures of a training as one flat dict; read once an epoch, it waits for the device."""
  told = gq.diagnostics(state.opt_state) | gq.diagnostics(state.groups)
  return {"loss": float(loss)} | {name: float(value) for name, value in told.items()}


def write_tensorboard(rows: list[dict[str, float]], folder: pathlib.Path) -> None:
  """One scalar for each figure and epoch."""
  from tensorboardX import SummaryWriter  # only who watches needs it

  with SummaryWriter(str(folder)) as writer:
    for epoch, row in enumerate(rows):
      for name, value in row.items():
        writer.add_scalar(f"gq/{name}", value, epoch)


def write_csv(rows: list[dict[str, float]], path: pathlib.Path) -> None:
  """One line an epoch."""
  with path.open("w", newline="") as file:
    writer = csv.DictWriter(file, ["epoch", *rows[0]])
    writer.writeheader()
    writer.writerows({"epoch": epoch, **row} for epoch, row in enumerate(rows))


def plot(rows: list[dict[str, float]], path: pathlib.Path) -> None:
  """What a person looks at: six figures over the epochs."""
  figure = matplotlib.figure.Figure(figsize=(9, 4.5), layout="constrained")
  for ax, name in zip(figure.subplots(2, 3).flat, SHOWN, strict=True):
    ax.plot([row[name] for row in rows])
    ax.set_title(name, fontsize=9)
    ax.spines[["top", "right"]].set_visible(False)
  figure.supxlabel("epoch")
  figure.savefig(path, dpi=120)


def main(
  epochs: int = 40,
  batch_size: int = 128,
  seed: int = 0,
  tensorboard: bool = True,
  out: pathlib.Path = pathlib.Path("out/monitoring"),
) -> list[dict[str, float]]:
  """Trains and writes what was told.

  Args:
    epochs: passes over the training images.
    batch_size: examples a step.
    seed: of data, parameters, batches and groups.
    tensorboard: also write event files.
    out: folder of figures.csv, figures.png and the event files.

  Returns:
    The figures of every epoch.
  """
  x, _, y, _, _, _ = digits.hidden_kinds(seed)
  model, scarcity = rare_groups_linen.MLP(), gq.group_scarcity(20, pooling=0.5, key=seed)
  queue: Any = gq.grad_queue(queue_length=3, update_norm="match", track=True)
  state = rare_groups_linen.GroupedTrainState.create(
    apply_fn=model.apply,
    params=model.init(jax.random.key(seed), x)["params"],
    tx=optax.chain(queue, optax.sgd(0.1, momentum=0.9)),
    groups=scarcity.init(64),
  )
  rows = []
  for batches in digits.epochs_of_batches(len(x), batch_size, epochs, seed):
    losses = []
    for batch in batches:
      state, loss = rare_groups_linen.train_step(state, scarcity, x[batch], y[batch])
      losses.append(loss)
    rows.append(figures(state, np.mean(losses)))
  out.mkdir(parents=True, exist_ok=True)
  write_csv(rows, out / "figures.csv")
  plot(rows, out / "figures.png")
  if tensorboard:
    write_tensorboard(rows, out)
  return rows


if __name__ == "__main__":
  tyro.cli(main)
