# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""By what an arm tells which examples resemble each other, and what counts them."""

from __future__ import annotations

import dataclasses

import jax
import optax

import gq_optax as gq

cross_entropy = optax.losses.softmax_cross_entropy_with_integer_labels


@dataclasses.dataclass(frozen=True)
class Groups:
  """The options of `gq.group_scarcity`, and what is grouped."""

  embedding: str = "features"  # or "output gradients"
  num_groups: int = 10
  queue_length: int = 5
  exponent: float = 1.0
  pooling: float = 0.0


@dataclasses.dataclass(frozen=True)
class Examples:
  """The options of `gq.example_scarcity`, with its defaults."""

  queue_size: int = 1024
  bandwidth: float = 0.2
  neighbours: float = 8.0
  exponent: float = 1.0
  loss_exponent: float = 0.0
  max_weight: float = 50.0


def embed(
  groups: Groups, logits: jax.Array, features: jax.Array, labels: jax.Array
) -> tuple[jax.Array, str]:
  """What is grouped, and the metric."""
  if groups.embedding == "features":
    return features, "cosine"
  return gq.output_gradients(cross_entropy, logits, labels), "cosine"


def embedding_dim(groups: Groups, num_features: int, num_classes: int) -> int:
  """The length of what `embed` returns."""
  return num_features if groups.embedding == "features" else num_classes


def scarcity(groups: Groups, metric: str, key: jax.Array | int) -> gq.GroupScarcity:
  """The `gq.group_scarcity` of these options."""
  return gq.group_scarcity(
    groups.num_groups,
    groups.queue_length,
    exponent=groups.exponent,
    pooling=groups.pooling,
    metric=metric,
    key=key,
  )


def queue_size(options: Examples, num_examples: int) -> int:
  """Half an epoch at most: a copy of an example from the last epoch would be its neighbour."""
  return max(1, min(options.queue_size, num_examples // 2))


def examples(options: Examples, size: int) -> gq.ExampleScarcity:
  """The `gq.example_scarcity` of these options, with a queue of this size."""
  return gq.example_scarcity(
    size,
    bandwidth=options.bandwidth,
    neighbours=options.neighbours,
    exponent=options.exponent,
    loss_exponent=options.loss_exponent,
    max_weight=options.max_weight,
  )
