"""What calls raise: an answer that is a problem, or no answer at all."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

#: What texts of others must not do to a terminal or a log: control characters, line breaks, marks
#: that reverse the direction of what follows, halves of characters.
_CONTROL = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class RepriseError(Exception):
    """The base of everything that a call to the service raises."""


class TransportError(RepriseError):
    """No complete answer arrived.

    `sent` says whether any byte of the request left this process: if it is false, the service
    has done nothing.
    """

    def __init__(self, message: str, *, sent: bool = True) -> None:
        super().__init__(message)
        self.sent = sent


class ConnectFailed(TransportError):
    """The service could not be reached: refused, no such host, or a TLS handshake that failed."""

    def __init__(self, message: str) -> None:
        super().__init__(message, sent=False)


class TimedOut(TransportError):
    """The call's time was over before its answer was complete."""


class ConnectionLost(TransportError):
    """The connection ended in the middle of a request or an answer."""


class InvalidResponse(TransportError):
    """What came back is not the HTTP, or not the JSON, that the service speaks."""


class CircuitOpen(TransportError):
    """Nothing was sent, because the calls before this one failed; `retry_after` is in seconds."""

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message, sent=False)
        self.retry_after = retry_after


class ProblemError(RepriseError):
    """The service answered with a problem (RFC 9457).

    `code` is the stable name of what went wrong, such as `session_not_found`; it is empty if the
    answer was no problem document, as from a proxy. `errors` names the fields that are wrong.
    """

    def __init__(
        self,
        status: int,
        problem: Mapping[str, Any],
        *,
        retry_after: float | None = None,
        request_id: str = "",
    ) -> None:
        self.status = status
        self.problem = problem
        self.code = str(problem.get("code", ""))
        self.title = str(problem.get("title", ""))
        self.detail = str(problem.get("detail", ""))
        self.request_id = str(problem.get("request_id", "")) or request_id
        self.retry_after = retry_after
        errors = problem.get("errors")
        self.errors: list[dict[str, str]] = (
            [error for error in errors if isinstance(error, dict)]
            if isinstance(errors, list) else []
        )
        super().__init__(self._text())

    def _text(self) -> str:
        text = f"{self.status}"
        if self.code:
            text += f" {_shown(self.code)}"
        said = _shown(self.detail or self.title)
        if said:
            text += f": {said}"
        lines: list[str] = []
        for error in self.errors:
            line = f"{_shown(error.get('field', ''))}: {_shown(error.get('message', ''))}"
            # The detail often is the only error.
            if line not in said and line not in lines:
                lines.append(line)
        text += "".join(f"\n  {line}" for line in lines)
        if self.request_id:
            text += f" (request {_shown(self.request_id)})"
        return text

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuilt, (type(self), self.status, dict(self.problem), self.retry_after,
                           self.request_id))


def _shown(value: object) -> str:
    """A text of an answer without what would be more than text where it is shown."""
    return _CONTROL.sub(lambda found: " " if found.group() in "\t\r\n" else "?", str(value))


def _rebuilt(
    kind: type[ProblemError],
    status: int,
    problem: dict[str, Any],
    retry_after: float | None,
    request_id: str,
) -> ProblemError:
    return kind(status, problem, retry_after=retry_after, request_id=request_id)


class InvalidRequest(ProblemError):
    """400, 406, 413, 414, 415, 416, 422, 431: the request itself is wrong."""


class Unauthenticated(ProblemError):
    """401: the token is missing, unknown, expired or revoked."""


class Forbidden(ProblemError):
    """403: the token may not do this; `required_scope` in `problem` says what it lacks."""


class NotFound(ProblemError):
    """404: what was asked for does not exist, or does no longer."""


class Conflict(ProblemError):
    """409: it contradicts what is stored, or the same thing is under way."""


class PreconditionFailed(ProblemError):
    """412: what is stored is not what `if_match` or `if_none_match` says."""


class TooManyRequests(ProblemError):
    """429: the service asks to wait `retry_after` seconds."""


class ServerError(ProblemError):
    """500 and above: the service, or a proxy before it, could not answer."""


class Unavailable(ServerError):
    """503: busy, starting or stopping."""


class StorageFull(ServerError):
    """507: the disk, or the size that the operator allows, is used up."""


_BY_STATUS: dict[int, type[ProblemError]] = {
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    412: PreconditionFailed,
    429: TooManyRequests,
    503: Unavailable,
    507: StorageFull,
}


def problem_error(
    status: int,
    problem: Mapping[str, Any],
    *,
    retry_after: float | None = None,
    request_id: str = "",
) -> ProblemError:
    """The exception for an answer with this status."""
    kind = _BY_STATUS.get(status)
    if kind is None:
        kind = ServerError if status >= 500 else InvalidRequest
    return kind(status, problem, retry_after=retry_after, request_id=request_id)


#: Codes of problems that say that a request did not get where it should: a wrong path in the
#: address, a name of the host that the service does not serve, or the same request under way.
_UNREACHED = ("not_found", "method_not_allowed", "host_not_allowed", "idempotency_key_in_use")


def is_foreign(error: ProblemError) -> bool:
    """Whether an answer with a body says nothing about what was asked: it comes from a proxy before
    the service, or the request did not get to the resource."""
    return not error.code or error.code in _UNREACHED
