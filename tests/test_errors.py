# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Wrong trees, shapes, options of grad_queue name rule and finding; traced ones are clamped."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from forms import EMBEDDINGS, FORMS, LENGTH, PARAMS, RHO, as_form, compiled, draw, play

import gq_optax as gq

# Adaptive length without value.


@pytest.mark.parametrize("form", FORMS)
def test_adaptive_length_without_value_names_it(form):
  state, update = compiled(queue_length=(1, 3))
  gradient, kwargs = as_form(form, draw(0))
  with pytest.raises(ValueError, match=r"adaptive queue_length.*pass value=, or GroupGradients"):
    update(gradient, state, **kwargs)


def test_adaptive_length_takes_the_losses_of_the_groups_in_place_of_value():
  options = {"queue_length": (1, 3)}
  groups, _ = as_form("group", draw(0))
  state, update = compiled(**options)
  _, given = update(groups, state, value=np.float32(4 / 6 * 1.5 + 2 / 6 * 4.5))
  _, taken = update(groups._replace(losses=np.float32([1.5, 4.5])), state)
  chex.assert_trees_all_close(taken, given, rtol=1e-6)
  assert taken.losses.count == 1


# Wrong trees and shapes, bad options.


@pytest.mark.parametrize(
  ("kwargs", "message"),
  [
    ({"queue_length": 0}, "queue_length must be at least 1, but 0 was found"),
    ({"queue_length": -2}, "queue_length must be at least 1, but -2 was found"),
    ({"queue_length": 3.0}, r"queue_length must be an int, but 3\.0 was found"),
    ({"queue_length": True}, "queue_length must be an int, but True was found"),
    ({"queue_length": "3"}, "queue_length must be an int, but '3' was found"),
    ({"queue_length": [1, 3]}, r"queue_length must be an int.*, but \[1, 3\] was found"),
    ({"queue_length": None}, "queue_length must be an int, but None was found"),
    ({"queue_length": jnp.int32(3)}, r"queue_length .*Python int.*int32\[\].*static_args"),
    ({"queue_length": (5, 3)}, r"queue_length\[1\], the longest, must be at least 5, but 3"),
    ({"queue_length": (0, 3)}, r"queue_length\[0\], the shortest, must be at least 1, but 0"),
    ({"queue_length": (1.0, 3)}, r"queue_length\[0\], the shortest, must be an int, but 1\.0"),
    ({"queue_length": (1, True)}, r"queue_length\[1\], the longest, must be an int, but True"),
    ({"queue_length": (1, 2, 3)}, r"queue_length must be .*pair.*, but \(1, 2, 3\) was found"),
    ({"rho": 0.5}, r"rho must be in \[1\.0, inf\), but 0\.5 was found"),
    ({"rho": -3}, r"rho must be in \[1\.0, inf\), but -3 was found"),
    ({"rho": float("nan")}, r"rho must be in \[1\.0, inf\), but nan was found"),
    ({"rho": "3"}, "rho must be a real number, but '3' was found"),
    ({"rho": None}, "rho must be a real number, but None was found"),
    ({"rho": True}, "rho must be a real number, but True was found"),
    ({"rho": 3j}, "rho must be a real number, but 3j was found"),
    ({"rho": jnp.ones(2)}, r"rho must be a scalar, but shape \(2,\) was found"),
    ({"num_clusters": 0}, "num_clusters must be at least 1, but 0 was found"),
    ({"num_clusters": 2.0}, r"num_clusters must be an int, but 2\.0 was found"),
    ({"num_clusters": True}, "num_clusters must be an int, but True was found"),
    ({"num_clusters": jnp.int32(2)}, r"num_clusters .*Python int.*static_args"),
    ({"update_norm": "x"}, r"update_norm must be one of \('match',\), but 'x' was found"),
    ({"update_norm": 0}, r"update_norm must be in \(0\.0, inf\), but 0 was found"),
    ({"update_norm": -1.5}, r"update_norm must be in \(0\.0, inf\), but -1\.5 was found"),
    ({"update_norm": float("nan")}, r"update_norm must be in \(0\.0, inf\), but nan was found"),
    ({"update_norm": True}, "update_norm must be a real number, but True was found"),
    ({"queue_dtype": "int32"}, "queue_dtype must be a real floating dtype, but int32 was found"),
    ({"queue_dtype": np.dtype(int)}, "queue_dtype must be a real floating dtype, but int64"),
    ({"queue_dtype": "complex64"}, "queue_dtype must be a real floating dtype, but complex64"),
    ({"queue_dtype": "bool"}, "queue_dtype must be a real floating dtype, but bool was found"),
    ({"queue_dtype": jnp.zeros(3)}, r"queue_dtype must be a dtype, but an array .*static_args"),
    ({"queue_dtype": "float99"}, "queue_dtype must be a real floating dtype, but float99"),
    ({"key": "x"}, "key must be an int or one PRNG key, but 'x' was found"),
    ({"key": 0.5}, r"key must be an int or one PRNG key, but 0\.5 was found"),
    ({"key": True}, "key must be an int or one PRNG key, but True was found"),
    ({"key": None}, "key must be an int or one PRNG key, but None was found"),
    ({"key": jnp.zeros(3, jnp.uint32)}, "key must be an int or one PRNG key, but .*Array"),
    ({"key": jnp.zeros(2)}, "key must be an int or one PRNG key, but .*Array"),
  ],
)
def test_bad_static_options_name_the_parameter_the_rule_and_what_was_found(kwargs, message):
  with pytest.raises(ValueError, match=message):
    gq.grad_queue(**kwargs)


