"""What a token costs: point reads with one as a share of those without, by two servers of the same binary in turn.

100,000 entries of 1 KiB with a lifetime, read at random by wrk over 32 connections. The server that asks has 200
tokens. Each round measures both; the table shows the medians. Fails if reads with a token are below the threshold.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile

from server import Server, request

ROUNDS = int(os.environ.get("ROUNDS", "7"))
SECONDS = int(os.environ.get("SECONDS_EACH", "4"))
ENTRIES = 100_000
TOKENS = 200
THRESHOLD = 0.97

SCRIPT = """
%s
local seed = 1
request = function()
  seed = (seed * 1103515245 + 12345) %% 2147483648
  return wrk.format("GET", "/v1/cache/reads/entries/key-" .. seed %% %d)
end
"""


def prepare(server):
    server.fill("reads", ENTRIES, size=1022, ttl=3600)


def make_tokens(server):
    connection = server.connect()
    tokens = []
    for number in range(TOKENS):
        headers = {"Authorization": f"Bearer {tokens[0]}"} if tokens else {}
        body = json.dumps({"name": f"token-{number}", "scopes": ["admin" if number == 0 else "read"]})
        tokens.append(json.loads(request(connection, "POST", "/v1/tokens", body, headers))["token"])
    connection.close()
    return tokens


def wrk(server, script):
    command = ["wrk", "-t1", "-c32", f"-d{SECONDS}s", "-s", script, server.url]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in output or "Socket errors" in output:
        raise SystemExit(output)
    return float(next(line.split()[1] for line in output.splitlines() if line.startswith("Requests/sec")))


def main():
    with Server() as open_server, Server() as asking, tempfile.TemporaryDirectory() as folder:
        for server in (open_server, asking):
            prepare(server)
        header = f'wrk.headers["Authorization"] = "Bearer {make_tokens(asking)[-1]}"'
        scripts = []
        for name, line in (("open.lua", ""), ("asking.lua", header)):
            path = os.path.join(folder, name)
            with open(path, "w") as file:
                file.write(SCRIPT % (line, ENTRIES))
            scripts.append(path)
        runs = [("without a token", open_server, scripts[0], []), ("with a token", asking, scripts[1], [])]
        costs = {}
        for number in range(ROUNDS):
            # In turn, and the order changes, so that what slows the machine down hits both.
            for _, server, script, rates in runs if number % 2 == 0 else reversed(runs):
                before = server.processor_seconds()
                rates.append(wrk(server, script))
                costs.setdefault(server, []).append((server.processor_seconds() - before) / (rates[-1] * SECONDS))
        without, with_token = (statistics.median(rates) for _, _, _, rates in runs)
        share = statistics.median(b / a for a, b in zip(runs[0][3], runs[1][3]))
        cost, cost_with_token = (statistics.median(costs[server]) * 1e6 for server in (open_server, asking))
        print("| point read, 1 KiB of 100,000 with a lifetime | per second | processor time (µs) |\n| --- | ---: | ---: |")
        print(f"| without a token | {without:,.0f} | {cost:.1f} |\n| with a token | {with_token:,.0f} | {cost_with_token:.1f} |")
        print(f"\nWith a token, {share:.3f} of the rate without (median of {ROUNDS} rounds; at least {THRESHOLD}).")
        return 0 if share >= THRESHOLD else 1


if __name__ == "__main__":
    sys.exit(main())
