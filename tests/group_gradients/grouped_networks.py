# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Networks of every kind with their group gradients, by one masked backward pass per group."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

BATCH, GROUPS = 24, 4
KEY = jax.random.key(0)
# Half of the batch in one group, an empty one, and four examples of none.
LABELS = np.random.default_rng(0).permutation([0] * 12 + [2] * 3 + [3] * 5 + [-1, 4, 99, -7])
OUTSIDE = (LABELS < 0) | (LABELS >= GROUPS)
PATTERNS = {
  "skewed": LABELS,
  "equal": np.where(OUTSIDE, -1, np.arange(BATCH) % GROUPS),
  "one group": np.where(OUTSIDE, GROUPS, 2),
  "none": np.full(BATCH, -1),
}


def random_patterns(number):
  """From groups of about one size to groups that are mostly empty."""
  rng = np.random.default_rng(1)
  shares = [rng.dirichlet(np.full(GROUPS + 2, spread)) for spread in np.geomspace(0.1, 10, number)]
  drawn = [rng.choice(np.arange(-1, GROUPS + 1), BATCH, p=share) for share in shares]
  return [np.where(OUTSIDE, -1, labels) for labels in drawn]


class CNN(nn.Module):
  @nn.compact
  def __call__(self, x):
    for width in (32, 64, 64):
      x = nn.max_pool(nn.relu(nn.Conv(width, (3, 3))(x)), (2, 2), (2, 2))
    return nn.Dense(10)(nn.relu(nn.Dense(128)(x.reshape(x.shape[0], -1))))


class Encoder(nn.Module):
  """A layer of a transformer over token ids, and the mean over positions."""

  width: int
  heads: int

  @nn.compact
  def __call__(self, ids):
    place = self.param("place", nn.initializers.normal(0.02), (1, ids.shape[1], self.width))
    x = nn.Embed(50, self.width)(ids) + place
    x = x + nn.MultiHeadDotProductAttention(self.heads)(nn.LayerNorm()(x))
    y = nn.gelu(nn.Dense(4 * self.width)(nn.LayerNorm()(x)))
    return nn.Dense(10)(jnp.mean(nn.LayerNorm()(x + nn.Dense(self.width)(y)), axis=1))


def normal(number, *shape):
  return np.random.default_rng(number).normal(size=shape).astype(np.float32)


def cross_entropy(logits, labels):
  return optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels)


def of_flax(model, x):
  loss_fn = lambda params, batch: cross_entropy(model.apply(params, batch[0]), batch[1])
  return loss_fn, jax.jit(model.init)(KEY, x[:1]), (x, np.arange(BATCH) % 3)


def dense(dtype=jnp.float32):
  def loss_fn(params, batch):
    x, y = batch
    for w, b in params:
      x = jax.nn.relu(x @ w + b[None])
    return cross_entropy(x, y)

  shapes = [((7, 16), (16,)), ((16, 3), (3,))]
  draw = lambda shape: (normal(len(shape), *shape) / shape[0] ** 0.5).astype(dtype)
  params = [(draw(w), draw(b)) for w, b in shapes]
  return loss_fn, params, (normal(0, BATCH, 7).astype(dtype), np.arange(BATCH) % 3)


def transformer():
  return of_flax(Encoder(8, 2), np.random.default_rng(0).integers(0, 11, (BATCH, 5)))


def scanned_layers():
  """Layers in a loop over their stacked weights, computed again in the backward pass."""

  def loss_fn(params, x):
    layer = jax.checkpoint(lambda h, w: (jnp.tanh(h @ w), None))
    h = jnp.tanh(x @ params["first"])
    return jnp.sum(jax.lax.scan(layer, h, params["layers"])[0] @ params["last"], axis=1)

  params = {"first": normal(2, 5, 5), "layers": normal(0, 3, 5, 5), "last": normal(3, 5, 2)}
  return loss_fn, params, normal(1, BATCH, 5)


def dropout_and_weights_first():
  """Weights dropped by keys in the batch, by the example; to the left, over one axis and two.

  And leaves without a number, as a mask leaves them.
  """

  def loss_fn(params, batch):
    x, y = batch["x"], batch["y"]
    keep = jax.vmap(lambda k: jax.random.bernoulli(k, 0.5, (4,)))(batch["key"])
    dropped = jnp.where(keep, jnp.tanh(x @ params["w"]), 0.0)
    own = jnp.abs(x[:, :, None]) > jnp.abs(x[:, None, :2])
    part = lambda own: jnp.where(own, params["dropped"][:, :2], 0.0)
    dropped_by_x = jax.vmap(lambda x, own: jnp.tanh(x @ part(own)) * x[0])(x, own)
    h = jnp.tanh(jax.vmap(lambda y: params["left"] @ y)(y))
    both = jax.vmap(lambda h: jnp.tensordot(params["both"], h, ((2, 1), (1, 0))))(h)
    parts = dropped, dropped_by_x, both, batch["nothing"] + jnp.sum(params["none"])
    return sum(jnp.sum(part, axis=1) for part in parts)

  shapes = {"w": (5, 4), "dropped": (5, 4), "left": (4, 2), "both": (6, 4, 3), "none": (0, 2)}
  params = {name: normal(len(name), *shape) for name, shape in shapes.items()}
  batch = {"x": normal(1, BATCH, 5), "y": normal(2, BATCH, 2, 3)}
  batch |= {"key": jax.random.split(KEY, BATCH), "nothing": np.zeros((BATCH, 0), "f")}
  return loss_fn, params, batch


