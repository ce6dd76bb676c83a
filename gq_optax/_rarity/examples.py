# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Example scarcity: each example weighted by how few others resemble it, without any groups."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gq_optax import _validate
from gq_optax._rarity import density, groups, lloyd

AxisName = str | tuple[str, ...] | None


class ExampleScarcityState(NamedTuple):
  """State of `example_scarcity`, arrays only; M rows, the newest first.

  Attributes:
    queue: `queue_dtype` `[M, d]`, embeddings of recent examples; of length one under the cosine
      metric.
    filled: bool `[M]`, which of the rows hold an example.
    lengths: float32 `[M]`, how long each embedding was.
    losses: float32 `[M]`, their losses, 0 where none were given.
    reach: float32 `[]`, the distance at which the similarity of two examples was 1 / e at the last
      step; 0 before the first.
    effective: float32 `[]`, the effective number of examples of the last step (Kish).
    count: int32 `[]`, steps counted so far; saturates instead of wrapping.
  """

  queue: jax.Array
  filled: jax.Array
  lengths: jax.Array
  losses: jax.Array
  reach: jax.Array
  effective: jax.Array
  count: jax.Array  # type: ignore[assignment]  # shadows a method of tuple, as optax does


class ExampleScarcity(NamedTuple):
  """A pair of pure functions, as an `optax.GradientTransformation` is one.

  Attributes:
    init: `(embedding_dim_or_template) -> ExampleScarcityState`, where a template is an array or a
      `jax.ShapeDtypeStruct` `[B, ...]` of what `update` will get.
    update: `(embeddings [B, ...], state, *, mask=None, losses=None) -> (weights [B], state)`.
  """

  init: Callable[[Any], ExampleScarcityState]
  update: Callable[..., tuple[jax.Array, ExampleScarcityState]]


def example_scarcity(
  queue_size: int = 1024,
  *,
  bandwidth: jax.typing.ArrayLike = 0.3,
  neighbours: jax.typing.ArrayLike = 8.0,
  exponent: jax.typing.ArrayLike = 1.0,
  loss_exponent: jax.typing.ArrayLike = 0.0,
  metric: str = "cosine",
  max_weight: jax.typing.ArrayLike = 50.0,
  queue_dtype: jax.typing.DTypeLike | None = None,
  axis_name: AxisName = None,
) -> ExampleScarcity:
  r"""Weighs every example by how few of the recent examples resemble it.

  Returns:
    An `ExampleScarcity` of `init` and `update`.
  """
  queue_size = _validate.static_int("queue_size", queue_size, 1)
  _validate.real("bandwidth", bandwidth, 0.0, open_low=True)
  _validate.real("neighbours", neighbours, 0.0)
  _validate.real("exponent", exponent, 0.0, 4.0)
  _validate.real("loss_exponent", loss_exponent, 0.0, 4.0)
  _validate.one_of("metric", metric, ("cosine", "euclidean"))
  _validate.real("max_weight", max_weight, 1.0)
  storage = jnp.dtype(jnp.float32)
  if queue_dtype is not None:
    _validate.storage_dtype("queue_dtype", queue_dtype)
    storage = jnp.dtype(queue_dtype)
  # No smoothed loss is another program, not a traced number.
  by_loss = not (isinstance(loss_exponent, float | int) and loss_exponent == 0)

  def init(embedding_dim_or_template):
    dim = groups.embedding_dim(embedding_dim_or_template)
    if dim == 1 and metric == "cosine":
      raise ValueError(
        "the embeddings must have at least two numbers each under the cosine metric, but one was"
        ' found: all that is left of it is its sign. metric="euclidean" compares its size.'
      )
    return ExampleScarcityState(
      queue=jnp.zeros((queue_size, dim), storage),
      filled=jnp.zeros(queue_size, bool),
      lengths=jnp.zeros(queue_size, jnp.float32),
      losses=jnp.zeros(queue_size, jnp.float32),
      reach=jnp.zeros([], jnp.float32),
      effective=jnp.zeros([], jnp.float32),
      count=jnp.zeros([], jnp.int32),
    )

  def update(embeddings, state, *, mask=None, losses=None):
    dtype = jnp.result_type(embeddings)
    x = groups.as_rows(embeddings, state.queue.shape[1])
    size = x.shape[0]
    unmasked = jnp.ones(size, bool) if mask is None else groups.checked_mask(mask, size)
    if losses is None and by_loss:
      raise ValueError(
        "losses must be the losses of the examples, [B], where loss_exponent is not 0, but None"
        " was found. Give losses= to update."
      )
    return _update(
      x,
      unmasked,
      None if losses is None else _checked_losses(losses, size),
      state,
      (bandwidth, neighbours, exponent, loss_exponent if by_loss else None, max_weight),
      float(jnp.finfo(dtype).eps),
      metric,
      axis_name,
    )

  return ExampleScarcity(init, update)


