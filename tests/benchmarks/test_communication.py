# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Bytes that devices send, counted in compiled programs."""

from benchmarks.cost import communication

HLO = """
%body (p: f32[4]) -> f32[4] {
  %r = (f32[4]{0}, s32[]) all-reduce(%p, %q), to_apply=%add
}

ENTRY %main (a: f32[8]) -> f32[8] {
  %g = f32[8,2]{1,0} all-gather(%a), dimensions={0}
  %w = f32[4] while(%g), condition=%c, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  %v = f32[4] while(%g), condition=%c, body=%body
}
"""


def test_bytes_sent_by_hand():
  kinds, unknown = communication.sent(HLO)
  assert kinds == {"all-gather": 64, "all-reduce": 20 * 5 + 20}
  assert unknown == 1
