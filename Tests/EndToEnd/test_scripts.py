"""The scripts that keep files in step fail when they are not."""

import os
import re
import shutil
import subprocess

import pytest

from conftest import ROOT

FILES = [
    "scripts/versions.sh", "scripts/versions.txt", "scripts/head-operations.py", "Package.swift", "Dockerfile",
    "Tests/requirements.txt", "Tests/constraints.txt", "clients/python/tests/requirements.txt",
    "clients/python/tests/constraints.txt", "openapi.yaml", "Package.resolved",
]

# Stands in for the package manager: `package resolve NAME --version VERSION` writes that version.
SWIFT = r"""#!/usr/bin/env bash
[[ $1 == package && $2 == resolve ]] || exit 2
[[ $# -eq 2 ]] && exit 0
[[ $4 == --version ]] || exit 2
sed -i "/\"location\".*\/$3\.git/,/\"version\"/ s/\"version\" : \"[^\"]*\"/\"version\" : \"$5\"/" Package.resolved
"""


@pytest.fixture
def copy(tmp_path):
    """A copy of the repository's files that the scripts read, for the tests to change."""
    for name in FILES:
        os.makedirs(tmp_path / os.path.dirname(name), exist_ok=True)
        shutil.copy(os.path.join(ROOT, name), tmp_path / name)
    return tmp_path


def run(copy, *command):
    return subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=60)


def change(copy, name, pattern, replacement):
    text = (copy / name).read_text()
    changed = re.sub(pattern, replacement, text, count=1)
    assert changed != text
    (copy / name).write_text(changed)


@pytest.mark.parametrize("name, pattern, replacement", [
    ("Package.resolved", r'"version" : "1\.', '"version" : "9.'),
    ("scripts/versions.txt", r"https://\S+nio-http2\S+ .*\n", ""),
    ("Package.swift", r'exact: "1\.', 'from: "1.'),
    ("Package.swift", r'exact: "1\.', 'exact: "9.'),
    ("Tests/requirements.txt", "pytest==", "pytest>="),
    ("Tests/constraints.txt", r"attrs==\S+", "attrs"),
    ("clients/python/tests/requirements.txt", "pytest==", "pytest>="),
    ("clients/python/tests/constraints.txt", r"attrs==\S+", "attrs"),
    ("Dockerfile", r"swift:[0-9.]+-", "swift:6-"),
])
def test_a_version_that_drifts_is_refused(copy, name, pattern, replacement):
    assert run(copy, "scripts/versions.sh", "pin").returncode == 0
    checked = run(copy, "scripts/versions.sh", "check")
    assert checked.returncode == 0, checked.stderr
    change(copy, name, pattern, replacement)
    assert run(copy, "scripts/versions.sh", "check").returncode == 1


def test_a_base_image_may_have_a_digest(copy):
    change(copy, "Dockerfile", r"(FROM debian:\S+)", rf"\1@sha256:{'0a' * 32}")
    checked = run(copy, "scripts/versions.sh", "check")
    assert checked.returncode == 0, checked.stderr
    change(copy, "Dockerfile", r"(FROM swift:\S+)", r"\1@sha256:0a")
    assert run(copy, "scripts/versions.sh", "check").returncode == 1


def test_versions_are_pinned_again(copy, monkeypatch):
    (copy / "bin").mkdir()
    (copy / "bin" / "swift").write_text(SWIFT)
    (copy / "bin" / "swift").chmod(0o755)
    monkeypatch.setenv("PATH", f"{copy}/bin:{os.environ['PATH']}")
    pinned = (copy / "Package.resolved").read_text()
    change(copy, "Package.resolved", r'"version" : "1\.', '"version" : "9.')
    change(copy, "Package.resolved", r'"version" : "2\.', '"version" : "9.')
    repaired = run(copy, "scripts/versions.sh", "pin")
    assert repaired.returncode == 0, repaired.stderr
    assert (copy / "Package.resolved").read_text() == pinned


def test_resolved_versions_are_taken_over(copy):
    change(copy, "Package.resolved", r'"version" : "1\.', '"version" : "9.')
    assert run(copy, "scripts/versions.sh", "write").returncode == 0
    assert " 9." in (copy / "scripts/versions.txt").read_text()


def test_a_head_that_differs_from_its_get_is_refused(copy):
    assert run(copy, "scripts/head-operations.py").returncode == 0
    change(copy, "openapi.yaml", "operationId: headNamespaces", "operationId: headOthers")
    assert run(copy, "scripts/head-operations.py").returncode == 1
    assert run(copy, "scripts/head-operations.py", "--write").returncode == 0
    assert run(copy, "scripts/head-operations.py").returncode == 0


def test_every_mutant_can_be_put_in():
    checked = subprocess.run(
        [os.path.join(ROOT, "scripts", "mutants.py"), "--check"], capture_output=True, text=True, timeout=60)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("file, old, message", [
    ("Sources/A.swift", "let a = 2", "0 times"),
    ("Sources/A.swift", "let", "2 times"),
    ("Sources/B.swift", "let a = 1", "no file"),
])
def test_a_mutant_that_cannot_be_put_in_is_an_error(tmp_path, file, old, message):
    for folder in ("scripts", "Sources", "Tests/Mutants"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy(os.path.join(ROOT, "scripts", "mutants.py"), tmp_path / "scripts")
    (tmp_path / "Sources" / "A.swift").write_text("let a = 1\nlet b = 1\n")
    mutant = '[[mutant]]\nname = "m"\nfile = "{}"\nold = "{}"\nnew = "x"\ntests = "T"\n'
    (tmp_path / "Tests" / "Mutants" / "a.toml").write_text(mutant.format("Sources/A.swift", "let a = 1"))
    assert run(tmp_path, "scripts/mutants.py", "--check").returncode == 0
    (tmp_path / "Tests" / "Mutants" / "b.toml").write_text(mutant.format(file, old))
    checked = run(tmp_path, "scripts/mutants.py", "--check")
    assert checked.returncode == 2 and message in checked.stderr
