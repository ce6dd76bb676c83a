# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The user's own models: what they may return, and BatchNorm and dropout in training and use."""

import pathlib
import re
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gq_optax.trial import arms, command, networks, training
from gq_optax.trial.runs import Trial

pytestmark = pytest.mark.standard_promotion  # the networks of flax, and optax

MODULES = """
import flax.linen as nn
from flax import nnx

class Linen(nn.Module):
  num_classes: int

  @nn.compact
  def __call__(self, x, train):
    x = nn.BatchNorm(use_running_average=not train, momentum=0.5)(x)
    x = nn.Dropout(0.5, deterministic=not train)(x)
    return {"logits": nn.Dense(self.num_classes)(x), "features": x}

class Own(nnx.Module):
  def __init__(self, num_classes, rngs):
    self.norm = nnx.BatchNorm(4, momentum=0.5, rngs=rngs)
    self.dropout = nnx.Dropout(0.5, rngs=rngs)
    self.layer = nnx.Linear(4, num_classes, rngs=rngs)

  def __call__(self, x):
    x = self.dropout(self.norm(x))
    return self.layer(x), x

class Answers(nn.Module):
  width: int
  form: str = "array"

  @nn.compact
  def __call__(self, x):
    x = nn.Dense(self.width)(x)
    return {
      "array": x, "flat": x[:, 0], "keys": {"scores": x}, "three": (x, x, x), "text": "x",
      "misspelt": {"logits": x, "feature": x},
    }[self.form]

class Unflagged(nn.Module):
  @nn.compact
  def __call__(self, x):
    return nn.Dense(3)(nn.BatchNorm(use_running_average=False)(x))

linen = Linen
own = lambda num_classes, rngs: Own(num_classes, rngs)
one = lambda num_classes: Answers(1)
flat = lambda num_classes: Answers(1, "flat")
two = lambda num_classes: Answers(2)
keys = lambda num_classes: Answers(2, "keys")
three = lambda num_classes: Answers(2, "three")
text = lambda num_classes: Answers(2, "text")
unflagged = lambda num_classes: Unflagged()
misspelt = lambda num_classes: Answers(3, "misspelt")
nothing = lambda num_classes: 3
made = Answers(2)
none = lambda: Answers(2)
no_rngs = lambda num_classes: Own(num_classes, nnx.Rngs(0))
broken = lambda num_classes: 1 // 0
number = 3
"""


@pytest.fixture(autouse=True)
def own_module(tmp_path, monkeypatch):
  (tmp_path / "own_networks.py").write_text(MODULES)
  monkeypatch.syspath_prepend(tmp_path)
  yield
  sys.modules.pop("own_networks", None)
  networks.make.cache_clear()


def small_task():
  rng = np.random.default_rng(0)
  labels = np.arange(48) % 2
  x = jnp.asarray(rng.normal(size=(48, 4)) + 3.0 + 2.0 * labels[:, None], jnp.float32)
  labels = jnp.asarray(labels, jnp.int32)
  split = (x, labels, labels)
  return training.Task(x, labels, labels, split, split)


@pytest.mark.parametrize("name", ["linen", "own"])
def test_batchnorm_and_dropout_are_trained_and_used_as_they_should(name):
  name, task = f"own_networks:{name}", small_task()
  assert networks.check(name, 2, (4,))  # there are features
  sizes = training.Sizes(12, 5, 2, 2, name, scores=True)
  arm, rate = arms.Arm(), jnp.float32(0.1)
  carry = training.start(arm, sizes, task, jnp.int32(0), rate).carry
  network = networks.make(name, 2)
  means = lambda v: [m for m in jax.tree.leaves(v.state) if m.shape == (4,) and abs(m).max() > 0.5]
  assert len(means(carry[0])) == 1  # the variances, which start from 1

  variables, _ = jax.jit(training.train, static_argnums=(0, 1))(
    arm, sizes, task, jnp.int32(0), rate
  )
  mean, var = task.x.mean(axis=0), task.x.var(axis=0)
  for expected in (mean, var):  # 20 batches later, each counts a half
    assert min(float(jnp.abs(m - expected).max()) for m in means(variables)) < 1.0
  run = jax.jit(network.train)
  (first, _), state = run(variables, task.x, jax.random.key(0))
  again, _ = run(variables._replace(state=state), task.x, jax.random.key(1))[0]
  assert not np.allclose(first, again)  # another mask
  used, features = jax.jit(network.apply)(variables, task.x)
  np.testing.assert_array_equal(used, jax.jit(network.apply)(variables, task.x)[0])
  assert (features != 0.0).all()
  assert (jnp.argmax(used, axis=1) == task.labels).mean() > 0.9
  assert not network.plain


