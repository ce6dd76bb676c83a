# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What is wrong is refused by name, rule, finding and way out, when it is traced."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from calls import CALLS, EXAMPLES, SCARCITY, X
from calls import W as VECTOR

import gq_optax as gq

PARAMS = {"w": jnp.zeros((3, 2)), "b": jnp.zeros(2)}
W, B = jnp.ones((3, 2)), jnp.ones(2)
EACH = {"w": jnp.ones((6, 3, 2)), "b": jnp.ones((6, 2))}
PAIR = {"w": jnp.ones((2, 3, 2)), "b": jnp.ones((2, 2))}
GROUPS = gq.GroupGradients(PAIR, jnp.array([4, 2]))
LABELS = jnp.arange(8) % 2
I32 = jnp.int32

# Each rule once: that every argument has one is tested in test_acceptance.py.
OPTIONS = [
  ("num_clusters", True, "must be an int, but True was found"),
  ("num_clusters", 2.0, r"must be an int, but 2\.0 was found"),
  ("num_clusters", 0, "must be at least 1, but 0 was found"),
  ("num_clusters", I32(2), r".*Python int.*int32\[\].*static_args"),
  ("queue_length", I32(3), r".*Python int.*int32\[\].*static_args"),
  ("queue_length", [1, 3], r"must be an int.*, but \[1, 3\] was found"),
  ("queue_length", (5, 3), r"\[1\], the longest, must be at least 5, but 3"),
  ("queue_length", (0, 3), r"\[0\], the shortest, must be at least 1, but 0"),
  ("queue_length", (1.0, 3), r"\[0\], the shortest, must be an int, but 1\.0"),
  ("queue_length", (1, True), r"\[1\], the longest, must be an int, but True"),
  ("queue_length", (1, 2, 3), r"must be .*pair.*, but \(1, 2, 3\) was found"),
  ("rho", 0.5, r"must be in \[1\.0, inf\), but 0\.5 was found"),
  ("rho", float("nan"), r"must be in \[1\.0, inf\), but nan was found"),
  ("rho", "3", "must be a real number, but '3' was found"),
  ("rho", jnp.ones(2), r"must be a scalar, but shape \(2,\) was found"),
  ("update_norm", "x", r"must be one of \('match',\), but 'x' was found"),
  ("update_norm", 0, r"must be in \(0\.0, inf\), but 0 was found"),
  ("update_norm", True, "must be a real number, but True was found"),
  ("queue_dtype", np.dtype(int), "must be a real floating dtype, but int64"),
  ("queue_dtype", jnp.zeros(3), r"must be a dtype, but an array .*static_args"),
  ("queue_dtype", "float99", "must be a real floating dtype, but float99"),
  ("key", 0.5, r"must be an int or one PRNG key, but 0\.5 was found"),
  ("key", jnp.zeros(3, jnp.uint32), "must be an int or one PRNG key, but .*Array"),
  ("key", jax.random.split(jax.random.key(0), 2), "must be an int or one PRNG key, but .*Array"),
]


@pytest.mark.parametrize(("name", "value", "message"), OPTIONS)
def test_options_of_grad_queue(name, value, message):
  with pytest.raises(ValueError, match=f"^{name} ?{message}"):
    gq.grad_queue(**{name: value})


