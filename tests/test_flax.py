# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""grad_queue in the training states of Flax, and names of axes that Flax keeps around parameters.

The queue's own axis is in front of those. Checkpoints are in test_checkpoints.py.
"""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import pytest
from chains import FORMS, PARAMS, TWO, assert_close, queue_sgd, train
from flax import nnx
from flax.training.train_state import TrainState
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import gq_optax as gq

pytestmark = pytest.mark.standard_promotion  # networks of Flax

NAMES = ("data", "model")
INIT = nn.initializers.lecun_normal()
X = jnp.ones((4, 8))
TX = queue_sgd(0.1, track=True)
draw, per_example, _ = FORMS


@pytest.mark.parametrize("form", FORMS)
def test_linen_train_state(form):
  """Compiled, and once not; of examples never, as K-means is compiled by itself."""
  tx = queue_sgd(0.1, **TWO)
  gradients = [jax.tree.map(jnp.asarray, form(seed)) for seed in range(6)]
  state = TrainState.create(apply_fn=nn.Dense(2).apply, params=PARAMS, tx=tx)
  step = lambda state, grads: state.apply_gradients(grads=grads)
  step = step if form is per_example else jax.jit(step)
  for gradient in gradients[:5]:
    state = step(state, gradient)
  state = state.apply_gradients(grads=gradients[5])
  assert_close(state.params, train(tx, gradients)[0][-1])
  assert state.step == 6


@pytest.mark.parametrize("form", [draw, per_example])
def test_nnx_optimizer_with_extra_args(form):
  model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
  model.kernel[...], model.bias[...] = PARAMS["w"], PARAMS["b"]
  tx = queue_sgd(0.1, queue_length=(1, 3), num_clusters=2)
  optimizer, gradients = nnx.Optimizer(model, tx, wrt=nnx.Param), [form(seed) for seed in range(5)]
  extra = {"value": jnp.float32(1.0)}
  extra |= {"embeddings": jnp.eye(2)[jnp.arange(6) // 4]} if form is per_example else {}
  of_one = nnx.grad(lambda m, w, b: jnp.sum(m.kernel[...] * w) + jnp.sum(m.bias[...] * b))
  of = nnx.vmap(of_one, in_axes=(None, 0, 0)) if form is per_example else of_one
  for gradient in gradients:
    grads = of(model, gradient["w"], gradient["b"])
    optimizer.update(model, grads, **extra)
  expected = train(tx, gradients, **extra)[0][-1]
  assert_close({"w": model.kernel[...], "b": model.bias[...]}, expected)
  assert optimizer.step[...] == 5
  with pytest.raises(ValueError, match="pass value="):
    optimizer.update(model, grads)


# Names of axes


def linen(wrap):
  model = nn.Dense(4, kernel_init=wrap(INIT, NAMES))
  return model, model.init(jax.random.key(0), X)["params"]


@pytest.mark.parametrize("wrap", [nn.with_partitioning, nn.with_logical_partitioning])
def test_linen_boxes_gain_a_leading_none(wrap):
  model, params = linen(wrap)
  state = jax.eval_shape(TX.init, params)
  box = state[0].queue.slots["kernel"]
  assert type(box) is type(params["kernel"])
  assert (box.names, box.value.shape) == ((None, *NAMES), (3, 8, 4))
  by_flax = nn.get_partition_spec(state)
  specs = gq.partition_specs(state, nn.get_partition_spec(params))
  assert specs[0].queue.slots["kernel"] == by_flax[0].queue.slots["kernel"] == P(None, *NAMES)
  assert specs[1][0].trace["kernel"] == by_flax[1][0].trace["kernel"] == P(*NAMES)
  assert specs[0].queue.slots["bias"] == P(None)

  grads = jax.grad(lambda p: jnp.mean(model.apply({"params": p}, X) ** 2))(params)
  bare = nn.meta.unbox
  run, bare_run = TX.init(params), TX.init(bare(params))
  for step in range(5):
    scaled = jax.tree.map(lambda g, s=step: g * (1.0 + s), grads)
    updates, run = TX.update(scaled, run, params)
    bare_updates, bare_run = TX.update(bare(scaled), bare_run, bare(params))
  chex.assert_trees_all_equal_structs(optax.apply_updates(params, updates), params)
  chex.assert_trees_all_equal(bare((updates, run)), (bare_updates, bare_run))
  chex.assert_trees_all_equal_structs(run, TX.init(params))


@pytest.mark.parametrize("lead", [6, 2])
def test_linen_boxes_around_batched_gradients(lead):
  _, params = linen(nn.with_partitioning)
  batched = jax.tree.map(lambda p: jnp.ones((lead, *p.shape)), params)
  updates = batched if lead == 6 else gq.GroupGradients(batched, jnp.array([3, 1]))
  tx = gq.grad_queue(num_clusters=2)
  result, state = jax.eval_shape(tx.update, updates, tx.init(params), params)
  chex.assert_trees_all_equal_shapes(result, params)
  assert state.queue.slots["kernel"].names == (None, *NAMES)


def make_mesh():
  return jax.make_mesh((2, 2), NAMES, (AxisType.Auto,) * 2, devices=jax.devices()[:4])


def make_nnx(names=NAMES, tx=TX, **options):
  init = nnx.with_partitioning(INIT, names, **options)
  model = nnx.Linear(8, 4, kernel_init=init, rngs=nnx.Rngs(0))
  return model, nnx.Optimizer(model, tx, wrt=nnx.Param)


def queued(state):
  """The queue of the kernel, and the names of its axes."""
  kernel = state[0].queue.slots["kernel"]
  return kernel, names_of(kernel)


def names_of(variable):
  return variable.get_metadata()["out_sharding"]


@pytest.mark.several_devices
@pytest.mark.parametrize("length", [4, pytest.param(3, marks=pytest.mark.slow)])
def test_nnx_slots_lie_behind_a_replicated_axis(length):
  with jax.set_mesh(make_mesh()):
    model, optimizer = make_nnx(tx=queue_sgd(0.1, queue_length=length))
    kernel, names = queued(optimizer.opt_state)
    assert names == (None, *NAMES)
    assert names_of(model.kernel) == NAMES  # the model's own is not touched
    assert kernel.get_value().sharding.spec == P(None, *NAMES)
    params = nnx.state(model, nnx.Param)
    for _ in range(2):
      grads = nnx.grad(lambda model: jnp.mean(model(X) ** 2))(model)
      # Gradients in their variables fit a state made of variables.
      updates, state = optimizer.tx.update(grads, optimizer.tx.init(params), params)
      chex.assert_trees_all_equal_structs(updates, grads)
      assert queued(state)[1] == (None, *NAMES)
      optimizer.update(model, grads)
    kernel, _ = queued(optimizer.opt_state)
    assert kernel.get_value().sharding.spec == P(None, *NAMES)
    assert optimizer.opt_state[1][0].trace["kernel"].get_value().sharding.spec == P(*NAMES)

    by_flax = nnx.get_partition_spec(optimizer.opt_state)
    specs = gq.partition_specs(optimizer.opt_state, nnx.get_partition_spec(params))
    found = queued(specs)[0].get_value()
    assert found == queued(by_flax)[0].get_value() == P(None, *NAMES)
    structure = lambda tree: jax.tree.structure(tree, is_leaf=lambda node: isinstance(node, P))
    assert structure(specs) == structure(by_flax)


@pytest.mark.several_devices
def test_nnx_metadata_for_optimizers_and_a_mesh_in_the_metadata():
  mesh = make_mesh()
  with jax.set_mesh(mesh):
    _, optimizer = make_nnx(optimizer_sharding=("model", None), mesh=mesh)
    assert queued(optimizer.opt_state)[1] == (None, "model", None)
  _, optimizer = make_nnx(NamedSharding(mesh, P(*NAMES)))
  assert queued(optimizer.opt_state)[1] == NamedSharding(mesh, P(None, *NAMES))
