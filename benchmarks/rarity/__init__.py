# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Who finds the rare examples? Weights by rarity beside what else is done about them."""