def test_keys_of_many_keys_are_refused():
  with pytest.raises(ValueError, match="key must be an int or one PRNG key, but .*Array"):
    gq.grad_queue(key=jax.random.split(jax.random.key(0), 2))


@pytest.mark.parametrize("dtype", ["int32", "complex64", "bool"])
def test_parameters_that_are_not_real_floating_are_refused(dtype):
  params = {**PARAMS, "n": jnp.zeros(3, dtype)}
  message = rf"the parameter at \['n'\] must have a real floating dtype, but {dtype} was found"
  with pytest.raises(ValueError, match=message):
    gq.grad_queue().init(params)
  message = f"the parameter at the root must have a real floating dtype, but {dtype} was found"
  with pytest.raises(ValueError, match=message):
    gq.grad_queue().init(params["n"])


W, B = jnp.ones((3, 2)), jnp.ones(2)


@pytest.mark.parametrize(
  ("updates", "message"),
  [
    ({"w": W}, r"updates must have the tree structure of the parameters, .*'b'.*'w'.*, but .*'w'"),
    ({"w": W, "b": B, "c": B}, r"updates must have the tree structure .*, but .*'c'"),
    ([W, B], r"updates must have the tree structure .*, but PyTreeDef\(\[\*, \*\]\) was found"),
    ({"w": W, "b": None}, r"updates must have the tree structure .*, but .*None.* was found"),
    ({"w": W, "b": jnp.ones(3)}, r"updates must be a mean gradient.*shape \(3,\).*shape \(2,\)"),
    ({"w": W.T, "b": B}, r"updates must be a mean gradient .*shape .* was found for a parameter"),
    (
      {"w": jnp.ones((6, 3, 2)), "b": jnp.ones((5, 2))},
      r"per-example gradients \[B, \*p\].*at \['w'\] shape \(6, 3, 2\).*of shape \(3, 2\)",
    ),
    ({"w": jnp.ones((6, 3, 2)), "b": B}, r"alike for all leaves.* was found for a parameter"),
    ({"w": W, "b": jnp.ones((6, 2))}, r"alike for all leaves.*at .* was found for a parameter"),
    (
      {"w": jnp.ones((0, 3, 2)), "b": jnp.ones((0, 2))},
      r"not empty, but at \['b'\] shape \(0, 2\) was found",
    ),
    ({"w": jnp.ones((2, 6, 3, 2)), "b": jnp.ones((2, 6, 2))}, r"updates must be .*\(2, 6, 2\)"),
    (
      {"w": W, "b": jnp.ones(2, jnp.int32)},
      r"the update at \['b'\] must have a real floating dtype, but int32 was found",
    ),
    (
      {"w": W.astype(jnp.complex64), "b": B},
      r"the update at \['w'\] must have a real floating dtype, but complex64 was found",
    ),
    (
      gq.GroupGradients({"w": jnp.ones((2, 3, 2))}, jnp.ones(2)),
      "updates must have the tree structure of the parameters",
    ),
    (
      gq.GroupGradients({"w": W, "b": B}, jnp.ones(2)),
      r"updates must be GroupGradients with grads \[K, \*p\].*\['b'\] shape \(2,\)",
    ),
    (
      gq.GroupGradients({"w": jnp.ones((2, 3, 2)), "b": jnp.ones((2, 2))}, jnp.ones(3)),
      r"GroupGradients with grads \[K, \*p\] and counts \[K\].*shape \(2, 2\) was found",
    ),
    (
      gq.GroupGradients({"w": jnp.ones((2, 3, 2)), "b": jnp.ones((2, 2))}, jnp.ones((2, 1))),
      r"counts of the GroupGradients must be \[K\], but shape \(2, 1\) was found",
    ),
    (
      gq.GroupGradients({"w": jnp.ones((2, 3, 2)), "b": jnp.ones((2, 2))}, jnp.float32(2)),
      r"counts of the GroupGradients must be \[K\], but shape \(\) was found",
    ),
    (
      gq.GroupGradients(
        {"w": jnp.ones((2, 3, 2)), "b": jnp.ones((2, 2))}, jnp.ones(2), jnp.ones(3)
      ),
      r"losses of the GroupGradients must be \[K\] = \[2\], but shape \(3,\) was found",
    ),
    (
      gq.GroupGradients({"w": jnp.ones((0, 3, 2)), "b": jnp.ones((0, 2))}, jnp.ones(0)),
      r"updates must be GroupGradients .*not empty",
    ),
  ],
)
def test_wrong_trees_and_shapes_name_the_rule_and_what_was_found(updates, message):
  tx = gq.grad_queue()
  with pytest.raises(ValueError, match=message):
    tx.update(updates, tx.init(PARAMS))


