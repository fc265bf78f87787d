#!/usr/bin/env bash
# Checks the Python client: its types, its unit and end-to-end tests, and the test suites of the libraries that it has
# adapters for. Needs .build/release/reprise, or another release binary in REPRISE_BINARY.
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
