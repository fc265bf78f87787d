"""What a full disk does: the release binary on a tmpfs of 24 MB that its cache, and then other files, fill up.

Prints what was acknowledged, refused and lost, how many removals work on the full disk, whether the server starts there,
and how long it takes to recover. Fails if an acknowledged write is lost, or if a removal or a start fails.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "EndToEnd"))

import conftest  # noqa: E402

MEGABYTE = 1 << 20
SMALL = 2_000


class Server(conftest.Server):
    """Its log is on another disk."""

    def __init__(self, folder, log_path):
        self.folder, self.flags, self.variables = folder, (), {}
        self.database = os.path.join(folder, "test.db")
        self.log_path = log_path
        self.start()

    def put(self, key, size):
        return self.request("PUT", f"/v1/cache/n/entries/{key}", key.encode().ljust(size, b"."),
                            {"Reprise-TTL": "none"})[0]


def free(folder):
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def fill(folder):
    """Other files take what is left."""
    with open(os.path.join(folder, "ballast"), "ab", buffering=0) as file:
        for size in (65_536, 512):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                pass


def write_until_full(server, rows):
    """All writes that were acknowledged until 300 in a row were refused."""
    stored, refused = [], 0
    for number in range(1_000_000):
        status = server.put(f"k{number:06}", SMALL)
        if status == 201:
            stored.append(f"k{number:06}")
        elif status == 507:
            refused += 1
            if refused == 300:
                break
        else:
            raise SystemExit(f"PUT was answered {status}")
    rows.append(("writes acknowledged / refused with 507", f"{len(stored):,} / {refused}"))
    return stored


def lost(server, keys):
    return sum(server.request("GET", f"/v1/cache/n/entries/{key}")[2] != key.encode().ljust(SMALL, b".")
               for key in keys)


def recovery(server):
    """Seconds until writes are accepted."""
    began = time.monotonic()
    while server.request("GET", "/health/ready")[0] != 200 or server.put("again", 100) not in (201, 204):
        if time.monotonic() - began > 60:
            raise SystemExit("the server does not recover")
        time.sleep(0.05)
    return time.monotonic() - began


def run(folder, log_path):
    rows, failures = [], []

    def check(name, value, is_right):
        rows.append((name, value))
        if not is_right:
            failures.append(name)

    server = Server(folder, log_path)
    try:
        examine(server, folder, rows, check)
    finally:
        server.kill()
    return rows, failures


def examine(server, folder, rows, check):
    stored = write_until_full(server, rows)
    check("acknowledged and lost", str(lost(server, stored)), lost(server, stored) == 0)
    fill(folder)
    check("free after other files have filled the disk", f"{free(folder)} bytes", free(folder) < 4096)
    check("GET /health/ready then", str(server.request("GET", "/health/ready")[0]),
          server.request("GET", "/health/ready")[0] == 503)
    check("lines of the log since the start", str(len(server.log.splitlines())), len(server.log.splitlines()) < 20)
    for name, end in (("SIGTERM", signal.SIGTERM), ("SIGKILL", signal.SIGKILL)):
        server.stop(end)
        fill(folder)
        began = time.monotonic()
        server.start()
        rows.append((f"starts on the full disk after {name}", f"{time.monotonic() - began:.2f} s"))
    half = len(stored) // 2
    fill(folder)
    answers = [server.request("DELETE", f"/v1/cache/n/entries/{key}")[0] for key in stored[:half]]
    check("single removals that work", f"{answers.count(204):,} of {half:,}", answers.count(204) == half)
    status = server.request("DELETE", "/v1/cache/n/entries?prefix=k")[0]
    check("clear by prefix", str(status), status == 200)
    runs = server.json("POST", "/v1/maintenance/cleanup", {})["tasks"]
    errors = [each for each in runs if each.get("error")]
    check("background tasks that fail", f"{len(errors)} of {len(runs)}", not errors)
    rows.append(("writes accepted again after", f"{recovery(server):.2f} s"))
    rows.append(("free then", f"{free(folder) / MEGABYTE:.1f} MiB"))
    sound = server.query("PRAGMA integrity_check; PRAGMA foreign_key_check")
    check("integrity_check and foreign_key_check", sound[0], sound == ["ok"])


def main():
    with tempfile.TemporaryDirectory() as base:
        folder = os.path.join(base, "disk")
        os.mkdir(folder)
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder],
                                 capture_output=True, text=True)
        if mounted.returncode != 0:
            raise SystemExit(f"a tmpfs is needed, and only root may mount one: {mounted.stderr.strip()}")
        try:
            rows, failures = run(folder, os.path.join(base, "log"))
        finally:
            subprocess.run(["umount", "-l", folder], check=False)
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"| {name.ljust(width)} | {value.rjust(18)} |")
    if failures:
        raise SystemExit(f"failed: {', '.join(failures)}")


main()
