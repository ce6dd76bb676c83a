# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What the gradients of K groups cost in PyTorch, as ratios to PyTorch's own plain gradient.

    pip install '.[bench,peers]'
    python -m benchmarks.cost.peers                   # all workloads; resumes where it stopped

The workloads are those of `step_cost`, built again in PyTorch with as many parameters; group sizes
are equal. All results are in one file, `out/peers.json`.
"""

import importlib
import importlib.metadata
import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rich
import rich.table
import tyro

from benchmarks.cost import step_cost
from benchmarks.harness import timing

# Per-example gradients of more bytes than this are formed a few examples at a time, or not at all.
ROOM = 2**31
CHUNK = 64


def load(name: str) -> Any:
  """A module of the `peers` extra."""
  try:
    return importlib.import_module(name)
  except ImportError as error:
    raise SystemExit(f"{name} is missing: pip install '.[bench,peers]'") from error


def make_model(name: str) -> Any:
  """The network of a workload, as a `torch.nn.Module` from examples to logits."""
  torch = load("torch")
  nn = torch.nn
  workload = step_cost.WORKLOADS[name]
  if name == "encoder":
    return _encoder(torch, workload)
  if name == "cnn":
    layers, channels = [], 3
    for width in (32, 64, 64):
      layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
      channels = width
    layers += [nn.Flatten(), nn.Linear(1024, 128), nn.ReLU(), nn.Linear(128, workload.classes)]
    return nn.Sequential(*layers)
  layers, size = [], workload.example[0]
  for width in workload.model.widths:
    layers += [nn.Linear(size, width), nn.ReLU()]
    size = width
  return nn.Sequential(*layers, nn.Linear(size, workload.classes))


def _encoder(torch, workload):
  nn: Any = torch.nn
  model = workload.model
  width, heads, tokens = model.width, model.heads, workload.example[0]

  class Layer(nn.Module):
    def __init__(self):
      super().__init__()
      self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
      self.project = nn.ModuleList([nn.Linear(width, width) for _ in range(4)])
      self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
      y = self.norms[0](x)
      q, k, v = (
        p(y).reshape(*y.shape[:2], heads, width // heads).transpose(1, 2) for p in self.project[:3]
      )
      share = torch.softmax(q @ k.transpose(2, 3) / (width // heads) ** 0.5, -1)
      x = x + self.project[3]((share @ v).transpose(1, 2).reshape(x.shape))
      return x + self.narrow(nn.functional.gelu(self.wide(self.norms[1](x)), approximate="tanh"))

  class Encoder(nn.Module):
    def __init__(self):
      super().__init__()
      self.embed = nn.Embedding(model.vocabulary, width)
      self.place = nn.Embedding(tokens, width)
      self.layers = nn.ModuleList([Layer() for _ in range(model.layers)])
      self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, workload.classes)

    def forward(self, ids):
      # One row of places for each example, as Opacus asks.
      x = self.embed(ids) + self.place(torch.arange(tokens).expand(ids.shape))
      for layer in self.layers:
        x = layer(x)
      return self.out(self.norm(x).mean(1))

  return Encoder()


def make_ways(name: str) -> dict[str, Callable[[], Any]]:
  """The ways to a gradient, by name; all but the plain ones return K mean gradients a parameter."""
  torch = load("torch")
  func = torch.func
  workload = step_cost.WORKLOADS[name]
  torch.manual_seed(0)
  batch_size, num_groups = workload.batch_size, workload.num_groups
  if workload.tokens:
    x = torch.randint(0, workload.tokens, (batch_size, *workload.example))
  else:
    shape = workload.example
    x = torch.randn(batch_size, *(shape[2], *shape[:2]) if len(shape) == 3 else shape)
  y = torch.randint(0, workload.classes, (batch_size,))
  labels = torch.tensor(step_cost.make_labels(workload, "equal").tolist())
  share = torch.nn.functional.one_hot(labels, num_groups).float().T
  share = share / share.sum(1, keepdim=True)
  model = make_model(name)
  values = list(model.parameters())
  cross_entropy = torch.nn.functional.cross_entropy

  def plain():
    return torch.autograd.grad(cross_entropy(model(x), y), values)

  def group(gradients, share):
    return [(share @ g.reshape(g.shape[0], -1)).reshape(-1, *g.shape[1:]) for g in gradients]

  named = {n: p.detach() for n, p in model.named_parameters()}

  def loss_of_one(params, x, y):
    return cross_entropy(func.functional_call(model, params, (x[None],)), y[None])

  each = func.vmap(func.grad(loss_of_one), in_dims=(None, 0, 0))

  def vmapped():
    return group(each(named, x, y).values(), share)

  def chunked():
    sums = None
    for start in range(0, batch_size, CHUNK):
      rows = slice(start, start + CHUNK)
      part = group(each(named, x[rows], y[rows]).values(), share[:, rows])
      sums = part if sums is None else [s.add_(p) for s, p in zip(sums, part, strict=True)]
    return sums

  jac = load("torchjd.autojac").jac

  def rows_at_once():
    losses = cross_entropy(model(x), y, reduction="none")
    return jac(losses, values, jac_outputs=share)

  def rows_in_turn():
    losses = cross_entropy(model(x), y, reduction="none")
    return jac(losses, values, jac_outputs=share, parallel_chunk_size=1)

  watched = load("opacus").GradSampleModule(make_model(name), loss_reduction="sum")
  watched.load_state_dict({f"_module.{n}": v for n, v in model.state_dict().items()})

  def opacus():
    watched.zero_grad(set_to_none=True)
    cross_entropy(watched(x), y, reduction="sum").backward()
    means = group([p.grad_sample for p in watched.parameters()], share)
    for parameter in watched.parameters():
      parameter.grad_sample = None
    return means

  ways = {
    "plain": plain,
    "plain again": plain,
    f"vmap(grad), {CHUNK} examples at a time": chunked,
    "TorchJD, K rows at once": rows_at_once,
    "TorchJD, one row after the other": rows_in_turn,
  }
  if 4 * batch_size * sum(v.numel() for v in values) < ROOM:
    ways |= {"vmap(grad)": vmapped, "Opacus": opacus}
  return ways


def measure(name: str, rounds: int) -> dict[str, Any]:
  """Times all ways of one workload in turn."""
  torch = load("torch")
  torch.set_num_threads(2)
  ways = make_ways(name)
  steps = {way: timing.Step(run, 0.0, -1, -1.0) for way, run in ways.items()}
  times = timing.interleaved(steps, "plain", rounds)
  versions = {n: importlib.metadata.version(n) for n in ("torch", "opacus", "torchjd")}
  return {
    "title": step_cost.WORKLOADS[name].title,
    "threads": torch.get_num_threads(),
    "environment": versions | {"python": platform.python_version()},
    "steps": {way: result._asdict() for way, result in times.items()},
  }


def make_table(results: dict[str, Any]) -> rich.table.Table:
  """One row per way, one column per workload."""
  table = rich.table.Table(title="Ratio to PyTorch's own plain gradient", box=rich.box.SIMPLE_HEAD)
  for header in ("", *(r["title"] for r in results.values())):
    table.add_column(header, justify="right" if header else "left")
  for way in dict.fromkeys(w for r in results.values() for w in r["steps"]):
    found = [r["steps"].get(way) for r in results.values()]
    table.add_row(way, *(f"{f['ratio']:.2f}" if f else "-" for f in found))
  return table


def main(
  workloads: tuple[str, ...] = tuple(step_cost.WORKLOADS),
  rounds: int = 5,
  out: Path = Path("out/peers.json"),
) -> dict[str, Any]:
  """Measures what has not been measured yet, and reports all.

  Args:
    workloads: which of cnn, mlp, reuters, encoder.
    rounds: counted rounds.
    out: the file of the results; a workload that is in it is not measured again.

  Returns:
    Results by workload.
  """
  for name in workloads:
    if name not in step_cost.WORKLOADS:
      known = tuple(step_cost.WORKLOADS)
      raise ValueError(f"workloads must be among {known}, but {name!r} was found.")
  out.parent.mkdir(parents=True, exist_ok=True)
  results = json.loads(out.read_text()) if out.exists() else {}
  for name in workloads:
    if name not in results:
      results[name] = measure(name, rounds)
      out.write_text(json.dumps(results, indent=1))
  rich.print(make_table(results))
  return results


if __name__ == "__main__":
  tyro.cli(main)