TREE = "updates must have the tree structure of the parameters"
GRADS = r"GroupGradients with grads \[K, \*p\]"
UPDATES = [
  ({"w": W}, rf"{TREE}, .*'b'.*'w'.*, but .*'w'"),
  ({"w": W, "b": B, "c": B}, rf"{TREE}.*, but .*'c'"),
  ([W, B], rf"{TREE}.*, but PyTreeDef\(\[\*, \*\]\) was found"),
  ({"w": W, "b": None}, rf"{TREE}.*, but .*None.* was found"),
  (gq.GroupGradients({"w": PAIR["w"]}, B), TREE),
  ({"w": W, "b": jnp.ones(3)}, r"updates must be a mean gradient.*shape \(3,\).*shape \(2,\)"),
  ({"w": W.T, "b": B}, r"updates must be a mean gradient .*shape .* was found. The parameter"),
  (
    EACH | {"b": jnp.ones((5, 2))},
    r"per-example gradients \[B, \*p\].*at \['w'\] shape \(6, 3, 2\).*of shape \(3, 2\)",
  ),
  (EACH | {"b": B}, r"alike for all leaves.* was found. The parameter"),
  (EACH | {"w": W}, r"alike for all leaves.*at .* was found. The parameter"),
  (jax.tree.map(lambda g: g[:0], EACH), r"not empty, but at \['b'\] shape \(0, 2\) was found"),
  (jax.tree.map(lambda g: jnp.stack([g, g]), EACH), r"updates must be .*\(2, 6, 2\)"),
  (
    {"w": W, "b": jnp.ones(2, I32)},
    r"the update at \['b'\] must have a real floating dtype, but int32 was found",
  ),
  (
    {"w": W.astype(jnp.complex64), "b": B},
    r"the update at \['w'\] must have a real floating dtype, but complex64 was found",
  ),
  (gq.GroupGradients({"w": W, "b": B}, B), rf"updates must be {GRADS}.*\['b'\] shape \(2,\)"),
  (gq.GroupGradients(PAIR, jnp.ones(3)), rf"{GRADS} and counts \[K\].*shape \(2, 2\) was found"),
  (gq.GroupGradients(PAIR, jnp.ones((2, 1))), r"must be \[K\], but shape \(2, 1\) was found"),
  (gq.GroupGradients(PAIR, jnp.float32(2)), r"counts of .* must be \[K\], but shape \(\) was"),
  (gq.GroupGradients(PAIR, B, jnp.ones(3)), r"must be \[K\] = \[2\], but shape \(3,\) was found"),
  (
    gq.GroupGradients(jax.tree.map(lambda g: g[:0], PAIR), jnp.ones(0)),
    r"updates must be GroupGradients .*not empty",
  ),
]


@pytest.mark.parametrize(("updates", "message"), UPDATES)
def test_wrong_trees_and_shapes(updates, message):
  tx = gq.grad_queue()
  with pytest.raises(ValueError, match=message):
    tx.update(updates, tx.init(PARAMS))


TWO, TRACKED = {"num_clusters": 2}, {"num_clusters": 3, "track": True}
ALONE = r"embeddings must belong to per-example gradients \[B, \*p\], but a mean gradient"
SIX = r"must be \[B, d\] with B = 6, but shape"
ADAPTIVE = r"adaptive queue_length.*pass value=, or GroupGradients"
ARGUMENTS = [
  (TWO, EACH, {"mask": jnp.ones(5, bool)}, r"mask must be \[B\] with B = 6, but shape \(5,\) was"),
  (TWO, EACH, {"mask": jnp.ones(6)}, "mask must be bool, but float32 was found"),
  (TWO, EACH, {"embeddings": jnp.ones((5, 2))}, rf"embeddings {SIX} \(5, 2\) was found"),
  (TWO, EACH, {"embeddings": jnp.ones(6)}, rf"embeddings {SIX} \(6,\) was found"),
  (TWO, EACH, {"embeddings": jnp.ones((6, 2, 2))}, rf"embeddings {SIX} \(6, 2, 2\) was found"),
  (TWO | {"embed": lambda tree: tree["b"][:3]}, EACH, {}, rf"embed.* {SIX} \(3, 2\) was found"),
  ({"queue_length": (1, 2)}, EACH, {"value": jnp.ones(6)}, r"value must be a scalar, but shape"),
  (TWO, PARAMS, {"embeddings": jnp.ones((6, 2))}, ALONE),
  ({}, PARAMS, {"mask": jnp.ones(6, bool)}, "mask must belong to per-example gradients"),
  ({}, GROUPS, {"mask": jnp.ones(6, bool)}, "mask must belong to per-example gradients"),
  (TRACKED, GROUPS, {}, r"num_clusters must be .*GroupGradients \(2\), but 3 was found"),
  *[({"queue_length": (1, 3)}, updates, {}, ADAPTIVE) for updates in (PARAMS, EACH, GROUPS)],
]


@pytest.mark.parametrize(("options", "updates", "kwargs", "message"), ARGUMENTS)
def test_wrong_arguments_of_update(options, updates, kwargs, message):
  tx = gq.grad_queue(**options)
  with pytest.raises(ValueError, match=message):
    tx.update(updates, tx.init(PARAMS), **kwargs)


