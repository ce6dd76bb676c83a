# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""How rare is this example? Weights for the examples of a batch, to multiply their losses by.

Read in this order:

- `embeddings`: what describes an example: the gradient of its outputs, or a sketch of its gradient.
- `classes`: `class_rarity`, by the count of a class that is known.
- `held_out`: `held_out_rarity`, by the loss of a network that never saw the example.
- `examples`: `example_scarcity`, weights by how few of the recent examples resemble this one.
- `density`: what it is made of, a kernel against the queue and the batch itself.
- `groups`: `group_scarcity`, groups kept from step to step and weights by how rare a group is.
- `kmeans`: the same groups for one batch alone, as the paper has them.
- `lloyd`: what both are made of, seeding and one iteration.
- `checks`: what comes in: embeddings as rows `[B, d]`, first centroids, states.
- `explain`: what stands for each group, and the rarest examples, for a person to see.

`_grad_queue` and `_group_gradients` use only `kmeans` and `embeddings` from here.
"""
