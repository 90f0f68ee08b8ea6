# Every target makes .venv by itself; the second run finds it ready.
PYTHON ?= python3
BIN := .venv/bin
SHELL := /bin/bash

.DEFAULT_GOAL := help
.PHONY: help demo test test-all mutants lint bench edge device lock clean

help:  ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

# constraints.txt pins every package, those of the build too; what is installed is in pyproject.toml.
.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "Python 3.10 or newer is needed, got $$($(PYTHON) --version); set PYTHON=…" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	PIP_CONSTRAINT=constraints.txt $(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0
	PIP_CONSTRAINT=constraints.txt $(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: .venv/ready  ## train on digits, test, export one ONNX file, prove that it is the model
	$(BIN)/smx-lightning fit

# A worker a core, which takes from the others when it is done; one process: .venv/bin/pytest.
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal

test: .venv/ready  ## test every feature, in a few minutes
	$(PYTEST)

test-all: .venv/ready  ## run all tests: long grids, hundreds of kills, every runtime that is installed
	$(PYTEST) -m ""

.venv/mutants-ready: .venv/ready
	PIP_CONSTRAINT=constraints.txt $(BIN)/pip install --quiet --disable-pip-version-check --editable '.[mutants]'
	@touch $@

mutants: .venv/mutants-ready  ## change the code here and there: do the tests notice? (hours; docs/mutants.md)
	$(BIN)/python -m benchmarks.mutants $(ARGS)

edge: .venv/edge-ready export/node_modules/ready  ## install the runtimes that the tests try files on

.venv/edge-ready: .venv/ready
	PIP_CONSTRAINT=constraints.txt $(BIN)/pip install --quiet --disable-pip-version-check --editable '.[edge]'
	@touch $@

# onnxruntime-node would download GPU libraries.
export/node_modules/ready: export/package-lock.json
	ONNXRUNTIME_NODE_INSTALL=skip npm ci --no-audit --no-fund --silent --prefix export
	@touch $@

device: .venv/ready  ## install the part that needs no torch elsewhere, and use a file there
	.ci/device

lint: .venv/ready  ## ruff, mypy --strict, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=.:export $(BIN)/lint-imports

.venv/bench-ready: .venv/ready
	PIP_CONSTRAINT=constraints.txt $(BIN)/pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@touch $@

# One after the other: two at once would measure each other.
bench: .venv/bench-ready edge  ## measure against peers (hours); print the tables of benchmarks/README.md
	$(BIN)/python -m benchmarks.minibatch
	$(BIN)/python -m benchmarks.main_job
	$(BIN)/python -m benchmarks.startup
	$(BIN)/python -m benchmarks.shipping
	$(BIN)/python -m benchmarks.targets
	$(BIN)/python -m benchmarks.processes
	$(BIN)/python -m benchmarks.growth
	$(BIN)/python -m benchmarks.streams
	$(BIN)/python -m benchmarks.solvers
	$(BIN)/python -m benchmarks.activations
	$(BIN)/python -m benchmarks.family
	$(BIN)/python -m benchmarks.sklearn_face
	$(BIN)/python -m benchmarks.regimes  # last: it fails where ours is slower than due

lock: .venv/ready  ## pin the newest versions that fit, for every Python and platform
	$(BIN)/pip install --quiet uv
	echo 'torch==2.13.0' | $(BIN)/uv pip compile --quiet --universal --python-version 3.10 \
	  --constraint - --extra dev --extra bench --extra ray --extra edge --extra mutants --no-annotate --no-header \
	  --no-emit-index-url pyproject.toml --output-file constraints.txt

clean:  ## remove .venv and what runs left behind
	rm -rf .venv export/node_modules lightning_logs build dist
