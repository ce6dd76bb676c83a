# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The networks that cost and quality are measured on; each returns logits and features."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


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


class MLP(nn.Module):
  """Dense hidden layers; 784-256-256-10 has 269,322 parameters, 10,000-512-46 has 5,144,110."""

  widths: tuple[int, ...] = (256, 256)
  num_classes: int = 10

  @nn.compact
  def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the logits `[B, classes]` and the features of the last hidden layer."""
    for width in self.widths:
      x = nn.relu(nn.Dense(width)(x))
    return nn.Dense(self.num_classes)(x), x


class Encoder(nn.Module):
  """A transformer encoder over token ids, with the mean over positions classified.

  It computes in `dtype`, except for the features and logits; None: in that of the parameters.
  """

  layers: int = 2
  width: int = 128
  heads: int = 4
  vocabulary: int = 1000
  num_classes: int = 10
  dtype: Any = None

  @nn.compact
  def __call__(self, ids: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the logits `[B, classes]` and the pooled features `[B, width]`."""
    place = self.param("place", nn.initializers.normal(0.02), (1, ids.shape[1], self.width))
    x, dtype = nn.Embed(self.vocabulary, self.width)(ids) + place, self.dtype
    x = x if dtype is None else x.astype(dtype)
    for _ in range(self.layers):
      y = nn.LayerNorm(dtype=dtype)(x)
      x = x + nn.MultiHeadDotProductAttention(self.heads, dtype=dtype)(y)
      y = nn.gelu(nn.Dense(4 * self.width, dtype=dtype)(nn.LayerNorm(dtype=dtype)(x)))
      x = x + nn.Dense(self.width, dtype=dtype)(y)
    features = jnp.mean(nn.LayerNorm()(x), axis=1)
    return nn.Dense(self.num_classes)(features), features


class SmallCNN(nn.Module):
  """Three convolutions of stride 2 and a dense layer; 154,698 parameters on 32x32x3 images."""

  num_classes: int = 10

  @nn.compact
  def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the logits `[B, classes]` and the features of the dense layer `[B, 128]`."""
    for width in (16, 32, 64):
      x = nn.relu(nn.Conv(width, (3, 3), strides=(2, 2))(x))
    features = nn.relu(nn.Dense(128)(x.reshape(x.shape[0], -1)))
    return nn.Dense(self.num_classes)(features), features


class WideResNet(nn.Module):
  """WRN-16-4 with GroupNorm on 32x32x3 images; two blocks in each of three stages."""

  width: int = 4
  blocks: int = 2
  num_classes: int = 10
  dtype: Any = jnp.bfloat16

  @nn.compact
  def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the logits `[B, classes]` and the pooled features, both float32."""
    norm = lambda x: nn.relu(nn.GroupNorm(8, dtype=self.dtype)(x))
    x = nn.Conv(16, (3, 3), dtype=self.dtype)(x.astype(self.dtype))
    for stage in range(3):
      for block in range(self.blocks):
        strides = (2, 2) if stage and block == 0 else (1, 1)
        channels = 16 * 2**stage * self.width
        y = norm(x)
        if strides != (1, 1) or x.shape[-1] != channels:
          x = nn.Conv(channels, (1, 1), strides, dtype=self.dtype)(y)
        y = norm(nn.Conv(channels, (3, 3), strides, dtype=self.dtype)(y))
        x = x + nn.Conv(channels, (3, 3), dtype=self.dtype)(y)
    features = jnp.mean(norm(x), axis=(1, 2)).astype(jnp.float32)
    return nn.Dense(self.num_classes)(features), features
