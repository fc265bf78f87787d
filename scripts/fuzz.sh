#!/usr/bin/env bash
# `make fuzz`: our own parsers under libFuzzer, each for some seconds. What an input breaks is kept in .build/fuzz.
#
# SECONDS_EACH=600 make fuzz explores further; found inputs are kept and used again.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=.build/fuzz
seconds=${SECONDS_EACH:-60}
mkdir -p "$folder"

# C: the text functions of ad-hoc SQL, against those of SQLite.
clang -g -O1 -fsanitize=fuzzer,address,undefined -ISources/CSQLiteSupport/include \
    Tests/Fuzz/bounded_functions_fuzz.c Sources/CSQLiteSupport/*.c -lsqlite3 -o "$folder/functions" 2> "$folder/log" ||
    { cat "$folder/log"; exit 1; }

# Swift: without SwiftPM, because it can instrument neither a single target nor one without a main function.
swift=(swiftc -swift-version 6 -enable-upcoming-feature ExistentialAny -enable-upcoming-feature MemberImportVisibility
    -O -g -sanitize=fuzzer,address -parse-as-library -suppress-warnings)
find Sources/Domain -name '*.swift' -print0 | sort -z |
    xargs -0 "${swift[@]}" -module-name Domain -wmo -emit-module -emit-module-path "$folder/Domain.swiftmodule" \
        -emit-library -static -o "$folder/libDomain.a"
"${swift[@]}" -module-name Fuzz -I "$folder" -L "$folder" -lDomain Tests/Fuzz/ParsersFuzz.swift \
    Sources/HTTPAPI/Requests/{ByteRange,Cursor,HeaderText,PercentEncoding}.swift -o "$folder/parsers"

for target in functions parsers; do
    echo "==> $target, $seconds s"
    mkdir -p "$folder/inputs/$target"
    (cd "$folder" && "./$target" "inputs/$target" "$OLDPWD/Tests/Fuzz/examples" -max_total_time="$seconds" \
        -max_len=600 -print_final_stats=1 -artifact_prefix="broken-$target-" 2> "$target.log") ||
        { tail -60 "$folder/$target.log"; exit 1; }
    grep -E 'stat::(number_of_executed_units|average_exec_per_sec)' "$folder/$target.log"
done
echo "make fuzz: nothing found"
