# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Gradients, groups and weights by rarity, for `benchmarks.cost.accelerator`."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gq_optax as gq
from benchmarks.cost import workloads
from benchmarks.cost.jobs import Bars, Job, Maker, Row, compare
from benchmarks.cost.workloads import Workload
from benchmarks.harness import timing

WEIGHTS = (
  "plain again",
  "groups of features, K=10",
  "groups of features, K=20, pooled",
  "groups of features, K=10, centroids given",
  "groups of output gradients, K=10",
  "examples by features",
)
UPDATE_GIVEN = "group_scarcity.update, centroids given"
SHAPES = ((1024, 128, 10), (1024, 512, 16), (8192, 512, 64), (65_536, 512, 64))  # n, d, K


def masked(losses: Callable[..., Any], num_groups: int) -> Callable[..., Any]:
  """The mean gradients of the groups by one masked pass after another, `[K, *p]`."""

  def gradients(params, batch, labels):
    def one(k):
      member = (labels == k).astype(jnp.float32)
      mean = lambda p: jnp.sum(losses(p, batch) * member) / jnp.maximum(jnp.sum(member), 1.0)
      return jax.grad(mean)(params)

    return jax.lax.map(one, jnp.arange(num_groups))

  return gradients


def planned(problem: workloads.Problem, num_groups: int) -> Callable[..., Any]:
  """A loss over `(batch, plan)`, with embeddings in which K-means finds the groups of the plan."""
  features = jax.eval_shape(problem.loss_fn, problem.params, problem.batch)[1]
  codes = 10.0 * jax.random.normal(jax.random.key(1), (num_groups, features.shape[1]))

  def loss_fn(params, planned_batch):
    losses, features = problem.loss_fn(params, planned_batch[0])
    return losses, features + codes[planned_batch[1]]

  return loss_fn


def plan(workload: Workload, kind: str) -> jax.Array:
  """As labels, but the last group has an example: K-means leaves none empty."""
  labels = workloads.make_labels(workload, kind)
  last = workload.num_groups - 1
  return labels if kind == "equal" else labels.at[jnp.argmax(labels == 0)].set(last)


def correct(tiny: bool) -> Iterable[Job]:
  """Group gradients against masked passes at the highest precision."""
  for workload in workloads.TINY if tiny else workloads.FULL:
    ways = ("groups", "whole step")
    yield Job("correct", workload.title, ways, functools.partial(_errors, workload))


def _errors(workload: Workload, wanted: list[str]) -> dict[str, Row]:
  workload = workloads.light(workload)
  problem, number = workloads.make(workload), workload.num_groups
  losses = lambda p, b: problem.loss_fn(p, b)[0]
  whole = gq.clustered_value_and_grad(planned(problem, number), number)
  found: dict[str, Row] = {}
  with jax.default_matmul_precision("highest"):
    truth = jax.jit(masked(losses, number))
    for way in wanted:
      if way == "groups":
        labels = workloads.make_labels(workload, "skewed")
        grouped = jax.jit(gq.grouped_value_and_grad(losses, number))
        _, groups = grouped(problem.params, problem.batch, labels)
      else:
        batch = problem.batch, plan(workload, "skewed")
        (_, clusters), groups = jax.jit(whole)(problem.params, batch)
        labels = clusters.labels
      expected = truth(problem.params, problem.batch, labels)
      error = float(relative_error(groups.grads, expected))
      found[way] = {"error": error, "bar": 1e-4, "bar_of": "error", "counts": _counts(groups)}
  return found


def relative_error(grads: Any, expected: Any) -> jax.Array:
  """The largest over groups: distance over length, of all leaves together; empty groups are 0."""
  squares = lambda tree: sum(
    jnp.sum(jnp.square(x.astype(jnp.float32)), axis=range(1, x.ndim)) for x in jax.tree.leaves(tree)
  )
  length = squares(expected)
  distance = squares(jax.tree.map(lambda a, b: a - b, grads, expected))
  return jnp.sqrt(jnp.max(distance / jnp.where(length > 0.0, length, 1.0)))


def _counts(groups: Any) -> list[int]:
  return np.asarray(groups.counts).tolist()


def groups(tiny: bool) -> Iterable[Job]:
  """Group gradients alone, and the whole step with embeddings and K-means, against a plain one."""
  kinds = [f"{way}, {kind}" for way in ("groups", "whole step") for kind in ("equal", "skewed")]
  ways = ("plain again", *kinds, "K masked passes")
  for workload in workloads.TINY[:1] if tiny else workloads.FULL:
    yield Job("groups", workload.title, ways, functools.partial(_groups, workload))


