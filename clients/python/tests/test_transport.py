"""The blocking transport: connections are kept, counted, replaced and closed."""

from __future__ import annotations

import io
import logging
import os
import pickle
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bad_server import (
    OK,
    BadServer,
    Visit,
    always,
    answer,
    in_order,
    once,
    open_descriptors,
    problem,
    refusing_port,
    wait_until,
)
from conftest import Service, tls

from reprise_client import (
    AsyncClient,
    Client,
    ConnectFailed,
    ConnectionLost,
    InvalidRequest,
    TimedOut,
    Unauthenticated,
    limits,
)
from reprise_client.http.address import Address

PATIENT = 60.0


# Connections.


def test_a_connection_is_kept() -> None:
    with BadServer(always(OK)) as server, Client(server.url, timeout=PATIENT) as client:
        for _ in range(50):
            client.get_entry("a", "b")
            client.put_entry("a", "b", b"x" * 100_000)
            client.head_entry("a", "b")
        assert server.accepted == 1 and len(server.requests) == 150
        client.close()
        server.wait_until_left()
        client.get_entry("a", "b")
        assert server.accepted == 2
    server.wait_until_left()


@pytest.mark.parametrize("closing", [
    answer(Connection="close"), b"HTTP/1.0 200 OK\r\nETag: \"1\"\r\nContent-Length: 2\r\n\r\n{}",
    OK + b"trailing garbage"])
def test_a_connection_that_cannot_be_kept(closing: bytes) -> None:
    with BadServer(always(closing)) as server, Client(server.url, timeout=PATIENT) as client:
        for _ in range(3):
            assert client.get_entry("a", "b").body == b"{}"
        assert server.accepted == 3
        server.wait_until_left()


def test_idle_connections_that_the_service_closed() -> None:
    """The service closes each connection after one answer, without saying so."""
    with BadServer(once(OK)) as server, Client(server.url, timeout=PATIENT, retries=0) as client:
        for count in range(1, 6):
            assert client.get_entry("a", "b").body == b"{}"
            server.wait_until_left()
            assert client.request("POST", "/v1/x", json={}).body == b"{}"
            assert server.accepted == 2 * count
            server.wait_until_left()
        assert client.statistics()["failures"] == 0


def test_an_idle_connection_that_breaks_when_it_is_used() -> None:
    """The end of the connection is not there yet when the next request is sent."""

    def behave(visit: Visit) -> None:
        visit.read_request()
        visit.write(OK)
        visit.read_request()
        visit.reset()

    with BadServer(in_order(behave, always(OK))) as server, \
            Client(server.url, timeout=PATIENT, retries=0) as client:
        client.get_entry("a", "b")
        assert client.get_entry("a", "b").body == b"{}"
        assert server.accepted == 2
    with BadServer(in_order(behave, always(OK))) as server, \
            Client(server.url, timeout=PATIENT, retries=0) as client:
        client.get_entry("a", "b")
        with pytest.raises(ConnectionLost) as lost:
            client.request("POST", "/v1/x", json={})
        assert lost.value.sent and server.accepted == 1


def test_a_connection_that_was_idle_for_long_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with BadServer(always(OK)) as server, Client(server.url, timeout=PATIENT) as client:
        client.get_entry("a", "b")
        monkeypatch.setattr(limits, "IDLE_CHECK_SECONDS", 0)
        client.get_entry("a", "b")
        assert server.accepted == 1
        monkeypatch.setattr(limits, "MAX_IDLE_SECONDS", 0)
        client.get_entry("a", "b")
        assert server.accepted == 2


def test_an_answer_that_nobody_asked_for_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "IDLE_CHECK_SECONDS", 0)
    sent = threading.Event()

    def behave(visit: Visit) -> None:
        visit.read_request()
        visit.write(OK)
        visit.write(answer(b'"not yours"'))
        sent.set()
        visit.hang()

    with BadServer(in_order(behave, always(OK))) as server, \
            Client(server.url, timeout=PATIENT) as client:
        client.get_entry("a", "b")
        assert sent.wait(30)
        assert client.get_entry("a", "b").body == b"{}"
        assert server.accepted == 2


