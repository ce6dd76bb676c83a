# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Training in two processes, of which one is killed; both start again from the checkpoint.

    python -m examples.two_processes --kill-at 25

The batch is cut over the processes, parameters and queue too, by `gq.partition_specs`. On one
machine the processes meet on loopback, and their sums go through gloo; on several machines only
the coordinator's address is another. Every `save_every` steps Orbax writes a checkpoint; batches
hang on the step alone, so that a run that was killed goes on with the very next one.
"""

import json
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import tyro
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import gq_optax as gq
from examples import digits

SPECS = {"hidden": P(None, "data"), "out": P("data")}


def loss_fn(params: Any, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Losses `[B]` and features `[B, 32]`."""
  features = jax.nn.relu(x @ params["hidden"])
  return optax.softmax_cross_entropy_with_integer_labels(features @ params["out"], y), features


def make_params(seed: int) -> Any:
  """A hidden layer and an output layer."""
  keys = jax.random.split(jax.random.key(seed))
  return {
    "hidden": jax.random.normal(keys[0], (64, 32)) / 8.0,
    "out": jax.random.normal(keys[1], (32, 10)) / 6.0,
  }


def train(
  steps: int, save_every: int, folder: pathlib.Path, batch_size: int = 256, seed: int = 0
) -> None:
  """Trains on all devices of all processes, from the last checkpoint in `folder` if there is one.

  The first process appends one JSON line a step to `losses.jsonl`, and writes `params.npz`.
  """
  mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
  place = lambda specs: jax.tree.map(
    lambda s: NamedSharding(mesh, s), specs, is_leaf=lambda s: isinstance(s, P)
  )
  tx = optax.chain(gq.grad_queue(queue_length=3, update_norm="match"), optax.sgd(0.2, momentum=0.9))
  scarcity = gq.group_scarcity(num_groups=10)

  def make() -> Any:
    params = make_params(seed)
    return params, tx.init(params), scarcity.init(32)

  shapes = jax.eval_shape(make)
  specs = tuple(gq.partition_specs(part, SPECS) for part in shapes[1:])
  shardings = place((SPECS, *specs))

  @jax.jit
  def step(run: Any, x: jax.Array, y: jax.Array) -> Any:
    params, opt_state, groups = run

    def weighted(params):
      losses, features = loss_fn(params, x, y)
      weights, new_groups = scarcity.update(features, groups)
      return gq.weighted_mean(losses, weights), (new_groups, jnp.mean(losses))

    grads, (groups, loss) = jax.grad(weighted, has_aux=True)(params)
    updates, opt_state = tx.update(grads, opt_state, params)
    run = optax.apply_updates(params, updates), opt_state, groups
    return jax.lax.with_sharding_constraint(run, shardings), loss

  x, _, y, _ = (np.asarray(part) for part in digits.long_tailed_digits(seed))
  options = ocp.CheckpointManagerOptions(max_to_keep=2, save_interval_steps=save_every)
  with ocp.CheckpointManager(folder / "checkpoints", options=options) as manager:
    last = manager.latest_step()
    if last is None:
      run = jax.jit(make, out_shardings=shardings)()
    else:
      target = jax.tree.map(
        lambda s, at: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=at), shapes, shardings
      )
      run = manager.restore(last, args=ocp.args.StandardRestore(target))
    for number in range(0 if last is None else last, steps):
      rows = np.random.default_rng((seed, number)).choice(len(x), batch_size, replace=False)
      mine = np.array_split(rows, jax.process_count())[jax.process_index()]
      local = [
        jax.make_array_from_process_local_data(NamedSharding(mesh, P("data")), part[mine])
        for part in (x, y)
      ]
      run, loss = step(run, *local)
      if jax.process_index() == 0:
        with (folder / "losses.jsonl").open("a") as log:
          log.write(json.dumps({"step": number + 1, "loss": float(loss)}) + "\n")
      manager.save(number + 1, args=ocp.args.StandardSave(run))
    manager.wait_until_finished()
  whole = jax.jit(lambda p: p, out_shardings=NamedSharding(mesh, P()))(run[0])
  if jax.process_index() == 0:
    arrays: Any = {k: np.asarray(v) for k, v in whole.items()}
    np.savez(folder / "params.npz", **arrays)


