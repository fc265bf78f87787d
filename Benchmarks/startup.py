"""Time from starting the process to its first answer from the cache, on an empty database and on a large one.

Also the resident memory of the idle process. The large database has ENTRIES entries (default 1,000,000).
"""

import os
import statistics
import tempfile
import time

from server import Server, request

ENTRIES = int(os.environ.get("ENTRIES", "1000000"))
STARTS = 10


def measure(folder, key):
    """Milliseconds to the first answer, once per start; resident MB after the last."""
    milliseconds = []
    for _ in range(STARTS):
        began = time.perf_counter()
        server = Server(folder)
        request(server.connect(), "GET", f"/v1/cache/many/entries/{key}")
        milliseconds.append((time.perf_counter() - began) * 1000)
        time.sleep(0.3)
        resident = server.resident_megabytes()
        server.stop()
    return milliseconds, resident


def main():
    print("| database | start to first hit, median of 10 (ms) | slowest (ms) | idle RSS (MB) |")
    print("| --- | ---: | ---: | ---: |")
    worst = 0
    for count in (1, ENTRIES):
        with tempfile.TemporaryDirectory(prefix="reprise-bench-") as folder:
            server = Server(folder)
            server.fill("many", count, ttl=86_400)
            server.stop()
            milliseconds, resident = measure(folder, f"key-{count - 1}")
            size = os.path.getsize(server.database) / 1e6
            worst = max(worst, max(milliseconds))
            print(f"| {count:,} entries, {size:,.0f} MB | {statistics.median(milliseconds):.0f} | "
                  f"{max(milliseconds):.0f} | {resident:.0f} |", flush=True)
    if worst >= 150:
        raise SystemExit(f"a start took {worst:.0f} ms, above the threshold of 150")


main()
