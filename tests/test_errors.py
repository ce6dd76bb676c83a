# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What is wrong is refused by name, rule, finding and way out, when it is traced."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from calls import CALLS, EXAMPLES, GROUPS, SCARCITY, STATE, TX, W, X, with_embeddings

import gq_optax as gq


def complaint(function, **arguments):
  """The words of an error of ours when a call is traced, or what happened in its place."""
  try:
    jax.eval_shape(lambda: [function(**arguments), None][1])
  except (ValueError, TypeError) as error:
    return str(error)
  except Exception as error:  # noqa: BLE001  # told apart by its words
    return f"{type(error).__name__}: {error}"
  return "nothing"


def findings(value):
  """Words for what was found, one of which a message has."""
  for node in (value, *jax.tree.leaves(value)):
    yield from (repr(node), str(node), type(node).__name__, str(jax.tree.structure(node)))
    if isinstance(node, np.ndarray | np.generic | jax.Array):
      narrow = str(node.dtype).replace("64", "32").replace("128", "64")  # as JAX has it
      yield from (str(node.shape), str(node.dtype), narrow)
      yield from map(str, (*node.shape, *np.ravel(node)[:3].tolist()))
  yield from ("none", "None", "a scalar", "a mean gradient", "shape ()", "shapes ", "figures")


@pytest.mark.parametrize("name", CALLS)
def test_every_wrong_argument_is_named_with_the_rule_and_what_was_found_and_harms_nothing(name):
  function, right, wrong = CALLS[name]
  jax.eval_shape(lambda: [function(**right), None][1])
  before = jax.device_get((STATE, GROUPS))
  for argument, values in wrong.items():
    words = re.compile(rf"(?s)(?=.*\b{argument}\b).*\bmust\b.*,? but (.*) (was|were) found")
    for value in values:
      found = complaint(function, **{**right, argument: value})
      told = words.match(found)
      assert told, f"{argument}={value!r:.80}: {found:.300}"
      assert callable(value) or any(map(told[1].__contains__, findings(value))), (value, found)
  chex.assert_trees_all_equal(jax.device_get((STATE, GROUPS)), before)


def test_after_all_that_the_states_go_on():
  assert TX.update(W, STATE, value=1.0)[1].queue.count == 1
  assert SCARCITY.update(X, GROUPS)[1].count == 1


# The words of rules, and of ways out, beyond those.

PARAMS = {"w": np.zeros((3, 2), np.float32), "b": np.zeros(2, np.float32)}
HALF, B = {"w": PARAMS["w"]}, PARAMS["b"]
EACH = {"w": np.ones((6, 3, 2), np.float32), "b": np.ones((6, 2), np.float32)}
SIX = gq.GroupGradients(EACH, np.ones(6))


def step(updates=PARAMS, like=PARAMS, params=None, before=None, value=None, **options):
  """The first step of a queue, whose state may be one of other options."""
  tx = gq.grad_queue(**options)
  state = (tx if before is None else gq.grad_queue(**before)).init(like)
  return tx.update(updates, state, params, value=value)


def scarcity_step(before, after=SCARCITY, x=X):
  return after.update(x, before.init(3))


RIGHT = {name: (function, right) for name, (function, right, _) in CALLS.items()}
RIGHT |= {"mean": (step, {}), "scarcity step": (scarcity_step, {"before": SCARCITY})}
RIGHT["each step"] = step, {"updates": EACH, "num_clusters": 2}
RIGHT["groups"] = step, {"updates": SIX, "num_clusters": 2}
RIGHT["grouped aux"] = CALLS["grouped"][0], CALLS["grouped"][1] | {"has_aux": True}

