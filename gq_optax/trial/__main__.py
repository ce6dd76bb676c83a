# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The command `gq-trial`, also as `python -m gq_optax.trial`."""

import os
import sys


def main() -> None:
  """Runs the command, or says what to install."""
  # A model is named by module; as with `python -m`, that may lie where the command is called.
  sys.path.insert(0, os.getcwd())
  try:
    from gq_optax.trial import command
  except ModuleNotFoundError as missing:
    print(f"error: {missing.name} is missing: pip install 'gq_optax[trial]'", file=sys.stderr)
    sys.exit(2)
  command.main()


if __name__ == "__main__":
  main()
