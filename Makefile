# Midstream on one machine. `make help` says what there is.

VENV := .venv
# Where the programs live that make bench measures us against.
PEERS_VENV := .venv-peers
# The first Python that is new enough; prerequisites.py says so if there is none.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && exit; \
	done; echo python3)
BIN := $(VENV)/bin

# Arguments for pytest: make test ARGS="tests/unit -k receipt"; and for the demo: make demo ARGS="--seed 2"
ARGS ?=

SDK := tests/integration/sdk
SDK_MODULES := $(if $(wildcard $(SDK)/package-lock.json),$(SDK)/node_modules/.package-lock.json)

.DEFAULT_GOAL := help
.PHONY: help run demo test chaos bench bench-full profile lint lock reference clean prerequisites environment \
	test-environment peers-environment

help: ## Say what there is
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-14s %s\n", $$1, $$2 }'

# exec: a shell between would take a SIGTERM for itself and leave the pipeline behind.
run: environment ## Start the whole pipeline here, in the foreground; Ctrl-C stops it
	@exec $(BIN)/python -m deploy.local

demo: environment ## Send a realistic day of a small fleet and show what became of it
	@$(BIN)/python -m deploy.local.demo $(ARGS)

test: test-environment $(SDK_MODULES) ## Pass all tests; ARGS="tests/unit -k name" for some
	$(BIN)/python -m deploy.local.jars
	$(BIN)/python -m pytest -n 2 --no-loadscope-reorder $(ARGS)

# What make chaos runs: make chaos CASE="kill_store freeze_store" SEEDS="1 2" EVENTS=20000 FRESH=1 KEEP=1
CASE ?=
SEED ?=
SEEDS ?= $(or $(SEED),1 2 3)
EVENTS ?=
FRESH ?=
KEEP ?=
chaos: test-environment ## Break the pipeline on purpose and count; CASE= SEED= EVENTS= FRESH=1 KEEP=1
	$(BIN)/python -m deploy.local.jars
	@exec $(BIN)/python -m tests.chaos --case "$(CASE)" --seeds "$(SEEDS)" $(if $(EVENTS),--events $(EVENTS)) \
		$(if $(FRESH),--fresh) $(if $(KEEP),--keep) $(ARGS)

# Some parts only, fewer runs: make bench ARGS="--only cpu,limits --runs 1 --events 20000"
bench: test-environment peers-environment ## Measure all parts but the soak; ARGS="--only cpu,latency --runs 1"
	$(BIN)/python -m deploy.local.jars
	@exec $(BIN)/python -m bench $(ARGS)

bench-full: test-environment peers-environment ## The same with 100 million events stored, and ten minutes of load
	$(BIN)/python -m deploy.local.jars
	@exec $(BIN)/python -m bench --full $(ARGS)

STAGE ?= validate
SECONDS ?= 15
profile: test-environment ## Record a stage under load as a flame graph; STAGE=store SECONDS=15
	$(BIN)/python -m deploy.local.jars
	@exec $(BIN)/python -m bench.profile $(STAGE) --seconds $(SECONDS) $(ARGS)

lint: test-environment ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

LOCK := $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-header --group build
lock: test-environment ## Lock the newest dependencies that pyproject.toml allows
	$(LOCK) pyproject.toml --output-file requirements.lock
	$(LOCK) pyproject.toml --output-file requirements-test.lock --extra test --constraint requirements.lock
	$(LOCK) --group peers --output-file requirements-peers.lock

reference: environment ## Write docs/settings.md and docs/metrics.md from the code
	@$(BIN)/python -m midstream.reference docs

clean: ## Remove what was installed and built here; data in .midstream stays
	rm -rf $(VENV) $(PEERS_VENV) .bench deploy/local/kafka/libs deploy/local/kafka/libs.new *.egg-info build $(SDK)/node_modules
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis

prerequisites:
	@command -v $(PYTHON) >/dev/null || { \
		echo "midstream: Python 3.11 or newer is needed; there is no python3 in PATH."; \
		echo "  Debian, Ubuntu:  sudo apt-get install python3 python3-venv"; \
		echo "  macOS:           brew install python@3.13"; exit 1; } >&2
	@$(PYTHON) deploy/local/prerequisites.py

environment: prerequisites
	@$(PYTHON) deploy/local/environment.py --venv $(VENV) --lock requirements.lock

test-environment: prerequisites
	@$(PYTHON) deploy/local/environment.py --venv $(VENV) --lock requirements-test.lock

peers-environment: prerequisites
	@$(PYTHON) deploy/local/environment.py --venv $(PEERS_VENV) --lock requirements-peers.lock

$(SDK)/node_modules/.package-lock.json: $(SDK)/package-lock.json
	cd $(SDK) && npm ci --no-audit --no-fund
	touch $@
