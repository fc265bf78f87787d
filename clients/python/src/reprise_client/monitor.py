"""Measures an app, and sends the samples to the service in the background.

A sample costs its caller a few microseconds: it is put into a bounded queue and nothing else. One
daemon thread, which the first sample starts and which ends when there is nothing to do, checks the
samples and sends them in batches. The app never waits and never sees an exception: samples beyond
the bound, the oldest first, and those that cannot be sent for too long are dropped and counted.

Each batch carries an idempotency key that stays the same when it is sent again. A request with
one invalid sample stores none of its samples, so samples are checked before they are sent, and a
batch that is refused all the same is sent again without what was wrong.
"""

from __future__ import annotations

import atexit
import functools
import inspect
import json
import logging
import math
import os
import re
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from . import limits
from .errors import CircuitOpen, InvalidResponse, RepriseError
from .http.flow import Call
from .http.message import Request, Response
from .memory import ProcessMemory, SessionSize, approximate_bytes, process_memory
from .operations import new_id
from .samples import Sample, as_json

if TYPE_CHECKING:
    from types import TracebackType

    from .client import AsyncClient, Client

log = logging.getLogger("reprise_client")

F = TypeVar("F", bound=Callable[..., Any])


# What is measured.


class Measurement:
    """One timed block, or a decorator that times each call.

    Set `cache` to `"hit"` or `"miss"` inside the block, if a cache is part of what it does.
    `variant`, `labels` and `outcome` can be set as well. `seconds` is the time that it took. An
    exception sets `outcome` to `"error"` and passes on. One object times one block at a time;
    as a decorator it can be used by any number of calls at once.
    """

    __slots__ = ("_monitor", "_started", "cache", "labels", "name", "outcome", "seconds",
                 "session_id", "variant")

    def __init__(
        self, monitor: Monitor, name: str, variant: str | None, cache: str | None,
        labels: Mapping[str, str] | None, session_id: str | None,
    ) -> None:
        self._monitor = monitor
        self.name = name
        self.variant = variant
        self.cache = cache
        self.labels = labels
        self.session_id = session_id
        self.outcome = "ok"
        self.seconds = 0.0
        self._started = 0.0

    def __enter__(self) -> Measurement:
        self._started = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.seconds = seconds = time.perf_counter() - self._started
        outcome = self.outcome
        if kind is not None and is_failure(kind):
            outcome = self.outcome = "error"
        # As `timing` does it, without the cost of another call.
        monitor, variant, labels = self._monitor, self.variant, self.labels
        session_id = self.session_id
        monitor._record((
            "timing", self.name, monitor._wall(),
            monitor._session_id if session_id is None else session_id,
            monitor._labels if labels is None else monitor._joined(labels), seconds, outcome,
            self.cache, monitor._variant if variant is None else variant,
        ))

    async def __aenter__(self) -> Measurement:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, traceback)

    def __call__(self, function: F) -> F:
        """Times each call of a function or coroutine function. The time of a generator is the one
        from its first item to its end, with what its consumer does in between."""
        monitor, name = self._monitor, self.name
        options = (self.variant, self.cache, self.labels, self.session_id)

        if inspect.iscoroutinefunction(function):
            @functools.wraps(function)
            async def awaited(*args: Any, **kwargs: Any) -> Any:
                with Measurement(monitor, name, *options):
                    return await function(*args, **kwargs)
            return cast(F, awaited)
        if inspect.isasyncgenfunction(function):
            @functools.wraps(function)
            async def iterated(*args: Any, **kwargs: Any) -> Any:
                with Measurement(monitor, name, *options):
                    items = function(*args, **kwargs)
                    try:
                        async for item in items:
                            yield item
                    finally:
                        await items.aclose()
            return cast(F, iterated)
        if inspect.isgeneratorfunction(function):
            @functools.wraps(function)
            def generated(*args: Any, **kwargs: Any) -> Any:
                with Measurement(monitor, name, *options):
                    return (yield from function(*args, **kwargs))
            return cast(F, generated)

        @functools.wraps(function)
        def called(*args: Any, **kwargs: Any) -> Any:
            with Measurement(monitor, name, *options):
                return function(*args, **kwargs)
        return cast(F, called)


