# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""A right call of all that is public, and for each of its arguments what would be wrong."""

import inspect

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
ROW = np.float32(1.0)
COMPLEX = np.complex64([1j])
QUEUE = {"queue_length": (1, 2), "num_clusters": 2, "track": True}
TX = gq.grad_queue(**QUEUE)
STATE = TX.init(W)
SCARCITY = gq.group_scarcity(2, 3)
GROUPS = SCARCITY.init(3)
EXAMPLES = gq.example_scarcity(4)
PAIR = gq.GroupGradients(X[:2], np.array([5, 3]), X[:2, 0])
CROSS_ENTROPY = optax.softmax_cross_entropy_with_integer_labels


class Thing:
  """Nothing that could be meant."""

  def __repr__(self):
    return "Thing"


THING = Thing()
STRANGE = ["x", THING, [1.0, "x"], {1, 2}, b"x", np.array(["x"]), 1 << 80]
NO_ARRAY = [*STRANGE, None, len]
NO_REALS = [*NO_ARRAY, COMPLEX]
NO_FLOATS = [*NO_REALS, np.arange(8), True, jax.random.key(0)]
NO_SIZE = ["x", None, 1.5, True, -1, THING, [2], float("nan")]
NO_INT = [*NO_SIZE, jnp.int32(2)]
NO_COUNT = [*NO_INT, 0]
NO_NUMBER = ["x", None, float("nan"), True, 1j, THING, np.ones(2), np.float32("inf")]
NO_REAL = [*NO_NUMBER, -1.0]
NO_ROWS = [*NO_FLOATS, X[0], X[:, :2], X[:0]]
NO_TREE = [*NO_FLOATS, {"a": THING}, [X, 1j]]
NO_PAIR = [gq.GroupGradients("x", np.ones(2)), gq.GroupGradients(X[:0], np.ones(0))]
NO_PAIR += [gq.GroupGradients(X[:2], counts) for counts in (np.ones(3), "x", np.array([1j, 1]))]
NO_PAIR += [gq.GroupGradients(X[:2], np.ones(2), "x")]
OTHER_QUEUES = [
  {"queue_length": 2},
  {"queue_length": (1, 3)},
  {"queue_length": 3, "track": False},
  {"num_clusters": 3},
  {"queue_dtype": "bfloat16"},
]
NO_STATE = ["x", None, 3, {}, THING, optax.EmptyState(), GROUPS, STATE.queue]
NO_STATE += [gq.grad_queue(**QUEUE | other).init(W) for other in OTHER_QUEUES]
NO_GROUPING = ["x", None, 3, {}, THING, STATE]
NO_GROUPING += [gq.group_scarcity(3, 3).init(3), gq.group_scarcity(2, 5).init(3)]
NO_EXAMPLES = [*NO_GROUPING, gq.example_scarcity(3).init(3)]


def loss_fn(params, batch):
  return jnp.square(batch @ params)


def with_embeddings(params, batch):
  return loss_fn(params, batch), batch


# For an argument of one of these names, wherever it is not said otherwise.
BY_NAMES = {
  "num_clusters num_groups num_examples num_nearest queue_length queue_size dim": NO_COUNT,
  "batch_size microbatch_size": NO_COUNT,
  "num_iters": NO_INT,
  "pooling neighbours": NO_REAL,
  "rho max_weight largest": [*NO_REAL, 0.5],
  "exponent loss_exponent strength": [*NO_REAL, 4.5],
  "bandwidth": [*NO_REAL, 0.0],
  "update_norm": ["x", -1.0, 0.0, True, THING, 1j],
  "scarcity embed": ["x", 3, THING, X],
  "loss_fn": [
    "x",
    3,
    THING,
    X,
    lambda p, x: jnp.sum(x),
    lambda p, x: x @ p[:, None],
    lambda p, x: LABELS,
  ],
  "track has_aux": ["x", None, 1, THING, 0.0],
  "queue_dtype": ["x", "int32", "complex64", bool, THING],
  "metric": ["x", None, 3, THING, ("cosine",), True],
  "key": ["x", None, 1.5, True, THING, np.zeros(3, np.uint32), np.zeros(2), 1 << 70, [0, 1]]
  + [jax.random.split(jax.random.key(0))],
  "axis_name": [3, "", (), ("b", 1), THING, True],
  "embedding_dim_or_template": [*NO_SIZE, 0, X[0], ROW, {"w": X}, (32, 8)],
  "centroids": [*STRANGE, X[0], X[:3], np.complex64(X[:2])],
  "embeddings": NO_ROWS,
  "mask": [*STRANGE, LABELS, X > 0, MASK[:5], np.float32(MASK), True, len],
  "labels": [*NO_ARRAY, MASK, np.float32(LABELS), LABELS[:5], LABELS[None], 1],
  "batch": [*STRANGE, ROW, {}, {"a": X, "b": X[:5]}, X[:0], len],
  "rarity": [*NO_REALS, ROW],
  "logits": NO_FLOATS,
  "params": [v for v in NO_FLOATS if v is not None],
  "updates": [*NO_TREE, X[:, :2], X[:0], {"a": W}, *NO_PAIR],
  "state": NO_STATE,
}
WRONG = {name: values for names, values in BY_NAMES.items() for name in names.split()}


