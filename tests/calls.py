# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""A right call of all that is public, and for each of its arguments what would be wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec as P

import gq_optax as gq

X = np.arange(24, dtype=np.float32).reshape(8, 3) / 10.0
W = np.ones(3, np.float32)
LABELS = np.arange(8) % 2
MASK = np.ones(8, bool)
TX = gq.grad_queue((1, 2), num_clusters=2, track=True)
STATE = TX.init(W)
SCARCITY = gq.group_scarcity(2, 3)
GROUPS = SCARCITY.init(3)
EXAMPLES = gq.example_scarcity(4)
SPECS = P()


class Thing:
  """Nothing that could be meant."""

  def __repr__(self):
    return "Thing"


THING = Thing()
STRANGE = ["x", THING, [1.0, "x"], {1, 2}, b"x", np.array(["x"]), 1 << 80]
NO_ARRAY = [*STRANGE, None, len]
NO_FLOATS = [*NO_ARRAY, np.complex64([1j]), np.arange(8), True, jax.random.key(0)]
NO_INT = ["x", None, 1.5, True, -1, THING, jnp.int32(2), [2], float("nan")]
NO_SIZE = [v for v in NO_INT if not isinstance(v, jax.Array)]  # a scalar may be one of JAX
NO_REAL = ["x", None, float("nan"), -1.0, True, 1j, THING, np.ones(2), np.float32("inf")]
NO_CHOICE = ["x", None, 3, THING, ("cosine",), True]
NO_FLAG = ["x", None, 1, THING, 0.0]
NO_FUNCTION = ["x", 3, THING, X]
NO_KEY = ["x", None, 1.5, True, THING, np.zeros(3, np.uint32), np.zeros(2), 1 << 70, [0, 1]]
NO_MASK = [*STRANGE, LABELS, X > 0, MASK[:5], np.float32(MASK), True, len]
NO_LABELS = [*NO_ARRAY, MASK, np.float32(LABELS), LABELS[:5], LABELS[None], 1]
NO_BATCH = [*STRANGE, np.float32(1.0), {}, {"a": X, "b": X[:5]}, X[:0], len]
NO_AXIS = [3, "", (), ("b", 1), THING, True]
NO_ROWS = [*NO_FLOATS, X[0], X[:, :2], X[:0]]
NO_TREE = [*NO_FLOATS, {"a": THING}, [X, 1j]]
NO_GROUPS = [
  gq.GroupGradients(X[:2], np.ones(3)),
  gq.GroupGradients(X[:2], "x"),
  gq.GroupGradients("x", np.ones(2)),
  gq.GroupGradients(X[:2], np.ones(2), "x"),
  gq.GroupGradients(X[:2], np.array([1j, 1])),
]
OTHER_STATES = [
  gq.grad_queue(options.pop("queue_length", (1, 2)), **options).init(W)
  for options in (
    {"queue_length": 2, "num_clusters": 2, "track": True},
    {"queue_length": (1, 3), "num_clusters": 2, "track": True},
    {"num_clusters": 2},
    {"num_clusters": 3, "track": True},
    {"num_clusters": 2, "track": True, "queue_dtype": "bfloat16"},
  )
]
NO_STATE = ["x", None, 3, {}, THING, optax.EmptyState(), GROUPS, STATE.queue, *OTHER_STATES]
NO_GROUPING = [
  *("x", None, 3, {}, THING, STATE),
  gq.group_scarcity(3, 3).init(3),
  gq.group_scarcity(2, 5).init(3),
]


def loss_fn(params, batch):
  return jnp.square(batch @ params)


def with_embeddings(params, batch):
  return loss_fn(params, batch), batch


