#!/usr/bin/env bash
# Runs the tour of README.md against a fresh server: every command must succeed and print what the README says.
# scripts/run-tour.sh --write puts what they really print into the README instead.
set -euo pipefail
cd "$(dirname "$0")/.."
exec python3 scripts/tour.py "$@"
