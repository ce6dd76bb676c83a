# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What Optax demands of every contributed optimizer, demanded of ours."""

import functools
import inspect

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from chains import tail_probability

import gq_optax as gq

# Adam and schedules of Optax mix dtypes; these tests run them.
pytestmark = pytest.mark.standard_promotion

# A third of what plain SGD takes on the Rosenbrock function: weights up to rho amplify, so that
# the largest stable learning rate falls.
LEARNING_RATE = 3e-4


def chained(optimizer=optax.sgd(LEARNING_RATE, momentum=0.9), **kwargs):  # noqa: B008
  """The form on the design card: grad_queue in front of sgd."""
  return optax.chain(gq.grad_queue(**kwargs), optimizer)


OPTIMIZERS = {
  "chain": functools.partial(chained),
  "chain-adaptive": functools.partial(chained, queue_length=(2, 6)),
  "chain-everything": functools.partial(
    chained,
    queue_length=4,
    rho=2.0,
    scarcity=tail_probability,
    update_norm="match",
    queue_dtype=jnp.bfloat16,
    track=True,
  ),
  "chain-cap": functools.partial(chained, update_norm=2.0, track=True),
  "chain-adam": functools.partial(chained, optax.adam(1e-2)),
}
every_optimizer = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())


def parabola(dtype=jnp.float32):
  target = jnp.array([1.0, 2.0], dtype)
  return jnp.array([-1.0, 10.0], dtype), target, lambda p: jnp.sum(jnp.square(p - target))


def rosenbrock(dtype=jnp.float32):
  def objective(p):
    return (1.0 - p[0]) ** 2 + 100.0 * (p[1] - p[0] ** 2) ** 2

  return jnp.zeros(2, dtype), jnp.ones(2, dtype), objective


def matrix_parabola(dtype=jnp.float32):
  target = jnp.arange(6, dtype=dtype).reshape(2, 3)
  return jnp.zeros((2, 3), dtype), target, lambda p: jnp.sum(jnp.square(p - target))


def mixed_tensors(dtype=jnp.float32):
  start = (jnp.zeros((2, 2, 2), dtype), jnp.zeros((3, 3), dtype), jnp.zeros((2,), dtype), {})
  goal = jax.tree.map(jnp.ones_like, start)
  return start, goal, lambda p: optax.tree.norm(optax.tree.sub(p, goal), squared=True)


def make_step(tx, objective):
  @jax.jit
  def step(params, state):
    value, gradient = jax.value_and_grad(objective)(params)
    updates, state = tx.update(gradient, state, params, value=value, nobody_expects_this=1)
    return optax.apply_updates(params, updates), state

  return step


@every_optimizer
def test_extra_args_are_accepted_and_nothing_compiles_twice(make):
  tx = make()
  params, _, objective = rosenbrock()
  step = make_step(tx, objective)
  params, state = step(params, tx.init(params))
  chex.assert_trees_all_equal_shapes_and_dtypes(state, tx.init(params))
  for _ in range(8):  # past the point where weighting starts
    params, state = step(params, state)
  assert step._cache_size() == 1


@every_optimizer
@pytest.mark.parametrize("problem", [parabola, rosenbrock, matrix_parabola, mixed_tensors])
def test_it_optimizes(make, problem):
  tx = make()
  params, goal, objective = problem()
  step = make_step(tx, objective)
  state = tx.init(params)
  scan = jax.jit(lambda carry: jax.lax.scan(lambda c, _: (step(*c), None), carry, length=30_000)[0])
  params, _ = scan((params, state))
  chex.assert_trees_all_close(params, goal, rtol=3e-2, atol=3e-2)


INJECTED = {
  "grad_queue": (gq.grad_queue, {"rho": 2.0}),
  "grad_queue-cap": (gq.grad_queue, {"rho": 2.0, "update_norm": 1.1, "queue_length": (1, 3)}),
  "grad_queue-track": (gq.grad_queue, {"rho": 4.0, "track": True}),
}


@pytest.mark.parametrize(("factory", "hyperparams"), INJECTED.values(), ids=INJECTED.keys())
def test_inject_hyperparams_changes_nothing(factory, hyperparams):
  # What fixes the shape of arrays or is not a number cannot be injected.
  structural = ("queue_length", "num_clusters", "track", "key", "queue_dtype", "nesterov")
  static = [name for name in structural if name in inspect.signature(factory).parameters]
  plain, injected = factory(**hyperparams), optax.inject_hyperparams(factory, static)(**hyperparams)
  params = [-jnp.ones((2, 3)), jnp.ones((2, 5, 2))]
  plain_state, state = jax.jit(plain.init)(params), jax.jit(injected.init)(params)
  assert float(state.hyperparams["rho"]) == hyperparams.get("rho", 3.0)
  for step in range(6):
    gradient = jax.tree.map(lambda p, step=step: jnp.sin(p + step**2), params)
    expected, plain_state = jax.jit(plain.update)(gradient, plain_state, params, value=step)
    updates, state = jax.jit(injected.update)(gradient, state, params, value=step)
    chex.assert_trees_all_close(updates, expected, rtol=1e-5)
  chex.assert_trees_all_close(state.inner_state, plain_state, rtol=1e-5, atol=1e-6)