TEMPLATE = "embedding_dim_or_template"
TREE = "^updates must have the tree structure of the parameters"
MEAN = (
  r"^updates must be a mean gradient \[\*p\], per-example gradients \[B, \*p\], or GroupGradients"
)
ALIKE = rf"{MEAN}, alike for all leaves and not empty, but at .* shape .* was found"
GROUPED = (
  r"^updates must be GroupGradients with grads \[K, \*p\] and counts \[K\], alike .*shape .*"
)
ADAPTIVE = r"^an adaptive queue_length.*pass value=, or GroupGradients with losses"
WEIGHT = r"^scarcity must return a float weight of shape \(2,\) .*, but {} was found"
LOSSES = r"^loss_fn must return one floating loss per example, shape \(8,\), but"
DIRECTION = r"of metric='cosine' must have 2 numbers.*1 was found.*metric='euclidean'"
linear = lambda w, x: x @ w
CASES = [
  ("grad_queue", "num_clusters", jnp.int32(2), r"Python int.*int32\[\].*static_args"),
  ("grad_queue", "queue_length", (5, 3), r"\[1\], the longest, must be at least 5, but 3"),
  ("grad_queue", "queue_length", (1, 2, 3), r"must be .*pair.*, but \(1, 2, 3\) was found"),
  ("grad_queue", "queue_dtype", jnp.zeros(3), "must be a dtype, but an array .*static_args"),
  ("grad_queue", "queue_dtype", "float99", "must be a real floating dtype, but float99"),
  ("grad_queue", "queue_dtype", "float8_e8m0fnu", "must hold 0 and negative numbers"),
  ("mean", "updates", HALF, f"{TREE}, .*'b'.*'w'.*, but .*'w'"),
  ("mean", "updates", HALF | {"b": None}, f"{TREE}.*, but .*None.* was found"),
  ("mean", "updates", gq.GroupGradients(HALF, B), TREE),
  ("mean", "updates", HALF | {"b": B[:1]}, rf"{MEAN}.*\['b'\] shape \(1,\) .* \(2,\)"),
  ("mean", "updates", EACH | {"b": B}, ALIKE),
  ("mean", "updates", EACH | HALF, ALIKE),
  ("mean", "updates", jax.tree.map(lambda g: g[:0], EACH), ALIKE),
  ("mean", "updates", gq.GroupGradients(PARAMS, B), rf"{GROUPED}\(2,\)"),
  ("mean", "updates", SIX._replace(counts=np.ones(3)), rf"{GROUPED}\(6, 2\)"),
  ("mean", "updates", SIX._replace(counts=2.0), r"counts of the .* \[K\], but shape \(\) was"),
  ("mean", "updates", SIX._replace(losses=np.ones(3)), r"be \[K\] = \[6\], but shape \(3,\)"),
  ("mean", "updates", HALF | {"b": np.ones(2, int)}, r"the update at \['b'\] must .* int32"),
  ("each step", "embed", lambda tree: tree["b"][:3], r"embed.* with B = 6, but shape \(3, 2\)"),
  ("mean", "queue_length", (1, 3), ADAPTIVE),
  ("groups", "queue_length", (1, 3), ADAPTIVE),
  ("groups", "track", True, r"of the GroupGradients \(6\), but 2 was found"),
  ("mean", "scarcity", lambda g, mean, std: jnp.max(g), WEIGHT.format(r"float32\[\]")),
  ("groups", "scarcity", lambda g, mean, std: g[None], WEIGHT.format(r"float32\[1,2\]")),
  ("mean", "scarcity", lambda g, mean, std: g > mean, WEIGHT.format(r"bool\[2\]")),
  ("mean", "like", optax.tree.cast(PARAMS, "bfloat16"), r"\['b'\], or params=.*bfloat16 was"),
  ("scarcity step", "x", X[:, :2], r"^embeddings must be \[B, ...\] with 3 numbers .*few steps"),
  ("scarcity step", "x", X[:0], r"B at least 1, but shape \(0, 3\) .* empty batch"),
  ("scarcity init", TEMPLATE, (32, 8), "no gradient transformation"),
  ("scarcity init", TEMPLATE, X[:, :0], "numbers of an embedding must be at least 1, but 0"),
  ("scarcity init", TEMPLATE, 1, DIRECTION),
  ("example init", TEMPLATE, 1, DIRECTION),
  ("output_gradients", "loss_fn", lambda o, t: jnp.sum(o), r"per example, \[8\], but shape"),
  ("grouped", "loss_fn", lambda w, x: jnp.mean(x @ w), rf"{LOSSES} float32 of shape \(\)"),
  ("grouped", "loss_fn", lambda w, x: (x @ w).astype(int), f"{LOSSES} int32 of shape"),
  ("grouped", "loss_fn", with_embeddings, f"{LOSSES}.* there is has_aux=True"),
  ("each", "loss_fn", with_embeddings, "has_aux=True of gq.grouped_value_and_grad"),
  ("each", "loss_fn", lambda w, x: jnp.squeeze(x @ w[:, None]), "jnp.squeeze without axis="),
  ("grouped", "loss_fn", lambda w, x: jnp.squeeze(x @ w[:, None]), "jnp.squeeze without axis="),
  ("grouped", "labels", np.array(["a"] * 8), "array of dtype <U1 was found. np.unique"),
  ("grouped", "labels", ["a"] * 8, r"^labels must be numbers, but list was found\. np.unique"),
  ("grouped", "labels", [[1], [1, 2]], r"^labels must be numbers, but list was found\.$"),
  ("grouped", "has_aux", True, r"must return a pair \(losses, aux\), but ShapeDtype"),
  ("grouped aux", "loss_fn", lambda w, x: (x @ w, w), r"^aux .*leading axis 8, .* \(3,\)"),
  ("clustered", "loss_fn", linear, r"must return a pair \(losses, embeddings\), but"),
  ("clustered", "loss_fn", lambda w, x: (x @ w, x[:, 0]), r"^embeddings must .* with B = 8"),
  ("diagnostics", "opt_state", gq.grad_queue().init(W), "track=True"),
]


@pytest.mark.parametrize(("name", "argument", "value", "message"), CASES)
def test_the_words_of_each_rule(name, argument, value, message):
  function, right = RIGHT[name]
  found = complaint(function, **{**right, argument: value})
  assert re.search(message, found), found


