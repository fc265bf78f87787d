# Everything that people and CI do with this project. `make help` lists it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

BINARY := .build/release/reprise
# Flags of `reprise serve`: make run ARGS="--port 9000 --log-level debug"
ARGS ?=

.PHONY: help
help: ## Lists the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup:
	@scripts/ensure-packages.sh libsqlite3-dev libyaml-dev
	@scripts/ensure-swift.sh
	@scripts/versions.sh pin

.PHONY: build
build: setup ## Builds the release binary, .build/release/reprise
	swift build -c release --static-swift-stdlib --product reprise

.PHONY: run
run: build ## Builds and serves on http://127.0.0.1:8080; flags go into ARGS
	@exec $(BINARY) serve $(ARGS)

.PHONY: test
test: ## Runs every test: unit, storage, HTTP, end to end, contract, tour
	@scripts/test.sh

.PHONY: test-client
test-client: build ## Runs every test of the Python client
	@scripts/ensure-packages.sh python3 python3-venv
	@scripts/test-client.sh

.PHONY: wheel
wheel: ## Builds the Python client as a wheel and an sdist, in .build/wheels
	@scripts/ensure-packages.sh python3 python3-venv
	@scripts/ensure-venv.sh client
	@.venv-client/bin/python -m build --no-isolation --outdir .build/wheels clients/python

.PHONY: bench-client
bench-client: build ## Measures the Python client beside redis-py, diskcache, Streamlit's disk storage and pickle files
	@scripts/ensure-packages.sh python3 python3-venv redis-server
	@scripts/ensure-venv.sh client
	@.venv-client/bin/python -B Benchmarks/http_libraries.py
	@.venv-client/bin/python -B Benchmarks/client.py

.PHONY: bench
bench: build ## Runs the benchmarks against the release binary
	@scripts/ensure-packages.sh wrk python3
	Benchmarks/run.sh

.PHONY: test-faults
test-faults: build ## Kills the release binary 50 times in the middle of writes, and checks what is left
	@scripts/ensure-packages.sh sqlite3 python3 python3-venv
	@scripts/ensure-venv.sh
	@.venv/bin/python -B Tests/Faults/kill_rounds.py $(ARGS)

.PHONY: test-disk
test-disk: build ## Fills the disk of the release binary, and prints what then works; needs root
	@scripts/ensure-packages.sh sqlite3 python3 python3-venv
	@scripts/ensure-venv.sh
	@.venv/bin/python -B Tests/Faults/full_disk.py

.PHONY: test-week
test-week: build ## Runs the release binary for a week in ten minutes, with its clock accelerated
	@scripts/ensure-packages.sh sqlite3 python3 python3-venv gcc
	@scripts/ensure-venv.sh
	@.venv/bin/python -B Tests/Faults/week.py $(ARGS)

.PHONY: test-sanitizers
test-sanitizers: setup ## Runs the Swift tests under ThreadSanitizer and AddressSanitizer; builds everything for each
	@scripts/test-sanitizers.sh

.PHONY: fuzz
fuzz: setup ## Runs our own parsers under libFuzzer, a minute each; SECONDS_EACH=600 for longer
	@scripts/fuzz.sh

.PHONY: mutants
mutants: setup ## Applies defects to a copy one by one and lists those that no test notices; flags go into ARGS
	scripts/mutants.py $(ARGS)

.PHONY: outdated
outdated: ## Lists dependencies that have a newer version
	@scripts/versions.sh outdated

.PHONY: clean
clean: ## Removes build products and tools; the database in data/ stays
	rm -rf .build .venv .venv-client
