"""`Cache` and `AsyncCache`: a namespace of the service, for apps.

An app must go on when the service is slow or away. So a read that gets no answer in time is a
miss, a write that gets none is False, and both are counted and logged once for each outage. With
`strict=True` they raise. What is wrong in the app raises always: a value that cannot be encoded, a
lifetime of 0, a key that is too long.
"""

from __future__ import annotations

import base64
import inspect
import logging
import math
import os
import random
import re
import threading
import time
import weakref
from collections.abc import (
    Callable,
    Collection,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from datetime import datetime, timedelta, timezone
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    NamedTuple,
    ParamSpec,
    TypedDict,
    TypeVar,
    Union,
    cast,
    overload,
)

from . import limits
from .codecs import JSON_TYPE, AutoCodec, Codec, Encoded, Undecodable
from .errors import (
    Forbidden,
    InvalidRequest,
    NotFound,
    PreconditionFailed,
    ProblemError,
    ServerError,
    TooManyRequests,
    TransportError,
    Unauthenticated,
    Unavailable,
    is_foreign,
)
from .http.flow import Call, Flow, operation
from .http.message import Headers, Response
from .local import MISSING, Held, LocalTier
from .memoize import (
    AsyncMemoized,
    Flights,
    Memoized,
    Outcome,
    SingleFlight,
    Sleep,
    Steps,
    Tags,
    Work,
    _Settings,
    drive,
    drive_async,
    obtain,
)
from .models import Namespace
from .operations import ABSENT, Entry, Operations, Stored, _Absent, encode_json

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .client import AsyncClient, Client

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger("reprise_client")

#: Seconds or a timedelta, above 0; None for "never expires"; absent for the next default.
Lifetime = Union[float, timedelta, None, _Absent]

#: The service is away, busy, or does not let this client in: the app goes on without it.
AWAY = (TransportError, ServerError, TooManyRequests, Unauthenticated, Forbidden)

_NAMESPACE = re.compile(r"[A-Za-z0-9._~:-]{1,128}")


#: What became of a value that was to be stored.
Fate = Literal["stored", "unmet", "refused", "away"]


class CacheEntry(NamedTuple):
    """A value and what the service says of it."""

    key: str
    value: Any
    #: For `replace(…, if_match=etag)`.
    etag: str
    content_type: str
    #: Whole seconds left, rounded down; None for ever.
    expires_in_seconds: float | None
    #: The instant in RFC 3339, or None.
    expires_at: str | None
    #: Seconds since the value was written.
    age_seconds: float


class Looked(NamedTuple):
    """What a look at the cache found."""

    value: Any
    is_away: bool = False
    encoded: Encoded | None = None


class Counts:
    """Counters of a cache, or of one memoized function in it."""

    _NAMES = (
        "hits", "misses", "errors", "stale_hits", "undecodable", "sets", "failed_sets",
        "computed", "waited",
    )  # fmt: skip

    def __init__(self, parent: Counts | None = None) -> None:
        self.parent: Counts | None = parent
        #: Counted by the local tier, under its lock.
        self.local_hits = 0
        self._lock = threading.Lock()
        self._counts: dict[str, int] = dict.fromkeys(self._NAMES, 0)
        _all_counts.add(self)

    def child(self) -> Counts:
        return Counts(self)

    def add(self, name: str, count: int = 1) -> None:
        counts: Counts | None = self
        while counts is not None:
            with counts._lock:
                counts._counts[name] += count
            counts = counts.parent

    def all(self) -> dict[str, int]:
        counts = {**self._counts, "local_hits": self.local_hits}
        counts["hits"] += self.local_hits
        return counts


_all_counts: weakref.WeakSet[Counts] = weakref.WeakSet()


class Shared:
    """What all caches of one client and namespace have in common."""

    def __init__(self) -> None:
        self.tier = LocalTier()
        self.flights = Flights()


_shared: weakref.WeakKeyDictionary[Any, dict[str, Shared]] = weakref.WeakKeyDictionary()
_shared_lock = threading.Lock()


def _shared_of(client: Any, namespace: str) -> Shared:
    with _shared_lock:
        namespaces = _shared.setdefault(client, {})
        shared = namespaces.get(namespace)
        if shared is None:
            shared = Shared()
            if len(namespaces) < limits.MAX_SHARED_NAMESPACES:
                namespaces[namespace] = shared
        return shared


def _after_fork() -> None:
    # Another thread of the parent may have held one of these.
    global _shared_lock
    _shared_lock = threading.Lock()
    for counts in list(_all_counts):
        counts._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _distinct(keys: Iterable[str]) -> list[str]:
    if isinstance(keys, str):
        raise TypeError(f"keys are a list of texts, not one text: [{keys!r}]")
    return list(dict.fromkeys(keys))


class CacheOptions(TypedDict, total=False):
    """What `Cache` and `AsyncCache` take by name; see `CacheMethods`."""

    ttl: Lifetime
    tags: Sequence[str]
    codec: Codec | None
    pickle_secret: bytes | str | None
    strict: bool
    timeout: float | None
    local_seconds: float
    local_bytes: int | None
    serve_stale_seconds: float


