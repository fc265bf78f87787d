#!/usr/bin/env bash
# Creates .venv with the tools of Tests/requirements.txt, unless it is up to date.
set -euo pipefail
cd "$(dirname "$0")/.."
installed=.venv/requirements.txt

wanted() { cat Tests/requirements.txt Tests/constraints.txt; }

if cmp -s <(wanted) "$installed" && .venv/bin/python -c '' 2>/dev/null; then exit 0; fi
rm -rf .venv
python3 -m venv .venv
.venv/bin/pip install --quiet --disable-pip-version-check -r Tests/requirements.txt
wanted >"$installed"
