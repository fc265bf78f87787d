"""The blocking transport: a pool of keep-alive connections over sockets."""

from __future__ import annotations

import contextlib
import io
import os
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any

from .. import limits
from ..errors import (
    ConnectFailed,
    ConnectionLost,
    RepriseError,
    TimedOut,
)
from .address import Address
from .message import Progress, Request, Response, check_size
from .wire import ResponseReader

_RECEIVE_BYTES = 64 * 1024


class StreamedResponse(Response):
    """An answer whose body is read piece by piece. Close it, or read it to its end."""

    __slots__ = ("_connection", "_deadline", "_pool", "_process", "length")

    def __init__(self, pool: Pool, connection: Connection, deadline: float) -> None:
        reader = connection.reader
        super().__init__(reader.status, reader.headers, b"")
        #: The body's bytes in all, if they are told.
        self.length = reader.content_length
        self._pool = pool
        self._connection: Connection | None = connection
        self._deadline = deadline
        self._process = os.getpid()

    def __iter__(self) -> Iterator[bytes]:
        connection = self._connection
        if connection is None:
            return
        try:
            yield from connection.pieces(self._deadline)
        except BaseException:
            self.close()
            raise
        if self._process != os.getpid():
            # The parent may read from the same connection.
            self.close()
            return
        self._connection = None
        self._pool.give_back(connection)

    def close(self) -> None:
        """Gives up what was not read, and the connection with it."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._process == os.getpid():
            self._pool.discard(connection)
        else:
            connection.close()

    def __enter__(self) -> StreamedResponse:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Connection:
    """One connection, used by one thread at a time."""

    __slots__ = ("_address", "_is_tls", "_patience", "_socket", "idle_since", "reader", "was_used")

    def __init__(self, address: Address, deadline: float) -> None:
        self._address = address
        self.reader = ResponseReader()
        self.was_used = False
        self.idle_since = 0.0
        if deadline <= time.monotonic():
            raise TimedOut("the call's time was over before it connected", sent=False)
        context = address.tls()
        self._is_tls = context is not None
        try:
            connected = _connect(address, deadline)
        except OSError as error:
            raise ConnectFailed(f"cannot reach {address.url}: {_reason(error)}") from None
        try:
            if address.socket_path is None:
                connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if context is not None:
                connected.settimeout(max(deadline - time.monotonic(), 0.001))
                connected = context.wrap_socket(connected, server_hostname=address.host)
        except OSError as error:
            connected.close()
            raise ConnectFailed(f"no TLS with {address.url}: {_reason(error)}") from None
        except BaseException:
            connected.close()
            raise
        self._socket = connected
        #: The seconds that the socket waits at most.
        self._patience = -1.0

    def close(self) -> None:
        try:
            self._socket.close()
        except OSError:
            pass

    @property
    def is_alive(self) -> bool:
        """False if the service closed it, or sent what nobody asked for."""
        try:
            return not _ready(self._socket, 0)[0]
        except (OSError, ValueError):
            return False

    def send(self, request: Request, deadline: float) -> bool:
        """Sends a request; false if it was answered before all of it was sent, as with a 413."""
        self.reader.begin(head_request=request.method == "HEAD")
        common = self._address.common
        body = request.body
        head = request.head(common)
        if self._address.prefix:
            space = len(request.method) + 1
            head = head[:space] + self._address.prefix.encode("ascii") + head[space:]
        write = self._write
        if body is None:
            if request.method in ("GET", "HEAD", "DELETE"):
                write(head + b"\r\n", deadline)
            else:
                write(head + b"Content-Length: 0\r\n\r\n", deadline)
        elif isinstance(body, (bytes, bytearray, memoryview)):
            size = body.nbytes if isinstance(body, memoryview) else len(body)
            head += b"Content-Length: %d\r\n\r\n" % size
            if size <= _RECEIVE_BYTES:
                write(head + body, deadline)
                if request.on_progress:
                    request.on_progress(size, size)
            else:
                write(head, deadline)
                view = memoryview(body).cast("B")
                for start in range(0, size, limits.CHUNK_BYTES):
                    piece = view[start : start + limits.CHUNK_BYTES]
                    if not self._write_unless_answered(piece, deadline):
                        return False
                    if request.on_progress:
                        request.on_progress(start + len(piece), size)
        else:
            for framed_piece in framed(request, head, request.on_progress):
                if not self._write_unless_answered(framed_piece, deadline):
                    return False
        return True

    def _write(self, data: bytes | memoryview, deadline: float) -> None:
        try:
            if self._is_tls:
                # Its `sendall` would take the whole time for each of its records.
                view = memoryview(data)
                while view:
                    self._allow(deadline, "while its request was sent")
                    view = view[self._socket.send(view) :]
            else:
                self._allow(deadline, "while its request was sent")
                self._socket.sendall(data)
        except TimeoutError:
            raise TimedOut("the call's time was over while its request was sent") from None
        except OSError as error:
            raise ConnectionLost(f"the request could not be sent: {_reason(error)}") from None

    def _write_unless_answered(self, data: bytes | memoryview, deadline: float) -> bool:
        """Writes a piece of a large body; false if an answer came meanwhile.

        A service that refuses a body need not read it, so that waiting until all is sent could
        mean waiting for nothing.
        """
        if self._is_tls:
            # What can be read may be a message of TLS itself.
            self._write(data, deadline)
            return True
        view = memoryview(data)
        while view:
            seconds = deadline - time.monotonic()
            try:
                readable, writable = _ready(self._socket, seconds, to_write=True)
                if readable:
                    received = self._receive(deadline)
                    if not received:
                        raise ConnectionLost("the service closed the connection before it had "
                                             "read the request")
                    self.reader.feed(received)
                    if self.reader.head_complete:
                        return False
                elif writable:
                    self._allow(deadline, "while its request was sent")
                    view = view[self._socket.send(view) :]
                else:
                    raise TimedOut("the call's time was over while its request was sent")
            except TimeoutError:
                raise TimedOut("the call's time was over while its request was sent") from None
            except OSError as error:
                raise ConnectionLost(f"the request could not be sent: {_reason(error)}") from None
        return True

    def _allow(self, deadline: float, when: str) -> None:
        """Lets the next step on the socket take until the deadline."""
        seconds = deadline - time.monotonic()
        if seconds <= 0:
            raise TimedOut(f"the call's time was over {when}")
        # A system call that a difference of a millisecond is not worth.
        if not -0.001 < self._patience - seconds < 0.001:
            self._socket.settimeout(seconds)
            self._patience = seconds

    def _receive(self, deadline: float) -> bytes:
        try:
            self._allow(deadline, "before its answer was complete")
            return self._socket.recv(_RECEIVE_BYTES)
        except TimeoutError:
            raise TimedOut("the call's time was over before its answer was complete") from None
        except OSError as error:
            raise ConnectionLost(f"the connection broke: {_reason(error)}") from None

    def receive_head(self, deadline: float) -> None:
        """Reads until an answer's head is complete."""
        reader = self.reader
        while not reader.head_complete:
            data = self._receive(deadline)
            if not data:
                raise ConnectionLost(
                    "the service closed the connection before it answered"
                    if not reader.status
                    else "the connection ended in the middle of an answer"
                )
            reader.feed(data)

    def receive_body(self, deadline: float, max_bytes: int) -> bytes:
        """Reads the rest of the body into memory."""
        reader = self.reader
        if reader.complete:
            chunks = reader.chunks
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)
        length = reader.content_length
        if length is not None:
            check_size(length, max_bytes, is_whole=True)
            return self._receive_exactly(length, deadline)
        size = 0
        pieces = []
        for piece in self.pieces(deadline):
            size += len(piece)
            check_size(size, max_bytes, is_whole=False)
            pieces.append(piece)
        return b"".join(pieces)

    def _receive_exactly(self, length: int, deadline: float) -> bytes:
        """The body of a known length. The kernel writes it where it stays: nothing is copied."""
        reader = self.reader
        buffer = io.BytesIO()
        buffer.seek(length - 1)
        buffer.write(b"\0")
        with buffer.getbuffer() as view:
            filled = 0
            for chunk in reader.chunks:
                view[filled : filled + len(chunk)] = chunk
                filled += len(chunk)
            while filled < length:
                try:
                    self._allow(deadline, "before its answer was complete")
                    count = self._socket.recv_into(view[filled:])
                except TimeoutError:
                    raise TimedOut(
                        "the call's time was over before its answer was complete"
                    ) from None
                except OSError as error:
                    raise ConnectionLost(f"the connection broke: {_reason(error)}") from None
                if count == 0:
                    raise ConnectionLost(
                        f"the connection ended after {filled} of {length} bytes of the answer"
                    )
                filled += count
        reader.abandon_parser()
        return buffer.getvalue()

    def pieces(self, deadline: float) -> Iterator[bytes]:
        """The body as it arrives."""
        reader = self.reader
        while True:
            while reader.chunks:
                yield reader.chunks.popleft()
            if reader.complete:
                return
            data = self._receive(deadline)
            if not data:
                if reader.feed_end():
                    continue
                raise ConnectionLost("the connection ended in the middle of an answer")
            reader.feed(data)


