#!/usr/bin/env bash
# Checks deploy/ as far as that is possible without systemd and Kubernetes: the unit with systemd's own tools, the
# manifests against the schemas of Kubernetes. Tests/EndToEnd/test_deploy.py checks what they say, with the binary.
set -euo pipefail
cd "$(dirname "$0")/.."
# In tenths, of 100. What is left is mostly that the service uses the network.
max_exposure=12
# The oldest version that has what the manifests use, and the newest whose schemas there are.
kubernetes_versions=(1.27 1.37)

fail() { echo "error: $*" >&2; exit 1; }

folder=$(mktemp -d -t reprise-XXXXXX)
trap 'rm -rf "$folder"' EXIT

scripts/ensure-venv.sh
for version in "${kubernetes_versions[@]}"; do
    # Another kind of document would pass with a warning, so there may be none.
    if ! said=$(.venv/bin/kubernetes-validate --quiet --strict --kubernetes-version "$version" \
        deploy/kubernetes/{networkpolicy,secret.example,service,statefulset}.yaml 2>&1) || [[ -n $said ]]; then
        echo "$said" >&2
        fail "a manifest does not fit Kubernetes $version"
    fi
done
echo "manifests: ok with Kubernetes ${kubernetes_versions[*]}"

if ! command -v systemd-analyze >/dev/null; then
    echo "unit: skipped, because it needs systemd-analyze"
    exit 0
fi
# The program need not be installed here, but systemd wants to see one.
program=/usr/local/bin/reprise
grep -q "^ExecStart=$program " deploy/systemd/reprise.service || fail "the unit does not start $program"
sed "s,$program,$(type -P true)," deploy/systemd/reprise.service >"$folder/reprise.service"
systemd-analyze verify --man=no --recursive-errors=no "$folder/reprise.service" >&2 || fail "the unit is not valid"
if ! rating=$(systemd-analyze security --no-pager --offline=true --threshold="$max_exposure" \
    "$folder/reprise.service"); then
    grep '✗' <<<"$rating" >&2
    fail "the unit is more exposed than it was: $(tail -1 <<<"$rating")"
fi
mkdir -p "$folder/root/etc"
systemd-sysusers --root="$folder/root" "$PWD/deploy/systemd/reprise.sysusers" >/dev/null 2>"$folder/log" \
    || { cat "$folder/log" >&2; fail "systemd-sysusers fails"; }
grep -q '^reprise:' "$folder/root/etc/passwd" || fail "systemd-sysusers makes no user named reprise"
echo "unit: ok, $(sed -n '$s/.*: \([0-9.]*\).*/exposure \1/p' <<<"$rating")"
