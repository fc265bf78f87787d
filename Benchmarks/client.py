"""Compares the Python client with what its users would otherwise use: redis-py with Redis, diskcache, Streamlit's disk
storage, and pickle files. All are measured in one run, in turn, on the same machine.

`make bench-client` installs everything and runs this. With one thread, a round gives the median time of a call; with 16
threads, the whole time divided by the number of calls; for hits of st.cache_data, the mean over more than a second. The
tables show medians of the rounds (5, or ROUNDS). Values are random bytes. They have a lifetime of an hour where the
system has lifetimes. Every value that is read is compared with what was written. Each target is printed as met or
missed, and the exit code is 1 if one was missed.
"""

import json
import os
import pickle
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import diskcache
import redis
from streamlit.runtime.caching.storage import CacheStorageContext
from streamlit.runtime.caching.storage.in_memory_cache_storage_wrapper import InMemoryCacheStorageWrapper
from streamlit.runtime.caching.storage.local_disk_cache_storage import LocalDiskCacheStorage

import reprise_client
from reprise_client import Client
from reprise_client.streamlit.storage import Seal, Shared, SharedStorage
from server import Server, request

ROUNDS = int(os.environ.get("ROUNDS", "5"))
SIZES = {"1 KiB": 1024, "300 KB": 300_000, "8 MiB": 8 * 1024 * 1024}
CALLS = {"1 KiB": 400, "300 KB": 100, "8 MiB": 10}
THREADS = 16


class Redis:
    """A Redis that keeps an append-only file, synced every second."""

    def __init__(self, folder):
        self.path = os.path.join(folder, "redis.sock")
        port = 20_000 + os.getpid() % 20_000
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(port), "--dir", folder, "--appendonly", "yes", "--save", ""],
            stdout=subprocess.DEVNULL)
        self.client = redis.Redis(port=port)
        deadline = time.monotonic() + 20
        while True:
            try:
                self.client.ping()
                return
            except redis.ConnectionError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def get(self, key):
        return self.client.get(key)

    def set(self, key, value):
        self.client.set(key, value, ex=3600)

    def stop(self):
        self.process.terminate()
        self.process.wait()


class Reprise:
    def __init__(self, client):
        self.cache = client.cache("bench", ttl=3600, strict=True)

    def get(self, key):
        return self.cache.get(key)

    def set(self, key, value):
        self.cache.set(key, value)


class PickleFiles:
    def __init__(self, folder):
        self.folder = folder

    def get(self, key):
        with open(os.path.join(self.folder, key), "rb") as file:
            return pickle.load(file)

    def set(self, key, value):
        path = os.path.join(self.folder, key)
        new = f"{path}.{threading.get_ident()}"
        with open(new, "wb") as file:
            pickle.dump(value, file, protocol=5)
        os.replace(new, path)


class DiskCache:
    def __init__(self, folder):
        self.cache = diskcache.Cache(folder)

    def get(self, key):
        return self.cache.get(key)

    def set(self, key, value):
        self.cache.set(key, value, expire=3600)


def context():
    return CacheStorageContext(
        function_key="bench", function_display_name="bench", persist="disk", ttl_seconds=None, max_entries=None)


def one_by_one(call, count):
    """The median time of a call, in seconds."""
    times = []
    for number in range(count):
        began = time.perf_counter()
        call(number)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def at_once(call, count):
    """Seconds per call when 16 threads share the work: the whole time divided by the number of calls."""
    each = max(1, count // THREADS)
    barrier = threading.Barrier(THREADS + 1)

    def work(thread):
        barrier.wait()
        for number in range(each):
            call(thread * each + number)

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(THREADS)]
    for thread in threads:
        thread.start()
    barrier.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    return (time.perf_counter() - began) / (each * THREADS)