def is_failure(kind: type[BaseException]) -> bool:
    """Whether an exception means that the block failed. The end of a generator, and Streamlit's
    way to rerun or stop a script, do not."""
    if issubclass(kind, Exception):
        return True
    return kind is not GeneratorExit and not any(
        base.__name__ == "ScriptControlException" for base in kind.__mro__)


# Sending.


class _Batch:
    """Samples that are sent in one request."""

    __slots__ = ("body", "is_corrected", "key", "samples")

    def __init__(self, samples: list[Sample]) -> None:
        self.samples = samples
        self.body: bytes | None = None
        self.key = new_id()
        #: Whether its instants were moved to the clock of the service.
        self.is_corrected = False


class _Answer(NamedTuple):
    status: int
    body: Any
    #: The service's clock, in seconds since 1970; None if it is not told.
    at: float | None
    error: RepriseError | None


def _read(response: Response) -> _Answer:
    at = None
    try:
        at = parsedate_to_datetime(response.headers["date"]).timestamp()
    except (KeyError, TypeError, ValueError, OverflowError):
        pass
    try:
        body = json.loads(response.body)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        body = {}
    error = None
    if response.status >= 300:
        error = response.unexpected()
    elif "accepted" not in body:
        error = InvalidResponse("the answer does not say how many samples were accepted")
    return _Answer(response.status, body, at, error)


# All monitors, for fork and the end of the process.

_monitors: weakref.WeakSet[Monitor] = weakref.WeakSet()
_is_watching = False


def _watch(monitor: Monitor) -> None:
    """Sees to forks and to the end of the process, from the first monitor on."""
    global _is_watching
    _monitors.add(monitor)
    if _is_watching:
        return
    _is_watching = True
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_forked)
    atexit.register(_exiting)


def _forked() -> None:
    # The parent sends what waits; its locks may be held by threads that do not exist here.
    for monitor in list(_monitors):
        monitor._reset()


def _exiting() -> None:
    deadline = time.monotonic() + limits.MONITOR_EXIT_SECONDS
    for monitor in list(_monitors):
        # Where the service was never there it is not waited for.
        was_there = monitor._sent > 0
        left = max(0.0, deadline - time.monotonic())
        if not monitor._flush(left, is_patient=was_there):
            log.log(logging.WARNING if was_there else logging.DEBUG,
                    "%d samples were not sent to %s before the process ended",
                    monitor._queued(), monitor.url)


def _see_to_end_of_worker() -> None:
    """A process of `multiprocessing` ends without `atexit`, but runs finalizers of its own."""
    process = sys.modules.get("multiprocessing.process")
    if process is not None and process.parent_process() is not None:
        from multiprocessing.util import Finalize

        Finalize(None, _exiting, exitpriority=0)


