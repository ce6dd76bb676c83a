# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Which dtype computes and which dtype stores; strict promotion rules have no implicit answer."""

import jax
import jax.numpy as jnp


def at_least_float32(dtype: jax.typing.DTypeLike) -> jnp.dtype:
  """The dtype of statistics: float32, or `dtype` itself where that is wider."""
  return jnp.dtype(dtype) if jnp.finfo(dtype).bits > 32 else jnp.dtype(jnp.float32)


def holds(storage: jax.typing.DTypeLike, dtype: jax.typing.DTypeLike) -> bool:
  """Can `storage` represent every value of `dtype`?"""
  wide, narrow = jnp.finfo(storage), jnp.finfo(dtype)
  return bool(
    wide.nmant >= narrow.nmant and wide.maxexp >= narrow.maxexp and wide.minexp <= narrow.minexp
  )
