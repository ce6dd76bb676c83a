# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The rooms of the library: who may use whom, and what the core needs to be installed."""

import ast
import pathlib
import subprocess
import sys

import pytest

import gq_optax

PACKAGE = pathlib.Path(gq_optax.__file__).parent
ROOMS = ("_grad_queue", "_rarity", "_group_gradients")
# What a room may import of another: K-means and embeddings, and nothing else.
SHARED = {"_rarity.kmeans", "_rarity.embeddings", "_group_gradients.GroupGradients"}
TOOLS = {"_axes", "_boxes", "_dtypes", "_masks", "_validate", "_group_gradients", "_losses"}
TOP = {p.stem for p in PACKAGE.glob("_*.py")} - {"__init__"}


def imports(path):
  """Every module of the package that a file imports, such as `_rarity.kmeans` or `_validate`."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from (n.name.removeprefix("gq_optax.") for n in node.names if "gq_optax" in n.name)
    elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "gq_optax":
      inside = node.module.split(".")[1:]
      for name in node.names:
        is_module = len(inside) < 2 and inside != ["trial"] and not (inside and inside[0] in TOP)
        yield ".".join([*inside, name.name] if is_module else inside)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_uses_no_other_but_kmeans_and_embeddings(room):
  files = sorted((PACKAGE / room).glob("*.py"))
  assert len(files) > 3
  for path in files:
    for name in imports(path):
      own_or_shared = name.startswith(f"{room}.") or name in SHARED
      assert own_or_shared or name in TOOLS, (path, name)


def test_a_room_says_what_it_is_for_and_names_its_files():
  for room in (*ROOMS, "trial"):
    text = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text()))
    assert 5 <= len(text.splitlines()) <= 16
    for path in (PACKAGE / room).glob("[a-z]*.py"):
      assert f"`{path.stem}`" in text, path


def test_nothing_but_the_package_is_needed_to_import_the_core():
  """Flax, plots and metrics belong to extras; the trial is never imported by the core."""
  code = (
    "import sys, gq_optax as gq; gq.grad_queue; loaded = {m.split('.')[0] for m in sys.modules};"
    "extra = loaded & {'flax', 'matplotlib', 'sklearn', 'rich', 'tyro', 'mlxtend'};"
    "assert not extra, extra; assert not [m for m in sys.modules if 'gq_optax.trial' in m]"
  )
  subprocess.run([sys.executable, "-c", code], check=True)
  for path in PACKAGE.rglob("*.py"):
    if "trial" not in path.parts:
      assert not [name for name in imports(path) if name.split(".")[0] == "trial"], path
    assert "benchmarks" not in path.read_text().replace("`benchmarks", ""), path
