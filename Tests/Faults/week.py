"""A week in minutes: the release binary with a clock that runs a thousand times as fast, under steady traffic.

Only the clock on the wall is accelerated (accelerated_clock.c); work takes the time it takes. So there are about as many
requests as a small installation gets in a week, and entries, sessions, samples and records expire as they do then.
Prints memory, the database and its log by day, and fails if they still grow at the end.
"""

import argparse
import json
import os
import random
import shlex
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "EndToEnd"))

import conftest  # noqa: E402

DAY = 86_400
# New sessions of each client by the clock that is not accelerated, each of some 45 requests.
SESSIONS_PER_SECOND = 4
# Growth from the second to the last day that is no growth: figures vary by that much from one day to the next.
SLACK = 1.25
# The log is written back every 4 MB, or one or two times later if a reader is in the way.
LOG_STEPS = 8.4


class Traffic(threading.Thread):
    """What a front end does: looks up results, computes those that are missing, keeps sessions, measures."""

    def __init__(self, server, number):
        super().__init__(daemon=True)
        self.server, self.numbers = server, random.Random(number)
        self.stop, self.requests, self.error = False, 0, None

    def run(self):
        connection = None

        def send(method, path, body=None):
            self.requests += 1
            headers = {}
            if isinstance(body, dict):
                body, headers = json.dumps(body), {"Content-Type": "application/json"}
            connection.request(method, path, body=body, headers=headers)
            answer = connection.getresponse()
            answer.read()
            if answer.status >= 500:
                raise RuntimeError(f"{method} {path}: {answer.status}")
            return answer.status

        numbers = self.numbers
        try:
            due = time.monotonic()
            while not self.stop:
                # At a steady rate, so that the days are alike however fast the machine is.
                due = max(due + 1 / SESSIONS_PER_SECOND, time.monotonic() - 5)
                time.sleep(max(0, due - time.monotonic()))
                # As a browser's tab does; an idle one would be closed after minutes, which pass in no time here.
                connection = self.server.connect()
                session = f"s{numbers.getrandbits(48):x}"
                send("PUT", f"/v1/sessions/{session}", {"ttl_seconds": 3600})
                for _ in range(numbers.randint(3, 15)):
                    # The parameters of a generation: some are asked for often, most once.
                    key = f"g{int(numbers.paretovariate(0.6))}"
                    if send("GET", f"/v1/cache/results/entries/{key}") == 404:
                        size = 300_000 if numbers.random() < 0.05 else numbers.randint(200, 8_000)
                        connection.putrequest("PUT", f"/v1/cache/results/entries/{key}")
                        connection.putheader("Content-Length", str(size))
                        connection.putheader("Reprise-TTL", str(numbers.choice([600, 7200, DAY])))
                        connection.putheader("Reprise-Compute-Seconds", "12.5")
                        connection.endheaders(numbers.randbytes(size))
                        answer = connection.getresponse()
                        answer.read()
                        if answer.status >= 500:
                            raise RuntimeError(f"PUT {key}: {answer.status}")
                        self.requests += 1
                    send("PATCH", f"/v1/sessions/{session}/state", {"set": {"last": key, "temp_x": numbers.random()}})
                    send("POST", f"/v1/sessions/{session}/history", {"kind": "generation", "data": {"key": key}})
                    send("POST", "/v1/samples", {"samples": [
                        {"kind": "timing", "name": f"op{numbers.randrange(20)}", "duration_seconds": numbers.random()}
                        for _ in range(5)]})
                connection.close()
        except Exception as error:  # Reported by the main thread.
            self.error = error


def accelerated(binary, speed, folder):
    """A program that runs another one with its clock on the wall accelerated."""
    library, path = os.path.join(folder, "accelerated_clock.so"), os.path.join(folder, "accelerated")
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "accelerated_clock.c")
    subprocess.run(["cc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, source], check=True)
    with open(path, "w") as script:
        script.write(
            f"#!/bin/sh\nexport LD_PRELOAD={library} CLOCK_SPEED={speed}\n"
            f"exec {shlex.quote(os.path.abspath(binary))} \"$@\"\n")
    os.chmod(path, 0o755)
    return path


def size(path):
    return os.path.getsize(path) / 1e6 if os.path.exists(path) else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--days", type=float, default=7)
    parser.add_argument("--speed", type=int, default=1000, help="how much faster the clock is")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="reprise-week-") as folder:
        conftest.BINARY = accelerated(conftest.BINARY, options.speed, folder)
        # By default, samples are kept for a week and roll-ups for 90 days, so none would go.
        retentions = {"sample_retention_seconds": DAY, "sample_rollup_retention_seconds": DAY}
        flags = [flag for name, value in retentions.items() for flag in ("--set", f"{name}={value}")]
        server = conftest.Server(folder, *flags)
        clients = [Traffic(server, number) for number in range(2)]
        for client in clients:
            client.start()
        began = time.monotonic()
        days, day = [], {}
        print("day   requests  entries  sessions  memory MB  database MB  log MB   (the most of each day)")
        while len(days) < options.days:
            time.sleep(0.5)
            now = (time.monotonic() - began) * options.speed / DAY
            figures = {
                "memory": server.resident_megabytes(), "database": size(server.database),
                "log": size(server.database + "-wal"),
            }
            day = {name: max(value, day.get(name, 0)) for name, value in figures.items()}
            if now >= len(days) + 1:
                day["requests"] = sum(client.requests for client in clients)
                day["entries"] = int(server.query("SELECT count(*) FROM cache_entries")[0])
                day["sessions"] = int(server.query("SELECT count(*) FROM sessions")[0])
                days.append(day)
                print(f"{len(days):3} {day['requests']:10,} {day['entries']:8,} {day['sessions']:9,} "
                      f"{day['memory']:10.0f} {day['database']:12.1f} {day['log']:7.1f}", flush=True)
                day = {}
            for client in clients:
                if client.error or not client.is_alive():
                    sys.exit(f"error: {client.error}\n{server.log[-2000:]}")
        for client in clients:
            client.stop = True
        for client in clients:
            client.join()
        assert server.query("PRAGMA integrity_check") == ["ok"]
        assert server.stop() == 0
    early, late = days[min(1, len(days) - 1)], days[-1]
    bounds = {name: early[name] * SLACK for name in ("memory", "database", "log")}
    bounds["log"] += LOG_STEPS
    grown = [name for name, bound in bounds.items() if late[name] > bound]
    if grown:
        print(f"still growing at the end: {', '.join(grown)}", file=sys.stderr)
        return 1
    print("nothing grows")
    return 0


if __name__ == "__main__":
    sys.exit(main())
