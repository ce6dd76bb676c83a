# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""gq-trial: would scarcity help on my own data? An A/B trial that ends in a report.

Read in this order:

- `command`: from the options to the report; `runs`: one run for every arm, rate and seed.
- `own_data`: the user's arrays; `splits`: who is trained on and tested; `identity`: what is kept.
- `arms`: what is compared; `weighing`: losses and weights for examples (`embedding`); `optimizers`.
- `training`: one run as a pure function; `networks` and `models`: what is trained.
- `uncertainty`: intervals and verdicts; `comparison`: who is held against whom.
- `reading`: recall, precision, false alarms; `rarity`: rare examples where no kinds are named.
- `sentences` and `page`: the report; `report` and `tables`: its plot and tables.
- `data`, `recipes`, `tasks`: public sets; `protocol`: rates; `timing`: of a step.

The extra `trial` installs what is needed here. The core never imports it.
"""
