# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Ready-made optimizers: Grad Queue in front of SGD and of Adam."""

import math

import jax
import optax

from gq_optax import _axes, _validate
from gq_optax._coordinates.transform import grad_queue
from gq_optax._coordinates.weights import ScarcityFn


def gq_sgd(  # noqa: D417  # grad_queue describes its options
  learning_rate: optax.ScalarOrSchedule,
  momentum: float | None = 0.9,
  nesterov: bool = False,
  queue_length: int | tuple[int, int] = 3,
  rho: jax.typing.ArrayLike = 3.0,
  *,
  scarcity: ScarcityFn | None = None,
  num_clusters: int = 1,
  group_exponent: jax.typing.ArrayLike = 0.0,
  update_norm: str | jax.typing.ArrayLike | None = None,
  queue_dtype: jax.typing.DTypeLike | None = None,
  track: bool = False,
  key: jax.Array | int = 0,
  axis_name: _axes.AxisName | None = None,
) -> optax.GradientTransformationExtraArgs:
  r"""SGD with momentum on gradients weighted by scarcity: the paper's GQ-SGDM.

  .. math:: m_t = \beta m_{t-1} + g^*_t, \qquad \theta_t = \theta_{t-1} - \alpha m_t

  `optax.chain(grad_queue(...), optax.sgd(learning_rate, momentum, nesterov))`.

  Args:
    learning_rate: a number or a schedule.
    momentum: decay of the momentum; None for plain SGD.
    nesterov: Nesterov momentum.
    queue_length: see `grad_queue`, as for all that follow.

  Returns:
    An `optax.GradientTransformationExtraArgs`.

  Raises:
    ValueError: as `grad_queue`.

  Example:
    >>> import jax.numpy as jnp
    >>> import gq_optax as gq
    >>> tx = gq.gq_sgd(0.1)
    >>> state = tx.init(jnp.zeros(2))
    >>> updates, state = tx.update(jnp.array([1., 2.]), state)
    >>> print(updates)
    [-0.1 -0.2]

  Reference: Al Hasib, Grad Queue (arXiv 2404.16917), section 3 and Algorithm 1.
  """
  _check(learning_rate, momentum=0.0 if momentum is None else momentum)
  _validate.flag("nesterov", nesterov)
  optimizer = optax.sgd(learning_rate, momentum=momentum, nesterov=nesterov)
  front = grad_queue(
    queue_length,
    rho,
    scarcity=scarcity,
    num_clusters=num_clusters,
    group_exponent=group_exponent,
    update_norm=update_norm,
    queue_dtype=queue_dtype,
    track=track,
    key=key,
    axis_name=axis_name,
  )
  return optax.chain(front, optimizer)


def gq_adam(  # noqa: D417  # grad_queue describes its options
  learning_rate: optax.ScalarOrSchedule,
  b1: jax.typing.ArrayLike = 0.9,
  b2: jax.typing.ArrayLike = 0.999,
  eps: jax.typing.ArrayLike = 1e-8,
  queue_length: int | tuple[int, int] = 3,
  rho: jax.typing.ArrayLike = 3.0,
  *,
  scarcity: ScarcityFn | None = None,
  num_clusters: int = 1,
  group_exponent: jax.typing.ArrayLike = 0.0,
  update_norm: str | jax.typing.ArrayLike | None = None,
  queue_dtype: jax.typing.DTypeLike | None = None,
  track: bool = False,
  key: jax.Array | int = 0,
  axis_name: _axes.AxisName | None = None,
) -> optax.GradientTransformationExtraArgs:
  r"""Adam on gradients weighted by scarcity: the paper's GQ-ADAM.

  .. math:: \theta_t = \theta_{t-1} - \alpha\, \mathrm{Adam}(g^*_t)

  `optax.chain(grad_queue(...), optax.adam(learning_rate, b1, b2, eps))`. Adam divides a constant
  factor of the gradient out again. So `update_norm` does little here.

  Args:
    learning_rate: a number or a schedule.
    b1: decay of the first moment.
    b2: decay of the second moment.
    eps: added to the denominator.
    queue_length: see `grad_queue`, as for all that follow.

  Returns:
    An `optax.GradientTransformationExtraArgs`.

  Raises:
    ValueError: as `grad_queue`.

  Example:
    >>> import jax.numpy as jnp
    >>> import gq_optax as gq
    >>> tx = gq.gq_adam(0.1)
    >>> state = tx.init(jnp.zeros(2))
    >>> updates, state = tx.update(jnp.array([1., 2.]), state)
    >>> print(updates.round(3))
    [-0.1 -0.1]

  Reference: Al Hasib, Grad Queue (arXiv 2404.16917), section 3 and Algorithm 1.
  """
  _check(learning_rate, b1=b1, b2=b2, eps=eps)
  optimizer = optax.adam(learning_rate, b1=b1, b2=b2, eps=eps)
  front = grad_queue(
    queue_length,
    rho,
    scarcity=scarcity,
    num_clusters=num_clusters,
    group_exponent=group_exponent,
    update_norm=update_norm,
    queue_dtype=queue_dtype,
    track=track,
    key=key,
    axis_name=axis_name,
  )
  return optax.chain(front, optimizer)


def _check(learning_rate, **decays):
  """Raises ValueError for what the optimizer behind the queue would refuse later, or never."""
  if not callable(learning_rate):
    _validate.real("learning_rate", learning_rate, -math.inf)
  for name, value in decays.items():
    _validate.real(name, value, 0.0)
