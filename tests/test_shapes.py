# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Shapes and dtypes of all public functions, as types that are checked at run time.

The library itself does without jaxtyping; the signatures below say what its docstrings do.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
import pytest
from beartype import beartype
from jaxtyping import Array, Bool, Float, Float32, Int32, PyTree, jaxtyped

import gq_optax as gq

typed = jaxtyped(typechecker=beartype)
KEY = jax.random.key(0)


@typed
def kmeans(
  x: Float[Array, "n d"], num_clusters: int
) -> tuple[
  Float32[Array, "{num_clusters} d"],
  Int32[Array, " n"],
  Int32[Array, " {num_clusters}"],
  Float32[Array, ""],
  Bool[Array, ""],
]:
  return tuple(gq.kmeans(x, num_clusters))


@typed
def sketch(tree: PyTree[Float[Array, "b ..."]], dim: int) -> Float32[Array, "_ {dim}"]:
  return gq.sketch(tree, dim, KEY)


@typed
def output_gradients(
  logits: Float[Array, "b c"], labels: Int32[Array, " b"]
) -> Float[Array, "b c"]:
  loss = optax.softmax_cross_entropy_with_integer_labels
  found = gq.output_gradients(loss, logits, labels)
  assert found.dtype == logits.dtype
  return found


@typed
def class_rarity(labels: Int32[Array, " b"], counts: Array) -> Float32[Array, " b"]:
  return gq.class_rarity(labels, counts)


@typed
def held_out_rarity(
  losses: Float[Array, " n"], embeddings: Float[Array, "n d"], labels: Int32[Array, " n"]
) -> Float32[Array, " n"]:
  return gq.held_out_rarity(losses, embeddings=embeddings, labels=labels)


@typed
def margin_loss(
  logits: Float[Array, "b c"], labels: Int32[Array, " b"], rarity: Float[Array, " b"]
) -> Float32[Array, " b"]:
  loss = optax.softmax_cross_entropy_with_integer_labels
  return gq.margin_loss(loss, logits, labels, rarity, strength=0.5)


@typed
def adjusted_logits(logits: Float[Array, "b c"], counts: Array) -> Float32[Array, "b c"]:
  return gq.adjusted_logits(logits, counts)


@typed
def group_scarcity(
  embeddings: Float[Array, "b d"], num_groups: int
) -> tuple[
  Float32[Array, " b"],
  Float32[Array, "{num_groups} d"],
  Int32[Array, "4 {num_groups}"],
  Float32[Array, " {num_groups}"],
  Int32[Array, " {num_groups}"],
  Int32[Array, ""],
  Int32[Array, ""],
]:
  scarcity = gq.group_scarcity(num_groups, queue_length=4)
  weights, s = scarcity.update(embeddings, scarcity.init(embeddings))
  return weights, s.centroids, s.counts, s.weights, s.ages, s.index, s.count


@typed
def explain_groups(
  embeddings: Float[Array, "b d"], num_groups: int, num_examples: int
) -> tuple[
  Int32[Array, "{num_groups} {num_examples}"],
  Int32[Array, " {num_groups}"],
  Float32[Array, " {num_groups}"],
  Float32[Array, " {num_groups}"],
  Int32[Array, " {num_groups}"],
]:
  scarcity = gq.group_scarcity(num_groups)
  _, state = scarcity.update(embeddings, scarcity.init(embeddings))
  found = scarcity.explain(embeddings, state, num_examples=num_examples)
  return found.indices, found.sizes, found.shares, found.weights, found.rarest_first


@typed
def random_groups(batch_size: int, num_groups: int) -> Int32[Array, " {batch_size}"]:
  return gq.random_groups(0, batch_size, num_groups)


@typed
def scarcity_function(
  function: Callable, g: Float[Array, "*p"], mean: Float[Array, "*p"], std: Float[Array, "*p"]
) -> Float[Array, "*p"]:
  found = function(g, mean, std)
  assert found.dtype == g.dtype
  return found


