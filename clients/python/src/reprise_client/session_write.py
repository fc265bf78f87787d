"""One save of a session as a request, and what its answer means. Decisions only; no I/O.

A save is one request however much it changes: a patch of the state alone, or a batch with changes
of the history. Each is sent with an idempotency key, and again with the same one if no answer came.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from . import limits
from .errors import (
    InvalidResponse,
    ProblemError,
    RepriseError,
    TimedOut,
    TransportError,
    is_foreign,
    problem_error,
)
from .http.flow import Call, Flow
from .http.message import Request, Response
from .operations import new_id, segment
from .session_state import HistoryChange, StatePatch, encoded

#: Statuses after which the same request may succeed later.
_PASSING = frozenset((408, 425, 429))
#: The same save, sent before, is still being carried out.
_UNDER_WAY = "idempotency_key_in_use"
#: It was carried out before, and its answer is not there any more.
_ANSWER_LOST = "idempotency_answer_lost"


def is_passing(error: RepriseError) -> bool:
    """Whether the same call may succeed later: no answer, or one that the service is busy."""
    if isinstance(error, ProblemError):
        return error.status >= 500 or error.status in _PASSING or is_foreign(error)
    return True


def _may_be_done(error: ProblemError) -> bool:
    """Whether the service may have carried out what it answered this to."""
    if error.code == _UNDER_WAY:
        return True
    # Without a code it is a proxy's answer, and the service itself may have done it.
    return error.status >= 500 and (not error.code or error.status not in (503, 507))


def in_one_line(error: object) -> str:
    """What was said, for a log: without control characters, and not longer than a paragraph."""
    text = "".join(character if character.isprintable() else " " for character in str(error))
    return " ".join(text.split())[:1000]


# One save.


class _Part(NamedTuple):
    """One request of a save."""

    method: str
    target: str
    content_type: str
    body: bytes | None
    if_match: int | None
    change: StatePatch | HistoryChange | None

    @property
    def what(self) -> str:
        """How it is named when it is refused."""
        change = self.change
        if change is None:
            return "opening"
        if isinstance(change, StatePatch):
            return "state"
        return f"history {change.kind} {change.item_id}".strip()


class Refusal(NamedTuple):
    """A part of a save that the service refuses for good."""

    what: str
    error: ProblemError


class Outcome:
    """What a save came to."""

    __slots__ = ("conflict", "refusals", "removed_items", "reopened", "version")

    def __init__(self) -> None:
        self.version: int | None = None
        #: History items that went because newer ones came.
        self.removed_items = 0
        self.refusals: list[Refusal] = []
        #: Whether the state was not the one that it should match.
        self.conflict: ProblemError | None = None
        #: Whether the session was gone and was opened again.
        self.reopened = False


class Write:
    """One save: a patch of the state, changes of the history, or both.

    `opening` is the body that opens the session again with everything that is known of it, or what
    makes it, because it is needed only if the session is gone.
    """

    __slots__ = ("changes", "created", "if_match", "is_opening", "key", "opening", "patch",
                 "session_id", "was_sent")

    def __init__(
        self,
        session_id: str,
        patch: StatePatch | None = None,
        changes: list[HistoryChange] | None = None,
        if_match: int | None = None,
    ) -> None:
        self.session_id = session_id
        self.patch = patch if patch else None
        self.changes = changes or []
        self.if_match = if_match
        self.opening: bytes | Callable[[], bytes] | None = None
        self.key = new_id()
        #: Whether the service may have carried it out; then it has to be sent as it is.
        self.was_sent = False
        #: Whether the next attempt opens the session first.
        self.is_opening = False
        self.created = time.monotonic()

    def __bool__(self) -> bool:
        return self.patch is not None or bool(self.changes)

    @property
    def size(self) -> int:
        size = 500 + sum(change.size for change in self.changes)
        if isinstance(self.opening, bytes):
            size += len(self.opening)
        patch = self.patch
        if patch is not None:
            size += sum(len(key) + len(data) for key, data in patch.set.items())
            size += sum(len(key) + len(data) for key, data in patch.defaults.items())
            size += sum(map(len, patch.delete))
        return size

    @property
    def ends_session(self) -> bool:
        return any(change.kind == "end" for change in self.changes)

    def parts(self) -> list[_Part]:
        """Its requests, in order."""
        session = f"/v1/sessions/{segment(self.session_id)}"
        parts = []
        if self.is_opening and self.opening is not None:
            if not isinstance(self.opening, bytes):
                self.opening = self.opening()
            parts.append(_Part("PUT", session, "application/json", self.opening, None, None))
        if self.patch is not None:
            parts.append(_Part("PATCH", f"{session}/state", "application/json",
                               self.patch.body(), self.if_match, self.patch))
        for change in self.changes:
            history = f"{session}/history"
            if change.kind == "append":
                part = _Part("POST", history, "application/json", change.body, None, change)
            elif change.kind == "patch":
                part = _Part("PATCH", f"{history}/{segment(change.item_id)}",
                             "application/merge-patch+json", change.body, None, change)
            elif change.kind == "remove":
                part = _Part("DELETE", f"{history}/{segment(change.item_id)}", "", None, None,
                             change)
            elif change.kind == "clear":
                part = _Part("DELETE", history, "", None, None, change)
            else:
                part = _Part("DELETE", session, "", None, None, change)
            parts.append(part)
        return parts

    def absorb(self, later: Write) -> bool:
        """Takes in a later save of the same session, if that makes no difference."""
        if (
            self.was_sent or self.is_opening or self.ends_session or later.ends_session
            or later.was_sent or later.is_opening
            or self.if_match is not None or later.if_match is not None
            or self.size + later.size > limits.MAX_BATCH_BYTES
        ):
            return False
        if self.patch is not None and later.patch is not None:
            patch = self.patch.then(later.patch)
            if patch is None:
                return False
            self.patch = patch
        else:
            self.patch = self.patch or later.patch
        self.changes.extend(later.changes)
        self.opening = later.opening
        self.created = later.created
        # A key belongs to one body, also if the service has only seen it and done nothing.
        self.key = new_id()
        return True

    def keep_only(self, parts: list[_Part]) -> None:
        """What is still to be sent, as a request of its own."""
        changes = [part.change for part in parts]
        self.patch = next((change for change in changes if isinstance(change, StatePatch)), None)
        self.changes = [change for change in changes if isinstance(change, HistoryChange)]
        self.key = new_id()
        self.was_sent = False


class Deadline:
    """The time that one use of a session may take, with all its calls."""

    __slots__ = ("_end",)

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds. Raises `TimedOut` if there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimedOut("the call's time was over", sent=False)
        return left


class _Answer(NamedTuple):
    status: int
    body: Any


def _call(parts: list[_Part], key: str, timeout: float) -> Call[list[_Answer]]:
    if len(parts) == 1:
        part = parts[0]
        headers = {"Idempotency-Key": key} if part.method in ("PATCH", "POST") else {}
        if part.content_type:
            headers["Content-Type"] = part.content_type
        if part.if_match is not None:
            headers["If-Match"] = f'"{part.if_match}"'
        request = Request(part.method, part.target, headers, part.body, repeatable=True)
        return Call(request, _read_one, timeout)
    pieces = []
    for part in parts:
        headers = {}
        if part.content_type and part.content_type != "application/json":
            headers["Content-Type"] = part.content_type
        if part.if_match is not None:
            headers["If-Match"] = f'"{part.if_match}"'
        piece = b'{"method":"%s","path":%s' % (part.method.encode(), encoded(part.target))
        if headers:
            piece += b',"headers":' + encoded(headers)
        if part.body is not None:
            piece += b',"json":' + part.body
        pieces.append(piece + b"}")
    body = b'{"requests":[' + b",".join(pieces) + b"]}"
    headers = {"Content-Type": "application/json", "Idempotency-Key": key}
    return Call(Request("POST", "/v1/batch", headers, body, repeatable=True), _read_batch, timeout)


def _json_or_none(response: Response) -> Any:
    try:
        return json.loads(response.body)
    except ValueError:
        return None


def _read_one(response: Response) -> list[_Answer]:
    error = response.problem() if response.status >= 400 else None
    if error is not None:
        if is_passing(error):
            raise error
        return [_Answer(response.status, dict(error.problem))]
    return [_Answer(response.status, _json_or_none(response))]


def _read_batch(response: Response) -> list[_Answer]:
    if response.status >= 400:
        raise response.problem()
    try:
        return [_Answer(int(answer["status"]), answer.get("json"))
                for answer in response.json()["responses"]]
    except (TypeError, KeyError, ValueError) as error:
        raise InvalidResponse(f"the answer to a batch is none: {error!r}") from None


def deliver(write: Write, deadline: Deadline) -> Flow[Outcome]:
    """Sends a save; opens the session again with what `write.opening` says if it is gone.

    Almost always that is one request. If it raises, `write` holds what is still to be sent: the
    same, if no answer came, because it may have been carried out. Nothing is left of it otherwise.
    """
    outcome = Outcome()
    was_opened = False
    while write:
        parts = write.parts()
        sent = parts[:_leading(parts)]
        timeout = deadline.left()
        try:
            answers = yield _call(sent, write.key, timeout)
        except TransportError as error:
            write.was_sent = write.was_sent or error.sent
            raise
        except ProblemError as error:
            if is_passing(error):
                # The same key again: the service keeps no such answer for it.
                write.was_sent = write.was_sent or _may_be_done(error)
                raise
            if error.code == _ANSWER_LOST:
                write.keep_only(parts[len(sent):])
                continue
            outcome.refusals.append(Refusal("save", error))
            write.keep_only([])
            return outcome
        busy: ProblemError | None = None
        absence: ProblemError | None = None
        again: set[int] = set(range(len(answers), len(parts)))
        for index, (part, answer) in enumerate(zip(sent, answers)):
            failure = _note(outcome, part, answer)
            if failure is None:
                continue
            if is_passing(failure):
                busy = failure
                again.add(index)
            elif busy is None and (
                was_opened or sent[0].change is None or write.opening is None
            ):
                outcome.refusals.append(Refusal(part.what, failure))
            else:
                absence = failure
                again.add(index)
        if sent[0].change is None and 0 not in again:
            was_opened, write.is_opening = True, False
        write.keep_only([parts[index] for index in sorted(again)])
        if busy is not None or len(answers) < len(sent):
            raise busy or InvalidResponse("the service left out answers of a batch")
        if absence is not None:
            write.is_opening = outcome.reopened = True
    return outcome


def _leading(parts: list[_Part]) -> int:
    """How many of the parts one request can take: what is too large for a batch goes alone."""
    size = 0
    for count, part in enumerate(parts[: limits.MAX_BATCH_REQUESTS]):
        body = len(part.body or b"")
        size += body + 500
        if count and (body > limits.MAX_BATCHED_BYTES or size > limits.MAX_BATCH_BYTES):
            return count
        if body > limits.MAX_BATCHED_BYTES:
            return 1
    return min(len(parts), limits.MAX_BATCH_REQUESTS)


def _note(outcome: Outcome, part: _Part, answer: _Answer) -> ProblemError | None:
    """Puts the answer to one part where it belongs; the error if the service is busy or the
    session is gone."""
    status, body = answer
    change = part.change
    if status < 400:
        if isinstance(body, dict):
            if isinstance(change, StatePatch):
                outcome.version = body.get("version", outcome.version)
            elif change is not None and change.kind == "append":
                outcome.removed_items += int(body.get("removed", 0))
        return None
    error = problem_error(status, body if isinstance(body, dict) else {})
    if is_passing(error):
        return error
    if error.code == _ANSWER_LOST:
        return None
    if status == 412 and part.if_match is not None:
        outcome.conflict = error
        return None
    if status == 404:
        if isinstance(change, HistoryChange) and change.kind in ("remove", "clear", "end"):
            return None  # It is gone, as it should be.
        if error.code == "session_not_found":
            return error
    outcome.refusals.append(Refusal(part.what, error))
    return None
