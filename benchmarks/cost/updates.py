# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The queue's update and its compilation, for `benchmarks.cost.timed`."""

import functools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

import gq_optax as gq
from benchmarks.cost import workloads
from benchmarks.cost.steps import Job, Maker, Row, compare, compile_step

SGD = functools.partial(optax.sgd, 0.1, momentum=0.9)
QUEUES: dict[str, Callable[[], Any]] = {
  "sgd again": SGD,
  "adam": lambda: optax.adam(0.1),
  "queue": lambda: optax.chain(gq.grad_queue(3), SGD()),
  "queue in bfloat16": lambda: optax.chain(gq.grad_queue(3, queue_dtype=jnp.bfloat16), SGD()),
  "queue, track": lambda: optax.chain(gq.grad_queue(3, track=True), SGD()),
  "queue, match": lambda: optax.chain(gq.grad_queue(3, update_norm="match"), SGD()),
  "queue, L=5": lambda: optax.chain(gq.grad_queue(5), SGD()),
}


def apply(tx: Any) -> Callable[..., Any]:
  """A step of an optimizer from `(params, state)` and gradients."""

  def step(carried, grads):
    params, state = carried
    updates, state = tx.update(grads, state, params)
    return (optax.apply_updates(params, updates), state), ()

  return step


def queue(tiny: bool) -> Iterable[Job]:
  """Update and `apply_updates` in one program, against that of SGD with momentum."""
  one = lambda side: {"w": jnp.zeros((side, side))}
  jobs: dict[str, tuple[Callable[[], Any], float | None]] = {
    "25 M in one leaf": (lambda: one(8 if tiny else 5000), None),
    "124 M in 145 leaves": (functools.partial(workloads.transformer, 12, 768, tiny), 2.6),
  }
  if jax.default_backend() == "cpu" and not tiny:
    jobs = {"1 M in one leaf": (lambda: one(1000), None), "20 M": (lambda: one(4472), None)}
  for name, (make, bar) in jobs.items():
    # One way after another: only two of them have to fit into memory.
    for way in ("adam", "queue") if tiny else QUEUES:
      yield Job("queue", name, (way,), functools.partial(_update, make, bar))


def _update(make: Callable[[], Any], bar: float | None, wanted: Sequence[str]) -> dict[str, Row]:
  params = make()
  draw = lambda p: jax.random.normal(jax.random.key(p.size % 97), p.shape)
  grads = jax.jit(lambda p: jax.tree.map(draw, p))(params)

  def updating(tx: Any) -> Maker:
    return lambda: compile_step(apply(tx), (params, tx.init(params)), grads)

  makers = {"sgd": updating(SGD()), **{way: updating(QUEUES[way]()) for way in wanted}}
  return compare(makers, "sgd", wanted, {"queue": bar})


def compile_time(tiny: bool) -> Iterable[Job]:
  """Seconds to trace, lower and compile, against those of `chain(clip_by_global_norm, adam)`."""
  number = 4 if tiny else 200
  few = [((512, 512), (512, 2048), (2048,), (512,))[i % 4] for i in range(number)]
  different = [(128 + i, 64) if i % 2 else (1024 + i,) for i in range(number)]
  ways = ("queue", "queue, match", "queue, track")
  for name, shapes in (("few shapes", few), ("different shapes", different)):
    run = functools.partial(_compile, shapes, None)
    yield Job("compile", f"{number} leaves, {name}", ways, run)
  run = functools.partial(_compile, few[: number // 4], 64)
  yield Job("compile", f"{number // 4} leaves, 64 groups", ("queue of 64 groups",), run)


def _compile(
  shapes: Sequence[tuple[int, ...]], groups: int | None, wanted: Sequence[str]
) -> dict[str, Row]:
  params = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
  clip_adam = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1))
  seconds_of(clip_adam, params, params)  # the first meets a cold compiler
  reference = seconds_of(clip_adam, params, params)
  grads: Any = params
  if groups:
    grads = [jax.ShapeDtypeStruct((groups, *shape), jnp.float32) for shape in shapes]
    counts: Any = jax.ShapeDtypeStruct((groups,), jnp.int32)
    grads = gq.GroupGradients(grads, counts)
  bars = {"queue": 2.5, "queue, match": 4.0, "queue, track": 5.0, "queue of 64 groups": 5.0}
  rows: dict[str, Row] = {}
  for way in wanted:
    seconds = seconds_of(QUEUES["queue" if groups else way](), params, grads)
    alone = dict.fromkeys(("ratio", "ratio_low", "ratio_high"), seconds / reference)
    rows[way] = {
      **alone, "ms": 1e3 * seconds, "reference": "clip and adam", "reference_ms": 1e3 * reference,
      "bar": bars[way], "bar_of": "ratio",
    }  # fmt: skip
  return rows


def seconds_of(tx: Any, params: Any, grads: Any) -> float:
  """What a new process would take for the step of an optimizer, from shapes alone."""
  jax.clear_caches()  # what is traced for one way would be there for the next
  carried = params, jax.eval_shape(tx.init, params)
  started = time.perf_counter()
  jax.jit(apply(tx), donate_argnums=0).lower(carried, grads).compile()
  return time.perf_counter() - started
