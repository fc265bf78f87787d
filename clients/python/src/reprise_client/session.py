"""`Session` and `AsyncSession`: a session of the service as a mapping, made for one rerun.

A rerun costs two calls: the first use opens the session and reads its state and history, `save`
sends everything that changed. Only keys that changed are sent, so that two tabs that change
different keys do not undo each other; for the same key the last save wins, unless `merge` says
otherwise.
"""

from __future__ import annotations

import csv
import json
import logging
import os
import re
import tempfile
import threading
import time
import warnings
from collections.abc import (
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
    Sequence,
)
from datetime import datetime, timedelta, timezone
from typing import IO, TYPE_CHECKING, Any, Literal, TypeVar, Union, overload

from . import limits
from .errors import (
    InvalidRequest,
    InvalidResponse,
    NotFound,
    ProblemError,
    RepriseError,
    StorageFull,
    TimedOut,
    is_foreign,
)
from .http.flow import Call, Flow, operation
from .http.message import Request, Response
from .models import Optimized
from .operations import ABSENT, TTL, Operations, decimal, instant, new_id, segment
from .outbox import Known, store_of
from .session_state import (
    HistoryChange,
    HistoryEntry,
    Merge,
    StateConflict,
    StatePatch,
    TrackedState,
    checked_json,
    checked_key,
    difference,
    encoded,
    is_encodable,
    joined,
    merge_patch,
)
from .session_write import Deadline, Outcome, Write, deliver, in_one_line, is_passing

if TYPE_CHECKING:
    from .client import AsyncClient, Client

__all__ = ["AsyncHistory", "AsyncSession", "History", "Session", "StateConflict"]

log = logging.getLogger("reprise_client")

T = TypeVar("T")
Lifetime = Union[TTL, timedelta]
_NAME = re.compile(r"[A-Za-z0-9._~:-]{1,128}\Z")


def _checked_name(name: str, what: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"{what} is text, not {type(name).__name__}")
    if not _NAME.match(name) or name in (".", ".."):
        raise ValueError(
            f"{what} has 1 to 128 of A–Z a–z 0–9 . _ ~ : -, unlike {name[:140]!r}"
        )
    return name


