# Everything runs in .venv, which the first target that needs it makes. `make` alone lists what there is to do.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
UV_VERSION := 0.13.9
VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
INSTALLED := $(VENV)/.installed

# In CI a skipped test fails, unless it is marked as one that needs a GPU.
PYTEST := $(PY) -m pytest $(if $(CI),-p tests.ci_plugin)
PROCESSES ?= 2

export UV_HTTP_TIMEOUT ?= 300
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1

.PHONY: help
help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

.PHONY: install
install: $(INSTALLED)  ## make .venv with everything in it (the other targets do so by themselves)

$(INSTALLED): requirements/dev.txt pyproject.toml
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "vlmq needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 …"; exit 1; }
	@test -x $(PY) || { echo "making $(VENV) and installing; this downloads a few gigabytes the first time"; \
		"$(PYTHON)" -m venv $(VENV); }
	@if $(PY) -m pip install --quiet uv==$(UV_VERSION); \
		then $(PY) -m uv pip install --quiet --compile-bytecode --python $(PY) -r requirements/dev.txt; \
		else $(PY) -m pip install --quiet -r requirements/dev.txt; fi
	@$(PY) -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: demo
demo: $(INSTALLED)  ## start the stack, ask about an image and a video, verify a webhook, stop
	@$(PY) -m vlmq.demo

.PHONY: serve
serve: $(INSTALLED)  ## run the one-machine stack until Ctrl-C
	@$(BIN)/vlmq serve

.PHONY: test
test: $(INSTALLED)  ## run the tests
	$(PYTEST) -n $(PROCESSES) --dist loadfile -m "not slow"

.PHONY: lint
lint: $(INSTALLED)  ## check style, format, types and who imports whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: faults
faults: $(INSTALLED)  ## the whole fault run: kill everything, lose nothing (minutes)
	$(PYTEST) tests/faults -m slow

.PHONY: faults-small
faults-small: $(INSTALLED)  ## a small form of the fault run, as CI does it
	$(PYTEST) tests/faults -m "slow and not long"

.PHONY: bench
bench: $(INSTALLED)  ## measure the overhead of the service beside the raw engine
	$(PY) -m bench

.PHONY: checkpoint
checkpoint: $(INSTALLED)  ## train the bundled tiny model again (an hour on a CPU; resumes)
	$(PY) -m checkpoints.train

.PHONY: docs
docs: $(INSTALLED)  ## write the pages of docs/ that follow from the code
	$(PY) -m vlmq.reference

.PHONY: requirements
requirements: $(INSTALLED)  ## pin anew what pyproject.toml asks for
	$(PY) -m uv pip compile --quiet --upgrade --universal --python-version 3.11 --no-annotate --no-header \
		--no-emit-index-url --no-emit-find-links pyproject.toml -o requirements/api.txt
	$(PY) -m uv pip compile --quiet --upgrade --universal --python-version 3.11 --no-annotate --no-header \
		--no-emit-index-url --no-emit-find-links pyproject.toml --extra worker \
		-c requirements/api.txt -o requirements/worker.txt
	$(PY) -m uv pip compile --quiet --upgrade --universal --python-version 3.11 --no-annotate --no-header \
		--no-emit-index-url --no-emit-find-links pyproject.toml --extra worker --extra dev \
		-c requirements/worker.txt -o requirements/dev.txt

.PHONY: clean
clean:  ## delete what the targets made: the environment, caches, the demo's data (never .vlmq, which holds jobs)
	rm -rf $(VENV) .demo .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .grimp_cache \
		build dist *.egg-info
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
