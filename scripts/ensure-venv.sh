#!/usr/bin/env bash
# Makes .venv with the tools of Tests/requirements.txt, unless it has them already.
set -euo pipefail
cd "$(dirname "$0")/.."
requirements=Tests/requirements.txt

if cmp -s "$requirements" .venv/requirements.txt && .venv/bin/python -c '' 2>/dev/null; then exit 0; fi
rm -rf .venv
python3 -m venv .venv
.venv/bin/pip install --quiet --disable-pip-version-check -r "$requirements"
cp "$requirements" .venv/requirements.txt