class _SessionMethods(MutableMapping[str, Any]):
    """What both kinds of session have in common."""

    def __init__(
        self,
        client: Any,
        session_id: str | None = None,
        *,
        defaults: Mapping[str, Any] | None = None,
        template: str | None = None,
        ttl: Lifetime = ABSENT,
        max_history_items: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        strict: bool = False,
        history: bool = True,
        if_match: bool = False,
        merge: Merge | None = None,
        timeout: float | None = None,
    ) -> None:
        """Nothing is sent before the session is used. Without an id it gets 128 random bits.

        `defaults` are set for keys that are absent. `template`, `ttl` (seconds, a timedelta, or
        None for never), `max_history_items` and `metadata` apply when the session is created.
        `history=False` reads the history only when it is used. `timeout` is in seconds, for each
        use that calls the service; None for that of the client.

        With `if_match` a save is refused if somebody else changed the state since it was read:
        then `merge(base, mine, theirs)` gives the state to be saved, all four being dicts.
        Without `merge`, `StateConflict` is raised if `strict`; otherwise the last save of each
        key wins. `merge` implies `if_match`.

        If the service cannot be reached, the app goes on with the last state that this process
        knows, or with the defaults; what it saves waits and is sent later, without `if_match`.
        With `strict` the error is raised instead, and the changes remain to be saved.
        """
        self._client = client
        self._store = store_of(client)
        self.id = new_id() if session_id is None else _checked_name(session_id, "a session id")
        self.strict = strict
        self._timeout: float = client.timeout if timeout is None else timeout
        self._with_history = history
        self._merge = merge
        self._is_conditional = if_match or merge is not None
        self._defaults = {
            key: checked_json(value, f"defaults[{key!r}]")
            for key, value in (defaults or {}).items() if checked_key(key)
        }
        self._fields = _opening_fields(template, ttl, max_history_items, metadata)
        self._state: TrackedState | None = None
        self._version: int | None = None
        self._is_offline = False
        self._queued: list[HistoryChange] = []
        #: None until the history was read.
        self._items: list[HistoryEntry] | None = None
        self._saved_items: tuple[HistoryEntry, ...] | None = None
        self._cursor: str | None = None
        self._unread = 0
        self._prepare()

    def _prepare(self) -> None:
        raise NotImplementedError

    def __del__(self) -> None:
        try:
            state = self._state
            is_changed = bool(self._queued) or (
                state is not None and state.has_changes(limits.MAX_UNSAVED_BYTES))
        except Exception:
            return  # It was never complete, or what it holds cannot be compared.
        if is_changed:
            warnings.warn(f"session {self.id} has changes that were not saved: call save(), or "
                          "use it in a `with` block", ResourceWarning, stacklevel=2, source=self)

    # The mapping.

    def _opened(self) -> TrackedState:
        raise NotImplementedError

    def __getitem__(self, key: str) -> Any:
        return self._opened().get(key)

    def __setitem__(self, key: str, value: Any) -> None:
        self._opened().set(key, value)

    def __delitem__(self, key: str) -> None:
        self._opened().delete(key)

    def __contains__(self, key: object) -> bool:
        return key in self._opened().values

    def __iter__(self) -> Iterator[str]:
        return iter(self._opened().values)

    def __len__(self) -> int:
        return len(self._opened().values)

    def setdefault(self, key: str, default: Any = None) -> Any:
        """The value; a key that is absent is set first, here and at the service only where it is
        absent."""
        state = self._opened()
        state.set_default(key, default)
        return state.get(key)

    def initialize_defaults(self, defaults: Mapping[str, Any]) -> set[str]:
        """Sets the keys that are absent, and returns them. The save sets them at the service only
        where they are absent there as well; a value that another tab set first is seen after
        `refresh`."""
        state = self._opened()
        return {key for key, value in defaults.items() if state.set_default(key, value)}

    def clear(self) -> None:
        """Deletes all keys that this session sees. `remove` ends the session itself."""
        state = self._opened()
        for key in list(state.values):
            state.delete(key)

    def delete_prefix(self, prefix: str, *, keep: Iterable[str] = ()) -> list[str]:
        """Deletes all keys that begin with `prefix`, except `keep`; those that were seen here.

        The save also deletes what others have added under it."""
        return self._opened().delete_prefix(checked_key(prefix), keep)

    def copy(self) -> dict[str, Any]:
        """The state as a dict of its own."""
        values: dict[str, Any] = json.loads(encoded(self._opened().values))
        return values

    def __repr__(self) -> str:
        state = self._state
        what = "not opened yet" if state is None else f"{len(state.values)} keys"
        return f"{type(self).__name__}({self.id!r}, {what})"

    # What changed.

    @property
    def is_changed(self) -> bool:
        """Whether there is something to save."""
        return bool(self._queued or (self._state is not None and self._state.patch()))

    def changes(self) -> dict[str, Any]:
        """What a save would send: `set`, `set_default`, `delete`, `delete_prefixes`, and how many
        changes of the history."""
        patch = self._state.patch() if self._state is not None else StatePatch()
        return {
            "set": {key: json.loads(data) for key, data in patch.set.items()},
            "set_default": {key: json.loads(data) for key, data in patch.defaults.items()},
            "delete": list(patch.delete),
            "delete_prefixes": list(patch.prefixes),
            "history": len(self._queued),
        }

    def discard(self) -> None:
        """Puts back what was read or last saved. Lists and dicts that were read before are no
        longer part of the session."""
        if self._state is not None:
            self._state.discard()
        self._queued.clear()
        if self._saved_items is not None:
            self._items = list(self._saved_items)

    @property
    def is_offline(self) -> bool:
        """Whether the service did not answer the last time it was asked."""
        return self._is_offline

    @property
    def version(self) -> int | None:
        """The version of the state that was read or saved; None if it is not known."""
        return self._version

    @property
    def pending(self) -> int:
        """Saves of this session that wait to be sent."""
        return len(self._store.waiting_for(self.id))

    def statistics(self) -> dict[str, Any]:
        """What waits and what became of it, for all sessions of the client; and `pending`."""
        return {**self._store.statistics(), "pending": self.pending,
                "is_offline": self._is_offline}

    # Opening.

    def _opening_body(self, values: dict[str, Any] | None = None) -> bytes:
        """The body that opens the session; with everything that is known if it should be as it is
        here."""
        fields = dict(self._fields)
        if values is not None:
            fields["state"] = encoded(values)
        elif self._defaults:
            fields["defaults"] = joined(self._defaults)
        return joined(fields)

    def _snapshot(self) -> bytes:
        if self._state is None:
            return self._opening_body()
        values = self._state.values
        try:
            return self._opening_body(values)
        except ValueError:
            # A number that was too long for Python was read as infinity, which JSON lacks.
            return self._opening_body({key: value for key, value in values.items()
                                       if is_encodable(value)})

    def _target(self, with_history: bool) -> str:
        include = "state,history" if with_history else "state"
        return f"/v1/sessions/{segment(self.id)}?include={include}"

    def _opening(self, deadline: Deadline) -> Flow[bool]:
        """Reads the session; whether the service answered."""
        store = self._store
        waited = store.changes_waiting(self.id)
        with_history = self._with_history
        try:
            response = yield self._reading(with_history, deadline)
            try:
                answer = response.json()
            except InvalidResponse as error:
                if not with_history:
                    raise
                # Often it is one item that this Python cannot read, such as a number that is too
                # long; without the state, older values would be saved over newer ones.
                log.warning("the history of session %s cannot be read, the app goes on without: "
                            "%s", self.id, in_one_line(error))
                with_history = False
                response = yield self._reading(with_history, deadline)
                answer = response.json()
            try:
                values: dict[str, Any] = answer["state"]
                version, count = int(answer["version"]), int(answer["history_count"])
            except (KeyError, TypeError, ValueError) as error:
                raise InvalidResponse(f"the answer is not an open session: {error!r}") from None
        except RepriseError as error:
            # What the app itself has wrong, such as a template that does not exist, is said.
            if self.strict or isinstance(error, InvalidRequest) and not is_foreign(error):
                raise
            self._is_offline = True
            self._note_failure("opened", error)
            if self._state is None:
                self._fall_back()
            return False
        self._is_offline = False
        read = list(values)
        items: list[HistoryEntry] = answer.get("history") or []
        store.know(self.id, Known(response.body, has_history=with_history))
        # Both what waited before and what waits now, because it may have been sent meanwhile.
        waits = [*waited, *store.changes_waiting(self.id)]
        for patch, changes in waits:
            if patch is not None:
                patch.apply(values)
            for change in changes:
                change.apply(items)
                if change.kind == "end":
                    values = {key: json.loads(data) for key, data in self._defaults.items()}
        is_unreadable = self._with_history and not with_history
        self._begin(values, items if with_history or is_unreadable else None,
                    answer.get("history_next_cursor"),
                    count - len(answer.get("history") or ()))
        if is_unreadable:
            # Nothing of it is known, so that nothing is kept as what it was.
            self._saved_items = None
        self._version = version
        if waits:
            everything = StatePatch(set={key: encoded(value) for key, value in values.items()},
                                    delete=[key for key in read if key not in values])
            store.note_saved(self.id, everything, self._saved_items, 0)
            store.wake()
        return True

    def _reading(self, with_history: bool, deadline: Deadline) -> Call[Response]:
        request = Request("PUT", self._target(with_history), {"Content-Type": "application/json"},
                          self._opening_body())
        return Call(request, _read_answer, deadline.left())

    def _note_failure(self, what: str, error: RepriseError) -> None:
        """Logs what has a reason other than that the service is away or busy."""
        if isinstance(error, InvalidResponse):
            log.warning("session %s could not be %s, the app goes on without: the answer cannot "
                        "be read: %s", self.id, what, in_one_line(error))
        elif isinstance(error, ProblemError) and (
            not is_passing(error) or isinstance(error, StorageFull)
        ):
            log.warning("the service refused that session %s is %s, the app goes on without: %s",
                        self.id, what, in_one_line(error))

    def _fall_back(self) -> None:
        known = self._store.known(self.id)
        values, items = known if known is not None else ({}, [])
        for key, data in self._defaults.items():
            if key not in values:
                values[key] = json.loads(data)
        self._begin(values, items, None, 0)
        self._version = None

    def _begin(self, values: dict[str, Any], items: list[HistoryEntry] | None,
               cursor: str | None, unread: int) -> None:
        """Goes on with what was read; what is not saved yet stays changed."""
        before, self._state = self._state, TrackedState(values)
        if before is not None:
            _carry_over(before, self._state)
        self._saved_items = None if items is None else tuple(items)
        self._cursor, self._unread = cursor, max(unread, 0) if cursor else 0
        if items is not None:
            for change in self._queued:
                change.apply(items)
        self._items = items

    def _ensuring(self, deadline: Deadline) -> Flow[None]:
        if self._state is None:
            yield from self._opening(deadline)

    @operation
    def open(self) -> Flow[bool]:
        """Reads the session unless that was done; False if the service did not answer."""
        if self._state is None:
            return (yield from self._opening(Deadline(self._timeout)))
        return not self._is_offline

    @operation
    def refresh(self) -> Flow[bool]:
        """Reads the session anew; what is not saved yet stays changed. False if the service did
        not answer: then everything stays as it was."""
        return (yield from self._opening(Deadline(self._timeout)))

    # Saving.

    @operation
    def save(self) -> Flow[bool]:
        """Sends everything that changed, in one call. False if it waits to be sent later, or if
        the service refuses a part of it for good, which is logged, counted and given up.

        If the session is gone, it is opened again with everything that this object holds of its
        state, because that is what the app goes on with; items of the history that went with it
        stay gone. Raises `TypeError` or `ValueError`, before anything is sent, for a value that
        cannot be stored.
        """
        return (yield from self._saving(Deadline(self._timeout)))

    def _saving(self, deadline: Deadline, *, with_state: bool = True) -> Flow[bool]:
        store = self._store
        patch, changes, write = self._unsaved(with_state)
        if not write:
            return not store.waiting_for(self.id)
        if store.waiting_for(self.id):
            if not self.strict:
                self._wait(write, patch, changes)
                try:
                    yield from store.flush(deadline)
                except RepriseError:
                    pass
                self._is_offline = bool(store.waiting_for(self.id))
                return not self._is_offline
            yield from store.flush(deadline)
            if store.waiting_for(self.id):
                raise TimedOut("earlier changes of this session still wait to be sent; save again",
                               sent=False)
        merges = 0
        is_refused = False
        while write:
            write.opening = self._snapshot
            # What was never read may not exist: one call both opens and writes.
            write.is_opening = write.is_opening or self._state is None
            try:
                outcome: Outcome = yield from deliver(write, deadline)
                self._note(outcome)
                if outcome.conflict is not None:
                    merges += 1
                    store.note_refusals(self.id, outcome)
                    is_refused = is_refused or bool(outcome.refusals)
                    if (yield from self._resolve(outcome.conflict, merges, deadline)):
                        patch, _, write = self._unsaved(with_state)
                    else:
                        write = Write(self.id, patch)
                    # The changes of the history have been sent.
                    write.changes = []
                    continue
            except RepriseError as error:
                if self.strict:
                    raise
                self._wait(write, patch, changes, error)
                self._is_offline = True
                return False
            if outcome.refusals and self.strict:
                raise outcome.refusals[0].error
            store.note_refusals(self.id, outcome)
            is_refused = is_refused or bool(outcome.refusals)
        self._is_offline = False
        self._committed(patch, changes)
        return not is_refused

    def _note(self, outcome: Outcome) -> None:
        if outcome.version is not None:
            self._version = outcome.version
        if outcome.removed_items and self._items is not None and self._cursor is None:
            del self._items[max(len(self._items) - outcome.removed_items, 0):]

    def _unsaved(self, with_state: bool) -> tuple[StatePatch, list[HistoryChange], Write]:
        patch = self._state.patch() if with_state and self._state is not None else StatePatch()
        changes = list(self._queued)
        condition = self._version if self._is_conditional and patch else None
        return patch, changes, Write(self.id, patch, list(changes), condition)

    def _wait(self, write: Write, patch: StatePatch, changes: list[HistoryChange],
              error: RepriseError | None = None) -> None:
        """Lets a save wait for the service; for the app it is done."""
        self._store.enqueue(write, self._snapshot(), error)
        self._committed(patch, changes)

    def _committed(self, patch: StatePatch, changes: list[HistoryChange]) -> None:
        if self._state is not None:
            self._state.saved(patch)
        # Others may have been queued meanwhile.
        del self._queued[: len(changes)]
        if changes and self._items is not None:
            self._saved_items = tuple(self._items)
        self._store.note_saved(
            self.id, patch, self._saved_items if changes else None,
            sum(change.size for change in changes),
        )

    def _resolve(self, conflict: ProblemError, merges: int, deadline: Deadline) -> Flow[bool]:
        """After a conflict: whether the state was merged, and not only its condition dropped."""
        if self._merge is None or merges > limits.MAX_MERGES:
            if self.strict:
                raise StateConflict(
                    f"somebody else changed the state of session {self.id} since it was read, and "
                    + ("merging it failed each time" if self._merge else "there is no merge=")
                    + "; call refresh() and save() to override only the keys that you changed"
                ) from conflict
            return False
        assert self._state is not None
        try:
            answer = yield _within(Operations.get_state.flow(self._client, self.id), deadline)
            theirs, version = answer["state"], answer["version"]
        except NotFound:
            theirs, version = {}, None
        wanted = self._merge(self._state.base(), self.copy(), json.loads(encoded(theirs)))
        if not isinstance(wanted, dict):
            raise TypeError(f"merge must return a dict, not {type(wanted).__name__}")
        patch = difference(theirs, wanted)
        state = TrackedState(theirs)
        for key in patch.delete:
            state.delete(key)
        for key in patch.set:
            state.set(key, wanted[key])
        self._state, self._version = state, version
        return True

    # Other uses.

    def _existing(self, build: Callable[[], Call[T] | Flow[T]], deadline: Deadline) -> Flow[T]:
        """A call that needs the session; if it is gone, it is opened again first."""
        try:
            return (yield _within(build(), deadline))  # type: ignore[no-any-return]
        except NotFound as error:
            if error.code != "session_not_found":
                raise
        request = Request("PUT", f"/v1/sessions/{segment(self.id)}",
                          {"Content-Type": "application/json"}, self._snapshot())
        yield Call(request, _read_answer, deadline.left())
        # Built anew, because with the same idempotency key it would get the same answer.
        return (yield _within(build(), deadline))  # type: ignore[no-any-return]

    def _excuse(self, error: RepriseError) -> None:
        """Raises what the app should know; otherwise the service is away, and the app goes on."""
        if self.strict or isinstance(error, InvalidRequest) and not is_foreign(error):
            raise error
        self._is_offline = True
        self._note_failure("used", error)

    @operation
    def debounce(self, name: str, delay: float | None = None) -> Flow[bool]:
        """Whether an action may happen now: only the first of all that ask within `delay` seconds.

        All replicas of an app ask the service, so that it is one for all of them; while it is
        away, each process decides for itself. None is the service's `debounce_delay`.
        """
        _checked_name(name, "the name of a debounce")
        if delay is not None and not delay > 0:
            raise ValueError(f"delay must be more than 0 seconds, not {delay}")
        store = self._store
        deadline = Deadline(self._timeout)
        seconds = limits.LOCAL_DEBOUNCE_SECONDS if delay is None else delay
        try:
            yield from self._ensuring(deadline)
            answer = yield from self._existing(
                lambda: Operations.debounce.flow(self._client, self.id, name, delay_seconds=delay),
                deadline)
        except RepriseError as error:
            self._excuse(error)
            return store.debounce(self.id, name, seconds, time.monotonic())
        is_allowed = bool(answer["allowed"])
        elapsed = 0.0 if is_allowed else max(seconds - float(answer["retry_after_seconds"]), 0.0)
        store.note_allowed(self.id, name, time.monotonic() - elapsed)
        return is_allowed

    @operation
    def touch(self) -> Flow[bool]:
        """Extends the session's life, as opening and saving do. False if the service is away."""
        try:
            yield from self._existing(
                lambda: Operations.touch_session.flow(self._client, self.id),
                Deadline(self._timeout))
        except RepriseError as error:
            self._excuse(error)
            return False
        return True

    @operation
    def optimize(self, *, keep: Sequence[str] | None = None) -> Flow[Optimized]:
        """Saves, then cuts the history to its limit and removes the keys that begin with `temp_`
        or `cache_`, except `keep` (default: `temp_current_generation`)."""
        if isinstance(keep, str):
            raise TypeError("keep is a list of keys, not one text")
        deadline = Deadline(self._timeout)
        try:
            yield from self._ensuring(deadline)
            if (yield from self._saving(deadline)):
                result: Optimized = yield from self._existing(
                    lambda: Operations.optimize_session.flow(self._client, self.id, keep=keep),
                    deadline)
                self._optimized(result)
                return result
        except RepriseError as error:
            self._excuse(error)
        kept = ["temp_current_generation"] if keep is None else list(keep)
        state = self._opened()
        removed = [key for prefix in ("temp_", "cache_")
                   for key in state.delete_prefix(prefix, kept)]
        yield from self._saving(deadline)
        return {"history_removed": 0, "keys_removed": removed, "freed_bytes": 0}

    def _optimized(self, result: Optimized) -> None:
        keys = result["keys_removed"]
        if self._state is not None:
            self._state.forget(keys)
        count = result["history_removed"]
        if count and self._items is not None and self._cursor is None:
            del self._items[max(len(self._items) - count, 0):]
            self._saved_items = tuple(self._items)
        self._store.note_saved(self.id, StatePatch(delete=keys), self._saved_items, 0)

    @operation
    def remove(self) -> Flow[bool]:
        """Removes the session with its state, its history and what waits to be saved. False if
        the service is away: then it is removed later. Used again, the session begins anew."""
        store = self._store
        is_removed = True
        try:
            if store.waiting_for(self.id):
                store.enqueue(Write(self.id, changes=[HistoryChange("end")]), None)
                yield from store.flush(Deadline(self._timeout))
                is_removed = not store.waiting_for(self.id)
            else:
                yield _within(Operations.remove_session.flow(self._client, self.id),
                              Deadline(self._timeout))
        except NotFound:
            pass
        except RepriseError as error:
            self._excuse(error)
            is_removed = False
            if not store.waiting_for(self.id):
                store.enqueue(Write(self.id, changes=[HistoryChange("end")]), None, error)
        store.unknow(self.id)
        self._state = self._items = self._saved_items = self._version = self._cursor = None
        self._queued.clear()
        return is_removed

    def _ended(self, error: BaseException | None, failure: Exception) -> None:
        """At the end of a `with` block: an error of the block is not hidden by one of the save."""
        if error is None:
            raise failure
        log.warning("session %s could not be saved after %s: %s", self.id,
                    type(error).__name__, in_one_line(failure))


