#!/usr/bin/env bash
# Keeps every dependency at the version it was tested with: scripts/versions.sh pin|check|write|outdated
#   pin       resolves every package to the version in scripts/versions.txt
#   check     fails if anything is resolved to, or requires, a version other than the tables say
#   write     writes the resolved versions to scripts/versions.txt, after an intended update
#   outdated  lists dependencies that have a newer version; needs the network
set -euo pipefail
cd "$(dirname "$0")/.."
table=scripts/versions.txt
resolved=Package.resolved

fail() { echo "error: $*" >&2; exit 1; }

# The packages of the table: URL, version.
packages() { grep -v '^#' "$table"; }

# The same of Package.resolved, in the order of the table.
resolved_packages() {
    awk -F '"' '
        $2 == "location" { url = $4 }
        $2 == "version" && $4 { print url, $4 }
    ' "$resolved" | LC_ALL=C sort
}

is_pinned() { [[ -e $resolved ]] && cmp -s <(packages) <(resolved_packages); }

# By version and not by commit, so that a mirror with different commits works as well.
pin() {
    is_pinned && return
    swift package resolve >&2
    local url version name
    while read -r url version; do
        name=$(basename "$url" .git)
        swift package resolve "$name" --version "$version" >&2
    done < <(comm -23 <(packages) <(resolved_packages))
    is_pinned || check
}

check() {
    [[ -e $resolved ]] || fail "$resolved is missing; run scripts/versions.sh pin, then build"
    diff -U0 --label "$table" --label "$resolved" <(packages) <(resolved_packages) >&2 || fail \
        "a package is resolved to another version than $table says. To go back: scripts/versions.sh pin;" \
        "to keep the new versions: scripts/versions.sh write"
    local url requirement version
    while IFS='|' read -r url requirement; do
        version=$(packages | awk -v url="$url" '$1 == url { print $2 }')
        [[ $requirement == "exact: \"$version\""* ]] \
            || fail "Package.swift asks for $url $requirement; it must be exact: \"$version\", as in $table"
    done < <(sed -nE 's/^ *\.package\(url: "([^"]+)", ([^)]*)\).*/\1|\2/p' Package.swift)
    ! grep -nvE '^(#.*|-c constraints\.txt|[A-Za-z0-9_.-]+==[^ ]+)$' {Tests,clients/python/tests}/{requirements,constraints}.txt >&2 \
        || fail "a Python package is not pinned with =="
    ! grep -nE '^FROM ' Dockerfile | grep -vE ':[0-9]+\.[0-9]+(\.[0-9]+)?-[a-z]+(@sha256:[0-9a-f]{64})?( |$)' >&2 \
        || fail "a base image in the Dockerfile has no exact tag"
}

write() {
    [[ -e $resolved ]] || fail "$resolved is missing; run swift package resolve"
    local new
    new=$(grep '^#' "$table"; resolved_packages)
    printf '%s\n' "$new" >"$table"
}

# newest_tag URL PATTERN: the highest version among the tags that match; fails if the server cannot be reached.
newest_tag() {
    local tags
    tags=$(GIT_TERMINAL_PROMPT=0 timeout 30 git ls-remote --tags --refs "$1" 2>/dev/null) || return 1
    sed -nE "s,.*refs/tags/$2\$,\\1,p" <<<"$tags" | sort -V | tail -1
}

outdated() {
    local url version newest count=0 unreachable=()
    while read -r url version; do
        if ! newest=$(newest_tag "$url" 'v?([0-9]+\.[0-9]+\.[0-9]+)'); then
            unreachable+=("$url")
        elif [[ -n $newest && $(printf '%s\n%s\n' "$newest" "$version" | sort -V | tail -1) != "$version" ]]; then
            echo "$url: $version, newest $newest"
            count=$((count + 1))
        fi
    done < <(packages)

    version=$(sed -nE 's/^FROM swift:([0-9.]+)-.*/\1/p' Dockerfile)
    if ! newest=$(newest_tag https://github.com/swiftlang/swift.git 'swift-([0-9.]+)-RELEASE'); then
        unreachable+=("https://github.com/swiftlang/swift.git")
    elif [[ -n $newest && $newest != "$version" ]]; then
        echo "Dockerfile: swift $version, newest $newest"
        count=$((count + 1))
    fi
    echo "Dockerfile: $(sed -nE 's/^FROM (debian:[^ @]+).*/\1/p' Dockerfile) is to be compared by hand: https://hub.docker.com/_/debian"

    local python=.venv/bin/python list
    if [[ ! -x $python ]]; then
        echo "Python tools: not compared; run scripts/ensure-venv.sh first"
    elif ! list=$("$python" -m pip list --outdated --format json 2>/dev/null); then
        unreachable+=("the Python package index")
    else
        while read -r line; do
            echo "$line"
            count=$((count + 1))
        done < <("$python" -c '
import json, re, sys
pinned = dict(re.findall(r"^([\w.-]+)==(.*)$", open("Tests/requirements.txt").read(), re.M))
for package in json.loads(sys.argv[1]):
    if package["name"] in pinned:
        print("Tests/requirements.txt: {name} {version}, newest {latest_version}".format(**package))' "$list")
    fi

    echo "$count newer versions found"
    if [[ ${#unreachable[@]} -gt 0 ]]; then
        echo "Not compared, because they could not be reached: ${unreachable[*]}"
    fi
}

case "${1:-}" in
    pin | check | write | outdated) "$1" ;;
    *) sed -n '2,6s/^# //p' "$0" >&2; exit 64 ;;
esac
