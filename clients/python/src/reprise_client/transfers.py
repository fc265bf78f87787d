"""Large values: to files, as files that can be seeked, and as streams."""

from __future__ import annotations

import asyncio
import io
import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from typing import IO, TYPE_CHECKING, Any

from . import limits
from .errors import ConnectionLost, InvalidResponse, PreconditionFailed, RepriseError
from .http.aio import AsyncStreamedResponse
from .http.message import Headers, Progress, Request
from .http.sync import StreamedResponse

if TYPE_CHECKING:
    from .client import AsyncClient, Client


def total_bytes(headers: Headers) -> int | None:
    """The whole value's bytes, from an answer with a part of it."""
    _, _, total = (headers.get("content-range") or "").rpartition("/")
    return int(total) if total.isdigit() else None


class EntryFile(io.RawIOBase):
    """A value as a file for reading. Reads what is asked for by range, and nothing else.

    If the value is replaced meanwhile, reading raises `OSError`, and never mixes two values.
    """

    def __init__(self, client: Client, path: str, *, timeout: float | None = None) -> None:
        super().__init__()
        self._client = client
        self._path = path
        self._timeout = timeout
        headers = client.request("HEAD", path, timeout=timeout).headers
        #: The tag of the value that this file reads.
        self.etag = headers.get("etag") or ""
        self.content_type = headers.get("content-type") or "application/octet-stream"
        size = headers.get("content-length")
        if not self.etag or size is None:
            raise InvalidResponse(
                "the answer has no ETag or no length: it is not a value of the service")
        self.size = int(size)
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}
        if whence not in start:
            raise ValueError(f"whence must be 0, 1 or 2, not {whence}")
        position = start[whence] + offset
        if position < 0:
            raise ValueError(f"cannot seek to {position}, before the beginning")
        self._position = position
        return position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        count = min(len(view), self.size - self._position)
        if count <= 0:
            return 0
        headers = {
            "Range": f"bytes={self._position}-{self._position + count - 1}",
            "If-Match": self.etag,
        }
        try:
            response = self._client.request(
                "GET", self._path, headers=headers, timeout=self._timeout
            )
        except PreconditionFailed:
            raise OSError("the value was replaced while it was read; open it anew") from None
        except RepriseError as error:
            raise OSError(str(error)) from error
        if response.status != 206 or len(response.body) != count:
            raise OSError("the answer is not the range that was asked for")
        view[:count] = response.body
        self._position += count
        return count


def download(
    client: Client,
    path: str,
    file: IO[bytes],
    *,
    on_progress: Progress | None = None,
    timeout: float = limits.LONG_CALL_SECONDS,
) -> Headers:
    """Writes a value to a file, and goes on where it was if the connection breaks."""
    received = 0
    total: int | None = None
    first: Headers | None = None
    breaks = 0
    deadline = time.monotonic() + timeout
    while True:
        request = Request("GET", path, _resuming(received, first), streamed=True)
        response = client._answer(request, deadline - time.monotonic())
        assert isinstance(response, StreamedResponse)
        with response:
            if first is None or received == 0:
                first, total = response.headers, response.length
            elif response.status != 206:
                raise InvalidResponse("the answer is not the rest of the value")
            try:
                for piece in response:
                    file.write(piece)
                    received += len(piece)
                    if on_progress:
                        on_progress(received, total)
                return first
            except ConnectionLost:
                breaks += 1
                if breaks > limits.RETRIES or not first.get("etag"):
                    raise


async def download_async(
    client: AsyncClient,
    path: str,
    file: IO[bytes],
    *,
    on_progress: Progress | None = None,
    timeout: float = limits.LONG_CALL_SECONDS,
) -> Headers:
    """`download` for asyncio. The file is written by another thread."""
    received = 0
    total: int | None = None
    first: Headers | None = None
    breaks = 0
    deadline = time.monotonic() + timeout
    while True:
        request = Request("GET", path, _resuming(received, first), streamed=True)
        response = await client._answer(request, deadline - time.monotonic())
        assert isinstance(response, AsyncStreamedResponse)
        async with response:
            if first is None or received == 0:
                first, total = response.headers, response.length
            elif response.status != 206:
                raise InvalidResponse("the answer is not the rest of the value")
            try:
                async for piece in response:
                    await asyncio.to_thread(file.write, piece)
                    received += len(piece)
                    if on_progress:
                        on_progress(received, total)
                return first
            except ConnectionLost:
                breaks += 1
                if breaks > limits.RETRIES or not first.get("etag"):
                    raise


def _resuming(received: int, first: Headers | None) -> dict[str, str]:
    if first is None or received == 0:
        return {}
    return {"Range": f"bytes={received}-", "If-Match": first.get("etag") or ""}


def json_lines(pieces: Iterator[bytes]) -> Iterator[Any]:
    """The values of a stream of JSON lines."""
    lines = _Lines()
    for piece in pieces:
        yield from lines.feed(piece)
    yield from lines.end()


async def json_lines_async(pieces: AsyncIterator[bytes]) -> AsyncIterator[Any]:
    """`json_lines` for asyncio."""
    lines = _Lines()
    async for piece in pieces:
        for value in lines.feed(piece):
            yield value
    for value in lines.end():
        yield value


class _Lines:
    """Pieces to lines to values."""

    def __init__(self) -> None:
        self._begun: list[bytes] = []
        self._size = 0

    def feed(self, piece: bytes) -> Iterator[Any]:
        """The values of the lines that this piece ends."""
        first, newline, rest = piece.partition(b"\n")
        self._begun.append(first)
        self._size += len(first)
        if self._size > limits.MAX_BODY_BYTES:
            raise InvalidResponse(
                f"a line of the answer has more than {limits.MAX_BODY_BYTES} bytes")
        if not newline:
            return
        yield from self.end()
        *lines, rest = rest.split(b"\n")
        self._begun, self._size = [rest], len(rest)
        for line in lines:
            if line.strip():
                yield _line(line)

    def end(self) -> Iterator[Any]:
        """The value of the line that has begun, if it is one."""
        line = b"".join(self._begun)
        self._begun, self._size = [], 0
        if line.strip():
            yield _line(line)


def _line(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidResponse(f"a line of the answer is not JSON: {error}") from None
