# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Trials and measurements of gq_optax; each module runs by `python -m benchmarks.<name>`."""
