# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Example scarcity: each example weighted by how few others resemble it, without any groups."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gq_optax import _axes, _inputs, _validate
from gq_optax._axes import AxisName
from gq_optax._losses import to_mean_one
from gq_optax._rarity import density, recent
from gq_optax._rarity.explain import ExampleExplanation, explain_examples
from gq_optax._rarity.rows import WAY_OUT, as_rows, embedding_dim


class ExampleScarcityState(NamedTuple):
  """State of `example_scarcity`, arrays only; M rows, the newest first.

  Attributes:
    queue: `queue_dtype` `[M, d]`, embeddings of recent examples; of length one under the cosine
      metric.
    filled: bool `[M]`, which of the rows hold an example.
    lengths: float32 `[M]`, how long each embedding was.
    losses: float32 `[M]`, their losses, 0 where none were given.
    reach: float32 `[]`, the distance at which the similarity of two examples was .61 at the last
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
  """Pure functions, as in an `optax.GradientTransformation`.

  Attributes:
    init: `(embedding_dim_or_template) -> ExampleScarcityState`, where a template is an array or a
      `jax.ShapeDtypeStruct` `[B, ...]` of what `update` will get.
    update: `(embeddings [B, ...], state, *, mask=None, losses=None) -> (weights [B], state)`.
    explain: `(embeddings [n, ...], state, num_examples=8, num_nearest=4) -> ExampleExplanation`.
  """

  init: Callable[[Any], ExampleScarcityState]
  update: Callable[..., tuple[jax.Array, ExampleScarcityState]]
  explain: Callable[..., ExampleExplanation]


def example_scarcity(
  queue_size: int = 1024,
  *,
  bandwidth: jax.typing.ArrayLike = 0.2,
  neighbours: jax.typing.ArrayLike = 8.0,
  exponent: jax.typing.ArrayLike = 1.0,
  loss_exponent: jax.typing.ArrayLike = 0.0,
  metric: str = "cosine",
  max_weight: jax.typing.ArrayLike = 50.0,
  queue_dtype: jax.typing.DTypeLike | None = None,
  axis_name: AxisName | None = None,
) -> ExampleScarcity:
  r"""Weighs every example by how few of the recent examples resemble it.

  .. math:: s_i = \sum_{j \ne i} k_{ij}, \qquad
            k_{ij} = \exp\Big(\!-\tfrac12 \big(d_{ij} / (h D)\big)^2\Big), \qquad
            D = \frac{\sum d^3}{\sum d^2}

  .. math:: u_i \propto (s_i + m)^{-a}\, (\ell_i / \bar\ell)^b, \qquad
            w_i = \mathrm{clip}_{1/c}^{c}\, \lambda \big(1 + r_i (u_i - 1)\big), \qquad
            r_i = \frac{s_i^2}{s_i^2 + (m / 2)^2}

  :math:`s_i` is the number of examples that resemble example i, in the queue and in this batch
  without itself. Then the batch enters the queue. On the first step the queue is empty.

  d is the squared distance of two embeddings, of length one under the cosine metric. D is its mean
  over pairs that are drawn with a chance of :math:`d^2`. That is about the distance of different
  kinds, even where one kind is 99 % of the data. h D is at least 1e-4 of the largest squared
  length, and :math:`s_i + m` at least .5.

  :math:`\ell_i` is the mean loss of the neighbours and of one more of mean loss; its quotient is
  held in [.02, 50]. :math:`\sum_i r_i u_i = \sum_i r_i`, and
  :math:`\lambda` makes the mean weight 1. An example without neighbours is no rare kind, and may be
  a mistake: with :math:`s_i = 0` it weighs what the mean does.

  Multiply the losses by the weights and take the mean. A rare kind then counts about as much as a
  frequent one. No number of kinds is given. The smallest kind that can be found has about m
  examples in the queue, a share of m / queue_size. Smaller ones count more than others, but less
  than they should. The queue must be shorter than an epoch. A copy of an example from an earlier
  epoch counts as a neighbour, and with several copies nothing is isolated.

  ===============================  ===============================================================
  case                             what happens
  ===============================  ===============================================================
  masked example                   weight 0; not queued, and nobody's neighbour
  embedding or loss not finite     weight 1; not queued, and nobody's neighbour
  zero vector, cosine metric       the same: it has no direction
  as short as rounding, cosine     the same: shorter than the longest of batch and queue, times the
                                   spacing of the dtype at 1. Output gradients of fitted examples
  nothing left in the batch        the weights of the rest are 1, the state stays as it was
  all embeddings the same          every weight is 1, but for `loss_exponent`
  no neighbours                    weight about 1
  batch larger than the queue      the queue takes rows at even stride
  weight beyond the bounds         held at the bound, the others make up for it: the mean stays 1
  ===============================  ===============================================================

  Args:
    queue_size: M, how many examples the queue holds. Several batches if they are small: a kind must
      have m examples in queue and batch.
    bandwidth: h, positive. May be traced, and is then clamped, as all numbers that follow.
    neighbours: m, not negative: so many examples that resemble each other are a kind.
    exponent: a in `[0, 4]`: 0 weighs all examples the same, 1 all kinds.
    loss_exponent: b in `[0, 4]`; .5 with features, where kinds that are learnt already should not
      count. Needs `losses`; they are not negative.
    metric: "cosine" or "euclidean". With "euclidean" one far outlier makes all else look alike.
    max_weight: c, at least 1; a weight lies in :math:`[1/c, c]`.
    queue_dtype: of the embeddings in the queue; None: float32. The batch is rounded to it, too.
    axis_name: of the devices that share one batch, under `jax.shard_map` or `jax.pmap`. Each gives
      its own examples and keeps a queue of its own. Together they weigh as one device would whose
      queue holds all their rows. Under `jax.shard_map` the leaves `[M, ...]` of the state are
      sharded over the axis, and `queue_size` counts them all. The scalars are the same on each.
      Where `jax.jit` alone divides the work it is not needed.

  Returns:
    An `ExampleScarcity`. The weights are float32 `[B]` of mean 1 over the
    unmasked.

  Raises:
    ValueError: if an argument is out of its range, a shape does not fit, `losses` are missing where
      `loss_exponent` is not 0, or embeddings of one number meet the cosine metric.

  Example:
    >>> import jax.numpy as jnp
    >>> import gq_optax as gq
    >>> scarcity = gq.example_scarcity(neighbours=1.0)
    >>> embeddings = jnp.array([[1., 0.]] * 12 + [[0., 1.]] * 4)
    >>> weights, state = scarcity.update(embeddings, scarcity.init(2))
    >>> print([round(float(w), 2) for w in weights[-5:]])  # twelve of a kind, and four
    [0.67, 1.99, 1.99, 1.99, 1.99]

  Reference: Al Hasib, Grad Queue (arXiv 2404.16917), has the queue of the recent past, for
  coordinates in place of examples. Parzen, On estimation of a probability density function (1962),
  has the kernel density. See docs/example-scarcity.md.
  """
  queue_size = _validate.static_int("queue_size", queue_size, 1)
  _validate.real("bandwidth", bandwidth, 0.0, open_low=True)
  _validate.real("neighbours", neighbours, 0.0)
  _validate.real("exponent", exponent, 0.0, 4.0)
  _validate.real("loss_exponent", loss_exponent, 0.0, 4.0)
  _validate.one_of("metric", metric, ("cosine", "euclidean"))
  _validate.real("max_weight", max_weight, 1.0)
  _axes.check("axis_name", axis_name)
  storage = jnp.dtype(jnp.float32)
  if queue_dtype is not None:
    _validate.storage_dtype("queue_dtype", queue_dtype)
    storage = jax.dtypes.canonicalize_dtype(queue_dtype)
  # No smoothed loss is another program, not a traced number.
  by_loss = not _validate.is_zero(loss_exponent)

  def init(embedding_dim_or_template):
    dim = embedding_dim(embedding_dim_or_template, metric)
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
    _check_state(state, None if axis_name else queue_size, storage)
    state = _inputs.state("state", state)
    embeddings = _inputs.floating("embeddings", embeddings)
    x = as_rows(embeddings, state.queue.shape[1], metric)
    size = x.shape[0]
    unmasked = _inputs.mask("mask", mask, size)
    if losses is None and by_loss:
      raise ValueError(
        "losses must be the losses of the examples, [B], where loss_exponent is not 0, but None"
        " was found. Give losses= to update."
      )
    return _update(
      x,
      unmasked,
      None if losses is None else _checked_losses(losses, size),
      jax.lax.stop_gradient(state),
      jax.lax.stop_gradient(
        (bandwidth, neighbours, exponent, loss_exponent if by_loss else None, max_weight)
      ),
      float(jnp.finfo(embeddings.dtype).eps),
      metric,
      axis_name,
    )

  def explain(embeddings, state, num_examples=8, num_nearest=4):
    _check_state(state, None if axis_name else queue_size, storage)
    return explain_examples(embeddings, state, num_examples, num_nearest, neighbours, metric)

  return ExampleScarcity(init, update, explain)


@functools.partial(jax.jit, static_argnames=("rounding", "metric", "axis_name"))
def _update(x, unmasked, losses, state, options, rounding, metric, axis_name):
  bandwidth, near, exponent, loss_exponent, largest = _clamped(options)
  total = lambda part: _axes.total(part, axis_name)
  most = lambda part: _axes.largest(jnp.max(part), axis_name)
  x, live, lengths, losses = recent.queueable(x, unmasked, losses, state, rounding, metric, most)
  rows, queue, frame = recent.framed(x, live, state, metric, total, most)

  # Of the batch of all devices. What is summed over the devices is the same on each of them.
  everyone = rows if axis_name is None else jax.lax.all_gather(rows, axis_name, tiled=True)
  everyone_live, everyone_unmasked = (_shared(part, axis_name) for part in (live, unmasked))
  order = recent.there_first(jnp.concatenate([live, state.filled]))
  of_everyone = order if axis_name is None else recent.there_first(everyone_live)
  picked, picked_live = density.sample(everyone, everyone_live, of_everyone)
  pairs = (
    density.moments(picked, queue, picked_live, state.filled),
    density.moments(picked, rows, picked_live, live),
  )
  squares, cubes = (total(a + b) for a, b in zip(*pairs, strict=True))
  reach = density.reach(squares, cubes, bandwidth, frame.largest)

  by_loss = loss_exponent is not None
  own_losses, queued_losses = (losses, state.losses) if by_loss else (None, None)

  def resembling(x, itself):
    queued = density.neighbours(x, queue, state.filled, reach, queued_losses)
    return queued + density.neighbours(x, rows, live, reach, own_losses, itself)

  # Where each row of the whole batch lies among this device's own.
  itself = jnp.arange(len(everyone), dtype=jnp.int32)
  if axis_name is not None:
    itself -= jax.lax.axis_index(axis_name) * len(rows)
  found = total(density.in_blocks(resembling, (everyone, itself), max(len(rows), len(queue))))
  ratio = None
  if by_loss:
    number = total(jnp.sum(live, dtype=jnp.float32) + jnp.sum(state.filled, dtype=jnp.float32))
    mean = total(jnp.sum(losses) + jnp.sum(state.losses)) / jnp.maximum(number, 1.0)
    ratio = density.loss_ratio(found, mean) ** loss_exponent
  weights = density.weigh(found[:, 0], everyone_live, near, exponent, ratio)
  # Rounding may leave a weight below 0 that is next to nothing.
  weights = to_mean_one(jnp.maximum(weights, 1e-20), everyone_live.astype(jnp.float32), largest)
  weights = jnp.where(everyone_live, weights, everyone_unmasked.astype(jnp.float32))

  anything = jnp.any(everyone_live)
  scalars = {
    "reach": jnp.sqrt(reach) * frame.scale,
    "effective": density.effective(weights),
    "count": optax.safe_increment(state.count),
  }
  scalars = {k: jnp.where(anything, v, getattr(state, k)) for k, v in scalars.items()}
  state = recent.pushed(state, x, live, lengths, losses, order)._replace(**scalars)
  if axis_name is None:
    return weights, state
  return _axes.own(weights, axis_name, len(rows)), state


def _clamped(options):
  """The options as float32, in their range: traced ones were not checked."""
  ranges = ((1e-6, 1e30), (0.0, 1e30), (0.0, 4.0), (0.0, 4.0), (1.0, 1e9))
  # `fmax` takes the bound in place of a NaN.
  clip = lambda option, low, high: jnp.minimum(
    jnp.fmax(jnp.asarray(option, jnp.float32), low), high
  )
  pairs = zip(options, ranges, strict=True)
  return [None if option is None else clip(option, *bounds) for option, bounds in pairs]


def _check_state(state: Any, queue_size: int | None, storage: jnp.dtype) -> None:
  """Raises ValueError with the name of an option that is not the state's."""
  _validate.instance("state", state, ExampleScarcityState)
  rule = "state must have been made with the options of this example_scarcity,"
  # On several devices the state of each is a part, or a queue of its own.
  if queue_size is not None and state.queue.shape[0] != queue_size:
    raise ValueError(
      f"{rule} queue_size={queue_size}, but {state.queue.shape[0]} rows were found. {WAY_OUT}"
    )
  if state.queue.dtype != storage:
    raise ValueError(f"{rule} queue_dtype={storage}, but {state.queue.dtype} was found. {WAY_OUT}")


def _checked_losses(losses: Any, size: int) -> jax.Array:
  losses = _inputs.floating("losses", losses)
  _validate.shape("losses", losses, f"[B] with B = {size}", (size,))
  return jax.lax.stop_gradient(losses).astype(jnp.float32)


def _shared(own, axis_name):
  """The bools of all devices in their order, the same on each: a sum, since a gather may vary."""
  if axis_name is None:
    return own
  place = jax.lax.axis_index(axis_name) == jnp.arange(jax.lax.axis_size(axis_name), dtype=jnp.int32)
  spread = jnp.logical_and(place[:, None], own[None]).astype(jnp.int32)
  return jax.lax.psum(spread, axis_name).reshape(-1) > 0
