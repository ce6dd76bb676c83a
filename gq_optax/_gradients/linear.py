# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Examples run forward, and a backward pass whose sums over examples are left open.

`jax.linearize` splits the loss of one example into a forward pass and a linear function of the
parameters, whose coefficients are what the forward pass keeps. That function is cut in two where
parameters, the same for all examples, meet what differs between them:

    parameters -- meet --> taps -- follow --> loss

The transpose of `follow` is run for all examples at once. The transpose of `meet`, products of what
was kept and of the taps' cotangents, is what sums over examples: it waits for the groups.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.extend import core

from gq_optax import _inputs
from gq_optax._gradients import checks, products


class Part(NamedTuple):
  """A share of the gradient, as a sum over examples that is still to be taken.

  Attributes:
    leaves: the numbers of the leaves of the parameters that it belongs to.
    often: whether an example multiplies these weights many times over.
    whole: whether there are programs in it, such as loops or what is computed again.
    kept: list of `[B, ...]`, what the forward pass keeps.
    cotangents: list of `[B, ...]`.
    contract: `(kept, cotangents) -> gradients` of the leaves, summed over any rows of these.
  """

  leaves: list[int]
  often: bool
  whole: bool
  kept: list[jax.Array]
  cotangents: list[jax.Array]
  contract: Callable[..., list[jax.Array]]


class Program(NamedTuple):
  """The loss of one example, linearized.

  Attributes:
    first: the forward pass `(*parameters, *example) -> (*results, *kept)`.
    linear: the linear function of the parameters, whose constants are what is kept.
    results: structure of `(loss, aux)`.
    axes: for each output of `first`, 0 if it differs between examples, else None.
    kept_bytes: what one example keeps.
    collectives: what the forward pass asks of other devices.
  """

  first: core.ClosedJaxpr
  linear: core.Jaxpr
  results: jax.tree_util.PyTreeDef
  axes: list[int | None]
  kept_bytes: int
  collectives: set[str]


def trace(loss_fn: Callable[..., Any], params: optax.Params, batch: Any, has_aux: bool) -> Program:
  """Traces the loss of one example of the batch."""
  leaves, structure = jax.tree.flatten(params)
  found = []

  def one(leaves, example):
    def loss(leaves):
      result = loss_fn(
        jax.tree.unflatten(structure, leaves), jax.tree.map(lambda x: x[None], example)
      )
      losses, aux = result if has_aux else (result, None)
      return checks.of_one(losses), jax.tree.map(lambda x: x[0], aux)

    value, linear, aux = jax.linearize(loss, leaves, has_aux=True)
    closed = jax.make_jaxpr(linear)(leaves)
    flat = jax.make_jaxpr(lambda leaves: _inline(closed, leaves))(leaves)
    found.append(flat.jaxpr)
    return (value, aux), flat.consts

  _inputs.on_auto_axes("batch", batch)
  _inputs.static("batch", (checks.batch_size(batch),))
  example = jax.tree.map(lambda x: _unused(x)[0], batch)
  first, shapes = jax.make_jaxpr(one, return_shape=True)(leaves, example)
  # What does not hang on the example, as the weights themselves, is kept once.
  differs = _reached(first.jaxpr, first.jaxpr.invars[len(leaves) :])
  number = len(jax.tree.leaves(shapes[0]))
  varies = lambda v: isinstance(v, core.Var) and v in differs
  axes = [0 if i < number or varies(v) else None for i, v in enumerate(first.jaxpr.outvars)]
  exchanged = _collectives(found[-1])
  if exchanged:
    raise ValueError(
      "loss_fn must not exchange between devices what hangs on the parameters, because each device"
      f" has groups of its own, but {', '.join(sorted(exchanged))} was found. Gather parameters"
      " before, and leave statistics across devices out of the gradient by jax.lax.stop_gradient."
    )
  own = [v.aval for v, axis in zip(found[-1].constvars, axes[number:], strict=True) if axis == 0]
  kept_bytes = sum(math.prod(x.shape) * x.dtype.itemsize for x in own)
  return Program(
    first, found[-1], jax.tree.structure(shapes[0]), axes, kept_bytes, _collectives(first.jaxpr)
  )


def forward(
  program: Program, params: optax.Params, batch: Any
) -> tuple[jax.Array, Any, Callable[[], list[Part]]]:
  """Losses `[B]`, aux, and the way back: the gradients of all examples, not summed yet."""
  leaves, rows = jax.tree.leaves(params), jax.tree.leaves(batch)
  in_axes = (*[None] * len(leaves), *[0] * len(rows))
  with checks.batched():
    outputs = jax.vmap(core.jaxpr_as_fun(program.first), in_axes, program.axes)(*leaves, *rows)
  number, linear = program.results.num_leaves, program.linear
  losses, aux = jax.tree.unflatten(program.results, outputs[:number])
  kept = list(zip(linear.constvars, outputs[number:], program.axes[number:], strict=True))
  own = {v: x for v, x, axis in kept if axis == 0}
  shared = {v: x for v, x, axis in kept if axis is None}
  return losses, aux, lambda: _backward(linear, leaves, own, shared, jnp.ones_like(losses))


