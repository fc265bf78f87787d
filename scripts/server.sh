# Sourced by scripts that need a running server with its own empty database.

server_binary=${REPRISE_BINARY:-$PWD/.build/release/reprise}
server_folder=""
server_pid=""

# start_server [FLAG...]: starts a server and sets REPRISE to its address. The folder is kept for a second start.
start_server() {
    [[ -n $server_folder ]] || server_folder=$(mktemp -d -t reprise-XXXXXX)
    : >"$server_folder/out"
    # This variable is the scripts' own. The server would warn that it is not a setting.
    env -u REPRISE_BINARY "$server_binary" serve --port "${server_port:-0}" --database "$server_folder/data/reprise.db" "$@" \
        >"$server_folder/out" 2>>"$server_folder/log" </dev/null &
    server_pid=$!
    for _ in {1..100}; do
        if [[ -s $server_folder/out ]]; then
            REPRISE=$(sed -n 's/^listening on //p' "$server_folder/out")
            server_port=${REPRISE##*:}
            export REPRISE
            return 0
        fi
        kill -0 "$server_pid" 2>/dev/null || break
        sleep 0.1
    done
    echo "error: the server did not start:" >&2
    cat "$server_folder/log" >&2
    return 1
}

# stop_server: stops the server, and fails unless it ends with exit code 0.
stop_server() {
    local pid=$server_pid
    server_pid=""
    kill -TERM "$pid"
    wait "$pid" || { echo "error: the server ended with exit code $?" >&2; cat "$server_folder/log" >&2; return 1; }
}

# remove_server: kills the server and removes its folder; for `trap … EXIT`.
remove_server() {
    if [[ -n $server_pid ]]; then
        kill -KILL "$server_pid" 2>/dev/null || true
        wait "$server_pid" 2>/dev/null || true
    fi
    if [[ -n $server_folder ]]; then rm -rf "$server_folder"; fi
}
