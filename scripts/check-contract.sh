#!/usr/bin/env bash
# Checks openapi.yaml against OpenAPI 3.1, and the running release binary against openapi.yaml.
# Arguments go to schemathesis: scripts/check-contract.sh --include-path /v1/cache
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/server.sh

scripts/head-operations.py
.venv/bin/openapi-spec-validator openapi.yaml

# The binary embeds the document it was built with; testing it against a different one would be misleading.
trap remove_server EXIT
# The requests make tokens; the first one would close the server to all that follow.
start_server --set authentication=none
curl -fsS "$REPRISE/openapi.yaml" | cmp - openapi.yaml || {
    echo "error: the binary was built with another openapi.yaml; rebuild it" >&2
    exit 1
}

# The values that Tests/Contract/hooks.py uses for every other read.
printf 'RIFF of a kind' | curl -fsS -X PUT --data-binary @- -H 'Content-Type: audio/wav' -H 'Reprise-TTL: none' \
    "$REPRISE/v1/cache/scores/entries/song.wav"
json() { curl -fsS -o /dev/null -X "$1" -H 'Content-Type: application/json' -d "$3" "$REPRISE$2"; }
json PUT /v1/session-templates/melodai '{"defaults": {"auto_generate": false}}'
json PUT /v1/sessions/tab-7 '{"template": "melodai", "ttl_seconds": null, "state": {"song.wav": 1}}'
json POST /v1/sessions/tab-7/history '{"id": "take-7", "data": {"rating": 4}}'

PYTHONDONTWRITEBYTECODE=1 .venv/bin/schemathesis --config-file Tests/Contract/schemathesis.toml \
    run openapi.yaml --url "$REPRISE" --no-color "$@" || {
    grep -E ' (error|critical) ' "$server_folder/log" | tail -20 >&2 || true
    exit 1
}
stop_server
if grep -E ' (error|critical) ' "$server_folder/log"; then
    echo "error: the server logged errors during the test" >&2
    exit 1
fi