@pytest.mark.parametrize("updates", [PARAMS, EACH, GROUPS])
@pytest.mark.parametrize(
  ("scarcity", "found"),
  [
    (lambda g, mean, std: jnp.max(g), r"float32\[\]"),
    (lambda g, mean, std: g[None], r"float32\[1,2\]"),
    (lambda g, mean, std: g > mean, r"bool\[2\]"),
    (lambda g, mean, std: jnp.ones(g.shape, I32), r"int32\[2\]"),
  ],
)
def test_scarcity_of_the_wrong_shape_or_dtype(updates, scarcity, found):
  tx = gq.grad_queue(scarcity=scarcity, num_clusters=2)
  message = rf"scarcity must return a float weight of shape \(2,\) .*, but {found} was found"
  with pytest.raises(ValueError, match=message):
    tx.update(updates, tx.init(PARAMS))


@pytest.mark.parametrize("dtype", ["int32", "complex64", "bool"])
def test_parameters_that_are_not_real_floating(dtype):
  rule = f"must have a real floating dtype, but {dtype} was found"
  for params, place in (
    ({**PARAMS, "n": jnp.zeros(3, dtype)}, r"\['n'\]"),
    (jnp.zeros(3, dtype), "the root"),
  ):
    with pytest.raises(ValueError, match=f"the parameter at {place} {rule}"):
      gq.grad_queue().init(params)


# All else that is public: the call as `calls.py` has it, and what is changed.

