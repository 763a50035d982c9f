# Run `make` alone for the list. Every target works from a clean checkout.
PYTHON ?= python3
BIN := .venv/bin
PY := $(BIN)/python
LOCK_FLAGS := --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate

.DEFAULT_GOAL := help

.PHONY: help
help: ## Print this list
	@awk 'BEGIN {FS = ":.*## "; print "make <target>\n"} /^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: install
install: ## Make .venv from the hashed lock, with the checkout in it (a no-op when nothing changed)
	@command -v $(PYTHON) >/dev/null || { echo "install: there is no $(PYTHON): install Python 3.11 or newer." >&2; exit 1; }
	@$(PYTHON) .ci/install.py

.PHONY: check
check: install ## Lint, types and import rules: everything that needs no server
	$(BIN)/ruff check --no-cache .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

.PHONY: test
test: install ## The tests: SQLite, no system package, at most 12 minutes on 2 cores
	$(PY) -m pytest -n 3 --dist loadfile -m "not postgres and not browser and not slow and not containers"

.PHONY: test-containers
test-containers: install ## PostgreSQL, Temporal, S3 and the compose file in containers; brings an engine along (root, Debian)
	.ci/images/wheels.sh
	.ci/engine.sh $(PY) -m pytest -m containers

.PHONY: test-all
test-all: install ## Every test that this machine can run; writes a dated result to docs/results/
	$(PY) .ci/test_all.py

.PHONY: bench
bench: install ## Measure against the bare work; writes bench/results/<date>.json
	$(PY) -m bench

.PHONY: demo
demo: install ## The whole way of a site on this machine, each live page shown, then all stopped
	$(BIN)/headway demo

.PHONY: up
up: install ## Run the platform here until Ctrl-C
	$(BIN)/headway up

.PHONY: compose-secrets
compose-secrets: install ## Make the secrets of docker-compose.yml in ./secrets; what is there stays
	$(BIN)/headway make-secrets "$${HEADWAY_SECRETS:-secrets}"

.PHONY: compose-up
compose-up: ## Build the image and start docker-compose.yml; settings in .env, secrets in ./secrets
	docker compose up --build --detach --wait

.PHONY: compose-down
compose-down: ## Stop docker-compose.yml; its volumes stay
	docker compose down

.PHONY: compose-demo
compose-demo: install ## What `make demo` does, on docker-compose.yml in an engine of its own (root, Debian)
	.ci/images/wheels.sh
	.ci/engine.sh $(PY) -m tests.containers.demo

.PHONY: lock
lock: install ## Resolve the dependencies again, into both lock files
	$(BIN)/uv pip compile pyproject.toml --extra dev $(LOCK_FLAGS) --output-file requirements-dev.lock
	$(BIN)/uv pip compile pyproject.toml --constraint requirements-dev.lock $(LOCK_FLAGS) --output-file requirements.lock

.PHONY: docs
docs: install ## Write the tables of docs/ from the code (errors, settings, commands, routes)
	$(PY) docs/generate.py

.PHONY: history
history: install ## Record the replay corpus of workflow histories (tests/replay/histories)
	$(PY) -m tests.replay.record

.PHONY: wheel
wheel: install ## Build the wheel into dist/
	$(PY) .ci/wheel.py build

.PHONY: wheel-check
wheel-check: install ## Build the wheel, install it outside the checkout, and deploy a site with it
	$(PY) .ci/wheel.py check

.PHONY: clean
clean: ## Remove what the other targets made, .venv included
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
