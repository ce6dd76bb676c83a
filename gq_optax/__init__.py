# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Grad Queue (arXiv 2404.16917) for JAX and Optax: rare training signals made to count.

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
      public = importlib.import_module("gq_optax._public")
      if name in ("__all__", *public.__all__):
        globals()[name] = value = getattr(public, name)
        return value
    raise AttributeError(f"module 'gq_optax' has no attribute {name!r}")

  def __dir__():
    return [*globals(), *importlib.import_module("gq_optax._public").__all__]
