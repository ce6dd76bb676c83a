# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Grad Queue (arXiv 2404.16917) for JAX and Optax: rare training signals made to count."""

from gq_optax._coordinates.alias import gq_adam, gq_sgd
from gq_optax._coordinates.transform import GradQueueState, grad_queue
from gq_optax._coordinates.weights import (
  ScarcityFn,
  delta_rho,
  identity,
  surprisal,
  tail_probability,
  z_score,
)
from gq_optax._diagnostics import diagnostics, state_bytes
from gq_optax._gradients.clustered import clustered_value_and_grad
from gq_optax._gradients.grouped import grouped_value_and_grad
from gq_optax._gradients.noise import (
  NoiseScale,
  gradient_diversity,
  noise_scale,
  random_groups,
  suggest_num_clusters,
)
from gq_optax._gradients.per_example import largest_microbatch_size, per_example_value_and_grad
from gq_optax._group_gradients import GroupGradients
from gq_optax._margins import adjusted_logits, margin_loss
from gq_optax._rarity.classes import class_rarity
from gq_optax._rarity.embeddings import output_gradients, sketch
from gq_optax._rarity.examples import ExampleScarcity, ExampleScarcityState, example_scarcity
from gq_optax._rarity.explain import (
  ExampleExplanation,
  GroupExplanation,
  explain_examples,
  explain_groups,
)
from gq_optax._rarity.groups import GroupScarcity, GroupScarcityState, group_scarcity
from gq_optax._rarity.held_out import held_out_rarity
from gq_optax._rarity.kmeans import KMeansResult, kmeans
from gq_optax._resize import resize_queue
from gq_optax._sharding import partition_specs

__version__ = "0.1.0"

__all__ = [
  "ExampleExplanation",
  "ExampleScarcity",
  "ExampleScarcityState",
  "GradQueueState",
  "GroupExplanation",
  "GroupGradients",
  "GroupScarcity",
  "GroupScarcityState",
  "KMeansResult",
  "NoiseScale",
  "ScarcityFn",
  "adjusted_logits",
  "class_rarity",
  "clustered_value_and_grad",
  "delta_rho",
  "diagnostics",
  "example_scarcity",
  "explain_examples",
  "explain_groups",
  "gq_adam",
  "gq_sgd",
  "grad_queue",
  "gradient_diversity",
  "group_scarcity",
  "grouped_value_and_grad",
  "held_out_rarity",
  "identity",
  "kmeans",
  "largest_microbatch_size",
  "margin_loss",
  "noise_scale",
  "output_gradients",
  "partition_specs",
  "per_example_value_and_grad",
  "random_groups",
  "resize_queue",
  "sketch",
  "state_bytes",
  "suggest_num_clusters",
  "surprisal",
  "tail_probability",
  "z_score",
]
