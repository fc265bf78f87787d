"""Requests and answers as values; nothing here does I/O."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any, Union

from .. import limits
from ..errors import InvalidResponse, ProblemError, RepriseError, problem_error

Body = Union[bytes, bytearray, memoryview, IO[bytes], Iterable[bytes], None]
Progress = Callable[[int, "int | None"], None]


class Request:
    """One request; `repeatable` says that sending it twice has the effect of sending it once."""

    __slots__ = ("body", "headers", "max_bytes", "method", "on_progress", "repeatable", "streamed",
                 "target")

    def __init__(
        self,
        method: str,
        target: str,
        headers: dict[str, str] | None = None,
        body: Body = None,
        *,
        repeatable: bool | None = None,
        streamed: bool = False,
        on_progress: Progress | None = None,
        max_bytes: int | None = None,
    ) -> None:
        if isinstance(body, str):
            raise TypeError("a body is bytes, not text; encode it")
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body
        if repeatable is None:
            repeatable = method != "POST" and method != "PATCH"
        self.repeatable = repeatable
        #: The answer's body is read piece by piece, if its status is below 300.
        self.streamed = streamed
        #: Called with the bytes sent so far and their total, if that is known.
        self.on_progress = on_progress
        #: Bytes of the answer that are read into memory, at most: as JSON may have, unless said.
        self.max_bytes = limits.MAX_JSON_BYTES if max_bytes is None else max_bytes

    def head(self, common: bytes) -> bytes:
        """The request line and all fields but those of the body; `common` are the client's."""
        target = self.target
        if " " in target or not target.isascii() or not target.isprintable():
            raise ValueError(
                f"the path {target!r} has a character that must be percent-encoded; "
                "see urllib.parse.quote"
            )
        text = f"{self.method} {target} HTTP/1.1\r\n"
        if self.headers:
            for name, value in self.headers.items():
                if "\r" in value or "\n" in value or "\0" in value:
                    raise ValueError(f"the value of {name} contains a line break or a zero byte")
                text += f"{name}: {value}\r\n"
        try:
            return text.encode("latin-1") + common
        except UnicodeEncodeError as error:
            raise ValueError(
                "a field of the request has characters beyond Latin-1: "
                + repr(error.object[error.start : error.end])
            ) from None

    @property
    def is_replayable(self) -> bool:
        """Whether the body can be sent again: it is in memory, or a file that can be rewound."""
        body = self.body
        if body is None or isinstance(body, (bytes, bytearray, memoryview)):
            return True
        seekable = getattr(body, "seekable", None)
        return bool(seekable and seekable())


class Headers:
    """The fields of an answer, by name in any case. Decoded when they are asked for."""

    __slots__ = ("_fields", "_raw")

    def __init__(self, raw: list[tuple[bytes, bytes]]) -> None:
        self._raw = raw
        self._fields: dict[str, str] | None = None

    def get(self, name: str, default: str | None = None) -> str | None:
        if self._fields is None:
            # Most answers are asked for two or three fields of fourteen.
            wanted = name.lower().encode("latin-1")
            length = len(wanted)
            found = [value for field, value in self._raw
                     if len(field) == length and field.lower() == wanted]
            return b", ".join(found).decode("latin-1") if found else default
        return self._fields.get(name.lower(), default)

    def all(self) -> dict[str, str]:
        """Every field by its name in lower case; repeated ones are joined by commas."""
        fields = self._fields
        if fields is None:
            fields = {}
            for raw_name, raw_value in self._raw:
                name = raw_name.decode("latin-1").lower()
                value = raw_value.decode("latin-1")
                fields[name] = f"{fields[name]}, {value}" if name in fields else value
            self._fields = fields
        return fields

    def __iter__(self) -> Iterator[str]:
        return iter(self.all())

    def __getitem__(self, name: str) -> str:
        return self.all()[name.lower()]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self.all()

    @property
    def has_etag(self) -> bool:
        """Whether there is an `ETag`, found without decoding the rest."""
        for name, _ in self._raw:
            if len(name) == 4 and name.lower() == b"etag":
                return True
        return False

    def __repr__(self) -> str:
        return f"Headers({self.all()!r})"


class Response:
    """One answer whose body is in memory."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: Headers, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def json(self) -> Any:
        """The body as JSON. Raises `InvalidResponse` if it is none."""
        try:
            return json.loads(self.body)
        except RecursionError as error:
            raise InvalidResponse(
                f"an answer with status {self.status} is not JSON that Python reads: {error}"
            ) from None
        except ValueError:
            pass
        try:
            # A number of thousands of digits, which Python does not read by default, must not
            # hide all the rest of an answer.
            return json.loads(self.body, parse_int=_integer)
        except (ValueError, RecursionError) as error:
            raise InvalidResponse(
                f"an answer with status {self.status} is not JSON: {error}"
            ) from None

    def unexpected(self) -> RepriseError:
        """This answer as an exception: a problem, or what is no answer of the service at all."""
        if self.status >= 400:
            return self.problem()
        location = self.headers.get("location")
        if self.status in (301, 302, 303, 307, 308) and location:
            return InvalidResponse(
                f"the answer is a redirect ({self.status}) to {location!r}; if the service is "
                "there, use that address"
            )
        return InvalidResponse(f"the answer has status {self.status}, which does not belong here")

    def problem(self) -> ProblemError:
        """This answer as an exception."""
        problem: dict[str, Any] = {}
        if "json" in (self.headers.get("content-type") or ""):
            try:
                parsed = json.loads(self.body)
                if isinstance(parsed, dict):
                    problem = parsed
            except (ValueError, RecursionError):
                pass
        if not problem:
            text = self.body[:200].decode("utf-8", "replace").strip()
            problem = {"detail": f"the answer is not a problem document: {text!r}" if text else ""}
        return problem_error(
            self.status,
            problem,
            retry_after=retry_after(self.headers),
            request_id=self.headers.get("x-request-id") or "",
        )


def check_size(size: int, max_bytes: int, *, is_whole: bool) -> None:
    """Raises `InvalidResponse` if an answer has more than `max_bytes`. `is_whole`: `size` is not
    only what arrived so far."""
    if size > max_bytes:
        shown = f"{size} bytes, more than {max_bytes}" if is_whole else (
            f"more than {max_bytes} bytes")
        advice = ("read it as a stream" if max_bytes >= limits.MAX_BODY_BYTES
                  else "if it is the service's, ask for less at once")
        raise InvalidResponse(f"the answer has {shown}; {advice}")


def _integer(text: str) -> int | float:
    """An integer, or the infinity that stands for one of too many digits."""
    try:
        return int(text)
    except ValueError:
        return float(text)


def retry_after(headers: Headers) -> float | None:
    """The seconds that `Retry-After` asks for; None if it is absent or a date."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        return None
    return seconds if 0 <= seconds <= 86_400 else None
