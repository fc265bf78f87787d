"""Starts the release binary on a fresh database and talks to it. Shared by the measurements."""

import http.client
import json
import os
import re
import signal
import subprocess
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BINARY = os.environ.get("REPRISE_BINARY", os.path.join(ROOT, ".build", "release", "reprise"))


class Server:
    """A running server. Its folder is removed with it unless `folder` is given."""

    def __init__(self, folder=None, *flags):
        self._temporary = None if folder else tempfile.TemporaryDirectory(prefix="reprise-bench-")
        self.folder = folder or self._temporary.name
        self._flags = flags
        self.log = ""
        self.start()

    def start(self):
        """Starts the process. Returns the seconds until it announced that it listens."""
        self._errors = open(os.path.join(self.folder, "log"), "w+")
        began = time.perf_counter()
        self.process = subprocess.Popen(
            [BINARY, "serve", "--port", "0", "--database", self.database, *self._flags],
            stdout=subprocess.PIPE, stderr=self._errors, text=True)
        line = self.process.stdout.readline()
        seconds = time.perf_counter() - began
        match = re.match(r"listening on http://([^:]+):(\d+)", line)
        if not match:
            raise SystemExit(f"the server did not start: {open(self._errors.name).read()}")
        self.host, self.port = match.group(1), int(match.group(2))
        return seconds

    @property
    def database(self):
        return os.path.join(self.folder, "bench.db")

    @property
    def url(self):
        return f"http://{self.host}:{self.port}"

    def connect(self):
        return http.client.HTTPConnection(self.host, self.port, timeout=60)

    def stop(self):
        """Stops it with SIGTERM; its log is kept in `log`."""
        if self._errors.closed:
            return
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(timeout=60)
        self._errors.seek(0)
        self.log = self._errors.read()
        self._errors.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
        if self._temporary:
            self._temporary.cleanup()

    def processor_seconds(self):
        """What the process has used so far."""
        with open(f"/proc/{self.process.pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_megabytes(self):
        with open(f"/proc/{self.process.pid}/status") as status:
            return int(re.search(r"VmRSS:\s+(\d+)", status.read()).group(1)) / 1024

    def fill(self, namespace, count, size=64, ttl=None):
        """Stores `count` entries `key-0…` through the batch endpoint."""
        connection = self.connect()
        value = "x" * size
        for start in range(0, count, 1000):
            operations = [
                {"op": "set", "key": f"key-{i}", "json": value, "ttl_seconds": ttl}
                for i in range(start, min(start + 1000, count))
            ]
            request(connection, "POST", f"/v1/cache/{namespace}/batch", json.dumps({"operations": operations}))
        connection.close()


def request(connection, method, path, body=None, headers=None, expect=(200, 201, 204)):
    """One request on a persistent connection; the answer's bytes."""
    headers = dict(headers or {})
    if isinstance(body, str):
        headers.setdefault("Content-Type", "application/json")
    connection.request(method, path, body=body, headers=headers)
    response = connection.getresponse()
    data = response.read()
    if response.status not in expect:
        raise SystemExit(f"{method} {path}: {response.status} {data[:300]!r}")
    return data


def percentile(values, share):
    """The nearest-rank percentile of a list."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-len(ordered) * share // 100) - 1))]
