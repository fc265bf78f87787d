"""The house rules that can be checked from the text of the files."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
CONTRIBUTING = PROJECT.parents[1] / "CONTRIBUTING.md"
SOURCES = sorted(path for path in (PROJECT / "src").rglob("*.py"))
FILES = SOURCES + sorted((PROJECT / "tests").rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_a_file_is_tidy(path: Path) -> None:
    text = path.read_text()
    described = ast.get_docstring(ast.parse(text)) or text.startswith("# ")
    assert described, "its docstring, or a first comment, says what the file is for"
    long = [number for number, line in enumerate(text.splitlines(), 1) if len(line) > 100]
    assert not long, f"lines of more than 100 columns: {long}"
    unowned = "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X"))
    assert not re.search(rf"\b({unowned})\b", text)


def test_contributors_find_every_file() -> None:
    text = CONTRIBUTING.read_text()
    table = text[text.index("| **The Python client** |"):text.index("## The path of a request")]
    unlisted = []
    for path in SOURCES:
        name = str(path.relative_to(PROJECT / "src" / "reprise_client"))
        folder = f"`clients/python/src/reprise_client/{name.rpartition('/')[0]}/`"
        if (len(path.read_text().splitlines()) > 60 and name != "__init__.py"
                and f"`{name}`" not in table and folder not in table):
            unlisted.append(name)
    assert not unlisted, f"not in the table of CONTRIBUTING.md: {unlisted}"
    named = re.findall(r"`([\w/]+\.py)`", table)
    missing = [name for name in named
               if not (PROJECT / "src" / "reprise_client" / name).exists()
               and not (CONTRIBUTING.parent / name).exists()]
    assert not missing, f"in the table of CONTRIBUTING.md, but not there: {missing}"


def test_a_bound_is_defined_once() -> None:
    text = (PROJECT / "src" / "reprise_client" / "limits.py").read_text()
    names = re.findall(r"^([A-Z_]+)\b.*=", text, re.MULTILINE)
    assert len(names) > 10
    assert sorted(names) == sorted(set(names))
