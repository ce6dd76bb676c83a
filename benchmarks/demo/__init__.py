# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The first run: `make demo`, about a minute."""
