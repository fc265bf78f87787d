#!/usr/bin/env bash
# Runs the tour of README.md against a new server: every command must succeed and print what the README shows.
# scripts/run-tour.sh --write puts the real output into the README instead.
set -euo pipefail
cd "$(dirname "$0")/.."
exec python3 scripts/tour.py "$@"
