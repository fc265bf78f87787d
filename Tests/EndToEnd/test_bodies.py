"""JSON bodies and memory: what some callers hold back or overdo leaves the others their service."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

MIB = 1024 * 1024


def announced(server, path, total, sent):
    """A connection that announces a body of `total` bytes and sends the first `sent`."""
    connection = server.socket()
    head = (f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {total}\r\n\r\n")
    body = b'{"samples": [' + b" " * (sent - 13)
    connection.sendall(head.encode() + body)
    return connection


def state(size):
    """A PUT of a session whose state takes about `size` bytes."""
    values = {f"key-{index}": "x" * 200_000 for index in range(size // 200_000)}
    return {"state": values} if values else {"state": {"key": "x" * size}}


def test_bodies_that_are_held_back_keep_nobody_out(server):
    held = [announced(server, "/v1/samples", 8 * MIB, 8 * MIB - 1) for _ in range(8)]
    try:
        for index, size in enumerate([100, 60_000, 100_000, 1_000_000, 4_000_000]):
            assert server.request("PUT", f"/v1/sessions/s{index}", state(size))[0] in (200, 201), size
        assert server.request("PUT", "/v1/cache/n/entries/k", b"v" * 8 * MIB)[0] == 201
        operations = [{"op": "set", "key": str(index), "json": "x" * 1000} for index in range(1000)]
        assert server.request("POST", "/v1/cache/n/batch", {"operations": operations})[0] == 200
    finally:
        for connection in held:
            connection.close()


def test_many_bodies_at_once_are_refused_not_kept(server):
    """Thirty times 8 MiB, all but complete: those that find no room are told so at once, and the rest is served."""
    held = [announced(server, "/v1/samples", 8 * MIB, 8 * MIB - 1) for _ in range(30)]
    try:
        assert server.request("PUT", "/v1/sessions/s", state(60_000))[0] == 201
        assert server.resident_megabytes() < 500
    finally:
        for connection in held:
            connection.close()


def test_lists_of_zeros_take_little_memory(server):
    """16 MiB that would be 8 million values: refused as they are parsed, four at a time."""
    server.request("PUT", "/v1/cache/n/entries/k", b"v")
    before = server.resident_megabytes()
    zeros = b",".join([b"0"] * (8 * MIB - 100))
    bodies = [
        b'{"operations": [' + zeros + b"]}",
        b'{"operations": [{"op": "set", "key": "k", "json": [' + zeros + b"]}]}",
    ]
    headers = {"Content-Type": "application/json"}
    for body in bodies:
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(
                lambda _: server.request("POST", "/v1/cache/n/batch", body, headers), range(4)))
        for status, _, problem in answers:
            assert status in (413, 422, 503), json.loads(problem)
    assert server.resident_megabytes() - before < 320
    assert server.request("GET", "/v1/cache/n/entries/k")[2] == b"v"


def test_what_is_held_is_given_back(server):
    operations = [{"op": "set", "key": "k", "base64": "eHh4" * 2 * MIB}]
    body = json.dumps({"operations": operations})
    headers = {"Content-Type": "application/json"}
    for _ in range(40):
        assert server.request("POST", "/v1/cache/n/batch", body, headers)[0] == 200
    for _ in range(40):
        connection = announced(server, "/v1/samples", 8 * MIB, 8 * MIB - 1)
        connection.close()
    deadline = time.monotonic() + 60
    while server.request("POST", "/v1/cache/n/batch", body, headers)[0] != 200:
        assert time.monotonic() < deadline