def measure(calls, count, repeat):
    """Seconds for each of the systems, which take turns."""
    times = {name: [] for name in calls}
    for call in calls.values():
        repeat(call, max(1, count // 10))
    names = list(calls)
    for number in range(ROUNDS):
        for name in names if number % 2 == 0 else reversed(names):
            times[name].append(repeat(calls[name], count))
    return {name: statistics.median(values) for name, values in times.items()}


def shown(seconds):
    microseconds = seconds * 1e6
    return f"{microseconds:,.1f}" if microseconds < 100 else f"{microseconds:,.0f}"


class Report:
    def __init__(self):
        self.missed = []

    def table(self, title, columns, rows):
        print(f"\n| {title} | " + " | ".join(columns) + " |\n| --- |" + " ---: |" * len(columns))
        for name, times in rows:
            print(f"| {name} | " + " | ".join(shown(times[c]) if c in times else "" for c in columns) + " |")

    def target(self, what, value, limit, unit=""):
        met = value <= limit
        print(f"{'met' if met else 'MISSED'}: {what}: {value:.2f}{unit}, at most {limit}{unit}")
        if not met:
            self.missed.append(what)


def values(size):
    return [os.urandom(size) for _ in range(4)]


def checked(get, expected):
    def call(number):
        value = get(f"key-{number % 4}")
        if value != expected[number % 4]:
            raise SystemExit(f"a wrong value came back: {type(value)}")
    return call


def stored(put, contents):
    return lambda number: put(f"key-{number % 4}", contents[number % 4])


def caches(report, systems):
    ratios = {}
    for threads, repeat in ((1, one_by_one), (THREADS, at_once)):
        rows = []
        for size_name, size in SIZES.items():
            contents = values(size)
            sets = {name: stored(system.set, contents) for name, system in systems.items()}
            gets = {name: checked(system.get, contents) for name, system in systems.items()}
            count = CALLS[size_name]
            set_times = measure(sets, count, repeat)
            get_times = measure(gets, count, repeat)
            rows += [(f"get {size_name}", get_times), (f"set {size_name}", set_times)]
            ratios[threads, "get", size_name] = get_times
        report.table(f"µs a call, {threads} thread{'s' if threads > 1 else ''}", list(systems), rows)
    return ratios


#: One item for each run of the memoized function. It is global because a closure's contents are part of the key.
runs = []


def memoize(report, client):
    cache = client.cache("memoized", ttl=3600)

    @cache.memoize(local_seconds=60)
    def score(prompt, length, seed=0):
        runs.append(prompt)
        return {"quality": 0.9, "prompt": prompt}

    score("warm", 8.0)
    batch = 2000
    seconds = statistics.median(
        one_by_one(lambda _: [score("warm", 8.0) for _ in range(batch)], 1) / batch for _ in range(ROUNDS))
    if len(runs) != 1:
        raise SystemExit(f"the function ran {len(runs)} times")
    print(f"\nA memoized hit from the local tier takes {seconds * 1e6:.1f} µs.")
    report.target("memoized hit from the local tier", seconds * 1e6, 10, " µs")


def rerun(report, client, server):
    """A rerun opens its session, changes a key and saves it. It is compared with the same two requests, and with two
    of /health/live, sent by http.client over one connection."""
    defaults = {f"key_{number}": {"value": number} for number in range(20)}
    connection = server.connect()
    opening = json.dumps({"defaults": defaults})
    counter = iter(range(10**9))

    def bare(_):
        request(connection, "PUT", "/v1/sessions/bare?include=state,history", opening)
        request(connection, "PATCH", "/v1/sessions/bare/state", json.dumps({"set": {"clicks": next(counter)}}))

    def idle(_):
        for _ in range(2):
            request(connection, "GET", "/health/live")

    def script(_):
        session = client.session("rerun", defaults=defaults, strict=True)
        session["clicks"] = next(counter)
        session.save()

    def attempts():
        return client.statistics()["attempts"]

    script(0)
    before = attempts()
    script(0)
    trips = attempts() - before
    times = measure({"Session": script, "the same requests, bare": bare, "two of /health/live": idle}, 200, one_by_one)
    report.table("µs a rerun", list(times), [("session of 20 keys, opened and saved", times)])
    report.target("round trips of a rerun", trips, 2)
    report.target("a rerun by the same requests, bare", times["Session"] / times["the same requests, bare"], 1.5)


def for_a_while(call, seconds=1.5):
    """The mean time of a call over more than a second, so that it includes what happens once a second."""
    began = time.perf_counter()
    count = 0
    while (spent := time.perf_counter() - began) < seconds:
        call(count)
        count += 1
    return spent / count


def streamlit_storages(report, client):
    """Hits of st.cache_data(persist="disk") below Streamlit's decorator. A repeated hit has a copy in memory, which
    Reprise checks against the service once a second. A first hit is read from the file, or fetched and verified."""
    seal = Seal("benchmark-secret-of-32-characters")

    def shared():
        return Shared(client, "bench-streamlit", seal)

    disk = LocalDiskCacheStorage(context())
    ours = SharedStorage(shared(), context())
    systems = {
        "Reprise, repeated": lambda: ours,
        "Streamlit, repeated": lambda kept=InMemoryCacheStorageWrapper(disk, context()): kept,
        "Reprise, first": lambda: SharedStorage(shared(), context()),
        "Streamlit, first (file)": lambda: disk,
    }
    rows, ratios = [], {}
    for size_name in ("1 KiB", "300 KB"):
        contents = values(SIZES[size_name])
        for number in range(4):
            for name in ("Reprise, repeated", "Streamlit, repeated"):
                systems[name]().set(f"key-{number}", contents[number])

        def hit(storage):
            return lambda number: checked(storage().get, contents)(number)

        times = {name: [] for name in systems}
        for _ in range(ROUNDS):
            for name, storage in systems.items():
                times[name].append(for_a_while(hit(storage)))
        medians = {name: statistics.median(values) for name, values in times.items()}
        rows.append((f"hit of {size_name}", medians))
        ratios[size_name] = {
            kind: medians[f"Reprise, {kind}"] / medians["Streamlit, first (file)"] for kind in ("repeated", "first")}
    report.table("µs a hit of st.cache_data", list(systems), rows)
    report.target("repeated hit of 1 KiB by Streamlit's file", ratios["1 KiB"]["repeated"], 2.0)
    report.target("repeated hit of 300 KB by Streamlit's file", ratios["300 KB"]["repeated"], 1.0)
    report.target("first hit of 1 KiB by Streamlit's file", ratios["1 KiB"]["first"], 2.0)
    report.target("first hit of 300 KB by Streamlit's file", ratios["300 KB"]["first"], 1.0)


def main():
    folder = tempfile.mkdtemp(prefix="reprise-bench-client-")
    os.environ["HOME"] = os.path.join(folder, "home")
    os.mkdir(os.environ["HOME"])
    for name in ("redis", "pickle"):
        os.mkdir(os.path.join(folder, name))
    store = Redis(os.path.join(folder, "redis"))
    report = Report()
    try:
        with Server() as server, Client(server.url, timeout=30) as client:
            print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, "
                  f"reprise-client {reprise_client.__version__}, redis-py {redis.__version__}, diskcache {diskcache.__version__}; {ROUNDS} rounds")
            systems = {
                "Reprise": Reprise(client),
                "redis-py": store,
                "diskcache": DiskCache(os.path.join(folder, "diskcache")),
                "pickle files": PickleFiles(os.path.join(folder, "pickle")),
            }
            ratios = caches(report, systems)
            one = ratios[1, "get", "1 KiB"]
            report.target("get of 1 KiB by redis-py", one["Reprise"] / one["redis-py"], 1.3)
            large = ratios[1, "get", "8 MiB"]
            report.target("get of 8 MiB by reading a pickle file", large["Reprise"] / large["pickle files"], 2.0)
            memoize(report, client)
            rerun(report, client, server)
            streamlit_storages(report, client)
    finally:
        store.stop()
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if report.missed else 0


if __name__ == "__main__":
    sys.exit(main())
