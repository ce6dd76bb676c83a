# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The paper again: does its transformation do what it reports?"""
