"""Runs the release binary for the tests: a fresh service with a database of its own."""

from __future__ import annotations

import os
import re
import signal
import ssl
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from reprise_client import Client

ROOT = Path(__file__).resolve().parents[3]
BINARY = os.environ.get("REPRISE_BINARY", str(ROOT / ".build" / "release" / "reprise"))


class Service:
    """One process of the service. It can be ended, killed, held and started again, always at the
    same port."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.folder, self.flags, self.port = folder, flags, 0
        self.process: subprocess.Popen[str] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        kept = {name: value for name, value in os.environ.items()
                if not name.startswith("REPRISE_")}
        with open(self.folder / "log", "a") as log:
            self.process = subprocess.Popen(
                [BINARY, "serve", "--port", str(self.port), "--database",
                 str(self.folder / "test.db"), *self.flags],
                stdout=subprocess.PIPE, stderr=log, text=True, env=kept)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        match = re.fullmatch(r"listening on http://[^:]+:(\d+)\n", line)
        assert match, (line, (self.folder / "log").read_text())
        self.port = int(match.group(1))

    def hold(self) -> None:
        """Stops the process without ending it: it accepts connections and answers nothing."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        # Until then it may still answer.
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)

    def go_on(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            self.process.wait(20)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(20)


@pytest.fixture(autouse=True)
def no_settings_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps `REPRISE_URL` and the like of whoever runs the tests out of them."""
    for name in list(os.environ):
        if name.startswith("REPRISE_") and name != "REPRISE_BINARY":
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def shared_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for all tests that only need names of their own."""
    service = Service(tmp_path_factory.mktemp("service"))
    yield service
    service.stop()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A service that the test may end, kill or hold."""
    folder = tmp_path / "service"
    folder.mkdir()
    service = Service(folder)
    yield service
    service.stop()


@pytest.fixture
def client(shared_service: Service) -> Iterator[Client]:
    with Client(shared_service.url, timeout=10) as client:
        yield client


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return f"t-{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `certificate.pem`, for localhost, and `key.pem`."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=DNS:localhost", "-keyout", folder / "key.pem", "-out",
         folder / "certificate.pem"], check=True, capture_output=True, timeout=60)
    return folder


def tls(folder: Path) -> ssl.SSLContext:
    """What a server needs to use the `certificate`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    return context
