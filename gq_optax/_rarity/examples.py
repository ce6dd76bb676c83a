# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Example scarcity: each example weighted by how few others resemble it, without any groups."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gq_optax import _axes, _validate
from gq_optax._axes import AxisName
from gq_optax._losses import clamped, to_mean_one
from gq_optax._rarity import checks, density, lloyd
from gq_optax._rarity.explain import ExampleExplanation, explain_examples


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
  _validate.number("bandwidth", bandwidth, 0.0, open_low=True)
  _validate.number("neighbours", neighbours, 0.0)
  _validate.number("exponent", exponent, 0.0, 4.0)
  _validate.number("loss_exponent", loss_exponent, 0.0, 4.0)
  _validate.one_of("metric", metric, ("cosine", "euclidean"))
  _validate.number("max_weight", max_weight, 1.0)
  _validate.axis_name("axis_name", axis_name)
  if queue_dtype is not None:
    _validate.storage_dtype("queue_dtype", queue_dtype)
  storage = jax.dtypes.canonicalize_dtype(queue_dtype or jnp.float32)
  # No smoothed loss is another program, not a traced number.
  by_loss = not _validate.is_zero(loss_exponent)

  def init(embedding_dim_or_template):
    dim = checks.embedding_dim(embedding_dim_or_template, metric)
    return ExampleScarcityState(
      queue=jnp.zeros((queue_size, dim), storage),
      filled=jnp.zeros(queue_size, bool),
      lengths=jnp.zeros(queue_size, jnp.float32),
      losses=jnp.zeros(queue_size, jnp.float32),
      reach=jnp.zeros([], jnp.float32),
      effective=jnp.zeros([], jnp.float32),
      count=jnp.zeros([], jnp.int32),
    )

  def state_of(state):
    # On several devices the state of each is a part, or a queue of its own.
    size = lambda state: [] if axis_name else [("queue_size", queue_size, len(state.queue))]
    options = lambda state: [*size(state), ("queue_dtype", storage, state.queue.dtype)]
    return checks.state_of("example_scarcity", ExampleScarcityState, state, options)

  def update(embeddings, state, *, mask=None, losses=None):
    state, embeddings = state_of(state), _validate.floating("embeddings", embeddings)
    x = checks.as_rows(embeddings, state.queue.shape[1], metric)
    unmasked = _validate.mask("mask", mask, len(x))
    if losses is not None:
      losses = _validate.floating("losses", losses)
      _validate.shape("losses", losses, f"[B] with B = {len(x)}", (len(x),))
      losses = jax.lax.stop_gradient(losses).astype(jnp.float32)
    rule = "be the losses of the examples, [B], where loss_exponent is not 0"
    given = losses is not None or not by_loss
    _validate.require(given, "losses", rule, None, "Give losses= to update.")
    options = bandwidth, neighbours, exponent, loss_exponent if by_loss else None, max_weight
    options, rounding = jax.lax.stop_gradient(options), float(jnp.finfo(embeddings.dtype).eps)
    return _update(x, unmasked, losses, state, options, rounding, metric, axis_name)

  def explain(embeddings, state, num_examples=8, num_nearest=4):
    state, embeddings = state_of(state), _validate.floating("embeddings", embeddings)
    x = checks.as_rows(embeddings, state.queue.shape[1], metric)
    rounding = float(jnp.finfo(embeddings.dtype).eps)
    x, live, _, _ = _queueable(x, jnp.ones(len(x), bool), None, state, rounding, metric)
    few = clamped(neighbours, 0.0)
    return explain_examples(x, live, state, num_examples, num_nearest, few, metric)

  return ExampleScarcity(init, update, explain)


