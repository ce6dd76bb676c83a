# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The networks and batches that are timed, of real sizes and of tiny ones."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.harness import networks


class Workload(NamedTuple):
  """A network, a batch, and what its group gradients may cost.

  Attributes:
    title: for tables.
    model: returns logits and features.
    batch_size: B.
    num_groups: K.
    example: shape of an example.
    classes: C.
    tokens: size of the vocabulary; 0 if the example is an image or a vector.
    bars: ratios to the plain gradient: of the groups, of the whole step, of weights by rarity.
  """

  title: str
  model: Any
  batch_size: int
  num_groups: int
  example: tuple[int, ...]
  classes: int
  tokens: int = 0
  bars: tuple[float | None, float | None, float | None] = (None, None, None)


_ENCODER = networks.Encoder(6, 512, 8, 8000, 20, jnp.bfloat16)
FULL = (
  Workload("CNN 189 k", networks.CNN(), 512, 8, (32, 32, 3), 10, 0, (3.0, 4.0, None)),
  Workload("MLP 784-256-256-10", networks.MLP(), 1024, 16, (784,), 10, 0, (3.0, None, None)),
  Workload(
    "MLP 10,000-512-46", networks.MLP((512,), 46), 512, 8, (10_000,), 46, 0, (3.0, None, None)
  ),
  Workload("encoder 2x128", networks.Encoder(), 256, 4, (64,), 10, 1000, (2.0, None, None)),
  Workload(
    "encoder 6x512 bf16", _ENCODER, 256, 4, (128,), 20, 8000, (1.35, 1.45, 1.04),
  ),
  Workload(
    "WRN-16-4 bf16", networks.WideResNet(), 1024, 16, (32, 32, 3), 10, 0, (2.2, 2.6, 1.02),
  ),
)  # fmt: skip
SMALL = Workload("MLP 8-128-2", networks.MLP((128,), 2), 1024, 8, (8,), 2)  # of a small table
TINY = (
  Workload("MLP 5-4-3", networks.MLP((4,), 3), 16, 4, (5,), 3),
  Workload("encoder 1x8", networks.Encoder(1, 8, 2, 11, 3, jnp.bfloat16), 8, 4, (6,), 3, 11),
)  # fmt: skip
# Weights by rarity are timed on these.
WEIGHED = (
  "CNN 189 k", "MLP 784-256-256-10", "MLP 8-128-2", "encoder 6x512 bf16", "WRN-16-4 bf16",
  "MLP 5-4-3",
)  # fmt: skip


def sizes(workload: Workload, kind: str) -> list[int]:
  """Group sizes: "equal"; or "skewed": half of the batch in one, one empty, the others alike."""
  batch_size, num_groups = workload.batch_size, workload.num_groups
  if kind == "equal":
    return [batch_size // num_groups] * num_groups
  rest = batch_size - batch_size // 2
  others = [rest // (num_groups - 2)] * (num_groups - 2)
  others[0] += rest - sum(others)
  return [batch_size // 2, *others, 0]


def make_labels(workload: Workload, kind: str) -> jax.Array:
  """Labels of these sizes in random order."""
  labels = np.repeat(np.arange(workload.num_groups), sizes(workload, kind))
  return jnp.asarray(np.random.default_rng(0).permutation(labels), jnp.int32)


class Problem(NamedTuple):
  """Parameters, a batch `(x, y)` and `(params, batch) -> losses [B], features [B, d]`."""

  model: Any
  params: Any
  batch: tuple[jax.Array, jax.Array]
  loss_fn: Callable[..., Any]


def make(workload: Workload) -> Problem:
  """A workload's parameters and random data of real shapes."""
  key, model = jax.random.key(0), workload.model
  shape = (workload.batch_size, *workload.example)
  if workload.tokens:
    x = jax.random.randint(key, shape, 0, workload.tokens)
  else:
    x = jax.random.normal(key, shape)
  y = jax.random.randint(key, shape[:1], 0, workload.classes)

  def loss_fn(params, batch):
    logits, features = model.apply(params, batch[0])
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]), features

  return Problem(model, jax.jit(model.init)(key, x[:1]), (x, y), loss_fn)


def transformer(layers: int, width: int, tiny: bool) -> dict[str, jax.Array]:
  """Zeros of the shapes of a decoder's parameters, twelve leaves a layer and the embedding."""
  if tiny:
    layers, width = 1, 8
  d = width
  shapes: dict[str, tuple[int, ...]] = {"embedding": (11 if tiny else 50_257, d)}
  for n in range(layers):
    kernels = {"qkv": (d, 3 * d), "out": (d, d), "up": (d, 4 * d), "down": (4 * d, d)}
    biases = {"b_qkv": (3 * d,), "b_up": (4 * d,), **{f"b_{i}": (d,) for i in range(6)}}
    shapes |= {f"{n}/{name}": shape for name, shape in kernels.items()}
    shapes |= {f"{n}/{name}": shape for name, shape in biases.items()}
  return {name: jnp.zeros(shape) for name, shape in shapes.items()}