ONE, REAL = "must be at least 1, but 0", "must have a real floating dtype"
METRIC = "metric must be one of .*'manhattan'"
HAVE_4 = r"embeddings must be \[B, ...\] with 3 numbers"
EMPTY = r"B at least 1, but shape \(0, 3\) .* empty batch"
SIZE = "embedding_dim_or_template .*no gradient transformation"
PER_EXAMPLE = "one floating loss per example, shape"
linear = lambda w, x: x @ w
CASES = [
  ("group_scarcity", {"exponent": -1.0}, r"exponent must be in \[0.0, 4.0\], but -1.0"),
  ("group_scarcity", {"num_iters": -1}, "num_iters must be at least 0, but -1"),
  ("group_scarcity", {"max_weight": 0.5}, r"max_weight must be in \[1.0, inf\), but 0.5"),
  ("group_scarcity", {"pooling": -0.1}, r"pooling must be in \[0.0, inf\), but -0.1"),
  ("group_scarcity", {"centroids": np.ones(4)}, r"must be \[K, d\] = \[2, d\], but shape \(4,\)"),
  ("group_scarcity", {"centroids": np.ones((3, 4))}, r"= \[2, d\], but shape \(3, 4\)"),
  ("group_scarcity", {"centroids": np.ones((2, 4), complex)}, "must be real, but complex"),
  ("group_scarcity", {"centroids": [[1.0, np.nan], [1.0, 2.0]]}, "finite, but NaN .* 1 of 2"),
  ("scarcity update", {"embeddings": jnp.ones(4)}, HAVE_4),
  ("scarcity update", {"embeddings": jnp.ones((3, 5))}, HAVE_4),
  ("scarcity update", {"embeddings": jnp.zeros((0, 3))}, EMPTY),
  ("scarcity update", {"mask": jnp.ones(2, bool)}, r"mask must be \[B\] with B = 8"),
  ("scarcity init", {"embedding_dim_or_template": jnp.ones(4)}, "the template of init must be"),
  ("example_scarcity", {"bandwidth": 0.0}, r"bandwidth must be in \(0.0, inf\), but 0.0"),
  ("example_scarcity", {"metric": "manhattan"}, METRIC),
  ("example update", {"embeddings": jnp.zeros((0, 3))}, EMPTY),
  ("example update", {"mask": jnp.ones(8)}, "mask must be bool, but float32"),
  ("example update", {"losses": jnp.ones(2)}, r"losses must be \[B\] with B = 8"),
  *[
    (call, {"embedding_dim_or_template": value}, message)
    for call in ("scarcity init", "example init")
    for value, message in (
      ({"w": jnp.ones((3, 2))}, SIZE),
      ((32, 8), SIZE),
      (8.0, SIZE),
      (jnp.zeros((5, 0)), "numbers of an embedding must be at least 1, but 0"),
      (1, "2 numbers or more .* metric='euclidean'"),
    )
  ],
  ("kmeans", {"x": jnp.zeros(3), "num_clusters": 1}, r"x must be \[n, d\].*\(3,\)"),
  ("kmeans", {"x": jnp.zeros((4, 0))}, r"x must be \[n, d\] with d at least 1, but shape \(4, 0\)"),
  ("kmeans", {"num_clusters": 9}, r"num_clusters must be at most the rows of x \(8\), but 9"),
  ("kmeans", {"init": jnp.zeros((3, 2))}, r"init must be \[K, d\] = \[2, 3\].*\(3, 2\)"),
  ("kmeans", {"sample_weight": jnp.ones(5)}, r"sample_weight must be \[n\] = \[8\].*\(5,\)"),
  ("output_gradients", {"loss_fn": lambda o, t: jnp.sum(o)}, r"loss per example, \[8\], but shape"),
  ("output_gradients", {"outputs": jnp.float32(1.0)}, r"outputs must be \[B, ...\], but a scalar"),
  ("output_gradients", {"loss_fn": lambda o, y: jnp.ones(8, I32)}, f"result of loss_fn {REAL}"),
  ("sketch", {"per_example_tree": {}}, "at least one leaf"),
  ("sketch", {"per_example_tree": {"a": X, "b": X[:5]}}, r"same leading axis B.*\(5, 3\)"),
  ("weighted_mean", {"losses": jnp.float32(1.0)}, "losses must be"),
  ("weighted_mean", {"losses": jnp.arange(3)}, "losses must have a real floating"),
  ("weighted_mean", {"weights": jnp.ones(8)}, "weights must be as large"),
  ("weighted_mean", {"mask": X}, "mask must be bool"),
  ("weighted_mean", {"mask": X[:, 0] > 0}, "mask must"),
  ("mean_one", {"rarity": jnp.float32(1.0)}, "rarity must be"),
  ("mean_one", {"mask": jnp.ones(2, bool)}, "mask must be"),
  ("noise_scale", {"group_gradients": {"a": jnp.ones((2, 3))}}, "be GroupGradients, but dict"),
  ("noise_scale", {"group_gradients": gq.GroupGradients(W[:1], B[:1])}, "least 2 groups, but 1"),
  ("random_groups", {"num_groups": 9}, r"at most the batch size \(8\), but 9"),
  ("grouped", {"loss_fn": lambda w, x: jnp.mean(x @ w)}, rf"{PER_EXAMPLE} \(8,\), but .*\(\)"),
  ("grouped", {"loss_fn": lambda w, x: x @ w[:, None]}, r"shape \(8,\), but float32 .*\(8, 1\)"),
  ("grouped", {"loss_fn": lambda w, x: (x @ w, x)}, "there is has_aux=True"),
  ("grouped", {"loss_fn": lambda w, x: (x @ w).astype(I32)}, "but int32 of shape"),
  ("grouped", {"labels": LABELS[:5]}, r"labels must be \[B\] with B = 8, but shape \(5,\)"),
  ("grouped", {"labels": jnp.zeros(8)}, "labels must have an integer dtype, but float32"),
  ("grouped", {"labels": np.array(["a"] * 8)}, "array of dtype <U1 was found. np.unique"),
  ("grouped", {"labels": ["a"] * 8}, r"labels must be numbers, but list was found\. np.unique"),
  ("grouped", {"labels": [[1], [1, 2]]}, r"labels must be numbers, but list was found\.$"),
  ("grouped", {"batch": {"x": X, "y": X[:5]}}, "same leading axis B > 0, but shapes"),
  ("grouped", {"has_aux": True}, r"must return a pair \(losses, aux\), but ShapeDtype"),
  (
    "grouped",
    {"has_aux": True, "loss_fn": lambda w, x: (x @ w, w)},
    r"aux .*leading axis 8, but at the root shape \(3,\)",
  ),
  ("clustered", {"loss_fn": linear}, r"must return a pair \(losses, embeddings\), but"),
  (
    "clustered",
    {"loss_fn": lambda w, x: (x @ w, x[:, 0])},
    r"embeddings must be \[B, d\] with B = 8, but shape \(8,\)",
  ),
  ("each", {"loss_fn": lambda w, x: jnp.mean(x @ w)}, rf"{PER_EXAMPLE} \(8,\), but"),
  ("each", {"loss_fn": lambda w, x: (x @ w, x)}, "has_aux=True of gq.grouped_value_and_grad"),
  ("diagnostics", {"opt_state": optax.EmptyState()}, "opt_state must hold .* none was found"),
  ("diagnostics", {"opt_state": gq.grad_queue().init(VECTOR)}, "track=True"),
]


