# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""gq-trial: would scarcity help on my own data? An A/B trial that ends in a report.

Read in this order:

- `command`: from the options to the report; `runs`: one run for every arm, rate and seed.
- `arms`: what is compared: losses, weights for examples, optimizers (`optimizers`, `tempering`).
- `training`: one run as a pure function; `networks` and `models`: what is trained.
- `own_data`: the user's arrays; `data` and `data_sources`: public sets by name.
- `recipes` and `tasks`: splits, long tails, hidden kinds, label noise.
- `protocol`: how a rate is chosen and two arms are compared; `timing`: what a step costs.
- `report`, `tables` and `records`: what is written down.

The extra `trial` installs what is needed here. The core never imports it.
"""
