"""Clients that take more than they need: of connections, of descriptors, of time."""

import os
import re
import resource
import socket
import subprocess
import time

import pytest

from conftest import BINARY, Server, environment


class SmallServer(Server):
    """A server that may have few files open, so that a handful of clients take all of its connections."""

    descriptors = 160

    def start(self):
        def limit():
            resource.setrlimit(resource.RLIMIT_NOFILE, (self.descriptors, self.descriptors))

        with open(self.log_path, "a") as log:
            self.process = subprocess.Popen(
                [BINARY, "serve", "--port", "0", "--database", self.database, *self.flags], stdout=subprocess.PIPE,
                stderr=log, text=True, env=environment(), preexec_fn=limit)
        line = self.process.stdout.readline()
        match = re.fullmatch(r"listening on http://([^:]+):(\d+)\n", line)
        assert match, self.log
        self.host, self.port = match.group(1), int(match.group(2))

    def open_descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def cpu_seconds(self):
        fields = open(f"/proc/{self.process.pid}/stat").read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.fixture
def small(tmp_path):
    server = SmallServer(tmp_path)
    yield server
    server.process.kill()
    server.process.wait()


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.05)


HEAD = b"PUT /v1/cache/n/entries/%d HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\nx"


def test_a_low_limit_of_files_is_told_at_start(small):
    lines = [line for line in small.log.splitlines() if "limit of open files" in line]
    assert len(lines) == 1 and f"limit={SmallServer.descriptors}" in lines[0], small.log


def test_idle_connections_give_way(small):
    idle = [small.socket() for _ in range(300)]
    for _ in range(20):
        assert small.request("GET", "/health/live")[0] == 200
    assert "cannot accept" not in small.log
    for client in idle:
        client.close()


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\nHo", HEAD % 1], ids=["heads", "bodies"])
def test_requests_that_do_not_arrive_give_way(small, sent):
    clients = []
    for _ in range(300):
        clients.append(small.socket())
        clients[-1].sendall(sent)
    for _ in range(5):
        assert small.request("GET", "/health/live")[0] == 200
    for client in clients:
        client.close()


def test_work_does_not_give_way(small):
    """An upload at a steady rate goes on while idle connections come and go around it."""
    upload = small.socket()
    upload.sendall(HEAD % 7)
    idle = []
    for part in range(33):
        upload.sendall(b"x" * 30_303)
        idle += [small.socket() for _ in range(10)]
        assert small.request("GET", "/health/live")[0] == 200
    assert upload.recv(100).startswith(b"HTTP/1.1 201")
    for client in idle:
        client.close()


def test_out_of_descriptors_is_logged_once_and_passes(small):
    assert small.request("GET", "/health/live")[0] == 200
    resource.prlimit(small.process.pid, resource.RLIMIT_NOFILE, (small.open_descriptors(), SmallServer.descriptors))
    waiting = []
    for _ in range(30):
        client = small.socket()
        client.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        waiting.append(client)
    wait_for(lambda: "cannot accept" in small.log)
    before = small.cpu_seconds()
    time.sleep(1)
    assert small.cpu_seconds() - before < 0.5
    assert small.log.count("cannot accept") == 1
    resource.prlimit(small.process.pid, resource.RLIMIT_NOFILE, (SmallServer.descriptors, SmallServer.descriptors))
    for client in waiting:
        assert client.recv(100).startswith(b"HTTP/1.1 200")
        client.close()


def slow_reader(server):
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    client.settimeout(30)
    client.connect((server.host, server.port))
    client.sendall(b"GET /v1/cache/n/entries/large HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    return client


def test_a_slow_reader_gets_everything_and_one_that_stops_does_not(start):
    server = start("--set", "idle_timeout_seconds=1")
    value = os.urandom(24 << 20)
    assert server.request("PUT", "/v1/cache/n/entries/large", value)[0] == 201
    slow, stopped = slow_reader(server), slow_reader(server)
    received = bytearray()
    # Several times the timeout, at a rate at which the kernel's buffers take longer than it to drain.
    for _ in range(60):
        time.sleep(0.1)
        received += slow.recv(64 * 1024, socket.MSG_WAITALL)
    while part := slow.recv(1 << 16):
        received += part
    assert received.split(b"\r\n\r\n", 1)[1] == value
    count = 0
    try:
        while part := stopped.recv(1 << 16):
            count += len(part)
    except ConnectionResetError:
        pass
    assert count < len(value)
