# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Networks of every kind with their group gradients, by one masked backward pass per group."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

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


class MLP(nn.Module):
  widths: tuple[int, ...]
  classes: int

  @nn.compact
  def __call__(self, x):
    for width in self.widths:
      x = nn.relu(nn.Dense(width)(x))
    return nn.Dense(self.classes)(x), x


class CNN(nn.Module):
  classes: int = 10

  @nn.compact
  def __call__(self, x):
    for width in (32, 64, 64):
      x = nn.max_pool(nn.relu(nn.Conv(width, (3, 3))(x)), (2, 2), (2, 2))
    x = nn.relu(nn.Dense(128)(x.reshape(x.shape[0], -1)))
    return nn.Dense(self.classes)(x), x


class Encoder(nn.Module):
  """A layer of a transformer over token ids, and the mean over positions."""

  width: int
  heads: int
  vocabulary: int
  classes: int

  @nn.compact
  def __call__(self, ids):
    place = self.param("place", nn.initializers.normal(0.02), (1, ids.shape[1], self.width))
    x = nn.Embed(self.vocabulary, self.width)(ids) + place
    x = x + nn.MultiHeadDotProductAttention(self.heads)(nn.LayerNorm()(x))
    y = nn.gelu(nn.Dense(4 * self.width)(nn.LayerNorm()(x)))
    x = jnp.mean(nn.LayerNorm()(x + nn.Dense(self.width)(y)), axis=1)
    return nn.Dense(self.classes)(x), x


def normal(number, *shape, dtype=jnp.float32):
  return jax.random.normal(jax.random.fold_in(KEY, number), shape, dtype)


def cross_entropy(logits, labels):
  return optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels)


def of_flax(model, x, classes):
  y = jnp.arange(BATCH) % classes
  loss_fn = lambda params, batch: cross_entropy(model.apply(params, batch[0])[0], batch[1])
  return loss_fn, model.init(KEY, x[:1]), (x, y)


def dense(dtype=jnp.float32):
  model = MLP((16, 8), 3)
  loss_fn, params, batch = of_flax(model, normal(0, BATCH, 7), 3)
  return (
    loss_fn,
    jax.tree.map(lambda p: p.astype(dtype), params),
    (batch[0].astype(dtype), batch[1]),
  )


def convolutional():
  return of_flax(CNN(3), normal(0, BATCH, 8, 8, 3), 3)


def transformer():
  model = Encoder(8, 2, 11, 3)
  return of_flax(model, jax.random.randint(KEY, (BATCH, 5), 0, 11), 3)


def weights_first():
  """Products in which the weight is on the left, over one axis and over two."""

  def loss_fn(params, x):
    h = jnp.tanh(jax.vmap(lambda x: params["left"] @ x)(x))
    both = lambda h: jnp.tensordot(params["both"], h, ((2, 1), (1, 0)))
    return jnp.sum(jax.vmap(both)(h), axis=1)

  return loss_fn, {"left": normal(0, 4, 2), "both": normal(1, 6, 4, 3)}, normal(2, BATCH, 2, 3)


def nnx_network():
  class Net(nnx.Module):
    def __init__(self, rngs):
      self.conv = nnx.Conv(2, 4, (3, 3), rngs=rngs)
      self.norm = nnx.LayerNorm(4, rngs=rngs)
      self.dense = nnx.Linear(4 * 16, 3, rngs=rngs)

    def __call__(self, x):
      x = nnx.max_pool(nnx.gelu(self.norm(self.conv(x))), (2, 2), (2, 2))
      return self.dense(x.reshape(x.shape[0], -1))

  graph, params = nnx.split(Net(nnx.Rngs(0)), nnx.Param)
  loss_fn = lambda p, batch: cross_entropy(nnx.merge(graph, p)(batch["x"]), batch["y"])
  return loss_fn, params, {"x": normal(0, BATCH, 8, 8, 2), "y": jnp.arange(BATCH) % 3}


def scanned_layers():
  """Layers in a loop over their stacked weights, computed again in the backward pass."""

  def loss_fn(params, x):
    layer = jax.checkpoint(lambda h, w: (jnp.tanh(h @ w), None))
    h = jnp.tanh(x @ params["first"])
    return jnp.sum(jax.lax.scan(layer, h, params["layers"])[0] @ params["last"], axis=1)

  params = {"first": normal(2, 5, 5), "layers": normal(0, 3, 5, 5), "last": normal(3, 5, 2)}
  return loss_fn, params, normal(1, BATCH, 5)


def recurrent():
  class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
      return nn.Dense(3)(nn.RNN(nn.OptimizedLSTMCell(4))(x)[:, -1]), None

  return of_flax(Net(), normal(0, BATCH, 6, 2), 3)


