# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What counts when every example fits? Weights, margins and adjusted logits on CIFAR-10 at 16 x 16.

    GQ_OPTAX_DATA=data python -m benchmarks.margins.deep           # what is missing, run after run
    GQ_OPTAX_DATA=data python -m benchmarks.margins.deep --list    # what is left, and how long

Classes have a long tail of 100 to 1. In the task "classes" they are the labels. In "kinds" two
labels hide them. A run trains one network to the end, writes one line of JSON, and is not run
again. Runs that decide come first. Each family of arms has its own rate, chosen on the validation
split. Its images are not in the training set, 500 of each class. "natural" weighs the classes (or
kinds) as the training set does; "mean" weighs them alike; "rarest" are the three smallest.
"""

import argparse
import functools
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax.contrib import muon

import gq_optax as gq
from benchmarks.margins import networks

cross_entropy = optax.losses.softmax_cross_entropy_with_integer_labels
# And beyond, by factors of two, until the best lies inside. Validation has two humps in the dense
# network: a short grid found the wrong one.
RATES = {"conv": (0.04, 0.08, 0.16), "dense": (0.005, 0.01, 0.02, 0.04, 0.08)}
AFTER = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)  # strengths of adjustment after training
HEADS = (0.5, 1.0, 1.5)  # exponents of the weights under which the last layer is trained again
FITS = 0.999


class Scale(NamedTuple):
  """How large it all is."""

  largest: int  # examples of the commonest class
  held_back: int  # of each class, for validation
  batch: int
  epochs: tuple[int, int]  # of each of `NETWORKS`
  width: int
  head_steps: int


NETWORKS = ("conv", "dense")
FULL = Scale(2000, 500, 512, (60, 60), 16, 300)
TINY = Scale(40, 5, 16, (2, 4), 8, 10)


class Arm(NamedTuple):
  """A way to make rare examples count, whose family shares one rate."""

  family: str
  strengths: tuple[float, ...]
  compute: float = 1.0  # trainings


ARMS = {
  "none": Arm("none", (0.0,)),
  "logit adjustment": Arm("adjustment", (1.0, 0.5, 2.0, 4.0, 8.0)),
  "margins": Arm("margins", (0.5, 0.25, 1.0, 1.5)),
  "weights": Arm("weights", (1.0, 0.5, 1.5, 2.0)),
  "late weights": Arm("weights", (1.0, 2.0)),
  "balanced sampling": Arm("weights", (1.0, 0.5)),
  "VS": Arm("margins", (0.2, 0.1, 0.4)),  # temperatures without the division
  "random margins": Arm("margins", (0.5, 1.0)),  # controls
  "one temperature": Arm("margins", (0.5, 0.25)),
  "none, longer": Arm("none", (0.0,), 1.25),  # as much compute as held-out losses take
  "held-out margins": Arm("held out", (0.5, 1.0), 1.25),
  "held-out margins, smoothed": Arm("held out", (1.0, 0.5), 1.25),
  "early margins, smoothed": Arm("held out", (1.0, 0.5), 1.08),  # by losses of a short training
  "density weights": Arm("density", (1.0,)),
  "density margins": Arm("density", (1.0, 0.5)),
  "density margins, free": Arm("density", (1.0,)),  # t may exceed 1 where a weight is below it
}
# Where the rate of a family is chosen: the arm, at its first strength.
LEADERS = {
  "none": "none",
  "adjustment": "logit adjustment",
  "margins": "margins",
  "weights": "weights",
  "held out": "held-out margins, smoothed",
  "density": "density margins",
}
# Screened first, in this order.
DECISIVE = {
  "classes": ("none", "logit adjustment", "margins", "weights"),
  "kinds": ("weights", "margins", "none"),
}
# Again with more seeds and another order of the classes: what led, and its nearest rivals.
REPEATED = {
  "kinds": {
    "none": (0.0,),
    "weights": (0.5, 1.0, 1.5),
    "margins": (0.25, 0.5, 1.0),
    "held-out margins, smoothed": (0.5, 1.0),  # the only one without names
  },
  "classes": {"none": (0.0,), "logit adjustment": (0.5, 1.0, 2.0), "margins": (0.25, 0.5, 1.0)},
}
SCREEN, REPEATS = (0, 0), ((1, 0), (0, 1), (2, 0), (1, 1), (2, 1))  # seed, order of the classes


class Job(NamedTuple):
  """A run: its row's identity."""

  task: str
  network: str
  arm: str
  strength: float
  rate: float
  seed: int
  order: int