@pytest.mark.parametrize("number", [0, 1])
def test_the_models_of_the_documentation(tmp_path, number):
  page = pathlib.Path(__file__).parent.parent / "docs" / "trial.md"
  blocks = re.findall(r"```py\n(.*?)```", page.read_text(), re.DOTALL)
  (tmp_path / "own_networks.py").write_text(blocks[number])
  assert networks.check("own_networks:make", 3, (8,))
  assert len(blocks) == 2


def test_two_classes_may_share_a_logit(capsys):
  x = jnp.ones((3, 4))
  for name in ("one", "flat"):
    network = networks.make(f"own_networks:{name}", 2)
    assert not networks.check(f"own_networks:{name}", 2, (4,))
    logits, features = network.apply(network.init(jax.random.key(0), x), x)
    assert logits.shape == features.shape == (3, 2)
    assert (logits[:, 0] == 0.0).all()
    assert (logits[:, 1] != 0.0).all()
  pool, notes = types.SimpleNamespace(num_classes=2), []
  material = types.SimpleNamespace(pool=pool, notes=notes, task_of=lambda seed: small_task())
  command.check_model(Trial(model="own_networks:two"), material)
  material.warnings = []
  command.warn(Trial(arm_names=("class weights",)), material)
  assert capsys.readouterr().err.startswith("warning: No arm is plain, so all are held against cl")
  assert notes[0].startswith("The model returns no features, so its logits stood for them")


@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("mpl", "model must be mlp, logistic, cnn or module:function, but 'mpl'"),
    ("no_such_module:f", "must be importable from here: .* must lie in the current folder, /.*"),
    ("../own_networks:own", "must name a module with dots, no path: sub.other:make is make of"),
    ("sub/other:make", "must name a module with dots, no path"),
    ("own_networks.py:own", "must name a module, no file: drop .py"),
    ("own_networks:made", "must name a function that makes a module, but a module was found"),
    ("own_networks:none", r"must be called as make\(num_classes\) .* make\(num_classes, rngs\)"),
    ("own_networks:no_rngs", r"returns an NNX module, so it must take \(num_classes, rngs\)"),
    ("own_networks:broken", "must make a module, but ZeroDivisionError: "),
    ("own_networks:misspelt", '"features" in a dict, but also feature was found'),
    ("own_networks:missing", "must name a function of own_networks, but there is none"),
    ("own_networks:number", "must name a function of own_networks"),
    ("own_networks:nothing", "must return a Linen module, .* but int was found"),
    ("own_networks:one", r"a logit for each of 3 classes, \[n, 3\], but shape \('n', 1\)"),
    ("own_networks:two", r"a logit for each of 3 classes, \[n, 3\], but shape \('n', 2\)"),
    ("own_networks:keys", 'model must return logits, as "logits" in a dict, but scores was found'),
    ("own_networks:three", "model must return logits and features, but 3 were found"),
    ("own_networks:text", "model must return an array of logits, but str was found"),
    ("own_networks:own", r"must take float32 examples of shape \('n', 5\), .* but: "),
    ("own_networks:unflagged", "BatchNorm and dropout by an argument `train`"),
  ],
)
def test_what_does_not_fit_is_one_clear_line(name, message):
  with pytest.raises(ValueError, match=message) as caught:
    networks.check(name, 3, (5,))
  assert "\n" not in str(caught.value)
