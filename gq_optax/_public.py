# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The public names, nothing else."""

from gq_optax._diagnostics import diagnostics, state_bytes
from gq_optax._grad_queue.scarcity import ScarcityFn, delta_rho
from gq_optax._grad_queue.transform import GradQueueState, grad_queue
from gq_optax._group_gradients.clustered import clustered_value_and_grad
from gq_optax._group_gradients.group_gradients import GroupGradients
from gq_optax._group_gradients.grouped import grouped_value_and_grad
from gq_optax._group_gradients.noise import noise_scale, random_groups, suggest_num_clusters
from gq_optax._group_gradients.per_example import per_example_value_and_grad
from gq_optax._losses import adjusted_logits, mean_one, weighted_mean
from gq_optax._rarity.classes import class_rarity
from gq_optax._rarity.embeddings import output_gradients, sketch
from gq_optax._rarity.examples import ExampleScarcityState, example_scarcity
from gq_optax._rarity.groups import GroupScarcityState, group_scarcity
from gq_optax._rarity.held_out import held_out_rarity
from gq_optax._rarity.kmeans import KMeansResult, kmeans
from gq_optax._sharding import partition_specs

__all__ = [
  "ExampleScarcityState",
  "GradQueueState",
  "GroupGradients",
  "GroupScarcityState",
  "KMeansResult",
  "ScarcityFn",
  "adjusted_logits",
  "class_rarity",
  "clustered_value_and_grad",
  "delta_rho",
  "diagnostics",
  "example_scarcity",
  "grad_queue",
  "group_scarcity",
  "grouped_value_and_grad",
  "held_out_rarity",
  "kmeans",
  "mean_one",
  "noise_scale",
  "output_gradients",
  "partition_specs",
  "per_example_value_and_grad",
  "random_groups",
  "sketch",
  "state_bytes",
  "suggest_num_clusters",
  "weighted_mean",
]