@jax.custom_vjp
def _product(x, w):
  return x @ w


_product.defvjp(lambda x, w: (x @ w, (x, w)), lambda r, g: (3.0 * g @ r[1].T, 2.0 * r[0].T @ g))


def own_derivatives():
  """A rule that is wrong on purpose is kept, in a loop or not; and a weight used twice."""

  def loss_fn(params, x):
    layer = lambda h, w: (jnp.tanh(_product(h, w)), None)
    in_a_loop = jax.lax.scan(layer, x @ params["first"], params["layers"])[0]
    twice = jnp.sin(_product(x, params["twice"])) @ params["twice"].T
    return jnp.sum(in_a_loop, axis=1) + jnp.sum(twice, axis=1) + jnp.sum(params["twice"] ** 2)

  params = {"first": normal(2, 5, 4), "layers": normal(0, 3, 4, 4), "unused": normal(3, 2)}
  return loss_fn, params | {"twice": normal(0, 5, 4)}, normal(1, BATCH, 5)


def every_kind_of_convolution():
  """Strides, dilation, groups of channels, and one that makes images larger."""
  order = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
  conv = functools.partial(jax.lax.conv_general_dilated, **order)

  def loss_fn(params, x):
    strided, dilated, grouped, enlarging = params
    h = jnp.tanh(conv(x, strided, (2, 1), "SAME"))
    h = jnp.tanh(conv(h, dilated, (1, 1), ((2, 0), (1, 1)), rhs_dilation=(1, 2)))
    h = jnp.tanh(conv(h, grouped, (1, 1), "VALID", feature_group_count=2))
    h = conv(h, enlarging, (1, 1), ((1, 1), (2, 1)), lhs_dilation=(2, 2))
    return jnp.mean(h, axis=(1, 2, 3))

  shapes = (3, 3, 2, 4), (2, 2, 4, 4), (2, 2, 2, 4), (3, 3, 4, 2)
  return loss_fn, [normal(i, *s) for i, s in enumerate(shapes)], normal(9, BATCH, 8, 8, 2)


NETWORKS = [dense, every_kind_of_convolution, transformer, scanned_layers]
NETWORKS += [dropout_and_weights_first, own_derivatives]
NETWORKS = {f.__name__: f for f in NETWORKS} | {"bfloat16": lambda: dense(jnp.bfloat16)}


@functools.cache
def problem(network):
  """A loss, its parameters and a batch, made once."""
  return NETWORKS[network]()


@functools.cache
def masked_pass(network):
  """The definition: the mean loss of some examples, and the gradient of that."""
  loss_fn, params, batch = problem(network)

  def mean(params, member):
    losses = loss_fn(params, batch).astype(jnp.float32)
    return jnp.sum(jnp.where(member, losses, 0.0)) / jnp.maximum(jnp.sum(member), 1)

  run = jax.jit(jax.value_and_grad(mean))
  return lambda member: jax.device_get(run(params, member))


def masked_passes(network, labels):
  """Mean losses of the groups and their gradients, in NumPy."""
  with jax.numpy_dtype_promotion("standard"):
    each = [masked_pass(network)(labels == k) for k in range(GROUPS)]
  return jax.tree.map(lambda *leaves: np.stack(leaves), *each)


def tanh_loss(w, x):
  return jnp.sum(jnp.tanh(x @ w), axis=(1, 2))


def tanh_gradients(w, x):
  """Of that loss, example by example, by hand."""
  return np.einsum("bpd,bpk->bdk", x, 1.0 - np.square(np.tanh(x @ w)))


def means(each, labels, num_groups):
  """Of groups of gradients of examples; 0 of none."""
  own = [each[labels == k] for k in range(num_groups)]
  return np.stack([rows.sum(axis=0) / max(len(rows), 1) for rows in own])


def spoil(x):
  """NaN in the examples that belong to no group."""
  if not jnp.issubdtype(x.dtype, jnp.floating):
    return x
  return np.where(OUTSIDE.reshape(-1, *[1] * (x.ndim - 1)), np.nan, x).astype(x.dtype)
