# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The ways to train that are compared: a loss, weights for the examples, an optimizer."""

import dataclasses
import functools
from typing import Any

import jax
import optax

from benchmarks.harness import optimizers


@dataclasses.dataclass(frozen=True)
class Groups:
  """The options of `gq.group_scarcity`, and what is grouped."""

  embedding: str = "features"  # or "output gradients", "last layer"
  num_groups: int = 10
  queue_length: int = 5
  exponent: float = 1.0
  pooling: float = 0.0
  # The part of the training over which the exponent rises from 0 to 1; of class weights too.
  ramp: float = 0.0


@dataclasses.dataclass(frozen=True)
class Examples:
  """The options of `gq.example_scarcity`, with its defaults."""

  queue_size: int = 1024
  bandwidth: float = 0.2
  neighbours: float = 8.0
  exponent: float = 1.0
  loss_exponent: float = 0.0
  max_weight: float = 50.0


@dataclasses.dataclass(frozen=True)
class Arm:
  """One way to train."""

  loss: str = "cross-entropy"  # or "focal", "logit adjustment"
  # Or "class", "kind", "worst kinds", "errors", "groups", "examples"; "shuffled groups", "shuffled
  # examples".
  weights: str = "none"
  groups: Groups = Groups()
  examples: Examples = Examples()
  optimizer: str = "sgd"  # see `optimizers.RATES`
  weight_decay: Any = None  # see `optimizers.base`; a number, also a traced one
  queue: bool = False  # Delta_rho before the optimizer
  match: bool = True  # brought back to the norm of the mean gradient; the paper does not
  clusters: str = "none"  # or "features", "random": B / 64 groups, each weighted, as in the paper
  shuffle: bool = False  # the weights of Delta_rho dealt to other coordinates


OUTPUTS = Groups("output gradients")
POOLED = Groups("features", num_groups=20, pooling=0.5)
LAST_LAYER = Groups("last layer", num_groups=20, pooling=0.5)
PAPER = Arm(queue=True, match=False)
_paper = functools.partial(dataclasses.replace, PAPER)

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
  "group scarcity, last layer, pooled": Arm(weights="groups", groups=LAST_LAYER),
  # Where kinds are learnt already they should not count: that is what the losses are for.
  "example scarcity, features": Arm(
    weights="examples", examples=Examples(bandwidth=0.25, loss_exponent=0.5)
  ),
  "example scarcity, outputs": Arm(weights="examples", groups=OUTPUTS),
  "Delta_rho": Arm(queue=True),
  "true kinds (oracle)": Arm(weights="kind"),
  "group DRO (oracle)": Arm(weights="worst kinds"),
  "Nesterov": Arm(optimizer="nesterov"),
  "LAMB": Arm(optimizer="lamb"),
  "Muon": Arm(optimizer="muon"),
  "SGDM, one length": Arm(optimizer="scaled"),
  "SAM": Arm(optimizer="sam"),
  "GQ, K=1": PAPER,
  "GQ, K=B/64": _paper(clusters="features"),
  "GQ, K=B/64, random groups": _paper(clusters="random"),
  "GQ, K=B/64, norm-matched": Arm(queue=True, clusters="features"),
  "GQ, K=B/64, shuffled weights": _paper(clusters="features", shuffle=True),
  "GQ-Adam, K=1": _paper(optimizer="adam"),
  "GQ-Adam, K=B/64": _paper(clusters="features", optimizer="adam"),
}

RECOMMENDED = ("example scarcity, features", "example scarcity, outputs")
AT_RANDOM = ", dealt at random"
ORACLE = "true kinds (oracle)"
COMBINED = tuple(f"logit adjustment and {name}" for name in RECOMMENDED)
for _name, _weights in zip(COMBINED, RECOMMENDED, strict=True):
  ARMS[_name] = dataclasses.replace(ARMS[_weights], loss="logit adjustment")
for _name in (*RECOMMENDED, *COMBINED):  # the same weights, of other examples of the batch
  _arm = ARMS[_name]
  ARMS[_name + AT_RANDOM] = dataclasses.replace(_arm, weights=f"shuffled {_arm.weights}")

PAPER_BATCH = 64  # examples of a cluster, as in the paper's figures


def num_clusters(arm: Arm, batch_size: int) -> int:
  """K of the paper's clusters; 1 where there are none."""
  return 1 if arm.clusters == "none" else max(1, batch_size // PAPER_BATCH)


def is_plain(arm: Arm) -> bool:
  """Whether there is nothing but an optimizer."""
  return arm == Arm(optimizer=arm.optimizer, weight_decay=arm.weight_decay)


def on(name: str, optimizer: str) -> str:
  """The name of an arm on an optimizer."""
  return name if optimizer == "SGDM" else f"{name} on {optimizer}"


def optimizer_of(name: str) -> str:
  """The name of an arm's optimizer alone."""
  optimizer = find(name).optimizer
  return next(k for k, arm in ARMS.items() if is_plain(arm) and arm.optimizer == optimizer)


def find(name: str) -> Arm:
  """An arm by its name.

  Options of its groups or its queue of examples may follow, as in "NAME; num_groups=40; pooling=0",
  and another optimizer, that of a plain arm, as in "NAME on Muon".
  """
  name, _, optimizer = name.partition(" on ")
  base, *changes = (part.strip() for part in name.split(";"))
  if base not in ARMS:
    raise ValueError(f"the arm must be one of {'; '.join(ARMS)}; but {base!r} was found.")
  arm = ARMS[base]
  if optimizer:
    plain = [known for known, other in ARMS.items() if is_plain(other)]
    if optimizer not in plain:
      raise ValueError(f"an arm must be on one of {', '.join(plain)}, but {optimizer!r} was found.")
    arm = dataclasses.replace(arm, optimizer=ARMS[optimizer].optimizer)
  where = "examples" if "examples" in arm.weights else "groups"
  known = {field.name: field.type for field in dataclasses.fields(getattr(arm, where))}
  for change in changes:
    option, _, value = change.partition("=")
    if option not in known:
      raise ValueError(f"an option must be one of {', '.join(known)}, but {option!r} was found.")
    convert: Any = known[option]
    changed = dataclasses.replace(getattr(arm, where), **{option: convert(value)})
    arm = dataclasses.replace(arm, **{where: changed})
  return arm


def make_optimizer(arm: Arm, rate: jax.Array, steps: int) -> optax.GradientTransformationExtraArgs:
  """The arm's optimizer, behind the queue if it has one."""
  last = optimizers.base(arm.optimizer, rate, steps, arm.weight_decay)
  if not arm.queue:
    return last
  return optax.chain(optimizers.queue(match=arm.match, shuffle=arm.shuffle), last)
