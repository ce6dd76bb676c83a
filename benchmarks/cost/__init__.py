# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What does a step cost, as a ratio to the plain one of the same run?"""