def _opening_fields(
    template: str | None, ttl: Lifetime, max_history_items: int | None,
    metadata: Mapping[str, Any] | None,
) -> dict[str, bytes]:
    fields: dict[str, bytes] = {}
    if template is not None:
        fields["template"] = encoded(_checked_name(template, "the name of a template"))
    if isinstance(ttl, timedelta):
        ttl = ttl.total_seconds()
    if ttl is None:
        fields["ttl_seconds"] = b"null"
    elif isinstance(ttl, (int, float)):
        if not ttl > 0:
            raise ValueError(f"ttl must be more than 0 seconds, or None for never, not {ttl}")
        fields["ttl_seconds"] = decimal(float(ttl), "ttl").encode()
    if max_history_items is not None:
        fields["max_history_items"] = encoded(max_history_items)
    if metadata is not None:
        fields["metadata"] = checked_json(dict(metadata), "metadata")
    return fields


def _within(call: Call[T] | Flow[T], deadline: Deadline) -> Call[T]:
    """The call of an operation, in the time that is left."""
    assert isinstance(call, Call)
    call.timeout = deadline.left()
    return call


def _read_answer(response: Response) -> Response:
    if response.status >= 400:
        raise response.problem()
    return response


def _carry_over(before: TrackedState, state: TrackedState) -> None:
    """Makes the changes that are not saved yet to what was read anew."""
    patch = before.patch()
    for prefix in patch.prefixes:
        state.delete_prefix(prefix, patch.keep)
    for key in patch.delete:
        if key in state.values:
            state.delete(key)
    for key in patch.set:
        state.set(key, before.values[key])
    for key in patch.defaults:
        state.set_default(key, before.values[key])


