#!/usr/bin/env bash
# `make test`: installs what is missing, builds, and runs every test. Stops at the first step that fails.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/steps.sh
trap 'status=$?; [[ $status -eq 0 ]] || { print_steps; echo "make test: FAILED in the step \"$current_step\"" >&2; }' EXIT

# All tests at once would need more than 2,000 open files and threads; many systems allow 1,024 files.
export SWT_EXPERIMENTAL_MAXIMUM_PARALLELIZATION_WIDTH=16
export REPRISE_BINARY="$PWD/.build/release/reprise"

step "packages" scripts/ensure-packages.sh libsqlite3-dev libyaml-dev sqlite3 curl openssl python3 python3-venv
# Tests that need these say so, and are skipped if they cannot be installed.
step "optional tools" optional scripts/ensure-packages.sh chromium chromium-driver prometheus systemd mmdebstrap
step "toolchain" scripts/ensure-swift.sh
step "Python tools" scripts/ensure-venv.sh
step "deployment" scripts/check-deploy.sh
step "pinned versions" scripts/versions.sh pin
step "release build" swift build -c release --static-swift-stdlib --product reprise
step "test build" swift build --build-tests
step "resolved versions" scripts/versions.sh check
step "swift test" swift test --skip-build
step "end to end" .venv/bin/python -B -m pytest -q -p no:cacheprovider Tests/EndToEnd
step "Python client" scripts/test-client.sh
step "contract" scripts/check-contract.sh
step "tour of the README" scripts/run-tour.sh
step "image" scripts/check-image-steps.sh

print_steps
echo "make test: passed"
