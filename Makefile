# The front door: the same targets for people, hooks and CI. `make` lists them.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=
WORKERS ?= 2

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(VENV)/.installed  ## the environment, exactly as locked

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

run: install  ## the whole loop on real data: ingest, features, train, gates, package, serve, report
	$(BIN)/churn run $(ARGS)

test: install  ## what must hold, in parallel, under 15 minutes on two cores
	$(BIN)/python -m pytest -n $(WORKERS) -m "not slow" $(ARGS)

test-all: install  ## the slow proofs too
	$(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

lint: install  ## style, types, and the order of the rooms
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: install  ## feature building at 0.07, 0.7 and 7 million transactions, beside pandas
	$(BIN)/python -m benchmarks.features $(ARGS)

bench-fit: install  ## the fit beside a bare PyTorch loop; memory and time an epoch up to 2 million rows
	$(BIN)/python -m benchmarks.fit $(ARGS)

bench-quality: install  ## our network and its rivals on the same rows: CDNOW and Telco
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks.quality $(ARGS)

lock:  ## write constraints.txt anew from what pip resolves today
	rm -rf var/lock
	$(PYTHON) -m venv var/lock
	var/lock/bin/python -m pip install --quiet --editable '.[dev]'
	{ echo '# Every package at the version that is tested. Made by `make lock`; do not edit.'; \
	  var/lock/bin/python -m pip freeze --exclude-editable | sed -E 's/\+cpu$$//; s/^torch @ .*/torch==2.13.0/'; } > constraints.txt
	rm -rf var/lock

clean:  ## remove what runs have made (var/); the environment stays
	rm -rf var build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

.PHONY: help install run test test-all lint bench bench-fit bench-quality lock clean
.DEFAULT_GOAL := help