@functools.partial(jax.jit, static_argnames=("rounding", "metric", "axis_name"))
def _update(x, unmasked, losses, state, options, rounding, metric, axis_name):
  bandwidth, near, exponent, loss_exponent, largest = _clamped(options)
  total = lambda part: part if axis_name is None else jax.lax.psum(part, axis_name)
  most = lambda part: jnp.max(part) if axis_name is None else jax.lax.pmax(jnp.max(part), axis_name)
  x, live, lengths, losses = queueable(x, unmasked, losses, state, rounding, metric, most)
  rows, queue, frame = framed(x, live, state.queue, state.filled, metric, total, most)

  # Of the batch of all devices. What is summed over the devices is the same on each of them.
  everyone = rows if axis_name is None else jax.lax.all_gather(rows, axis_name, tiled=True)
  everyone_live, everyone_unmasked = (_shared(part, axis_name) for part in (live, unmasked))
  picked, picked_live = density.sample(everyone), density.sample(everyone_live)
  pairs = (
    density.moments(picked, queue, picked_live, state.filled),
    density.moments(picked, rows, picked_live, live),
  )
  squares, cubes = (total(a + b) for a, b in zip(*pairs, strict=True))
  reach = density.reach(squares, cubes, bandwidth, frame.largest)

  others = jnp.logical_and(live[None], jnp.logical_not(_itself(len(rows), axis_name)))
  by_loss = loss_exponent is not None
  found = total(
    density.neighbours(everyone, queue, state.filled, reach, state.losses if by_loss else None)
    + density.neighbours(everyone, rows, others, reach, losses if by_loss else None)
  )
  ratio = None
  if by_loss:
    number = total(jnp.sum(live, dtype=jnp.float32) + jnp.sum(state.filled, dtype=jnp.float32))
    mean = total(jnp.sum(losses) + jnp.sum(state.losses)) / jnp.maximum(number, 1.0)
    ratio = density.loss_ratio(found, mean) ** loss_exponent
  weights = density.weigh(found[:, 0], everyone_live, near, exponent, ratio)
  weights = density.bounded(weights, everyone_live, largest)
  weights = jnp.where(everyone_live, weights, everyone_unmasked.astype(jnp.float32))

  anything = jnp.any(everyone_live)
  scalars = {
    "reach": jnp.sqrt(reach) * frame.scale,
    "effective": density.effective(weights),
    "count": optax.safe_increment(state.count),
  }
  scalars = {k: jnp.where(anything, v, getattr(state, k)) for k, v in scalars.items()}
  state = _pushed(state, x, live, lengths, losses)._replace(**scalars)
  if axis_name is None:
    return weights, state
  start = jax.lax.axis_index(axis_name) * len(rows)
  return jax.lax.dynamic_slice_in_dim(weights, start, len(rows)), state


def _clamped(options):
  """The options as float32, in their range: traced ones were not checked."""
  ranges = ((1e-6, 1e30), (0.0, 1e30), (0.0, 4.0), (0.0, 4.0), (1.0, 1e9))
  clip = lambda option, low, high: jnp.clip(jnp.asarray(option, jnp.float32), low, high)
  pairs = zip(options, ranges, strict=True)
  return [None if option is None else clip(option, *bounds) for option, bounds in pairs]


def _checked_losses(losses: Any, size: int) -> jax.Array:
  _validate.shape("losses", losses, f"[B] with B = {size}", (size,))
  _validate.floating("losses", losses)
  return jax.lax.stop_gradient(jnp.asarray(losses)).astype(jnp.float32)


