"""A server that misbehaves as the test says: it hangs, stops in the middle, sends garbage.

A behaviour is a function that is called with each connection, in a thread of its own.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator

#: Seconds until a test gives up waiting for what must happen.
PATIENCE = 30.0

OK = (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nETag: \"1\"\r\n"
      b"Content-Length: 2\r\n\r\n{}")


def answer(
    body: bytes = b"{}", status: int = 200, *, kind: str = "application/json", **fields: str
) -> bytes:
    """An answer with a length and an `ETag`; `fields` are more header fields, `_` for `-`."""
    head = f"HTTP/1.1 {status} Some Reason\r\nContent-Type: {kind}\r\nETag: \"1\"\r\n"
    for name, value in fields.items():
        head += f"{name.replace('_', '-')}: {value}\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body


CREATED = answer(b"", 201)


def problem(status: int, code: str, **fields: str) -> bytes:
    body = b'{"status":%d,"code":"%s","title":"It failed","request_id":"r-1"}' % (
        status, code.encode())
    return answer(body, status, kind="application/problem+json", **fields)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"it never happened that {what}")
        time.sleep(0.005)


class Visit:
    """One connection, as the server sees it."""

    def __init__(self, server: BadServer, connected: socket.socket) -> None:
        self.server, self.socket = server, connected
        self._rest = b""

    def read_request(self) -> bytes | None:
        """The head and the body of the next request; None at the end of the connection."""
        while b"\r\n\r\n" not in self._rest:
            if not self._more():
                return None
        head, _, rest = self._rest.partition(b"\r\n\r\n")
        lower = head.lower()
        if b"content-length:" in lower:
            length = int(lower.split(b"content-length:")[1].split(b"\r\n")[0])
            while len(rest) < length:
                self._rest = b""
                if not self._more():
                    return None
                rest += self._rest
            body, self._rest = rest[:length], rest[length:]
        elif b"transfer-encoding: chunked" in lower:
            while not rest.endswith(b"0\r\n\r\n"):
                self._rest = b""
                if not self._more():
                    return None
                rest += self._rest
            body, self._rest = rest, b""
        else:
            body, self._rest = b"", rest
        request = head + b"\r\n\r\n" + body
        self.server.requests.append(request)
        return request

    def _more(self) -> bool:
        data = self.socket.recv(65536)
        self._rest += data
        return bool(data)

    def write(self, data: bytes) -> None:
        self.socket.sendall(data)

    def drip(self, data: bytes, seconds: float = 0.02) -> None:
        """Sends byte by byte."""
        for index in range(len(data)):
            self.socket.sendall(data[index : index + 1])
            if self.pause(seconds):
                return

    def pause(self, seconds: float) -> bool:
        """Waits; true if the server is being closed."""
        return self.server.closing.wait(seconds)

    def hang(self) -> None:
        """Answers nothing until the client or the test goes."""
        self.socket.settimeout(0.05)
        while not self.server.closing.is_set():
            try:
                if not self.socket.recv(65536):
                    return
            except TimeoutError:
                continue

    def reset(self) -> None:
        """Ends the connection with a reset instead of an orderly end."""
        self.socket.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")


Behaviour = Callable[[Visit], None]


class BadServer:
    """Listens, and lets `behaviour` treat each connection. Counts connections and requests."""

    def __init__(
        self, behaviour: Behaviour, *, family: int = socket.AF_INET, path: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.behaviour = behaviour
        self.requests: list[bytes] = []
        self.accepted = 0
        self.open = 0
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._tls = tls
        self._sockets: set[socket.socket] = set()
        self._listening = socket.socket(socket.AF_UNIX if path else family, socket.SOCK_STREAM)
        if path:
            self._listening.bind(path)
            self.url = f"unix:{path}"
        else:
            self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
            self._listening.bind((host, 0))
            self.port = self._listening.getsockname()[1]
            shown = f"[{host}]" if ":" in host else host
            self.url = f"{'https' if tls else 'http'}://{shown}:{self.port}"
        self._listening.listen(128)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connected, _ = self._listening.accept()
            except OSError:
                return
            with self._lock:
                self.accepted += 1
                self.open += 1
                self._sockets.add(connected)
            threading.Thread(target=self._serve, args=(connected,), daemon=True).start()

    def _serve(self, connected: socket.socket) -> None:
        try:
            with contextlib.suppress(OSError):
                if self._tls is not None:
                    connected = self._tls.wrap_socket(connected, server_side=True)
                self.behaviour(Visit(self, connected))
        finally:
            with contextlib.suppress(OSError):
                connected.close()
            with self._lock:
                self.open -= 1
                self._sockets.discard(connected)

    def wait_until_left(self) -> None:
        """Waits until no connection is open."""
        wait_until(lambda: self.open == 0, "all connections were closed")

    def __enter__(self) -> BadServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for connected in list(self._sockets):
            with contextlib.suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)


def always(*answers: bytes) -> Behaviour:
    """Answers each request of a connection with the next of these, and with the last from then
    on. `OK` is 201 for a PUT."""

    def behave(visit: Visit) -> None:
        count = 0
        while (request := visit.read_request()) is not None:
            data = answers[min(count, len(answers) - 1)]
            if data is OK and request.startswith(b"PUT"):
                data = CREATED
            if request.startswith(b"HEAD"):
                data = data.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
            visit.write(data)
            count += 1

    return behave


def once(data: bytes) -> Behaviour:
    """Sends this after a request, and ends the connection."""

    def behave(visit: Visit) -> None:
        if visit.read_request() is not None:
            visit.write(data)

    return behave


def in_order(*behaviours: Behaviour) -> Behaviour:
    """Treats each connection with the next of these, and with the last from then on."""
    lock, left = threading.Lock(), list(behaviours)

    def behave(visit: Visit) -> None:
        with lock:
            behaviour = left.pop(0) if len(left) > 1 else left[0]
        behaviour(visit)

    return behave


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@contextlib.contextmanager
def refusing_port() -> Iterator[int]:
    """A port at which nobody listens, and that nobody else gets."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]
