# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""gq-trial: which of my rows fail, and what helps?

Before JAX: `command` and its options; `rows`, what people have; `sight`, what a trial could show;
`splits`, who is tested by whom; `kinds`, what a person named; `arms`, what is compared.

Trained: `course`, from rows to report; `runs`, an arm from its rates to its answers; `training`,
many networks side by side; `networks`; `detectors`, linear models of named kinds.

Told: `uncertainty`, intervals; `comparison`, verdicts in words; `alarms`, recall at false alarms;
`failing`, rows that fail alike; `descriptors`, features that nobody trained; `page`, the report;
`scoring`, new rows.

The extra `trial` installs what is needed here. The core never imports it.
"""
