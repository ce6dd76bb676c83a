# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Complete training loops to copy; each runs by `python -m examples.<name>`."""
