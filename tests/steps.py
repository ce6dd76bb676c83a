# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""A step of all that is public: each maker gives a first state and `step(state, x, labels, mask)`.

A step returns its next state, and a pair: what a user takes from it, and all else. The number and
the key of a maker stand for options that may be traced.
"""

import jax
import jax.numpy as jnp
import optax

import gq_optax as gq

STEPS, B, D, K = 4, 12, 4, 3
W = jnp.ones(D)
cross_entropy = optax.softmax_cross_entropy_with_integer_labels


def batches(*lead):
  """`STEPS` batches: among them rows that are equal, and a group that is empty."""
  x = jax.random.normal(jax.random.key(0), (*lead, STEPS, B, D))
  x = x.at[..., 5, :].set(1.0).at[..., 4, :].set(1.0)
  labels = jnp.broadcast_to(jnp.arange(B, dtype=jnp.int32) % 2 * 2, (*lead, STEPS, B))
  return x, labels, jnp.broadcast_to(jnp.arange(B) < B - 2, (*lead, STEPS, B))


def loss_fn(w, x):
  return jnp.sum(jnp.square(x * w[None]), axis=1)


def with_embeddings(w, x):
  return loss_fn(w, x), x


def queue(form, **options):
  def make(number, key):
    tx = gq.grad_queue(
      **{"queue_length": 2, "rho": 1 + number, "key": key, "track": True} | options
    )

    def step(state, x, labels, mask):
      updates, extra = {
        "mean": ({"w": x[0]}, {}),
        "examples": ({"w": x}, {"mask": mask, "embeddings": x}),
        "sketches": ({"w": x}, {"mask": mask}),
        "groups": (gq.GroupGradients({"w": x[:K]}, jnp.array([4, 0, 8]), x[:K, 0]), {}),
      }[form]
      extra["value"] = jnp.mean(jnp.square(x))
      update, state = tx.update(updates, state, **extra)
      return state, (update, gq.diagnostics(state))

    return lambda dtype: tx.init({"w": W.astype(dtype)}), step

  return make


def examples(**options):
  def make(number, key):
    scarcity = gq.example_scarcity(16, **{"exponent": number, "neighbours": number} | options)

    def step(state, x, labels, mask):
      losses = jnp.square(x[:, 0])
      weights, state = scarcity.update(x, state, mask=mask, losses=losses)
      mean = gq.weighted_mean(losses, weights, mask)
      return state, (weights, (mean, gq.diagnostics(state), scarcity.explain(x, state)))

    return lambda dtype: scarcity.init(D), step

  return make


def groups(**options):
  def make(number, key):
    scarcity = gq.group_scarcity(K, 2, **{"key": key, "exponent": number} | options)

    def step(state, x, labels, mask):
      weights, state = scarcity.update(x, state, mask=mask)
      return state, (weights, (gq.diagnostics(state), scarcity.explain(x, state, 2)))

    return lambda dtype: scarcity.init(D), step

  return make


def pure(function):
  """Of a function `(x, labels, mask, number, key)` without a state."""

  def make(*options):
    return lambda dtype: (), lambda _, *batch: ((), function(*batch, *options))

  return make


def kmeans(**options):
  def run(x, labels, mask, number, key):
    init = x[:K] if "init" in options else None
    key = None if init is not None else key
    weight = None if mask is None else mask.astype(jnp.float32)
    return gq.kmeans(x, K, metric=options["metric"], key=key, init=init, sample_weight=weight), ()

  return pure(run)


def grouped(x, labels, mask, number, key):
  value, found = gq.grouped_value_and_grad(loss_fn, K)(W.astype(x.dtype), x, labels)
  return (value, found), gq.noise_scale(gq.GroupGradients(x[:K], jnp.array([4, 4, 4])))


def clustered(x, labels, mask, number, key):
  return gq.clustered_value_and_grad(with_embeddings, K)(W.astype(x.dtype), x, key, mask), ()


def per_example(x, labels, mask, number, key):
  w = W.astype(x.dtype)
  by_group = gq.per_example_value_and_grad(loss_fn, num_groups=K, microbatch_size=5)
  at_once = gq.per_example_value_and_grad(loss_fn)(w, x, mask)
  return at_once, by_group(w, x, labels, mask)


def losses(x, labels, mask, number, key):
  found = jnp.square(x[:, 0])
  found = found if mask is None else jnp.where(mask, found, 1e4)
  mean = lambda found: gq.weighted_mean(found, gq.mean_one(found, mask, strength=number), mask)
  return gq.mean_one(found, mask), jax.value_and_grad(mean)(found)


def embeddings(x, labels, mask, number, key):
  outputs = gq.output_gradients(cross_entropy, x, labels)
  rows = jnp.stack([x, x * 2.0], axis=1)
  return (outputs, gq.sketch({"w": rows, "b": x[:, 0]}, 3, key), gq.random_groups(key, B, 5)), ()


def delta_rho(x, labels, mask, number, key):
  return gq.delta_rho(x, x * 0.0, x * 0.0, rho=1 + number), gq.delta_rho(x, x[::-1], abs(x))


def margins(x, labels, mask, number, key):
  counts = jnp.array([6, 3, 2, 1])
  rarity = gq.class_rarity(labels, counts)
  lengths = gq.margin_loss(cross_entropy, x, labels, rarity, strength=0.5)
  held_out = gq.held_out_rarity(lengths, embeddings=x, labels=labels, neighbours=2)
  return (lengths, rarity, held_out, gq.adjusted_logits(x, counts)), ()


MAKERS = {
  "examples": examples(),
  "examples, euclidean": examples(metric="euclidean", queue_dtype=jnp.bfloat16),
  "examples, losses": examples(loss_exponent=0.5),
  "groups": groups(),
  "groups, pooled": groups(metric="euclidean", pooling=0.5),
  "groups, given": groups(num_iters=0, centroids=batches()[0][0, :K]),
  "kmeans, cosine": kmeans(metric="cosine"),
  "kmeans, euclidean": kmeans(metric="euclidean"),
  "kmeans, given": kmeans(metric="euclidean", init=True),
  "queue": queue("mean"),
  "queue, adaptive": queue("mean", queue_length=(1, 3), update_norm="match"),
  "queue, narrow": queue("mean", queue_dtype=jnp.bfloat16, update_norm=1.0),
  "queue of examples": queue("examples", num_clusters=K, update_norm="match"),
  "queue of sketches": queue("sketches", num_clusters=K),
  "queue of groups": queue("groups", queue_length=(1, 2), num_clusters=K),
  "grouped": pure(grouped),
  "clustered": pure(clustered),
  "per example": pure(per_example),
  "losses": pure(losses),
  "embeddings": pure(embeddings),
  "delta_rho": pure(delta_rho),
  "margins": pure(margins),
}


def scanned(name, number, x, labels, mask, key=None, axis_name=None):
  """The last state, and what all steps gave, in one `lax.scan`."""
  init, step = MAKERS[name](number, number if key is None else key)
  state = init(x.dtype)
  if axis_name is not None:  # a loop must carry the same kind from step to step
    state = jax.tree.map(lambda leaf: jax.lax.pcast(leaf, axis_name, to="varying"), state)
  return jax.lax.scan(lambda state, batch: step(state, *batch), state, (x, labels, mask))


def looped(name, number, x, labels, mask):
  """The same in steps that are compiled once, and each given the memory of the last."""
  init, step = MAKERS[name](number, number)
  # What is the same twice in a state, or of the options, can not be given away.
  state, found = jax.tree.map(jnp.copy, init(x.dtype)), []
  step = jax.jit(step, donate_argnums=0)
  for t in range(STEPS):
    state, out = step(state, x[t], labels[t], mask[t])
    found.append(out)
  assert step._cache_size() == 1
  return state, jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)