def aux(program: Program, params: optax.Params, batch: Any, size: int) -> Any:
  """Aux alone, of `size` examples at a time."""
  leaves = jax.tree.leaves(params)

  def one(example):
    outputs = core.jaxpr_as_fun(program.first)(*leaves, *jax.tree.leaves(example))
    return jax.tree.unflatten(program.results, outputs[: program.results.num_leaves])[1]

  return jax.lax.map(one, batch, batch_size=size)


def _backward(linear, leaves, own, shared, ones):
  """Cotangents of the taps for every example, and what remains to be summed."""
  meet, follow, taps = _cut(linear, own)
  eqns, needed = _needed(follow, linear.outvars)
  names = [v for v in own if v in needed]

  def cotangents(values, one):
    env = shared | dict(zip(names, values, strict=True))
    loss = lambda *values: _run(eqns, env | dict(zip(taps, values, strict=True)), linear.outvars)
    return jax.linear_transpose(loss, *(v.aval for v in taps))([one])

  arrays = jax.vmap(cotangents)([own[v] for v in names], ones) if taps else ()

  differs = _reached(linear, own)

  def by_rows(eqn, inputs):
    eqn, inputs = _wide(eqn, inputs)
    axes = [0 if isinstance(v, core.Var) and v in differs else None for v in eqn.invars]
    if 0 not in axes:
      return _bind(eqn, inputs)
    results = products.rule(eqn, inputs, axes)
    return results or jax.vmap(lambda *inputs: _bind(eqn, inputs), axes)(*inputs)

  def part(often):
    chosen = [
      (v, x) for (v, is_often), x in zip(taps.items(), arrays, strict=True) if is_often == often
    ]
    variables = [v for v, _ in chosen]
    eqns, needed = _needed(meet, variables)
    numbers = [n for n, v in enumerate(linear.invars) if v in needed]
    names = [v for v in own if v in needed]

    def contract(kept, cotangents):
      def sums(*weights):
        env = shared | dict(zip(names, kept, strict=True))
        env |= {linear.invars[n]: w for n, w in zip(numbers, weights, strict=True)}
        results = _run(eqns, env, variables, by_rows)
        spread = lambda v, x, c: x if v in differs else jnp.broadcast_to(x, c.shape)
        results = map(spread, variables, results, cotangents)
        return [x.astype(c.dtype) for x, c in zip(results, cotangents, strict=True)]

      return jax.linear_transpose(sums, *(_widened(leaves[n]) for n in numbers))(cotangents)

    whole = any(map(checks.programs, eqns))
    return Part(numbers, often, whole, [own[v] for v in names], [x for _, x in chosen], contract)

  return [p for p in map(part, (True, False)) if p.leaves]


def _cut(linear, own):
  """Equations before and behind the cut; the taps, and whether what makes them is much work."""
  size = lambda v: math.prod(v.aval.shape)
  lin, differs = _reached(linear, linear.invars), _reached(linear, own)
  shared = lambda e: [v for v in _variables(e.invars) if v in lin and v not in differs]
  mixed = lambda e: any(v in lin and v in differs for v in _variables(e.invars))
  custom = lambda e: _holds(e, "custom_lin") and not differs.isdisjoint(e.outvars)
  # Scales and biases: the gradient of one example is smaller than what it is made of.
  meets = [e for e in linear.eqns if shared(e) and not differs.isdisjoint(e.outvars)]
  fixed = lambda e: checks.programs(e) or e.primitive.name == "conv_general_dilated"
  small = []
  for leaf in linear.invars:
    reached = _reached(linear, [leaf])
    met = [e for e in meets if not reached.isdisjoint(shared(e))]
    if all(size(leaf) <= size(e.outvars[0]) and not fixed(e) for e in met):
      small.append(leaf)
  differs = _reached(linear, [*own, *small])
  # A loop that weights and tangents of examples both enter stays whole, with what leads to it.
  knots = [
    v for e in linear.eqns if shared(e) and mixed(e) and checks.programs(e) for v in e.outvars
  ]
  whole, _ = _needed(linear.eqns, knots)
  if any(map(custom, whole)):  # a derivative rule of the user's, which JAX can't batch beforehand
    whole = []
  whole = {id(e) for e in whole}
  follow = [e for e in linear.eqns if (mixed(e) or custom(e)) and id(e) not in whole]
  made = {v for e in follow for v in e.outvars}
  read = [v for e in follow for v in _variables(e.invars)] + _variables(linear.outvars)
  taps = {v: False for v in read if v in lin and v not in made}
  for e in linear.eqns:
    other = max((size(v) for v in _variables(e.invars) if v in differs), default=1)
    work = size(e.outvars[0]) * other >= 64 * sum(map(size, shared(e)))
    for v in e.outvars:
      if v in taps and shared(e):
        taps[v] = bool(id(e) in whole or checks.programs(e) or work)
  ids = set(map(id, follow))
  constant = [e for e in linear.eqns if lin.isdisjoint(e.outvars)]
  return [e for e in linear.eqns if id(e) not in ids], constant + follow, taps


