# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The public names, nothing else."""

from gq_optax._diagnostics import diagnostics as diagnostics
from gq_optax._diagnostics import state_bytes as state_bytes
from gq_optax._grad_queue.scarcity import ScarcityFn as ScarcityFn
from gq_optax._grad_queue.scarcity import delta_rho as delta_rho
from gq_optax._grad_queue.transform import GradQueueState as GradQueueState
from gq_optax._grad_queue.transform import grad_queue as grad_queue
from gq_optax._group_gradients.clustered import clustered_value_and_grad as clustered_value_and_grad
from gq_optax._group_gradients.group_gradients import GroupGradients as GroupGradients
from gq_optax._group_gradients.grouped import grouped_value_and_grad as grouped_value_and_grad
from gq_optax._group_gradients.noise import noise_scale as noise_scale
from gq_optax._group_gradients.noise import random_groups as random_groups
from gq_optax._group_gradients.noise import suggest_num_clusters as suggest_num_clusters
from gq_optax._group_gradients.per_example import (
  per_example_value_and_grad as per_example_value_and_grad,
)
from gq_optax._losses import adjusted_logits as adjusted_logits
from gq_optax._losses import mean_one as mean_one
from gq_optax._losses import weighted_mean as weighted_mean
from gq_optax._rarity.classes import class_rarity as class_rarity
from gq_optax._rarity.embeddings import output_gradients as output_gradients
from gq_optax._rarity.embeddings import sketch as sketch
from gq_optax._rarity.examples import ExampleScarcityState as ExampleScarcityState
from gq_optax._rarity.examples import example_scarcity as example_scarcity
from gq_optax._rarity.groups import GroupScarcityState as GroupScarcityState
from gq_optax._rarity.groups import group_scarcity as group_scarcity
from gq_optax._rarity.held_out import held_out_rarity as held_out_rarity
from gq_optax._rarity.kmeans import KMeansResult as KMeansResult
from gq_optax._rarity.kmeans import kmeans as kmeans
from gq_optax._sharding import partition_specs as partition_specs
