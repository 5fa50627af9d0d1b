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
.PHONY: help run demo test chaos faults drill bench bench-full profile lint lock reference clean prerequisites environment \
	test-environment peers-environment

help: ## Say what there is
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'

# exec: a shell between would take a SIGTERM for itself and leave the pipeline behind.
run: environment ## Start the whole pipeline here, in the foreground; Ctrl-C stops it
	@exec $(BIN)/python -m deploy.local

demo: environment ## Send a realistic day of a small fleet and show what became of it
	@$(BIN)/python -m deploy.local.demo $(ARGS)

# Programs in Go that check what is in deploy/. Without Go or the network the tests that need them are skipped.
TOOLS := .tools/bin
HELM_VERSION := v3.19.2
COMPOSE_GO_VERSION := v2.16.2
.PHONY: tools
tools: ## Build with Go what checks the chart and the compose file; make test does it too
	@mkdir -p $(TOOLS)
	@test -x $(TOOLS)/helm-$(HELM_VERSION) || $(MAKE) -s tool \
		NAME=helm-$(HELM_VERSION) BUILT=helm PACKAGE=helm.sh/helm/v3/cmd/helm@$(HELM_VERSION)
	@test -x $(TOOLS)/compose-go-$(COMPOSE_GO_VERSION) || $(MAKE) -s tool \
		NAME=compose-go-$(COMPOSE_GO_VERSION) BUILT=cmd PACKAGE=github.com/compose-spec/compose-go/v2/cmd@$(COMPOSE_GO_VERSION)

.PHONY: tool
tool:
	@command -v go >/dev/null || { echo "No Go: $(NAME) is not built, and tests that need it are skipped"; exit 0; }; \
	echo "Building $(NAME), once"; \
	GOBIN=$(abspath $(TOOLS)) timeout 600 go install $(PACKAGE) && mv $(TOOLS)/$(BUILT) $(TOOLS)/$(NAME) || \
		echo "$(NAME) cannot be built here: tests that need it are skipped"

# It measures CPU time; what other tests do to the caches of the same cores is no step's fault.
ALONE := tests/unit/bench/test_gate.py
test: test-environment tools $(SDK_MODULES) ## Pass all tests; ARGS="tests/unit -k name" for some
	$(BIN)/python -m deploy.local.jars
	$(BIN)/python -m pytest -n 2 --no-loadscope-reorder $(or $(ARGS),--ignore $(ALONE))
	$(if $(ARGS),,$(BIN)/python -m pytest $(ALONE))

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

# An hour of health first: make faults ARGS="--healthy-s 3600"; some faults only: ARGS="--only 'kafka_stops bad_release'"
faults: test-environment ## Break what alerts must name, under a real Prometheus; ARGS="--healthy-s 3600"
	$(BIN)/python -m deploy.local.jars
	@exec $(BIN)/python -m tests.faults $(ARGS)

drill: test-environment ## Back up a pipeline under load, destroy it, restore it, count; ARGS="--rate 1000 --load 20"
	$(BIN)/python -m deploy.local.jars
	@exec $(BIN)/python -m tests.drill $(ARGS)

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

lint: test-environment ## Check style, types and security
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/bandit -q -c pyproject.toml -r midstream ingest processors serve schemas deploy

LOCK := $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-header --group build
# What make run needs beside the processes; not in the container image.
ONLY_LOCAL := chdb chdb-core supervisor
lock: test-environment ## Lock the newest dependencies that pyproject.toml allows
	$(LOCK) pyproject.toml --output-file requirements.lock
	$(LOCK) pyproject.toml --output-file requirements-test.lock --extra test --constraint requirements.lock
	$(LOCK) --group peers --output-file requirements-peers.lock
	$(LOCK) pyproject.toml --output-file requirements-image.lock --extra postgres --constraint requirements.lock \
		$(addprefix --no-emit-package ,$(ONLY_LOCAL))

reference: test-environment ## Write docs/settings.md, docs/metrics.md and Grafana's dashboards from the code
	@$(BIN)/python -m midstream.reference docs
	@$(BIN)/python -m deploy.grafana

clean: ## Remove what was installed and built here; data and secrets stay
	rm -rf $(VENV) $(PEERS_VENV) .bench .chaos deploy/local/kafka/libs deploy/local/kafka/libs.new *.egg-info build $(SDK)/node_modules
	rm -rf .tools .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

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