# Of an argument of this name, wherever it is not said otherwise.
NOT_NONE = lambda values: [v for v in values if v is not None]
WRONG = {
  **dict.fromkeys(
    ("num_clusters", "num_groups", "num_iters", "num_examples", "num_nearest"), NO_INT
  ),
  **dict.fromkeys(("queue_size", "dim", "batch_size"), NO_INT),
  **dict.fromkeys(("rho", "pooling", "neighbours"), NO_REAL),
  **dict.fromkeys(("exponent", "loss_exponent", "strength"), [*NO_REAL, 5.0]),
  **dict.fromkeys(("scarcity", "embed", "loss_fn"), NO_FUNCTION),
  **dict.fromkeys(("track", "has_aux"), NO_FLAG),
  "queue_length": NO_INT,
  "bandwidth": [*NO_REAL, 0.0],
  "max_weight": [*NO_REAL, 0.5],
  "update_norm": ["x", -1.0, 0.0, True, THING, 1j],
  "queue_dtype": ["x", "int32", "complex64", bool, THING],
  "metric": NO_CHOICE,
  "key": NO_KEY,
  "axis_name": NO_AXIS,
  "embedding_dim_or_template": [*NO_SIZE, X[0], np.float32(2.0)],
  "embeddings": NO_ROWS,
  "mask": NO_MASK,
  "labels": NO_LABELS,
  "params": NOT_NONE(NO_FLOATS),
  "batch": NO_BATCH,
}


def call(function, names, wrong, right):
  """A function, arguments that are right, and what is wrong for those named, and for others."""
  return function, right, {name: WRONG[name] for name in names.split()} | wrong


def grouped(params, batch, labels, **options):
  number = options.pop("num_groups", 2)
  return gq.grouped_value_and_grad(options.pop("loss_fn", loss_fn), number, **options)(
    params, batch, labels
  )


def clustered(params, batch, key=0, mask=None, **options):
  options = {"num_groups": 2, "loss_fn": with_embeddings} | options
  return gq.clustered_value_and_grad(**options)(params, batch, key, mask)


def each(params, batch, mask=None, **options):
  return gq.per_example_value_and_grad(options.pop("loss_fn", loss_fn), **options)(
    params, batch, mask
  )


def each_group(params, batch, labels, mask=None, num_groups=2):
  step = gq.per_example_value_and_grad(loss_fn, num_groups=num_groups)
  return step(params, batch, labels, mask)


def no_bytes(tx, params):
  gq.state_bytes(tx, params)


LENGTHS = [*NO_INT, (3, 2), (1,), (0, 2), (1, "x")]
OTHER_EXAMPLES = [*NO_GROUPING, gq.example_scarcity(3).init(3)]
SUM = lambda p, x: jnp.sum(x)
CROSS_ENTROPY = optax.softmax_cross_entropy_with_integer_labels
PAIR = gq.GroupGradients(X[:2], np.array([5, 3]), X[:2, 0])

