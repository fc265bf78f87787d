#!/usr/bin/env bash
# Checks the Dockerfile as far as that is possible without Docker: the image installs every library the binary links, the
# build stage gets every file it needs, the commands for start and health check work in the image's environment, and, as
# root, the steps of the image lead to a root folder in which the server runs as it does in a container.
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
trap '[[ -z $pid ]] || kill -KILL "$pid" 2>/dev/null || true; rm -rf --one-file-system "$folder"' EXIT
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

# check_server COMMAND...: waits for the server $pid, checks its health with the command and stops it.
check_server() {
    for _ in {1..100}; do [[ -s $folder/out ]] && break; sleep 0.1; done
    "$@" || { cat "$folder/log" >&2; fail "the health check fails with a server"; }
    kill -TERM "$pid"
    wait "$pid" || { cat "$folder/log" >&2; fail "the server ended with exit code $?"; }
    pid=""
}

check_server "$server_binary" health
echo "image steps: ok"

if [[ $(id -u) -ne 0 ]] || ! command -v mmdebstrap >/dev/null; then
    echo "image root: skipped, because it needs root and mmdebstrap"
    exit 0
fi

# The final stage, step by step, in a new root folder with the Debian release of the base images.
root=$folder/root
mmdebstrap --quiet --mode=root --variant=apt --dpkgopt=force-unsafe-io \
    "$(sed -nE 's/^FROM swift:[0-9.]+-([a-z]+).*/\1/p' Dockerfile)" "$root"
variables=() entrypoint="" command="" health="" user="" workdir=""
while read -r instruction rest; do
    words=$(tr -d '[],"' <<<"$rest")
    case "$instruction" in
        RUN) chroot "$root" /bin/sh -c "$rest" >"$folder/log" 2>&1 || { cat "$folder/log" >&2; fail "RUN $rest"; } ;;
        COPY) [[ $rest == "--from=build /out/reprise "* ]] || fail "what does COPY $rest copy?"
            install -D "$server_binary" "$root${rest##* }" ;;
        ENV) read -ra variables <<<"$rest" ;;
        USER) user=$rest ;;
        WORKDIR) workdir=$rest ;;
        HEALTHCHECK) health=${words#*CMD } ;;
        ENTRYPOINT) entrypoint=$words ;;
        CMD) command=$words ;;
        FROM | VOLUME | EXPOSE | STOPSIGNAL | "#"* | "") ;;
        *) fail "the Dockerfile has the instruction $instruction, which this script does not know" ;;
    esac
done < <(awk '/^FROM/ { stage++ } stage == 2' <<<"$steps")
install -D -m 0440 -g "$(chroot "$root" id -g "$user")" "$folder/token" "$root/run/secrets/token"
variables+=(PATH=/usr/local/bin:/usr/bin:/bin REPRISE_ADMIN_TOKEN_FILE=/run/secrets/token "REPRISE_PORT=$REPRISE_PORT")

# in_image COMMAND...: becomes the command, as the image's user, without capabilities, on a read-only root. Only the
# volume can be written to.
in_image() {
    # shellcheck disable=SC2016
    exec unshare --mount bash -ec 'root=$1; shift
        mount --make-rprivate /
        mount --bind "$root" "$root"
        mount --bind "$root/data" "$root/data"
        mount -t proc proc "$root/proc"
        mount -o remount,bind,ro "$root"
        exec chroot "$root" "$@"' in_image "$root" \
        setpriv --reuid="$user" --regid="$user" --clear-groups --bounding-set=-all --no-new-privs \
        env --ignore-environment --chdir="$workdir" "${variables[@]}" "$@"
}

rm -f "$folder/out"
read -ra command <<<"$entrypoint $command"
(in_image "${command[@]}" >"$folder/out" 2>"$folder/log" </dev/null) &
pid=$!
read -ra health <<<"$health"
health() { (in_image "${health[@]}"); }
check_server health
(in_image test -w "$workdir") || fail "the volume cannot be written to"
! (in_image test -w /usr/local/bin) || fail "the root can be written to"
owner=$(stat -c %U:%a "$root/data/reprise.db")
[[ $owner == *:600 ]] || fail "the database has the wrong mode: $owner"
echo "image root: ok"
