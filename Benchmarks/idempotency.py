"""What an Idempotency-Key costs: increments without one, with a new one each, and sent again; in turn, one connection.

Each is answered after its commit is durable. A time is the median over rounds of the median of one request.
"""

import json
import os
import statistics
import time

from server import Server, request

ROUNDS = int(os.environ.get("ROUNDS", "5"))
REQUESTS = 400


def main():
    with Server() as server:
        connection = server.connect()
        counted = 0

        def increment(key=None):
            headers = {"Idempotency-Key": key} if key else {}
            answer = request(connection, "POST", "/v1/cache/bench/entries/counter/increment", "{}", headers)
            return json.loads(answer)["value"]

        def times(keys):
            each = []
            for key in keys:
                began = time.perf_counter()
                increment(key)
                each.append(time.perf_counter() - began)
            return statistics.median(each)

        rows = {"without a key": [], "with a key": [], "sent again": []}
        for number in range(ROUNDS):
            keys = [f"round-{number}-{count}" for count in range(REQUESTS)]
            rows["without a key"].append(times([None] * REQUESTS))
            rows["with a key"].append(times(keys))
            rows["sent again"].append(times(keys))
            counted += 2 * REQUESTS
        value = increment()
        if value != counted + 1:
            raise SystemExit(f"{value} were counted instead of {counted + 1}")
        print("| increment | ms a request |\n| --- | ---: |")
        for name, medians in rows.items():
            print(f"| {name} | {statistics.median(medians) * 1000:.2f} |")


if __name__ == "__main__":
    main()
