#!/usr/bin/env python3
"""Keeps the HEAD operations of openapi.yaml in step with its GETs; docs/design/head-operations.md says why.

Without arguments it checks, and fails with the difference. With --write it updates the file.
"""

import difflib
import os
import re
import sys

CONTRACT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "openapi.yaml")

# These differ from their GETs in more than the body: they ignore Range, and describe a value in their headers.
WRITTEN_BY_HAND = {"/v1/cache/{namespace}/entries/{key}", "/v1/backups/{name}"}


def sections(lines, heading):
    """Splits lines before each one that matches: [(match or None, lines with their heading)]."""
    result = [(None, [])]
    for line in lines:
        if match := re.fullmatch(heading, line):
            result.append((match, []))
        result[-1][1].append(line)
    return result


def head_of(path, get):
    """The HEAD operation of a GET operation, both as lines."""
    fields = {match.group(1): body for match, body in sections(get, r"      (\w+):.*") if match}
    verb, name = re.fullmatch(r" *operationId: ([a-z]+)(\w+)", fields["operationId"][0]).groups()
    if verb not in ("get", "list"):
        sys.exit(f"error: {path}: the operationId of a GET begins with get or list, not with {verb}")
    parameters = fields.get("parameters", [])
    if any(re.search(r"[:-] &", line) for line in parameters):
        sys.exit(f"error: {path}: the parameters of a GET are copied to its HEAD, so they cannot define an anchor")
    has_tag = any(line.startswith("        '304':") for line in fields["responses"])
    return [
        "    head:",
        f"      operationId: head{name}",
        "      summary: Same as GET, without the body",
        *fields["tags"],
        *parameters,
        "      responses:",
        "        '200': {$ref: '#/components/responses/%s'}" % ("HeadEntity" if has_tag else "HeadOK"),
        *(["        '304': {$ref: '#/components/responses/NotModified'}"] if has_tag else []),
        "        4XX: {$ref: '#/components/responses/HeadProblem'}",
        "        5XX: {$ref: '#/components/responses/HeadProblem'}",
    ]


def with_heads(document):
    """The document with the HEAD operations that its GETs imply."""
    written = []
    for part, part_lines in sections(document.split("\n"), r"(\w+):.*"):
        if not part or part.group(1) != "paths":
            written += part_lines
            continue
        for path, path_lines in sections(part_lines, r"  (/\S*):"):
            operations = sections(path_lines, r"    (\w+):.*")
            names = {match.group(1) for match, _ in operations if match}
            by_hand = path is not None and path.group(1) in WRITTEN_BY_HAND
            if by_hand and "head" not in names:
                sys.exit(f"error: {path.group(1)} needs a HEAD written by hand")
            for match, lines in operations:
                name = match.group(1) if match else None
                if name != "head" or by_hand:
                    written += lines
                if name == "get" and not by_hand:
                    written += head_of(path.group(1), lines)
    return "\n".join(written)


def main():
    with open(CONTRACT, encoding="utf-8") as file:
        document = file.read()
    expected = with_heads(document)
    if sys.argv[1:] == ["--write"]:
        with open(CONTRACT, "w", encoding="utf-8") as file:
            file.write(expected)
    elif sys.argv[1:]:
        sys.exit(__doc__)
    elif document != expected:
        sys.stdout.writelines(difflib.unified_diff(
            document.splitlines(True), expected.splitlines(True), "openapi.yaml", "what its GETs imply", n=1))
        sys.exit("error: openapi.yaml's HEAD operations differ from its GETs: run scripts/head-operations.py --write")


if __name__ == "__main__":
    main()
