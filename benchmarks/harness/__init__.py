# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What the benchmarks share: data, tasks, networks, ways to weigh, training, records."""
