# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Trainings of seconds on real digits: poisoned gradients, wrong labels, a narrower queue.

    python -m benchmarks.paper.digits

A dense network (64-128-10), B = 128, 300 steps, ten seeds; all chains have the same rate, starts
and batches. What is in `out/digits.jsonl` is not run again.

* poison: from step 100 to 150 the gradients are poisoned. What to chain, and in which order?
* labels: the labels of a share of the training examples are drawn at random. Which figures of
  `gq.diagnostics`, as means over the last 100 steps, tell that scarcity is amplifying noise?
* dtype: one training feeds a float32 queue and the narrower ones with the same gradients, and their
  weights are compared; then each queue trains on its own.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

import gq_optax as gq
from benchmarks.harness import data, networks, records, tasks, weighing

STEPS, FIRST, LAST, TOLD = 300, 100, 150, 100
BATCH, RATE, CLIP, SEEDS, EVERY = 128, 0.1, 1.0, 10, 5
SHARE = 0.1  # of the examples that are poisoned
FACTORS = {  # what those count; of "NaN and Inf" every second gradient is one of them
  "NaN and Inf": 1.0, "spikes of 1e30": 1e30, "flipped spikes": -100.0, "sign flips": -1.0,
}  # fmt: skip
NOISE = (0.0, 0.2, 0.4, 0.8)
FIGURES = {
  "plain": (),
  "queue": ("cosine", "norm_ratio", "mean_weight", "agreement", "agreement of the raw gradient"),
  "matched queue": ("agreement", "norm_ratio"),
  "groups": ("effective_examples", "rarest_tenth"),
}
DTYPES = {"float32": None, "bfloat16": jnp.bfloat16, "float16": jnp.float16}
MODEL = networks.MLP((128,), 10)
Examples = tuple[jax.Array, ...]


def load() -> Examples:
  """Training and test examples and labels."""
  digits = data.load("digits")
  x, x_test = (part.reshape(len(part), -1) for part in (digits.x_train, digits.x_test))
  x, x_test = tasks.standardise(x, x_test)
  put = lambda y: jnp.asarray(y, jnp.int32)
  return jnp.asarray(x), put(digits.y_train), jnp.asarray(x_test), put(digits.y_test)


def answers(params: Any, x: jax.Array) -> jax.Array:
  """The logits."""
  logits, _ = MODEL.apply(params, x)
  return logits


def accuracy(params: Any, examples: Examples) -> jax.Array:
  """On the test examples."""
  return jnp.mean(jnp.argmax(answers(params, examples[2]), axis=1) == examples[3])


def draw(key: jax.Array, x: jax.Array) -> jax.Array:
  """The rows of a batch."""
  return jax.random.permutation(key, len(x))[:BATCH]


def each_seed(train: Callable[..., Any]) -> Callable[..., Any]:
  """`train(what, seed, examples)` of all seeds at once, each array with an axis of seeds."""
  run = jax.jit(jax.vmap(train, (None, 0, None)), static_argnums=0)
  return lambda what, examples: jax.tree.map(np.asarray, run(what, jnp.arange(SEEDS), examples))


# Poisoned gradients


def chains() -> dict[str, optax.GradientTransformation]:
  """What is compared; `clip` is `optax.clip_by_global_norm(1)`."""
  clip, sgd = optax.clip_by_global_norm(CLIP), optax.sgd(RATE, momentum=0.9)
  queue, capped = gq.grad_queue(3, 3.0), gq.grad_queue(3, 3.0, update_norm=1.0)
  safe = functools.partial(optax.apply_if_finite, max_consecutive_errors=STEPS)
  return {
    "sgd": sgd,
    "queue, sgd": optax.chain(queue, sgd),
    "apply_if_finite(sgd)": safe(sgd),
    "apply_if_finite(queue, sgd)": safe(optax.chain(queue, sgd)),
    "apply_if_finite(clip, sgd)": safe(optax.chain(clip, sgd)),
    "apply_if_finite(clip, queue, sgd)": safe(optax.chain(clip, queue, sgd)),
    "apply_if_finite(queue, clip, sgd)": safe(optax.chain(queue, clip, sgd)),
    "apply_if_finite(clip, capped queue, sgd)": safe(optax.chain(clip, capped, sgd)),
  }


