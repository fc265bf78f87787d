"""Runs the real release binary as a separate process, on a free port and with a temporary folder."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BINARY = os.environ.get("REPRISE_BINARY", os.path.join(ROOT, ".build", "release", "reprise"))


def environment(**more):
    """The environment without the settings of the user who runs the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("REPRISE_")}
    return {**kept, **more}


def run(*arguments, **variables):
    """Runs the binary to its end."""
    return subprocess.run([BINARY, *arguments], env=environment(**variables), capture_output=True, text=True, timeout=30)


def race(count, work):
    """Runs `work(0)…work(count - 1)` concurrently, each in a thread; their results."""
    barrier = threading.Barrier(count)

    def run(index):
        barrier.wait()
        return work(index)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


class Server:
    def __init__(self, folder, *flags, variables=None):
        self.folder, self.flags, self.variables = str(folder), flags, variables or {}
        self.database = os.path.join(self.folder, "test.db")
        self.log_path = os.path.join(self.folder, "log")
        self.start()

    def spawn(self):
        """Starts the process, and does not wait until it listens."""
        with open(self.log_path, "a") as log:
            self.process = subprocess.Popen(
                [BINARY, "serve", "--port", "0", "--database", self.database, *self.flags],
                stdout=subprocess.PIPE, stderr=log, text=True, env=environment(**self.variables))

    def start(self):
        self.spawn()
        match = re.fullmatch(r"listening on http://([^:]+):(\d+)\n", self.process.stdout.readline())
        assert match, self.log
        self.host, self.port = match.group(1), int(match.group(2))

    def stop(self, number=signal.SIGTERM, seconds=20):
        """Ends it with a signal; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout=seconds)

    def kill(self):
        """Ends it at once, unless it has ended."""
        self.process.kill()
        self.process.wait()

    def restart(self):
        assert self.stop() == 0
        self.start()

    @property
    def log(self):
        with open(self.log_path) as log:
            return log.read()

    def connect(self):
        return http.client.HTTPConnection(self.host, self.port, timeout=30)

    def socket(self):
        return socket.create_connection((self.host, self.port), timeout=30)

    def request(self, method, path, body=None, headers=None):
        """One request on a new connection: status, header fields, bytes."""
        connection = self.connect()
        try:
            if isinstance(body, (dict, list)):
                body, headers = json.dumps(body), {"Content-Type": "application/json", **(headers or {})}
            connection.request(method, path, body=body, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def json(self, method, path, body=None):
        return json.loads(self.request(method, path, body)[2])

    def query(self, sql):
        """Rows of a query by the sqlite3 command line tool, while the server runs."""
        output = subprocess.run(
            ["sqlite3", "-readonly", self.database, sql], capture_output=True, text=True, check=True, timeout=60).stdout
        return output.split()

    def resident_megabytes(self):
        with open(f"/proc/{self.process.pid}/status") as status:
            return int(re.search(r"VmRSS:\s+(\d+)", status.read()).group(1)) / 1024


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path)
    yield server
    if server.process.poll() is None:
        server.process.kill()
        server.process.wait()


@pytest.fixture
def start(tmp_path):
    """Starts servers with the flags that a test chooses."""
    servers = []

    def start(*flags):
        servers.append(Server(tmp_path, *flags))
        return servers[-1]

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()


def certificate(folder, name="localhost", prefix=""):
    """Makes a self-signed certificate and its key; their paths."""
    paths = str(folder / f"{prefix}cert.pem"), str(folder / f"{prefix}key.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}", "-out", paths[0], "-keyout", paths[1]],
        check=True, capture_output=True)
    return paths
