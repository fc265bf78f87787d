#!/usr/bin/env python3
"""Compares two release binaries: the requests of throughput.py, in turn on both.

Usage: compare.py BINARY BASE. Prints the medians of the rounds, and the ratios of requests per second and of the
processor time that a request takes of the server. The latter depends less on what else the machine is doing.
"""

import statistics
import sys
import tempfile

import server as servers
from throughput import CONNECTIONS, ROUNDS, SECONDS, requests, wrk


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    binaries = sys.argv[1:]
    rates, costs = {}, {}
    for _ in range(ROUNDS):
        for binary in binaries:
            servers.BINARY = binary
            with servers.Server() as server, tempfile.TemporaryDirectory() as folder:
                for name, url, script in requests(server, folder):
                    before = server.processor_seconds()
                    rate = wrk(url, script)
                    used = server.processor_seconds() - before
                    rates.setdefault(name, {}).setdefault(binary, []).append(rate)
                    costs.setdefault(name, {}).setdefault(binary, []).append(used / (rate * SECONDS))
    print(f"{CONNECTIONS} connections, {ROUNDS} rounds of {SECONDS} s each, medians\n")
    print("| request | per second | base | ratio | processor time, ratio |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name in rates:
        new, base = (statistics.median(rates[name][binary]) for binary in binaries)
        cost, base_cost = (statistics.median(costs[name][binary]) for binary in binaries)
        print(f"| {name} | {new:,.0f} | {base:,.0f} | {new / base:.2f} | {cost / base_cost:.2f} |")


main()
