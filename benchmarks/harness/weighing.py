# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The losses and the weights of a batch, as an arm says, and what the weights carry along."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import gq_optax as gq
from benchmarks.harness.arms import Arm, Examples, Groups

cross_entropy = optax.losses.softmax_cross_entropy_with_integer_labels
DRO_RATE = 0.01  # of group DRO, as in its paper


class Context(NamedTuple):
  """What a loss may know of its batch.

  Attributes:
    labels: int `[B]`.
    kinds: int `[B]`, the true kind of each example, which only the oracles read.
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


def worst_kinds(
  losses: jax.Array, kinds: jax.Array, shares: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Weights `[B]` of mean 1 that lean to the kinds of high loss (group DRO, Sagawa et al. 2020).

  Args:
    losses: `[B]`.
    kinds: int `[B]`, the true ones.
    shares: `[kinds]` of sum 1, what each kind counts.

  Returns:
    The weights, and the shares times `exp(DRO_RATE * mean loss)`, of sum 1.
  """
  sums, counts = (jnp.zeros(len(shares)).at[kinds].add(x) for x in (losses, 1.0))
  shares = jax.nn.softmax(jnp.log(shares) + DRO_RATE * sums / jnp.maximum(counts, 1.0))
  weights = shares[kinds] / counts[kinds]
  return weights / jnp.mean(weights), shares


def embed(groups: Groups, logits: jax.Array, features: jax.Array, labels: jax.Array) -> jax.Array:
  """What tells which examples resemble each other, `[B, d]`."""
  if groups.embedding == "features":
    return features
  residual = gq.output_gradients(cross_entropy, logits, labels)
  if groups.embedding == "output gradients":
    return residual
  # The last layer's gradient of each example is its output gradient times its features.
  unit = residual / jnp.maximum(jnp.linalg.norm(residual, axis=1, keepdims=True), 1e-12)
  return (unit[:, :, None] * features[:, None, :]).reshape(len(unit), -1)


def group_scarcity(groups: Groups, key: jax.Array | int) -> Any:
  """The `gq.group_scarcity` of these options, by direction."""
  return gq.group_scarcity(
    groups.num_groups,
    groups.queue_length,
    exponent=groups.exponent,
    pooling=groups.pooling,
    metric="cosine",
    key=key,
  )


def queue_size(options: Examples, num_examples: int) -> int:
  """Half an epoch at most: a copy of an example from the last epoch would be its neighbour."""
  return max(1, min(options.queue_size, num_examples // 2))


def example_scarcity(options: Examples, size: int) -> Any:
  """The `gq.example_scarcity` of these options, with a queue of this size."""
  return gq.example_scarcity(
    size,
    bandwidth=options.bandwidth,
    neighbours=options.neighbours,
    exponent=options.exponent,
    loss_exponent=options.loss_exponent,
    max_weight=options.max_weight,
  )


def init_state(
  arm: Arm,
  num_features: int,
  num_classes: int,
  key: jax.Array,
  num_examples: int = 2048,
  num_kinds: int = 1,
) -> Any:
  """What the weights carry from step to step, nothing seen; None if nothing.

  That is the state of the groups or of the queue of examples, or what the kinds count (group DRO).
  An epoch has `num_examples`.
  """
  if arm.weights == "worst kinds":
    return jnp.full(num_kinds, 1.0 / num_kinds)
  dim = {
    "features": num_features,
    "output gradients": num_classes,
    "last layer": num_features * num_classes,
  }[arm.groups.embedding]
  if "examples" in arm.weights:
    return example_scarcity(arm.examples, queue_size(arm.examples, num_examples)).init(dim)
  if "groups" in arm.weights:
    return group_scarcity(arm.groups, key).init(dim)
  return None


def weigh(
  arm: Arm, logits: jax.Array, features: jax.Array, context: Context, state: Any, key: jax.Array
) -> tuple[jax.Array, Any]:
  """The weight of each example, `[B]` of mean 1, and the state after it.

  Args:
    arm: what weighs.
    logits: `[B, C]`.
    features: `[B, d]`.
    context: of the batch.
    state: of `init_state`.
    key: of the run; that of the step is in `context`.
  """
  weights = jnp.ones(len(logits))
  if arm.weights == "class":
    weights = balanced(context.labels, len(context.prior))
  elif arm.weights == "kind":
    weights = balanced(context.kinds, context.num_kinds)
  elif arm.weights == "errors":
    weights = context.importance / jnp.mean(context.importance)
  elif arm.weights == "worst kinds":
    each = jax.lax.stop_gradient(cross_entropy(logits, context.labels))
    weights, state = worst_kinds(each, context.kinds, state)
  elif state is not None:
    embeddings = embed(arm.groups, logits, features, context.labels)
    if "examples" in arm.weights:
      rare = example_scarcity(arm.examples, len(state.queue))
      each = cross_entropy(logits, context.labels) if arm.examples.loss_exponent else None
      weights, state = rare.update(embeddings, state, losses=each)
    else:
      weights, state = group_scarcity(arm.groups, key).update(embeddings, state)
    if "shuffled" in arm.weights:  # the same weights, of random members of the batch
      weights = jax.random.permutation(context.key, weights)
  if arm.groups.ramp > 0.0:  # as deferred re-weighting does (Cao et al. 2019), without the jump
    weights = weights ** jnp.minimum(1.0, context.progress / arm.groups.ramp)
    weights = weights / jnp.mean(weights)
  return weights, state