@pytest.mark.parametrize(
  ("options", "kwargs", "message"),
  [
    (
      {"num_clusters": 2},
      {"mask": jnp.ones(5, bool)},
      r"mask must be \[B\] with B = 6, but shape \(5,\) was found",
    ),
    ({"num_clusters": 2}, {"mask": jnp.ones(6)}, "mask must be bool, but float32 was found"),
    (
      {"num_clusters": 2},
      {"embeddings": jnp.ones((5, 2))},
      r"embeddings must be \[B, d\] with B = 6, but shape \(5, 2\) was found",
    ),
    (
      {"num_clusters": 2},
      {"embeddings": jnp.ones(6)},
      r"embeddings must be \[B, d\] with B = 6, but shape \(6,\) was found",
    ),
    (
      {"num_clusters": 2},
      {"embeddings": jnp.ones((6, 2, 2))},
      r"embeddings must be \[B, d\] with B = 6, but shape \(6, 2, 2\) was found",
    ),
    (
      {"num_clusters": 2, "embed": lambda tree: tree["b"][:3]},
      {},
      r"embed.* must be \[B, d\] with B = 6, but shape \(3, 2\) was found",
    ),
    (
      {"queue_length": (1, 2)},
      {"value": jnp.ones(6)},
      r"value must be a scalar, but shape \(6,\) was found",
    ),
  ],
)
def test_wrong_arguments_of_update_name_the_rule_and_what_was_found(options, kwargs, message):
  tx = gq.grad_queue(**options)
  with pytest.raises(ValueError, match=message):
    tx.update(draw(0), tx.init(PARAMS), **kwargs)


