# `make demo` and `make test` each work on a fresh clone: they make their own virtual environment.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test slow lint docs bench wheel oldest coverage clean

demo: $(VENV)/.bench
	$(BIN)/python -m benchmarks.demo

# Most of a test is compilation. The fast suite compiles cheaply: without LLVM's expensive passes, and with XLA's
# older code generator, which takes half the time. The slow suite compiles as users do.
CHEAP := --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1
define fast
flags="$(CHEAP)"; XLA_FLAGS="$$flags" $(1) -c "import jax; jax.devices()" >/dev/null 2>&1 || flags=""; \
XLA_FLAGS="$$flags" JAX_DISABLE_MOST_OPTIMIZATIONS=1 $(1) -m pytest -m "not slow"
endef

test: $(VENV)/.test lint
	$(call fast,$(BIN)/python) -n 2 --dist loadfile

slow: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.docs
	PYTHONPATH=. $(BIN)/mkdocs build --strict

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks.cost.timed --parts queue

# Tests of all that is public, in a copy without those that need benchmarks, examples, docs or the trial.
NEEDS_THE_TREE := ^(from|import) (benchmarks|docs|examples|gq_optax\.trial)|README\.md
CORE_TOOLS := chex hypothesis orbax-checkpoint pytest scikit-learn

# The built wheel, installed and tested outside the tree.
wheel:
	rm -rf dist build/wheel && $(PYTHON) -m venv build/wheel
	build/wheel/bin/pip install --quiet build
	build/wheel/bin/python -m build --wheel
	build/wheel/bin/pip install --quiet "$$(ls dist/*.whl)[flax]" $(CORE_TOOLS)
	$(call outside,build/wheel)

# The oldest versions that pyproject.toml allows.
oldest:
	rm -rf build/oldest && $(PYTHON) -m venv build/oldest
	build/oldest/bin/pip install --quiet . jax==0.10.0 jaxlib==0.10.0 optax==0.2.6 flax==0.12.7 \
	  chex==0.1.92 pytest==8.3.0 hypothesis==6.100.0 orbax-checkpoint scikit-learn
	$(call outside,build/oldest)

define outside
rm -rf $(1)/outside && mkdir -p $(1)/outside && cp -r tests pyproject.toml $(1)/outside
cd $(1)/outside/tests && rm -rf benchmarks trial && grep -rlE '$(NEEDS_THE_TREE)' . | xargs rm -f
cd $(1)/outside && $(call fast,../bin/python) tests --pyargs gq_optax \
  --ignore-glob '/*/gq_optax/trial/*'  # which needs its extra
endef

# Lines and branches of the library that the fast suite runs.
coverage: $(VENV)/.test
	$(BIN)/python -m pip install --quiet pytest-cov
	$(call fast,$(BIN)/python) -n 2 --dist loadfile \
	  --cov=gq_optax --cov-branch --cov-report=term-missing

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

# The test extra contains the bench extra; a stamp of each keeps the first demo quick to install.
$(VENV)/.bench: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	touch $@

$(VENV)/.test: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@ $(VENV)/.bench

$(VENV)/.docs: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) out dist build site *.egg-info
