"""What one client's sessions share: saves that wait for the service, and what was last known.

A save that gets no answer waits here, in order, and is sent by the next save of the same session
that gets through or by a thread that runs only while something waits. Each save carries an
idempotency key, so that one that did arrive is not carried out a second time. Until it is sent it
is applied over everything that this process reads of the session: nobody sees older values than
they wrote.

Saves of one session that wait are put together where the outcome is the same, so that a long
outage costs the size of the state and not the number of reruns. Beyond the bounds of `limits` the
oldest save goes first; it is counted and logged, as is one that the service refuses for good.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import threading
import time
import weakref
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any

from . import limits
from .errors import (
    CircuitOpen,
    InvalidResponse,
    ProblemError,
    RepriseError,
    TimedOut,
    TransportError,
)
from .http.flow import Flow
from .http.message import Headers, Response
from .operations import new_id
from .session_state import HistoryChange, HistoryEntry, StatePatch
from .session_write import Deadline, Outcome, Write, deliver, in_one_line

if TYPE_CHECKING:
    from .client import AsyncClient, Client

log = logging.getLogger("reprise_client")

# What was last known.


def _read(answer: bytes) -> Any:
    """An answer that was read before, in the same way."""
    return Response(200, Headers([]), answer).json()


class Known:
    """The last known content of a session: the answer it was read from, as it came, and what was
    saved since."""

    __slots__ = ("answer", "items", "patched", "size", "with_history")

    def __init__(self, answer: bytes, *, has_history: bool = True) -> None:
        self.answer = answer
        #: The latest answer that had the history, if this one has not.
        self.with_history = answer if has_history else b""
        self.patched: dict[str, bytes | None] = {}
        #: The history, if it changed since.
        self.items: tuple[HistoryEntry, ...] | None = None
        self.size = len(answer)

    def saved(self, patch: StatePatch | None, items: tuple[HistoryEntry, ...] | None,
              added: int) -> None:
        if patch is not None:
            changed: dict[str, bytes | None] = dict.fromkeys(patch.delete)
            changed.update(patch.defaults)
            changed.update(patch.set)
            for key, data in changed.items():
                self.size += len(data or b"") - len(self.patched.get(key) or b"")
                self.patched[key] = data
        if items is not None:
            self.items = items
        self.size += added

    def read(self) -> tuple[dict[str, Any], list[HistoryEntry]]:
        """Its state and history, as copies."""
        answer = _read(self.answer) if self.answer else {}
        values: dict[str, Any] = answer.get("state") or {}
        for key, data in self.patched.items():
            if data is None:
                values.pop(key, None)
            else:
                values[key] = json.loads(data)
        if self.items is not None:
            return values, list(self.items)
        if self.with_history and self.with_history is not self.answer:
            answer = _read(self.with_history)
        return values, answer.get("history") or []


# What the sessions of one client share.

_stores: weakref.WeakSet[SessionStore] = weakref.WeakSet()
_is_watching = False


def _watch(store: SessionStore) -> None:
    """Sees to forks and to the end of the process, from the first store on."""
    global _is_watching
    _stores.add(store)
    if _is_watching:
        return
    _is_watching = True
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_forked)
    atexit.register(_exiting)


def _forked() -> None:
    # What waits is sent by the parent; its locks may be held by threads that do not exist here.
    global _store_lock
    _store_lock = threading.Lock()
    for store in list(_stores):
        store.reset()


def _exiting() -> None:
    deadline = time.monotonic() + limits.OUTBOX_EXIT_SECONDS
    for store in list(_stores):
        store.flush_until(deadline)
        if store.waiting:
            log.warning("the process ended before %s took everything; saves of sessions that were "
                        "not sent: %d", store.url, store.waiting)


def _why_waiting(error: RepriseError | None) -> str:
    """What became of the attempt to send a save."""
    if isinstance(error, ProblemError):
        return "took no save for now"
    if isinstance(error, InvalidResponse):
        return "gave no answer that can be read"
    if isinstance(error, TimedOut) and not error.sent:
        return "was not asked in time"
    return "does not answer" if isinstance(error, TransportError) else "has not been asked yet"


class SessionStore:
    """What the sessions of one client share. Safe between threads and after fork."""

    def __init__(self, client: Client | AsyncClient) -> None:
        self._client = client
        self._blocking: Client | None = None
        self.url = client.url
        self.delivered = self.dropped = self.refused = 0
        self.last_refusal = ""
        #: What had been dropped and refused when the first of those that wait came.
        self._lost_before = 0
        self.reset()
        _watch(self)

    def reset(self) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._waiting: deque[Write] = deque()
        self._bytes = 0
        self._in_flight: Write | None = None
        self._thread: threading.Thread | None = None
        self._is_woken = False
        self._known: OrderedDict[str, Known] = OrderedDict()
        self._known_bytes = 0
        self._debounces: OrderedDict[tuple[str, str], float] = OrderedDict()

    # Saves that wait.

    @property
    def waiting(self) -> int:
        """Saves that wait."""
        return len(self._waiting)

    def waiting_for(self, session_id: str) -> list[Write]:
        """The saves of a session that wait, the oldest first. They may be sent meanwhile."""
        if not self._waiting:
            return []
        with self._lock:
            return [write for write in self._waiting if write.session_id == session_id]

    def changes_waiting(
        self, session_id: str
    ) -> list[tuple[StatePatch | None, list[HistoryChange]]]:
        """What the saves of a session that wait will do, in order."""
        return [(write.patch, list(write.changes)) for write in self.waiting_for(session_id)]

    def enqueue(
        self, write: Write, opening: bytes | None, error: RepriseError | None = None
    ) -> None:
        """Lets a save wait, and sees to it that it is sent. `opening` opens the session again
        with all that is known of it; one is kept for all saves of a session. `error` is why it
        was not sent."""
        dropped = 0
        with self._lock:
            is_first = not self._waiting
            if is_first:
                self._lost_before = self.dropped + self.refused
            if not (write.was_sent and write.is_opening and isinstance(write.opening, bytes)):
                # Otherwise it is a part of what was sent, and has to stay as it is.
                write.opening = opening
            write.created = time.monotonic()
            if not write.was_sent and write.if_match is not None:
                # A condition was meant for the moment of the save.
                write.if_match = None
                write.key = new_id()
            earlier = [waiting for waiting in self._waiting
                       if waiting.session_id == write.session_id
                       and waiting is not self._in_flight]
            if write.ends_session:
                for waiting in earlier:
                    self._forget(waiting)
                earlier = []
            is_absorbed = False
            if earlier:
                last = earlier[-1]
                self._bytes -= last.size
                is_absorbed = last.absorb(write)
                if not is_absorbed and not last.is_opening:
                    last.opening = None
                self._bytes += last.size
            if not is_absorbed:
                self._waiting.append(write)
                self._bytes += write.size
            while self._waiting and (len(self._waiting) > limits.MAX_OUTBOX_WRITES
                                     or self._bytes > limits.MAX_OUTBOX_BYTES):
                oldest = next((w for w in self._waiting if w is not self._in_flight), None)
                if oldest is None:
                    break
                self._forget(oldest)
                dropped += 1
            self.dropped += dropped
            self._start()
        if is_first:
            log.warning("%s %s%s; what sessions save waits to be sent later", self.url,
                        _why_waiting(error), f" ({in_one_line(error)})" if error else "")
        if dropped:
            log.warning("saves of sessions that were given up: %d; more wait for %s than "
                        "MAX_OUTBOX_WRITES or MAX_OUTBOX_BYTES", dropped, self.url)

    def _forget(self, write: Write) -> None:
        self._waiting.remove(write)
        self._bytes -= write.size

    def _claim(self) -> Write | None:
        """The oldest save, for the caller alone; None if there is none, or another sends."""
        expired = 0
        with self._lock:
            if self._in_flight is not None:
                return None
            too_old = time.monotonic() - limits.MAX_OUTBOX_SECONDS
            while self._waiting and self._waiting[0].created < too_old:
                self._forget(self._waiting[0])
                expired += 1
            self.dropped += expired
            if not self._waiting:
                claimed = None
            else:
                claimed = self._in_flight = self._waiting[0]
                # Its size changes while it is sent.
                self._bytes -= claimed.size
                if claimed.opening is None:
                    claimed.opening = next((w.opening for w in reversed(self._waiting)
                                            if w.session_id == claimed.session_id), None)
        if expired:
            log.warning("saves of sessions that were given up: %d; they waited for %s for more "
                        "than %g s", expired, self.url, limits.MAX_OUTBOX_SECONDS)
        return claimed

    def _release(self, write: Write, *, is_sent: bool) -> None:
        with self._lock:
            if self._in_flight is not write:
                return  # Forked meanwhile.
            self._in_flight = None
            if is_sent:
                self._waiting.remove(write)
                self.delivered += 1
            else:
                self._bytes += write.size
            is_last = is_sent and not self._waiting
            lost = self.dropped + self.refused - self._lost_before
            self._changed.notify_all()
        if is_last and lost:
            log.info("%s answers again; of what sessions saved nothing waits any more, but some "
                     "was given up: %d", self.url, lost)
        elif is_last:
            log.info("%s answers again; everything that sessions saved was sent", self.url)

    def flush(self, deadline: Deadline) -> Flow[None]:
        """Sends what waits, in order. Raises what the first failure is; the rest goes on
        waiting."""
        while True:
            write = self._claim()
            if write is None:
                return
            is_sent = False
            patch = write.patch
            try:
                outcome = yield from deliver(write, deadline)
                self.note_refusals(write.session_id, outcome)
                if outcome.conflict is None:
                    is_sent = True
                else:
                    # Too late for its condition: the last save of each key wins.
                    write.patch, write.if_match = patch, None
            finally:
                self._release(write, is_sent=is_sent)

    def note_refusals(self, session_id: str, outcome: Outcome) -> None:
        """Counts and logs what the service refuses for good."""
        for what, error in outcome.refusals:
            self.refused += 1
            said = in_one_line(error)
            self.last_refusal = f"{what}: {said}"
            log.warning("a save of session %s was refused (%s) and given up: %s",
                        session_id, what, said)

    # The thread.

    def wake(self) -> None:
        """Lets what waits be sent now, because the service seems to be back."""
        if self._waiting:
            with self._lock:
                self._is_woken = True
                self._changed.notify_all()
                self._start()

    def _start(self) -> None:
        """Starts the thread that sends what waits. The lock is held."""
        if self._thread is None and self._waiting:
            thread = threading.Thread(target=self._work, name="reprise-sessions", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                return  # The interpreter ends; what waits is sent at exit.
            self._thread = thread

    def _work(self) -> None:
        seconds = limits.OUTBOX_RETRY_SECONDS
        me = threading.current_thread()
        while True:
            with self._lock:
                if self._thread is not me:
                    return
                if not self._is_woken:
                    self._changed.wait_for(lambda: self._is_woken or not self._waiting, seconds)
                self._is_woken = False
                if not self._waiting:
                    self._thread = None
                    return
            try:
                self.blocking()._run(self.flush(Deadline(self._client.timeout)))
                seconds = limits.OUTBOX_RETRY_SECONDS
            except RepriseError as error:
                seconds = min(seconds * 2, limits.MAX_OUTBOX_RETRY_SECONDS)
                if isinstance(error, CircuitOpen):
                    seconds = min(error.retry_after + 0.01, limits.MAX_OUTBOX_RETRY_SECONDS)
                elif isinstance(error, ProblemError) and error.retry_after is not None:
                    seconds = min(max(seconds, error.retry_after),
                                  limits.MAX_OUTBOX_RETRY_SECONDS)
            except Exception:
                log.exception("sending the saves of sessions failed")
                seconds = limits.MAX_OUTBOX_RETRY_SECONDS

    def flush_until(self, deadline: float) -> bool:
        """Sends what waits, until a time of `time.monotonic`; whether nothing waits any more."""
        while self._waiting and (left := deadline - time.monotonic()) > 0:
            wait = 0.05
            try:
                self.blocking()._run(self.flush(Deadline(left)))
            except CircuitOpen as error:
                wait = error.retry_after
                if wait >= left:
                    break
            except RepriseError:
                pass
            if self._waiting:
                with self._lock:
                    self._changed.wait_for(lambda: not self._waiting, min(wait, max(left, 0)))
        return not self._waiting

    def blocking(self) -> Client:
        """A client that blocks, with the same breaker."""
        client = self._blocking
        if client is None:
            from .client import AsyncClient

            if isinstance(self._client, AsyncClient):
                client = self._client._blocking(1)
            else:
                client = self._client
            self._blocking = client
        return client

    # What was last known.

    def know(self, session_id: str, known: Known) -> None:
        with self._lock:
            before = self._known.get(session_id)
            if before is not None and not known.with_history:
                known.with_history, known.items = before.with_history, before.items
                known.size += len(known.with_history)
            self._unknow(session_id)
            self._known[session_id] = known
            self._known_bytes += known.size
            self._bound_known()

    def note_saved(
        self, session_id: str, patch: StatePatch | None,
        items: tuple[HistoryEntry, ...] | None, added: int,
    ) -> None:
        """What a session saved, sent or not."""
        with self._lock:
            known = self._known.get(session_id)
            if known is None:
                known = self._known[session_id] = Known(b"")
            before = known.size
            known.saved(patch, items, added)
            self._known_bytes += known.size - before
            self._known.move_to_end(session_id)
            self._bound_known()

    def _bound_known(self) -> None:
        while len(self._known) > limits.MAX_KNOWN_SESSIONS or (
            self._known_bytes > limits.MAX_KNOWN_BYTES and self._known
        ):
            _, oldest = self._known.popitem(last=False)
            self._known_bytes -= oldest.size

    def _unknow(self, session_id: str) -> None:
        known = self._known.pop(session_id, None)
        if known is not None:
            self._known_bytes -= known.size

    def unknow(self, session_id: str) -> None:
        """Forgets what was known of a session that was removed."""
        with self._lock:
            self._unknow(session_id)

    def known(self, session_id: str) -> tuple[dict[str, Any], list[HistoryEntry]] | None:
        with self._lock:
            known = self._known.get(session_id)
            return None if known is None else known.read()

    # Debouncing while the service is away.

    def note_allowed(self, session_id: str, name: str, now: float) -> None:
        with self._lock:
            self._allow(session_id, name, now)

    def _allow(self, session_id: str, name: str, now: float) -> None:
        self._debounces[session_id, name] = now
        self._debounces.move_to_end((session_id, name))
        while len(self._debounces) > limits.MAX_LOCAL_DEBOUNCES:
            self._debounces.popitem(last=False)

    def debounce(self, session_id: str, name: str, delay: float, now: float) -> bool:
        """The leading edge: True for the first of all that ask within `delay` seconds."""
        with self._lock:
            last = self._debounces.get((session_id, name))
            if last is not None and now - last < delay:
                return False
            self._allow(session_id, name, now)
            return True

    def statistics(self) -> dict[str, Any]:
        with self._lock:
            oldest = self._waiting[0].created if self._waiting else None
            return {
                "waiting": len(self._waiting),
                "waiting_bytes": self._bytes,
                "oldest_seconds": None if oldest is None else time.monotonic() - oldest,
                "delivered": self.delivered,
                "dropped": self.dropped,
                "refused": self.refused,
                "last_refusal": self.last_refusal,
                "known_sessions": len(self._known),
                "known_bytes": self._known_bytes,
            }


_store_lock = threading.Lock()


def store_of(client: Client | AsyncClient) -> SessionStore:
    """What the sessions of this client share."""
    attributes = vars(client)
    store: SessionStore | None = attributes.get("_session_store")
    if store is None:
        with _store_lock:
            store = attributes.get("_session_store")
            if store is None:
                store = attributes["_session_store"] = SessionStore(client)
    return store


