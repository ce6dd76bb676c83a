# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Every page of evidence, with its tables and plots, out of the results that are kept."""

from benchmarks.pages import exhibits, writer

if __name__ == "__main__":
  writer.write(exhibits.ALL)
