#!/usr/bin/env bash
# Runs the benchmarks against the release build and prints the tables of README and docs/design. greedy.py, which takes
# ten minutes, and compare.py, which needs a second binary, are run by themselves.
# Needs wrk (Debian package wrk) and python3. Fails if a benchmark is below its threshold.
set -euo pipefail
cd "$(dirname "$0")"
command -v wrk >/dev/null || { echo "wrk is missing: apt-get install wrk" >&2; exit 1; }
echo "$(nproc) cores, $(awk -F: '/model name/ {print $2; exit}' /proc/cpuinfo | xargs), $(uname -sr), load generator on the same machine"
status=0
for measurement in "${@:-throughput startup clearing expiry memory sessions samples lanes sql access idempotency backup}"; do
    for name in $measurement; do
        printf '\n## %s\n\n' "$name"
        python3 "$name.py" || status=1
    done
done
exit $status
