"""The asyncio transport: a pool of keep-alive connections for each event loop."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from .. import limits
from ..errors import ConnectFailed, ConnectionLost, RepriseError, TimedOut
from .address import Address
from .message import Request, Response, check_size
from .sync import _position, _reason, framed
from .wire import ResponseReader

T = TypeVar("T")

#: Bytes of a body that is sent together with its head, at most.
_JOINED_BYTES = 64 * 1024
#: Bytes of a streamed body that wait to be read, before the sender is slowed down.
_HIGH_WATER_BYTES = 1024 * 1024


class AsyncStreamedResponse(Response):
    """An answer whose body is read piece by piece. Close it, or read it to its end."""

    __slots__ = ("_connection", "_deadline", "_pool", "length")

    def __init__(self, pool: AsyncPool, connection: AsyncConnection, deadline: float) -> None:
        reader = connection.reader
        super().__init__(reader.status, reader.headers, b"")
        #: The body's bytes in all, if they are told.
        self.length = reader.content_length
        self._pool = pool
        self._connection: AsyncConnection | None = connection
        self._deadline = deadline

    async def __aiter__(self) -> AsyncIterator[bytes]:
        connection = self._connection
        if connection is None:
            return
        try:
            async for piece in connection.pieces(self._deadline):
                yield piece
        except BaseException:
            self.close()
            raise
        self._connection = None
        self._pool.give_back(connection)

    def close(self) -> None:
        """Gives up what was not read, and the connection with it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.discard(connection)

    async def __aenter__(self) -> AsyncStreamedResponse:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