Row = dict[str, Any]


# What is to be run


def wanted(rows: dict[Job, Row]) -> Iterator[Job]:
  """All runs in their order, as far as the finished ones let us know the rates."""
  of = lambda names: {arm: ARMS[arm].strengths for arm in names}
  screened = {task: of(names) for task, names in DECISIVE.items()}
  phases: list[tuple[str, Any, tuple[int, int]]] = []
  for network in NETWORKS:
    phases += [(network, screened, SCREEN), *((network, REPEATED, draw) for draw in REPEATS[:2])]
  # Two labels that hide the kinds have no counts worth an adjustment.
  every = {"kinds": of(arm for arm in ARMS if arm != "logit adjustment"), "classes": of(ARMS)}
  phases += [("conv", {"kinds": every["kinds"]}, SCREEN)]
  # The narrowest lead takes the most draws to tell.
  phases += [("conv", {"kinds": REPEATED["kinds"]}, draw) for draw in REPEATS[2:4]]
  phases += [(network, every, SCREEN) for network in NETWORKS]
  phases += [(network, REPEATED, draw) for network in NETWORKS for draw in REPEATS[2:]]
  for network, arms, draw in phases:
    for task in arms:
      for arm, strengths in arms[task].items():
        tried, rate = rates(rows, task, network, ARMS[arm].family)
        yield from tried
        if rate is not None:
          yield from (Job(task, network, arm, s, rate, *draw) for s in strengths)


def rates(
  rows: dict[Job, Row], task: str, network: str, family: str
) -> tuple[list[Job], float | None]:
  """The runs that try rates, and of those that fit every example the best one on validation.

  A best rate at the edge of the grid asks for one more beyond it. None while a run is missing.
  """
  leader = LEADERS[family]
  job = lambda rate: Job(task, network, leader, ARMS[leader].strengths[0], rate, *SCREEN)
  score = lambda rate: (
    rows[job(rate)]["fits"],
    sum(rows[job(rate)]["validation"][k] for k in ("natural", "mean")),
  )
  tried = list(RATES[network])
  while all(job(rate) in rows for rate in tried):
    best = max(tried, key=score)
    if best not in (tried[0], tried[-1]):
      return list(map(job, tried)), best
    tried = [best / 2, *tried] if best == tried[0] else [*tried, best * 2]
  return list(map(job, tried)), None


# Data


class Data(NamedTuple):
  """A task: images, labels, and the class of each image, as a rank from the commonest down."""

  x: dict[str, np.ndarray]  # of "train", "validation", "test"
  y: dict[str, np.ndarray]
  kind: dict[str, np.ndarray]
  prior: np.ndarray  # [C], shares of the labels in the training set
  shares: np.ndarray  # [10], of the kinds
  rarity: np.ndarray  # [n], of the kind; in "classes" that is the class


def long_tail(folder: Path, task: str, order: int, scale: Scale) -> Data:
  """CIFAR-10 with 100 to 1; which class is how rare hangs on `order`."""
  with np.load(folder / "cifar10.npz") as file:
    raw = {key: file[key] for key in ("x_train", "y_train", "x_test", "y_test")}
  small = lambda x: x.reshape(-1, 16, 2, 16, 2, 3).mean((2, 4), dtype=np.float32) / 255.0
  rank = np.argsort(np.random.RandomState(5 + order).permutation(10))
  labels, tested = rank[raw["y_train"].reshape(-1)], rank[raw["y_test"].reshape(-1)]
  rng = np.random.RandomState(11)
  chosen: dict[str, list[np.ndarray]] = {"train": [], "validation": []}
  for r in range(10):
    of_class = rng.permutation(np.where(labels == r)[0])
    number = max(1, int(scale.largest * 100.0 ** (-r / 9)))
    chosen["validation"].append(of_class[: scale.held_back])
    chosen["train"].append(of_class[scale.held_back : scale.held_back + number])
  rows = {split: np.concatenate(parts) for split, parts in chosen.items()}
  x = {split: small(raw["x_train"][i]) for split, i in rows.items()} | {
    "test": small(raw["x_test"])
  }
  kind = {split: labels[i] for split, i in rows.items()} | {"test": tested}
  mean, deviation = x["train"].mean((0, 1, 2)), x["train"].std((0, 1, 2))
  x = {split: (images - mean) / deviation for split, images in x.items()}
  hidden = np.random.RandomState(17).permutation(10) % 2
  # The label hangs on the class itself, and not on how rare it is.
  of_rank = np.arange(10) if task == "classes" else hidden[np.argsort(rank)]
  y = {split: of_rank[k].astype(np.int32) for split, k in kind.items()}
  share = lambda v: np.bincount(v) / len(v)
  shares = share(kind["train"])
  own, counts = jnp.asarray(kind["train"], jnp.int32), jnp.bincount(jnp.asarray(kind["train"]))
  rarity = np.asarray(gq.class_rarity(own, counts))
  return Data(x, y, kind, share(y["train"]), shares, rarity)


