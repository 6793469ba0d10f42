# Every command we type. `make` alone lists them; what stands behind `##` is the list.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/sh

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --require-hashes --no-deps --no-compile -q

# An environment is made once per Python version and set of pinned requirements; the names of these stamps say which.
# Looked up only when a target needs them, so that `make` alone works without Python.
PYTHON_VERSION = $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
MADE = $(VENV)/.made-$(PYTHON_VERSION)
RUNTIME = $(VENV)/.runtime-$(shell cksum < requirements.txt | tr -d ' ')
DEV = $(VENV)/.dev-$(shell cksum < requirements-dev.txt | tr -d ' ')

.PHONY: help
help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  Settings: .env.example, docs/settings.md. For example: PORT=9000 make run"

.PHONY: run
run: runtime ## Start Switchboard on http://127.0.0.1:8000 (PORT=, BIND=); Ctrl-C stops it
	@exec $(BIN)/python manage.py run

.PHONY: test
test: dev ## Run every test: on SQLite and on PostgreSQL, with a real Redis and a real browser
	@$(BIN)/python -m tests full $(ARGS)

.PHONY: quick
quick: dev ## Run the fast tests on SQLite, in less than a minute (ARGS="-k name" for fewer)
	@$(BIN)/python -m tests quick $(ARGS)

.PHONY: check
check: dev ## Lint, format, types, templates, migrations, Django's deployment checks
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet . || { echo "make fmt formats these files"; $(BIN)/ruff format --check .; exit 1; }
	@$(BIN)/djlint --lint --quiet templates
	@$(BIN)/mypy --no-error-summary .
	@var=$$(mktemp -d) && trap 'rm -rf "$$var"' EXIT && export VAR_DIR="$$var" PUBLIC_ORIGIN=https://switchboard.example \
		&& $(BIN)/python manage.py makemigrations --check --dry-run \
		&& $(BIN)/python manage.py check --deploy --fail-level WARNING
	@echo "All checks passed"

.PHONY: bench
bench: dev ## Measure /v1 beside the upstream called directly (BENCH_LITELLM=, BENCH_PORTKEY=, ARGS=--quick; bench/README.md)
	@$(BIN)/python -m bench.gateway $(ARGS)

.PHONY: fmt
fmt: dev ## Format the code and fix what the linter can fix
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

.PHONY: lock
lock: dev ## Compile requirements*.txt from pyproject.toml, with hashes
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
		pyproject.toml -o requirements.txt
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
		pyproject.toml --group dev -c requirements.txt -o requirements-dev.txt
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
		--group install -o requirements-pip.txt

.PHONY: setup-link
setup-link: runtime ## Print a fresh one-time link for the first account
	@$(BIN)/python manage.py setup_link

.PHONY: superuser
superuser: runtime ## Create an administrator by hand
	@$(BIN)/python manage.py createsuperuser

.PHONY: migrations
migrations: dev ## Write migrations for changed models
	@$(BIN)/python manage.py makemigrations

.PHONY: shell
shell: runtime ## A Python prompt with Django loaded
	@$(BIN)/python manage.py shell

.PHONY: runtime dev
runtime: $(RUNTIME)
dev: $(DEV)

$(VENV)/.made-%:
	@test -n "$(PYTHON_VERSION)" || { echo "Switchboard needs Python 3.11 or newer: install python3." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Switchboard needs Python 3.11 or newer; this is $(PYTHON_VERSION). Try: make run PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null \
		|| { echo "Python's venv module is missing here: install the package python3-venv." >&2; exit 1; }
	@rm -rf $(VENV)/.made-*
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) -r requirements-pip.txt
	@touch $@

$(VENV)/.runtime-%:
	@$(MAKE) --no-print-directory $(MADE)
	@echo "Installing what Switchboard needs into $(VENV) (once) …"
	@$(PIP) -r requirements.txt
	@rm -f $(VENV)/.runtime-* && touch $@

$(VENV)/.dev-%:
	@$(MAKE) --no-print-directory $(MADE)
	@echo "Installing what the tests and checks need into $(VENV) (once) …"
	@$(PIP) -r requirements-dev.txt
	@rm -f $(VENV)/.dev-* $(VENV)/.runtime-* && touch $@ $(RUNTIME)
