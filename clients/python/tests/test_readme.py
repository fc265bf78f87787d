"""Every snippet of the README runs, in its order, as a reader would paste it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Service

README = Path(__file__).resolve().parents[1] / "README.md"
SNIPPET = re.compile(r"^(?:<!-- (\w+) -->\n)?```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def snippets(kind: str) -> list[str]:
    """The Python snippets that are marked with `<!-- kind -->`; "" for those without a mark."""
    found = SNIPPET.findall(README.read_text())
    return [text for mark, language, text in found if language == "python" and mark == kind]


def environment(service: Service, folder: Path) -> dict[str, str]:
    import os

    return {**os.environ, "REPRISE_URL": service.url, "HOME": str(folder),
            "REPRISE_PICKLE_SECRET": "a secret of at least 16 bytes"}


def test_the_snippets_run(service: Service, tmp_path: Path) -> None:
    script = "\n".join(snippets(""))
    assert script.count("\n") > 40
    (tmp_path / "snippets.py").write_text(script)
    ran = subprocess.run([sys.executable, "snippets.py"], cwd=tmp_path, capture_output=True,
                         text=True, env=environment(service, tmp_path), timeout=120)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("number", range(len(snippets("streamlit"))))
def test_the_apps_run(
    service: Service, tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    testing = pytest.importorskip("streamlit.testing.v1")
    for name, value in environment(service, tmp_path).items():
        monkeypatch.setenv(name, value)
    app = testing.AppTest.from_string(snippets("streamlit")[number], default_timeout=60).run()
    assert not app.exception, app.exception
