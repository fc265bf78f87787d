"""The wheel and the sdist have what they should have, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(PROJECT)],
        check=True, capture_output=True)
    return folder


def test_the_wheel_is_the_package(built: Path) -> None:
    wheel = next(built.glob("*.whl"))
    assert wheel.name.endswith("-py3-none-any.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "reprise_client/py.typed" in names
    sources = {str(path.relative_to(PROJECT / "src"))
               for path in (PROJECT / "src").rglob("*.py") if "__pycache__" not in path.parts}
    assert {name for name in names if name.endswith(".py")} == sources
    assert all(name.startswith(("reprise_client/", "reprise_client-")) for name in names)


def test_the_sdist_has_its_tests(built: Path) -> None:
    names = tarfile.open(next(built.glob("*.tar.gz"))).getnames()
    inside = {name.partition("/")[2] for name in names}
    assert {"README.md", "CHANGELOG.md", "pyproject.toml", "tests/conftest.py"} <= inside
    assert not any("__pycache__" in name or "build/" in name for name in inside)


def test_the_wheel_works_alone(built: Path, tmp_path: Path) -> None:
    """In an environment with nothing but what the wheel says that it needs."""
    import httptools

    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    folders = [next(built.glob("*.whl")), Path(httptools.__file__).parents[1]]
    only = tmp_path / "only"
    only.mkdir()
    (only / "httptools").symlink_to(folders[1] / "httptools")
    script = ("import reprise_client; client = reprise_client.Client('http://127.0.0.1:9')\n"
              "from reprise_client import AsyncClient, optimization_utils\n"
              "print(reprise_client.__version__)")
    said = subprocess.run([python, "-c", script], capture_output=True, text=True,
                          env={"PYTHONPATH": f"{folders[0]}:{only}"})
    assert said.returncode == 0, said.stderr