class CacheMethods:
    """The methods of `Cache` and `AsyncCache`. With the latter each returns a coroutine."""

    _is_blocking = False

    def __init__(
        self,
        client: Any,
        namespace: str,
        *,
        ttl: Lifetime = ABSENT,
        tags: Sequence[str] = (),
        codec: Codec | None = None,
        pickle_secret: bytes | str | None = None,
        strict: bool = False,
        timeout: float | None = None,
        local_seconds: float = 0.0,
        local_bytes: int | None = None,
        serve_stale_seconds: float = 0.0,
    ) -> None:
        """`ttl` and `tags` are the defaults of what is stored: an absent `ttl` is the
        namespace's.

        `timeout` is in seconds for each call; without it, a read has `limits.CACHE_GET_SECONDS`
        and everything else the client's. Raise it where values of many MB cross a network.

        `local_seconds` lets this process answer reads itself for so long after it read or wrote a
        value, in at most `local_bytes` (by default `limits.LOCAL_BYTES`): what another process
        writes is seen that much later, and what this one writes through its client at once.
        `serve_stale_seconds` lets it answer with the last known value, at most so old and even if
        it has expired, while the service is away. All caches of one client and namespace share
        these values.
        """
        if not isinstance(namespace, str) or not _NAMESPACE.fullmatch(namespace) or (
            namespace in (".", "..")
        ):
            raise ValueError(
                "a namespace has 1 to 128 characters of A-Z, a-z, 0-9, '.', '_', '~', ':' and "
                f"'-', unlike {namespace!r:.150}"
            )
        if codec is not None and pickle_secret is not None:
            raise ValueError(
                "pickle_secret is for the codec that a cache chooses itself; give the secret to "
                "the codec instead, as in codec=AutoCodec(secret)"
            )
        if timeout is not None and not timeout > 0:
            raise ValueError(f"timeout must be more than 0 seconds, not {timeout}")
        self.namespace = namespace
        self.strict = strict
        self._client = client
        self._ttl = lifetime(ttl)
        self._tags = _tag_list(tags)
        self._codec = codec if codec is not None else _auto_codec(pickle_secret)
        self._timeout = timeout
        self._local_seconds = _seconds(local_seconds, "local_seconds")
        self._stale_seconds = _seconds(serve_stale_seconds, "serve_stale_seconds")
        #: The longest age at which a local value is given out by anything that hangs on this.
        self._bound_seconds = self._local_seconds
        self._shared = _shared_of(client, namespace)
        if local_bytes is not None:
            self._shared.tier.max_bytes = local_bytes
        self._counts = Counts()
        self._is_away = False
        self._logged: set[str] = set()
        self._log_again: dict[str, float] = {}

    # One value.

    @operation
    def get(self, key: str, default: Any = None) -> Flow[Any]:
        """The value, or `default` if there is none, or if the service is away."""
        found = yield from self._look(key, self._codec, self._local_seconds, self._counts)
        return default if found.value is MISSING else found.value

    @operation
    def get_entry(self, key: str) -> Flow[CacheEntry | None]:
        """The value with its entity tag and expiry, always from the service; None if there is
        none."""
        entry = yield from self._read(key, None, self._counts)
        if entry is None or entry is MISSING:
            return None
        value = self._decode(key, entry, self._codec, self._counts)
        if value is MISSING:
            return None
        self._counts.add("hits")
        return CacheEntry(
            key, value, entry.etag, entry.content_type, entry.expires_in_seconds,
            entry.expires_at, entry.age_seconds,
        )

    @operation
    def set(
        self, key: str, value: Any, *, ttl: Lifetime = ABSENT, tags: Sequence[str] = (),
        compute_seconds: float | None = None,
    ) -> Flow[bool]:
        """Stores a value. `ttl` and `compute_seconds`, which is what it took to make the value,
        are in seconds."""
        return self._set(key, value, ttl=ttl, tags=tags, compute_seconds=compute_seconds)

    @operation
    def add(
        self, key: str, value: Any, *, ttl: Lifetime = ABSENT, tags: Sequence[str] = (),
        compute_seconds: float | None = None,
    ) -> Flow[bool]:
        """Stores a value if there is none yet; whether it did."""
        return self._set(key, value, ttl=ttl, tags=tags, compute_seconds=compute_seconds,
                         if_none_match="*")

    @operation
    def replace(
        self, key: str, value: Any, *, if_match: str, ttl: Lifetime = ABSENT,
        tags: Sequence[str] = (), compute_seconds: float | None = None,
    ) -> Flow[bool]:
        """Stores a value if the present one still has this entity tag, which `get_entry` tells;
        whether it did. `if_match="*"` replaces any value."""
        return self._set(key, value, ttl=ttl, tags=tags, compute_seconds=compute_seconds,
                         if_match=if_match)

    @operation
    def update(
        self, key: str, function: Callable[[Any], Any], *, default: Any = None,
        ttl: Lifetime = ABSENT, tags: Sequence[str] = (),
    ) -> Flow[bool]:
        """Replaces a value by what `function` makes of it, so that no other change is lost.

        `function` gets `default` if there is no value. It is called again with the new value if
        another caller was faster, `limits.CACHE_UPDATE_ATTEMPTS` times at most. Whether the value
        was stored. The lifetime begins anew.
        """
        ttl, tags = lifetime(ttl), _tag_list(tags)
        steps = self._updating(key, function, default, ttl, tags)
        return cast("Flow[bool]", steps)

    def _updating(
        self, key: str, function: Callable[[Any], Any], default: Any, ttl: Any,
        tags: Sequence[str],
    ) -> Steps[bool]:
        for attempt in range(limits.CACHE_UPDATE_ATTEMPTS):
            if attempt:
                yield Sleep(random.random() * min(0.01 * 2**attempt, 0.25))
            entry = yield from self._read(key, None, self._counts)
            if entry is MISSING:
                return False
            value: Any = MISSING
            if entry is not None:
                value = self._decode(key, entry, self._codec, self._counts)
            # What cannot be decoded is replaced like a value that is not there.
            changed = function(default if value is MISSING else value)
            fate = yield from self._put(
                key, changed, self._codec.encode(changed, context=self._context(key)),
                self._codec, self._lifetime(ttl), self._all_tags(tags), None, self._counts,
                if_match=None if entry is None else entry.etag,
                if_none_match="*" if entry is None else None,
            )
            if fate != "unmet":
                return fate == "stored"
        return False

    @operation
    def delete(self, key: str) -> Flow[bool]:
        """Removes a value, if there is one. False if the service is away."""
        self._shared.flights.outdate(key)
        tier = self._shared.tier
        tier.discard(key)
        try:
            done = yield from self._attempt(
                Operations.delete_entry.flow(self._client, self.namespace, key)
            )
        finally:
            tier.discard(key)
        return done is not MISSING

    @operation
    def touch(self, key: str, *, ttl: Lifetime = ABSENT) -> Flow[bool]:
        """Lets a value live as if it were stored now; False if there is none."""
        seconds = self._lifetime(ttl)
        # Its expiry may come closer.
        self._shared.tier.discard(key)
        try:
            done = yield from self._attempt(
                Operations.touch_entry.flow(
                    self._client, self.namespace, key, ttl_seconds=seconds
                )
            )
        except NotFound:
            return False
        finally:
            self._shared.tier.discard(key)
        return done is not MISSING

    @operation
    def increment(
        self, key: str, delta: int = 1, initial: int = 0, *, ttl: Lifetime = ABSENT
    ) -> Flow[int | None]:
        """Adds to a whole number of 64 bits, which begins as `initial`; the new value, or None if
        the service is away. A number that exists keeps its expiry unless `ttl` is given."""
        self._shared.tier.discard(key)
        try:
            value = yield from self._attempt(
                Operations.increment_entry.flow(
                    self._client, self.namespace, key, delta=delta, initial=initial,
                    ttl_seconds=lifetime(ttl),
                )
            )
        finally:
            self._shared.tier.discard(key)
        return None if value is MISSING else int(value)

    @operation
    def decrement(
        self, key: str, delta: int = 1, initial: int = 0, *, ttl: Lifetime = ABSENT
    ) -> Flow[int | None]:
        """Subtracts from a whole number; see `increment`."""
        build = CacheMethods.increment.flow
        return build(self, key, -delta, initial, ttl=ttl)  # type: ignore[return-value]

    @operation
    def contains(self, key: str) -> Flow[bool]:
        """Whether there is a value; this counts neither as a hit nor as a miss."""
        return self._exists(key)

    # Many values.

    @operation
    def get_many(self, keys: Iterable[str]) -> Flow[dict[str, Any]]:
        """The values that there are, by key, in the order of `keys`."""
        wanted = _distinct(keys)
        found: dict[str, Any] = {}
        missing = []
        for key in wanted:
            value = self._local(key, self._codec, self._local_seconds, self._counts)
            if value is MISSING:
                missing.append(key)
            else:
                found[key] = value
        tier = self._shared.tier
        for start in range(0, len(missing), limits.CACHE_BATCH_OPERATIONS):
            piece = missing[start : start + limits.CACHE_BATCH_OPERATIONS]
            marks = [tier.mark(key) for key in piece]
            sent_at = tier.now()
            answer = yield from self._batch([{"op": "get", "key": key} for key in piece])
            if answer is MISSING:
                for key in piece:
                    value = self._rescue(key, self._codec, self._counts)
                    if value is not MISSING:
                        found[key] = value
                continue
            results, headers = answer
            for key, mark, result in zip(piece, marks, results):
                status = result["status"]
                if status == 200:
                    value, encoded = self._batched(key, result)
                    if value is MISSING:
                        continue
                    found[key] = value
                    if self._is_local:
                        self._hold(key, value, encoded, self._codec, result["etag"], mark,
                                   sent_at, _left(result.get("expires_at"), headers))
                elif status == 413:
                    # The values of one answer have a limit together; the rest is read alone.
                    looked = yield from self._look(
                        key, self._codec, self._local_seconds, self._counts
                    )
                    if looked.value is not MISSING:
                        found[key] = looked.value
                elif status == 404:
                    self._counts.add("misses")
                else:
                    self._refuse_or_count(result)
        return {key: found[key] for key in wanted if key in found}

    @operation
    def set_many(
        self, values: Mapping[str, Any], *, ttl: Lifetime = ABSENT, tags: Sequence[str] = ()
    ) -> Flow[list[str]]:
        """Stores many values, each for itself; the keys of those that were not stored."""
        seconds = self._lifetime(ttl)
        all_tags = self._all_tags(tags)
        failed: list[str] = []
        for piece in self._pieces(values):
            if len(piece) == 1:
                [(key, encoded)] = piece
                fate = yield from self._put(key, values[key], encoded, self._codec, seconds,
                                            all_tags, None, self._counts)
                if fate != "stored":
                    failed.append(key)
                continue
            fields: dict[str, Any] = {"op": "set"}
            if not isinstance(seconds, _Absent):
                fields["ttl_seconds"] = seconds
            if all_tags:
                fields["tags"] = list(all_tags)
            operations = [
                {
                    **fields, "key": key, "content_type": encoded.content_type,
                    "base64": base64.b64encode(encoded.body).decode("ascii"),
                }
                for key, encoded in piece
            ]
            tier = self._shared.tier
            marks = [tier.discard(key) for key, _ in piece]
            sent_at = tier.now()
            answer = yield from self._batch(operations)
            del operations
            if answer is MISSING:
                failed += [key for key, _ in piece]
                self._counts.add("failed_sets", len(piece))
                for key, _ in piece:
                    tier.discard(key)
                continue
            results, headers = answer
            for (key, encoded), mark, result in zip(piece, marks, results):
                if result["status"] not in (201, 204):
                    tier.discard(key)
                    failed.append(key)
                    self._counts.add("failed_sets")
                    self._refuse_or_count(result)
                    continue
                self._counts.add("sets")
                if self._is_local and tier.mark(key) == mark:
                    self._hold(key, values[key], encoded, self._codec, result.get("etag", ""),
                               tier.discard(key), sent_at,
                               _left(result.get("expires_at"), headers), is_decoded=False)
                else:
                    tier.discard(key)
        return failed

    @operation
    def delete_many(self, keys: Iterable[str]) -> Flow[int]:
        """Removes many values; how many there were."""
        wanted = _distinct(keys)
        tier = self._shared.tier
        removed = 0
        for start in range(0, len(wanted), limits.CACHE_BATCH_OPERATIONS):
            piece = wanted[start : start + limits.CACHE_BATCH_OPERATIONS]
            for key in piece:
                self._shared.flights.outdate(key)
                tier.discard(key)
            try:
                answer = yield from self._batch([{"op": "delete", "key": key} for key in piece])
            finally:
                for key in piece:
                    tier.discard(key)
            if answer is MISSING:
                continue
            for result in answer[0]:
                if result["status"] == 204:
                    removed += bool(result.get("removed"))
                else:
                    self._refuse_or_count(result)
        return removed

    @operation
    def clear(
        self, *, prefix: str | _Absent = ABSENT, tag: str | _Absent = ABSENT,
        older_than_seconds: float | _Absent = ABSENT,
    ) -> Flow[int]:
        """Removes all values of the namespace, or those that match; how many there were, and 0 if
        the service is away: say `strict=True` where a value must not be served afterwards.

        What is being computed in this process meanwhile is not stored afterwards.
        """
        filters: dict[str, Any] = {}
        for name, value in (("prefix", prefix), ("tag", tag),
                            ("older_than_seconds", older_than_seconds)):
            if value is None:
                # Not for "all": it mostly comes from a look-up that found nothing.
                raise TypeError(f"{name} is None; leave it out to clear without that filter")
            if not isinstance(value, _Absent):
                filters[name] = value
        if "older_than_seconds" in filters:
            filters["older_than_seconds"] = float(filters["older_than_seconds"])
        tier, flights = self._shared.tier, self._shared.flights
        only = filters.get("prefix") if set(filters) <= {"prefix"} else None
        flights.outdate(prefix=filters.get("prefix"))
        tier.clear(only)
        call = Operations.clear_entries.flow(self._client, self.namespace, **filters)
        try:
            removal = yield from self._attempt(call)
        finally:
            tier.clear(only)
        return 0 if removal is MISSING else int(removal["removed"])

    # The namespace.

    @operation
    def info(self) -> Flow[Namespace | None]:
        """The namespace's policy and figures; None if it does not exist, or the service is
        away."""
        try:
            answer = yield from self._attempt(
                Operations.get_namespace.flow(self._client, self.namespace)
            )
        except NotFound:
            return None
        return None if answer is MISSING else cast(Namespace, answer)

    @operation
    def set_policy(
        self, *, ttl: Lifetime = ABSENT, max_entries: int | None | _Absent = ABSENT,
        max_bytes: int | None | _Absent = ABSENT, max_entry_bytes: int | None | _Absent = ABSENT,
        eviction: Literal["lru", "lfu", "fifo"] | None | _Absent = ABSENT,
    ) -> Flow[bool]:
        """Replaces the namespace's policy; what is absent gets its default. False if the service
        is away."""
        answer = yield from self._attempt(
            Operations.set_policy.flow(
                self._client, self.namespace, ttl_seconds=lifetime(ttl), max_entries=max_entries,
                max_bytes=max_bytes, max_entry_bytes=max_entry_bytes, eviction=eviction,
            )
        )
        return answer is not MISSING

    def statistics(self) -> dict[str, Any]:
        """What the calls of this cache came to in this process, and how its local values are.

        `hits` contains `local_hits`. `errors` are calls that got no usable answer.
        `staleness_bound_seconds` is how late a change by another process is seen here at most
        while the service answers, and `outage_staleness_bound_seconds` while it does not.
        """
        counts: dict[str, Any] = self._counts.all()
        counts["is_available"] = not self._is_away
        counts["staleness_bound_seconds"] = self._bound_seconds
        counts["outage_staleness_bound_seconds"] = max(self._bound_seconds, self._stale_seconds)
        counts["local"] = self._shared.tier.statistics()
        return counts

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._client!r}, {self.namespace!r})"

    # The parts of these.

    @property
    def _is_local(self) -> bool:
        return self._bound_seconds > 0 or self._stale_seconds > 0

    def _context(self, key: str) -> bytes:
        return f"{self.namespace}\0{key}".encode("utf-8", "replace")

    def _lifetime(self, ttl: Lifetime) -> float | None | _Absent:
        seconds = lifetime(ttl)
        return self._ttl if isinstance(seconds, _Absent) else seconds

    def _all_tags(self, tags: Sequence[str]) -> tuple[str, ...]:
        if not tags:
            return self._tags
        return tuple(dict.fromkeys((*self._tags, *_tag_list(tags))))

    def _attempt(
        self, call: Any, *, timeout: float | None = None, is_quiet: bool = False
    ) -> Generator[Call[Any], Any, Any]:
        """The result of a call, or `MISSING` if the service is away and this is not strict."""
        seconds = timeout if timeout is not None else self._timeout
        if seconds is not None and call.timeout is None:
            call.timeout = seconds
        try:
            result = yield call
        except AWAY as error:
            self._went_away(error)
            if self.strict and not is_quiet:
                raise
            return MISSING
        except ProblemError as error:
            if call.request.method != "HEAD" and is_foreign(error):
                # An answer to HEAD has no body, and so no code.
                self._went_away(error)
                if self.strict and not is_quiet:
                    raise
                return MISSING
            self._is_back()
            raise
        self._is_back()
        return result

    def _went_away(self, error: Exception) -> None:
        self._counts.add("errors")
        if isinstance(error, ProblemError) and not isinstance(error, Unavailable):
            # It answers, if not to this. Other calls may do well in between.
            kind = type(error).__name__
            now = time.monotonic()
            if now >= self._log_again.get(kind, now):
                self._log_again[kind] = now + limits.LOG_AGAIN_SECONDS
                log.warning("cache %s: going on without an answer: %s", self.namespace, error)
        elif not self._is_away:
            self._is_away = True
            log.warning("cache %s: going on without the service: %s", self.namespace, error)

    def _is_back(self) -> None:
        if self._is_away:
            self._is_away = False
            log.info("cache %s: the service answers again", self.namespace)

    def _log_once(self, what: str, text: str, *arguments: Any) -> None:
        if what not in self._logged:
            self._logged.add(what)
            log.warning(text, *arguments)

    def _local(self, key: str, codec: Codec, max_age: float, counts: Counts) -> Any:
        if max_age <= 0:
            return MISSING
        return self._shared.tier.get(key, codec, max_age, counts)

    def _rescue(self, key: str, codec: Codec, counts: Counts) -> Any:
        value = MISSING
        if self._stale_seconds > 0 and not self.strict:
            value = self._shared.tier.rescue(key, codec, self._stale_seconds)
        counts.add("misses" if value is MISSING else "stale_hits")
        return value

    def _read(
        self, key: str, etag: str | None, counts: Counts
    ) -> Generator[Call[Any], Any, Any]:
        """The entry, None if there is none, `MISSING` if the service is away."""
        timeout = self._timeout if self._timeout is not None else (
            min(limits.CACHE_GET_SECONDS, self._client.timeout)
        )
        try:
            entry = yield from self._attempt(
                Operations.get_entry.flow(
                    self._client, self.namespace, key, if_none_match=etag, timeout=timeout
                )
            )
        except NotFound as error:
            if is_foreign(error):
                raise
            counts.add("misses")
            return None
        return entry

    def _look(
        self, key: str, codec: Codec, local_seconds: float, counts: Counts
    ) -> Generator[Call[Any], Any, Looked]:
        """The value from this process or from the service."""
        value = self._local(key, codec, local_seconds, counts)
        if value is not MISSING:
            return Looked(value)
        is_local = local_seconds > 0 or self._stale_seconds > 0
        tier = self._shared.tier
        held = tier.to_revalidate(key, codec) if is_local else None
        mark = tier.mark(key)
        sent_at = tier.now()
        entry = yield from self._read(key, None if held is None else held.etag, counts)
        if entry is MISSING:
            return Looked(self._rescue(key, codec, counts), is_away=True)
        if entry is None:
            if is_local and tier.mark(key) == mark:
                tier.discard(key)
            return Looked(MISSING)
        assert isinstance(entry, Entry)
        if held is not None and not entry.is_modified:
            try:
                value = held.open()
            except Undecodable:
                tier.discard(key)
                return Looked(MISSING)
            counts.add("hits")
            tier.keep(key, held, mark, confirmed_at=sent_at,
                      seconds_left=entry.expires_in_seconds)
            return Looked(value)
        value = self._decode(key, entry, codec, counts)
        if value is MISSING:
            return Looked(MISSING)
        counts.add("hits")
        encoded = Encoded(entry.body, entry.content_type)
        if is_local:
            self._hold(key, value, encoded, codec, entry.etag, mark, sent_at,
                       entry.expires_in_seconds)
        return Looked(value, encoded=encoded)

    def _decode(self, key: str, entry: Entry, codec: Codec, counts: Counts) -> Any:
        """The value, or `MISSING` if it cannot be decoded, which is a miss."""
        try:
            if entry.content_encoding not in (None, "identity"):
                raise Undecodable(f"It is stored with the encoding {entry.content_encoding}.")
            return codec.decode(entry.body, entry.content_type, context=self._context(key))
        except Undecodable as error:
            self._undecodable(key, error, counts)
            return MISSING

    def _undecodable(self, key: str, error: Undecodable, counts: Counts) -> None:
        counts.add("misses")
        counts.add("undecodable")
        self._log_once(
            "undecodable", "cache %s: the value of %r is taken for a miss: %s",
            self.namespace, key, error,
        )

    def _hold(
        self, key: str, value: Any, encoded: Encoded, codec: Codec, etag: str,
        mark: tuple[int, int], sent_at: float, seconds_left: float | None, *,
        is_decoded: bool = True,
    ) -> None:
        held = Held(value, encoded.body, encoded.content_type, codec=codec, etag=etag,
                    context=self._context(key), is_decoded=is_decoded)
        self._shared.tier.keep(key, held, mark, confirmed_at=sent_at, seconds_left=seconds_left)

    def _set(
        self, key: str, value: Any, *, ttl: Lifetime = ABSENT, tags: Sequence[str] = (),
        compute_seconds: float | None = None, if_match: str | None = None,
        if_none_match: str | None = None,
    ) -> Flow[bool]:
        # What is wrong with these shows before anything is sent.
        seconds = self._lifetime(ttl)
        encoded = self._codec.encode(value, context=self._context(key))
        fate = yield from self._put(
            key, value, encoded, self._codec, seconds, self._all_tags(tags),
            compute_seconds, self._counts, if_match=if_match, if_none_match=if_none_match,
        )
        return fate == "stored"

    def _put(
        self, key: str, value: Any, encoded: Encoded, codec: Codec,
        ttl: float | None | _Absent, tags: Sequence[str], compute_seconds: float | None,
        counts: Counts, *, if_match: str | None = None, if_none_match: str | None = None,
        timeout: float | None = None,
    ) -> Flow[Fate]:
        tier = self._shared.tier
        mark = tier.discard(key)
        sent_at = tier.now()
        stored: Any = None
        try:
            stored = yield from self._attempt(
                Operations.put_entry.flow(
                    self._client, self.namespace, key, encoded.body,
                    content_type=encoded.content_type, ttl_seconds=ttl, tags=tags,
                    compute_seconds=compute_seconds, if_match=if_match,
                    if_none_match=if_none_match,
                    timeout=(timeout or self._timeout or self._client.timeout)
                    + _size(encoded) / limits.CACHE_BYTES_PER_SECOND,
                )
            )
        except PreconditionFailed:
            return "unmet"
        except InvalidRequest as error:
            counts.add("failed_sets")
            if error.status != 413 or self.strict:
                raise
            self._log_once(
                "too large", "cache %s: the value of %r, with %d bytes, was not stored: %s",
                self.namespace, key, _size(encoded), error,
            )
            return "refused"
        finally:
            is_own = tier.mark(key) == mark
            after = tier.discard(key)
        if stored is MISSING:
            counts.add("failed_sets")
            if is_own and self._stale_seconds > 0 and if_match is None and if_none_match is None:
                # For the outage only: nobody else knows of it.
                self._hold(key, value, encoded, codec, "", after, sent_at, 0.0, is_decoded=False)
            return "away"
        assert isinstance(stored, Stored)
        counts.add("sets")
        if is_own and self._is_local:
            left = ttl if not isinstance(ttl, _Absent) else _left(
                stored.expires_at, stored._headers
            )
            self._hold(key, value, encoded, codec, stored.etag, after, sent_at, left,
                       is_decoded=False)
        return "stored"

    def _keep(
        self, key: str, value: Any, *, codec: Codec, ttl: Lifetime, tags: Sequence[str],
        compute_seconds: float, local_seconds: float, counts: Counts, is_away: bool,
        is_outdated: Callable[[], bool],
    ) -> Generator[Call[Any], Any, Encoded]:
        """Stores what was computed. It is only an error if it cannot be encoded."""
        encoded = codec.encode(value, context=self._context(key))
        if is_outdated():
            return encoded
        yield from self._put(
            key, value, encoded, codec, self._lifetime(ttl), self._all_tags(tags),
            compute_seconds, counts,
            timeout=limits.CACHE_GET_SECONDS if is_away and self._timeout is None else None,
        )
        return encoded

    def _exists(self, key: str) -> Generator[Call[Any], Any, bool]:
        timeout = self._timeout if self._timeout is not None else (
            min(limits.CACHE_GET_SECONDS, self._client.timeout)
        )
        call = Operations.head_entry.flow(
            self._client, self.namespace, key, timeout=timeout
        )
        try:
            answer = yield from self._attempt(call)
        except NotFound:
            return False
        return answer is not MISSING

    def _batch(self, operations: list[dict[str, Any]]) -> Generator[Call[Any], Any, Any]:
        """Results and header fields of one batch, or `MISSING`."""
        size = sum(len(operation.get("base64", "")) for operation in operations)
        call = cast("Call[Any]", Operations.run_batch.flow(
            self._client, self.namespace, operations,
            timeout=(self._timeout or self._client.timeout)
            + size / limits.CACHE_BYTES_PER_SECOND,
        ))
        parse = call.parse

        def read(response: Response) -> tuple[Any, Headers]:
            return parse(response), response.headers

        return (yield from self._attempt(Call(call.request, read, call.timeout)))

    def _batched(self, key: str, result: Mapping[str, Any]) -> tuple[Any, Encoded]:
        content_type = result["content_type"]
        encoded = Encoded(b"", content_type)
        try:
            if "json" in result:
                try:
                    encoded = Encoded(encode_json(result["json"]), content_type)
                except ValueError as error:
                    raise Undecodable(f"It has a number beyond those of JSON: {error}") from None
            else:
                encoded = Encoded(base64.b64decode(result["base64"]), content_type)
            if result.get("content_encoding") not in (None, "identity"):
                raise Undecodable(f"It is stored with the encoding {result['content_encoding']}.")
            if type(self._codec) is AutoCodec and content_type == JSON_TYPE:
                value = result["json"] if "json" in result else self._codec.decode(
                    bytes(encoded.body), content_type
                )
            else:
                value = self._codec.decode(
                    bytes(encoded.body), content_type, context=self._context(key)
                )
        except Undecodable as error:
            self._undecodable(key, error, self._counts)
            return MISSING, encoded
        self._counts.add("hits")
        return value, encoded

    def _refuse_or_count(self, result: Mapping[str, Any]) -> None:
        """One operation of a batch failed: as if it had been sent alone."""
        from .errors import problem_error

        status = int(result["status"])
        error = problem_error(status, result.get("problem") or {})
        if isinstance(error, AWAY):
            self._went_away(error)
            if self.strict:
                raise error
        elif status == 413 and not self.strict:
            self._log_once("too large", "cache %s: %s", self.namespace, error)
        else:
            raise error

    def _pieces(self, values: Mapping[str, Any]) -> Iterator[list[tuple[str, Encoded]]]:
        """What goes in one batch each; a large value alone."""
        piece: list[tuple[str, Encoded]] = []
        size = 0
        for key, value in values.items():
            encoded = self._codec.encode(value, context=self._context(key))
            bytes_here = _size(encoded)
            if bytes_here > limits.CACHE_BATCH_VALUE_BYTES:
                yield [(key, encoded)]
                continue
            bytes_here = bytes_here * 4 // 3 + len(key) + 200
            if piece and (
                len(piece) == limits.CACHE_BATCH_OPERATIONS
                or size + bytes_here > limits.CACHE_BATCH_BYTES
            ):
                yield piece
                piece, size = [], 0
            piece.append((key, encoded))
            size += bytes_here
        if piece:
            yield piece

    # Computing.

    def _settings(
        self, *, ttl: Lifetime, tags: Tags, key: Callable[..., object] | None,
        ignore: Collection[str], hashers: Mapping[type, Callable[[Any], object]] | None,
        codec: Codec | None, version: object, local_seconds: float | None,
        single_flight: SingleFlight, wait_seconds: float,
    ) -> _Settings:
        if local_seconds is None:
            local_seconds = self._local_seconds
        local_seconds = _seconds(local_seconds, "local_seconds")
        self._bound_seconds = max(self._bound_seconds, local_seconds)
        return _Settings(
            ttl=lifetime(ttl), tags=tags if callable(tags) else _tag_list(tags), key=key,
            ignore=ignore, hashers=hashers, codec=codec if codec is not None else self._codec,
            version=version, local_seconds=local_seconds, single_flight=single_flight,
            wait_seconds=_seconds(wait_seconds, "wait_seconds"),
        )

    def _computing(
        self, key: str, function: Callable[[], Any], *, ttl: Lifetime, tags: Sequence[str],
        codec: Codec | None, single_flight: SingleFlight, wait_seconds: float, anew: bool,
    ) -> Steps[Outcome]:
        if single_flight not in ("service", "process", None):
            raise ValueError(
                f'single_flight is "service", "process" or None, not {single_flight!r}.'
            )
        return obtain(self, Work(
            key, function, (), {}, codec=codec if codec is not None else self._codec,
            counts=self._counts, ttl=lifetime(ttl), tags=_tag_list(tags),
            local_seconds=self._local_seconds, single_flight=single_flight,
            wait_seconds=_seconds(wait_seconds, "wait_seconds"), compute_anew=anew,
        ))