CALLS = {
  "grad_queue": call(
    gq.grad_queue,
    "rho scarcity num_clusters embed update_norm queue_dtype track key axis_name",
    {"queue_length": LENGTHS},
    {},
  ),
  "init": call(TX.init, "params", {}, {"params": W}),
  "update": call(
    TX.update,
    "params mask",
    {
      "updates": [*NO_TREE, X[:, :2], X[:0], {"a": W}, *NO_GROUPS],
      "state": NO_STATE,
      "value": [*STRANGE, X, 1j, len],
      "embeddings": [*STRANGE, X, LABELS, len],
    },
    {"updates": W, "state": STATE, "params": W, "value": 1.0, "embeddings": None, "mask": None},
  ),
  "update groups": call(
    TX.update, "", {"updates": NO_GROUPS, "state": NO_STATE}, {"updates": PAIR, "state": STATE}
  ),
  "update each": call(
    TX.update,
    "mask",
    {"state": NO_STATE, "embeddings": [*STRANGE, X[:5], X[0], X[None]]},
    {"updates": X, "state": STATE, "value": 1.0, "embeddings": X, "mask": MASK},
  ),
  "group_scarcity": call(
    gq.group_scarcity,
    "num_groups queue_length exponent metric num_iters max_weight pooling key axis_name",
    {},
    {"num_groups": 2},
  ),
  "scarcity init": call(
    SCARCITY.init, "embedding_dim_or_template", {}, {"embedding_dim_or_template": 3}
  ),
  "scarcity update": call(
    SCARCITY.update,
    "embeddings mask",
    {"state": NO_GROUPING},
    {"embeddings": X, "state": GROUPS, "mask": MASK},
  ),
  "group explain": call(
    SCARCITY.explain,
    "embeddings num_examples",
    {"state": NO_GROUPING},
    {"embeddings": X, "state": GROUPS},
  ),
  "example_scarcity": call(
    gq.example_scarcity,
    "queue_size bandwidth neighbours exponent loss_exponent metric max_weight queue_dtype"
    " axis_name",
    {},
    {},
  ),
  "example init": call(
    EXAMPLES.init, "embedding_dim_or_template", {}, {"embedding_dim_or_template": 3}
  ),
  "example update": call(
    EXAMPLES.update,
    "embeddings mask",
    {"state": OTHER_EXAMPLES, "losses": [*STRANGE, X, X[:5, 0], np.arange(8), len]},
    {"embeddings": X, "state": EXAMPLES.init(3), "mask": MASK, "losses": X[:, 0]},
  ),
  "example explain": call(
    EXAMPLES.explain,
    "embeddings num_examples num_nearest",
    {"state": OTHER_EXAMPLES},
    {"embeddings": X, "state": EXAMPLES.init(3)},
  ),
  "weighted_mean": call(
    gq.weighted_mean,
    "axis_name",
    {
      "losses": [*NO_FLOATS, np.float32(1.0), X[:5]],
      "weights": [*NO_ARRAY, np.complex64([1j]), X[0], X[:5]],
      "mask": [*STRANGE, X, MASK, len],
    },
    {"losses": X, "weights": X, "mask": X > 0.5},
  ),
  "mean_one": call(
    gq.mean_one,
    "mask strength max_weight axis_name",
    {"rarity": [*NO_ARRAY, np.complex64([1j]), np.float32(1.0)]},
    {"rarity": X[:, 0], "mask": MASK},
  ),
  "kmeans": call(
    gq.kmeans,
    "metric num_iters",
    {
      "x": [*NO_ARRAY, X[0], X[None], np.complex64(X)],
      "num_clusters": [*NO_INT, 9],
      "key": NOT_NONE(NO_KEY),
      "init": [*STRANGE, X, X[0], np.complex64(X[:2])],
      "sample_weight": [*STRANGE, X, X[:5, 0], np.complex64(X[:, 0])],
    },
    {"x": X, "num_clusters": 2},
  ),
  "output_gradients": call(
    gq.output_gradients,
    "",
    {"loss_fn": [*NO_FUNCTION, lambda o, t: jnp.sum(o)], "outputs": [*NO_FLOATS, np.float32(1.0)]},
    {"loss_fn": lambda o, t: jnp.sum(o * t, axis=1), "outputs": X, "targets": X},
  ),
  "class_rarity": call(
    gq.class_rarity,
    "",
    {
      "labels": [*NO_ARRAY, MASK, np.float32(LABELS)],
      "counts": [*NO_ARRAY, X, X[:0, 0], 3, np.array([6, -2]), np.array([1.0, np.nan])],
    },
    {"labels": LABELS, "counts": np.array([6, 2])},
  ),
  "held_out_rarity": call(
    gq.held_out_rarity,
    "",
    {
      "losses": [*NO_FLOATS, X],
      "embeddings": [*NOT_NONE(NO_FLOATS), X[:5], X[:, :1], X[:, 0]],
      "labels": NOT_NONE(NO_LABELS),
      "neighbours": NO_INT,
      "largest": [*NO_REAL, 0.5],
    },
    {"losses": X[:, 0], "embeddings": X, "labels": LABELS},
  ),
  "margin_loss": call(
    gq.margin_loss,
    "",
    {
      "loss_fn": [*NO_FUNCTION, lambda z, y: jnp.sum(z)],
      "logits": [*NO_FLOATS, np.float32(1.0), X[:5]],
      "rarity": [*NO_ARRAY, np.complex64(X[:, 0]), X, X[:5, 0]],
      "strength": [*NO_REAL, 4.5],
      "max_margin": [*NO_REAL, 0.5],
    },
    {"loss_fn": CROSS_ENTROPY, "logits": X, "labels": LABELS, "rarity": X[:, 0], "strength": 1.0},
  ),
  "adjusted_logits": call(
    gq.adjusted_logits,
    "",
    {
      "logits": NO_FLOATS,
      "counts": [*NO_ARRAY, X, np.array([6, 2]), np.array([6, 2, -1])],
      "strength": ["x", None, float("nan"), True, 1j, THING, np.ones(2), np.float32("inf")],
    },
    {"logits": X, "counts": np.array([6, 2, 1])},
  ),
  "sketch": call(
    gq.sketch,
    "dim key",
    {"per_example_tree": [*NOT_NONE(NO_TREE), {}, {"a": X, "b": X[:5]}]},
    {"per_example_tree": {"a": X}, "dim": 2, "key": 0},
  ),
  "grouped": call(
    grouped,
    "params batch labels has_aux num_groups",
    {"loss_fn": [*NO_FUNCTION, SUM, with_embeddings]},
    {"params": W, "batch": X, "labels": LABELS},
  ),
  "clustered": call(
    clustered,
    "params batch mask num_groups metric num_iters",
    {"key": NOT_NONE(NO_KEY), "loss_fn": [*NO_FUNCTION, loss_fn]},
    {"params": W, "batch": X},
  ),
  "each": call(
    each,
    "params batch mask",
    {"loss_fn": [*NO_FUNCTION, SUM, with_embeddings], "microbatch_size": NOT_NONE(NO_INT)},
    {"params": W, "batch": X},
  ),
  "each group": call(
    each_group,
    "labels mask",
    {"num_groups": NOT_NONE(NO_INT)},
    {"params": W, "batch": X, "labels": LABELS},
  ),
  "noise_scale": call(
    gq.noise_scale,
    "",
    {"group_gradients": [*NO_ARRAY, X, *NO_GROUPS, gq.GroupGradients(X[:1], np.ones(1))]},
    {"group_gradients": gq.GroupGradients(X[:2], np.array([4, 4]))},
  ),
  "suggest_num_clusters": call(
    gq.suggest_num_clusters,
    "batch_size",
    {"noise_scale": [*STRANGE[:-1], X, 1j, None]},
    {"batch_size": 8, "noise_scale": 2.0},
  ),
  "random_groups": call(
    gq.random_groups,
    "key batch_size",
    {"num_groups": [*NO_INT, 9]},
    {"key": 0, "batch_size": 8, "num_groups": 2},
  ),
  "diagnostics": call(
    gq.diagnostics,
    "",
    {"opt_state": [*STRANGE, None, gq.grad_queue().init(W), optax.EmptyState()]},
    {"opt_state": STATE},
  ),
  "state_bytes": call(no_bytes, "params", {"tx": STRANGE}, {"tx": TX, "params": W}),
  "partition_specs": call(
    gq.partition_specs,
    "axis_name",
    {
      "opt_state_shapes": [*STRANGE, None, optax.EmptyState()],
      "param_specs": [*STRANGE, None, {"a": SPECS}, P("a", "b")],
    },
    {"opt_state_shapes": STATE, "param_specs": SPECS},
  ),
  "delta_rho": call(
    gq.delta_rho,
    "",
    {
      "g": NO_FLOATS,
      "mean": [*NO_FLOATS, X[:5]],
      "std": [*NO_FLOATS, X[0]],
      "rho": [*STRANGE[:-1], None, len, X, 1j],
    },
    {"g": X, "mean": X, "std": X},
  ),
}
