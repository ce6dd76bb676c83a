# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Two small networks. Their kernels are matrices, so that Muon takes them as they are."""

from typing import Any

import jax
import jax.numpy as jnp


def init(key: jax.Array, network: str, inputs: int, outputs: int, width: int) -> dict[str, Any]:
  """Parameters by name."""
  keys = iter(jax.random.split(key, 20))
  he = lambda a, b: jax.random.normal(next(keys), (a, b)) * (2.0 / a) ** 0.5
  last = 4 * width
  params = {"head": he(last, outputs) * 0.35, "bias": jnp.zeros(outputs)}
  if network == "dense":
    sizes = (inputs, 16 * width, 16 * width, last)
    for i in range(3):
      params |= {f"w{i}": he(sizes[i], sizes[i + 1]), f"b{i}": jnp.zeros(sizes[i + 1])}
    return params
  params["stem"], before = he(27, width), width
  for i, wide in enumerate((width, 2 * width, last)):
    params |= {f"first{i}": he(9 * before, wide), f"second{i}": he(9 * wide, wide)}
    for name, size in ((f"norm{i}", before), (f"inner{i}", wide)):
      params |= {f"{name} scale": jnp.ones(size), f"{name} shift": jnp.zeros(size)}
    if wide != before:
      params[f"skip{i}"] = he(before, wide)
    before = wide
  return params | {"norm3 scale": jnp.ones(last), "norm3 shift": jnp.zeros(last)}


def conv(kernel, x, stride=1):
  """3 x 3, as one product: within a loop the CPU has no quick convolution."""
  low = 2 - stride
  x = jnp.pad(x, ((0, 0), (low, 1), (low, 1), (0, 0)))
  size = x.shape[1] - 1 - low
  parts = [x[:, i : i + size : stride, j : j + size : stride] for i in range(3) for j in range(3)]
  return jnp.concatenate(parts, axis=-1) @ kernel


def normed(params, name, x, groups=8):
  """Group norm, then the part above zero; sums over positions first, which is quick on a CPU."""
  each = x.shape[-1] // groups
  over_group = lambda v: jnp.repeat(v.reshape(len(v), groups, each).mean(2), each, axis=1)
  mean, square = over_group(x.mean((1, 2))), over_group(jnp.square(x).mean((1, 2)))
  scale = jax.lax.rsqrt(square - jnp.square(mean) + 1e-5) * params[f"{name} scale"]
  shift = params[f"{name} shift"] - mean * scale
  return jax.nn.relu(x * scale[:, None, None] + shift[:, None, None])


def apply(params: dict[str, Any], x: jax.Array, network: str) -> tuple[jax.Array, jax.Array]:
  """Logits and features."""
  if network == "dense":
    features = x.reshape(len(x), -1)
    for i in range(3):
      features = jax.nn.relu(features @ params[f"w{i}"] + params[f"b{i}"])
  else:
    h = conv(params["stem"], x, 2)
    for i in range(3):
      stride = 1 if i == 0 else 2
      z = normed(params, f"norm{i}", h)
      inner = normed(params, f"inner{i}", conv(params[f"first{i}"], z, stride))
      way_around = z[:, ::stride, ::stride] @ params[f"skip{i}"] if f"skip{i}" in params else h
      h = way_around + conv(params[f"second{i}"], inner)
    features = normed(params, "norm3", h).mean((1, 2))
  return features @ params["head"] + params["bias"], features
