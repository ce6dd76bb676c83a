# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The losses and the weights of a batch, as an arm says, and what the weights carry along."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gq_optax.trial.arms import Arm
from gq_optax.trial.embedding import (
  cross_entropy,
  embed,
  embedding_dim,
  examples,
  queue_size,
  scarcity,
)


class Context(NamedTuple):
  """What a loss may know of its batch.

  Attributes:
    labels: int `[B]`.
    kinds: int `[B]`, the true kind of each example, which only the oracle reads.
    importance: float `[B]`, weights from an earlier training (JTT), else 1.
    prior: float `[C]`, class frequencies of the training set.
    num_kinds: of the task.
    key: of this step.
  """

  labels: jax.Array
  kinds: jax.Array
  importance: jax.Array
  prior: jax.Array
  num_kinds: int
  key: jax.Array


def losses(arm: Arm, logits: jax.Array, context: Context) -> jax.Array:
  """The loss of each example, `[B]`."""
  if arm.loss == "logit adjustment":  # Menon et al. 2021, tau = 1
    return cross_entropy(logits + jnp.log(context.prior)[None], context.labels)
  plain = cross_entropy(logits, context.labels)
  if arm.loss == "focal":  # Lin et al. 2017, gamma = 2
    return plain * jnp.square(1.0 - jnp.exp(-plain))
  return plain


def balanced(labels: jax.Array, number: int) -> jax.Array:
  """Weights `[B]` of mean 1 under which all labels present in the batch count the same."""
  counts = jnp.zeros(number).at[labels].add(1.0)
  weights = 1.0 / counts[labels]
  return weights / jnp.mean(weights)


def init_watch(
  arm: Arm, num_features: int, num_classes: int, key: jax.Array, num_examples: int = 2048
) -> Any:
  """The state of the groups or of the examples, nothing seen; None for arms without one."""
  dim = embedding_dim(arm.groups, num_features, num_classes)
  if "examples" in arm.weights:
    size = queue_size(arm.examples, num_examples)
    return examples(arm.examples, size).init(dim)
  if "groups" in arm.weights:
    return scarcity(arm.groups, "cosine", key).init(dim)
  return None


def weigh(
  arm: Arm,
  logits: jax.Array,
  features: jax.Array,
  context: Context,
  watch: Any,
  key: jax.Array,
) -> tuple[jax.Array, Any]:
  """The weight of each example, `[B]` of mean 1, and the state of the groups (or None).

  Args:
    arm: what weighs.
    logits: `[B, C]`.
    features: `[B, d]`, to group by.
    context: of the batch.
    watch: of `init_watch`.
    key: of the run; that of the step is in `context`.
  """
  weights = jnp.ones(len(logits))
  if arm.weights == "class":
    weights = balanced(context.labels, len(context.prior))
  elif arm.weights == "kind":
    weights = balanced(context.kinds, context.num_kinds)
  elif arm.weights == "errors":
    weights = context.importance / jnp.mean(context.importance)
  elif watch is not None:
    if "examples" in arm.weights:
      rare, watch = weigh_examples(arm, logits, features, context, watch)
    else:
      embeddings, metric = embed(arm.groups, logits, features, context.labels)
      rare, watch = scarcity(arm.groups, metric, key).update(embeddings, watch)
    if "shuffled" in arm.weights:  # the same weights, of random members of the batch
      rare = jax.random.permutation(context.key, rare)
    weights = rare
  return weights, watch


def weigh_examples(
  arm: Arm, logits: jax.Array, features: jax.Array, context: Context, watch: Any
) -> tuple[jax.Array, Any]:
  """Weights by the scarcity of examples."""
  rare = examples(arm.examples, len(watch.queue))
  losses = cross_entropy(logits, context.labels) if arm.examples.loss_exponent else None
  embeddings, _ = embed(arm.groups, logits, features, context.labels)
  return rare.update(embeddings, watch, losses=losses)