def poisoned(what: tuple[str, str], seed: jax.Array, examples: Examples) -> dict[str, jax.Array]:
  """Accuracy in the course of training, and whether the queue stayed clean."""
  poison, chain = what
  x, y, *_ = examples
  tx = chains()[chain]
  first, key = jax.random.split(jax.random.key(seed))
  params = MODEL.init(first, x[:1])

  def step(carry, number):
    params, state = carry
    order, hit, kind = jax.random.split(jax.random.fold_in(key, number), 3)
    rows = draw(order, x)
    now = jnp.logical_and(number >= FIRST, number < LAST)
    chosen = jnp.logical_and(jax.random.uniform(hit, (BATCH,)) < SHARE, now)
    weight = jnp.where(chosen, FACTORS[poison], 1.0)
    loss = lambda p: jnp.mean(weight * weighing.cross_entropy(answers(p, x[rows]), y[rows]))
    gradient = jax.grad(loss)(params)
    if poison == "NaN and Inf":
      bad = jnp.where(jax.random.bernoulli(kind), jnp.nan, jnp.inf)
      bad = jnp.where(jnp.logical_and(now, number % 2 == 0), bad, 0.0)
      gradient = jax.tree.map(lambda g: g + bad, gradient)
    updates, state = tx.update(gradient, state, params)
    params = optax.apply_updates(params, updates)
    due = number % EVERY == EVERY - 1
    found = jax.lax.cond(due, lambda p: accuracy(p, examples), lambda _: jnp.float32(0.0), params)
    is_queue = lambda node: isinstance(node, gq.GradQueueState)
    queues = [leaf for leaf in jax.tree.leaves(state, is_leaf=is_queue) if is_queue(leaf)]
    floats = [s for q in queues for s in jax.tree.leaves(q.queue.slots)]
    clean = jnp.all(jnp.array([jnp.all(jnp.isfinite(s)) for s in floats] or [True]))
    return (params, state), (found, clean)

  course, clean = jax.lax.scan(step, (params, tx.init(params)), jnp.arange(STEPS))[1]
  return {"accuracy": course[EVERY - 1 :: EVERY], "clean": jnp.all(clean)}


def recovered(course: np.ndarray) -> dict[str, Any]:
  """Of courses `[seeds, marks]`: the lowest once the poison began, the end, the steps until back.

  Back is within a point of what it was before; None where it never is.
  """
  marks = np.arange(EVERY, STEPS + 1, EVERY)
  before = course[:, marks <= FIRST][:, -1:]
  back = (course >= before - 0.01) & (marks > LAST)[None]
  steps = np.where(back.any(axis=1), marks[np.argmax(back, axis=1)] - LAST, -1)
  rounded = lambda values: np.asarray(values, float).round(4).tolist()
  return {
    "lowest": rounded(course[:, marks > FIRST].min(axis=1)),
    "end": rounded(course[:, -1]),
    "back": [None if s < 0 else float(s) for s in steps],
    "course": rounded(course.mean(axis=0)),
  }


# Wrong labels


def cosine(a: Any, b: Any) -> jax.Array:
  """Between two trees."""
  lengths = optax.tree.norm(a) * optax.tree.norm(b)
  return optax.tree.vdot(a, b) / jnp.maximum(lengths, 1e-30)


def mislabelled(what: tuple[float, str], seed: jax.Array, examples: Examples) -> dict[str, Any]:
  """Test accuracy at the end, and the mean of each figure over the last steps."""
  noise, way = what
  x, y, *_ = examples
  first, flip, key = jax.random.split(jax.random.key(seed), 3)
  wrong = jax.random.uniform(flip, y.shape) < noise
  y = jnp.where(wrong, jax.random.randint(jax.random.fold_in(flip, 1), y.shape, 0, 10), y)
  queue = optax.with_extra_args_support(optax.identity())
  if way in ("queue", "matched queue"):
    match = "match" if way == "matched queue" else None
    queue = gq.grad_queue(3, 3.0, update_norm=match, track=True)
  sgd = optax.sgd(optax.cosine_decay_schedule(RATE, STEPS), momentum=0.9)
  scarcity = gq.group_scarcity(10, key=0)
  params = MODEL.init(first, x[:1])

  def step(carry, number):
    params, state, groups, before = carry
    rows = draw(jax.random.fold_in(key, number), x)

    def loss(params):
      logits = answers(params, x[rows])
      losses = weighing.cross_entropy(logits, y[rows])
      if way != "groups":
        return jnp.mean(losses), groups
      residuals = gq.output_gradients(weighing.cross_entropy, logits, y[rows])
      weights, new_groups = scarcity.update(residuals, groups)
      return jnp.mean(weights * losses), new_groups

    gradient, groups = jax.grad(loss, has_aux=True)(params)
    weighted, queued = queue.update(gradient, state[0], params)
    updates, moving = sgd.update(weighted, state[1], params)
    kept = {"plain": None, "groups": groups}.get(way, queued)
    told = {} if kept is None else gq.diagnostics(kept)
    told["agreement"] = cosine(weighted, before)
    told["agreement of the raw gradient"] = cosine(gradient, before)
    params = optax.apply_updates(params, updates)
    return (params, (queued, moving), groups, gradient), {name: told[name] for name in FIGURES[way]}

  zeros = jax.tree.map(jnp.zeros_like, params)
  carry: Any = (params, (queue.init(params), sgd.init(params)), scarcity.init(10), zeros)
  (params, *_), told = jax.lax.scan(step, carry, jnp.arange(STEPS))
  means = {k: jnp.mean(v[-TOLD:]) for k, v in told.items()}
  return {"accuracy": accuracy(params, examples), **means}


