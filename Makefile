# Everything a developer does, one word each. `make` alone lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON_NEEDED := 3.11
# The first of python3 and python3.11 that is the version needed; `make setup PYTHON=…` overrides.
PYTHON ?= $(shell for candidate in python3 python$(PYTHON_NEEDED); do \
	"$$candidate" -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] != "$(PYTHON_NEEDED)")' \
	2>/dev/null && { echo "$$candidate"; break; }; done)

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
UNIT_WORKERS ?= 2
# make check tries a fourth of each property's examples, make test all of them.
EXAMPLES_DIVISOR ?= 4
INTEGRATION_WORKERS ?= 2
TEST_SECONDS_MAX ?= 1200
FAULT_TESTS := tests/e2e/test_quorum.py tests/e2e/test_validators_return.py
KILLS ?= 200
FUZZ_SECONDS ?= 120
FUZZ_SEED ?=
FUZZ_ONLY ?=
SEEDS ?= 200
FIRST ?= 1
SEED ?=
ED25519 ?= 0
LARGE ?= $(SEEDS)
HOURS ?= 8

say_and_fail = { echo "$(1)" >&2; exit 1; }

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# ---------------------------------------------------------------- setting up

.PHONY: setup
setup: $(READY) ## Make .venv with everything pinned by hash (reruns only when the pins change)
	@:

