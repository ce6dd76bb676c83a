# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The first run: a trial on a long tail of 8 x 8 digits, which a folder of images holds.

The digits are scikit-learn's. Of class 0 all are kept, of each next class a fifth fewer.
"""

from pathlib import Path

import numpy as np
import tyro
from PIL import Image
from sklearn.datasets import load_digits

from gq_optax.trial import command

ARMS = ("SGDM", "Muon", "logit adjustment", "class weights", "example scarcity, outputs")
LESS = 0.8
EPOCHS = 6


def write(folder: Path) -> None:
  """One folder of PNG files for each digit."""
  digits = load_digits()
  for label in range(10):
    (rows,) = np.nonzero(digits.target == label)
    (folder / str(label)).mkdir(parents=True, exist_ok=True)
    for row in rows[: round(len(rows) * LESS**label)]:
      pixels = (digits.images[row] * 255 / 16).astype(np.uint8)
      Image.fromarray(pixels).save(folder / str(label) / f"{row}.png")


def main(out: Path = Path("out/demo")) -> None:
  """Writes the images, then runs gq-trial on them.

  Args:
    out: folder for images and report.
  """
  write(out / "digits")
  command.run(command.Trial(out / "digits", only=ARMS, epochs=EPOCHS, out=out))


if __name__ == "__main__":
  tyro.cli(main)