def worker(
  process: int, processes: int, port: int, steps: int, save_every: int, folder: pathlib.Path
) -> None:
  """One process of the training."""
  if processes > 1:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"localhost:{port}", processes, process)
  train(steps, save_every, folder)


def free_port() -> int:
  """A port on loopback that nobody uses."""
  with socket.socket() as probe:
    probe.bind(("localhost", 0))
    return probe.getsockname()[1]


def launch(
  processes: int, steps: int, save_every: int, folder: pathlib.Path
) -> list[subprocess.Popen[bytes]]:
  """Starts all processes."""
  port = free_port()
  folder.mkdir(parents=True, exist_ok=True)
  command = f"from examples.two_processes import *; worker({{}}, {processes}, {port}, {steps},"
  command += f" {save_every}, pathlib.Path({str(folder)!r}))"
  return [
    subprocess.Popen(
      [sys.executable, "-c", command.format(i)], cwd=pathlib.Path(__file__).parents[1]
    )
    for i in range(processes)
  ]


def losses(folder: pathlib.Path) -> dict[int, float]:
  """The loss of every step; of a step that was done twice the later one."""
  path = folder / "losses.jsonl"
  if not path.exists():
    return {}
  lines = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
  return {line["step"]: line["loss"] for line in lines}


def run(
  folder: pathlib.Path, processes: int = 2, steps: int = 40, save_every: int = 10, kill_at: int = 0
) -> int:
  """A whole training; with `kill_at` the last process is killed once that step is done.

  Returns:
    The step after which it was killed, 0 if it was not.
  """
  running = launch(processes, steps, save_every, folder)
  killed = 0
  if kill_at:
    while not (done := losses(folder)) or max(done) < kill_at:
      if any(p.poll() is not None for p in running):
        raise RuntimeError("a process ended before it was to be killed.")
      time.sleep(0.02)
    running[-1].send_signal(signal.SIGKILL)
    killed = max(losses(folder))
    running[-1].wait()
    for process in running[:-1]:  # they wait for sums that never come; a job manager ends them
      process.kill()
      process.wait()
    running = launch(processes, steps, save_every, folder)
  for process in running:
    if process.wait() != 0:
      raise RuntimeError(f"a process ended with {process.returncode}.")
  return killed


def main(
  kill_at: int = 25, steps: int = 40, save_every: int = 10, folder: pathlib.Path | None = None
) -> None:
  """Trains in one process, in two, and in two of which one is killed; compares.

  Args:
    kill_at: the step after which the second process is killed.
    steps: of the training.
    save_every: steps between checkpoints.
    folder: of logs and checkpoints; a temporary one by default.
  """
  folder = folder or pathlib.Path(tempfile.mkdtemp())
  run(folder / "one", 1, steps, save_every)
  run(folder / "two", 2, steps, save_every)
  killed = run(folder / "killed", 2, steps, save_every, kill_at)
  print(
    f"killed after step {killed}; the last checkpoint was of step {killed - killed % save_every}"
  )
  reference = losses(folder / "one")
  for name in ("two", "killed"):
    found = losses(folder / name)
    apart = max(abs(found[s] - reference[s]) for s in reference)
    text = f"{name}: {len(found)} steps, last loss {found[steps]:.6f}"
    print(f"{text}, at most {apart:.1e} off one process")
  two, resumed = (np.load(folder / name / "params.npz") for name in ("two", "killed"))
  same = all(np.array_equal(two[k], resumed[k]) for k in two)
  print(
    f"one process: last loss {reference[steps]:.6f}; parameters of two and killed equal: {same}"
  )


if __name__ == "__main__":
  tyro.cli(main)
