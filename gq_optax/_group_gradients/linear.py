# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Examples run forward and back, all of them once, with the sums over examples left open.

`jax.linearize` splits the loss of one example into a forward pass and a linear function of the
parameters, whose constants are what the forward pass keeps. That function is cut in two where
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

from gq_optax import _validate
from gq_optax._group_gradients import checks, jaxprs, products


class Part(NamedTuple):
  """A share of the gradient, as a sum over examples that is still to be taken.

  Attributes:
    leaves: the numbers of the leaves of the parameters that it belongs to.
    often: whether an example multiplies these weights many times over.
    ruled: whether loops or rules of the user's are in it, which may not give 0 for a cotangent of 0
      and kept ones.
    kept: list of `[B, ...]`, what the forward pass keeps.
    cotangents: list of `[B, ...]`, those of the taps.
    contract: `(kept, cotangents) -> gradients` of the leaves, summed over any examples of these.
  """

  leaves: list[int]
  often: bool
  ruled: bool
  kept: list[jax.Array]
  cotangents: list[jax.Array]
  contract: Callable[..., list[jax.Array]]


def run(
  loss_fn: Callable[..., Any], params: optax.Params, batch: Any, has_aux: bool = False
) -> tuple[jax.Array, Any, list[Part]]:
  """Losses `[B]`, aux, and the gradient of all examples in parts, not summed yet."""
  forward, kept_axes, linear = _linearized(loss_fn, params, batch, has_aux)
  with checks.batched():
    (losses, aux), kept = jax.vmap(forward, (None, 0), (0, kept_axes))(params, batch)
  leaves = jax.tree.leaves(params)
  known = dict(zip(linear.constvars, kept, strict=True))
  own = [v for v, axis in zip(known, kept_axes, strict=True) if axis == 0]
  meet, follow, taps = _cut(linear, own)

  def back(of_one, one):
    loss = lambda *t: jaxprs.run(follow, known, [*own, *taps], [*of_one, *t], linear.outvars)
    return jax.linear_transpose(loss, *(v.aval for v in taps))([one])

  of_each = [known[v] for v in own], jnp.ones_like(losses)
  of_tap = dict(zip(taps, jax.vmap(back)(*of_each) if taps else (), strict=True))

  def part(often):
    chosen = [v for v in taps if taps[v] == often]
    eqns, needed = jaxprs.upstream(meet, chosen)
    numbers = [n for n, v in enumerate(linear.invars) if v in needed]
    kept = [v for v in own if v in needed]
    names = [*kept, *(linear.invars[n] for n in numbers)]

    def contract(kept, cotangents):
      def products_of(*weights):
        results = jaxprs.run(eqns, known, names, [*kept, *weights], chosen, _by_examples)
        like = lambda x, c: jnp.broadcast_to(x, c.shape).astype(c.dtype)
        return list(map(like, results, cotangents))

      weights = [leaves[n].astype(wide(leaves[n].dtype)) for n in numbers]
      return jax.linear_transpose(products_of, *weights)(cotangents)

    ruled = any(jaxprs.bodies(e) or "custom_lin" in e.primitive.name for e in eqns)
    kept_values, cotangents = [known[v] for v in kept], [of_tap[v] for v in chosen]
    return Part(numbers, often, ruled, kept_values, cotangents, contract)

  return losses, aux, [p for p in map(part, (True, False)) if p.leaves]


def _linearized(loss_fn, params, batch, has_aux):
  """The loss of one example, linearized.

  Returns:
    The forward pass `(params, example) -> ((loss, aux), kept)`; for each thing kept 0 if it differs
    between examples, else None; and the linear function of the parameters, of which they are the
    constants.
  """
  _validate.on_auto_axes("batch", batch)
  _validate.static_shape("batch", jax.tree.leaves(batch)[0].shape[:1])
  loss, traced = checks.of_one(loss_fn, has_aux), []  # a list: `make_jaxpr` hands on arrays alone

  def linearize(params, example):
    value, linear, aux = jax.linearize(lambda p: loss(p, example), params, has_aux=True)
    flat = lambda p: jaxprs.inlined(jax.make_jaxpr(linear)(p), jax.tree.leaves(p))
    program = jax.make_jaxpr(flat)(params)
    traced.append(program.jaxpr)
    return (value, aux), program.consts

  example = jax.eval_shape(lambda batch: jax.tree.map(lambda x: x[0], batch), batch)
  program, shapes = jax.make_jaxpr(linearize, return_shape=True)(params, example)
  checks.no_collectives(traced[-1])
  results: Any = jax.tree.structure(shapes)
  # What does not depend on the example, as the weights themselves, is kept once.
  inputs = program.jaxpr.invars[len(jax.tree.leaves(params)) :]
  own = jaxprs.downstream(program.jaxpr.eqns, inputs)
  kept = program.jaxpr.outvars[len(jax.tree.leaves(shapes[0])) :]
  axes = [None if own.isdisjoint(jaxprs.variables([v])) else 0 for v in kept]
  flat = core.jaxpr_as_fun(program)
  forward = lambda *args: jax.tree.unflatten(results, flat(*jax.tree.leaves(args)))
  return forward, axes, traced[-1]


