# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The mean gradient of each of K groups of a batch, and what can be told from such gradients.

Read in this order:

- `grouped`: groups that are known, and the whole way with K-means inside.
- `blocks`: a batch sorted and cut into blocks of one group each; `reuse`: one forward pass for all.
- `per_example`: the gradient of every example, a few at a time.
- `checks`: what a loss function of single examples must return.
- `noise`: how noisy is the gradient of a batch, and how many groups are worth having?
"""