# Training


class Recipe(NamedTuple):
  """What an arm changes: the loss of example i is weight CE(temperature z + offset) / divisor."""

  weight: jax.Array  # [n]
  temperature: jax.Array  # [n]
  divisor: jax.Array  # [n]
  chance: jax.Array  # [n], of being drawn; all the same: every example once an epoch
  offset: jax.Array  # [C]
  start: jax.Array  # share of the training after which weights begin
  strength: jax.Array


def recipe(job: Job, data: Data, held_out) -> Recipe:
  """The recipe of a run; `held_out(early, smoothed)` gives the rarity by losses."""
  one, g, arm = np.ones(len(data.rarity)), job.strength, job.arm
  t = lambda rarity: np.clip(rarity**-g, 0.01, 1.0)
  changes: dict[str, Any] = {}
  if arm == "logit adjustment":
    changes["offset"] = g * np.log(data.prior)
  elif arm in ("weights", "late weights"):
    changes |= {"weight": data.rarity**g, "start": 0.8 if arm == "late weights" else 0.0}
  elif arm == "balanced sampling":
    changes["chance"] = data.rarity**g
  elif arm in ("margins", "VS"):
    changes["temperature"] = t(data.rarity)
  elif arm == "random margins":
    changes["temperature"] = t(np.random.RandomState(job.seed).permutation(data.rarity))
  elif arm == "one temperature":
    changes["temperature"] = t(one * data.rarity.max())
  elif arm.startswith(("held-out", "early")):
    changes["temperature"] = t(held_out("early" in arm, "smoothed" in arm))
  plain = {"weight": one, "temperature": one, "chance": one, "start": 0.0, "strength": g}
  values = plain | {"offset": np.zeros(len(data.prior))} | changes
  values["divisor"] = one if arm == "VS" else values["temperature"]
  return Recipe(**{key: jnp.asarray(value, jnp.float32) for key, value in values.items()})


def example_losses(recipe: Recipe, rows, late, logits, labels):
  """Losses and weights of a batch."""
  moved = logits * recipe.temperature[rows][:, None] + recipe.offset[None]
  weight = jnp.where(late, recipe.weight[rows], 1.0)
  return cross_entropy(moved, labels) / recipe.divisor[rows], weight


STATIC = ("network", "epochs", "batch", "width", "density")


