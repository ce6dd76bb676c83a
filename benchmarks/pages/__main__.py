# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Every page of evidence, with its tables and plots, out of the results that are kept.

python -m benchmarks.pages
"""

from benchmarks.pages import (
  alternatives_page,
  cost_page,
  examples_page,
  groups_page,
  networks_page,
  optimizers_page,
  options_page,
  questions_page,
  rarity_page,
  results_page,
  safety_page,
  scale_page,
  step_page,
)

if __name__ == "__main__":
  alternatives_page.main()
  examples_page.main()
  options_page.main()
  optimizers_page.main()
  groups_page.main()
  networks_page.main()
  rarity_page.main()
  questions_page.main()
  results_page.main()
  step_page.main()
  safety_page.main()
  scale_page.main()
  cost_page.main()
