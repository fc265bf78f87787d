"""A backup of a database of MEGABYTES (default 1024) while others read and write.

Measures reads and writes before the backup and during it, the length of the write-ahead log, and the backup's duration.
Each write is a batch of two entries, so that the copy can be checked for halves of batches. The backup is then restored
by `reprise restore` and compared: a second one, made while nobody writes, must have the same rows as the database.
"""

import hashlib
import json
import os
import sqlite3
import subprocess
import threading
import time

from server import BINARY, Server, percentile, request

MEGABYTES = int(os.environ.get("MEGABYTES", "1024"))
WRITERS = 2


def loop(server, stop, latencies, index):
    """Reads for the last index, writes for the others. Returns the number of the last write."""
    connection = server.connect()
    number = 0
    while not stop.is_set():
        began = time.perf_counter()
        if index == WRITERS:
            request(connection, "GET", "/v1/cache/pairs/entries/one")
        else:
            request(connection, "POST", "/v1/cache/pairs/batch", json.dumps({"atomic": True, "operations": [
                {"op": "set", "key": f"{half}-{index}-{number % 20000}", "json": str(number).rjust(512),
                 "ttl_seconds": None} for half in "ab"]}))
            number += 1
        latencies.append((time.perf_counter() - began) * 1000)
    return number


def watch(server, work):
    """Latencies in milliseconds of writes and reads while `work` runs, the longest log in MiB, the result, the time."""
    stop, reads, writes, longest = threading.Event(), [], [], 0
    threads = [threading.Thread(target=loop, args=(server, stop, reads if index == WRITERS else writes, index))
               for index in range(WRITERS + 1)]
    for thread in threads:
        thread.start()
    result = []
    worker = threading.Thread(target=lambda: result.append(work()))
    began = time.perf_counter()
    worker.start()
    while worker.is_alive():
        longest = max(longest, os.path.getsize(server.database + "-wal"))
        time.sleep(0.02)
    took = time.perf_counter() - began
    stop.set()
    for thread in threads:
        thread.join()
    return writes, reads, longest / (1 << 20), result[0], took


def rows(path):
    """A hash of all rows that these clients have put into a database nobody uses."""
    hasher = hashlib.sha256()
    with sqlite3.connect(f"file:{path}?immutable=1", uri=True) as database:
        for table in ("cache_namespaces", "cache_entries", "cache_values", "cache_blobs", "cache_chunks", "sessions"):
            for row in database.execute(f"SELECT * FROM {table} ORDER BY 1, 2"):
                hasher.update(repr(row).encode())
    return hasher.hexdigest()


def check_pairs(path):
    with sqlite3.connect(f"file:{path}?immutable=1", uri=True) as database:
        pairs = database.execute(
            "SELECT count(*), count(b.key) FROM cache_entries a LEFT JOIN cache_entries b"
            " ON b.generation_id = a.generation_id AND b.key = 'b' || substr(a.key, 2) AND b.sha256 = a.sha256"
            " WHERE a.key GLOB 'a-*'").fetchone()
    assert pairs[0] == pairs[1] > 0, pairs
    return pairs[0]


def backup(server):
    return json.loads(request(server.connect(), "POST", "/v1/backups"))


def main():
    with Server() as server:
        connection = server.connect()
        request(connection, "PUT", "/v1/cache/pairs/entries/one", b"v" * 1024)
        for number in range(MEGABYTES):
            request(connection, "PUT", f"/v1/cache/large/entries/{number}", os.urandom(1 << 20), {"Reprise-TTL": "none"})
        time.sleep(2)
        before = watch(server, lambda: time.sleep(10))
        during = watch(server, lambda: backup(server))
        made = during[3]
        print(f"{made['size_bytes'] >> 20:,} MiB in {made['duration_seconds']:.1f} s, copied and verified, "
              f"while {len(during[0]):,} writes and {len(during[1]):,} reads were answered\n")
        print("| | p50 (ms) | p99 (ms) | slowest (ms) | per second | longest log (MiB) |")
        print("| --- | ---: | ---: | ---: | ---: | ---: |")
        for name, phase in (("before", before), ("during the backup", during)):
            for kind, latencies in (("writes", phase[0]), ("reads", phase[1])):
                print(f"| {kind}, {name} | {percentile(latencies, 50):.2f} | {percentile(latencies, 99):.2f} | "
                      f"{max(latencies):.1f} | {len(latencies) / phase[4]:,.0f} | {phase[2]:.1f} |")
        # While nobody writes, apart from the counters of the reads, which are written before.
        time.sleep(3)
        still = backup(server)
        server.stop()
        folder = os.path.join(server.folder, "restored")
        for item, check in ((made, check_pairs), (still, lambda path: rows(path) == rows(server.database) or "unequal")):
            target = os.path.join(folder, item["name"])
            began = time.perf_counter()
            subprocess.run([BINARY, "restore", os.path.join(server.folder, "backups", item["name"]),
                            "--database", target], check=True, stdout=subprocess.DEVNULL)
            took = time.perf_counter() - began
            result = check(target)
            if result == "unequal":
                raise SystemExit("the restored database has other rows than the one that was backed up")
            print(f"\nrestored and verified in {took:.1f} s: " + (
                f"{result:,} pairs, none of them torn" if item is made else "all rows equal"))
            os.remove(target)
        if during[2] > 64:
            raise SystemExit(f"the log grew to {during[2]:.0f} MiB, above the threshold of 64")


main()