# A narrower queue


def narrowed(name: str, seed: jax.Array, examples: Examples) -> dict[str, jax.Array]:
  """Trains behind the queue `name`; the others see the same gradients."""
  x, y, *_ = examples
  first, key = jax.random.split(jax.random.key(seed))
  params = MODEL.init(first, x[:1])
  sgd = optax.sgd(optax.cosine_decay_schedule(RATE, STEPS), momentum=0.9)
  queues = {n: gq.grad_queue(3, 3.0, queue_dtype=dtype) for n, dtype in DTYPES.items()}
  flat = lambda tree: jnp.concatenate([g.ravel() for g in jax.tree.leaves(tree)])

  def step(carry, number):
    params, states, moving = carry
    rows = draw(jax.random.fold_in(key, number), x)
    loss = lambda p: jnp.mean(weighing.cross_entropy(answers(p, x[rows]), y[rows]))
    gradient = jax.grad(loss)(params)
    found = {n: queue.update(gradient, states[n]) for n, queue in queues.items()}
    there = flat(gradient) != 0.0
    full, told = flat(found["float32"][0]), {}
    for n, (update, _) in found.items():
      off = jnp.where(there, jnp.abs(flat(update) / jnp.where(there, full, 1.0) - 1.0), 0.0)
      told[n] = jnp.stack([jnp.sum(off), jnp.sum(off > 0.1)]) / jnp.sum(there)
    updates, moving = sgd.update(found[name][0], moving, params)
    states = {n: state for n, (_, state) in found.items()}
    return (optax.apply_updates(params, updates), states, moving), told

  carry: Any = (params, {n: q.init(params) for n, q in queues.items()}, sgd.init(params))
  (params, *_), told = jax.lax.scan(step, carry, jnp.arange(STEPS))
  errors = {n: jnp.mean(v[-TOLD:], axis=0) for n, v in told.items()}
  return {"accuracy": accuracy(params, examples), **errors}


def main(
  parts: tuple[str, ...] = ("poison", "labels", "dtype"), out: Path = Path("out/digits.jsonl")
) -> None:
  """Runs what is missing.

  Args:
    parts: poison, labels, dtype.
    out: one JSON a line and run.
  """
  examples = load()
  rounded = lambda found: {k: np.asarray(v, float).round(6).tolist() for k, v in found.items()}
  wanted: list[dict[str, Any]] = [
    *({"part": "poison", "what": p, "row": chain} for p in FACTORS for chain in chains()),
    *({"part": "labels", "what": noise, "row": way} for noise in NOISE for way in FIGURES),
    *({"part": "dtype", "what": "float32", "row": name} for name in DTYPES),
  ]
  for cell in (cell for cell in wanted if cell["part"] in parts):
    if any(cell.items() <= row.items() for row in records.read(out)):
      continue
    what = cell["what"], cell["row"]
    if cell["part"] == "poison":
      found = each_seed(poisoned)(what, examples)
      row = recovered(found["accuracy"]) | {"clean": bool(found["clean"].all())}
    elif cell["part"] == "labels":
      row = rounded(each_seed(mislabelled)(what, examples))
    else:
      found = each_seed(narrowed)(cell["row"], examples)
      row = rounded({"accuracy": found["accuracy"]})
      if cell["row"] == "float32":  # which all the others were compared in
        row |= {"errors": rounded({n: found[n] for n in DTYPES})}
    records.append(out, cell | row)
    print(cell, flush=True)


if __name__ == "__main__":
  tyro.cli(main)
