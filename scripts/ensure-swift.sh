#!/usr/bin/env bash
# Ensures that there is a Swift toolchain, which cannot be installed from Debian's packages.
set -euo pipefail
oldest="6.2"  # swift-tools-version of Package.swift

if ! command -v swift >/dev/null; then
    echo "error: no Swift toolchain was found on the PATH." >&2
    echo "Reprise is built with Swift 6.3. Install it from https://www.swift.org/install/linux/," >&2
    echo "or build the image, which includes its own: docker compose up --build" >&2
    exit 1
fi
version=$(swift --version 2>/dev/null | sed -nE 's/.*Swift version ([0-9]+\.[0-9]+).*/\1/p' | head -1)
if [[ $(printf '%s\n%s\n' "$oldest" "${version:-0}" | sort -V | head -1) != "$oldest" ]]; then
    echo "error: Swift ${version:-of an unknown version} is too old; Reprise needs $oldest or newer, and is tested with 6.3." >&2
    exit 1
fi
