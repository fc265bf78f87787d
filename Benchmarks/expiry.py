"""ENTRIES entries (default 300,000) expire at the same time, and then as many are cleared together, while others write.

Measures writes of one key of another namespace, and inserts into a full namespace with a cap, both one at a time: idle,
and while the rows are removed. Fails if the 99th percentile during the sweep is more than RATIO times the idle one.
"""

import json
import os
import sqlite3
import threading
import time

from server import Server, percentile, request

ENTRIES = int(os.environ.get("ENTRIES", "300000"))
RATIO = float(os.environ.get("RATIO", "3"))
CAP = 1000
VALUE = b"v" * 1024


def fill(server, until=None):
    """Stores the entries; all of them expire at the instant `until`."""
    connection = server.connect()
    for start in range(0, ENTRIES, 1000):
        ttl = None if until is None else until - time.time()
        operations = [{"op": "set", "key": f"key-{i}", "json": "x" * 64, "ttl_seconds": ttl}
                      for i in range(start, min(start + 1000, ENTRIES))]
        request(connection, "POST", "/v1/cache/many/batch", json.dumps({"operations": operations}))
    connection.close()


def write(server, path, stop, latencies):
    connection, number = server.connect(), 0
    while not stop.is_set():
        number += 1
        began = time.perf_counter()
        request(connection, "PUT", path(number), VALUE)
        latencies.append((time.perf_counter() - began) * 1000)
    connection.close()


def measure(server, name, is_over):
    """Latencies in milliseconds of both kinds of writes until `is_over()` says so."""
    stop = threading.Event()
    kinds = {
        "write elsewhere": lambda number: "/v1/cache/other/entries/one",
        "insert into a full namespace": lambda number: f"/v1/cache/capped/entries/{name}-{number}",
    }
    latencies = {kind: [] for kind in kinds}
    threads = [threading.Thread(target=write, args=(server, path, stop, latencies[kind])) for kind, path in kinds.items()]
    for thread in threads:
        thread.start()
    began = time.perf_counter()
    while not is_over(time.perf_counter() - began):
        time.sleep(0.05)
    seconds = time.perf_counter() - began
    stop.set()
    for thread in threads:
        thread.join()
    return latencies, seconds


def main():
    with Server() as server:
        connection = server.connect()
        request(connection, "PUT", "/v1/cache/capped", json.dumps({"max_entries": CAP, "ttl_seconds": None}))
        for number in range(CAP):
            request(connection, "PUT", f"/v1/cache/capped/entries/{number}", VALUE)
        connection.close()
        database = sqlite3.connect(f"file:{server.database}?mode=ro", uri=True)

        def is_gone(_):
            rows = database.execute("SELECT sum(entry_count) FROM cache_generations").fetchone()[0]
            return rows <= CAP + 1

        deadline = time.time() + 15 + ENTRIES / 10_000
        fill(server, deadline)
        if time.time() > deadline - 5:
            raise SystemExit("filling took too long: set ENTRIES lower")
        phases = {"idle": measure(server, "idle", lambda seconds: seconds > 4)}
        time.sleep(max(0, deadline - time.time()))
        phases["while expired rows go"] = measure(server, "expired", is_gone)
        fill(server)
        time.sleep(2)
        connection = server.connect()
        began = time.perf_counter()
        request(connection, "DELETE", "/v1/cache/many/entries")
        clear = (time.perf_counter() - began) * 1000
        phases["while cleared rows go"] = measure(server, "cleared", is_gone)
        print(f"{ENTRIES:,} expired rows were gone {phases['while expired rows go'][1]:.1f} s after their deadline, as many "
              f"cleared ones {phases['while cleared rows go'][1]:.1f} s after the clear, which took {clear:.1f} ms\n")
        print("| request | p50 (ms) | p99 (ms) | p99 to idle | slowest (ms) | count |")
        print("| --- | ---: | ---: | ---: | ---: | ---: |")
        worst = 0.0
        for name, (latencies, _) in phases.items():
            for kind, values in latencies.items():
                ratio = percentile(values, 99) / percentile(phases["idle"][0][kind], 99)
                worst = max(worst, ratio)
                print(f"| {kind}, {name} | {percentile(values, 50):.2f} | {percentile(values, 99):.2f} | {ratio:.1f} | "
                      f"{max(values):.1f} | {len(values):,} |")
        if worst > RATIO:
            raise SystemExit(f"a 99th percentile is {worst:.1f} times that of an idle server, above {RATIO}")


main()
