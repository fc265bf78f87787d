#!/usr/bin/env bash
# Creates a virtual environment with pinned tools, unless it is up to date: scripts/ensure-venv.sh [tools|client]
#   tools   .venv, with Tests/requirements.txt, for the tests of the service (default)
#   client  .venv-client, with clients/python/tests/requirements.txt and the client itself, installed as editable
set -euo pipefail
cd "$(dirname "$0")/.."

# ensure FOLDER REQUIREMENTS_FOLDER [PIP ARGUMENTS...]
ensure() {
    local folder=$1 lists=$2
    shift 2
    wanted() { cat "$lists/requirements.txt" "$lists/constraints.txt"; }
    if cmp -s <(wanted) "$folder/requirements.txt" && "$folder/bin/python" -c '' 2>/dev/null; then return; fi
    rm -rf "$folder"
    python3 -m venv "$folder"
    "$folder/bin/pip" install --quiet --disable-pip-version-check -r "$lists/requirements.txt" "$@"
    wanted >"$folder/requirements.txt"
}

case "${1:-tools}" in
    tools) ensure .venv Tests ;;
    client) ensure .venv-client clients/python/tests -c clients/python/tests/constraints.txt --editable clients/python ;;
    *) sed -n '2,4s/^# //p' "$0" >&2; exit 64 ;;
esac