def _connect(address: Address, deadline: float) -> socket.socket:
    """Tries the addresses that a name has, one after the other."""
    choices: list[tuple[Any, ...]]
    if address.socket_path is not None:
        choices = [(socket.AF_UNIX, socket.SOCK_STREAM, 0, "", address.socket_path)]
    else:
        choices = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    failure: OSError = TimeoutError()
    for family, kind, protocol, _, where in choices:
        seconds = min(limits.CONNECT_SECONDS, deadline - time.monotonic())
        if seconds <= 0:
            break
        try:
            connected = socket.socket(family, kind, protocol)
        except OSError as error:
            failure = error
            continue
        try:
            connected.settimeout(seconds)
            connected.connect(where)
            return connected
        except OSError as error:
            connected.close()
            failure = error
        except BaseException:
            connected.close()
            raise
    raise failure


def _ready(
    watched: socket.socket, seconds: float, *, to_write: bool = False
) -> tuple[bool, bool]:
    """Whether something can be read, and whether something can be written, after waiting for it
    for so many seconds."""
    seconds = max(seconds, 0)
    if not hasattr(select, "poll"):
        readable, writable, _ = select.select(
            (watched,), (watched,) if to_write else (), (), seconds)
        return bool(readable), bool(writable)
    poll = select.poll()
    poll.register(watched, select.POLLIN | (select.POLLOUT if to_write else 0))
    found = poll.poll(seconds * 1000)
    events = found[0][1] if found else 0
    # Errors and the end are found by reading.
    return bool(events & ~select.POLLOUT), bool(events & select.POLLOUT)


