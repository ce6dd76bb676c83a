# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The mean gradient of each of K groups of a batch, and what can be told from such gradients.

Read in this order:

- `group_gradients`: what comes out, and how K gradients are added up.
- `grouped`: groups that are known.
- `linear`: examples run forward and back, with the sums over examples left open.
- `blocks`: a batch cut into blocks of one group each, and those sums over each group.
- `products`: a convolution as products, of which many blocks at once are no burden.
- `jaxprs`: programs of JAX taken apart, which `linear` needs.
- `clustered`: the whole way from a batch to the gradients of its clusters.
- `per_example`: the gradient of every example, or the groups', a few at a time.
- `checks`: what a loss function of single examples must take and return; a label out of range
  becomes K, which is no group.
- `noise`: how noisy is the gradient of a batch, and how many groups are worth having?
"""

from gq_optax._group_gradients.group_gradients import *  # noqa: F403  # what the queue uses