class Monitor:
    """Measures, and sends what it measured to the service in the background.

        monitor = client.monitor(variant="optimized")

        with monitor.measure("quality_score") as measurement:
            measurement.cache = "hit" if path in scores else "miss"
            ...

        @monitor.measure("load_model")
        def load_model(name): ...

    Safe between threads; after `fork` the child starts with nothing queued and counts of its own.
    A process that ends waits for `limits.MONITOR_EXIT_SECONDS` until everything is sent.
    """

    _clock = staticmethod(time.monotonic)
    _wall = staticmethod(time.time)

    def __init__(
        self,
        client: Client | AsyncClient,
        *,
        session_id: str | None = None,
        variant: str | None = None,
        labels: Mapping[str, str] | None = None,
        flush_seconds: float = limits.MONITOR_FLUSH_SECONDS,
        max_queued: int = limits.MAX_QUEUED_SAMPLES,
    ) -> None:
        """`session_id`, `variant` (of timings) and `labels` are those of every sample that has
        none of its own; labels are put together.

        Samples are gathered for `flush_seconds`, or until there are 500, and sent together. Up to
        `max_queued` wait while the service is away, beside those of the request under way.
        """
        if not 0 < flush_seconds < math.inf:
            raise ValueError(f"flush_seconds must be more than 0, and finite, "
                             f"not {flush_seconds}")
        if max_queued < 1:
            raise ValueError(f"max_queued must be at least 1, not {max_queued}")
        self._client = client
        self._blocking: Client | None = None
        self._session_id = session_id
        self._variant = variant
        self._labels = dict(labels) if labels else None
        self._flush_seconds = flush_seconds
        self._max_queued = max_queued
        self._batch_samples = min(limits.MAX_SAMPLES_PER_REQUEST, max_queued)
        self._memory_seconds: float | None = None
        self._memory_name = "process"
        self._clock_offset = 0.0
        self._has_warned_of_memory = False
        self._reset()
        _watch(self)

    def _reset(self) -> None:
        # Reentrant, because a finalizer or signal handler may record a sample at any time.
        self._lock = threading.RLock()
        self._wake = threading.Condition(self._lock)
        #: Held by who sends.
        self._sending = threading.Lock()
        self._queue: deque[Sample] = deque()
        self._batches: deque[_Batch] = deque()
        self._thread: threading.Thread | None = None
        self._is_idle = False
        self._is_closing = False
        self._disabled_until = 0.0
        self._retry_at = 0.0
        self._retry_seconds = limits.MONITOR_RETRY_SECONDS
        self._memory_at: float | None = None
        self._warned_at = -math.inf
        self._recorded = self._sent = self._dropped = self._failed = self._disabled = 0
        self._last_error = ""
        #: Whether the last attempt failed.
        self._is_away = False

    @property
    def url(self) -> str:
        """Where the samples go."""
        return self._client.url

    # What apps call.

    def measure(
        self, name: str, *, variant: str | None = None, cache: str | None = None,
        labels: Mapping[str, str] | None = None, session_id: str | None = None,
    ) -> Measurement:
        """Times a block (`with`, `async with`) or, as a decorator, every call of a function or
        coroutine function. See `Measurement`."""
        return Measurement(self, name, variant, cache, labels, session_id)

    def timing(
        self, name: str, seconds: float, *, outcome: str = "ok", cache: str | None = None,
        variant: str | None = None, labels: Mapping[str, str] | None = None,
        session_id: str | None = None,
    ) -> None:
        """Records how long something took. `cache` is `"hit"`, `"miss"` or None."""
        self._record((
            "timing", name, self._wall(), self._session_id if session_id is None else session_id,
            self._labels if labels is None else self._joined(labels), seconds, outcome, cache,
            self._variant if variant is None else variant,
        ))

    def gauge(
        self, name: str, value: float, *, unit: str | None = None,
        labels: Mapping[str, str] | None = None, session_id: str | None = None,
    ) -> None:
        """Records any other value at this instant, such as the length of a queue."""
        self._record((
            "gauge", name, self._wall(), self._session_id if session_id is None else session_id,
            self._labels if labels is None else self._joined(labels), value, unit,
        ))

    def memory(
        self, name: str = "process", *, labels: Mapping[str, str] | None = None,
        session_id: str | None = None,
    ) -> ProcessMemory | None:
        """Records and returns the memory of this process; None if it cannot be told, which is
        logged once."""
        memory = process_memory()
        if memory is None:
            if not self._has_warned_of_memory:
                self._has_warned_of_memory = True
                log.warning("the memory of this process is not measured: install psutil, "
                            "because this system has no /proc")
            return None
        self._record((
            "memory", name, self._wall(), self._session_id if session_id is None else session_id,
            self._labels if labels is None else self._joined(labels), *memory,
        ))
        return memory

    def session_size(
        self, state: Mapping[Any, Any], *, labels: Mapping[str, str] | None = None,
        session_id: str | None = None,
    ) -> SessionSize | None:
        """Records the size of a session's state, a mapping such as `st.session_state` or a
        `Session`, whose id the samples then carry; returns it, or None if it cannot be read.

        The gauges are `session_state_keys` (unit `keys`) and `session_state_bytes` (unit `bytes`:
        about what the keys and values take in the memory of this process).
        """
        try:
            items = {key: state[key] for key in list(state)}
            size = SessionSize(len(items), approximate_bytes(items))
        except Exception as error:
            log.debug("the size of a session's state is not known: %r", error)
            return None
        if session_id is None and type(state).__module__.startswith("reprise_client."):
            session_id = getattr(state, "id", None)
        self.gauge("session_state_keys", size.keys, unit="keys", labels=labels,
                   session_id=session_id)
        self.gauge("session_state_bytes", size.size_bytes, unit="bytes", labels=labels,
                   session_id=session_id)
        return size

    def every(self, seconds: float | None, name: str = "process") -> None:
        """Records the memory of this process every so many seconds; None ends that.

        In a child of this process it begins with the child's first sample.
        """
        if seconds is not None and not 0 < seconds < math.inf:
            raise ValueError(f"seconds must be more than 0, or None for never, not {seconds}")
        with self._lock:
            self._memory_seconds = seconds
            self._memory_name = name
            self._memory_at = None if seconds is None else self._clock()
            if seconds is not None:
                self._start()
            self._wake.notify_all()

    def flush(self, timeout: float = limits.MONITOR_CLOSE_SECONDS) -> bool:
        """Sends what was recorded so far, and waits for it, `timeout` seconds at most; whether
        nothing of it waits any more. In asyncio: `await asyncio.to_thread(monitor.flush)`."""
        return self._flush(timeout, is_patient=True)

    def _flush(self, timeout: float, *, is_patient: bool) -> bool:
        """`is_patient`: makes another attempt after one that failed."""
        deadline = self._clock() + timeout
        with self._lock:
            target = self._recorded
        while True:
            with self._lock:
                if self._recorded - self._queued() >= target:
                    return True
            left = deadline - self._clock()
            if left <= 0 or not self._sending.acquire(timeout=min(left, threading.TIMEOUT_MAX)):
                return False
            try:
                wait = self._deliver(left)
            finally:
                self._sending.release()
            if wait > 0:
                left = deadline - self._clock()
                if wait >= left or not is_patient:
                    return False
                time.sleep(wait)

    def close(self, timeout: float = limits.MONITOR_CLOSE_SECONDS) -> bool:
        """Ends what `every` began, sends what waits, and lets the thread end; whether everything
        was sent. The monitor can be used again."""
        self.every(None)
        is_sent = self.flush(timeout)
        with self._lock:
            self._is_closing = True
            self._wake.notify_all()
        if self._blocking is not None and self._blocking is not self._client:
            self._blocking.close()
        return is_sent

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def statistics(self) -> dict[str, Any]:
        """What became of the samples of this process.

        `recorded` is always the sum of `sent`, `dropped` (more than the bound, or too old),
        `failed` (invalid, or refused by the service), `disabled` (the service's
        `enable_monitoring` is off) and `queued`. `last_error` says what went wrong last.
        """
        with self._lock:
            return {
                "recorded": self._recorded,
                "sent": self._sent,
                "dropped": self._dropped,
                "failed": self._failed,
                "disabled": self._disabled,
                "queued": self._queued(),
                "last_error": self._last_error,
            }

    def __repr__(self) -> str:
        return f"Monitor({self.url!r})"

    # The queue.

    def _joined(self, labels: Any) -> Any:
        """Labels of a sample with those of all, as they are now; checked when they are sent."""
        try:
            return {**self._labels, **labels} if self._labels else dict(labels)
        except (TypeError, ValueError):
            return labels or True

    def _queued(self) -> int:
        return len(self._queue) + sum(len(batch.samples) for batch in self._batches)

    def _record(self, sample: Sample) -> None:
        with self._lock:
            self._recorded += 1
            if self._disabled_until:
                if self._clock() < self._disabled_until:
                    self._disabled += 1
                    return
                self._disabled_until = 0.0
            queue = self._queue
            if len(queue) >= self._max_queued:
                queue.popleft()
                self._dropped += 1
            queue.append(sample)
            if self._thread is None:
                self._start()
            elif self._is_idle or len(queue) == self._batch_samples:
                self._wake.notify_all()

    def _start(self) -> None:
        """Starts the thread. The lock is held."""
        self._is_closing = False
        if self._thread is not None:
            return
        if self._memory_seconds is not None and self._memory_at is None:
            self._memory_at = self._clock()
        thread = threading.Thread(target=self._work, name="reprise-samples", daemon=True)
        self._thread = thread
        try:
            thread.start()
        except RuntimeError:
            # The interpreter ends, or there are too many threads. What waits is sent at exit.
            self._thread = None
            return
        _see_to_end_of_worker()

    # The thread.

    def _work(self) -> None:
        me = threading.current_thread()
        gathering_since: float | None = None
        idle_since: float | None = None
        while True:
            with self._lock:
                if self._thread is not me:
                    return
                now = self._clock()
                if self._queue or self._batches:
                    idle_since = None
                    gathering_since = now if gathering_since is None else gathering_since
                else:
                    gathering_since = None
                wait = self._seconds_to_wait(now, gathering_since)
                if wait is None:
                    idle_since = now if idle_since is None else idle_since
                    wait = idle_since + limits.MONITOR_IDLE_SECONDS - now
                    if self._is_closing or wait <= 0:
                        self._thread = None
                        return
                    self._is_idle = True
                if wait > 0:
                    self._wake.wait(min(wait, threading.TIMEOUT_MAX))
                    self._is_idle = False
                    continue
                is_memory_due = self._memory_at is not None and self._memory_at <= now
                if is_memory_due and self._memory_seconds is not None:
                    self._memory_at = now + self._memory_seconds
            try:
                if is_memory_due:
                    self.memory(self._memory_name)
                else:
                    self._send(me)
                    gathering_since = None
            except Exception as error:
                self._give_up_first(error)

    def _seconds_to_wait(self, now: float, gathering_since: float | None) -> float | None:
        """Until there is something to do; None if there is nothing. The lock is held."""
        times = []
        if self._batches:
            times.append(self._retry_at)
        elif self._queue and gathering_since is not None:
            is_full = len(self._queue) >= self._batch_samples
            times.append(now if is_full or self._is_closing
                         else gathering_since + self._flush_seconds)
            times[-1] = max(times[-1], self._retry_at)
        if self._memory_at is not None:
            times.append(self._memory_at)
        return max(0.0, min(times) - now) if times else None

    def _send(self, me: threading.Thread) -> None:
        """Sends everything that waits, or as much as the service takes."""
        while self._thread is me:
            with self._sending:
                wait = self._deliver(limits.MONITOR_CALL_SECONDS)
            with self._lock:
                if self._thread is not me:
                    return
                if wait > 0:
                    self._retry_at = self._clock() + wait
                    return
                if not self._batches and len(self._queue) < self._batch_samples:
                    return

    def _give_up_first(self, error: Exception) -> None:
        """Something that must not happen did; the samples that may have caused it are dropped."""
        log.error("sending samples failed", exc_info=error)
        with self._lock:
            self._last_error = repr(error)
            if self._batches:
                self._failed += len(self._batches.popleft().samples)

    # Sending.

    def _next(self) -> _Batch | None:
        """The batch to send, taken from the queue if none is under way."""
        with self._lock:
            if self._batches:
                return self._batches[0]
            queue = self._queue
            if not queue:
                return None
            count = min(len(queue), self._batch_samples)
            batch = _Batch([queue.popleft() for _ in range(count)])
            self._batches.append(batch)
            return batch

    def _deliver(self, timeout: float) -> float:
        """Sends one batch; how many seconds to wait before the next attempt, 0 if that may be
        made at once. `_sending` is held."""
        batch = self._next()
        if batch is None:
            return 0.0
        body = self._body(batch)
        if body is None:
            self._settle(batch)
            return 0.0
        headers = {"Content-Type": "application/json", "Idempotency-Key": batch.key}
        request = Request("POST", "/v1/samples", headers, body, repeatable=True)
        try:
            answer = self._runner()._run(
                Call(request, _read, min(timeout, limits.MONITOR_CALL_SECONDS)))
        except CircuitOpen as error:
            return self._failed_attempt(batch, error, error.retry_after + 0.01)
        except RepriseError as error:
            return self._failed_attempt(batch, error)
        if answer.error is None:
            self._retry_seconds = limits.MONITOR_RETRY_SECONDS
            if self._is_away:
                self._is_away = False
                log.info("%s takes samples again", self.url)
            if answer.body.get("monitoring") == "disabled":
                self._was_disabled(batch)
            else:
                self._settle(batch, sent=len(batch.samples))
            return 0.0
        if answer.status in (400, 413, 422):
            self._was_refused(batch, answer)
            return 0.0
        return self._failed_attempt(batch, answer.error,
                                    getattr(answer.error, "retry_after", None))

    def _body(self, batch: _Batch) -> bytes | None:
        """The request's body; invalid samples go. None if none is left."""
        if batch.body is None:
            valid, pieces = [], []
            offset = self._clock_offset
            for sample in batch.samples:
                try:
                    piece = as_json(sample, offset)
                except Exception as error:
                    self._note_failed(1, str(error))
                else:
                    valid.append(sample)
                    pieces.append(piece)
            with self._lock:
                self._failed += len(batch.samples) - len(valid)
                batch.samples = valid
            if not valid:
                return None
            batch.body = b'{"samples":[' + b",".join(pieces) + b"]}"
        return batch.body

    def _settle(self, batch: _Batch, *, sent: int = 0, dropped: int = 0, failed: int = 0) -> None:
        """A batch is done with."""
        with self._lock:
            if not self._batches or self._batches[0] is not batch:
                return  # Forked meanwhile.
            self._batches.popleft()
            self._sent += sent
            self._dropped += dropped
            self._failed += failed

    def _was_disabled(self, batch: _Batch) -> None:
        with self._lock:
            self._disabled += self._queued()
            self._queue.clear()
            self._batches.clear()
            self._disabled_until = self._clock() + limits.MONITOR_DISABLED_SECONDS

    def _failed_attempt(
        self, batch: _Batch, error: RepriseError, wait: float | None = None
    ) -> float:
        """Keeps what is young for another attempt; the seconds until then."""
        oldest = self._wall() - limits.MAX_SAMPLE_AGE_SECONDS
        count = len(batch.samples)
        self._last_error = str(error)
        if batch.samples[-1][2] < oldest:
            self._settle(batch, dropped=count)
            self._warn("%d samples were given up, because %s did not take them for %g s: %s",
                       count, self.url, limits.MAX_SAMPLE_AGE_SECONDS, error)
        elif not self._is_away:
            self._is_away = True
            log.warning("%s does not take samples now; up to %d wait until it does: %s",
                        self.url, self._max_queued, error)
        seconds = self._retry_seconds
        self._retry_seconds = min(seconds * 2, limits.MAX_MONITOR_RETRY_SECONDS)
        return min(max(wait or 0.0, seconds), limits.MAX_MONITOR_RETRY_SECONDS * 2)

    def _was_refused(self, batch: _Batch, answer: _Answer) -> None:
        """One sample that is wrong makes the service refuse all: finds it, so that the others
        are stored."""
        text = str(answer.error)
        errors = answer.body.get("errors")
        fields = [str(error.get("field", "")) for error in errors
                  if isinstance(error, dict)] if isinstance(errors, list) else []
        matches = [re.match(r"samples\[(\d+)\](.*)", field) for field in fields]
        wrong = {int(match[1]) for match in matches if match} & set(range(len(batch.samples)))
        if (wrong and answer.at is not None and not batch.is_corrected
                and all(match and match[2] == ".recorded_at" for match in matches)):
            # This machine's clock is ahead of the service's.
            self._clock_offset = answer.at - self._wall()
            batch.is_corrected = True
            batch.body, batch.key = None, new_id()
            self._warn("the clock of this machine is ahead of that of %s by about %.0f s; "
                       "instants of samples are corrected", self.url, -self._clock_offset)
            return
        if wrong:
            kept = [sample for i, sample in enumerate(batch.samples) if i not in wrong]
            parts = [kept] if kept else []
            self._note_failed(len(wrong), text)
        elif len(batch.samples) > 1:
            middle = len(batch.samples) // 2
            parts = [batch.samples[:middle], batch.samples[middle:]]
        else:
            parts = []
            self._note_failed(1, text)
        with self._lock:
            if not self._batches or self._batches[0] is not batch:
                return
            self._batches.popleft()
            self._failed += len(batch.samples) - sum(map(len, parts))
            for part in reversed(parts):
                smaller = _Batch(part)
                smaller.is_corrected = batch.is_corrected
                self._batches.appendleft(smaller)

    def _note_failed(self, count: int, text: str) -> None:
        self._last_error = text
        self._warn("%d samples were given up, because they are not valid: %s", count, text)

    def _warn(self, text: str, *values: Any) -> None:
        """Logs a warning, unless there was one shortly before."""
        now = self._clock()
        level = logging.DEBUG
        if now - self._warned_at >= limits.MONITOR_WARNING_SECONDS:
            self._warned_at = now
            level = logging.WARNING
        log.log(level, text, *values)

    def _runner(self) -> Client:
        """A client that blocks; that of an `AsyncClient` has the same address and breaker."""
        client = self._blocking
        if client is None:
            from .client import AsyncClient

            if isinstance(self._client, AsyncClient):
                client = self._client._blocking(1)
            else:
                client = self._client
            self._blocking = client
        return client


__all__ = [
    "Measurement", "Monitor", "ProcessMemory", "SessionSize", "is_failure",
]  # fmt: skip
