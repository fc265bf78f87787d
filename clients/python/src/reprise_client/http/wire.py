"""Bytes to answers: the state of one connection, without the connection. Parsed by httptools."""

from __future__ import annotations

from collections import deque

import httptools

from ..errors import InvalidResponse
from ..limits import MAX_HEAD_BYTES
from .message import Headers

#: Statuses without a body, whatever their fields say.
_BODILESS = (204, 304)


class ResponseReader:
    """Reads the answers of one connection, one after the other.

    Call `begin` before each request is sent, `feed` with what arrives, and look at
    `head_complete`, `chunks` and `complete`.
    """

    __slots__ = ("_head_bytes", "_head_request", "_parser", "_raw", "chunks", "complete",
                 "head_complete", "keep_alive", "status")

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.keep_alive = True
        self.begin(head_request=False)

    def begin(self, *, head_request: bool) -> None:
        """Forgets the last answer. `head_request`: the next one has no body."""
        self._head_request = head_request
        self._reset()

    def _reset(self) -> None:
        self._raw: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        self.status = 0
        self.head_complete = False
        self.complete = False
        self.chunks: deque[bytes] = deque()

    @property
    def headers(self) -> Headers:
        return Headers(self._raw)

    @property
    def content_length(self) -> int | None:
        """The body's length, if it is told and the body comes as it is."""
        if self.head_complete:
            for name, value in self._raw:
                if len(name) == 14 and name.lower() == b"content-length":
                    return int(value)
        return None

    def feed(self, data: bytes) -> None:
        """Takes what arrived. Raises `InvalidResponse` if it is not HTTP."""
        if self.complete:
            raise InvalidResponse("the service sent more than one answer to a request")
        if not self.head_complete:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            raise InvalidResponse("the service changed to another protocol") from None
        except (httptools.HttpParserError, httptools.HttpParserCallbackError) as error:
            if self.complete:
                # What follows an answer that is whole does not make it wrong.
                self.keep_alive = False
                return
            raise InvalidResponse(f"the answer is not HTTP: {error}") from None
        if not self.head_complete and self._head_bytes > MAX_HEAD_BYTES:
            raise InvalidResponse(f"the answer's head has more than {MAX_HEAD_BYTES} bytes")

    def feed_end(self) -> bool:
        """The connection ended; whether that completes the answer (one without a length)."""
        if self.complete:
            return True
        if self.head_complete and self.content_length is None and not self._is_chunked:
            self.complete = True
            self.keep_alive = False
            return True
        return False

    @property
    def _is_chunked(self) -> bool:
        return "chunked" in (self.headers.get("transfer-encoding") or "").lower()

    def abandon_parser(self) -> None:
        """The rest of the body was read around the parser, which starts anew."""
        self._parser = httptools.HttpResponseParser(self)
        self.complete = True

    # What httptools calls.

    def on_message_begin(self) -> None:
        if self.complete:
            raise InvalidResponse("the service sent more than one answer to a request")
        if self.status:
            # After an interim answer (1xx), whose fields mean nothing here.
            self._raw = []

    def on_header(self, name: bytes, value: bytes) -> None:
        # Fields after the body (trailers) are of no use, and could be endless.
        if not self.head_complete:
            self._raw.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        self.status = status
        if status < 200:
            return
        self.keep_alive = self._parser.should_keep_alive()
        self.head_complete = True
        if self._head_request or (status in _BODILESS and self.content_length):
            # The parser would wait for the body that the fields describe.
            self._parser = httptools.HttpResponseParser(self)
            self.complete = True

    def on_body(self, data: bytes) -> None:
        if self.complete:
            # A body where there is none, such as after HEAD. More of it may come.
            self.keep_alive = False
        else:
            self.chunks.append(data)

    def on_message_complete(self) -> None:
        if self.status >= 200:
            self.complete = True
