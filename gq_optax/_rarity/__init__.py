# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""How rare is this example? Weights for the examples of a batch, to multiply their losses by.

Read in this order:

- `embeddings`: what describes an example: the gradient of its outputs, or a sketch of its gradient.
- `classes`: `class_rarity`, by the count of a class that is known.
- `held_out`: `held_out_rarity`, by the loss of a network that never saw the example.
- `examples`: `example_scarcity`, weights by how few of the recent examples resemble this one.
- `recent`, `density`: its queue; a kernel against it, and weights of mean 1 within bounds.
- `groups`: `group_scarcity`, groups kept from step to step and weights by how rare a group is.
- `kmeans`: the same groups for one batch alone, as the paper has them.
- `lloyd`: what both are made of, seeding and one iteration.
- `rows`: embeddings at the entrance, as `[B, d]`.
- `explain`: the examples that stand for each group, for a person to see.

The other rooms may use K-means and embeddings from here, and nothing else.
"""