def call(function, right, **wrong):
  """A function, arguments that are right, and wrong values for each; None only where it is one."""
  parameters = inspect.signature(function).parameters
  found = {name: WRONG[name] for name in parameters if name in WRONG} | wrong
  optional = [name for name, p in parameters.items() if p.default is None]
  none_left_out = {n: [v for v in values if v is not None] for n, values in found.items()}
  return function, right, found | {name: none_left_out[name] for name in optional if name in found}


def grouped(params, batch, labels, loss_fn=loss_fn, num_groups=2, has_aux=False):
  step = gq.grouped_value_and_grad(loss_fn, num_groups, has_aux=has_aux)
  return step(params, batch, labels)


def clustered(
  params,
  batch,
  key=None,
  mask=None,
  loss_fn=with_embeddings,
  num_groups=2,
  metric="cosine",
  num_iters=1,
):
  step = gq.clustered_value_and_grad(loss_fn, num_groups, metric=metric, num_iters=num_iters)
  return step(params, batch, key, mask)


def each(params, batch, mask=None, loss_fn=loss_fn, microbatch_size=None):
  step = gq.per_example_value_and_grad(loss_fn, microbatch_size=microbatch_size)
  return step(params, batch, mask)


def each_group(params, batch, labels, mask=None, num_groups=None):
  step = gq.per_example_value_and_grad(loss_fn, num_groups=num_groups)
  return step(params, batch, labels, mask)


def bytes_of(tx, params):
  gq.state_bytes(tx, params)


