# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""How unusual is this coordinate's gradient? The gradient transformation of the paper.

Read in this order:

- `transform`: `grad_queue` itself, one step from update to update; which form an update has, and
  whether the state fits.
- `clusters`: gradients of single examples become those of K clusters.
- `queue`: the last L raw gradients, their mean and deviation; `adaptive_length`: how many of them.
- `scarcity`: from gradient, mean and deviation to a weight, and to the weighted update.
- `norms` and `figures`: what the whole update may measure, and what `diagnostics` reads.
"""
