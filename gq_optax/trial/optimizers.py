# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The optimizer of an arm: optax's own, behind Grad Queue or not, with cosine decay to 0."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gq_optax as gq

RHO, QUEUE_LENGTH = 3.0, 3
SAM_RADIUS = 0.05
WEIGHT_DECAY = 0.01  # of AdamW; PyTorch's default, a hundred times that of optax
# Grids double, and grow until the best rate lies inside.
RATES = {
  "sgd": (0.03, 0.06, 0.12, 0.24, 0.48),
  "nesterov": (0.03, 0.06, 0.12, 0.24, 0.48),
  "sam": (0.03, 0.06, 0.12, 0.24, 0.48),
  "adam": (0.0005, 0.001, 0.002, 0.004, 0.008),
  "adamw": (0.0005, 0.001, 0.002, 0.004, 0.008),
  "lamb": (0.005, 0.01, 0.02, 0.04, 0.08),
  "muon": (0.005, 0.01, 0.02, 0.04, 0.08),
}


def base(
  name: str, rate: jax.Array, steps: int, decay: bool = True
) -> optax.GradientTransformationExtraArgs:
  """An optimizer of `RATES` by its name.

  Args:
    name: "sgd" (momentum .9), "nesterov", "sam" (Foret et al. 2021, around "sgd"; its update takes
      `grad_fn=`), "adam", "adamw" (decay .01), "lamb" or "muon".
    rate: float32 `[]`, the first learning rate.
    steps: after which the rate has come down to 0.
    decay: False keeps the rate.
  """
  cosine = lambda step: 0.5 + 0.5 * jnp.cos(step.astype(jnp.float32) * (math.pi / steps))
  schedule = lambda step: rate * (cosine(step) if decay else 1.0)
  sgd = optax.sgd(schedule, momentum=0.9, nesterov=name == "nesterov")
  if name in ("sgd", "nesterov"):
    return optax.with_extra_args_support(sgd)
  if name == "sam":
    climb = optax.chain(optax.contrib.normalize(), optax.sgd(SAM_RADIUS))
    return optax.contrib.sam(sgd, climb, sync_period=2, opaque_mode=True)
  makers: dict[str, Any] = {
    "adam": optax.adam,
    "adamw": functools.partial(optax.adamw, weight_decay=WEIGHT_DECAY),
    "lamb": optax.lamb,
    "muon": optax.contrib.muon,
  }
  return optax.with_extra_args_support(makers[name](schedule))


def shuffled(g: jax.Array, mean: jax.Array, std: jax.Array) -> jax.Array:
  """The weights of Delta_rho, each given to another coordinate of its array: a control."""
  weights = gq.delta_rho(g, mean, std, RHO)
  order = np.random.RandomState(g.size % 2**32).permutation(g.size)
  return weights.reshape(-1)[order].reshape(g.shape)


def queue(
  *, match: bool, rho: jax.typing.ArrayLike = RHO, shuffle: bool = False
) -> optax.GradientTransformationExtraArgs:
  """Coordinate scarcity as in the paper; `match` keeps the norm of the raw mean gradient."""
  return gq.grad_queue(
    QUEUE_LENGTH,
    rho,
    scarcity=shuffled if shuffle else None,
    update_norm="match" if match else None,
  )