def test_embeddings_with_a_mean_gradient_are_refused():
  tx = gq.grad_queue(num_clusters=2)
  message = r"embeddings can only group per-example gradients \[B, \*p\], but a mean gradient"
  with pytest.raises(ValueError, match=message):
    tx.update(PARAMS, tx.init(PARAMS), embeddings=EMBEDDINGS)


def test_tracking_groups_of_another_number_is_refused():
  tx = gq.grad_queue(num_clusters=3, track=True)
  message = r"track=True, num_clusters must be .*GroupGradients \(2\), but 3 was found"
  with pytest.raises(ValueError, match=message):
    tx.update(as_form("group", draw(0))[0], tx.init(PARAMS))


@pytest.mark.parametrize(
  ("scarcity", "found"),
  [
    (lambda g, mean, std: jnp.max(g), r"float32\[\]"),
    (lambda g, mean, std: g[None], r"float32\[1,2\]"),
    (lambda g, mean, std: g > mean, r"bool\[2\]"),
    (lambda g, mean, std: jnp.ones(g.shape, jnp.int32), r"int32\[2\]"),
  ],
)
@pytest.mark.parametrize("form", FORMS)
def test_scarcity_of_the_wrong_shape_or_dtype_is_refused(form, scarcity, found):
  tx = gq.grad_queue(scarcity=scarcity, num_clusters=2)
  gradient, kwargs = as_form(form, draw(0))
  message = rf"scarcity must return a float weight of shape \(2,\) .*, but {found} was found"
  with pytest.raises(ValueError, match=message):
    tx.update(gradient, tx.init(PARAMS), **kwargs)


# Traced hyperparameters are clamped into their range.


@jax.jit
def traced(hyperparameters, batches):
  """The last update on group gradients, every hyperparameter traced."""
  tx = gq.grad_queue(LENGTH, **hyperparameters)
  step = lambda state, groups: tx.update(groups, state)[::-1]
  return jax.tree.map(lambda u: u[-1], jax.lax.scan(step, tx.init(PARAMS), batches)[1])


GROUP_BATCHES = jax.tree.map(
  lambda *g: np.stack(g), *[as_form("group", draw(seed))[0] for seed in range(6)]
)


@pytest.mark.parametrize(
  ("name", "traced_value", "static_value"),
  [
    ("rho", 3.0, 3.0),
    ("rho", 1.0, 1.0),
    ("rho", 0.5, 1.0),
    ("rho", -7.0, 1.0),
    ("rho", np.nan, 1.0),
    ("update_norm", 0.5, 0.5),
    ("update_norm", 1e3, 1e3),
  ],
)
def test_traced_hyperparameters_are_clamped(name, traced_value, static_value):
  result = traced({name: jnp.float32(traced_value)}, GROUP_BATCHES)
  default = name == "rho" and static_value == RHO
  options = {} if default else {name: static_value}
  expected, _ = play("group", [draw(seed) for seed in range(6)], **options)
  chex.assert_trees_all_close(result, expected[-1], rtol=1e-5)


def test_a_traced_cap_below_zero_stops_the_update():
  chex.assert_trees_all_equal(traced({"update_norm": jnp.float32(-1.0)}, GROUP_BATCHES), PARAMS)


def test_a_traced_key_equals_the_static_one():
  embeddings = draw(8)["b"]
  # The seeding of three groups among six rows hangs on the key.
  step = lambda key: gq.grad_queue(num_clusters=3, key=key, track=True).update(
    draw(3), gq.grad_queue(track=True, num_clusters=3).init(PARAMS), embeddings=embeddings
  )
  traced_step = jax.jit(step)
  for key in range(3):
    chex.assert_trees_all_close(traced_step(jnp.int32(key)), step(key), rtol=1e-5, atol=1e-6)