class AsyncConnection(asyncio.Protocol):
    """One connection, used by one task at a time."""

    #: Where it belongs.
    pool: _LoopPool

    def __init__(self, address: Address) -> None:
        self._address = address
        self._loop = asyncio.get_running_loop()
        self.reader = ResponseReader()
        self.was_used = False
        self.idle_since = 0.0
        self._transport: asyncio.Transport | None = None
        self._error: RepriseError | None = None
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._is_paused = False
        self._buffered = 0

    @classmethod
    async def connect(cls, address: Address, deadline: float) -> AsyncConnection:
        seconds = min(limits.CONNECT_SECONDS, deadline - time.monotonic())
        if seconds <= 0:
            raise TimedOut("the call's time was over before it connected", sent=False)
        loop = asyncio.get_running_loop()
        context = address.tls()
        try:
            if address.socket_path is not None:
                opening = loop.create_unix_connection(lambda: cls(address), address.socket_path)
            else:
                opening = loop.create_connection(
                    lambda: cls(address),
                    address.host,
                    address.port,
                    ssl=context,
                    server_hostname=address.host if context else None,
                )
            _, connection = await _limited(opening, seconds)
        except (TimeoutError, asyncio.TimeoutError):
            raise ConnectFailed(f"cannot reach {address.url}: timed out") from None
        except ssl.SSLError as error:
            raise ConnectFailed(f"no TLS with {address.url}: {_reason(error)}") from None
        except OSError as error:
            raise ConnectFailed(f"cannot reach {address.url}: {_reason(error)}") from None
        return connection

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            self.reader.feed(data)
        except RepriseError as error:
            self._error = error
            self.close()
        if self.reader.head_complete:
            # Whoever still sends need not wait until the service reads it.
            self.resume_writing()
        self._buffered += len(data)
        if self._buffered > _HIGH_WATER_BYTES and self._transport and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        self._ended = True
        self._wake()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        if exc is not None and self._error is None:
            reason = _reason(exc) if isinstance(exc, OSError) else str(exc)
            self._error = ConnectionLost(f"the connection broke: {reason}")
        self._wake()
        self.resume_writing()

    def pause_writing(self) -> None:
        self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # What a call does.

    @property
    def is_alive(self) -> bool:
        return not self._ended and self._error is None

    def listen(self) -> None:
        """Reads on, after what had arrived was used up."""
        if self._is_paused and self._transport is not None:
            self._is_paused = False
            self._buffered = 0
            self._transport.resume_reading()

    def close(self) -> None:
        if self._transport is not None and not self._loop.is_closed():
            self._transport.abort()

    async def send(self, request: Request, deadline: float) -> bool:
        """Writes a request, as fast as the service reads it; false if it was answered before all
        of it was sent, as with a 413."""
        self.reader.begin(head_request=request.method == "HEAD")
        self._buffered = 0
        body = request.body
        head = request.head(self._address.common)
        if self._address.prefix:
            space = len(request.method) + 1
            head = head[:space] + self._address.prefix.encode("ascii") + head[space:]
        if body is None:
            bodiless = request.method in ("GET", "HEAD", "DELETE")
            await self._write(
                head + (b"\r\n" if bodiless else b"Content-Length: 0\r\n\r\n"), deadline
            )
        elif isinstance(body, (bytes, bytearray, memoryview)):
            size = body.nbytes if isinstance(body, memoryview) else len(body)
            head += b"Content-Length: %d\r\n\r\n" % size
            if size <= _JOINED_BYTES:
                await self._write(head + body, deadline)
                if request.on_progress:
                    request.on_progress(size, size)
                return True
            await self._write(head, deadline)
            view = memoryview(body).cast("B")
            for start in range(0, size, limits.CHUNK_BYTES):
                piece = view[start : start + limits.CHUNK_BYTES]
                await self._write(piece, deadline)
                if self.reader.head_complete and start + len(piece) < size:
                    return False
                if request.on_progress:
                    request.on_progress(start + len(piece), size)
        else:
            # A file is read by another thread, so that a slow disk does not hold the loop; what
            # the app is told is told here.
            told: list[tuple[int, int | None]] = []
            pieces = framed(request, head, lambda sent, total: told.append((sent, total)))
            while True:
                piece_or_end = await asyncio.to_thread(next, pieces, None)
                for sent, total in told:
                    if request.on_progress:
                        request.on_progress(sent, total)
                told.clear()
                if piece_or_end is None:
                    break
                if self.reader.head_complete:
                    return False
                await self._write(piece_or_end, deadline)
        return True

    async def _write(self, data: bytes | memoryview, deadline: float) -> None:
        if self._error is not None:
            raise self._error
        if self._ended or self._transport is None:
            raise ConnectionLost("the request could not be sent: the connection ended")
        if deadline <= time.monotonic():
            raise TimedOut("the call's time was over while its request was sent")
        self._transport.write(data)
        writable = self._writable
        if writable is not None:
            await _within(writable, deadline, "the call's time was over while its request was sent")

    async def _more(self, deadline: float) -> bool:
        """Waits for more of an answer; False at the end of the connection."""
        if self._error is not None:
            raise self._error
        if self._ended:
            return False
        self.listen()
        waiter = self._waiter = asyncio.get_running_loop().create_future()
        try:
            await _within(
                waiter, deadline, "the call's time was over before its answer was complete")
        finally:
            self._waiter = None
        if self._error is not None:
            raise self._error
        return True

    async def receive_head(self, deadline: float) -> None:
        reader = self.reader
        while not reader.head_complete:
            if not await self._more(deadline) and not reader.head_complete:
                raise ConnectionLost(
                    "the service closed the connection before it answered"
                    if not reader.status
                    else "the connection ended in the middle of an answer"
                )

    async def receive_body(self, deadline: float, max_bytes: int) -> bytes:
        reader = self.reader
        if reader.complete:
            chunks = reader.chunks
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)
        length = reader.content_length
        if length is not None:
            check_size(length, max_bytes, is_whole=True)
        size = 0
        pieces = []
        async for piece in self.pieces(deadline):
            size += len(piece)
            check_size(size, max_bytes, is_whole=False)
            pieces.append(piece)
        return b"".join(pieces)

    async def pieces(self, deadline: float) -> AsyncIterator[bytes]:
        """The body as it arrives."""
        reader = self.reader
        while True:
            while reader.chunks:
                yield reader.chunks.popleft()
            if reader.complete:
                return
            if not await self._more(deadline) and not reader.complete and not reader.chunks:
                if not reader.feed_end():
                    raise ConnectionLost("the connection ended in the middle of an answer")


