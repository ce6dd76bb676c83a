# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What was measured, by purpose: paper, cost, rarity, demo; pages writes the tables."""
