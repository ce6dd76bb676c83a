# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The ways to train that are compared: a loss, weights for the examples, an optimizer."""

from __future__ import annotations

import dataclasses
import difflib
import math
from typing import Any

import jax
import optax

from gq_optax.trial import optimizers
from gq_optax.trial.embedding import Examples, Groups


@dataclasses.dataclass(frozen=True)
class Arm:
  """One way to train."""

  loss: str = "cross-entropy"  # or "focal", "logit adjustment"
  # Or "class", "kind", "errors", "groups", "examples"; "shuffled groups", "shuffled examples".
  weights: str = "none"
  groups: Groups = Groups()
  examples: Examples = Examples()
  optimizer: str = "sgd"  # see `optimizers.RATES`
  weight_decay: Any = None  # see `optimizers.base`; a number, also a traced one
  queue: bool = False  # Delta_rho before the optimizer
  match: bool = True  # brought back to the norm of the mean gradient; the paper does not
  clusters: str = "none"  # or "features", "random": B / 64 groups, each weighted, as in the paper
  shuffle: bool = False  # the weights dealt to other coordinates


FEATURES = Groups("features")
OUTPUTS = Groups("output gradients")
POOLED = Groups("features", num_groups=20, pooling=0.5)

ARMS = {
  "SGDM": Arm(),
  "Adam": Arm(optimizer="adam"),
  "AdamW": Arm(optimizer="adamw"),
  "focal loss": Arm(loss="focal"),
  "class weights": Arm(weights="class"),
  "logit adjustment": Arm(loss="logit adjustment"),
  "JTT": Arm(weights="errors"),
  "random groups": Arm(weights="shuffled groups"),
  "group scarcity, features": Arm(weights="groups"),
  "group scarcity, features, pooled": Arm(weights="groups", groups=POOLED),
  "group scarcity, features, pooled, Delta_rho": Arm(weights="groups", groups=POOLED, queue=True),
  "group scarcity, outputs": Arm(weights="groups", groups=OUTPUTS),
  "group scarcity, outputs, Delta_rho": Arm(weights="groups", groups=OUTPUTS, queue=True),
  # Where kinds are learnt already they should not count: that is what the losses are for.
  "example scarcity, features": Arm(
    weights="examples", examples=Examples(bandwidth=0.25, loss_exponent=0.5)
  ),
  "example scarcity, outputs": Arm(weights="examples", groups=OUTPUTS),
  "Delta_rho": Arm(queue=True),
  "true kinds (oracle)": Arm(weights="kind"),
  "Nesterov": Arm(optimizer="nesterov"),
  "LAMB": Arm(optimizer="lamb"),
  "Muon": Arm(optimizer="muon"),
  "SGDM, one length": Arm(optimizer="scaled"),
  "SAM": Arm(optimizer="sam"),
  "GQ, K=1": Arm(queue=True, match=False),
  "GQ, K=B/64": Arm(queue=True, match=False, clusters="features"),
  "GQ, K=B/64, random groups": Arm(queue=True, match=False, clusters="random"),
  "GQ, K=B/64, norm-matched": Arm(queue=True, clusters="features"),
  "GQ, K=B/64, shuffled weights": Arm(queue=True, match=False, clusters="features", shuffle=True),
  "GQ-Adam, K=1": Arm(queue=True, match=False, optimizer="adam"),
  "GQ-Adam, K=B/64": Arm(queue=True, match=False, clusters="features", optimizer="adam"),
}


# What a trial compares by default. The recommended weights stand here and nowhere else.
RECOMMENDED = ("example scarcity, features", "example scarcity, outputs")
AT_RANDOM = ", dealt at random"
ORACLE = "true kinds (oracle)"
COMBINED = tuple(f"logit adjustment and {name}" for name in RECOMMENDED)
for _name, _weights in zip(COMBINED, RECOMMENDED, strict=True):
  ARMS[_name] = dataclasses.replace(ARMS[_weights], loss="logit adjustment")