async def _within(
    future: asyncio.Future[None], deadline: float, text: str, *, sent: bool = True
) -> None:
    """Waits for a future until the deadline; then raises `TimedOut` with this text."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimedOut(text, sent=sent)
    handle = asyncio.get_running_loop().call_later(seconds, _expire, future, text, sent)
    try:
        await future
    finally:
        handle.cancel()


def _expire(future: asyncio.Future[None], text: str, sent: bool) -> None:
    if not future.done():
        future.set_exception(TimedOut(text, sent=sent))


async def _limited(opening: Coroutine[Any, Any, T], seconds: float) -> T:
    if sys.version_info < (3, 11):
        return await asyncio.wait_for(opening, seconds)
    # `wait_for` of Python 3.11 can swallow a cancellation, and lose the connection.
    async with asyncio.timeout(seconds):
        return await opening


class _LoopPool:
    """The connections of one event loop."""

    def __init__(self, size: int) -> None:
        self.idle: deque[AsyncConnection] = deque()
        self._size = size
        self._free = size
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take_place(self, deadline: float) -> None:
        """Waits until there may be one more connection in use."""
        if self._free > 0:
            self._free -= 1
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await _within(
                place, deadline, sent=False,
                text=f"all {self._size} connections were in use until the call's time was over")
        except BaseException:
            if place.done() and not place.cancelled() and place.exception() is None:
                # It was given at the moment of a cancellation.
                self.leave_place()
            else:
                with contextlib.suppress(ValueError):
                    self._waiting.remove(place)
            raise

    def leave_place(self) -> None:
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self._free += 1


class AsyncPool:
    """Connections to one service, at most `size` at once for each event loop."""

    def __init__(self, address: Address, size: int = limits.MAX_CONNECTIONS) -> None:
        self.address = address
        self._size = size
        self._pools: dict[asyncio.AbstractEventLoop, _LoopPool] = {}

    def _pool(self) -> _LoopPool:
        loop = asyncio.get_running_loop()
        pool = self._pools.get(loop)
        if pool is None:
            for other in list(self._pools):
                # Its connections keep a loop alive, and cannot be used again.
                if other.is_closed():
                    self._pools.pop(other, None)
            pool = self._pools[loop] = _LoopPool(self._size)
        return pool

    async def send(self, request: Request, deadline: float) -> Response:
        """Sends a request, and waits for its answer. Raises `TransportError`."""
        position = _position(request.body)
        is_repeatable = request.repeatable and request.is_replayable
        connection = await self._take(deadline)
        reader = connection.reader
        try:
            try:
                is_sent = await connection.send(request, deadline)
            except ConnectionLost:
                # The service may have answered before it closed the connection.
                if not reader.head_complete:
                    raise
                is_sent = False
            await connection.receive_head(deadline)
            if not is_sent:
                reader.keep_alive = False
            if request.streamed and reader.status < 300:
                return AsyncStreamedResponse(self, connection, deadline)
            body = await connection.receive_body(deadline, request.max_bytes)
            response = Response(reader.status, reader.headers, body)
        except BaseException as error:
            self.discard(connection)
            if position is not None:
                request.body.seek(position)  # type: ignore[union-attr]
            if (
                isinstance(error, ConnectionLost)
                and connection.was_used
                and not reader.status
                and is_repeatable
            ):
                # The service closed an idle connection at the moment it was used again.
                await self.close()
                return await self.send(request, deadline)
            raise
        self.give_back(connection)
        return response

    async def _take(self, deadline: float) -> AsyncConnection:
        pool = self._pool()
        await pool.take_place(deadline)
        try:
            while pool.idle:
                connection = pool.idle.pop()
                idle = time.monotonic() - connection.idle_since
                if connection.is_alive and idle < limits.MAX_IDLE_SECONDS:
                    return connection
                connection.close()
            connection = await AsyncConnection.connect(self.address, deadline)
            connection.pool = pool
            return connection
        except BaseException:
            pool.leave_place()
            raise

    def give_back(self, connection: AsyncConnection) -> None:
        """Keeps a connection for the next request, if it can be used for one."""
        pool = connection.pool
        if connection.reader.keep_alive and connection.reader.complete and connection.is_alive:
            connection.was_used = True
            connection.idle_since = time.monotonic()
            connection.listen()
            pool.idle.append(connection)
        else:
            connection.close()
        pool.leave_place()

    def discard(self, connection: AsyncConnection) -> None:
        """Closes a connection that is in an unknown state."""
        connection.close()
        connection.pool.leave_place()

    async def close(self) -> None:
        """Closes what is idle in this event loop; the pool can be used again."""
        pool = self._pool()
        while pool.idle:
            pool.idle.pop().close()
