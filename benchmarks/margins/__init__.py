# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What makes rare examples count in a network that fits every example?"""