def queueable(x, unmasked, losses, state, rounding, metric, most=jnp.max):
  """Rows as the queue holds them, which of them may enter it, their lengths and losses."""
  live = jnp.logical_and(unmasked, jnp.all(jnp.isfinite(x), axis=1))
  if losses is not None:
    live = jnp.logical_and(live, jnp.isfinite(losses))
  x = jnp.where(live[:, None], x, 0.0)
  tallest = jnp.max(jnp.abs(x), axis=1)
  scaled = x / jnp.where(tallest > 0.0, tallest, 1.0)[:, None]
  lengths = jnp.sqrt(jnp.sum(jnp.square(scaled), axis=1)) * jnp.minimum(tallest, 1e30)
  if metric == "cosine":
    # As short as the rounding of the longest: what is left has no direction of its own.
    longest = most(jnp.stack([jnp.max(lengths), jnp.max(state.lengths)]))
    live = jnp.logical_and(live, lengths > rounding * longest)
    x = lloyd.unit_rows(x)
  stored = x.astype(state.queue.dtype).astype(jnp.float32)
  live = jnp.logical_and(live, jnp.all(jnp.isfinite(stored), axis=1))
  zeros = jnp.zeros_like(lengths)
  losses = zeros if losses is None else jnp.clip(losses, -1e30, 1e30)
  keep = lambda part: jnp.where(live, part, zeros)
  return jnp.where(live[:, None], stored, 0.0), live, keep(lengths), keep(losses)


class Frame(NamedTuple):
  """The units that distances are computed in: of float32 `[]`.

  Attributes:
    scale: one of them in units of the embeddings; 1 under the cosine metric.
    largest: the largest squared length of a row.
  """

  scale: jax.Array
  largest: jax.Array


def framed(x, live, queue, filled, metric, total=lambda part: part, most=jnp.max):
  """Rows of batch and queue where their squares neither overflow nor cancel, and the frame."""
  queue, one = queue.astype(jnp.float32), jnp.ones([], jnp.float32)
  if metric == "cosine":
    return x, queue, Frame(one, one)
  scale = lloyd.power_of_two(most(jnp.stack([jnp.max(jnp.abs(x)), jnp.max(jnp.abs(queue))])))
  number = jnp.maximum(total(jnp.sum(live, dtype=jnp.float32)), 1.0)
  # On a coarse grid, as in `lloyd.frame`: the shift is then exact for data of few digits.
  mean = total(jnp.sum(x / scale, axis=0)) / number
  center = jnp.round(mean * 2.0**11) * 2.0**-11
  x, queue = (
    jnp.where(there[:, None], rows / scale - center[None], 0.0)
    for rows, there in ((x, live), (queue, filled))
  )
  square = lambda rows: jnp.max(jnp.sum(jnp.square(rows), axis=1))
  return x, queue, Frame(scale, most(jnp.stack([square(x), square(queue)])))


def _shared(own, axis_name):
  """The bools of all devices in their order, the same on each: a sum, since a gather may vary."""
  if axis_name is None:
    return own
  place = jax.lax.axis_index(axis_name) == jnp.arange(jax.lax.axis_size(axis_name))
  spread = jnp.logical_and(place[:, None], own[None]).astype(jnp.int32)
  return jax.lax.psum(spread, axis_name).reshape(-1) > 0


def _itself(size, axis_name):
  """Where a row of the whole batch `[B]` is one of the device's own rows, bool `[B, own]`."""
  if axis_name is None:
    return jnp.eye(size, dtype=bool)
  first = jax.lax.axis_index(axis_name) * size
  everyone = jnp.arange(size * jax.lax.axis_size(axis_name))
  return everyone[:, None] == first + jnp.arange(size)[None]


def _pushed(state, x, live, lengths, losses):
  """The queue with the live rows in front; where they are too many, at even stride."""
  size = len(state.queue)
  there = jnp.concatenate([live, state.filled])
  order = jnp.argsort(jnp.logical_not(there), stable=True)  # batch before queue, the empty last
  number = jnp.sum(live, dtype=jnp.int32)
  place = jnp.arange(size, dtype=jnp.int32)
  # floor(place * number / size), without a product that could overflow.
  strided = place * (number // size) + (place * (number % size)) // size
  taken = order[jnp.where(number > size, strided, place)]
  behind = lambda new, old: jnp.concatenate([new.astype(old.dtype), old])[taken]
  return state._replace(
    queue=behind(x, state.queue),
    filled=there[taken],
    lengths=behind(lengths, state.lengths),
    losses=behind(losses, state.losses),
  )
