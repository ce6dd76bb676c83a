# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What Grad Queue needs on a mesh: bytes sent in a step, and bytes kept on a device.

    python -m benchmarks.cost.communication

On virtual CPU devices: the program is partitioned as for any other, but nothing is timed. What is
counted are the results of all collectives, per device; what stands inside a loop counts once for
each of its iterations where XLA knows their number, and else once (`loops` says how often).
"""

import math
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
import tyro
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import gq_optax as gq
from benchmarks.harness import networks, records

BATCH, GROUPS, DEVICES = 512, 8, (1, 2, 4, 8)
MODEL, SHAPE = networks.MLP((256, 256), 16), (BATCH, 784)
WAYS = ("SGDM", "GQ, K=1", "group scarcity", "GQ, K=8, one gradient a device", "GQ, K=8 clusters")
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8}
_SENT = r"= (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("


def sent(text: str) -> tuple[Counter[str], int]:
  """Bytes by kind of collective in compiled HLO, and how many loops are of unknown length."""
  found: Counter[str] = Counter()
  unknown = 0
  computations = dict(re.findall(r"^(?:ENTRY )?%?([\w.\-]+) [^\n]*\{\n(.*?)^\}", text, re.M | re.S))
  entry = re.search(r"^ENTRY %?([\w.\-]+)", text, re.M)

  def walk(name: str, times: int) -> None:
    nonlocal unknown
    for line in computations.get(name, "").splitlines():
      if match := re.search(_SENT, line):
        sizes = re.findall(r"(\w+)\[([\d,]*)\]", match[1])
        numbers = [_BYTES[t] * math.prod(int(d) for d in dims.split(",") if d) for t, dims in sizes]
        found[match[2]] += times * sum(numbers)
      if match := re.search(r" while\(.*body=%?([\w.\-]+)", line):
        trips = re.search(r"known_trip_count\W+n\W+(\d+)", line)
        unknown += trips is None
        walk(match[1], times * (int(trips[1]) if trips else 1))
      for called in re.findall(
        r"(?:calls|to_apply|true_computation|false_computation)=%?([\w.\-]+)", line
      ):
        walk(called, times)
      for branches in re.findall(r"branch_computations=\{(.*?)\}", line):
        for branch in branches.split(","):
          walk(branch.strip().lstrip("%"), times)

  if entry:
    walk(entry[1], 1)
  return found, unknown


def make_step(way: str, devices: int) -> tuple[Callable[..., Any], Any, Any]:
  """A training step, its optimizer, and the groups' transformation."""
  queue = [] if way in ("SGDM", "group scarcity") else [gq.grad_queue(queue_length=3)]
  tx = optax.chain(*queue, optax.sgd(0.1, momentum=0.9))
  scarcity = gq.group_scarcity(10)

  def losses(params, batch):
    logits, features = MODEL.apply(params, batch[0])
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]), features

  def gradient(params, groups, batch):
    if way == "group scarcity":

      def weighted(params):
        found, features = losses(params, batch)
        weights, new_groups = scarcity.update(features, groups)
        return jnp.mean(weights * found), new_groups

      return jax.grad(weighted, has_aux=True)(params)
    if way == "GQ, K=8 clusters":
      return gq.clustered_value_and_grad(losses, GROUPS)(params, batch)[1], groups
    if way == "GQ, K=8, one gradient a device":  # a group is what lies on a device: no rows move
      parts = jax.tree.map(lambda x: x.reshape(GROUPS, -1, *x.shape[1:]), batch)
      alone = lambda part: jax.grad(lambda p: jnp.mean(losses(p, part)[0]))(params)
      counts = jnp.full(GROUPS, BATCH // GROUPS, jnp.int32)
      return gq.GroupGradients(jax.vmap(alone)(parts), counts, None), groups
    return jax.grad(lambda p: jnp.mean(losses(p, batch)[0]))(params), groups

  def step(params, opt_state, groups, batch):
    found, groups = gradient(params, groups, batch)
    updates, opt_state = tx.update(found, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, groups

  return step, tx, scarcity


def measure(way: str, devices: int, fsdp: bool) -> dict[str, Any]:
  """Bytes that a device gets in a step, by kind of collective."""
  mesh = jax.make_mesh(
    (devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices]
  )
  step, tx, scarcity = make_step(way, devices)
  x = jax.ShapeDtypeStruct(SHAPE, jnp.float32)
  params = jax.eval_shape(MODEL.init, jax.random.key(0), x)
  # Every parameter is cut along its first axis, which all of them have a multiple of 8 long.
  param_specs = jax.tree.map(lambda _: P("data") if fsdp else P(), params)
  state = jax.eval_shape(tx.init, params)
  if way in ("SGDM", "group scarcity"):
    state_specs = optax.tree.map_params(
      tx,
      lambda _, s: s,
      state,
      param_specs,
      transform_non_params=lambda _: P(),
      is_leaf=lambda s: isinstance(s, P),
    )
  else:
    state_specs = gq.partition_specs(state, param_specs)
  groups = jax.eval_shape(lambda: scarcity.init(256))
  group_specs = gq.partition_specs(groups, param_specs)
  specs = (param_specs, state_specs, group_specs)
  place = lambda tree: jax.tree.map(
    lambda s: NamedSharding(mesh, s), tree, is_leaf=lambda s: isinstance(s, P)
  )
  batch = (x, jax.ShapeDtypeStruct((BATCH,), jnp.int32))
  compiled = (
    jax.jit(step, in_shardings=place((*specs, (P("data"), P("data")))), out_shardings=place(specs))
    .lower(params, state, groups, batch)
    .compile()
  )
  kinds, unknown = sent(compiled.as_text() or "")
  return {"total": sum(kinds.values()), "kinds": dict(kinds), "loops": unknown}


def transformer(width: int = 2048, layers: int = 18, vocabulary: int = 50_304) -> Any:
  """Shapes of the parameters of a decoder of about a billion."""
  shape = lambda *dims: jax.ShapeDtypeStruct(dims, jnp.float32)
  layer = {
    "attention": shape(layers, width, 4 * width),
    "up": shape(layers, width, 4 * width),
    "down": shape(layers, 4 * width, width),
    "norms": shape(layers, 2, width),
  }
  return {"embedding": shape(vocabulary, width), "layers": layer, "norm": shape(width)}


def plan() -> list[dict[str, Any]]:
  """Bytes on each device for optimizer states cut evenly over them, by `gq.state_bytes`."""
  params = transformer()
  states = {"SGD with momentum": optax.sgd(0.1, momentum=0.9), "Adam": optax.adam(0.1)}
  for length in (3, 5, 8):
    for dtype in (jnp.float32, jnp.bfloat16):
      name = f"the queue alone, L = {length}, {jnp.dtype(dtype).name}"
      states[name] = gq.grad_queue(length, queue_dtype=dtype)
  return [
    {"part": "kept", "row": name, "devices": d, "total": gq.state_bytes(tx, params) / d}
    for name, tx in states.items()
    for d in (8, 32, 128)
  ]


def main(out: Path = Path("out/communication.jsonl")) -> None:
  """Compiles all; writes bytes sent, and the plan of what is kept.

  Args:
    out: one JSON a line and row.
  """
  jax.config.update("jax_num_cpu_devices", max(DEVICES))
  out.unlink(missing_ok=True)
  for placing, fsdp in (("data parallel", False), ("parameters sharded", True)):
    for way in WAYS:
      for devices in DEVICES:
        row = {"part": "sent", "row": f"{placing}, {way}", "devices": devices}
        records.append(out, row | measure(way, devices, fsdp))
        print(row, flush=True)
  for row in plan():
    records.append(out, row)


if __name__ == "__main__":
  tyro.cli(main)
