# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Gradients, groups and weights by rarity, for `benchmarks.cost.timed`."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import optax

import gq_optax as gq
from benchmarks.cost import workloads
from benchmarks.cost.steps import Bars, Job, Maker, Row, Step, compare, compile_call, compile_step
from benchmarks.cost.workloads import Workload

WEIGHTS: dict[str, tuple[str, Any]] = {  # the embedding, and what weighs
  "groups of features, K=10": ("features", gq.group_scarcity(10)),
  "groups of features, K=20, pooled": ("features", gq.group_scarcity(20, pooling=0.5)),
  "groups of output gradients, K=10": ("outputs", gq.group_scarcity(10)),
  "examples by features": ("features", gq.example_scarcity(bandwidth=0.25, loss_exponent=0.5)),
  "examples by output gradients": ("outputs", gq.example_scarcity()),
}
SHAPES = ((1024, 128, 10), (1024, 512, 16), (8192, 512, 64), (65_536, 512, 64))  # n, d, K
QUEUED, KMEANS = "plain, grad_queue K=1", "K-means alone"
EIGHTHS = "groups, an eighth at a time"  # of the batch
MASKED, MICRO, EACH = "K masked passes", "optax.microbatching", "vmap(grad), group means"
# The last writes into the memory of the group gradients of the step before.
KINDS = ("groups", "whole step", "groups, donated", "whole step, donated")
ROOM = 2**31  # bytes of gradients of single examples that are not formed


def masked(losses: Callable[..., Any], num_groups: int) -> Callable[..., Any]:
  """The mean gradients of the groups by one masked pass after another, `[K, *p]`."""

  def gradients(params, batch, labels):
    def one(k):
      member = (labels == k).astype(jnp.float32)
      mean = lambda p: jnp.sum(losses(p, batch) * member) / jnp.maximum(jnp.sum(member), 1.0)
      return jax.grad(mean)(params)

    if jax.default_backend() == "cpu":  # where convolutions are slow in loops
      return jax.tree.map(lambda *g: jnp.stack(g), *map(one, range(num_groups)))
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


def groups(tiny: bool) -> Iterable[Job]:
  """Group gradients alone, and the whole step with embeddings and K-means, against a plain one."""
  kinds = [f"{way}, {kind}" for way in KINDS for kind in ("equal", "skewed")]
  ways = ("plain again", QUEUED, *kinds, EIGHTHS, KMEANS, MASKED, MICRO)
  for workload in workloads.TINY[:1] if tiny else workloads.FULL:
    yield Job("groups", workload.title, (*ways, EACH), functools.partial(_groups, workload))


def _groups(workload: Workload, wanted: list[str]) -> dict[str, Row]:
  problem, number = workloads.make(workload), workload.num_groups
  params, batch = problem.params, problem.batch
  losses = lambda p, b: problem.loss_fn(p, b)[0]
  labels = {kind: workloads.make_labels(workload, kind) for kind in ("equal", "skewed")}
  plain = lambda p, b: jax.value_and_grad(lambda p: jnp.mean(losses(p, b)))(p)
  functions = {
    "groups": gq.grouped_value_and_grad(losses, number),
    "whole step": gq.clustered_value_and_grad(planned(problem, number), number),
  }
  makers: dict[str, Maker] = {}
  for name, function in functions.items():
    inputs = {
      kind: (batch, of) if name == "groups" else ((batch, plan(workload, kind)),)
      for kind, of in labels.items()
    }
    # Compiled once, for groups of any sizes.
    once = functools.cache(functools.partial(compile_call, function, params, *inputs["equal"]))
    twice = functools.cache(functools.partial(_donated, function, params, *inputs["equal"]))
    for kind, given in inputs.items():
      makers[f"{name}, {kind}"] = functools.partial(_bound, once, params, *given)
      makers[f"{name}, donated, {kind}"] = functools.partial(_bound, twice, params, *given)
  alone = functools.cache(lambda: compile_call(plain, params, batch))
  makers |= dict.fromkeys(("plain", "plain again"), alone)
  makers |= {
    QUEUED: lambda: _queued(plain, params, batch),
    KMEANS: lambda: compile_call(
      lambda x: gq.kmeans(x, number, num_iters=5).labels, problem.loss_fn(params, batch)[1]
    ),
    EIGHTHS: lambda: compile_call(
      gq.per_example_value_and_grad(
        losses, num_groups=number, microbatch_size=workload.batch_size // 8
      ),
      *(params, batch, labels["equal"]),
    ),
    MASKED: lambda: compile_call(masked(losses, number), params, batch, labels["equal"]),
    MICRO: lambda: compile_call(_microbatched(losses, workload), params, *batch),
    EACH: lambda: compile_call(_each(losses, number), params, batch, labels["equal"]),
  }
  if sum(p.size for p in jax.tree.leaves(params)) * workload.batch_size * 4 >= ROOM:
    wanted = [way for way in wanted if way != EACH]
  bars: Bars = {
    way: workload.bars[way.startswith("whole")]
    for way in wanted
    if way.endswith(("equal", "skewed"))
  }
  return compare(makers, "plain", wanted, bars)


