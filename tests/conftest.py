# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""Strict numerics around every test: no implicit promotion of dtypes or ranks."""

import gc

import jax
import pytest

# Programs are many small objects, and few of them are garbage: to look for it took a twentieth.
gc.set_threshold(100_000, 20, 100)

# Meshes are tested on eight virtual devices; all else runs on the first.
jax.config.update("jax_num_cpu_devices", 8)
# Accelerators leave out digits of users' float32 products, unless they are asked. Whether the
# library asks for its own is tested in test_acceptance.py, whatever is set here.
jax.config.update("jax_default_matmul_precision", "highest")


def pytest_runtest_setup(item):
  if item.get_closest_marker("several_devices") and jax.device_count() < 8:
    pytest.skip(f"needs 8 devices, and {jax.device_count()} was found")


@pytest.fixture(autouse=True)
def strict_numerics(request):
  if request.node.get_closest_marker("standard_promotion"):
    yield
    return
  with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
    yield


@pytest.fixture
def as_on_an_accelerator(monkeypatch):
  """What is lowered for all platforms but CPU, run here."""
  at_once = lambda *args, default, **_: default(*args)
  monkeypatch.setattr(jax.lax, "platform_dependent", at_once)


@pytest.fixture(params=["cpu", "accelerator"])
def each_way(request):
  """The way of a CPU to gradients of groups, and that of an accelerator."""
  if request.param == "accelerator":
    request.getfixturevalue("as_on_an_accelerator")
