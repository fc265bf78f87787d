#!/usr/bin/env bash
# Runs every test of the Python client against the release binary: types, unit and end-to-end tests, the test suites of
# the libraries that it plugs into. Needs .build/release/reprise, or another binary in REPRISE_BINARY.
set -euo pipefail
cd "$(dirname "$0")/.."
export REPRISE_BINARY=${REPRISE_BINARY:-$PWD/.build/release/reprise}
python=$PWD/.venv-client/bin/python

scripts/ensure-venv.sh client
cd clients/python
"$python" -m mypy
"$python" -m basedpyright --pythonpath "$python" --level error
"$python" -B -m pytest -q -p no:cacheprovider
"$python" -B tests/upstream.py
