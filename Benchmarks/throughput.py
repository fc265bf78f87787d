"""Requests per second of a point read, a durable write and a batch of 100, relative to a fixed answer.

Each is measured by wrk for some seconds, in turn, several rounds; a row shows the medians of the rounds. The fixed
answer is /health/live: the same server, router and middleware, without storage.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile

from server import Server, request

ROUNDS = int(os.environ.get("ROUNDS", "5"))
SECONDS = int(os.environ.get("SECONDS_EACH", "4"))
CONNECTIONS = 32

WRITE_SCRIPT = """
wrk.method = "PUT"
wrk.body = string.rep("v", 1024)
wrk.headers["Content-Type"] = "application/octet-stream"
local count = 0
request = function()
  count = count + 1
  return wrk.format("PUT", "/v1/cache/writes/entries/key-" .. count % 100000)
end
"""

BATCH_SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local file = io.open("%s", "r")
wrk.body = file:read("*a")
file:close()
"""


def wrk(url, script=None):
    """Requests per second; fails if any answer is not a success."""
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", url]
    if script:
        command[1:1] = ["-s", script]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in output or "Socket errors" in output:
        raise SystemExit(output)
    return float(re.search(r"Requests/sec:\s+([\d.]+)", output).group(1))


def requests(server, folder):
    """Stores what is read, and returns the requests: name, URL and wrk script."""
    def script(name, text):
        path = os.path.join(folder, name)
        with open(path, "w") as file:
            file.write(text)
        return path

    connection = server.connect()
    request(connection, "PUT", "/v1/cache/reads/entries/one", b"v" * 1024, {"Reprise-TTL": "none"})
    connection.close()
    server.fill("batch", 100, size=1024)
    gets = json.dumps({"operations": [{"op": "get", "key": f"key-{i}"} for i in range(100)]})
    sets = json.dumps({"operations": [{"op": "set", "key": f"key-{i}", "json": "v" * 100} for i in range(100)]})
    return [
        ("fixed answer", f"{server.url}/health/live", None),
        ("point read, 1 KiB hit", f"{server.url}/v1/cache/reads/entries/one", None),
        ("durable write, 1 KiB", server.url, script("write.lua", WRITE_SCRIPT)),
        ("batch of 100 gets, 1 KiB each", f"{server.url}/v1/cache/batch/batch",
         script("gets.lua", BATCH_SCRIPT % script("gets.json", gets))),
        ("batch of 100 sets, 100 bytes each", f"{server.url}/v1/cache/batch/batch",
         script("sets.lua", BATCH_SCRIPT % script("sets.json", sets))),
    ]


def main():
    with Server() as server, tempfile.TemporaryDirectory() as folder:
        runs = requests(server, folder)
        rates = {name: [] for name, _, _ in runs}
        ratios = {name: [] for name, _, _ in runs}
        for _ in range(ROUNDS):
            for name, url, path in runs:
                rates[name].append(wrk(url, path))
                ratios[name].append(rates[name][-1] / rates["fixed answer"][-1])
        print(f"{CONNECTIONS} connections, {ROUNDS} rounds of {SECONDS} s each, medians\n")
        print("| request | per second | share of the fixed answer | smallest share |")
        print("| --- | ---: | ---: | ---: |")
        for name, _, _ in runs:
            print(f"| {name} | {statistics.median(rates[name]):,.0f} | "
                  f"{statistics.median(ratios[name]):.2f} | {min(ratios[name]):.2f} |")
        read_share = statistics.median(ratios["point read, 1 KiB hit"])
    # The log's last line shows how writes were grouped.
    with Server() as server, tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "write.lua")
        with open(path, "w") as file:
            file.write(WRITE_SCRIPT)
        wrk(server.url, path)
        server.stop()
        figures = dict(re.findall(r"(\w+)=([\d.]+)", server.log.splitlines()[-1]))
        print(f"\nDurable writes alone, {CONNECTIONS} connections: {figures['writes']} writes in {figures['commits']} commits, "
              f"mean group {figures['mean_group']}, largest {figures['largest_group']}")
    threshold = 0.7
    if read_share < threshold:
        sys.exit(f"the point read is below its threshold: {read_share:.2f} < {threshold}")
    if float(figures["mean_group"]) < 2:
        sys.exit("writes were not grouped")


if __name__ == "__main__":
    main()
