"""Sessions: whether many slow down one, and whether a large cleanup slows down readers.

1. Reading one session's state, appending a history item and listing the newest 50 sessions, with 100 and with SESSIONS
   sessions (default 10,000) of 20 keys and 20 items each, in one run. The ratio is the smaller database's median time to
   the larger one's.
2. Removal of EXPIRED expired sessions (default 100,000) while clients read and write: point reads before and during.
"""

import json
import os
import socket
import statistics
import sys
import threading
import time

from server import Server, percentile, request

SESSIONS = int(os.environ.get("SESSIONS", "10000"))
EXPIRED = int(os.environ.get("EXPIRED", "100000"))
REQUESTS = 2000


def pipeline(server, requests, expect=(200, 201)):
    """Sends many requests over one connection, a hundred ahead of the answers: to fill the store, not to measure."""
    connection = socket.create_connection((server.host, server.port))
    answers = connection.makefile("rb")
    for start in range(0, len(requests), 100):
        part = requests[start:start + 100]
        data = b"".join(
            f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            .encode() + body for method, path, body in part)
        sender = threading.Thread(target=connection.sendall, args=(data,))
        sender.start()
        for _ in part:
            status = int(answers.readline().split()[1])
            length = 0
            while (line := answers.readline()) != b"\r\n":
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            body = answers.read(length)
            if status not in expect:
                raise SystemExit(f"{status}: {body[:300]!r}")
        sender.join()
    connection.close()


def fill(server, count):
    state = {f"key-{i}": f"value {i}" for i in range(20)}
    item = json.dumps({"kind": "generation", "data": {"prompt": "a calm piano piece", "seconds": 30}}).encode()
    for start in range(0, count, 500):
        names = [f"s-{i}" for i in range(start, min(start + 500, count))]
        body = json.dumps({"state": state}).encode()
        pipeline(server, [("PUT", f"/v1/sessions/{name}", body) for name in names])
        pipeline(server, [("POST", f"/v1/sessions/{name}/history", item) for name in names for _ in range(20)])


def times(server, method, path, body=None, count=REQUESTS):
    """Milliseconds of `count` requests one after the other."""
    connection = server.connect()
    result = []
    for i in range(count):
        began = time.perf_counter()
        request(connection, method, path(i), body)
        result.append((time.perf_counter() - began) * 1000)
    return result


def growth():
    works = [
        ("read one session's state", "GET", lambda i: f"/v1/sessions/s-{i * 7 % 100}/state", None, REQUESTS),
        ("append a history item", "POST", lambda i: f"/v1/sessions/s-{i * 7 % 100}/history", '{"data": {"a": 1}}', REQUESTS),
        ("list the newest 50 sessions", "GET", lambda i: "/v1/sessions?limit=50", None, REQUESTS // 10),
    ]
    medians = {}
    for count in (100, SESSIONS):
        with Server() as server:
            fill(server, count)
            time.sleep(2)
            for name, *work in works:
                medians.setdefault(name, []).append(statistics.median(times(server, *work)))
    print(f"| request | 100 sessions, p50 (ms) | {SESSIONS:,} sessions, p50 (ms) | ratio |")
    print("| --- | ---: | ---: | ---: |")
    worst = 1
    for name, (small, large) in medians.items():
        worst = min(worst, small / large)
        print(f"| {name} | {small:.3f} | {large:.3f} | {small / large:.2f} |")
    return worst


def cleanup():
    with Server() as server:
        request(server.connect(), "PUT", "/v1/sessions/reader", '{"state": {"a": 1}}')
        body = json.dumps({"ttl_seconds": 3600, "state": {f"key-{i}": i for i in range(5)}}).encode()
        lifetime = 20
        began = time.perf_counter()
        for start in range(0, EXPIRED, 1000):
            left = max(5, lifetime - (time.perf_counter() - began))
            body = json.dumps({"ttl_seconds": left, "state": {f"key-{i}": i for i in range(5)}}).encode()
            pipeline(server, [("PUT", f"/v1/sessions/x-{i}", body) for i in range(start, min(start + 1000, EXPIRED))])
        idle = times(server, "GET", lambda i: "/v1/sessions/reader/state")
        stop, writes = threading.Event(), []

        def write():
            connection = server.connect()
            while not stop.is_set():
                start = time.perf_counter()
                request(connection, "PATCH", "/v1/sessions/reader/state", '{"set": {"a": 2}}')
                writes.append((time.perf_counter() - start) * 1000)

        time.sleep(max(0, lifetime - (time.perf_counter() - began)) + 1)
        # The sweep is in progress or over; expire the rest now and watch until nothing is left.
        thread = threading.Thread(target=write)
        thread.start()
        during = []
        began = time.perf_counter()
        while True:
            during += times(server, "GET", lambda i: "/v1/sessions/reader/state", count=200)
            if time.perf_counter() - began > 1:
                dry = json.loads(request(server.connect(), "POST", "/v1/maintenance/cleanup",
                                         '{"tasks": ["session_expiry"], "dry_run": true}'))
                if dry["tasks"][0]["removed"] == 0:
                    break
        seconds = time.perf_counter() - began
        stop.set()
        thread.join()
    ratio = percentile(during, 99) / percentile(idle, 99)
    print(f"\n{EXPIRED:,} expired sessions were gone after {seconds:.1f} s of reading and writing\n")
    print("| request | p50 (ms) | p99 (ms) | count |\n| --- | ---: | ---: | ---: |")
    for name, values in (("point read, idle", idle), ("point read, during cleanup", during), ("write, during cleanup", writes)):
        print(f"| {name} | {percentile(values, 50):.2f} | {percentile(values, 99):.2f} | {len(values):,} |")
    return ratio


def main():
    worst = growth()
    ratio = cleanup()
    if worst < 0.5:
        sys.exit(f"a request slows down to {worst:.2f} with many sessions")
    if ratio > 3:
        sys.exit(f"the 99th percentile of a point read grew {ratio:.1f} times during cleanup")


main()