# History.


class _HistoryMethods:
    """Changes of a history; they are sent with the session's next save, in order."""

    def __init__(self, session: _SessionMethods) -> None:
        self._session = session

    def _queue(self, change: HistoryChange) -> None:
        session = self._session
        session._queued.append(change)
        if session._items is not None:
            change.apply(session._items)

    def _added(self, data: Any, kind: str | None, id: str | None) -> HistoryEntry:
        session = self._session
        item_id = new_id() if id is None else _checked_name(id, "the id of a history item")
        content = checked_json(data, "the data of the history item")
        for change in session._queued:
            if change.item is not None and change.item_id == item_id:
                return change.item
        for item in session._items or ():
            if item["id"] == item_id:
                return item
        fields = {"id": encoded(item_id), "data": content}
        if kind is not None:
            fields["kind"] = encoded(kind)
        now = instant(datetime.now(timezone.utc))
        item = {
            "id": item_id, "session_id": session.id, "kind": kind, "data": json.loads(content),
            "created_at": now, "updated_at": now, "size_bytes": len(content),
        }
        self._queue(HistoryChange("append", item_id, joined(fields), item))
        return item

    def _find(self, item_id: str) -> HistoryEntry | None:
        session = self._session
        for item in session._items or ():
            if item["id"] == item_id:
                return item
        return next((change.item for change in session._queued
                     if change.item is not None and change.item_id == item_id), None)

    def rate(self, item_id: str, rating: Any, comment: str | None = None) -> None:
        """Sets `rating`, and `comment` unless it is None, in an item's data."""
        patch = {"rating": rating}
        if comment is not None:
            patch["comment"] = comment
        self.update(item_id, patch)

    def update(self, item_id: str, patch: Mapping[str, Any]) -> None:
        """Merges into an item's data (RFC 7396): None removes a field.

        Raises `TypeError` if the data of the item is known to be something else than an object,
        because a merge would replace it."""
        _checked_name(item_id, "the id of a history item")
        body = checked_json(dict(patch), "the patch")
        item = self._find(item_id)
        if item is not None and not isinstance(item["data"], dict):
            raise TypeError(
                f"the data of history item {item_id} is {type(item['data']).__name__}; only "
                "objects can be updated. Append it again instead"
            )
        self._queue(HistoryChange("patch", item_id, body))

    def remove(self, item_id: str) -> None:
        """Removes one item; it is no error if there is none."""
        self._queue(HistoryChange("remove", _checked_name(item_id, "the id of a history item")))

    def clear(self) -> None:
        """Removes all items."""
        session = self._session
        # What was never sent need not be.
        session._queued.clear()
        session._cursor, session._unread = None, 0
        if session._items is None and session._state is not None:
            session._items = []
        self._queue(HistoryChange("clear"))


