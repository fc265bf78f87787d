"""Clearing a namespace of ENTRIES entries (default 200,000) while others read and write.

Measures the clear itself, and point reads and writes of another namespace before it and while its rows are removed.
"""

import json
import os
import sqlite3
import threading
import time

from server import Server, percentile, request

ENTRIES = int(os.environ.get("ENTRIES", "200000"))


def loop(server, stop, latencies, method):
    connection = server.connect()
    body = b"v" * 1024 if method == "PUT" else None
    while not stop.is_set():
        began = time.perf_counter()
        request(connection, method, "/v1/cache/other/entries/one", body)
        latencies.append((time.perf_counter() - began) * 1000)


def watch(server, until, least_seconds):
    """Latencies in milliseconds of reads and writes until `until()` says so."""
    stop, reads, writes = threading.Event(), [], []
    threads = [threading.Thread(target=loop, args=(server, stop, *work))
               for work in ((reads, "GET"), (writes, "PUT"))]
    for thread in threads:
        thread.start()
    began = time.perf_counter()
    while not until() or time.perf_counter() - began < least_seconds:
        time.sleep(0.05)
    stop.set()
    for thread in threads:
        thread.join()
    return reads, writes, time.perf_counter() - began


def main():
    with Server() as server:
        connection = server.connect()
        request(connection, "PUT", "/v1/cache/other/entries/one", b"v" * 1024)
        server.fill("many", ENTRIES, ttl=86_400)
        time.sleep(2)
        before = watch(server, lambda: True, 3)
        began = time.perf_counter()
        answer = json.loads(request(connection, "DELETE", "/v1/cache/many/entries"))
        clear = (time.perf_counter() - began) * 1000
        assert answer["removed"] == ENTRIES, answer
        database = sqlite3.connect(f"file:{server.database}?mode=ro", uri=True)
        rows = lambda: database.execute("SELECT count(*) FROM cache_generations WHERE cleared_at_ms IS NOT NULL").fetchone()[0]
        during = watch(server, lambda: rows() == 0, 0.5)
        print(f"clear of {ENTRIES:,} entries answered in {clear:.1f} ms; its rows were gone {during[2]:.1f} s later\n")
        print("| request of another namespace | p50 (ms) | p99 (ms) | slowest (ms) | count |")
        print("| --- | ---: | ---: | ---: | ---: |")
        for name, phase in (("before", before), ("while rows go", during)):
            for kind, latencies in (("read", phase[0]), ("write", phase[1])):
                print(f"| {kind}, {name} | {percentile(latencies, 50):.2f} | {percentile(latencies, 99):.2f} | "
                      f"{max(latencies):.1f} | {len(latencies):,} |")
        if clear > 100:
            raise SystemExit(f"the clear took {clear:.0f} ms, above the threshold of 100")


main()
