"""Samples: recording a week of them, and how long queries take as their number doubles.

1. SAMPLES (default 1,000,000) timings and memory samples spread over the last week, sent in batches of 500 over one
   connection, while the roll-up runs. In the same run, single durable writes of 1 KiB over one connection, for a ratio.
2. Queries with that many raw samples, and with twice as many of the same week: summary of the last hour and of the
   week, timings of the week. THRESHOLD: the summary of the last hour within 100 ms (median), and with twice the raw
   data at most 1.5 times as long.
"""

import json
import os
import random
import statistics
import sys
import time

from server import Server, percentile

SAMPLES = int(os.environ.get("SAMPLES", "1000000"))
BATCH = 500
# Sent before time is measured, so that each of the service's readers has loaded the pages.
WARM_UP = 20
WEEK = 7 * 86400 - 600
NAMES = ["model_load", "quality_scoring", "prompt_enhancement", "generation", "audio_decode", "render_history",
         "load_history", "save_take", "rerun", "export_wav"]


def stamp(seconds):
    whole = int(seconds)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{int((seconds - whole) * 1000):03d}Z"


def batches(count, now, seed):
    """Bodies of BATCH samples, in chronological order, as front ends would have sent them."""
    source = random.Random(seed)
    for start in range(0, count, BATCH):
        samples = []
        for number in range(start, min(start + BATCH, count)):
            recorded = stamp(now - WEEK + WEEK * number / count)
            if number % 10 == 9:
                samples.append({"kind": "memory", "name": "melodai", "recorded_at": recorded, "percent": 2.5,
                                "rss_bytes": source.randrange(10**8, 2 * 10**8), "vms_bytes": 10**9})
                continue
            name = number % len(NAMES)
            samples.append({"kind": "timing", "name": NAMES[name], "recorded_at": recorded,
                            "duration_seconds": round(source.lognormvariate(name - 6, 0.6), 6),
                            "cache": "hit" if source.random() < 0.7 else "miss",
                            "variant": "original" if number % 3 else "optimized", "session_id": f"tab-{number % 200}"})
        yield json.dumps({"samples": samples}).encode()


def send(connection, method, path, body=None, headers={}):
    connection.request(method, path, body, {"Content-Type": "application/json", **headers})
    answer = connection.getresponse()
    data = answer.read()
    if answer.status >= 300:
        raise SystemExit(f"{answer.status}: {data[:300]!r}")
    return data


def ingest(server, bodies, count):
    connection = server.connect()
    began = time.perf_counter()
    slowest = 0
    for body in bodies:
        sent = time.perf_counter()
        send(connection, "POST", "/v1/samples", body)
        slowest = max(slowest, time.perf_counter() - sent)
    return count / (time.perf_counter() - began), slowest


def single_writes(server, count=2000):
    connection = server.connect()
    began = time.perf_counter()
    for number in range(count):
        send(connection, "PUT", f"/v1/cache/bench/entries/{number}", b"x" * 1024)
    return count / (time.perf_counter() - began)


def megabytes(server):
    return sum(os.path.getsize(server.database + end) for end in ("", "-wal") if os.path.exists(server.database + end)) / 1e6


def questions(server, now):
    connection = server.connect()
    week = f"since={stamp(now - WEEK)}&until={stamp(now)}"
    found = {}
    for name, path in [("summary, last hour", "/v1/metrics/summary"), ("summary, week", f"/v1/metrics/summary?{week}"),
                       ("timings, week", f"/v1/metrics/timings?{week}")]:
        times = []
        for _ in range(WARM_UP + 40):
            began = time.perf_counter()
            send(connection, "GET", path)
            times.append((time.perf_counter() - began) * 1000)
        times = times[WARM_UP:]
        found[name] = (statistics.median(times), max(times))
    return found


def settle(server):
    """Waits for the roll-up."""
    send(server.connect(), "POST", "/v1/maintenance/cleanup", b'{"tasks": ["sample_rollup"]}')


def main():
    with Server() as server:
        now = time.time()
        writes = single_writes(server)
        first = list(batches(SAMPLES, now, 1))
        rate, slowest = ingest(server, first, SAMPLES)
        settle(server)
        size = megabytes(server)
        print(f"{SAMPLES:,} samples of a week in batches of {BATCH}: {rate:,.0f} per second, "
              f"{rate / writes:,.1f} times the {writes:,.0f} single durable writes of 1 KiB; slowest batch "
              f"{slowest * 1000:.0f} ms; {size:,.0f} MB, {size * 1e6 / SAMPLES:.0f} bytes a sample, roll-ups included\n")
        before = questions(server, now)
        ingest(server, batches(SAMPLES, now, 2), SAMPLES)
        settle(server)
        after = questions(server, now)
        print(f"| query | {SAMPLES:,} samples, median (ms) | slowest (ms) | {2 * SAMPLES:,} samples, median (ms) "
              "| slowest (ms) | ratio |")
        print("| --- | ---: | ---: | ---: | ---: | ---: |")
        for name, (median, worst) in before.items():
            print(f"| {name} | {median:.1f} | {worst:.1f} | {after[name][0]:.1f} | {after[name][1]:.1f} "
                  f"| {after[name][0] / median:.2f} |")
        hour = "summary, last hour"
        if before[hour][0] > 100 or after[hour][0] > max(1.5 * before[hour][0], 20):
            print("\nthe summary is slower than its threshold")
            sys.exit(1)


if __name__ == "__main__":
    main()