def test_injected_rho_is_read_at_every_step():
  tx = optax.inject_hyperparams(gq.grad_queue, ("queue_length", "num_clusters", "track", "key"))()
  gradient, update = jnp.ones(3), jax.jit(tx.update)
  state = tx.init(gradient)
  for _ in range(5):
    updates, state = update(gradient, state)
  chex.assert_trees_all_close(updates, gradient / 3)
  state.hyperparams["rho"] = jnp.float32(8.0)
  updates, state = update(gradient, state)
  chex.assert_trees_all_close(updates, gradient / 8)


@every_optimizer
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_the_update_keeps_the_dtype(make, dtype):
  tx, params = make(), jnp.array([1.0, 2.0], dtype)
  updates, state = jax.jit(tx.update)(params, jax.jit(tx.init)(params), params, value=1.0)
  chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)
  chex.assert_trees_all_equal_shapes_and_dtypes(state, tx.init(params))


@every_optimizer
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_multi_steps_accumulates(make, dtype):
  inner = make()
  tx = optax.MultiSteps(inner, every_k_schedule=4)
  params = jnp.array([1.0, 2.0], dtype)
  state, plain_state = tx.init(params), inner.init(params)
  update, plain_update = jax.jit(tx.update), jax.jit(inner.update)
  for step in range(24):
    updates, state = update(params, state, params, value=jnp.float32(step))
    if step % 4 < 3:
      chex.assert_trees_all_equal(updates, jnp.zeros_like(params))
    else:
      expected, plain_state = plain_update(params, plain_state, params, value=jnp.float32(step))
      chex.assert_trees_all_close(updates, expected, rtol=1e-2)


@every_optimizer
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64])
def test_the_state_is_stable_through_cond(make, dtype):
  with jax.enable_x64(dtype == jnp.float64):
    tx = make()
    params, _, objective = parabola(dtype)
    other = jnp.float16 if dtype != jnp.float16 else jnp.bfloat16

    @jax.jit
    def step(params, state, flag):
      value, gradient = jax.value_and_grad(objective)(params)
      value = value.astype(other)  # a loss of another dtype must not change the state's
      take = lambda: tx.update(gradient, state, params, value=value)
      updates, state = jax.lax.cond(flag, take, lambda: (gradient, state))
      return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for flag in (True, False, True):
      params, new_state = step(params, state, flag)
      assert params.dtype == dtype
      chex.assert_trees_all_equal_shapes_and_dtypes(new_state, state)
      state = jax.lax.cond(flag, lambda a=state: a, lambda b=new_state: b)


@every_optimizer
def test_init_works_on_shapes_alone(make):
  params = {"w": jnp.ones((3, 2)), "b": jnp.ones(2, jnp.bfloat16)}
  shapes = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), params)
  abstract = jax.eval_shape(make().init, shapes)
  chex.assert_trees_all_equal_shapes_and_dtypes(abstract, make().init(params))


@every_optimizer
def test_fresh_state_and_params_are_donated_together(make):
  tx = make()
  params, _, objective = parabola()

  @functools.partial(jax.jit, donate_argnums=(0, 1))
  def step(params, state):
    value, gradient = jax.value_and_grad(objective)(params)
    updates, state = tx.update(gradient, state, params, value=value)
    return optax.apply_updates(params, updates), state

  donated = params + 0.0, tx.init(params)
  result = step(*donated)
  chex.assert_tree_all_finite(result[0])
  # A buffer that occurs twice, or none to put it into, would be an error or a warning.
  queue = [leaf for leaf in jax.tree.leaves(donated[1]) if leaf.ndim == 2]
  assert queue
  assert all(leaf.is_deleted() for leaf in queue)
  step(*result)


@every_optimizer
def test_a_restored_checkpoint_continues_bit_by_bit(make, tmp_path):
  tx = make()
  params, _, objective = mixed_tensors()
  params = params[:3]
  step = make_step(tx, lambda p: objective((*p, {})))
  run = (params, tx.init(params))
  for _ in range(5):
    run = step(*run)
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(tmp_path / "run", {"params": run[0], "opt_state": run[1]})
    checkpointer.wait_until_finished()
    target = {"params": params, "opt_state": jax.eval_shape(tx.init, params)}
    restored = checkpointer.restore(tmp_path / "run", target)
  resumed = (restored["params"], restored["opt_state"])
  chex.assert_trees_all_equal(resumed, run)
  for _ in range(5):
    run, resumed = step(*run), step(*resumed)
  chex.assert_trees_all_equal(resumed, run)
  assert np.isfinite(objective((*resumed[0], {})))
