"""Uploads that are not finished: what they may take together, and that it is given back."""

import json
import os
import re
import socket
import time

MEGABYTE = 1024 * 1024
EACH = 8 * MEGABYTE
# A chunk and a half.
SENT = 98_304


class Upload:
    """A PUT whose body stops arriving."""

    def __init__(self, server, key, source):
        self.socket = socket.create_connection((server.host, server.port), timeout=30, source_address=(source, 0))
        head = f"PUT /v1/cache/n/entries/{key} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {EACH}\r\n\r\n"
        try:
            self.socket.sendall(head.encode() + b"x" * SENT)
        except OSError:
            pass  # Refused already.

    def answer(self, seconds):
        """The status, if there is one by then."""
        self.socket.settimeout(seconds)
        try:
            return int(self.socket.recv(4096).split()[1])
        except TimeoutError:
            return None

    def close(self):
        self.socket.close()


def wait_until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it did not happen")


def unfinished(server):
    metrics = server.request("GET", "/metrics")[2].decode()
    return float(re.search(r"\nreprise_uploads_unfinished_bytes (\S+)", metrics)[1])


def test_unfinished_uploads_are_bounded(server):
    """What is announced counts, so that those that are accepted can also be finished."""
    uploads = [Upload(server, f"k{number}", f"127.0.0.{1 + number // 80}") for number in range(120)]
    answers = [upload.answer(0.05) for upload in uploads]
    going = answers.count(None)
    assert set(answers) == {None, 503}
    # One address has half of it at most; the next one still gets something.
    assert 30 <= answers[:80].count(None) <= 64
    assert answers[80:].count(None) >= 20
    assert going * EACH <= 1024 * MEGABYTE
    wait_until(lambda: unfinished(server) >= going * 65536)
    assert unfinished(server) <= going * SENT
    # Small values are not affected.
    assert server.request("PUT", "/v1/cache/n/entries/small", b"v")[0] == 201
    for upload in uploads:
        upload.close()
    wait_until(lambda: unfinished(server) == 0 and server.query("SELECT count(*) FROM cache_chunks") == ["0"])
    assert server.request("PUT", "/v1/cache/n/entries/large", b"x" * EACH)[0] == 201


def test_a_limit_holds_over_http(start):
    limit = 64 * MEGABYTE
    server = start("--set", f"max_database_bytes={limit}")
    value = os.urandom(MEGABYTE)
    for number in range(100):
        assert server.request("PUT", f"/v1/cache/n/entries/k{number}", value)[0] == 201
        assert sum(os.stat(server.database + suffix).st_size for suffix in ("", "-wal")) <= limit
    assert server.request("GET", "/v1/cache/n/entries/k99")[2] == value
    assert json.loads(server.request("GET", "/v1/cache/n/entries/k0")[2])["reason"] == "evicted"
    status, _, body = server.request("PUT", "/v1/cache/n/entries/never", b"", {"Content-Length": str(limit)})
    assert status == 413 and b"max_database_bytes" in body
    # A limit that is too low is refused with what it must be.
    status, _, body = server.request("PATCH", "/v1/config", {"max_database_bytes": 1000})
    assert status == 422 and b"67108864" in body
    assert server.request("PATCH", "/v1/config", {"max_database_bytes": 0})[0] == 200