class History(_HistoryMethods, Sequence[HistoryEntry]):
    """The history of a session, the newest item first.

    Items are dicts with `id`, `kind`, `data`, `created_at` and more. Those that came with the
    session, up to 500, are at hand; further ones are read in pages when they are reached. Change
    items by `update` and `rate`: what is changed in the dicts themselves is not saved.
    """

    _session: Session

    def append(
        self, data: Any, *, kind: str | None = None, id: str | None = None, now: bool = False
    ) -> HistoryEntry:
        """Adds an item as the newest one, with the next save or, with `now`, at once. The same
        `id` again appends nothing. Returns the item."""
        item = self._added(data, kind, id)
        if now:
            self._session._send_history()
        return item

    def _loaded(self) -> list[HistoryEntry]:
        session = self._session
        session._opened()
        if session._items is None:
            session._read_history()
        assert session._items is not None
        return session._items

    def __len__(self) -> int:
        return len(self._loaded()) + self._session._unread

    @overload
    def __getitem__(self, index: int) -> HistoryEntry: ...
    @overload
    def __getitem__(self, index: slice) -> list[HistoryEntry]: ...
    def __getitem__(self, index: int | slice) -> HistoryEntry | list[HistoryEntry]:
        items = self._loaded()
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            self._reach(max(start, stop))
            return [self._loaded()[i] for i in range(start, stop, step)
                    if i < len(self._loaded())]
        self._reach(index if index >= 0 else len(self) - 1)
        items = self._loaded()
        return items[index]

    def _reach(self, index: int) -> None:
        """Reads pages until there is an item with this index, or no further page."""
        session = self._session
        while session._cursor is not None and index >= len(self._loaded()):
            session._read_history()

    def __iter__(self) -> Iterator[HistoryEntry]:
        index = 0
        while True:
            self._reach(index)
            items = self._loaded()
            if index >= len(items):
                return
            yield items[index]
            index += 1

    def __contains__(self, item: object) -> bool:
        """Whether there is an item with this id, or this item."""
        if isinstance(item, str):
            return any(other["id"] == item for other in self)
        return any(other == item for other in self)

    def get(self, item_id: str) -> HistoryEntry | None:
        """The item with this id, or None."""
        return next((item for item in self if item["id"] == item_id), None)

    def _all(self) -> Iterator[HistoryEntry]:
        """Every item; what is not at hand is streamed. Raises if it does not arrive."""
        items = list(self._loaded())
        yield from items
        session = self._session
        if session._cursor is None:
            return
        seen = {item["id"] for item in items}
        patches: dict[str, list[bytes]] = {}
        changes = [change for _, changes in session._store.changes_waiting(session.id)
                   for change in changes]
        for change in [*changes, *session._queued]:
            if change.kind == "remove":
                seen.add(change.item_id)
            elif change.kind == "patch" and change.body is not None:
                patches.setdefault(change.item_id, []).append(change.body)
        for item in session._client.stream_history(session.id):
            if item["id"] not in seen:
                entry = dict(item)
                for body in patches.get(item["id"], ()):
                    entry["data"] = merge_patch(entry["data"], json.loads(body))
                yield entry

    def export(
        self, target: str | os.PathLike[str] | IO[str],
        format: Literal["json", "ndjson", "csv"] = "json",
    ) -> int:
        """Writes every item to a text file that is open, or to a path; returns their number.

        A file at a path is replaced only when it is complete. In CSV, each field of the items'
        data is a column `data.<field>`, and lists and dicts are JSON; data that is no object is
        in the column `data`. Cells are as they are: a spreadsheet takes a text that begins with
        `=` for a formula. Raises `RepriseError`, also unless `strict`, if items are missing
        because the service is away.
        """
        if format not in _WRITERS:
            raise ValueError(f"format is json, ndjson or csv, not {format!r}")
        write = _WRITERS[format]
        if not isinstance(target, (str, os.PathLike)):
            return write(self._all(), target)
        path = os.fspath(target)
        descriptor, draft = tempfile.mkstemp(dir=os.path.dirname(path) or ".", prefix=".export-")
        try:
            with open(descriptor, "w", encoding="utf-8", newline="") as file:
                count = write(self._all(), file)
            os.replace(draft, path)
        except BaseException:
            os.unlink(draft)
            raise
        return count

    def __repr__(self) -> str:
        return f"History({self._session.id!r})"