for _name in (*RECOMMENDED, *COMBINED):  # the same weights, of other examples of the batch
  _arm = ARMS[_name]
  ARMS[_name + AT_RANDOM] = dataclasses.replace(_arm, weights=f"shuffled {_arm.weights}")
PLAIN = ("SGDM", "AdamW", "Muon")
TOLD = ("logit adjustment", "class weights")  # how frequent the classes are
DEFAULT = (*PLAIN, *TOLD, *RECOMMENDED, *(name + AT_RANDOM for name in RECOMMENDED))

DECAY = ", decay "  # what comes before the weight decay in a name
PAPER_BATCH = 64  # examples of a cluster, as in the paper's figures


def num_clusters(arm: Arm, batch_size: int) -> int:
  """K of the paper's clusters; 1 where there are none."""
  return 1 if arm.clusters == "none" else max(1, batch_size // PAPER_BATCH)


def is_plain(arm: Arm) -> bool:
  """Whether there is nothing but an optimizer."""
  return arm == Arm(optimizer=arm.optimizer, weight_decay=arm.weight_decay)


def find(name: str) -> Arm:
  """An arm by its name.

  Options of its groups or its queue of examples may follow, as in "NAME; num_groups=40; pooling=0",
  and another optimizer, that of a plain arm, as in "NAME on Muon"; last, its weight decay, as in
  "Muon, decay 0.01" or "NAME on Muon, decay 0.01".
  """
  name, _, decay = name.partition(DECAY)
  name, _, optimizer = name.partition(" on ")
  base, *changes = (part.strip() for part in name.split(";"))
  if base not in ARMS:
    lower = {name.lower(): name for name in ARMS}
    near = difflib.get_close_matches(base.lower(), lower, n=1)
    guess = f" Did you mean {lower[near[0]]!r}?" if near else ""
    raise ValueError(f"the arm must be one of {'; '.join(ARMS)}; but {base!r} was found.{guess}")
  arm = ARMS[base]
  if optimizer:
    plain = [known for known, other in ARMS.items() if is_plain(other)]
    if optimizer not in plain:
      raise ValueError(f"an arm must be on one of {', '.join(plain)}, but {optimizer!r} was found.")
    arm = dataclasses.replace(arm, optimizer=ARMS[optimizer].optimizer)
  if decay:
    arm = dataclasses.replace(arm, weight_decay=_decay(decay, arm.optimizer))
  where = "examples" if "examples" in arm.weights else "groups"
  known = {field.name: field.type for field in dataclasses.fields(getattr(arm, where))}
  for change in changes:
    option, _, value = change.partition("=")
    if option not in known:
      raise ValueError(f"an option must be one of {', '.join(known)}, but {option!r} was found.")
    convert = {"int": int, "float": float, "str": str}[str(known[option])]
    changed = dataclasses.replace(getattr(arm, where), **{option: convert(value)})
    arm = dataclasses.replace(arm, **{where: changed})
  return arm


def _decay(text: str, optimizer: str) -> float:
  """The weight decay that a name ends in."""
  try:
    value = float(text)
  except ValueError:
    value = math.nan
  if not 0.0 <= value < math.inf:
    raise ValueError(f"the decay of an arm must be a number from 0, but {text!r} was found.")
  if optimizer not in optimizers.DECAYS:
    takes = ", ".join(optimizers.DECAYS)
    raise ValueError(f"an arm with a decay must be on one of {takes}, but {optimizer!r} was found.")
  return value


def make_optimizer(
  arm: Arm, rate: jax.Array, steps: int, decay: bool = True
) -> optax.GradientTransformationExtraArgs:
  """The arm's optimizer, behind the queue if it has one."""
  last = optimizers.base(arm.optimizer, rate, steps, decay, arm.weight_decay)
  if not arm.queue:
    return last
  return optax.chain(optimizers.queue(match=arm.match, shuffle=arm.shuffle), last)