def framed(request: Request, head: bytes, progress: Progress | None) -> Iterator[bytes]:
    """A request whose body is a file or an iterable: with its length if that is known, otherwise
    in chunks. `progress` is called after each piece was sent."""
    body = request.body
    total = _remaining(body)
    sent = 0
    if total is None:
        yield head + b"Transfer-Encoding: chunked\r\n\r\n"
    else:
        yield head + b"Content-Length: %d\r\n\r\n" % total
    for piece in _pieces_of(body):
        if not isinstance(piece, (bytes, bytearray, memoryview)):
            raise TypeError(f"a body consists of bytes, not of {type(piece).__name__}")
        if not piece:
            continue
        sent += len(piece)
        if total is None:
            yield b"%x\r\n" % len(piece) + bytes(piece) + b"\r\n"
        else:
            if sent > total:
                raise ValueError("the file grew while it was sent")
            yield piece
        if progress:
            progress(sent, total)
    if total is None:
        yield b"0\r\n\r\n"
    elif sent < total:
        raise ValueError(f"the file ended after {sent} of {total} bytes while it was sent")


def _pieces_of(body: Any) -> Iterator[bytes]:
    read = getattr(body, "read", None)
    if read is None:
        yield from body
        return
    while piece := read(limits.CHUNK_BYTES):
        yield piece


def _remaining(body: object) -> int | None:
    """The bytes of a file from its present position; None if that cannot be told."""
    seekable = getattr(body, "seekable", None)
    if seekable is None or not seekable():
        return None
    tell, seek = body.tell, body.seek  # type: ignore[attr-defined]
    position = tell()
    end = seek(0, os.SEEK_END)
    seek(position)
    return int(end) - int(position)