$(READY): requirements/bootstrap.lock requirements/dev.lock pyproject.toml
	@"$(PYTHON)" -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] != "$(PYTHON_NEEDED)")' 2>/dev/null \
		|| $(call say_and_fail,Nocturne needs Python $(PYTHON_NEEDED): install it or name it with 'make setup PYTHON=/path/to/python$(PYTHON_NEEDED)'.)
	@"$(PYTHON)" tools/check_platform.py
	@[ -x $(BIN)/python ] || "$(PYTHON)" -m venv $(VENV) >/dev/null \
		|| { rm -rf $(VENV); $(call say_and_fail,Python's venv module is not usable: install it (Debian: apt-get install python3-venv) and run 'make setup' again.); }
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/bootstrap.lock \
		|| $(call say_and_fail,The pinned installer could not be installed: check the network and run 'make setup' again.)
	@$(BIN)/uv pip sync -q --python $(BIN)/python --require-hashes requirements/dev.lock requirements/bootstrap.lock \
		|| $(call say_and_fail,The pinned packages could not be installed: see the message above and run 'make setup' again.)
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e . \
		|| $(call say_and_fail,The package nocturne could not be installed into $(VENV): see the message above.)
	@touch $@

.PHONY: lock
lock: $(READY) ## Write requirements/*.lock anew from pyproject.toml
	@export UV_CUSTOM_COMPILE_COMMAND="make lock"; \
	compile="$(BIN)/uv pip compile -q --upgrade --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --python-version $(PYTHON_NEEDED)"; \
	$$compile pyproject.toml --extra embedded --extra statistics --extra dev -o requirements/dev.lock; \
	$$compile pyproject.toml --extra statistics -c requirements/dev.lock -o requirements/runtime.lock; \
	$$compile requirements/bootstrap.in -o requirements/bootstrap.lock; \
	$$compile requirements/build.in -c requirements/dev.lock -o requirements/build.lock; \
	$$compile requirements/go.in -o requirements/go.lock
	@if grep -nE '(https?|file)://' requirements/*.lock; then $(call say_and_fail,A lock file names a download address.); fi

.PHONY: proto
proto: $(READY) ## Generate services/nocturne/wire and core/schemas.py from proto/
	@$(BIN)/python tools/generate_schemas.py
	@$(BIN)/python tools/generate_wire.py

.PHONY: fmt
fmt: $(READY) ## Format the code and apply safe fixes
	@$(BIN)/ruff check -q --fix . || true
	@$(BIN)/ruff format -q .

.PHONY: clean
clean: ## Remove what was built (not a home, not the download cache)
	@rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find services tests tools -name __pycache__ -type d -prune -exec rm -rf {} +

# ---------------------------------------------------------------- checking

CHECKS := check-types check-unit check-format check-lint check-imports check-proto check-wire

.PHONY: check $(CHECKS)
check: $(READY) ## Format, lint, types, imports, protos, generated code, unit tests (under 90 s)
	@$(MAKE) -k -j2 --output-sync=target $(CHECKS)
	@echo "make check: all passed"

check-format:
	@$(BIN)/ruff format --check -q . || $(call say_and_fail,Some files are not formatted: run 'make fmt'.)

check-lint:
	@$(BIN)/ruff check -q . || $(call say_and_fail,The linter found what is listed above.)

check-types:
	@$(BIN)/mypy --no-error-summary || $(call say_and_fail,The types do not hold: see the list above.)

check-imports:
	@$(BIN)/lint-imports --no-cache >build-imports.log 2>&1 && rm -f build-imports.log \
		|| { cat build-imports.log; rm -f build-imports.log; $(call say_and_fail,An import crosses a boundary that pyproject.toml draws: see above.); }

check-proto:
	@cd proto && ../$(BIN)/buf lint || $(call say_and_fail,The protos are not lint-clean: see above.)

check-wire:
	@$(BIN)/python tools/generate_schemas.py --check
	@$(BIN)/python tools/generate_wire.py --check

check-unit:
	@NOCTURNE_EXAMPLES_DIVISOR=$(EXAMPLES_DIVISOR) \
		$(BIN)/pytest -q -n $(UNIT_WORKERS) -m "not integration and not slow" tests/unit $(wildcard tests/architecture tests/vectors)

.PHONY: test
test: $(READY) ## Every test; skips are listed with what enables them (under 20 min)
	@mkdir -p build && rm -f build/*.xml
	@timeout $(TEST_SECONDS_MAX) $(BIN)/pytest -q -n $(UNIT_WORKERS) -m "not integration" --junitxml=build/unit.xml \
		|| $(call say_and_fail,A test failed or the time ran out: see above.)
	@timeout $(TEST_SECONDS_MAX) $(BIN)/pytest -q -n $(INTEGRATION_WORKERS) --dist loadfile -m "integration and not long" --junitxml=build/integration.xml \
		|| $(call say_and_fail,An integration test failed or the time ran out: see above.)
	@$(BIN)/python tools/report_tests.py build/*.xml
	@echo "Left for longer runs: make long, make faults, make kills, make hostile, make scale, make fuzz."

.PHONY: tools
tools: $(READY) ## The programs and definitions of others that tests ask, from pinned Go modules (needs Go)
	@$(BIN)/python -m tests.go_tools

.PHONY: long
long: $(READY) ## The tests that 'make test' has no room for
	@mkdir -p build
	@$(BIN)/pytest -q -p no:xdist -m long --ignore tests/hostile --ignore tests/e2e/test_scale.py \
		$(foreach file,$(FAULT_TESTS),--ignore $(file)) --junitxml=build/long.xml

.PHONY: faults
faults: $(READY) ## Validators killed, cut off, lying, away, rolled back; brokers that lose and change records
	@mkdir -p build
	@$(BIN)/pytest -q -p no:xdist -m long --junitxml=build/faults.xml $(FAULT_TESTS)

.PHONY: hostile
hostile: $(READY) ## Ten thousand hostile inputs at each entrance of a running ledger and to each parser
	@mkdir -p build
	@NOCTURNE_HOSTILE_INPUTS=10000 $(BIN)/pytest -q -p no:xdist --junitxml=build/hostile.xml tests/hostile

.PHONY: fuzz
fuzz: $(READY) ## Fuzz every parser for $(FUZZ_SECONDS) seconds; FUZZ_SEED and FUZZ_ONLY replay
	@$(BIN)/python -m tests.hostile.fuzz --seconds $(FUZZ_SECONDS) --only "$(FUZZ_ONLY)" $(if $(FUZZ_SEED),--seed $(FUZZ_SEED))

.PHONY: proofs
proofs: $(READY) ## Check formal/: Coq's proofs and TLC's models (needs Coq: apt-get install coq)
	@$(BIN)/python -m formal

.PHONY: sim
sim: $(READY) ## Simulate $(SEEDS) worlds of validators, $(ED25519) again with real keys; SEED=7 replays one
	@$(BIN)/python -m tests.simulation.run --first $(FIRST) --seeds $(SEEDS) --large $(LARGE) --ed25519 $(ED25519) $(if $(SEED),--seed $(SEED))

.PHONY: nightly
nightly: $(READY) ## Simulate worlds that nobody saw before for $(HOURS) hours
	@$(BIN)/python -m tests.simulation.run --hours $(HOURS)

.PHONY: planted
planted: $(READY) ## Plant bugs, one by one: simulated worlds and unit tests catch each
	@$(BIN)/python -m tests.simulation.planted

.PHONY: traffic
traffic: $(READY) ## Count the messages that a committed block costs among n validators
	@$(BIN)/python -m tests.simulation.traffic

.PHONY: sbom
sbom: $(READY) ## The container image's Python packages, with hashes and licences (CycloneDX)
	@$(BIN)/python tools/sbom.py build/sbom.cdx.json

# ---------------------------------------------------------------- running

.PHONY: demo
demo: $(READY) ## A whole ledger on this machine, shown end to end
	@$(BIN)/python -m nocturne.embedded.demo

.PHONY: bench
bench: $(READY) ## Measure throughput and latency on this machine
	@$(BIN)/python -m bench

.PHONY: kills
kills: $(READY) ## Kill services at random $(KILLS) times and check that nothing was lost
	@mkdir -p build
	@NOCTURNE_KILLS=$(KILLS) $(BIN)/pytest -q -p no:xdist --timeout 3000 --junitxml=build/kills.xml tests/e2e/test_kills.py

.PHONY: scale
scale: $(READY) ## A session of 30 000 events, a ledger of 20 000 sessions
	@mkdir -p build
	@NOCTURNE_SCALE=1 $(BIN)/pytest -q -p no:xdist --junitxml=build/scale.xml tests/e2e/test_scale.py
