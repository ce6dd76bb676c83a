# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The losses and the weights of a batch, as an arm says, and what the weights carry along."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import gq_optax as gq
from benchmarks.harness import dro, tempering
from benchmarks.harness.arms import Arm
from benchmarks.harness.embedding import (
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
    progress: float32 `[]`, the part of the training that is over.
  """

  labels: jax.Array
  kinds: jax.Array
  importance: jax.Array
  prior: jax.Array
  num_kinds: int
  key: jax.Array
  progress: jax.Array


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


class Watch(NamedTuple):
  """What the groups, or the queue of examples, of a run carry from step to step.

  Attributes:
    first: of `Arm.groups`; of example scarcity; or the shares of the kinds `[kinds]` (group DRO).
    second: of `Arm.second`, or None.
    memory: of "recurrence", or None.
  """

  first: Any
  second: gq.GroupScarcityState | None
  memory: tempering.Memory | None


def init_watch(
  arm: Arm,
  num_features: int,
  num_classes: int,
  key: jax.Array,
  num_examples: int = 2048,
  num_kinds: int = 1,
) -> Watch | None:
  """Nothing seen; None for arms without a state. An epoch has `num_examples`."""
  if arm.weights == "worst kinds":
    return Watch(jnp.full(num_kinds, 1.0 / num_kinds), None, None)
  dim = lambda g: embedding_dim(g, num_features, num_classes)
  if "examples" in arm.weights:
    size = queue_size(arm.examples, num_examples)
    return Watch(examples(arm.examples, size).init(dim(arm.groups)), None, None)
  if "groups" not in arm.weights:
    return None
  state = lambda g: scarcity(g, "cosine", key).init(dim(g))
  memory = None
  if arm.groups.temper == "recurrence":
    memory = tempering.init_memory(arm.groups.num_groups, num_classes, num_features)
  return Watch(state(arm.groups), None if arm.second is None else state(arm.second), memory)


def weigh(
  arm: Arm,
  logits: jax.Array,
  features: jax.Array,
  context: Context,
  watch: Watch | None,
  key: jax.Array,
) -> tuple[jax.Array, Watch | None]:
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
  elif arm.weights == "worst kinds" and watch is not None:
    each = jax.lax.stop_gradient(cross_entropy(logits, context.labels))
    weights, shares = dro.worst_kinds(each, context.kinds, watch.first)
    watch = watch._replace(first=shares)
  elif arm.weights == "errors":
    weights = context.importance / jnp.mean(context.importance)
  elif watch is not None:
    if "examples" in arm.weights:
      rare, watch = weigh_examples(arm, logits, features, context, watch)
    else:
      rare, watch = weigh_groups(arm, logits, features, context, watch, key)
    if "shuffled" in arm.weights:  # the same weights, of random members of the batch
      weights = jax.random.permutation(context.key, rare)
    elif arm.weights in ("groups", "examples"):  # those of "shares of groups" set rho alone
      weights = rare
  if arm.groups.ramp > 0.0:  # as deferred re-weighting does (Cao et al. 2019), without the jump
    weights = tempering.temper(weights, jnp.minimum(1.0, context.progress / arm.groups.ramp))
  return weights, watch


def weigh_examples(
  arm: Arm,
  logits: jax.Array,
  features: jax.Array,
  context: Context,
  watch: Watch,
) -> tuple[jax.Array, Watch]:
  """Weights by the scarcity of examples."""
  rare = examples(arm.examples, len(watch.first.queue))
  losses = cross_entropy(logits, context.labels) if arm.examples.loss_exponent else None
  embeddings, _ = embed(arm.groups, logits, features, context.labels)
  weights, state = rare.update(embeddings, watch.first, losses=losses)
  return weights, Watch(state, None, None)


def weigh_groups(
  arm: Arm,
  logits: jax.Array,
  features: jax.Array,
  context: Context,
  watch: Watch,
  key: jax.Array,
) -> tuple[jax.Array, Watch]:
  """Weights by the scarcity of groups, tempered if the arm says so."""
  groups = arm.groups
  embeddings, metric = embed(groups, logits, features, context.labels)
  weights, first = scarcity(groups, metric, key).update(embeddings, watch.first)
  second, memory = watch.second, watch.memory
  if arm.second is not None:
    others, metric_of_second = embed(arm.second, logits, features, context.labels)
    more, second = scarcity(arm.second, metric_of_second, key).update(others, watch.second)
    weights = tempering.temper(weights * more, jnp.float32(1.0))
  if groups.temper != "none":
    member = tempering.membership(embeddings, first.centroids, metric)
    residuals = gq.output_gradients(cross_entropy, logits, context.labels)
    mean, square, size = tempering.mean_gradients(member, residuals, features)
    if groups.temper == "coherence":
      trust = tempering.coherence(mean, square, size)
    elif memory is not None:
      trust, memory = tempering.recurrence(mean, size, memory)
    weights = tempering.temper(weights, tempering.confidence(trust, size) @ member)
  if groups.entropy_factor > 0.0:
    found = tempering.entropy_exponent(tempering.frequencies(first), groups.entropy_factor)
    weights = tempering.temper(weights, found)
  return weights, Watch(first, second, memory)