def test_threads_share_a_limited_pool() -> None:
    lock, now, most = threading.Lock(), 0, 0

    def behave(visit: Visit) -> None:
        nonlocal now, most
        while visit.read_request() is not None:
            with lock:
                now += 1
                most = max(most, now)
            visit.pause(0.002)
            with lock:
                now -= 1
            visit.write(OK)

    failures: list[BaseException] = []
    with BadServer(behave) as server, \
            Client(server.url, timeout=PATIENT, max_connections=3) as client:

        def work() -> None:
            try:
                for _ in range(25):
                    client.get_entry("a", "b")
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENT)
        assert not failures and len(server.requests) == 300
        assert server.accepted <= 3 and 1 <= most <= 3
        assert client._pool._free.qsize() == 3


def test_all_connections_in_use() -> None:
    with BadServer(lambda visit: visit.hang()) as server, \
            Client(server.url, timeout=0.3, retries=0, max_connections=1) as client:
        held = threading.Thread(target=lambda: pytest.raises(
            ConnectionLost, client.get_entry, "a", "b", timeout=PATIENT))
        held.start()
        wait_until(lambda: server.accepted == 1, "the connection was taken")
        with pytest.raises(TimedOut, match="all 1 connections were in use") as late:
            client.get_entry("a", "b")
        assert not late.value.sent
        assert client.is_available, "a full pool says nothing about the service"
        server.closing.set()
        held.join(PATIENT)