def _text(value: Any) -> str:
    return encoded(value).decode("utf-8", "replace")


def _write_json(items: Iterable[HistoryEntry], file: IO[str]) -> int:
    count = 0
    file.write("[")
    for item in items:
        file.write(("," if count else "") + "\n" + _text(item))
        count += 1
    file.write("\n]\n")
    return count


def _write_ndjson(items: Iterable[HistoryEntry], file: IO[str]) -> int:
    count = 0
    for item in items:
        file.write(_text(item) + "\n")
        count += 1
    return count


_COLUMNS = ("id", "kind", "created_at", "updated_at")


def _write_csv(items: Iterable[HistoryEntry], file: IO[str]) -> int:
    # The columns are known only at the end, so that the items are kept meanwhile.
    fields: dict[str, None] = {}
    has_other = False
    with tempfile.SpooledTemporaryFile(max_size=limits.EXPORT_MEMORY_BYTES) as kept:
        for item in items:
            if isinstance(item["data"], dict):
                fields.update(dict.fromkeys(item["data"]))
            else:
                has_other = True
            kept.write(encoded(item) + b"\n")
        kept.seek(0)
        writer = csv.writer(file)
        writer.writerow([*_COLUMNS, *(["data"] if has_other else []),
                         *(f"data.{name}" for name in fields)])
        count = 0
        for line in kept:
            item = json.loads(line)
            data = item["data"]
            row = [_cell(item.get(name)) for name in _COLUMNS]
            if has_other:
                row.append("" if isinstance(data, dict) else _cell(data))
            content = data if isinstance(data, dict) else {}
            row.extend(_cell(content[name]) if name in content else "" for name in fields)
            writer.writerow(row)
            count += 1
    return count


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else _text(value)