class Cache(CacheMethods):
    """A namespace of the cache, for code that blocks. Safe to share between threads.

    `cache[key]`, `cache[key] = value`, `del cache[key]` and `key in cache` work as well: the
    first raises `KeyError` for a miss, and the others go on quietly when the service is away.
    """

    _is_blocking = True
    _client: Client

    def __init__(self, client: Client, namespace: str, **options: Unpack[CacheOptions]) -> None:
        super().__init__(client, namespace, **options)

    def _run(self, flow: Call[T] | Flow[T]) -> T:
        if isinstance(flow, Call):
            return self._client._run(flow)
        return drive(self, cast("Steps[T]", flow))

    def __getitem__(self, key: str) -> Any:
        value = self.get(key, MISSING)
        if value is MISSING:
            raise KeyError(key)
        return value

    def __setitem__(self, key: str, value: Any) -> None:
        self.set(key, value)

    def __delitem__(self, key: str) -> None:
        self.delete(key)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.contains(key)

    #: There is no list of the keys to go through; without this, `for` would try 0, 1, 2, …
    __iter__ = None

    def get_or_compute(
        self, key: str, function: Callable[[], T], *, ttl: Lifetime = ABSENT,
        tags: Sequence[str] = (), codec: Codec | None = None,
        single_flight: SingleFlight = "service", wait_seconds: float = limits.WAIT_SECONDS,
        refresh: bool = False,
    ) -> T:
        """The value, or what `function()` returns, which is stored.

        Of all callers that want it at once one computes: `single_flight` says whether among all
        processes, in this process or not at all; see `memoize`. `refresh` computes anew.
        """
        if _is_coroutine_function(function):
            raise TypeError("a Cache calls plain functions; coroutine functions need AsyncCache")
        return cast(T, drive(self, self._computing(
            key, function, ttl=ttl, tags=tags, codec=codec, single_flight=single_flight,
            wait_seconds=wait_seconds, anew=refresh,
        )).result())

    @overload
    def memoize(self, function: Callable[P, T], /) -> Memoized[P, T]: ...
    @overload
    def memoize(
        self, function: None = None, /, *, ttl: Lifetime = ..., tags: Tags = ...,
        key: Callable[..., object] | None = ..., ignore: Collection[str] = ...,
        hashers: Mapping[type, Callable[[Any], object]] | None = ..., codec: Codec | None = ...,
        version: object = ..., local_seconds: float | None = ...,
        single_flight: SingleFlight = ..., wait_seconds: float = ...,
    ) -> Callable[[Callable[P, T]], Memoized[P, T]]: ...
    def memoize(
        self, function: Callable[..., Any] | None = None, /, *, ttl: Lifetime = ABSENT,
        tags: Tags = (), key: Callable[..., object] | None = None, ignore: Collection[str] = (),
        hashers: Mapping[type, Callable[[Any], object]] | None = None,
        codec: Codec | None = None, version: object = None, local_seconds: float | None = None,
        single_flight: SingleFlight = "service", wait_seconds: float = limits.WAIT_SECONDS,
    ) -> Any:
        """Caches what a function returns, by the content of its arguments; None as well.

        `ttl`, `tags`, `codec` and `local_seconds` are the cache's if they are not given; `tags`
        may be a function of the arguments. `ignore` names parameters that the key leaves out,
        such as `self`, which otherwise counts by its content. `hashers` says what the content of
        a type is. `key` makes the key of the arguments instead: text, or anything with content.
        A new `version` makes new keys, as does an edit of the function.

        If several callers want a result at once, one computes it and the others wait for it, at
        most `wait_seconds`: with `single_flight="service"` among all processes, which costs three
        calls or about 2 ms for each miss; with `"process"` in this one; with None all compute. An
        exception is not cached; those who wait in this process get it as well.

        The function has `key(…)`, `explain_key(…)`, `clear(…)`, `refresh(…)` for one call, and
        `clear_all()`, `statistics()` and `__wrapped__`.
        """
        settings = self._settings(
            ttl=ttl, tags=tags, key=key, ignore=ignore, hashers=hashers, codec=codec,
            version=version, local_seconds=local_seconds, single_flight=single_flight,
            wait_seconds=wait_seconds,
        )

        def decorate(target: Callable[..., Any]) -> Memoized[..., Any]:
            if _is_coroutine_function(target):
                raise TypeError(
                    f"{getattr(target, '__qualname__', target)}() is a coroutine function, and "
                    "this cache blocks; memoize it with client.cache(…) of an AsyncClient"
                )
            return Memoized(self, target, settings)

        return decorate if function is None else decorate(function)


