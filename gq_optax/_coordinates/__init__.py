# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""How unusual is this coordinate's gradient? The gradient transformation of the paper.

Read in this order:

- `transform`: `grad_queue` itself, one step from update to update.
- `forms`: a mean gradient, gradients of single examples and of groups, all brought into one form;
  `clusters` groups the gradients of single examples first.
- `queue`: the last L raw gradients, their mean and deviation; `adaptive_length`: how many of them.
- `weights`: from gradient, mean and deviation to a weight; `leaf`: all of that for one parameter.
- `norms` and `figures`: what the whole update may measure, and what `diagnostics` reads.
- `compatible`: was a state made with these options?
"""
