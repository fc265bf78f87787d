"""When to repeat, how long to wait, and when not to try at all. Decisions only; no I/O.

A call is a generator: it yields what should be done next, `Send` or `Sleep`, and gets back an
answer or the exception that took its place. The blocking client and the asyncio client drive the
same generator, so they cannot differ.
"""

from __future__ import annotations

import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Generator
from typing import NamedTuple, Union

from .. import limits
from ..errors import CircuitOpen, TimedOut, TransportError
from .message import Request, Response, retry_after


class Send(NamedTuple):
    """Send this request, and have its answer before `deadline` (of `time.monotonic`)."""

    request: Request
    deadline: float


class Sleep(NamedTuple):
    """Wait for so many seconds."""

    seconds: float


Step = Union[Send, Sleep]
Exchange = Generator[Step, "Response | TransportError | None", Response]


_breakers: weakref.WeakSet[Breaker] = weakref.WeakSet()


def _after_fork() -> None:
    for breaker in list(_breakers):
        breaker._forget_threads()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Breaker:
    """Stops calls for a while after several in a row got no answer.

    When the time is over, one call may try; if it fails as well, the time doubles. The pattern is
    that of M. Nygard, "Release It!", chapter "Stability Patterns".
    """

    def __init__(
        self,
        *,
        failures: int = limits.BREAKER_FAILURES,
        seconds: float = limits.BREAKER_SECONDS,
        max_seconds: float = limits.MAX_BREAKER_SECONDS,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = failures
        self._first_seconds = seconds
        self._max_seconds = max_seconds
        self._now = now
        self._lock = threading.Lock()
        self._failures = 0
        self._seconds = seconds
        self._closed_from: float | None = None
        self._probing_until = 0.0
        self.opened_count = 0
        _breakers.add(self)

    def _forget_threads(self) -> None:
        # A thread of the parent may have held the lock, and none of them is here.
        self._lock = threading.Lock()
        self._probing_until = 0.0

    @property
    def is_open(self) -> bool:
        """Whether calls fail at once now."""
        closed_from = self._closed_from
        return closed_from is not None and self._now() < closed_from

    def admit(self, deadline: float) -> bool:
        """Lets an attempt pass, or raises `CircuitOpen`. True if it is the one that finds out."""
        if self._closed_from is None:
            return False
        with self._lock:
            now = self._now()
            if self._closed_from is None:
                return False
            wait = max(self._closed_from, self._probing_until) - now
            if wait > 0:
                raise CircuitOpen(
                    f"the service did not answer {self._failures} times in a row; "
                    f"the next attempt is made in {wait:.1f} s",
                    retry_after=wait,
                )
            # One attempt may find out. Its place is given up when its time is over, in case it
            # never reports, and before that if it is one that may take minutes.
            self._probing_until = min(deadline, now + self._max_seconds)
            return True

    def succeeded(self) -> None:
        if self._failures == 0 and self._closed_from is None:
            return
        with self._lock:
            self._failures = 0
            self._seconds = self._first_seconds
            self._closed_from = None
            self._probing_until = 0.0

    def failed(self, *, probing: bool = False) -> None:
        """An attempt got no answer; `probing` is what `admit` said of it."""
        with self._lock:
            self._failures += 1
            if self._closed_from is None:
                if self._failures < self._limit:
                    return
            elif probing:
                self._probing_until = 0.0
                self._seconds = min(self._seconds * 2, self._max_seconds)
            else:
                # It began before the circuit opened: nothing new.
                return
            self._closed_from = self._now() + self._seconds
            self.opened_count += 1

    def abandoned(self, *, probing: bool = False) -> None:
        """An attempt ended without saying anything about the service: it was cancelled, or never
        left this process."""
        if probing:
            with self._lock:
                self._probing_until = 0.0


class Statistics:
    """What the calls of one client came to. Counts are approximate while threads run."""

    __slots__ = ("attempts", "calls", "failures", "last_error", "problems", "retries")

    def __init__(self) -> None:
        self.calls = 0
        self.attempts = 0
        self.retries = 0
        self.failures = 0
        self.problems = 0
        self.last_error = ""


class Policy:
    """How often and how fast calls are repeated."""

    def __init__(
        self,
        *,
        retries: int = limits.RETRIES,
        breaker: Breaker | None = None,
        now: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        if retries < 0:
            raise ValueError(f"retries must be 0 or more, not {retries}")
        self.retries = retries
        self.breaker = breaker or Breaker(now=now)
        self.now = now
        self._jitter = jitter
        self.statistics = Statistics()

    def exchange(self, request: Request, timeout: float) -> Exchange:
        """One call, with everything that it repeats, within `timeout` seconds."""
        statistics = self.statistics
        statistics.calls += 1
        breaker = self.breaker
        deadline = self.now() + min(timeout, limits.MAX_CALL_SECONDS)
        attempt = 0
        was_sent = False
        outcome: Response | TransportError | None = None
        while True:
            try:
                probing = breaker.admit(deadline)
            except CircuitOpen as refusal:
                # What this call saw says more than that no further attempt is made.
                outcome = outcome or refusal
            else:
                statistics.attempts += 1
                if attempt:
                    statistics.retries += 1
                try:
                    outcome = yield Send(request, deadline)
                except BaseException:
                    breaker.abandoned(probing=probing)
                    raise
                was_sent = (was_sent or not isinstance(outcome, TransportError)
                            or outcome.sent)
                if isinstance(outcome, TransportError):
                    if isinstance(outcome, TimedOut) and not outcome.sent:
                        # The time was over before there was a connection to use.
                        breaker.abandoned(probing=probing)
                    else:
                        breaker.failed(probing=probing)
                    wait = self._wait_after_error(request, outcome, attempt)
                else:
                    assert isinstance(outcome, Response)
                    status = outcome.status
                    if status in (502, 503, 504):
                        breaker.failed(probing=probing)
                    else:
                        breaker.succeeded()
                        if status < 400:
                            return outcome
                    wait = self._wait_after_answer(request, outcome, attempt)
                if wait is not None and self.now() + wait < deadline:
                    attempt += 1
                    if wait > 0:
                        yield Sleep(wait)
                    continue
            if isinstance(outcome, Response):
                statistics.problems += 1
                return outcome
            statistics.failures += 1
            statistics.last_error = str(outcome)
            # The last attempt may not have left this process, but an earlier one has.
            outcome.sent = was_sent
            raise outcome

    def _wait_after_error(
        self, request: Request, error: TransportError, attempt: int
    ) -> float | None:
        if attempt >= self.retries or isinstance(error, TimedOut) or not request.is_replayable:
            return None
        if error.sent and not request.repeatable:
            return None
        return self._backoff(attempt)

    def _wait_after_answer(
        self, request: Request, response: Response, attempt: int
    ) -> float | None:
        if attempt >= self.retries or not request.is_replayable:
            return None
        status = response.status
        if status == 429:
            # Refused before anything was done.
            pass
        elif status in (502, 503, 504):
            if not request.repeatable:
                return None
        elif status == 409 and request.repeatable and response.problem().code in _UNDER_WAY:
            pass
        else:
            return None
        asked = retry_after(response.headers)
        return self._backoff(attempt) if asked is None else max(asked, self._backoff(attempt))

    def _backoff(self, attempt: int) -> float:
        ceiling: float = min(limits.BACKOFF_SECONDS * 2**attempt, limits.MAX_BACKOFF_SECONDS)
        return ceiling * self._jitter()


#: The same request, sent before, has not been answered yet.
_UNDER_WAY = ("idempotency_key_in_use",)