def _bound(make: Maker, *inputs: Any) -> Step:
  """A step that was compiled before, with these inputs."""
  step = make()
  return step._replace(launch=lambda: step.launch(*inputs))


def _donated(function: Callable[..., Any], params: Any, *inputs: Any) -> Step:
  """Into the memory of the group gradients of the step before, which are given away."""

  def donated(groups, params, *inputs):
    del groups
    value, groups = function(params, *inputs)
    return groups, value

  shapes = jax.eval_shape(function, params, *inputs)[1]
  groups = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  return compile_step(donated, groups, params, *inputs)


def _queued(plain: Callable[..., Any], params: Any, batch: Any) -> Step:
  """The plain gradient through a queue of 3 that it carries along, donated from step to step."""
  tx = gq.grad_queue(queue_length=3)

  def queued(state, params, batch):
    value, gradient = plain(params, batch)
    updates, state = tx.update(gradient, state)
    return state, value, updates

  return compile_step(queued, tx.init(params), params, batch)


def _microbatched(losses: Callable[..., Any], workload: Workload) -> Callable[..., Any]:
  """The plain gradient a part of the batch after another."""
  return optax.microbatching.microbatch(
    jax.value_and_grad(lambda p, *batch: jnp.mean(losses(p, batch))),
    argnums=(1, 2),
    microbatch_size=max(1, workload.batch_size // (4 * workload.num_groups)),
    accumulator=optax.microbatching.AccumulationType.MEAN,
  )


def _each(losses: Callable[..., Any], number: int) -> Callable[..., Any]:
  """Group means of the gradients of single examples."""

  def per_example(params, batch, labels):
    one = lambda p, *example: losses(p, jax.tree.map(lambda x: x[None], example))[0]
    each = jax.vmap(jax.grad(one), (None, 0, 0))(params, *batch)
    member = jax.nn.one_hot(labels, number, axis=0)
    share = member / jnp.maximum(jnp.sum(member, axis=1, keepdims=True), 1.0)
    return jax.tree.map(lambda g: jnp.tensordot(share, g, axes=1), each)

  return per_example


def weights(tiny: bool) -> Iterable[Job]:
  """The gradient of a loss weighted by rarity, the weights inside, against that of a plain one."""
  for workload in workloads.TINY if tiny else (*workloads.FULL, workloads.SMALL):
    if workload.title in workloads.WEIGHED:
      ways = ("plain again", *WEIGHTS)
      yield Job("weights", workload.title, ways, functools.partial(_weights, workload))


def _weights(workload: Workload, wanted: list[str]) -> dict[str, Row]:
  problem = workloads.make(workload)
  model, (x, y) = problem.model, problem.batch
  cross_entropy = optax.softmax_cross_entropy_with_integer_labels
  logits, features = jax.eval_shape(model.apply, problem.params, x)

  def weighted(embedding: str, rarity: Any) -> Maker:
    def step(state, params, x, y):
      def loss(params):
        logits, features = model.apply(params, x)
        losses = cross_entropy(logits, y)
        if rarity is None:
          return jnp.mean(losses), state
        outputs = gq.output_gradients(cross_entropy, logits, y)
        more = {"losses": losses} if isinstance(state, gq.ExampleScarcityState) else {}
        embeddings = features if embedding == "features" else outputs
        weights, new_state = rarity.update(embeddings, state, **more)
        return jnp.mean(weights * losses), new_state

      (value, new_state), gradient = jax.value_and_grad(loss, has_aux=True)(params)
      return new_state, value, gradient

    state = () if rarity is None else rarity.init(features if embedding == "features" else logits)
    return lambda: compile_step(step, state, problem.params, x, y)

  makers = {way: weighted(*of) for way, of in WEIGHTS.items()}
  makers |= dict.fromkeys(("plain", "plain again"), functools.cache(weighted("", None)))
  bars = {way: workload.bars[2] for way in wanted if not way.startswith("plain")}
  return compare(makers, "plain", wanted, bars)


def kmeans(tiny: bool) -> Iterable[Job]:
  """Rarity and K-means alone, against one product of embeddings and centroids."""
  for n, d, num_groups in ((16, 4, 3),) if tiny else SHAPES:
    ways: tuple[str, ...] = ("group_scarcity.update", "kmeans")
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
    return lambda: compile_step(step, rarity.init(d), x)

  makers: dict[str, Maker] = {
    "one product": lambda: compile_call(product, x),
    "kmeans": lambda: compile_call(found, x),
    "group_scarcity.update": updating(gq.group_scarcity(num_groups, pooling=0.5)),
    "example_scarcity.update": updating(gq.example_scarcity()),
  }
  bars: Bars = {}
  if (n, d) == (1024, 128):
    bars["group_scarcity.update"] = 0.24
  if n == 8192:
    bars["kmeans"] = 1.2
  return compare(makers, "one product", wanted, bars, "ms")
