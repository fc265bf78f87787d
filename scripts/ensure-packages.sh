#!/usr/bin/env bash
# Ensures that Debian packages are installed: scripts/ensure-packages.sh libsqlite3-dev libyaml-dev
# Installs the missing ones as root or through sudo. If that is not possible, it lists them and fails.
set -euo pipefail

# Whether the file or command that a package is needed for exists, from the package or from elsewhere.
present() {
    case "$1" in
        libsqlite3-dev) [[ -e /usr/include/sqlite3.h || -e /usr/local/include/sqlite3.h ]] ;;
        libyaml-dev) [[ -e /usr/include/yaml.h || -e /usr/local/include/yaml.h ]] ;;
        python3-venv) python3 -c 'import ensurepip, venv' 2>/dev/null ;;
        chromium-driver) command -v chromedriver >/dev/null ;;
        prometheus) command -v promtool >/dev/null ;;
        systemd) command -v systemd-analyze >/dev/null ;;
        *) command -v "$1" >/dev/null ;;
    esac
}

missing=()
for package in "$@"; do
    present "$package" || missing+=("$package")
done
[[ ${#missing[@]} -gt 0 ]] || exit 0

give_up() {
    echo "error: $1" >&2
    echo "Missing packages: ${missing[*]}" >&2
    echo "On Debian or Ubuntu, run: apt-get install ${missing[*]}" >&2
    exit 1
}

command -v apt-get >/dev/null || give_up "this system has no apt-get."
if [[ $(id -u) -eq 0 ]]; then
    as_root=()
elif command -v sudo >/dev/null && { [[ -t 0 ]] || sudo -n true 2>/dev/null; }; then
    as_root=(sudo)
else
    give_up "installing packages needs root or sudo."
fi

echo "Installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -qq || give_up "apt-get update failed."
"${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" || give_up "apt-get install failed."