def dropout():
  """A key for each example is data of the batch."""

  def loss_fn(params, batch):
    keep = jax.vmap(lambda k: jax.random.bernoulli(k, 0.5, (4,)))(batch["key"])
    return jnp.sum(jnp.where(keep, jnp.tanh(batch["x"] @ params), 0.0), axis=1)

  batch = {"key": jax.random.split(KEY, BATCH), "x": normal(1, BATCH, 5)}
  return loss_fn, normal(2, 5, 4), batch


def dropped_weights():
  """Each example has some of a part of the weights: a mask is what it keeps."""

  def loss_fn(params, x):
    keep = jnp.abs(x[:, :, None]) > jnp.abs(x[:, None, :2])
    part = lambda keep: jnp.where(keep, params[:, :2], 0.0)
    return jax.vmap(lambda x, keep: jnp.sum(jnp.tanh(x @ part(keep))) * x[0])(x, keep)

  return loss_fn, normal(2, 5, 4), normal(1, BATCH, 5)


@jax.custom_vjp
def _product(x, w):
  return x @ w


_product.defvjp(lambda x, w: (x @ w, (x, w)), lambda r, g: (3.0 * g @ r[1].T, 2.0 * r[0].T @ g))


def own_derivatives():
  """A weight used twice, and a rule of its own that is wrong on purpose: it is kept."""
  loss_fn = lambda w, x: jnp.sum(jnp.sin(_product(x, w)) @ w.T, axis=1) + jnp.sum(w * w)
  return loss_fn, normal(0, 5, 4), normal(1, BATCH, 5)


def own_derivatives_in_a_loop():
  def loss_fn(params, x):
    layer = lambda h, w: (jnp.tanh(_product(h, w)), None)
    return jnp.sum(jax.lax.scan(layer, x @ params["first"], params["layers"])[0], axis=1)

  params = {"first": normal(2, 5, 4), "layers": normal(0, 3, 4, 4), "unused": normal(3, 2)}
  return loss_fn, params, normal(1, BATCH, 5)


def every_kind_of_convolution():
  """Strides, dilation, groups of channels, and one that makes images larger."""

  def loss_fn(params, x):
    conv = functools.partial(
      jax.lax.conv_general_dilated, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    h = jnp.tanh(conv(x, params["strided"], (2, 1), "SAME"))
    h = jnp.tanh(conv(h, params["dilated"], (1, 1), ((2, 0), (1, 1)), rhs_dilation=(1, 2)))
    h = jnp.tanh(conv(h, params["grouped"], (1, 1), "VALID", feature_group_count=2))
    h = conv(h, params["enlarging"], (1, 1), ((1, 1), (2, 1)), lhs_dilation=(2, 2))
    return jnp.mean(h, axis=(1, 2, 3))

  shapes = {"strided": (3, 3, 2, 4), "dilated": (2, 2, 4, 4), "grouped": (2, 2, 2, 4)}
  shapes["enlarging"] = (3, 3, 4, 2)
  params = {name: normal(i, *shape) for i, (name, shape) in enumerate(shapes.items())}
  return loss_fn, params, normal(9, BATCH, 8, 8, 2)


NETWORKS = {
  f.__name__: f
  for f in (
    dense,
    convolutional,
    every_kind_of_convolution,
    transformer,
    weights_first,
    nnx_network,
    scanned_layers,
    recurrent,
    dropout,
    dropped_weights,
    own_derivatives,
    own_derivatives_in_a_loop,
  )
} | {"bfloat16": functools.partial(dense, jnp.bfloat16)}


def masked_passes(loss_fn, num_groups=GROUPS):
  """The definition: for each group the mean loss of its examples and the gradient of that."""

  @jax.jit
  def one(params, batch, member):
    def mean(params):
      losses = loss_fn(params, batch).astype(jnp.float32)
      return jnp.sum(jnp.where(member, losses, 0.0)) / jnp.maximum(jnp.sum(member), 1)

    with jax.numpy_dtype_promotion("standard"):
      return jax.value_and_grad(mean)(params)

  def run(params, batch, labels):
    each = [one(params, batch, jnp.asarray(labels) == k) for k in range(num_groups)]
    losses, gradients = zip(*each, strict=True)
    return jnp.stack(losses), jax.tree.map(lambda *g: jnp.stack(g), *gradients)

  return run


def spoil(x):
  """NaN in the examples that belong to no group."""
  if not jnp.issubdtype(x.dtype, jnp.floating):
    return x
  return jnp.where(jnp.asarray(OUTSIDE).reshape(-1, *[1] * (x.ndim - 1)), jnp.nan, x).astype(
    x.dtype
  )