@typed
def grouped(
  params: Float[Array, "d c"], x: Float[Array, "b d"], labels: Int32[Array, " b"], k: int
) -> tuple[
  Float32[Array, ""], Float[Array, "{k} d c"], Int32[Array, " {k}"], Float32[Array, " {k}"]
]:
  loss_fn = lambda w, x: jnp.sum(jnp.square(x @ w), axis=1, dtype=jnp.float32)
  loss, groups = gq.grouped_value_and_grad(loss_fn, k)(params, x, labels)
  assert groups.grads.dtype == params.dtype
  return loss, groups.grads, groups.counts, groups.losses


@typed
def per_example(
  params: Float[Array, "d c"], x: Float[Array, "b d"]
) -> tuple[Float[Array, " b"], Float[Array, "b d c"]]:
  return gq.per_example_value_and_grad(lambda w, x: jnp.sum(jnp.square(x @ w), axis=1))(params, x)


@typed
def update(
  tx: optax.GradientTransformationExtraArgs,
  params: Float[Array, "*p"],
  gradient: Float[Array, "..."] | gq.GroupGradients,
) -> tuple[Float[Array, "*p"], Float[Array, "3 *p"], Int32[Array, ""], Int32[Array, ""]]:
  state = tx.init(params)
  result, state = tx.update(gradient, state)
  return result, state.queue.slots, state.queue.index, state.queue.count


def trace(function, *args):
  """Checks the types while tracing: nothing is compiled."""
  static = [a if isinstance(a, int | Callable | tuple) else None for a in args]
  arrays = [a for a, s in zip(args, static, strict=True) if s is None]

  def call(*arrays):
    rest = iter(arrays)
    return function(*(next(rest) if s is None else s for s in static))

  jax.eval_shape(call, *arrays)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_clustering_and_groups(dtype):
  x = jnp.ones((12, 5), dtype)
  trace(kmeans, x, 3)
  trace(sketch, {"a": x, "b": x[:, 0]}, 7)
  trace(output_gradients, x, jnp.zeros(12, jnp.int32))
  trace(group_scarcity, x, 3)
  trace(explain_groups, x, 3, 2)
  trace(random_groups, 12, 5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_rarity_of_classes_and_margins(dtype):
  x, labels = jnp.ones((12, 5), dtype), jnp.zeros(12, jnp.int32)
  trace(class_rarity, labels, jnp.ones(5, jnp.int32))
  trace(held_out_rarity, x[:, 0], x, labels)
  trace(margin_loss, x, labels, x[:, 0])
  trace(adjusted_logits, x, jnp.ones(5, jnp.int32))


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_scarcity_functions(shape):
  g = jnp.ones(shape)
  trace(scarcity_function, gq.delta_rho, g, g, g)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_gradients(dtype):
  params, x = jnp.ones((4, 3), dtype), jnp.ones((8, 4), dtype)
  trace(grouped, params, x, jnp.arange(8, dtype=jnp.int32) % 2, 2)
  trace(per_example, params, x)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_updates_of_all_three_forms(dtype):
  params = jnp.ones((4, 3), dtype)
  parts, counts = jnp.ones((2, 4, 3), dtype), jnp.array([3, 5], jnp.int32)
  trace(update, gq.grad_queue(3), params, params)
  trace(update, gq.grad_queue(3, num_clusters=2), params, jnp.ones((8, 4, 3), dtype))
  grouped_update = lambda tx, params, parts, counts: update(
    tx, params, gq.GroupGradients(parts, counts, None)
  )
  trace(grouped_update, gq.grad_queue(3), params, parts, counts)


def test_a_wrong_shape_is_found():
  @typed
  def wrong(x: Float[Array, "n d"]) -> Int32[Array, " d"]:
    return gq.kmeans(x, 2).labels

  with pytest.raises(Exception, match="wrong"):
    wrong(jnp.arange(12.0).reshape(4, 3))