TRACKED = {"num_clusters": 3, "track": True}
OTHER_OPTIONS = [
  (step, {"queue_length": 2}, {"queue_length": 6}, "queue_length"),
  (step, {"queue_length": 6}, {"queue_length": 2}, "queue_length"),
  (step, {"queue_length": 3}, {"queue_length": (1, 3)}, "queue_length"),
  (step, {"queue_length": (1, 3)}, {"queue_length": 3}, "queue_length"),
  (step, {"queue_length": (1, 4)}, {"queue_length": (1, 5)}, "queue_length"),
  (step, {}, {"track": True}, "track"),
  (step, {"track": True}, {}, "track"),
  (step, TRACKED, TRACKED | {"num_clusters": 2}, "num_clusters"),
  (step, {"queue_dtype": "bfloat16"}, {}, "queue_dtype"),
  (step, {}, {"queue_dtype": "bfloat16"}, "queue_dtype"),
  (step, {"queue_dtype": "bfloat16"}, {"queue_dtype": "float16"}, "queue_dtype"),
  (scarcity_step, SCARCITY, {"after": gq.group_scarcity(12, 3)}, "num_groups"),
  (scarcity_step, gq.group_scarcity(12, 3), {}, "num_groups"),
  (scarcity_step, SCARCITY, {"after": gq.group_scarcity(2, 2)}, "queue_length"),
  (scarcity_step, gq.group_scarcity(2, 2), {}, "queue_length"),
  (scarcity_step, EXAMPLES, {"after": gq.example_scarcity(8)}, "queue_size="),
  (
    scarcity_step,
    gq.example_scarcity(4, queue_dtype="float16"),
    {"after": EXAMPLES},
    "queue_dtype=",
  ),
]


@pytest.mark.parametrize(("run", "before", "after", "option"), OTHER_OPTIONS)
def test_a_state_of_other_options(run, before, after, option):
  for more in ({"value": 1.0}, {"value": 1.0, "params": PARAMS}) if run is step else ({},):
    found = complaint(run, before=before, **after, **more)
    assert re.search(rf"(?s)^state must .*{option}.* found. Make one by .*few steps", found), found


def test_words_of_what_is_known_at_once_alone_or_when_traced_alone():
  with pytest.raises(ValueError, match="^centroids must be finite, but NaN .* 1 of 2"):
    gq.group_scarcity(2, centroids=[[1.0, np.nan], [1.0, 2.0]])
  with pytest.raises(ValueError, match="Call it outside jit"):
    jax.jit(lambda x: gq.suggest_num_clusters(4, x))(1.0)


def test_centroids_and_losses_where_they_count():
  given = gq.group_scarcity(2, 3, centroids=np.eye(2, 4))
  for call in (lambda: given.init(3), lambda: given.update(X, GROUPS)):
    with pytest.raises(ValueError, match=r"^centroids must be \[K, d\] with the 3 .*\(2, 4\)"):
      call()
  by_loss = gq.example_scarcity(4, loss_exponent=1.0)
  with pytest.raises(ValueError, match="^losses must be the losses of the examples"):
    by_loss.update(X, by_loss.init(3))


def test_one_number_has_no_direction():
  """Every positive number has the same: a rare target would weigh less than a common one."""
  y = np.float32([*np.random.default_rng(0).normal(0.0, 0.1, 60), 5.0, 5.1])
  residuals = gq.output_gradients(optax.l2_loss, np.zeros_like(y), y)[:, None]
  cosine, euclidean = gq.group_scarcity(10), gq.group_scarcity(10, metric="euclidean")
  for call in (cosine.update, cosine.explain):
    found = complaint(call, embeddings=residuals, state=euclidean.init(1))
    assert re.search(f"^embeddings {DIRECTION}", found), found
  weights, _ = euclidean.update(residuals, euclidean.init(1))
  assert float(weights[-2:].min()) > 3.0 > float(weights[:60].mean())
  assert gq.example_scarcity(4, metric="euclidean").init(1).queue.shape == (4, 1)


NOT_REAL = [
  (jax.nn.relu, "custom_jvp"),
  ("relu", "str"),
  (True, "bool"),
  (np.complex64([1j]), "complex64"),
  (np.array(["a"]), "an array of dtype <U1"),
  (jax.random.key(0), "key<fry>"),
]


@pytest.mark.parametrize(("leaf", "found"), NOT_REAL)
def test_a_leaf_that_is_no_real_array_is_named_with_its_path(leaf, found):
  tree, rule = {"layers": [X, leaf]}, rf"\['layers'\]\[1\] must .*, but {found} was found"
  ours, update = rf"^params: the parameter at {rule}.*Filter", f"^updates: the update at {rule}"
  cases = [("init", "params", ours), ("each", "params", ours), ("clustered", "params", ours)]
  cases += [
    ("mean", "updates", update),
    *[("each", "batch", f"batch at {rule}")] * (found == "str"),
  ]
  for name, argument, message in cases:
    function, right = RIGHT[name]
    words = complaint(function, **{**right, argument: tree})
    assert re.search(message, words), words
