# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Tables and plots of the documentation, out of the results that are kept.

`python -m benchmarks.pages` writes all of them. `exhibits` says what is shown, `writer` writes it,
`plots` draws it.
"""
