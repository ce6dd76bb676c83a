# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The networks that cost and quality are measured on."""

import flax.linen as nn
import jax


class CNN(nn.Module):
  """Three convolutions and a dense layer; 188,810 parameters on 32x32x3 images, 10 classes."""

  num_classes: int = 10

  @nn.compact
  def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the logits `[B, classes]` and the features of the dense layer `[B, 128]`."""
    for width in (32, 64, 64):
      x = nn.max_pool(nn.relu(nn.Conv(width, (3, 3))(x)), (2, 2), (2, 2))
    features = nn.relu(nn.Dense(128)(x.reshape(x.shape[0], -1)))
    return nn.Dense(self.num_classes)(features), features
