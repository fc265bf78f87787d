# Sourced by scripts that run in steps: prints each step and how long it took.

step_report=""
current_step=""

# step NAME COMMAND...: runs a command under a heading. If it fails, the script ends (set -e).
step() {
    local name=$1 started=$SECONDS
    shift
    current_step=$name
    printf '\n==> %s\n' "$name"
    "$@"
    local line
    line=$(printf '%5d s  %s' $((SECONDS - started)) "$name")
    step_report+="$line"$'\n'
    printf '<== %s: %d s\n' "$name" $((SECONDS - started))
}

print_steps() {
    printf '\n%s%5d s  in total\n' "$step_report" "$SECONDS"
}

# Runs a command that may fail; if it does, says so and continues.
optional() {
    "$@" || echo "continuing without: $*"
}
