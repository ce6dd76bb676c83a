# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Grad Queue (arXiv 2404.16917) for JAX and Optax: rare training signals made to count.

- `_grad_queue`: weights for the coordinates of a gradient, as in the paper.
- `_rarity`: how rare an example is, and weights for examples.
- `_group_gradients`: the gradients of groups of a batch.
- `_losses`: weights of mean 1, the weighted mean, and logits moved by class counts.
- `_diagnostics`: figures out of states; `_sharding`: specs for states.
- What all use: `_validate` (what comes in), `_masks` (who counts), `_axes` (devices), `_dtypes`,
  `_boxes` (of Flax).

The public names stand in `_public`. They are imported when one is first asked for, so that
`gq-trial` can say what it sees before JAX is imported (PEP 562).
"""

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:  # who checks types shall find a name that is not there
  from gq_optax._public import *  # noqa: F403
else:

  def __getattr__(name):
    if name == "__all__" or not name.startswith("_"):  # modules of our own find each other by path
      public = vars(importlib.import_module("gq_optax._public"))
      names = {n: value for n, value in public.items() if not n.startswith("_")}
      if name == "__all__" or name in names:
        globals()[name] = value = names.get(name, list(names))
        return value
    raise AttributeError(f"module 'gq_optax' has no attribute {name!r}")

  def __dir__():
    return [*globals(), *__getattr__("__all__")]
