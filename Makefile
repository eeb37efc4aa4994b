# make demo       install, make a phantom dataset, run both levels, compare with the truth
# make demo-fast  the same on a coarse phantom, in a few minutes
# make test       all tests but the slow ones
# make speed-check  compare the cost of the main methods with what is recorded
# make test-slurm   those that start a Slurm of their own; test-slurm-fast: the short ones of them

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= demo
NPROCS ?= $(shell nproc)
PYTEST_OPTIONS ?=
READY := $(VENV)/.qsmflow-installed

.PHONY: help install demo demo-fast test test-slow test-slurm test-slurm-fast speed-check lint docs descriptor constraints clean

help:
	@sed -n 's/^# //p' Makefile

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test]'
	touch $@

install: $(READY)

demo: PHANTOM_OPTIONS ?= --voxel-size 1.5
demo: RUN_OPTIONS ?=
demo: run-demo

demo-fast: PHANTOM_OPTIONS ?= --small
demo-fast: RUN_OPTIONS ?=
demo-fast: DEMO := $(DEMO)/fast
demo-fast: run-demo

.PHONY: run-demo
run-demo: $(READY)
	rm -rf '$(DEMO)/dataset' '$(DEMO)/results'
	$(BIN)/qsmflow-phantom '$(DEMO)/dataset' $(PHANTOM_OPTIONS)
	$(BIN)/qsmflow '$(DEMO)/dataset' '$(DEMO)/results' participant -w '$(DEMO)/work' \
	  --nprocs $(NPROCS) $(RUN_OPTIONS)
	$(BIN)/qsmflow '$(DEMO)/dataset' '$(DEMO)/results' group -w '$(DEMO)/work'
	$(BIN)/python tools/compare_with_truth.py '$(DEMO)/dataset' '$(DEMO)/results'
	@for report in '$(DEMO)'/results/*.html; do echo "report: $$(realpath "$$report")"; done

test: $(READY)
	$(BIN)/python -m pytest -m 'not slow and not slurm' -n $(NPROCS) --dist worksteal $(PYTEST_OPTIONS)

test-slow: $(READY)
	$(BIN)/python -m pytest -m 'slow and not slurm' -n $(NPROCS) --dist worksteal $(PYTEST_OPTIONS)

test-slurm-fast: $(READY)
	$(BIN)/python -m pytest -m 'slurm and not slow' tests/cluster $(PYTEST_OPTIONS)

test-slurm: $(READY)
	$(BIN)/python -m pytest -m slurm tests/cluster $(PYTEST_OPTIONS)

speed-check: $(READY)
	$(BIN)/python benchmarks/speed.py --sizes 0.02 --threads 1 --no-memory --no-compare \
	  --only background/pdf background/vsharp inversion/tv inversion/rts chain/fast chain/default \
	  --check benchmarks/recorded.json --factor 3

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

docs: $(READY)
	$(BIN)/python tools/make_docs_tables.py

descriptor: $(READY)
	$(BIN)/python -m qsmflow.cli.descriptor > descriptor.json.new
	mv descriptor.json.new descriptor.json

constraints: $(READY)
	$(BIN)/python tools/make_constraints.py > constraints.txt.new
	mv constraints.txt.new constraints.txt

clean:
	rm -rf '$(DEMO)' build dist .pytest_cache .ruff_cache