def _groups(workload: Workload, wanted: list[str]) -> dict[str, Row]:
  problem, number = workloads.make(workload), workload.num_groups
  params, batch = problem.params, problem.batch
  losses = lambda p, b: problem.loss_fn(p, b)[0]
  labels = {kind: workloads.make_labels(workload, kind) for kind in ("equal", "skewed")}
  plain = lambda p, b: jax.value_and_grad(lambda p: jnp.mean(losses(p, b)))(p)
  grouped = gq.grouped_value_and_grad(losses, number)
  whole = gq.clustered_value_and_grad(planned(problem, number), number)
  passes = masked(losses, number)
  # Compiled once, for groups of any sizes.
  compiled = {
    "plain": functools.cache(lambda: timing.compile_call(plain, params, batch)),
    "groups": functools.cache(lambda: timing.compile_call(grouped, params, batch, labels["equal"])),
    "whole step": functools.cache(
      lambda: timing.compile_call(whole, params, (batch, labels["equal"]))
    ),
  }

  def of_sizes(way: str, *inputs: Any) -> Maker:
    bind = lambda step: step._replace(launch=functools.partial(step.launch, *inputs))
    return lambda: bind(compiled[way]())

  makers: dict[str, Maker] = dict.fromkeys(("plain", "plain again"), compiled["plain"])
  for kind, of in labels.items():
    makers[f"groups, {kind}"] = of_sizes("groups", params, batch, of)
    makers[f"whole step, {kind}"] = of_sizes("whole step", params, (batch, plan(workload, kind)))
  makers["K masked passes"] = lambda: timing.compile_call(passes, params, batch, labels["equal"])
  bars = {way: workload.bars[way.startswith("whole")] for way in wanted if ", " in way}
  rows = compare(makers, "plain", wanted, bars)
  for way in bars.keys() & rows.keys():
    rows[way]["counts"] = _counts(makers[way]().launch()[1])  # type: ignore[misc]
  return rows


def weights(tiny: bool) -> Iterable[Job]:
  """The gradient of a loss weighted by rarity, the weights inside, against that of a plain one."""
  for workload in workloads.TINY if tiny else workloads.FULL:
    if workload.title in workloads.WEIGHED:
      yield Job("weights", workload.title, WEIGHTS, functools.partial(_weights, workload))


def _weights(workload: Workload, wanted: list[str]) -> dict[str, Row]:
  problem = workloads.make(workload)
  model, (x, y) = problem.model, problem.batch
  cross_entropy = optax.softmax_cross_entropy_with_integer_labels
  logits, features = jax.eval_shape(model.apply, problem.params, x)
  begin = jax.random.normal(jax.random.key(1), (10, features.shape[1]))

  def weighted(rarity: Any, of_outputs: bool = False) -> Maker:
    def step(state, params, x, y):
      def loss(params):
        logits, features = model.apply(params, x)
        losses = cross_entropy(logits, y)
        if rarity is None:
          return jnp.mean(losses), state
        outputs = gq.output_gradients(cross_entropy, logits, y)
        weights, new_state = rarity.update(outputs if of_outputs else features, state)
        return jnp.mean(weights * losses), new_state

      (value, new_state), gradient = jax.value_and_grad(loss, has_aux=True)(params)
      return new_state, value, gradient

    state = () if rarity is None else rarity.init(logits if of_outputs else features)
    return lambda: timing.compile_step(step, state, problem.params, x, y)

  plain = functools.cache(weighted(None))
  makers: dict[str, Maker] = {
    "plain": plain,
    WEIGHTS[0]: plain,
    WEIGHTS[1]: weighted(gq.group_scarcity(10)),
    WEIGHTS[2]: weighted(gq.group_scarcity(20, pooling=0.5)),
    WEIGHTS[3]: weighted(gq.group_scarcity(10, centroids=begin)),
    WEIGHTS[4]: weighted(gq.group_scarcity(10), True),
    WEIGHTS[5]: weighted(gq.example_scarcity()),
  }
  bars = {way: workload.bars[2] for way in wanted if not way.startswith("plain")}
  return compare(makers, "plain", wanted, bars)


def kmeans(tiny: bool) -> Iterable[Job]:
  """Rarity and K-means alone, against one product of embeddings and centroids."""
  for n, d, num_groups in ((16, 4, 3),) if tiny else SHAPES:
    ways: tuple[str, ...] = ("group_scarcity.update", UPDATE_GIVEN, "kmeans")
    # Example scarcity makes an array of all pairs.
    ways = (*ways, "example_scarcity.update") if n <= 8192 else ways
    run = functools.partial(_kmeans, n, d, num_groups)
    yield Job("kmeans", f"n={n}, d={d}, K={num_groups}", ways, run)


def _kmeans(n: int, d: int, num_groups: int, wanted: list[str]) -> dict[str, Row]:
  x = jax.random.normal(jax.random.key(1), (n, d))
  product = lambda x: jax.lax.dot(x, x[:num_groups].T, precision="highest")
  found = lambda x: gq.kmeans(x, num_groups, num_iters=5).labels

  def updating(rarity: Any) -> Maker:
    step = lambda state, x: rarity.update(x, state)[::-1]
    return lambda: timing.compile_step(step, rarity.init(d), x)

  makers: dict[str, Maker] = {
    "one product": lambda: timing.compile_call(product, x),
    "kmeans": lambda: timing.compile_call(found, x),
    "group_scarcity.update": updating(gq.group_scarcity(num_groups, pooling=0.5)),
    UPDATE_GIVEN: updating(gq.group_scarcity(num_groups, pooling=0.5, centroids=x[:num_groups])),
    "example_scarcity.update": updating(gq.example_scarcity()),
  }
  bars: Bars = {}
  if (n, d) == (1024, 128):
    bars["group_scarcity.update"] = bars[UPDATE_GIVEN] = 0.24
  if n == 8192:
    bars["kmeans"] = 1.2
  return compare(makers, "one product", wanted, bars, "ms")