class AsyncCache(CacheMethods):
    """A namespace of the cache for asyncio: every method returns a coroutine."""

    _is_awaiting = True
    _client: AsyncClient

    def __init__(
        self, client: AsyncClient, namespace: str, **options: Unpack[CacheOptions]
    ) -> None:
        super().__init__(client, namespace, **options)

    def _run(self, flow: Call[T] | Flow[T]) -> Coroutine[Any, Any, T]:
        if isinstance(flow, Call):
            return self._client._run(flow)
        return drive_async(self, cast("Steps[T]", flow))

    async def get_or_compute(
        self, key: str, function: Callable[[], Any], *, ttl: Lifetime = ABSENT,
        tags: Sequence[str] = (), codec: Codec | None = None,
        single_flight: SingleFlight = "service", wait_seconds: float = limits.WAIT_SECONDS,
        refresh: bool = False,
    ) -> Any:
        """The value, or what `function()` returns, awaited if need be; see
        `Cache.get_or_compute`."""
        steps = self._computing(
            key, function, ttl=ttl, tags=tags, codec=codec, single_flight=single_flight,
            wait_seconds=wait_seconds, anew=refresh,
        )
        return (await drive_async(self, steps)).result()

    @overload
    def memoize(
        self, function: Callable[P, Coroutine[Any, Any, T]], /
    ) -> AsyncMemoized[P, T]: ...
    @overload
    def memoize(
        self, function: None = None, /, *, ttl: Lifetime = ..., tags: Tags = ...,
        key: Callable[..., object] | None = ..., ignore: Collection[str] = ...,
        hashers: Mapping[type, Callable[[Any], object]] | None = ..., codec: Codec | None = ...,
        version: object = ..., local_seconds: float | None = ...,
        single_flight: SingleFlight = ..., wait_seconds: float = ...,
    ) -> Callable[[Callable[P, Coroutine[Any, Any, T]]], AsyncMemoized[P, T]]: ...
    def memoize(
        self, function: Callable[..., Any] | None = None, /, *, ttl: Lifetime = ABSENT,
        tags: Tags = (), key: Callable[..., object] | None = None, ignore: Collection[str] = (),
        hashers: Mapping[type, Callable[[Any], object]] | None = None,
        codec: Codec | None = None, version: object = None, local_seconds: float | None = None,
        single_flight: SingleFlight = "service", wait_seconds: float = limits.WAIT_SECONDS,
    ) -> Any:
        """Caches what a coroutine function returns; see `Cache.memoize`. `clear`, `clear_all` and
        `refresh` of the function return coroutines."""
        settings = self._settings(
            ttl=ttl, tags=tags, key=key, ignore=ignore, hashers=hashers, codec=codec,
            version=version, local_seconds=local_seconds, single_flight=single_flight,
            wait_seconds=wait_seconds,
        )

        def decorate(target: Callable[..., Any]) -> AsyncMemoized[..., Any]:
            if callable(target) and not _is_coroutine_function(target):
                raise TypeError(
                    f"{getattr(target, '__qualname__', target)}() is no coroutine function; "
                    "memoize it with client.cache(…) of a Client, or write it with async def"
                )
            return AsyncMemoized(self, target, settings)

        return decorate if function is None else decorate(function)


