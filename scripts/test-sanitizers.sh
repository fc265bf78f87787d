#!/usr/bin/env bash
# `make test-sanitizers`: the Swift tests under ThreadSanitizer and under AddressSanitizer, each built separately. The
# first report of either is a failure.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/steps.sh
trap 'status=$?; [[ $status -eq 0 ]] || echo "make test-sanitizers: FAILED in the step \"$current_step\"" >&2' EXIT

# Everything is ten times as slow, and some tests have deadlines: few tests at once, few power cuts.
export SWT_EXPERIMENTAL_MAXIMUM_PARALLELIZATION_WIDTH=2 REPRISE_POWER_CUT_SCHEDULES=8
export TSAN_OPTIONS="exitcode=66 second_deadlock_stack=1" ASAN_OPTIONS="detect_leaks=0"
for sanitizer in thread address; do
    folder=.build/$sanitizer
    step "build with $sanitizer sanitizer" swift build --build-tests --sanitize="$sanitizer" --scratch-path "$folder"
    step "test with $sanitizer sanitizer" swift test --skip-build --sanitize="$sanitizer" --scratch-path "$folder"
done
print_steps
echo "make test-sanitizers: passed"