@functools.partial(jax.jit, static_argnames=STATIC)
def train(key, rows, x, y, recipe, rate, *, network, epochs, batch, width, density):
  """Trains on some rows of the training set; the parameters."""
  batch = min(batch, len(rows))
  steps = len(rows) // batch
  total = epochs * steps
  schedule = optax.warmup_cosine_decay_schedule(0.0, 1.0, max(1, total // 20), total)
  tx = muon(
    lambda t: rate * schedule(t),
    weight_decay=0.01,
    adam_weight_decay=0.01,
    adam_learning_rate=lambda t: 0.3 * rate * schedule(t),
  )
  start, order, drawn = jax.random.split(key, 3)
  outputs = len(recipe.offset)
  params = networks.init(start, network, x[0].size, outputs, width)
  # Outputs name rare classes, features rare kinds.
  of_outputs = outputs > 2
  scarcity = gq.example_scarcity(1024, loss_exponent=0.0 if of_outputs else 0.5)

  def step(carry, now):
    params, opt_state, seen = carry
    i, share = now

    def loss(params, seen):
      logits, features = networks.apply(params, x[i], network)
      losses, weight = example_losses(recipe, i, share >= recipe.start, logits, y[i])
      if density:
        about = gq.output_gradients(cross_entropy, logits, y[i]) if of_outputs else features
        found, seen = scarcity.update(about, seen, losses=jax.lax.stop_gradient(losses))
        if density == "density weights":
          weight = found**recipe.strength
        else:
          most = 1.0 if density == "density margins" else 100.0
          t = jnp.clip(found**-recipe.strength, 0.01, most)
          losses = cross_entropy(logits * t[:, None], y[i]) / t
      return jnp.sum(weight * losses) / jnp.sum(weight), seen

    grads, seen = jax.grad(loss, has_aux=True)(params, seen)
    updates, opt_state = tx.update(grads, opt_state, params)
    return (optax.apply_updates(params, updates), opt_state, seen), None

  def epoch(carry, number):
    each = jax.random.permutation(jax.random.fold_in(order, number), len(rows))
    chance = recipe.chance[rows]
    level = jax.random.uniform(jax.random.fold_in(drawn, number), (len(rows),)) * chance.sum()
    by_chance = jnp.minimum(jnp.searchsorted(jnp.cumsum(chance), level), len(rows) - 1)
    taken = jnp.where(jnp.all(chance == chance[0]), each, by_chance)[: steps * batch]
    shares = (number * steps + jnp.arange(steps)) / total
    return jax.lax.scan(step, carry, (rows[taken].reshape(steps, batch), shares))

  seen = scarcity.init(outputs if of_outputs else 4 * width) if density else None
  carry = (params, tx.init(params), seen)
  return jax.lax.scan(epoch, carry, jnp.arange(epochs))[0][0]


@functools.partial(jax.jit, static_argnames="network")
def predict(params, x, *, network):
  """Logits and features of a whole split."""
  one = lambda image: jax.tree.map(lambda v: v[0], networks.apply(params, image[None], network))
  return jax.lax.map(one, x, batch_size=250)


@functools.partial(jax.jit, static_argnames="steps")
def head_again(features, y, weight, outputs, *, steps):
  """The last layer alone, from zero, under weights; `outputs` `[C]` are only counted."""
  tx = optax.adam(0.02)
  params = (jnp.zeros((features.shape[1], len(outputs))), jnp.zeros(len(outputs)))
  loss = lambda p: jnp.sum(weight * cross_entropy(features @ p[0] + p[1], y)) / jnp.sum(weight)

  def step(carry, _):
    updates, state = tx.update(jax.grad(loss)(carry[0]), carry[1])
    return (optax.apply_updates(carry[0], updates), state), None

  return jax.lax.scan(step, (params, tx.init(params)), length=steps)[0][0]


# One run


def figures(logits, y, kind, shares) -> dict[str, float]:
  """Accuracies in percent."""
  right = np.argmax(logits, axis=1) == y
  each = np.array([100.0 * right[kind == k].mean() for k in range(10)])
  found = {"natural": shares @ each, "mean": each.mean(), "rarest": each[-3:].mean()}
  return {key: round(float(v), 3) for key, v in (found | {"worst": each.min()}).items()}


def run(job: Job, data: Data, scale: Scale) -> Row:
  """Trains, and reads every split once."""
  began = time.time()
  x, y = jnp.asarray(data.x["train"]), jnp.asarray(data.y["train"])
  everything = jnp.arange(len(y))
  density = job.arm if job.arm.startswith("density") else ""
  sizes = {"network": job.network, "batch": scale.batch, "width": scale.width}
  epochs = scale.epochs[NETWORKS.index(job.network)]
  plain = recipe(job._replace(arm="none"), data, None)

  def held_out(early, smoothed):
    half = np.random.RandomState(job.seed).permutation(len(y)) % 2 == 0
    rarity, each = np.ones(len(y)), np.ones(len(y), bool)
    for trained, scored in [(each, each)] if early else [(half, ~half), (~half, half)]:
      rows = np.where(scored)[0]
      # Of one length: compiled once.
      train_rows = np.where(trained)[0][: len(y) // (1 if early else 2)]
      params = train(
        jax.random.key(100 + job.seed), jnp.asarray(train_rows), x, y, plain, job.rate,
        epochs=max(1, epochs // (12 if early else 4)), density="", **sizes,
      )  # fmt: skip
      logits, features = predict(params, x[rows], network=job.network)
      near = {"embeddings": features, "labels": y[rows]} if smoothed else {}
      rarity[rows] = gq.held_out_rarity(cross_entropy(logits, y[rows]), **near)
    return rarity

  how = recipe(job, data, held_out)
  epochs = epochs * 5 // 4 if job.arm == "none, longer" else epochs
  params = train(
    jax.random.key(job.seed), everything, x, y, how, job.rate,
    epochs=epochs, density=density, **sizes,
  )  # fmt: skip
  found = {s: predict(params, jnp.asarray(data.x[s]), network=job.network) for s in data.x}
  logits = {split: np.asarray(pair[0], np.float64) for split, pair in found.items()}
  read = lambda split, z: figures(z, data.y[split], data.kind[split], data.shares)
  fit = float(np.mean(np.argmax(logits["train"], axis=1) == data.y["train"]))
  row: Row = job._asdict() | {"training accuracy": round(100 * fit, 3), "fits": fit >= FITS}
  for split in ("validation", "test"):
    row[split] = read(split, logits[split])
  if job.arm == "none":
    features = found["train"][1]
    heads = {
      e: head_again(features, y, jnp.asarray(data.rarity**e), how.offset, steps=scale.head_steps)
      for e in HEADS
    }
    for split in ("validation", "test"):
      after = {str(s): read(split, logits[split] - s * np.log(data.prior)) for s in AFTER}
      again = lambda head, f=found[split][1]: np.asarray(f @ head[0] + head[1])
      row[split] |= {"after": after}
      row[split]["head"] = {str(e): read(split, again(head)) for e, head in heads.items()}
  return row | {"seconds": round(time.time() - began, 1), "epochs": epochs}


# All runs


def read_rows(path: Path) -> dict[Job, Row]:
  """The finished runs."""
  lines = path.read_text().splitlines() if path.exists() else []
  rows = [json.loads(line) for line in lines]
  return {Job(**{key: row[key] for key in Job._fields}): row for row in rows}


def left(rows: dict[Job, Row], only: Sequence[str] = ()) -> list[Job]:
  """What is known to be missing; more follows once the rates of a family are there."""
  asked = lambda job: all(word in (job.task, job.network) for word in only)
  return list(dict.fromkeys(job for job in wanted(rows) if job not in rows and asked(job)))


def main() -> None:
  """Runs what is missing, or lists it."""
  parser = argparse.ArgumentParser(description="weights, margins, adjusted logits: what counts")
  parser.add_argument("--results", type=Path, default=Path("out/margins.jsonl"))
  parser.add_argument("--minutes", type=float, default=float("inf"))
  parser.add_argument("--list", action="store_true")
  words = [*DECISIVE, *NETWORKS]
  parser.add_argument("--only", nargs="+", choices=words, default=[], help="beside another call")
  parser.add_argument("--tiny", action="store_true", help="for tests")
  args = parser.parse_args()
  scale = TINY if args.tiny else FULL
  began, load = time.time(), functools.lru_cache(2)(long_tail)
  while todo := left(rows := read_rows(args.results), args.only):
    if args.list:
      each = {n: [r["seconds"] for r in rows.values() if r["network"] == n] for n in NETWORKS}
      mean = {network: np.median(s) if s else np.nan for network, s in each.items()}
      for job in todo:
        print(*job, f"{ARMS[job.arm].compute * mean[job.network]:.0f} s", sep="  ")
      total = sum(ARMS[job.arm].compute * mean[job.network] for job in todo) / 3600
      print(f"{len(rows)} runs are there, {len(todo)} are known to be left: {total:.1f} hours")
      return
    if time.time() - began > 60.0 * args.minutes:
      return
    data = load(Path(os.environ["GQ_OPTAX_DATA"]), todo[0].task, todo[0].order, scale)
    row = run(todo[0], data, scale)
    args.results.parent.mkdir(parents=True, exist_ok=True)
    with args.results.open("a") as file:
      file.write(json.dumps(row) + "\n")
    print(time.strftime("%H:%M:%S"), *todo[0], row["training accuracy"], row["test"], flush=True)


if __name__ == "__main__":
  main()