@pytest.mark.parametrize(("name", "wrong", "message"), CASES)
def test_all_else(name, wrong, message):
  function, right, _ = CALLS[name]
  with pytest.raises(ValueError, match=message):
    function(**{**right, **wrong})


def test_one_number_has_no_direction():
  """Every positive number has the same: a rare target would weigh less than a common one."""
  y = jnp.concatenate([0.1 * jax.random.normal(jax.random.key(0), (60,)), jnp.array([5.0, 5.1])])
  residuals = gq.output_gradients(optax.l2_loss, jnp.zeros_like(y), y)[:, None]
  cosine, euclidean = gq.group_scarcity(10), gq.group_scarcity(10, metric="euclidean")
  message = r"embeddings of metric='cosine' must have 2 numbers.*1 was found.*metric='euclidean'"
  state = euclidean.init(1)
  for call in (
    lambda: cosine.init(residuals),
    lambda: cosine.update(residuals, state),
    lambda: jax.eval_shape(cosine.update, residuals, state),
    lambda: cosine.explain(residuals, state),
  ):
    with pytest.raises(ValueError, match=message):
      call()
  weights, state = euclidean.update(residuals, state)
  assert float(weights[-2:].min()) > 3.0 > float(weights[:60].mean())
  euclidean.explain(residuals, state)
  assert gq.example_scarcity(4, metric="euclidean").init(1).queue.shape == (4, 1)


def test_centroids_as_wide_as_embeddings():
  scarcity = gq.group_scarcity(2, centroids=np.eye(2, 4))
  message = r"centroids must be \[K, d\] with the 3 numbers of an embedding, but shape \(2, 4\)"
  state = gq.group_scarcity(2).init(3)
  for call in (lambda: scarcity.init(3), lambda: scarcity.update(jnp.ones((5, 3)), state)):
    with pytest.raises(ValueError, match=message):
      call()


def test_losses_where_they_count():
  scarcity = gq.example_scarcity(4, loss_exponent=1.0)
  with pytest.raises(ValueError, match="losses must be the losses of the examples"):
    scarcity.update(X, scarcity.init(3))


def test_a_loss_that_a_batch_of_one_makes_a_scalar():
  squeezed = lambda w, x: jnp.square(jnp.squeeze(x @ w[:, None]))
  message = r"shape \(1,\) of a batch of one, but shape \(\) was found. jnp.squeeze"
  for name in ("each", "grouped"):
    function, right, _ = CALLS[name]
    with pytest.raises(ValueError, match=message):
      function(**{**right, "loss_fn": squeezed})


def test_what_fixes_a_shape_is_no_tracer():
  with pytest.raises(ValueError, match="Call it outside jit"):
    jax.jit(lambda x: gq.suggest_num_clusters(4, x))(1.0)


NOT_REAL = [
  (jax.nn.relu, "custom_jvp"),
  ("relu", "str"),
  (3, "int32"),
  (True, "bool"),
  (1j, "complex64"),
  (np.complex64([1j]), "complex64"),
  (np.array(["a"]), "an array of dtype <U1"),
  (object(), "object"),
  (jax.random.key(0), "key<fry>"),
]


@pytest.mark.parametrize(("leaf", "found"), NOT_REAL)
def test_a_leaf_that_is_no_real_array_is_named_with_its_path(leaf, found):
  tree, tx = {"layers": [np.ones((2, 2), np.float32), leaf]}, gq.grad_queue()
  rule = rf"\['layers'\]\[1\] must .*, but {found} was found"
  with pytest.raises(ValueError, match=rf"params: the parameter at {rule}.*Filter"):
    tx.init(tree)
  state = tx.init({"layers": [np.ones((2, 2), np.float32), np.ones(2, np.float32)]})
  with pytest.raises(ValueError, match=rf"updates: the update at {rule}"):
    tx.update(tree, state)
  for step in (gq.per_example_value_and_grad(linear), gq.clustered_value_and_grad(linear, 2)):
    with pytest.raises(ValueError, match=rf"params: the parameter at {rule}"):
      step(tree, X)
  if not isinstance(leaf, int | complex | jax.Array) and np.shape(leaf) == ():
    with pytest.raises(ValueError, match=rf"batch at {rule}"):
      gq.per_example_value_and_grad(linear)(VECTOR, tree)


