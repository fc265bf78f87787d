"""Ad-hoc SQL: what a query costs, what endless ones do to cache hits and to memory, and how soon they are refused.

Figures of docs/design/sql-sandbox.md. Fails if a cache hit takes more than 20 ms at the 99th percentile meanwhile.
"""

import json
import statistics
import threading
import time

from server import Server, percentile, request

NUMBERS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) "
ENDLESS_COUNT = NUMBERS + "SELECT max(x) FROM c"
ENDLESS_SORT = NUMBERS + "SELECT x FROM c ORDER BY x * 7919 % 1000003"
ENDLESS_UNION = "WITH RECURSIVE c(x) AS (SELECT 1 UNION SELECT x + 1 FROM c) SELECT max(x) FROM c"


def query(server, sql):
    """Runs a query on a connection of its own; milliseconds."""
    connection = server.connect()
    started = time.perf_counter()
    request(connection, "POST", "/v1/sql", json.dumps({"query": sql}), expect=(200, 422, 503))
    connection.close()
    return (time.perf_counter() - started) * 1000


def hits(server, count=1000):
    """Milliseconds of cache hits on one connection."""
    connection, taken = server.connect(), []
    for _ in range(count):
        started = time.perf_counter()
        request(connection, "GET", "/v1/cache/reads/entries/one")
        taken.append((time.perf_counter() - started) * 1000)
    connection.close()
    return taken


def beside(server, queries, work):
    """`work()` while the queries run, and the peak of memory."""
    threads = [threading.Thread(target=query, args=(server, sql)) for sql in queries]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    result, peak = work(), 0
    while any(thread.is_alive() for thread in threads):
        peak = max(peak, server.resident_megabytes())
        time.sleep(0.01)
    return result, peak


def row(name, *values):
    print(f"| {name} | {', '.join(f'{value:.2f}' for value in values)} |")


def main():
    with Server() as server:
        connection = server.connect()
        request(connection, "PUT", "/v1/cache/reads/entries/one", b"v" * 1024, {"Reprise-TTL": "none"})
        connection.close()
        print("| | |\n| --- | ---: |")
        row("`SELECT 1` over HTTP, connection opened and closed, median (ms)",
            statistics.median(query(server, "SELECT 1") for _ in range(1000)))
        idle = hits(server)
        row("a cache hit, median, 99th percentile, longest (ms)", percentile(idle, 50), percentile(idle, 99), max(idle))
        busy, _ = beside(server, [ENDLESS_COUNT] * 6, lambda: hits(server))
        row("the same while two endless queries run and four wait (ms)",
            percentile(busy, 50), percentile(busy, 99), max(busy))
        row("resident memory at rest (MB)", server.resident_megabytes())
        row("refusal of an endless sort, an endless `UNION` (s)",
            query(server, ENDLESS_SORT) / 1000, query(server, ENDLESS_UNION) / 1000)
        _, peak = beside(server, [ENDLESS_SORT] * 2, lambda: None)
        row("while two queries sort endlessly, at most (MB)", peak)
        row("afterwards (MB)", server.resident_megabytes())
        if percentile(busy, 99) > 20:
            raise SystemExit("cache hits wait for queries")


main()
