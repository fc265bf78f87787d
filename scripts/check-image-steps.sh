#!/usr/bin/env bash
# Checks the Dockerfile as far as that is possible without Docker: the image installs every library the binary links, the
# build stage gets every file it needs, and the commands for start and health check work in the image's environment.
set -euo pipefail
cd "$(dirname "$0")/.."
server_binary=${REPRISE_BINARY:-$PWD/.build/release/reprise}

fail() { echo "error: $*" >&2; exit 1; }

# The packages that a stage installs.
packages_of() {
    awk -v stage="$1" '/^FROM/ { count++ } count == stage && /apt-get install/ { print }' Dockerfile \
        | sed 's/.*--no-install-recommends//; s/\\$//'
}

# The Debian package of each library the binary links. libc6 and libgcc-s1 are in every Debian image.
package_of() {
    case "$1" in
        libc.so.6 | libm.so.6 | libdl.so.2 | libpthread.so.0 | librt.so.1 | libresolv.so.2 | ld-linux-*) echo libc6 ;;
        libgcc_s.so.1) echo libgcc-s1 ;;
        libstdc++.so.6) echo libstdc++6 ;;
        libsqlite3.so.0) echo libsqlite3-0 ;;
        libyaml-0.so.2) echo libyaml-0-2 ;;
        *) return 1 ;;
    esac
}

installed=" $(packages_of 2) libc6 libgcc-s1 "
linked=" "
while read -r library; do
    package=$(package_of "$library") || fail "the binary links $library; install its package in the Dockerfile and add it to package_of"
    [[ $installed == *" $package "* ]] || fail "the binary links $library, but the image does not install $package"
    [[ $linked == *" $package "* ]] || linked+="$package "
done < <(LC_ALL=C readelf -d "$server_binary" 2>/dev/null | sed -n 's/.*Shared library: \[\(.*\)\].*/\1/p')
[[ $linked != " " ]] || fail "no libraries found in $server_binary"
for package in $(packages_of 2); do
    [[ $linked == *" $package "* ]] || fail "the image installs $package, which the binary does not link"
done
echo "libraries:$linked"
! ldd "$server_binary" | grep 'not found' || fail "a library is missing on this machine"

# .dockerignore admits every file that the build stage copies, and the build stage creates exactly the test folders of
# the manifest.
for path in Package.swift Sources Migrations openapi.yaml scripts/versions.sh scripts/versions.txt; do
    grep -qx "!$path" .dockerignore || fail ".dockerignore keeps $path out"
    [[ -e $path ]] || fail "$path is missing"
done
targets=$(sed -nE -e '/\.testTarget\(/,/\)/ s/.*name: "([A-Za-z]+Tests)".*/\1/p' \
    -e 's|.*path: "Tests/([A-Za-z]+)".*|\1|p' Package.swift)
[[ $targets == *TestSupport* && $targets == *DomainTests* ]] || fail "the targets of the tests were not found in Package.swift"
# A line that ends in a backslash continues on the next one.
steps=$(sed -e :join -e '/\\$/{N;s/\\\n *//;b join' -e '}' Dockerfile)
for target in $targets; do
    grep -qE "for name in [^;]*\b$target\b" <<<"$steps" || fail "Package.swift has the target $target, which the Dockerfile does not create"
done

# The health check and the stop as in the image: settings from the environment, no arguments except the command.
folder=$(mktemp -d -t reprise-XXXXXX)
pid=""
trap '[[ -z $pid ]] || kill -KILL "$pid" 2>/dev/null || true; rm -rf "$folder"' EXIT
unset REPRISE_BINARY
export REPRISE_HOST=0.0.0.0 REPRISE_DATABASE="$folder/reprise.db" REPRISE_PORT
unset REPRISE_ADMIN_TOKEN REPRISE_AUTHENTICATION
REPRISE_PORT=$(python3 -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')
if "$server_binary" health 2>/dev/null; then fail "the health check succeeds without a server"; fi
if "$server_binary" serve 2>/dev/null; then fail "the image starts without a token"; fi
printf 'a token for this check\n' >"$folder/token"
export REPRISE_ADMIN_TOKEN_FILE="$folder/token"
(cd / && exec "$server_binary" serve >"$folder/out" 2>"$folder/log" </dev/null) &
pid=$!
for _ in {1..100}; do [[ -s $folder/out ]] && break; sleep 0.1; done
"$server_binary" health || { cat "$folder/log" >&2; fail "the health check fails with a server"; }
kill -TERM "$pid"
wait "$pid" || fail "the server ended with exit code $?"
pid=""
echo "image steps: ok"