# States of other options.

STATES = [  # the state's options, those of the step, the option that the message names
  ({"queue_length": 2}, {"queue_length": 6}, "queue_length"),
  ({"queue_length": 6}, {"queue_length": 2}, "queue_length"),
  ({"queue_length": 3}, {"queue_length": (1, 3)}, "queue_length"),
  ({"queue_length": (1, 3)}, {"queue_length": 3}, "queue_length"),
  ({"queue_length": (1, 4)}, {"queue_length": (1, 5)}, "queue_length"),
  ({}, {"track": True}, "track"),
  ({"track": True}, {}, "track"),
  (TRACKED, {"track": True, "num_clusters": 2}, "num_clusters"),
  ({"queue_dtype": "bfloat16"}, {}, "queue_dtype"),
  ({}, {"queue_dtype": "bfloat16"}, "queue_dtype"),
  ({"queue_dtype": "bfloat16"}, {"queue_dtype": "float16"}, "queue_dtype"),
]


@pytest.mark.parametrize(("made", "used", "option"), STATES)
@pytest.mark.parametrize("params", [PARAMS, None])
def test_a_state_of_other_options(made, used, option, params):
  state, tx = gq.grad_queue(**made).init(PARAMS), gq.grad_queue(**used)
  message = rf"state must .*{option}.* found.*tx\.init\(params\)"
  for update in (tx.update, lambda *a, **k: jax.eval_shape(tx.update, *a, **k)):
    with pytest.raises(ValueError, match=message):
      update(PARAMS, state, params, value=np.float32(1.0))


def test_a_state_that_is_none_of_ours():
  tx = gq.grad_queue()
  for state in (optax.EmptyState(), None, {"queue": 1}, tx.init(PARAMS).queue, 3):
    with pytest.raises(ValueError, match=r"state must be a GradQueueState, .* but \w+ was found"):
      tx.update(PARAMS, state)
  for state in (None, 3, {}, tx.init(PARAMS)):
    with pytest.raises(ValueError, match=r"state must be a GroupScarcityState, .* but \w+ was"):
      SCARCITY.update(X, state)


def test_the_dtype_of_the_parameters_decides_where_they_are_given():
  params, tx = optax.tree.cast(PARAMS, jnp.bfloat16), gq.grad_queue()
  state = tx.init(params)
  tx.update(PARAMS, state, params)  # float32 gradients of bfloat16 parameters
  with pytest.raises(ValueError, match=r"queue_dtype at \['b'\], or params=.*bfloat16 was found"):
    tx.update(PARAMS, state)


def test_a_state_of_other_injected_options():
  static = ("queue_length", "num_clusters", "key")
  make = lambda length: optax.inject_hyperparams(gq.grad_queue, static)(length, track=True)
  state = make(2).init(PARAMS)
  _, state = make(2).update(PARAMS, state, PARAMS)
  with pytest.raises(ValueError, match="queue_length"):
    make(4).update(PARAMS, state, PARAMS)


@pytest.mark.parametrize(
  ("before", "after", "dim", "option"),
  [
    (gq.group_scarcity(3), gq.group_scarcity(12), 3, "num_groups"),
    (gq.group_scarcity(12), gq.group_scarcity(3), 3, "num_groups"),
    (gq.group_scarcity(3, 5), gq.group_scarcity(3, 2), 3, "queue_length"),
    (gq.group_scarcity(3, 2), gq.group_scarcity(3, 5), 3, "queue_length"),
    (gq.group_scarcity(3), gq.group_scarcity(3), 4, "embeddings"),
    (EXAMPLES, gq.example_scarcity(8), 3, "queue_size="),
    (EXAMPLES, gq.example_scarcity(4, queue_dtype=jnp.bfloat16), 3, "queue_dtype="),
  ],
)
def test_a_state_of_another_scarcity(before, after, dim, option):
  _, state = before.update(X, before.init(3))
  x = jnp.pad(X, ((0, 0), (0, dim - 3)))
  for update in (after.update, lambda *a: jax.eval_shape(after.update, *a)):
    with pytest.raises(ValueError, match=rf"(?s){option}.* found.*scarcity\.init\(d\)"):
      update(x, state)