@functools.partial(jax.jit, static_argnames=("rounding", "metric", "axis_name"))
def _update(x, unmasked, losses, state, options, rounding, metric, axis_name):
  bandwidth, few, exponent, loss_exponent, max_weight = options
  total = lambda part: _axes.total(part, axis_name)
  most = lambda part: _axes.largest(jnp.max(part), axis_name)
  size = len(x)
  # The batch in front of the queue.
  new = _queueable(x, unmasked, losses, state, rounding, metric, most)
  both = [jnp.concatenate([a.astype(b.dtype), b]) for a, b in zip(new, state[:4], strict=True)]
  rows, live, _, losses = both
  rows, unit, largest = density.centred(rows.astype(jnp.float32), live, live, metric, total, most)

  # The batch of all devices. Each device compares it with rows of its own, and sums over the
  # devices are the same on all of them.
  of_device = _axes.alike((rows[:size], live[:size], unmasked), x)
  everyone, counted, everyone_unmasked = (_axes.gather(part, axis_name) for part in of_device)
  order = density.live_first(live)
  # One sort serves twice, unless several devices share the batch.
  first = order if axis_name is None else density.live_first(counted)
  # Batch and queue apart: one array of all pairs would be written to memory.
  parts = slice(size), slice(size, None)
  pairs = [(rows[part], live[part]) for part in parts]
  bandwidth = clamped(bandwidth, 1e-6)
  squared_reach = density.squared_reach(everyone, counted, first, pairs, bandwidth, largest, total)
  ids = jnp.arange(len(everyone), dtype=jnp.int32)
  ids_of = _axes.own(ids, axis_name, size), jnp.full(len(state.queue), -1, jnp.int32)

  def resembling(x, ids):
    lost = [None if loss_exponent is None else losses[part] for part in parts]
    others = zip(pairs, ids_of, lost, strict=True)
    return sum(density.neighbours(x, ids, *r, own, squared_reach, loss) for r, own, loss in others)

  found = total(density.in_blocks(resembling, (everyone, ids), max(size, len(state.queue))))

  ratio = jnp.ones([], jnp.float32)
  if loss_exponent is not None:
    mean = total(jnp.sum(losses)) / jnp.maximum(total(jnp.sum(live, dtype=jnp.float32)), 1.0)
    ratio = density.loss_ratio(found, mean) ** clamped(loss_exponent, 0.0, 4.0)
  few, exponent = clamped(few, 0.0), clamped(exponent, 0.0, 4.0)
  weights = density.weigh(found[:, 0], counted, few, exponent, ratio)
  # Rounding may leave a weight below 0 that is next to nothing.
  weights, bound = jnp.maximum(weights, 1e-20), clamped(max_weight, 1.0, 1e9)
  weights = to_mean_one(weights, counted.astype(jnp.float32), bound)
  weights = jnp.where(counted, weights, everyone_unmasked.astype(jnp.float32))

  # The new queue. Of a batch that is too large it takes rows at even stride.
  taken = order[density.stride(jnp.sum(live[:size], dtype=jnp.int32), len(state.queue))]
  squares = jnp.sum(jnp.square(weights))
  after = ExampleScarcityState(
    **{field: part[taken] for field, part in zip(state._fields, both, strict=False)},
    reach=jnp.sqrt(squared_reach) * unit,
    effective=jnp.square(jnp.sum(weights)) / jnp.where(squares > 0.0, squares, 1.0),
    count=optax.safe_increment(state.count),
  )
  anything = jnp.any(counted)
  state = jax.tree.map(lambda new, old: jnp.where(anything, new, old), after, state)
  return _axes.own(weights, axis_name, size), state


def _queueable(x, unmasked, losses, state, rounding, metric, most=jnp.max):
  """Rows as the queue holds them, which of them may enter it, their lengths and losses.

  Args:
    x: float32 `[n, d]`.
    unmasked: bool `[n]`.
    losses: float32 `[n]`, or None.
    state: an `ExampleScarcityState`.
    rounding: the spacing at 1 of the dtype that x had.
    metric: "cosine" or "euclidean".
    most: the maximum, over all devices.
  """
  losses = jnp.zeros_like(x[:, 0]) if losses is None else losses
  finite = jnp.isfinite(jnp.max(jnp.abs(x), axis=1))
  live = unmasked & finite & jnp.isfinite(losses)
  units, lengths = lloyd.unit_rows(x)
  if metric == "cosine":
    # As short as the rounding of the longest: what is left has no direction of its own.
    longest = most(jnp.concatenate([jnp.where(live, lengths, 0.0), state.lengths]))
    live, x = live & (lengths > rounding * longest), units
  if state.queue.dtype != x.dtype:  # what is finite in float32 may not be in the queue's dtype
    # The barrier: on a GPU XLA keeps the excess precision, and what overflows would look finite.
    x = jax.lax.optimization_barrier(x.astype(state.queue.dtype)).astype(jnp.float32)
    live = live & jnp.all(jnp.isfinite(x), axis=1)
  keep = lambda part: jnp.where(live, part, 0.0)
  x = jnp.where(live[:, None], x, 0.0)
  return x, live, keep(lengths), keep(jnp.clip(losses, -1e30, 1e30))