CALLS = {
  "grad_queue": call(gq.grad_queue, {}, queue_length=[*NO_COUNT, (3, 2), (1,), (0, 2), (1, "x")]),
  "init": call(TX.init, {"params": W}),
  "update": call(
    TX.update,
    {"updates": W, "state": STATE, "params": W, "value": 1.0},
    value=[*STRANGE, X, 1j, len],
    embeddings=[*STRANGE, X, LABELS, len],
  ),
  "update groups": call(
    TX.update, {"updates": PAIR, "state": STATE}, updates=NO_PAIR, mask=[MASK], embeddings=[]
  ),
  "update each": call(
    TX.update,
    {"updates": X, "state": STATE, "value": 1.0, "embeddings": X, "mask": MASK},
    embeddings=[*STRANGE, X[:5], X[0], X[None]],
  ),
  "group_scarcity": call(gq.group_scarcity, {"num_groups": 2}),
  "scarcity init": call(SCARCITY.init, {"embedding_dim_or_template": 3}),
  "scarcity update": call(
    SCARCITY.update, {"embeddings": X, "state": GROUPS, "mask": MASK}, state=NO_GROUPING
  ),
  "group explain": call(SCARCITY.explain, {"embeddings": X, "state": GROUPS}, state=NO_GROUPING),
  "example_scarcity": call(gq.example_scarcity, {}),
  "example init": call(EXAMPLES.init, {"embedding_dim_or_template": 3}),
  "example update": call(
    EXAMPLES.update,
    {"embeddings": X, "state": EXAMPLES.init(3), "mask": MASK, "losses": X[:, 0]},
    state=NO_EXAMPLES,
    losses=[*STRANGE, X, X[:5, 0], np.arange(8), len],
  ),
  "example explain": call(
    EXAMPLES.explain, {"embeddings": X, "state": EXAMPLES.init(3)}, state=NO_EXAMPLES
  ),
  "weighted_mean": call(
    gq.weighted_mean,
    {"losses": X, "weights": X, "mask": X > 0.5},
    losses=[*NO_FLOATS, ROW, X[:5]],
    weights=[*NO_REALS, X[0], X[:5]],
    mask=[*STRANGE, X, MASK, len],
  ),
  "mean_one": call(gq.mean_one, {"rarity": X[:, 0], "mask": MASK}),
  "kmeans": call(
    gq.kmeans,
    {"x": X, "num_clusters": 2},
    x=[*NO_REALS, X[0], X[None], X[:, :0]],
    num_clusters=[*NO_COUNT, 9],
    init=[*STRANGE, X, X[0], np.complex64(X[:2])],
    sample_weight=[*STRANGE, X, X[:5, 0], np.complex64(X[:, 0])],
  ),
  "output_gradients": call(
    gq.output_gradients,
    {"loss_fn": lambda o, t: jnp.sum(o * t, axis=1), "outputs": X, "targets": X},
    loss_fn=[*WRONG["scarcity"], lambda o, t: jnp.sum(o), lambda o, t: LABELS],
    outputs=[*NO_FLOATS, ROW],
  ),
  "class_rarity": call(
    gq.class_rarity,
    {"labels": LABELS, "counts": np.array([6, 2])},
    labels=[*NO_ARRAY, MASK, np.float32(LABELS)],
    counts=[*NO_ARRAY, X, X[:0, 0], 3, np.array([6, -2]), np.array([1.0, np.nan])],
  ),
  "held_out_rarity": call(
    gq.held_out_rarity,
    {"losses": X[:, 0], "embeddings": X, "labels": LABELS},
    losses=[*NO_FLOATS, X],
    embeddings=[*NO_FLOATS, X[:5], X[:, :1], X[:, 0]],
    neighbours=NO_COUNT,
  ),
  "adjusted_logits": call(
    gq.adjusted_logits,
    {"logits": X, "counts": np.array([6, 2, 1])},
    counts=[*NO_ARRAY, X, np.array([6, 2]), np.array([6, 2, -1])],
    strength=NO_NUMBER,
  ),
  "sketch": call(
    gq.sketch,
    {"per_example_tree": {"a": X}, "dim": 2, "key": 0},
    per_example_tree=[*(v for v in NO_TREE if v is not None), {}, {"a": X, "b": X[:5]}],
  ),
  "grouped": call(grouped, {"params": W, "batch": X, "labels": LABELS}),
  "clustered": call(clustered, {"params": W, "batch": X}, loss_fn=[*WRONG["loss_fn"], loss_fn]),
  "each": call(each, {"params": W, "batch": X}),
  "each group": call(each_group, {"params": W, "batch": X, "labels": LABELS, "num_groups": 2}),
  "noise_scale": call(
    gq.noise_scale,
    {"group_gradients": gq.GroupGradients(X[:2], np.array([4, 4]))},
    group_gradients=[*NO_ARRAY, X, *NO_PAIR, gq.GroupGradients(X[:1], np.ones(1))],
  ),
  "suggest_num_clusters": call(
    gq.suggest_num_clusters,
    {"batch_size": 8, "noise_scale": 2.0},
    noise_scale=[*STRANGE[:-1], X, 1j, None],
  ),
  "random_groups": call(
    gq.random_groups, {"key": 0, "batch_size": 8, "num_groups": 2}, num_groups=[*NO_COUNT, 9]
  ),
  "diagnostics": call(
    gq.diagnostics,
    {"opt_state": STATE},
    opt_state=[*STRANGE, None, gq.grad_queue().init(W), optax.EmptyState()],
  ),
  "state_bytes": call(bytes_of, {"tx": TX, "params": W}, tx=STRANGE),
  "partition_specs": call(
    gq.partition_specs,
    {"opt_state_shapes": STATE, "param_specs": P()},
    opt_state_shapes=[*STRANGE, None, optax.EmptyState()],
    param_specs=[*STRANGE, None, {"a": P()}, P("a", "b")],
  ),
  "delta_rho": call(
    gq.delta_rho,
    {"g": X, "mean": X, "std": X},
    g=NO_FLOATS,
    mean=[*NO_FLOATS, X[:5]],
    std=[*NO_FLOATS, X[0]],
    rho=[*STRANGE[:-1], None, len, X, 1j],
  ),
}
