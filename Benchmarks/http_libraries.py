"""Measures what HTTP libraries for Python cost per call: hits of 1 KiB with a lifetime, on one connection for each.

The libraries take turns in one run. A time is the median of the rounds (5, or ROUNDS), each the median of 1,000 calls.
`make bench-client` installs the libraries and runs this. docs/design/python-client.md draws the conclusion.
"""

import http.client
import os
import socket
import statistics
import time

import h11
import httptools
import httpx
import urllib3

from reprise_client import Client
from server import Server, request

ROUNDS = int(os.environ.get("ROUNDS", "5"))
CALLS = 1000
PATH = "/v1/cache/bench/entries/key"
VALUE = os.urandom(1024)


def open_socket(server):
    opened = socket.create_connection((server.host, server.port))
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return opened


def bare(server):
    """No library: assumes that the whole answer arrives in one read, and parses nothing."""
    opened = open_socket(server)
    sent = f"GET {PATH} HTTP/1.1\r\nHost: {server.host}\r\n\r\n".encode()

    def call():
        opened.sendall(sent)
        return opened.recv(65536)[-1024:]
    return call


class Answer:
    def __init__(self):
        self.fields, self.pieces, self.complete = [], [], False

    def on_header(self, name, value):
        self.fields.append((name, value))

    def on_body(self, data):
        self.pieces.append(data)

    def on_message_complete(self):
        self.complete = True


def by_httptools(server):
    opened = open_socket(server)
    sent = f"GET {PATH} HTTP/1.1\r\nHost: {server.host}\r\n\r\n".encode()

    def call():
        answer = Answer()
        parser = httptools.HttpResponseParser(answer)
        opened.sendall(sent)
        while not answer.complete:
            parser.feed_data(opened.recv(65536))
        return b"".join(answer.pieces)
    return call


def by_h11(server):
    opened = open_socket(server)
    connection = h11.Connection(h11.CLIENT)
    asked = h11.Request(method="GET", target=PATH, headers=[("Host", server.host)])

    def call():
        opened.sendall(connection.send(asked) + connection.send(h11.EndOfMessage()))
        pieces = []
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(opened.recv(65536))
            elif isinstance(event, h11.Data):
                pieces.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                connection.start_next_cycle()
                return b"".join(pieces)
    return call


def by_http_client(server):
    connection = http.client.HTTPConnection(server.host, server.port)

    def call():
        connection.request("GET", PATH)
        return connection.getresponse().read()
    return call


def by_urllib3(server):
    pool = urllib3.PoolManager()
    return lambda: pool.request("GET", server.url + PATH).data


def by_httpx(server):
    client = httpx.Client()
    return lambda: client.get(server.url + PATH).content


def by_reprise_client(server):
    client = Client(server.url, timeout=30)
    return lambda: client.get_entry("bench", "key").body


LIBRARIES = {
    "bare socket": (bare, ""),
    "httptools": (by_httptools, httptools.__version__),
    "reprise-client (over httptools)": (by_reprise_client, ""),
    "h11": (by_h11, h11.__version__),
    "http.client": (by_http_client, "of Python"),
    "urllib3": (by_urllib3, urllib3.__version__),
    "httpx": (by_httpx, httpx.__version__),
}


def main():
    with Server() as server:
        connection = server.connect()
        request(connection, "PUT", PATH, VALUE, {"Reprise-TTL": "3600", "Content-Type": "application/octet-stream"})
        calls = {name: make(server) for name, (make, _) in LIBRARIES.items()}
        times = {name: [] for name in calls}
        names = list(calls)
        for number in range(ROUNDS):
            for name in names if number % 2 == 0 else reversed(names):
                call, each = calls[name], []
                for _ in range(CALLS):
                    began = time.perf_counter()
                    value = call()
                    each.append(time.perf_counter() - began)
                    if value != VALUE:
                        raise SystemExit(f"{name}: a wrong value came back")
                times[name].append(statistics.median(each))
        print("| a hit of 1 KiB | version | µs a call | over the bare socket |\n| --- | --- | ---: | ---: |")
        floor = statistics.median(times["bare socket"])
        for name in names:
            median = statistics.median(times[name])
            print(f"| {name} | {LIBRARIES[name][1]} | {median * 1e6:.0f} | {(median - floor) * 1e6:+.0f} |")


if __name__ == "__main__":
    main()
