# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Programs of JAX (jaxprs) taken apart: who reads what, and how to run some equations alone."""

from collections.abc import Iterable, Iterator
from typing import Any

import jax
from jax.extend import core


def variables(atoms: Iterable[Any]) -> list[core.Var]:
  """Those that are no literals."""
  return [v for v in atoms if isinstance(v, core.Var)]


def bodies(eqn: Any) -> list[Any]:
  """The programs in an equation: bodies of loops, branches, what is computed again."""
  is_program = lambda x: isinstance(x, core.Jaxpr | core.ClosedJaxpr)
  parameters = jax.tree.leaves(list(eqn.params.values()), is_leaf=is_program)
  return [getattr(x, "jaxpr", x) for x in parameters if is_program(x)]


def all_equations(eqns: Iterable[Any]) -> Iterator[Any]:
  """The equations, and all those in their bodies."""
  for eqn in eqns:
    yield eqn
    yield from all_equations(e for body in bodies(eqn) for e in body.eqns)


def operations(eqns: Iterable[Any]) -> set[str]:
  """The names of all operations in equations and their bodies."""
  return {eqn.primitive.name for eqn in all_equations(eqns)}


def downstream(eqns: Iterable[Any], sources: Iterable[Any]) -> set[Any]:
  """The variables that depend on the sources, and these."""
  dependent = set(sources)
  for eqn in eqns:
    if not dependent.isdisjoint(variables(eqn.invars)):
      dependent.update(eqn.outvars)
  return dependent


def upstream(eqns: list[Any], outputs: Iterable[Any]) -> tuple[list[Any], set[Any]]:
  """The equations that outputs depend on, and the variables that these read."""
  needed, kept = set(variables(outputs)), []
  for eqn in reversed(eqns):
    if not needed.isdisjoint(eqn.outvars):
      kept.append(eqn)
      needed.update(variables(eqn.invars))
  return kept[::-1], needed


def bind(eqn: Any, inputs: Any) -> list[Any]:
  """Runs one equation."""
  results = eqn.primitive.bind(*inputs, **eqn.primitive.get_bind_params(eqn.params))
  return results if eqn.primitive.multiple_results else [results]


def run(
  eqns: Any, known: Any, names: Any, values: Any, outputs: Any, rule: Any = bind
) -> list[Any]:
  """Runs equations, each by a rule `(eqn, inputs) -> results`.

  Args:
    eqns: the equations, in their order.
    known: values of variables.
    names: more variables, or the same with other values.
    values: the values of these.
    outputs: what to return the values of.
    rule: how to run one.
  """
  known = known | dict(zip(names, values, strict=True))
  read = lambda v: v.val if isinstance(v, core.Literal) else known[v]
  for eqn in eqns:
    known.update(zip(eqn.outvars, rule(eqn, list(map(read, eqn.invars))), strict=True))
  return list(map(read, outputs))


def inlined(program: core.ClosedJaxpr, inputs: list[Any]) -> list[Any]:
  """Runs a program, with functions under `jit` in the place of their calls."""

  def rule(eqn, inputs):
    called = eqn.primitive.name in ("jit", "pjit", "closed_call")
    return inlined(eqn.params["jaxpr"], inputs) if called else bind(eqn, inputs)

  jaxpr, values = program.jaxpr, [*program.consts, *inputs]
  return run(jaxpr.eqns, {}, [*jaxpr.constvars, *jaxpr.invars], values, jaxpr.outvars, rule)