@pytest.mark.parametrize("size", [0, -1, limits.MAX_POOL_CONNECTIONS + 1])
def test_a_size_that_no_pool_has(size: int) -> None:
    with pytest.raises(ValueError, match="max_connections"):
        Client(max_connections=size)


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_a_timeout_that_no_call_has(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        Client(timeout=timeout)


def test_a_timeout_without_end_is_a_day() -> None:
    with BadServer(always(OK)) as server, Client(server.url, timeout=float("inf")) as client:
        assert client.get_entry("a", "b").body == b"{}"


def test_errors_leave_no_descriptor() -> None:
    def cut(visit: Visit) -> None:
        visit.read_request()
        visit.write(OK[:40])

    with BadServer(cut) as server, Client(server.url, timeout=PATIENT, retries=0) as client:
        breaker = client._policy.breaker
        before = open_descriptors()
        for _ in range(200):
            with pytest.raises(ConnectionLost):
                client.get_entry("a", "b")
            breaker.succeeded()
        server.wait_until_left()
        assert open_descriptors() <= before + 3
        assert client._pool._free.qsize() == limits.MAX_CONNECTIONS
    with refusing_port() as port, Client(f"http://127.0.0.1:{port}", retries=0) as client:
        before = open_descriptors()
        for _ in range(100):
            with pytest.raises(ConnectFailed):
                client.get_entry("a", "b")
            client._policy.breaker.succeeded()
        assert open_descriptors() <= before + 1


def test_a_signal_in_the_middle_of_a_call() -> None:
    """Such as Ctrl-C: the exception passes, the connection is closed, its place is free."""

    class Stopped(Exception):
        pass

    def stop(*_: Any) -> None:
        raise Stopped

    previous = signal.signal(signal.SIGALRM, stop)
    try:
        with BadServer(lambda visit: visit.hang()) as server, \
                Client(server.url, timeout=PATIENT, max_connections=1) as client:
            for _ in range(3):
                signal.setitimer(signal.ITIMER_REAL, 0.2)
                with pytest.raises(Stopped):
                    client.get_entry("a", "b")
                assert client._pool._free.qsize() == 1
            server.wait_until_left()
            assert client.is_available
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


# Streams.


LINES = b"".join(b'{"id":"%d"}\n' % number for number in range(1000))


def test_a_stream_that_is_read_to_its_end_keeps_the_connection() -> None:
    with BadServer(always(answer(LINES))) as server, \
            Client(server.url, timeout=PATIENT) as client:
        for _ in range(5):
            assert len(list(client.stream_history("s"))) == 1000
        assert server.accepted == 1


def test_a_stream_that_is_left_early() -> None:
    def endless(visit: Visit) -> None:
        visit.read_request()
        visit.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not visit.server.closing.is_set():
            visit.write(b"b\r\n{\"id\":\"1\"}\n\r\n")

    with BadServer(endless) as server, \
            Client(server.url, timeout=PATIENT, max_connections=2) as client:
        for _ in range(10):
            for item in client.stream_history("s"):
                assert item["id"] == "1"
                break
        items = client.stream_history("s")
        next(items)
        items.close()  # type: ignore[attr-defined]
        assert client._pool._free.qsize() == 2
        server.wait_until_left()


def test_a_stream_that_is_refused() -> None:
    with BadServer(always(problem(404, "session_not_found"), OK)) as server, \
            Client(server.url, timeout=PATIENT) as client:
        with pytest.raises(Exception, match="session_not_found"):
            next(client.stream_history("s"))
        client.get_entry("a", "b")
        assert server.accepted == 1


# Fork.


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_fork(client: Client, name: str) -> None:
    """Parent and children go on with connections of their own, at the same time."""
    client.put_entry(name, "parent", b"p")
    children = []
    for number in range(4):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                signal.alarm(60)
                value = b"%d" % number
                for _ in range(50):
                    client.put_entry(name, f"k{number}", value)
                    assert client.get_entry(name, f"k{number}").body == value
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    for _ in range(50):
        assert client.get_entry(name, "parent").body == b"p"
    for child in children:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_fork_in_the_middle_of_a_stream(client: Client, name: str) -> None:
    client.create_session(id=name, max_history_items=100)
    for number in range(100):
        client.append_history(name, "x" * 1000, id=f"i{number}")
    stream = client.stream_history(name)
    next(stream)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(60)
            stream.close()  # type: ignore[attr-defined]
            assert len(client.list_history(name).items) == 50
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(list(stream)) == 99


# Bodies.


class Unseekable(io.RawIOBase):
    """A file that can only be read once, such as a pipe."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._data.readinto(buffer)


DATA = bytes(range(256)) * 4000


def bodies() -> Iterator[tuple[str, Any, bool]]:
    yield "bytes", DATA, True
    yield "bytearray", bytearray(DATA), True
    yield "memoryview", memoryview(DATA), True
    yield "view of wide items", memoryview(DATA).cast("I"), True
    yield "small view of wide items", memoryview(DATA[:64]).cast("I"), True
    yield "file", io.BytesIO(DATA), True
    yield "unseekable", Unseekable(DATA), False
    yield "list", [DATA[:1000], b"", memoryview(DATA[1000:])], False
    yield "generator", (DATA[start : start + 50_000] for start in range(0, len(DATA), 50_000)), \
        False
    yield "nothing", [], False
    yield "empty file", io.BytesIO(), True


@pytest.mark.parametrize(("body", "known"), [(b, k) for _, b, k in bodies()],
                         ids=[n for n, *_ in bodies()])
def test_bodies_and_progress(client: Client, name: str, body: Any, known: bool) -> None:
    told: list[tuple[int, int | None]] = []
    client.put_entry(name, "k", body, on_progress=lambda sent, total: told.append((sent, total)))
    stored = client.get_entry(name, "k").body
    expected = (DATA[:64] if len(stored) == 64 else b"" if not stored else DATA)
    assert stored == expected
    if stored:
        assert told[-1] == (len(stored), len(stored) if known else None)
        assert [sent for sent, _ in told] == sorted({sent for sent, _ in told})


def test_a_file_is_sent_from_where_it_stands_and_again_after_a_failure(name: str) -> None:
    file = io.BytesIO(b"skipped" + DATA)
    file.seek(7)

    def cut(visit: Visit) -> None:
        visit._more()

    with BadServer(in_order(cut, cut, always(answer(b"", 201)))) as server, \
            Client(server.url, timeout=PATIENT) as client:
        assert client.put_entry(name, "k", file).created
        assert server.requests[-1].endswith(b"\r\n\r\n" + DATA)
        assert client.statistics()["retries"] == 2
    with BadServer(cut) as server, Client(server.url, timeout=PATIENT) as client:
        with pytest.raises(ConnectionLost):
            client.put_entry(name, "k", Unseekable(DATA))
        assert client.statistics()["attempts"] == 1


def test_files_that_change_while_they_are_sent(client: Client, name: str) -> None:
    class Changing(io.BytesIO):
        def __init__(self, by: int) -> None:
            super().__init__(DATA)
            self._by = by

        def read(self, size: int | None = -1) -> bytes:
            piece = super().read(size)
            return piece[: self._by] if self._by < 0 else piece + b"x" * self._by

    with pytest.raises(ValueError, match="the file ended after"):
        client.put_entry(name, "k", Changing(-1))
    with pytest.raises(ValueError, match="the file grew"):
        client.put_entry(name, "k", Changing(1))
    with pytest.raises(Exception, match="cache_miss"):
        client.get_entry(name, "k")
    assert client.is_available and client._pool._free.qsize() == limits.MAX_CONNECTIONS


REFUSAL = problem(413, "payload_too_large", Connection="close")


@pytest.mark.parametrize("body", ["bytes", "file", "iterable"])
@pytest.mark.parametrize("after", ["hang", "close", "reset"])
def test_an_answer_before_the_upload_is_read(body: str, after: str) -> None:
    def refuse(visit: Visit) -> None:
        while b"\r\n\r\n" not in visit._rest:
            visit._more()
        visit.write(REFUSAL)
        if after == "hang":
            visit.server.closing.wait(60)
        elif after == "close":
            visit.socket.shutdown(socket.SHUT_WR)
            visit.server.closing.wait(60)

    data = b"x" * 30_000_000
    value: Any = {"bytes": data, "file": io.BytesIO(data),
                  "iterable": (data[:500_000] for _ in range(60))}[body]
    with BadServer(refuse) as server, Client(server.url, timeout=PATIENT, retries=0) as client:
        began = time.monotonic()
        with pytest.raises((InvalidRequest, ConnectionLost) if after == "reset"
                           else InvalidRequest) as refused:
            client.put_entry("a", "b", value, timeout=PATIENT)
        if isinstance(refused.value, InvalidRequest):
            assert refused.value.status == 413
        assert time.monotonic() - began < PATIENT / 2
        server.closing.set()
        server.wait_until_left()


def test_a_value_that_is_too_large_for_the_service(client: Client, name: str) -> None:
    client.set_policy(name, max_entry_bytes=1000)
    for value in (DATA * 20, io.BytesIO(DATA * 20), [DATA] * 20):
        with pytest.raises(InvalidRequest) as refused:
            client.put_entry(name, "k", value)  # type: ignore[arg-type]
        assert refused.value.code == "payload_too_large"


def test_large_values(client: Client, name: str) -> None:
    data = os.urandom(1_000_003) * 20
    client.put_entry(name, "large", data)
    assert client.get_entry(name, "large").body == data


# Addresses.


def test_tls(certificate: Path) -> None:
    ca_file = str(certificate / "certificate.pem")
    with BadServer(always(OK), tls=tls(certificate)) as server:
        url = f"https://localhost:{server.port}"
        with Client(url, ca_file=ca_file, timeout=PATIENT) as client:
            for _ in range(3):
                assert client.get_entry("a", "b").body == b"{}"
            client.put_entry("a", "b", DATA * 3)
            assert server.requests[-1].endswith(DATA)
            client.put_entry("a", "b", io.BytesIO(DATA))
            assert server.accepted == 1
        own = ssl.create_default_context(cafile=ca_file)
        with Client(url, ssl_context=own, timeout=PATIENT) as client:
            assert client.get_entry("a", "b").body == b"{}"
        for wrong in (Client(server.url, ca_file=ca_file, retries=0, timeout=PATIENT),
                      Client(url, retries=0, timeout=PATIENT)):
            with wrong as client, pytest.raises(ConnectFailed, match="certificate was refused"):
                client.get_entry("a", "b")
        with Client(url, ca_file="/does/not/exist.pem", retries=0) as client, \
                pytest.raises(ConnectFailed, match=r"ca_file='/does/not/exist.pem' cannot be"):
            client.get_entry("a", "b")
        server.wait_until_left()


def test_tls_with_a_plain_server() -> None:
    with BadServer(lambda visit: visit.write(OK)) as server, \
            Client(f"https://127.0.0.1:{server.port}", retries=0, timeout=PATIENT) as client:
        with pytest.raises(ConnectFailed, match="no TLS"):
            client.get_entry("a", "b")
        server.wait_until_left()


def test_tls_with_a_server_that_says_nothing() -> None:
    with BadServer(lambda visit: visit.hang()) as server, \
            Client(f"https://127.0.0.1:{server.port}", timeout=0.4) as client:
        began = time.monotonic()
        with pytest.raises((ConnectFailed, TimedOut)):
            client.get_entry("a", "b")
        assert time.monotonic() - began < 20
        server.wait_until_left()


def test_a_tls_server_that_reads_slowly(certificate: Path) -> None:
    def sip(visit: Visit) -> None:
        while not visit.pause(0.02):
            visit.socket.recv(2000)

    with BadServer(sip, tls=tls(certificate)) as server, \
            Client(f"https://localhost:{server.port}", timeout=1, retries=0,
                   ca_file=str(certificate / "certificate.pem")) as client:
        began = time.monotonic()
        with pytest.raises(TimedOut):
            client.put_entry("a", "b", b"x" * 50_000_000)
        assert time.monotonic() - began < 20


def test_a_path_before_the_one_of_the_api() -> None:
    with BadServer(always(OK)) as server, \
            Client(server.url + "/behind/a%20proxy/", timeout=PATIENT) as client:
        assert client.url.endswith("/behind/a%20proxy")
        client.get_entry("a", "b")
        client.put_entry("a", "b", b"")
        assert server.requests[0].startswith(
            b"GET /behind/a%20proxy/v1/cache/a/entries/b HTTP/1.1\r\n")
        assert server.requests[1].startswith(b"PUT /behind/a%20proxy/v1/cache/")


def test_a_unix_domain_socket(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a socket"
    with BadServer(always(OK), path=str(path)) as server, \
            Client(f"unix:{path}", timeout=PATIENT) as client:
        assert client.get_entry("a", "b").body == b"{}" and client.url == f"unix:{path}"
        assert server.accepted == 1
    with Client(f"unix:{tmp_path}/absent", retries=0) as client, \
            pytest.raises(ConnectFailed, match="absent: No such file"):
        client.get_entry("a", "b")


def test_the_unix_domain_socket_of_the_service(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    path = folder / "reprise.sock"
    service = Service(folder, "--set", f"unix_socket={path}")
    try:
        with Client(f"unix:{path}", timeout=PATIENT) as client:
            client.put_entry(name, "k", b"v")
            assert client.get_entry(name, "k").body == b"v"
    finally:
        service.stop()


def test_ipv6() -> None:
    try:
        server = BadServer(always(OK), family=socket.AF_INET6)
    except OSError:
        pytest.skip("there is no IPv6")
    with server, Client(server.url, timeout=PATIENT) as client:
        assert client.get_entry("a", "b").body == b"{}"
        assert b"Host: [::1]:%d\r\n" % server.port in server.requests[0]
        assert client.url == f"http://[::1]:{server.port}"


def test_a_name_with_several_addresses() -> None:
    """`localhost` is ::1 and 127.0.0.1; only the second one listens."""
    with BadServer(always(OK)) as server, \
            Client(f"http://localhost:{server.port}", timeout=PATIENT) as client:
        assert client.get_entry("a", "b").body == b"{}"


@pytest.mark.parametrize("url", [
    "127.0.0.1:8080", "ftp://a", "http://", "http://a?b", "http://a#b", "http://a:b", "http://a:0",
    "http://a:70000", "unix:", "unix://a/b", "http://a..b", "http://" + "ü" * 70, "http://a b",
    "http://a/b c", "http://a/ü", "http://a/\x7f"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ValueError):
        Client(url)


@pytest.mark.parametrize(("url", "host", "shown"), [
    ("http://a", "a", "http://a"), ("https://a:443/", "a", "https://a"),
    ("http://a:443", "a:443", "http://a:443"), ("https://a:80", "a:80", "https://a:80"),
    ("http://bücher.example", "xn--bcher-kva.example", "http://bücher.example"),
    ("http://[::1]:80", "[::1]", "http://[::1]"), ("HTTP://A.B/", "a.b", "http://a.b")])
def test_addresses(url: str, host: str, shown: str) -> None:
    address = Address(url)
    assert f"Host: {host}\r\n".encode() in address.common and address.url == shown


def test_the_address_and_token_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPRISE_URL", "http://reprise.example:99")
    monkeypatch.setenv("REPRISE_TOKEN", "rps_secret")
    client = Client()
    assert client.url == "http://reprise.example:99"
    assert b"Authorization: Bearer rps_secret\r\n" in client._address.common
    assert Client("http://other").url == "http://other"


# Secrets and injection.

SECRET = "rps_5ecre7"


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_token_is_shown_nowhere(
    kind: Any, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    texts: list[str] = []
    for client in (kind("http://127.0.0.1:9", token=SECRET, retries=0),
                   kind(f"http://user:{SECRET}@127.0.0.1:9", retries=0)):
        texts += [repr(client), client.url, repr(client._address), str(client.statistics())]
    for url in (f"http://u:{SECRET}@h:bad", f"ftp://u:{SECRET}@h", f"http://:{SECRET}@h?q",
                f"http://:{SECRET}@h/ü", f"http://:{SECRET}@a..b"):
        with pytest.raises(ValueError) as wrong:
            kind(url)
        texts.append(str(wrong.value))
    with pytest.raises(ValueError) as wrong:
        kind("http://h", token=SECRET + "\r\nX: y")
    texts.append(str(wrong.value))
    with BadServer(always(problem(401, "unauthenticated"))) as server:
        with Client(server.url, token=SECRET, timeout=PATIENT) as blocking:
            with pytest.raises(Unauthenticated) as refused:
                blocking.get_entry("a", "b")
            texts += [str(refused.value), repr(refused.value), str(blocking.statistics())]
            with pytest.raises(ValueError) as wrong:
                blocking.request("GET", "/", headers={"Authorization": f"Bearer {SECRET}\n"})
            texts.append(str(wrong.value))
            with pytest.raises(ValueError) as wrong:
                blocking.request("GET", "/", headers={"Authorization": SECRET, "X": "→"})
            texts.append(str(wrong.value))
        assert f"Authorization: Bearer {SECRET}\r\n".encode() in server.requests[0]
    texts += [caplog.text, *capfd.readouterr()]
    assert not [text for text in texts if SECRET in text]


@pytest.mark.parametrize("options", [
    {"path": "/v1/x HTTP/1.1\r\nX-Evil: 1\r\n\r\n"}, {"path": "/v1/x y"}, {"path": "/ü"},
    {"path": "/\0"}, {"path": "v1"}, {"path": "http://elsewhere/"},
    {"method": "GET / HTTP/1.1\r\nX: y\r\n\r\nGET"}, {"method": ""}, {"method": "G T"},
    {"headers": {"X": "a\r\nEvil: 1"}}, {"headers": {"X": "a\nEvil: 1"}}, {"headers": {"X": "a\0"}},
    {"headers": {"X: y\r\nEvil": "1"}}, {"headers": {"X Y": "1"}}, {"headers": {"": "1"}},
    {"headers": {"Content-Length": "5"}}, {"headers": {"transfer-encoding": "chunked"}},
    {"headers": {"Host": "elsewhere"}}])
def test_injection_is_refused(options: dict[str, Any]) -> None:
    empty = answer(
        b'{"items":[],"next_cursor":null,"id":"s","version":1,"state":{}}')
    with BadServer(always(empty)) as server, Client(server.url, timeout=PATIENT) as client:
        with pytest.raises(ValueError):
            client.request(**{"method": "GET", "path": "/", **options})
        with pytest.raises(ValueError):
            client.put_entry("a", "b", b"", content_type="text/plain\r\nX: y")
        with pytest.raises(ValueError):
            client.get_entry("a", "b", if_none_match='"1"\r\nX: y')
        client.open_session("s", include=["state HTTP/1.1\r\nX: y"])
        client.list_sessions(cursor="a b\r\n&limit=1")
        client.get_state("s", keys=["a\r\nb"])
        assert len(server.requests) == 3
        assert not [r for r in server.requests if b"\nX:" in r or b"Evil" in r or b" b" in r]
        assert client.is_available


def test_problems_can_be_pickled() -> None:
    with BadServer(always(problem(429, "slow_down", Retry_After="9"))) as server, \
            Client(server.url, timeout=1) as client:
        with pytest.raises(Exception) as refused:
            client.get_entry("a", "b")
    copied = pickle.loads(pickle.dumps(refused.value))
    assert type(copied) is type(refused.value) and str(copied) == str(refused.value)
    assert copied.retry_after == 9 and copied.code == "slow_down"


def test_an_address_without_a_scheme_hides_its_password() -> None:
    with pytest.raises(ValueError) as caught:
        Client("bob:SECRET@example.test")
    assert "SECRET" not in str(caught.value) and "example.test" in str(caught.value)