def _cut(linear, own):
  """Equations before and behind the cut; the taps, and whether examples use their weights often.

  First it is found what differs between examples. Scales and biases count as what differs, since
  the gradient of one is small; loops that mix both stay whole, in front. Behind the cut are the
  first equations that mix both, and rules of the user's. The taps are what these read.
  """
  eqns, size = linear.eqns, lambda v: math.prod(v.aval.shape)
  tangents, differ = jaxprs.downstream(eqns, linear.invars), jaxprs.downstream(eqns, own)
  read = lambda e: [v for v in jaxprs.variables(e.invars) if v in tangents]
  weights = lambda e: [v for v in read(e) if v not in differ]
  mixed = lambda e: not differ.isdisjoint(read(e))
  # Scales and biases: the gradient of one example is smaller than what it is made of.
  meets = [e for e in eqns if weights(e) and not differ.isdisjoint(e.outvars)]
  slow = lambda e: jaxprs.bodies(e) or e.primitive.name == "conv_general_dilated"
  costs = lambda e: 0 if slow(e) else size(e.outvars[0])
  of = {leaf: jaxprs.downstream(eqns, [leaf]) for leaf in linear.invars}
  met = lambda leaf: [costs(e) for e in meets if not of[leaf].isdisjoint(weights(e))]
  small = [leaf for leaf in of if size(leaf) <= min(met(leaf), default=size(leaf))]
  differ = jaxprs.downstream(eqns, [*own, *small])
  # A derivative rule of the user's, which JAX can't batch before it is transposed.
  ruled = lambda e: "custom_lin" in jaxprs.operations([e]) and not differ.isdisjoint(e.outvars)
  # A loop that weights and tangents of examples both enter stays whole, with what leads to it.
  loops = [v for e in eqns if weights(e) and mixed(e) and jaxprs.bodies(e) for v in e.outvars]
  before, _ = jaxprs.upstream(eqns, loops)
  whole = set() if any(map(ruled, before)) else set(before)
  behind = {e: None for e in eqns if (mixed(e) or ruled(e)) and e not in whole}
  made = {v for e in behind for v in e.outvars}
  ends = [v for e in behind for v in read(e)] + jaxprs.variables(linear.outvars)
  taps = {v: False for v in ends if v in tangents and v not in made}
  for e in eqns:
    other = max((size(v) for v in jaxprs.variables(e.invars) if v in differ), default=1)
    often = size(e.outvars[0]) * other >= 64 * sum(map(size, weights(e))) > 0
    taps |= {v: often for v in e.outvars if v in taps}
  constant = [e for e in eqns if tangents.isdisjoint(e.outvars)]
  follow, _ = jaxprs.upstream([*constant, *behind], linear.outvars)
  return [e for e in eqns if e not in behind], follow, taps


def _by_examples(eqn, inputs):
  """An equation of `meet` for many examples: axis 0 of what has one more than in the equation."""
  avals = [v.aval for v in eqn.invars]
  if any(jnp.result_type(x) != a.dtype for x, a in zip(inputs, avals, strict=True)):
    # What is float16 for one example is float32 in sums over them; the bodies of loops stay.
    to = (lambda dtype: dtype) if jaxprs.bodies(eqn) else wide
    kinds = {"new_dtype", "preferred_element_type"} & eqn.params.keys()
    eqn = eqn.replace(params=eqn.params | {name: to(eqn.params[name]) for name in kinds})
    inputs = [x.astype(to(a.dtype)) for x, a in zip(inputs, avals, strict=True)]
  axes = [0 if jnp.ndim(x) > a.ndim else None for x, a in zip(inputs, avals, strict=True)]
  if 0 not in axes:
    return jaxprs.bind(eqn, inputs)
  result = products.rule(eqn, inputs, axes)
  return result or jax.vmap(lambda *inputs: jaxprs.bind(eqn, inputs), axes)(*inputs)


def wide(dtype: Any) -> Any:
  """float32 for float16, which would overflow or vanish in a sum; else the dtype itself."""
  return jnp.float32 if dtype == jnp.float16 else dtype
