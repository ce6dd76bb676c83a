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
  "scaled": (0.0005, 0.001, 0.002, 0.004, 0.008),
}
# The decays that a trial chooses from; of about the same reach, times the rates above.
DECAYS = {
  "sgd": (0.0, 0.003, 0.03),
  "adamw": (0.0, 0.3, 3.0),
  "muon": (0.0, 0.03, 0.3),
  "scaled": (0.0, 0.1, 1.0),
}


def base(
  name: str, rate: jax.Array, steps: int, weight_decay: jax.typing.ArrayLike | None = None
) -> optax.GradientTransformationExtraArgs:
  """An optimizer of `RATES` by its name.

  Args:
    name: "sgd" (momentum .9), "nesterov", "sam" (Foret et al. 2021, around "sgd"; its update takes
      `grad_fn=`), "adam", "adamw", "lamb", "muon" (Adam for all that is no matrix, see `as_matrix`)
      or "scaled" ("sgd" with the step of each array scaled to a root mean square of 1).
    rate: float32 `[]`, the first learning rate.
    steps: after which the rate has come down to 0.
    weight_decay: each step takes the rate times this part off all parameters, whatever the
      gradient; may be traced. None: .01 for "adamw", else 0. For the names in `DECAYS`.

  Raises:
    ValueError: if there is a weight decay and the optimizer takes none.
  """
  if weight_decay is not None and name not in DECAYS:
    raise ValueError(
      f"weight_decay must be None for {name!r}, but {weight_decay} was found. Optimizers that take"
      f" one: {', '.join(DECAYS)}."
    )
  cosine = lambda step: 0.5 + 0.5 * jnp.cos(step.astype(jnp.float32) * (math.pi / steps))
  schedule = lambda step: rate * cosine(step)
  if name == "scaled" or (name == "sgd" and weight_decay is not None):
    length = one_length() if name == "scaled" else optax.identity()
    fade = optax.add_decayed_weights(0.0 if weight_decay is None else weight_decay)
    parts = optax.trace(0.9), length, fade, optax.scale_by_learning_rate(schedule)
    return optax.with_extra_args_support(optax.chain(*parts))
  sgd = optax.sgd(schedule, momentum=0.9, nesterov=name == "nesterov")
  if name in ("sgd", "nesterov"):
    return optax.with_extra_args_support(sgd)
  if name == "sam":
    climb = optax.chain(optax.contrib.normalize(), optax.sgd(SAM_RADIUS))
    return optax.contrib.sam(sgd, climb, sync_period=2, opaque_mode=True)
  part = 0.0 if weight_decay is None else weight_decay
  makers: dict[str, Any] = {
    "adam": optax.adam,
    "adamw": functools.partial(
      optax.adamw, weight_decay=WEIGHT_DECAY if weight_decay is None else weight_decay
    ),
    "lamb": optax.lamb,
    "muon": functools.partial(
      optax.contrib.muon,
      weight_decay=part,
      adam_weight_decay=part,
      muon_weight_dimension_numbers=lambda params: jax.tree.map(as_matrix, params),
    ),
  }
  return optax.with_extra_args_support(makers[name](schedule))


def as_matrix(kernel: jax.Array) -> optax.contrib.MuonDimensionNumbers | None:
  """A matrix as it is; a kernel over images as all its inputs, at each place, by its outputs.

  By itself `optax.contrib.muon` takes arrays of two dimensions alone, and leaves kernels to Adam.
  """
  if kernel.ndim not in (2, 4):
    return None
  return optax.contrib.MuonDimensionNumbers(tuple(range(kernel.ndim - 1)), kernel.ndim - 1)


def one_length() -> optax.GradientTransformation:
  """Scales every array of the updates to a root mean square of 1, each on its own."""

  def scaled(update: jax.Array) -> jax.Array:
    length = jnp.maximum(jnp.linalg.norm(update), 1e-12)  # where nothing was learnt, no step
    return update * (math.sqrt(update.size) / length)

  return optax.stateless(lambda updates, _: jax.tree.map(scaled, updates))


def shuffled(g: jax.Array, mean: jax.Array, std: jax.Array) -> jax.Array:
  """The weights of Delta_rho, each given to another coordinate of its array: a control."""
  weights = gq.delta_rho(g, mean, std, RHO)
  order = np.random.RandomState(g.size % 2**32).permutation(g.size)
  return weights.reshape(-1)[order].reshape(g.shape)


def queue(*, match: bool, shuffle: bool = False) -> optax.GradientTransformationExtraArgs:
  """Coordinate scarcity as in the paper; `match` keeps the norm of the raw mean gradient."""
  return gq.grad_queue(
    QUEUE_LENGTH,
    RHO,
    scarcity=shuffled if shuffle else None,
    update_norm="match" if match else None,
  )