class Pool:
    """Connections to one service, at most `size` at once. Safe between threads and after fork."""

    def __init__(self, address: Address, size: int = limits.MAX_CONNECTIONS) -> None:
        self.address = address
        self._size = size
        self._reset()

    def _reset(self) -> None:
        self._process = os.getpid()
        self._idle: deque[Connection] = deque()
        #: As many as there may be further connections in use.
        self._free: SimpleQueue[None] = SimpleQueue()
        for _ in range(self._size):
            self._free.put(None)

    def send(self, request: Request, deadline: float) -> Response:
        """Sends a request, and waits for its answer. Raises `TransportError`."""
        position = _position(request.body)
        is_repeatable = request.repeatable and request.is_replayable
        connection = self._take(deadline, check=not is_repeatable)
        try:
            reader = connection.reader
            try:
                is_sent = connection.send(request, deadline)
            except ConnectionLost:
                # The service may have answered before it closed the connection.
                with contextlib.suppress(RepriseError):
                    connection.receive_head(deadline)
                if not reader.head_complete:
                    raise
                is_sent = False
            connection.receive_head(deadline)
            if not is_sent:
                reader.keep_alive = False
            if request.streamed and reader.status < 300:
                return StreamedResponse(self, connection, deadline)
            body = connection.receive_body(deadline, request.max_bytes)
            response = Response(reader.status, reader.headers, body)
        except BaseException as error:
            self.discard(connection)
            if position is not None:
                request.body.seek(position)  # type: ignore[union-attr]
            if (
                isinstance(error, ConnectionLost)
                and connection.was_used
                and not connection.reader.status
                and is_repeatable
            ):
                # The service closed an idle connection at the moment it was used again.
                return self._send_anew(request, deadline)
            raise
        self.give_back(connection)
        return response

    def _send_anew(self, request: Request, deadline: float) -> Response:
        """Sends it over a new connection, because those that are idle may have ended as well."""
        while self._idle:
            try:
                self._idle.pop().close()
            except IndexError:
                break
        return self.send(request, deadline)

    def _take(self, deadline: float, *, check: bool = False) -> Connection:
        """A connection that nobody else uses. `check`: looks at an idle one in any case, because
        the request cannot be sent again over another."""
        if self._process != os.getpid():
            # A forked child must not use its parent's connections.
            self._reset()
        try:
            self._free.get_nowait()
        except Empty:
            try:
                self._free.get(timeout=max(deadline - time.monotonic(), 0))
            except Empty:
                raise TimedOut(
                    f"all {self._size} connections were in use until the call's time was over",
                    sent=False,
                ) from None
        try:
            while True:
                try:
                    connection = self._idle.pop()
                except IndexError:
                    return Connection(self.address, deadline)
                idle = time.monotonic() - connection.idle_since
                if idle < limits.MAX_IDLE_SECONDS and (
                    (idle < limits.IDLE_CHECK_SECONDS and not check) or connection.is_alive
                ):
                    return connection
                connection.close()
        except BaseException:
            self._free.put(None)
            raise

    def give_back(self, connection: Connection) -> None:
        """Keeps a connection for the next request, if it can be used for one."""
        if connection.reader.keep_alive and connection.reader.complete:
            connection.was_used = True
            connection.idle_since = time.monotonic()
            self._idle.append(connection)
        else:
            connection.close()
        self._free.put(None)

    def discard(self, connection: Connection) -> None:
        """Closes a connection that is in an unknown state."""
        connection.close()
        self._free.put(None)

    def close(self) -> None:
        """Closes what is idle; the pool can be used again."""
        if self._process != os.getpid():
            self._reset()
            return
        while self._idle:
            try:
                self._idle.pop().close()
            except IndexError:
                return


def _position(body: object) -> int | None:
    """Where a file stands, so that it can be sent again."""
    if body is None or isinstance(body, (bytes, bytearray, memoryview)):
        return None
    seekable = getattr(body, "seekable", None)
    if seekable is None or not seekable():
        return None
    return int(body.tell())  # type: ignore[attr-defined]


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate was refused, {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return error.reason or str(error)
    if isinstance(error, TimeoutError):
        return "timed out"
    return error.strerror or str(error)


__all__ = ["Pool", "StreamedResponse"]
