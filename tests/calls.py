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


QUEUE_OPTIONS = {
  "queue_length": [*NO_INT, (3, 2), (1,), (0, 2), (1, "x")],
  "rho": NO_REAL,
  "scarcity": NO_FUNCTION,
  "num_clusters": NO_INT,
  "embed": NO_FUNCTION,
  "update_norm": ["x", -1.0, 0.0, True, THING, 1j],
  "queue_dtype": ["x", "int32", "complex64", bool, THING],
  "track": NO_FLAG,
  "key": NO_KEY,
  "axis_name": NO_AXIS,
}
STATISTICS = {"g": NO_FLOATS, "mean": [*NO_FLOATS, X[:5]], "std": [*NO_FLOATS, X[0]]}
STATISTICS_OK = {"g": X, "mean": X, "std": X}
GROUPED = {"params": NO_FLOATS, "batch": NO_BATCH}


def grouped(params, batch, labels, **options):
  return gq.grouped_value_and_grad(options.pop("loss_fn", loss_fn), 2, **options)(
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


def some_state_bytes(tx, params):
  gq.state_bytes(tx, params)


# A function, arguments that are right, and for each argument what is wrong.
CALLS = {
  "grad_queue": (gq.grad_queue, {}, QUEUE_OPTIONS),
  "init": (TX.init, {"params": W}, {"params": [v for v in NO_FLOATS if v is not None]}),
  "update": (
    TX.update,
    {"updates": W, "state": STATE, "params": W, "value": 1.0, "embeddings": None, "mask": None},
    {
      "updates": [*NO_TREE, X[:, :2], X[:0], {"a": W}, *NO_GROUPS],
      "state": NO_STATE,
      "params": [v for v in NO_FLOATS if v is not None],
      "value": [*STRANGE, X, 1j, len],
      "embeddings": [*STRANGE, X, LABELS, len],
      "mask": NO_MASK,
    },
  ),
  "update each": (
    TX.update,
    {"updates": X, "state": STATE, "value": 1.0, "embeddings": X, "mask": MASK},
    {"state": NO_STATE, "embeddings": [*STRANGE, X[:5], X[0], X[None]], "mask": NO_MASK},
  ),
  "group_scarcity": (
    gq.group_scarcity,
    {"num_groups": 2},
    {
      "num_groups": NO_INT,
      "queue_length": NO_INT,
      "exponent": [*NO_REAL, 5.0],
      "metric": NO_CHOICE,
      "num_iters": NO_INT,
      "max_weight": [*NO_REAL, 0.5],
      "pooling": NO_REAL,
      "key": NO_KEY,
      "axis_name": NO_AXIS,
    },
  ),
  "scarcity init": (
    SCARCITY.init,
    {"embedding_dim_or_template": 3},
    {"embedding_dim_or_template": [*NO_SIZE, X[0], np.float32(2.0)]},
  ),
  "scarcity update": (
    SCARCITY.update,
    {"embeddings": X, "state": GROUPS, "mask": MASK},
    {"embeddings": [*NO_FLOATS, X[0], X[:, :2], X[:0]], "state": NO_GROUPING, "mask": NO_MASK},
  ),
  "group explain": (
    SCARCITY.explain,
    {"embeddings": X, "state": GROUPS},
    {
      "embeddings": [*NO_FLOATS, X[0], X[:, :2], X[:0]],
      "state": NO_GROUPING,
      "num_examples": NO_INT,
    },
  ),
  "example explain": (
    EXAMPLES.explain,
    {"embeddings": X, "state": EXAMPLES.init(3)},
    {
      "embeddings": [*NO_FLOATS, X[0], X[:, :2], X[:0]],
      "state": [*NO_GROUPING, gq.example_scarcity(3).init(3)],
      "num_examples": NO_INT,
      "num_nearest": NO_INT,
    },
  ),
  "weighted_mean": (
    gq.weighted_mean,
    {"losses": X, "weights": X, "mask": X > 0.5},
    {
      "losses": [*NO_FLOATS, np.float32(1.0), X[:5]],
      "weights": [*NO_ARRAY, np.complex64([1j]), X[0], X[:5]],
      "mask": [*STRANGE, X, MASK, len],
      "axis_name": NO_AXIS,
    },
  ),
  "mean_one": (
    gq.mean_one,
    {"rarity": X[:, 0], "mask": MASK},
    {
      "rarity": [*NO_ARRAY, np.complex64([1j]), np.float32(1.0)],
      "mask": NO_MASK,
      "strength": [*NO_REAL, 5.0],
      "max_weight": [*NO_REAL, 0.5],
      "axis_name": NO_AXIS,
    },
  ),
  "kmeans": (
    gq.kmeans,
    {"x": X, "num_clusters": 2},
    {
      "x": [*NO_ARRAY, X[0], X[None], np.complex64(X)],
      "num_clusters": [*NO_INT, 9],
      "key": [v for v in NO_KEY if v is not None],
      "init": [*STRANGE, X, X[0], np.complex64(X[:2])],
      "metric": NO_CHOICE,
      "num_iters": NO_INT,
      "sample_weight": [*STRANGE, X, X[:5, 0], np.complex64(X[:, 0])],
    },
  ),
  "output_gradients": (
    gq.output_gradients,
    {"loss_fn": lambda o, t: jnp.sum(o * t, axis=1), "outputs": X, "targets": X},
    {"loss_fn": [*NO_FUNCTION, lambda o, t: jnp.sum(o)], "outputs": [*NO_FLOATS, np.float32(1.0)]},
  ),
  "class_rarity": (
    gq.class_rarity,
    {"labels": LABELS, "counts": np.array([6, 2])},
    {
      "labels": [*NO_ARRAY, MASK, np.float32(LABELS)],
      "counts": [*NO_ARRAY, X, X[:0, 0], 3, np.array([6, -2]), np.array([1.0, np.nan])],
    },
  ),
  "held_out_rarity": (
    gq.held_out_rarity,
    {"losses": X[:, 0], "embeddings": X, "labels": LABELS},
    {
      "losses": [*NO_FLOATS, X],
      "embeddings": [v for v in NO_FLOATS if v is not None] + [X[:5], X[:, :1], X[:, 0]],
      "labels": [v for v in NO_LABELS if v is not None],
      "neighbours": NO_INT,
      "largest": [*NO_REAL, 0.5],
    },
  ),
  "margin_loss": (
    gq.margin_loss,
    {
      "loss_fn": optax.losses.softmax_cross_entropy_with_integer_labels,
      "logits": X,
      "labels": LABELS,
      "rarity": X[:, 0],
      "strength": 1.0,
    },
    {
      "loss_fn": [*NO_FUNCTION, lambda z, y: jnp.sum(z)],
      "logits": [*NO_FLOATS, np.float32(1.0), X[:5]],
      "rarity": [*NO_ARRAY, np.complex64(X[:, 0]), X, X[:5, 0]],
      "strength": [*NO_REAL, 4.5],
      "max_margin": [*NO_REAL, 0.5],
    },
  ),
  "adjusted_logits": (
    gq.adjusted_logits,
    {"logits": X, "counts": np.array([6, 2, 1])},
    {
      "logits": NO_FLOATS,
      "counts": [*NO_ARRAY, X, np.array([6, 2]), np.array([6, 2, -1])],
      "strength": ["x", None, float("nan"), True, 1j, THING, np.ones(2), np.float32("inf")],
    },
  ),
  "sketch": (
    gq.sketch,
    {"per_example_tree": {"a": X}, "dim": 2, "key": 0},
    {
      "per_example_tree": [v for v in NO_TREE if v is not None] + [{}, {"a": X, "b": X[:5]}],
      "dim": NO_INT,
      "key": NO_KEY,
    },
  ),
  "grouped": (
    grouped,
    {"params": W, "batch": X, "labels": LABELS},
    GROUPED
    | {
      "labels": NO_LABELS,
      "loss_fn": [*NO_FUNCTION, lambda p, x: jnp.sum(x), with_embeddings],
      "has_aux": NO_FLAG,
      "exact": NO_FLAG,
      "block_size": [v for v in NO_INT if v is not None],
    },
  ),
  "clustered": (
    clustered,
    {"params": W, "batch": X},
    GROUPED
    | {
      "mask": NO_MASK,
      "key": [v for v in NO_KEY if v is not None],
      "num_groups": NO_INT,
      "loss_fn": [*NO_FUNCTION, loss_fn],
      "metric": NO_CHOICE,
      "num_iters": NO_INT,
    },
  ),
  "each": (
    each,
    {"params": W, "batch": X},
    GROUPED
    | {
      "mask": NO_MASK,
      "loss_fn": [*NO_FUNCTION, lambda p, x: jnp.sum(x), with_embeddings],
      "microbatch_size": [v for v in NO_INT if v is not None],
    },
  ),
  "each group": (
    each_group,
    {"params": W, "batch": X, "labels": LABELS},
    {"labels": NO_LABELS, "mask": NO_MASK, "num_groups": [v for v in NO_INT if v is not None]},
  ),
  "noise_scale": (
    gq.noise_scale,
    {"group_gradients": gq.GroupGradients(X[:2], np.array([4, 4]))},
    {"group_gradients": [*NO_ARRAY, X, *NO_GROUPS, gq.GroupGradients(X[:1], np.ones(1))]},
  ),
  "suggest_num_clusters": (
    gq.suggest_num_clusters,
    {"batch_size": 8, "noise_scale": 2.0},
    {"batch_size": NO_INT, "noise_scale": [*STRANGE[:-1], X, 1j, None]},
  ),
  "random_groups": (
    gq.random_groups,
    {"key": 0, "batch_size": 8, "num_groups": 2},
    {"key": NO_KEY, "batch_size": NO_INT, "num_groups": [*NO_INT, 9]},
  ),
  "diagnostics": (
    gq.diagnostics,
    {"opt_state": STATE},
    {"opt_state": [*STRANGE, None, gq.grad_queue().init(W), optax.EmptyState()]},
  ),
  "state_bytes": (
    some_state_bytes,
    {"tx": TX, "params": W},
    {"tx": STRANGE, "params": [v for v in NO_FLOATS if v is not None]},
  ),
  "partition_specs": (
    gq.partition_specs,
    {"opt_state_shapes": STATE, "param_specs": SPECS},
    {
      "opt_state_shapes": [*STRANGE, None, optax.EmptyState()],
      "param_specs": [*STRANGE, None, {"a": SPECS}, P("a", "b")],
      "axis_name": NO_AXIS,
    },
  ),
  "delta_rho": (
    gq.delta_rho,
    STATISTICS_OK,
    STATISTICS | {"rho": [*NO_ARRAY, X, 1j]},
  ),
}