def _run(eqns, env, outputs, rule=lambda eqn, inputs: None):
  """Runs equations, by a rule of their own where there is one."""
  env, read = dict(env), lambda v: v.val if isinstance(v, core.Literal) else env[v]
  for eqn in eqns:
    inputs = [read(v) for v in eqn.invars]
    results = rule(eqn, inputs)
    env.update(zip(eqn.outvars, _bind(eqn, inputs) if results is None else results, strict=True))
  return [read(v) for v in outputs]


def _bind(eqn, inputs):
  """Runs one equation."""
  options = eqn.primitive.get_bind_params(eqn.params)
  # Before JAX 0.10 functions stand apart from the other options.
  functions, options = options if isinstance(options, tuple) else ((), options)
  results = eqn.primitive.bind(*functions, *inputs, **options)
  return results if eqn.primitive.multiple_results else [results]


def _widened(leaf):
  """What stands for a leaf in sums over examples: of float16 these would overflow, or vanish."""
  return leaf.astype(jnp.float32) if leaf.dtype == jnp.float16 else leaf


def _wide(eqn, inputs):
  """An equation of float16 as one of float32 where something of float32 comes in."""
  atoms = zip(eqn.invars, inputs, strict=True)
  if all(jnp.result_type(x) == v.aval.dtype for v, x in atoms):
    return eqn, inputs
  if checks.programs(eqn):  # its programs are of float16
    return eqn, [x.astype(v.aval.dtype) for v, x in zip(eqn.invars, inputs, strict=True)]
  wide = lambda dtype: jnp.float32 if dtype == jnp.float16 else dtype
  kinds = {name: wide(eqn.params.get(name)) for name in ("new_dtype", "preferred_element_type")}
  params = eqn.params | {name: kind for name, kind in kinds.items() if name in eqn.params}
  return eqn.replace(params=params), [x.astype(wide(x.dtype)) for x in inputs]


def _inline(closed, inputs):
  """Runs a program, with functions under `jit` in the place of their calls."""
  program = closed.jaxpr
  called = lambda eqn: eqn.primitive.name in ("jit", "pjit", "closed_call")
  rule = lambda eqn, inputs: _inline(eqn.params["jaxpr"], inputs) if called(eqn) else None
  variables = [*program.constvars, *program.invars]
  env = dict(zip(variables, [*closed.consts, *inputs], strict=True))
  return _run(program.eqns, env, program.outvars, rule)


def _needed(eqns, outputs):
  """The equations that outputs need, and the variables that these read."""
  needed, found = set(_variables(outputs)), []
  for eqn in reversed(eqns):
    if not needed.isdisjoint(eqn.outvars):
      found.append(eqn)
      needed.update(_variables(eqn.invars))
  return found[::-1], needed


def _reached(program, start):
  """The variables that hang on those to start from."""
  reached = set(start)
  for eqn in program.eqns:
    if not reached.isdisjoint(_variables(eqn.invars)):
      reached.update(eqn.outvars)
  return reached


def _unused(x):
  """Keys for the shape alone, so that `jax.debug_key_reuse` does not count that as their use."""
  is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
  return jax.random.clone(x) if is_key else x


def _variables(atoms):
  return [v for v in atoms if isinstance(v, core.Var)]


def _holds(eqn, name):
  inner = (e for program in checks.programs(eqn) for e in program.eqns)
  return eqn.primitive.name == name or any(_holds(e, name) for e in inner)


def _collectives(program):
  """Names of the operations over named axes in a program."""
  names = ("psum", "pmax", "pmin", "ppermute", "all_gather", "all_to_all", "reduce_scatter")
  found = {e.primitive.name for e in program.eqns if e.primitive.name.startswith(names)}
  return found.union(*(_collectives(inner) for e in program.eqns for inner in checks.programs(e)))