_WRITERS: dict[str, Callable[[Iterable[HistoryEntry], IO[str]], int]] = {
    "json": _write_json, "ndjson": _write_ndjson, "csv": _write_csv,
}


# The two kinds.


class Session(_SessionMethods):
    """A session of the service as a mapping, with its history.

    ::

        with client.session(tab_id, defaults={"volume": 0.8, "tracks": []}) as state:
            state["tracks"].append("intro")
            state.history.append({"prompt": prompt}, kind="generation")

    The first use opens it, in one call; then everything is local until `save`, which is one call
    too, and which the end of a `with` block makes, also if the block raised: what was assigned
    stays assigned, as in any mapping, and front ends end a rerun by raising. Changes inside lists
    and dicts are found. Values are what JSON has, exactly: text, int, float, bool, None, lists,
    and dicts with text as keys. Anything else raises `TypeError`, because it would come back as
    something else.

    Use one object per rerun, or one for many with `refresh`. Its calls exclude each other between
    threads.
    """

    _is_blocking = True
    _client: Client

    def _prepare(self) -> None:
        self._lock = threading.RLock()
        self.history = History(self)

    def _run(self, flow: Call[T] | Flow[T]) -> T:
        with self._lock:
            return self._client._run(flow)

    def _opened(self) -> TrackedState:
        state = self._state
        if state is None:
            with self._lock:
                if self._state is None:
                    self._run(self._opening(Deadline(self._timeout)))
                state = self._state
                assert state is not None
        return state

    def _send_history(self) -> None:
        self._run(self._saving(Deadline(self._timeout), with_state=False))

    def _read_history(self) -> None:
        """Reads one more page of the history."""
        with self._lock:
            try:
                page = self._client.list_history(self.id, limit=500, cursor=self._cursor)
            except NotFound:
                self._cursor, self._unread = None, 0
                self._items = [] if self._items is None else self._items
            except RepriseError as error:
                self._excuse(error)
                self._cursor, self._unread = None, 0
                if self._items is None:
                    known = self._store.known(self.id)
                    self._receive(known[1] if known is not None else [])
            else:
                self._receive([dict(item) for item in page.items])
                self._cursor = page.next_cursor
                self._unread = max(self._unread - len(page.items), 0) if self._cursor else 0

    def _receive(self, read: list[HistoryEntry]) -> None:
        seen = {item["id"] for item in self._items or ()}
        items = [item for item in read if item["id"] not in seen]
        waiting = [change for _, changes in self._store.changes_waiting(self.id)
                   for change in changes]
        is_first = self._items is None
        for change in waiting:
            if is_first or change.kind != "append":
                change.apply(items)
        self._saved_items = (*(self._saved_items or ()), *items)
        for change in self._queued:
            if is_first or change.kind != "append":
                change.apply(items)
        self._items = [*(self._items or ()), *items]

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self.save()
        except Exception as failure:
            self._ended(error, failure)