def lifetime(ttl: Lifetime) -> float | None | _Absent:
    """A lifetime in seconds. Raises `ValueError` for 0 and below."""
    if ttl is None or isinstance(ttl, _Absent):
        return ttl
    if isinstance(ttl, timedelta):
        ttl = ttl.total_seconds()
    if isinstance(ttl, bool) or not isinstance(ttl, (int, float)):
        raise TypeError(f"ttl is a number of seconds, a timedelta or None, not {ttl!r:.100}")
    if not ttl > 0 or not math.isfinite(ttl):
        raise ValueError(
            f"ttl must be more than 0 seconds, or None for never, not {ttl}; "
            "to remove a value use delete()"
        )
    return ttl


def _seconds(value: float, name: str) -> float:
    if not value >= 0 or math.isinf(value):
        raise ValueError(f"{name} must be 0 seconds or more, and finite, not {value}")
    return float(value)


def _tag_list(tags: Iterable[str]) -> tuple[str, ...]:
    if isinstance(tags, str):
        raise TypeError(f"tags are a list of texts, as in tags=[{tags!r}]")
    return tuple(tags)


_plain_codec = AutoCodec()


def _auto_codec(pickle_secret: bytes | str | None) -> AutoCodec:
    """The same codec for all caches without a secret, so that they share their local values."""
    return _plain_codec if pickle_secret is None else AutoCodec(pickle_secret)


def _size(encoded: Encoded) -> int:
    body = encoded.body
    return body.nbytes if isinstance(body, memoryview) else len(body)


def _left(expires_at: str | None, headers: Headers) -> float | None:
    """Seconds that an entry has left by the service's clock, never too many; None for ever."""
    if expires_at is None:
        return None
    date = headers.get("date")
    if date is None:
        return 0.0
    from email.utils import parsedate_to_datetime

    expires = datetime.fromisoformat(expires_at.replace("Z", "+00:00"))
    # `Date` has whole seconds, rounded down.
    now = parsedate_to_datetime(date).astimezone(timezone.utc) + timedelta(seconds=1)
    return max((expires - now).total_seconds(), 0.0)


def _is_coroutine_function(function: Any) -> bool:
    if inspect.iscoroutinefunction(function):
        return True
    return inspect.iscoroutinefunction(getattr(type(function), "__call__", None))


__all__ = ["AsyncCache", "Cache", "CacheEntry", "Lifetime"]