class AsyncHistory(_HistoryMethods):
    """The history of an `AsyncSession`: the items that came with it, the newest first."""

    def append(self, data: Any, *, kind: str | None = None, id: str | None = None) -> HistoryEntry:
        """Adds an item as the newest one, with the next save. Returns the item."""
        return self._added(data, kind, id)

    @property
    def items(self) -> list[HistoryEntry]:
        """Up to 500 items; `client.stream_history` gives all."""
        self._session._opened()
        return list(self._session._items or ())

    def __iter__(self) -> Iterator[HistoryEntry]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> HistoryEntry:
        return self.items[index]


class AsyncSession(_SessionMethods):
    """`Session` for asyncio. `async with` opens it and saves it; between, it is a mapping."""

    _is_awaiting = True
    _client: AsyncClient

    def _prepare(self) -> None:
        self.history = AsyncHistory(self)

    def _run(self, flow: Call[T] | Flow[T]) -> Coroutine[Any, Any, T]:
        return self._client._run(flow)

    def _opened(self) -> TrackedState:
        if self._state is None:
            raise RuntimeError("the session is not open: use `async with`, or `await open()`")
        return self._state

    async def __aenter__(self) -> AsyncSession:
        await self.open()
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            await self.save()
        except Exception as failure:
            self._ended(error, failure)
