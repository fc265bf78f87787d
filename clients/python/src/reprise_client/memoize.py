"""Memoized functions, and one computation of a value however many callers want it at once.

Within one process, the first caller of a key computes and the others wait for its result. Between
processes, the one that computes holds a lock: an entry beside the value, with a random token as
its value, that is only added if it is not there. The lock expires after `limits.LOCK_SECONDS`
unless it is renewed, so when its holder dies another process takes over. Those that wait look
again after growing, random pauses, and compute themselves once they have waited `wait_seconds`.
When the service is away, everybody computes.

What the lock costs: a miss makes three calls more (take the lock, look again, release it), two
of which write: about 2 ms on a small machine. A hit costs nothing more. For cheap functions,
`single_flight="process"` leaves the lock out.
"""

from __future__ import annotations

import asyncio
import functools
import heapq
import inspect
import os
import random
import threading
import time
import types
import weakref
from collections.abc import Callable, Collection, Coroutine, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, TypeVar, Union, cast

from . import limits
from .errors import NotFound, PreconditionFailed, RepriseError
from .http.flow import Call
from .local import MISSING, Held
from .operations import TTL, Operations, new_id

if TYPE_CHECKING:
    from .cache import AsyncCache, Cache, CacheMethods, Counts
    from .codecs import Codec, Encoded

P = ParamSpec("P")
T = TypeVar("T")

SingleFlight = Union[Literal["service", "process"], None]
Tags = Union[Sequence[str], Callable[..., Sequence[str]]]

_LOCK_SUFFIX = "~lock"


class Work:
    """What to compute, if its value is not there."""

    __slots__ = (
        "args", "codec", "compute_anew", "counts", "function", "key", "kwargs", "local_seconds",
        "single_flight", "tags", "ttl", "wait_seconds",
    )  # fmt: skip

    def __init__(
        self,
        key: str,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        codec: Codec,
        counts: Counts,
        ttl: TTL,
        tags: Tags,
        local_seconds: float,
        single_flight: SingleFlight,
        wait_seconds: float,
        compute_anew: bool = False,
    ) -> None:
        self.key = key
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.codec = codec
        self.counts = counts
        self.ttl = ttl
        self.tags = tags
        self.local_seconds = local_seconds
        self.single_flight: SingleFlight = single_flight
        self.wait_seconds = wait_seconds
        self.compute_anew = compute_anew


class Outcome:
    """What a function returned or raised. An exception goes around flows instead of through them:
    a `StopIteration` would end them."""

    __slots__ = ("encoded", "error", "held", "value")

    def __init__(
        self, value: Any = None, encoded: Encoded | None = None, *,
        error: BaseException | None = None,
    ) -> None:
        self.value = value
        #: The bytes that the value was decoded from, or will be.
        self.encoded = encoded
        self.error = error
        #: The value for those who waited for it: each must get an object of its own.
        self.held: Held | None = None

    def result(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.value


# What a flow can ask for beside calls. Each works in a blocking and in an asyncio way.


class Sleep:
    __slots__ = ("_seconds",)

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def run(self) -> None:
        time.sleep(self._seconds)

    async def run_async(self) -> None:
        await asyncio.sleep(self._seconds)


class Invoke:
    """Calls the function, and keeps a lock alive meanwhile; gives an `Outcome`."""

    __slots__ = ("_lock", "_work")

    def __init__(self, work: Work, lock: Lock | None) -> None:
        self._work = work
        self._lock = lock

    def run(self) -> Outcome:
        work, lock = self._work, self._lock
        if lock is not None:
            _renewals.add(lock)
        try:
            return Outcome(work.function(*work.args, **work.kwargs))
        except BaseException as error:
            return Outcome(error=error)
        finally:
            if lock is not None:
                _renewals.remove(lock)

    async def run_async(self) -> Outcome:
        work, lock = self._work, self._lock
        renewal = None
        if lock is not None:
            renewal = asyncio.get_running_loop().create_task(_renew_in_loop(lock))
        try:
            value = work.function(*work.args, **work.kwargs)
            if inspect.isawaitable(value):
                value = await value
            return Outcome(value)
        except BaseException as error:
            return Outcome(error=error)
        finally:
            if renewal is not None:
                renewal.cancel()


class Join:
    """Waits until a computation of another caller ends; at most so many seconds."""

    __slots__ = ("_flight", "_seconds")

    def __init__(self, flight: Flight, seconds: float) -> None:
        self._flight = flight
        self._seconds = seconds

    def run(self) -> None:
        assert isinstance(self._flight.ended, threading.Event)
        self._flight.ended.wait(self._seconds)

    async def run_async(self) -> None:
        assert isinstance(self._flight.ended, asyncio.Event)
        try:
            await asyncio.wait_for(self._flight.ended.wait(), self._seconds)
        except (TimeoutError, asyncio.TimeoutError):
            pass


Step = Union["Call[Any]", Sleep, Invoke, Join]
Steps = Generator[Step, Any, T]


def drive(cache: Cache, steps: Steps[T]) -> T:
    """Runs steps and blocks."""
    result: Any = None
    error: BaseException | None = None
    while True:
        try:
            step = steps.send(result) if error is None else steps.throw(error)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        result = error = None
        try:
            result = cache._run(step) if isinstance(step, Call) else step.run()
        except BaseException as failure:
            error = failure


async def drive_async(cache: AsyncCache, steps: Steps[T]) -> T:
    """Runs steps and lets the event loop go on meanwhile."""
    result: Any = None
    error: BaseException | None = None
    while True:
        try:
            step = steps.send(result) if error is None else steps.throw(error)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        result = error = None
        try:
            if isinstance(step, Call):
                result = await cache._run(step)
            else:
                result = await step.run_async()
        except BaseException as failure:
            error = failure


# One computation in this process.


class Flight:
    """A computation that is under way, and can be waited for."""

    __slots__ = ("ended", "has_followers", "is_outdated", "outcome", "owner")

    def __init__(self, owner: object, ended: threading.Event | asyncio.Event) -> None:
        self.owner = owner
        self.ended = ended
        #: None if it ended without a result: its caller was cancelled.
        self.outcome: Outcome | None = None
        #: The value was deleted since it began, so that its result must not be stored.
        self.is_outdated = False
        self.has_followers = False


class Flights:
    """The computations of one namespace in this process, by key; a bounded number."""

    def __init__(self) -> None:
        self._begin()
        _all_flights.add(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[tuple[object, str], Flight] = {}
        #: Who waits for which computation, to notice those that would wait for each other.
        self._waiting: dict[object, Flight] = {}

    def board(self, key: str, is_blocking: bool) -> tuple[Flight | None, bool]:
        """The computation of a key, and whether the caller shall do it.

        No computation if the caller must compute on its own: it is computing this key already,
        or waiting could never end.
        """
        owner, loop = _caller(is_blocking)
        with self._lock:
            flight = self._flights.get((loop, key))
            if flight is None:
                ended = threading.Event() if is_blocking else asyncio.Event()
                flight = Flight(owner, ended)
                if len(self._flights) < limits.MAX_FLIGHTS:
                    self._flights[loop, key] = flight
                return flight, True
            other: Flight | None = flight
            for _ in range(len(self._waiting) + 1):
                if other is None:
                    break
                if other.owner == owner:
                    return None, True
                other = self._waiting.get(other.owner)
            self._waiting[owner] = flight
            flight.has_followers = True
            return flight, False

    def leave(self, is_blocking: bool) -> None:
        """The caller does not wait any more."""
        owner, _ = _caller(is_blocking)
        with self._lock:
            self._waiting.pop(owner, None)

    def land(
        self, work: Work, flight: Flight, outcome: Outcome | None, context: bytes,
        is_blocking: bool,
    ) -> None:
        """Gives all who wait what came out."""
        _, loop = _caller(is_blocking)
        with self._lock:
            if self._flights.get((loop, work.key)) is flight:
                del self._flights[loop, work.key]
        try:
            if flight.has_followers and outcome is not None and outcome.encoded is not None:
                body, content_type = outcome.encoded
                outcome.held = Held(
                    outcome.value, body, content_type, codec=work.codec, context=context,
                    is_decoded=False,
                )
        finally:
            flight.outcome = outcome
            flight.ended.set()

    def outdate(self, key: str | None = None, prefix: str | None = None) -> None:
        """What is being computed for a key, or for all keys, was deleted meanwhile."""
        with self._lock:
            for (_, other), flight in self._flights.items():
                if (key is None or other == key) and (
                    prefix is None or other.startswith(prefix)
                ):
                    flight.is_outdated = True

    def __len__(self) -> int:
        return len(self._flights)


def _caller(is_blocking: bool) -> tuple[object, object]:
    """Who computes or waits: a thread, or a task of an event loop."""
    if is_blocking:
        return threading.get_ident(), None
    # The table holds the loop for as long as the computation runs.
    return asyncio.current_task(), asyncio.get_running_loop()


_all_flights: weakref.WeakSet[Flights] = weakref.WeakSet()


# One computation among all processes.


class Lock:
    """The lock of one computation, held by this process."""

    __slots__ = ("cache", "etag", "is_lost", "key")

    def __init__(self, cache: CacheMethods, key: str, etag: str) -> None:
        self.cache = cache
        self.key = key
        #: That of the token, by which only this lock is renewed and released.
        self.etag = etag
        self.is_lost = False

    def renewal(self) -> Call[Any]:
        call = cast("Call[Any]", Operations.touch_entry.flow(
            self.cache._client, self.cache.namespace, self.key,
            ttl_seconds=limits.LOCK_SECONDS, if_match=self.etag,
        ))
        call.timeout = limits.LOCK_CALL_SECONDS
        return call

    def release(self) -> Call[None]:
        call = cast("Call[None]", Operations.delete_entry.flow(
            self.cache._client, self.cache.namespace, self.key, if_match=self.etag
        ))
        call.timeout = limits.LOCK_CALL_SECONDS
        return call


class _Renewals:
    """One thread that renews all locks which threads of this process hold. It runs while there
    are any, and ends some seconds after the last one."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, Lock]] = []
        self._held: set[Lock] = set()
        self._count = 0
        self._thread: threading.Thread | None = None

    def add(self, lock: Lock) -> None:
        with self._changed:
            self._count += 1
            self._held.add(lock)
            # Later than all others, so the thread need not be woken.
            due = time.monotonic() + limits.LOCK_RENEW_SECONDS
            heapq.heappush(self._due, (due, self._count, lock))
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="reprise-lock-renewal", daemon=True
                )
                try:
                    self._thread.start()
                except RuntimeError:
                    # No thread can start any more: the lock expires if it takes longer.
                    self._thread = None

    def remove(self, lock: Lock) -> None:
        with self._changed:
            self._held.discard(lock)

    def _next(self) -> Lock | None:
        idle_until = time.monotonic() + limits.LOCK_THREAD_IDLE_SECONDS
        with self._changed:
            while True:
                now = time.monotonic()
                while self._due and self._due[0][2] not in self._held:
                    heapq.heappop(self._due)
                if self._due:
                    due, _, lock = self._due[0]
                    if due <= now:
                        heapq.heappop(self._due)
                        return lock
                    self._changed.wait(due - now)
                    idle_until = time.monotonic() + limits.LOCK_THREAD_IDLE_SECONDS
                elif now >= idle_until:
                    self._thread = None
                    return None
                else:
                    self._changed.wait(min(idle_until - now, limits.LOCK_RENEW_SECONDS))

    def _run(self) -> None:
        while True:
            lock = self._next()
            if lock is None:
                return
            try:
                cast("Cache", lock.cache)._run(lock.renewal())
            except (PreconditionFailed, NotFound):
                # It expired, or was cleared. Whoever holds it now computes as well.
                lock.is_lost = True
                self.remove(lock)
                continue
            except RepriseError:
                pass
            with self._changed:
                if lock in self._held:
                    self._count += 1
                    due = time.monotonic() + limits.LOCK_RENEW_SECONDS
                    heapq.heappush(self._due, (due, self._count, lock))


_renewals = _Renewals()


async def _renew_in_loop(lock: Lock) -> None:
    while True:
        await asyncio.sleep(limits.LOCK_RENEW_SECONDS)
        try:
            await cast("AsyncCache", lock.cache)._run(lock.renewal())
        except (PreconditionFailed, NotFound):
            lock.is_lost = True
            return
        except RepriseError:
            pass


def _after_fork() -> None:
    # The threads that computed are not in the child.
    _renewals.begin()
    for flights in list(_all_flights):
        flights._begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def lock_key(key: str) -> str:
    """The key of the lock beside a value."""
    candidate = key + _LOCK_SUFFIX
    if len(candidate.encode("utf-8", "replace")) <= limits.MAX_ENTRY_KEY_BYTES:
        return candidate
    from hashlib import blake2b

    return blake2b(key.encode("utf-8"), digest_size=20).hexdigest() + _LOCK_SUFFIX


# The way to a value.


def obtain(cache: CacheMethods, work: Work) -> Steps[Outcome]:
    """The value, or what the function returns or raises."""
    if work.compute_anew:
        # What is under way may have begun before its sources changed.
        return (yield from _compute(cache, work, None, None))
    if work.single_flight is None:
        found = yield from cache._look(work.key, work.codec, work.local_seconds, work.counts)
        if found.value is not MISSING:
            return Outcome(found.value)
        return (yield from _compute(cache, work, None, None, found.is_away))
    is_blocking = cache._is_blocking
    flights = cache._shared.flights
    deadline = time.monotonic() + work.wait_seconds
    has_waited = False
    while True:
        flight, is_mine = flights.board(work.key, is_blocking)
        if flight is None:
            # The function asked for its own value while it computes it.
            return (yield from _compute(cache, work, None, None))
        if is_mine:
            break
        if not has_waited:
            has_waited = True
            work.counts.add("waited")
        try:
            yield Join(flight, max(deadline - time.monotonic(), 0))
        finally:
            flights.leave(is_blocking)
        outcome = flight.outcome
        if outcome is None:
            if time.monotonic() >= deadline:
                return (yield from _compute(cache, work, None, None))
        elif outcome.error is not None:
            return outcome
        elif outcome.held is not None:
            return Outcome(outcome.held.open())
    result: Outcome | None = None
    try:
        result = yield from _lead(cache, work, flight, deadline)
    except Exception as error:
        # Such as a value that cannot be encoded. Those who wait would meet it as well.
        result = Outcome(error=error)
        raise
    finally:
        # That the caller was cancelled or interrupted is not for the others.
        is_own = result is None or not isinstance(result.error, (Exception, type(None)))
        flights.land(
            work, flight, None if is_own else result, cache._context(work.key), is_blocking
        )
    assert result is not None
    return result


def _lead(
    cache: CacheMethods, work: Work, flight: Flight, deadline: float
) -> Steps[Outcome]:
    found = yield from cache._look(work.key, work.codec, work.local_seconds, work.counts)
    if found.value is not MISSING:
        return Outcome(found.value, found.encoded)
    lock: Lock | None = None
    is_away = found.is_away
    if work.single_flight == "service" and not is_away:
        taken = yield from _take(cache, work, deadline)
        if isinstance(taken, Outcome):
            return taken
        if isinstance(taken, Lock):
            lock = taken
        else:
            is_away = taken
    return (yield from _compute(cache, work, flight, lock, is_away))


def _take(
    cache: CacheMethods, work: Work, deadline: float
) -> Generator[Step, Any, Lock | Outcome | bool]:
    """The lock; or the value, if its holder stored it; or neither, and whether that is because
    the service is away instead of the time being over."""
    key = lock_key(work.key)
    token = new_id().encode("ascii")
    pause = limits.LOCK_POLL_SECONDS
    has_waited = False
    while True:
        try:
            stored = yield from cache._attempt(
                Operations.put_entry.flow(
                    cache._client, cache.namespace, key, token,
                    content_type="text/plain; charset=utf-8", if_none_match="*",
                    ttl_seconds=limits.LOCK_SECONDS, timeout=limits.LOCK_CALL_SECONDS,
                )
            )
        except PreconditionFailed:
            stored = None
        if stored is MISSING:
            return True
        if stored is not None:
            lock = Lock(cache, key, stored.etag)
            try:
                # The last holder may have stored the value after this caller had looked.
                is_there = yield from cache._exists(work.key)
            except BaseException:
                yield from _release(cache, lock)
                raise
            if is_there:
                yield from _release(cache, lock)
                found = yield from cache._look(
                    work.key, work.codec, work.local_seconds, work.counts
                )
                if found.value is not MISSING:
                    return Outcome(found.value, found.encoded)
                return found.is_away
            return lock
        if not has_waited:
            has_waited = True
            work.counts.add("waited")
        seconds = deadline - time.monotonic()
        if seconds <= 0:
            return False
        yield Sleep(min(pause * (0.5 + random.random()), seconds))
        pause = min(pause * 1.5, limits.MAX_LOCK_POLL_SECONDS)
        if (yield from cache._exists(work.key)):
            found = yield from cache._look(
                work.key, work.codec, work.local_seconds, work.counts
            )
            if found.value is not MISSING:
                return Outcome(found.value, found.encoded)


def _release(cache: CacheMethods, lock: Lock) -> Steps[None]:
    try:
        yield from cache._attempt(lock.release(), is_quiet=True)
    except PreconditionFailed:
        # It expired, and may be another's now.
        pass


def _compute(
    cache: CacheMethods, work: Work, flight: Flight | None, lock: Lock | None,
    is_away: bool = False,
) -> Steps[Outcome]:
    started = time.perf_counter()
    outcome: Outcome = yield Invoke(work, lock)
    seconds = time.perf_counter() - started
    try:
        if outcome.error is not None:
            return outcome
        work.counts.add("computed")
        tags = work.tags
        if callable(tags):
            tags = tags(*work.args, **work.kwargs)
        outcome.encoded = yield from cache._keep(
            work.key, outcome.value, codec=work.codec, ttl=work.ttl, tags=tags,
            compute_seconds=seconds, local_seconds=work.local_seconds, counts=work.counts,
            is_away=is_away, is_outdated=lambda: flight is not None and flight.is_outdated,
        )
        return outcome
    finally:
        if lock is not None:
            yield from _release(cache, lock)


# Functions.


#: Types whose values are their own content. Zero of type float is left out: `0.0 == -0.0`.
_PLAIN = frozenset({str, int, bool, float, bytes, type(None)})


class _Settings:
    """What `memoize` was told."""

    __slots__ = (
        "codec", "hashers", "ignore", "key", "local_seconds", "single_flight", "tags", "ttl",
        "version", "wait_seconds",
    )  # fmt: skip

    def __init__(
        self,
        *,
        ttl: TTL,
        tags: Tags,
        key: Callable[..., object] | None,
        ignore: Collection[str],
        hashers: Mapping[type, Callable[[Any], object]] | None,
        codec: Codec,
        version: object,
        local_seconds: float,
        single_flight: SingleFlight,
        wait_seconds: float,
    ) -> None:
        if isinstance(ignore, str):
            raise TypeError(f'ignore takes a list of names: ignore=["{ignore}"].')
        if single_flight not in ("service", "process", None):
            raise ValueError(
                f'single_flight is "service", "process" or None, not {single_flight!r}.'
            )
        self.ttl = ttl
        self.tags = tags
        self.key = key
        self.ignore = frozenset(ignore)
        self.hashers = dict(hashers or {})
        self.codec = codec
        self.version = version
        self.local_seconds = local_seconds
        self.single_flight: SingleFlight = single_flight
        self.wait_seconds = wait_seconds


class _Memoized:
    """What memoized functions of both kinds have in common."""

    #: A `Cache` or an `AsyncCache`.
    _cache: Any

    def __init__(
        self, cache: CacheMethods, function: Callable[..., Any], settings: _Settings
    ) -> None:
        from . import keys

        _check(function)
        # Not what hangs on the function: its names could be those of methods here.
        functools.update_wrapper(cast(Any, self), function, updated=())
        self.__wrapped__: Callable[..., Any] = function
        self._cache = cache
        self._settings = settings
        self._counts = cache._counts.child()
        self._tier = cache._shared.tier if settings.local_seconds > 0 else None
        self._plan_of = keys._plan_of
        self._closure_of = keys._closure_of
        self._target = keys._resolve_callable(function, (), {})[0]
        #: The plan of the function as it is now, and the keys of the calls that were made.
        self._known_prefix: tuple[Any, str] = (None, "")
        self._remembered: tuple[Any, Any, Any, dict[Any, str]] = (None, None, None, {})
        code = getattr(function, "__code__", None)
        names: tuple[str, ...] = code.co_varnames[: code.co_argcount] if code is not None else ()
        #: Parameters that are ignored can only be left out here if the first one is all there is.
        self._skips_first = bool(names) and settings.ignore == {names[0]}
        self._can_remember = (
            isinstance(function, types.FunctionType)
            and not hasattr(function, "__wrapped__")
            and not function.__closure__
            and not settings.hashers
            and settings.key is None
            and (not settings.ignore or self._skips_first)
        )

    # Keys.

    def key(self, *args: Any, **kwargs: Any) -> str:
        """The key of a call, under which its result is stored."""
        return self._key(args, kwargs)

    def explain_key(self, *args: Any, **kwargs: Any) -> str:
        """A table of what goes into the key of a call, to find why two calls differ."""
        from .keys import call_key

        settings = self._settings
        lines = [f"key {self._key(args, kwargs)}"]
        if settings.version is not None:
            lines.append(f"version {settings.version}")
        if settings.key is not None:
            lines.append("made by the function that was given as key=")
            return "\n".join(lines)
        explained = call_key(
            self.__wrapped__, args, kwargs, ignore=self._ignored(), hashers=settings.hashers
        ).explain()
        return "\n".join([*lines, *explained.splitlines()[1:]])

    def _key(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        if not self._can_remember:
            return self._make_key(args, kwargs)
        function: Any = self.__wrapped__
        # A new one if the function, or one that it uses, was replaced.
        plan = self._plan_of(function)
        defaults = function.__defaults__
        named_defaults = function.__kwdefaults__
        known_plan, known_defaults, known_named, known = self._remembered
        if not (
            plan is known_plan and defaults is known_defaults and named_defaults is known_named
        ):
            known = {}
            self._remembered = (plan, defaults, named_defaults, known)
        plain = args[1:] if self._skips_first else args
        call: Any = (*map(type, plain),)
        if not _PLAIN.issuperset(call):
            return self._make_key(args, kwargs)
        if kwargs:
            named = (*kwargs.items(),)
            kinds = (*(type(value) for _, value in named),)
            if not _PLAIN.issuperset(kinds):
                return self._make_key(args, kwargs)
            call = (call, plain, kinds, named)
        else:
            call = (call, plain)
        key = known.get(call)
        if key is None:
            key = self._make_key(args, kwargs)
            is_small = _is_small(plain) and _is_small(kwargs.values())
            if is_small and _are_plain(defaults, named_defaults):
                if len(known) >= limits.MAX_REMEMBERED_KEYS:
                    known.clear()
                known[call] = key
        return key

    def _make_key(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        from .keys import MAX_KEY_BYTES, call_key, digest

        settings = self._settings
        if settings.key is not None:
            made = settings.key(*args, **kwargs)
            text = made if isinstance(made, str) else digest(made)
            if len(text.encode("utf-8", "replace")) > MAX_KEY_BYTES or not text.isprintable():
                text = digest(text)
            return self._prefix() + text
        call = call_key(
            self.__wrapped__, args, kwargs, ignore=self._ignored(), hashers=settings.hashers
        )
        return self._prefix() + call.key.rpartition(":")[2]

    def _prefix(self) -> str:
        """The start of the keys of this function as it is now, and of no other."""
        from .keys import digest

        plan = self._plan_of(self._target)
        known_plan, prefix = self._known_prefix
        if plan is known_plan:
            return prefix
        version = self._settings.version
        identity: str = plan.token.hex()[:12]
        closure = ""
        if plan.closes:
            ignored = self._ignored()
            closure = "".join(
                digest(value, hashers=self._settings.hashers)
                for _, name, value in self._closure_of(self._target) if name not in ignored
            )
        if version is not None or closure:
            identity = digest([identity, closure, repr(version)])[:12]
        prefix = f"{plan.key_start}{identity}:"
        if not plan.closes:
            self._known_prefix = plan, prefix
        return prefix

    def _ignored(self) -> frozenset[str]:
        """What `ignore` names, and the variable by which a local function calls itself."""
        ignored = self._settings.ignore
        if getattr(self._target, "__closure__", None):
            own = {name for _, name, value in self._closure_of(self._target) if value is self}
            if own:
                return ignored | own
        return ignored

    # For both kinds.

    def _work(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], key: str, anew: bool = False
    ) -> Work:
        settings = self._settings
        return Work(
            key, self.__wrapped__, args, kwargs, codec=settings.codec, counts=self._counts,
            ttl=settings.ttl, tags=settings.tags, local_seconds=settings.local_seconds,
            single_flight=settings.single_flight, wait_seconds=settings.wait_seconds,
            compute_anew=anew,
        )

    def statistics(self) -> dict[str, Any]:
        """What the calls of this function came to, in this process."""
        return self._counts.all()

    def __reduce__(self) -> str:
        # By name, like any function.
        return cast(str, self.__qualname__)  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        return f"<memoized {self.__wrapped__!r}>"


class Memoized(_Memoized, Generic[P, T]):
    """A function whose results are cached."""

    _cache: Cache
    __wrapped__: Callable[P, T]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        key = self._key(args, kwargs)
        tier = self._tier
        if tier is not None:
            settings = self._settings
            value = tier.get(key, settings.codec, settings.local_seconds, self._counts)
            if value is not MISSING:
                return cast(T, value)
        steps = obtain(self._cache, self._work(args, kwargs, key))
        return cast(T, drive(self._cache, steps).result())

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Computes anew, and stores the result in the place of the old one."""
        work = self._work(args, kwargs, self._key(args, kwargs), anew=True)
        return cast(T, drive(self._cache, obtain(self._cache, work)).result())

    def clear(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Deletes the result of one call; False if the service is away."""
        return self._cache.delete(self._key(args, kwargs))

    def clear_all(self) -> int:
        """Deletes the results of this function as it is now; how many there were."""
        return self._cache.clear(prefix=self._prefix())

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else _Bound(self, instance)


class AsyncMemoized(_Memoized, Generic[P, T]):
    """A coroutine function whose results are cached."""

    _cache: AsyncCache
    __wrapped__: Callable[P, Coroutine[Any, Any, T]]

    def __init__(
        self, cache: AsyncCache, function: Callable[..., Any], settings: _Settings
    ) -> None:
        super().__init__(cache, function, settings)
        mark = getattr(inspect, "markcoroutinefunction", None)
        if mark is not None:
            mark(self)
        else:
            # Before Python 3.12, what `asyncio.iscoroutinefunction` looks for.
            coroutines: Any = asyncio.coroutines
            self._is_coroutine = coroutines._is_coroutine

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        key = self._key(args, kwargs)
        tier = self._tier
        if tier is not None:
            settings = self._settings
            value = tier.get(key, settings.codec, settings.local_seconds, self._counts)
            if value is not MISSING:
                return cast(T, value)
        steps = obtain(self._cache, self._work(args, kwargs, key))
        return cast(T, (await drive_async(self._cache, steps)).result())

    async def refresh(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Computes anew, and stores the result in the place of the old one."""
        work = self._work(args, kwargs, self._key(args, kwargs), anew=True)
        return cast(T, (await drive_async(self._cache, obtain(self._cache, work))).result())

    async def clear(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Deletes the result of one call; False if the service is away."""
        return await self._cache.delete(self._key(args, kwargs))

    async def clear_all(self) -> int:
        """Deletes the results of this function as it is now; how many there were."""
        return await self._cache.clear(prefix=self._prefix())

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else _Bound(self, instance)


class _Bound:
    """A memoized method of an object: everything gets the object as its first argument."""

    __slots__ = ("__self__", "_memoized")

    def __init__(self, memoized: Any, instance: Any) -> None:
        self._memoized = memoized
        self.__self__ = instance

    @property
    def __func__(self) -> Any:
        return self._memoized

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._memoized(self.__self__, *args, **kwargs)

    def key(self, *args: Any, **kwargs: Any) -> str:
        return cast(str, self._memoized.key(self.__self__, *args, **kwargs))

    def explain_key(self, *args: Any, **kwargs: Any) -> str:
        return cast(str, self._memoized.explain_key(self.__self__, *args, **kwargs))

    def refresh(self, *args: Any, **kwargs: Any) -> Any:
        return self._memoized.refresh(self.__self__, *args, **kwargs)

    def clear(self, *args: Any, **kwargs: Any) -> Any:
        return self._memoized.clear(self.__self__, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._memoized, name)

    def __repr__(self) -> str:
        return f"<memoized {self._memoized.__wrapped__!r} of {self.__self__!r}>"


def _check(function: Any) -> None:
    if isinstance(function, (staticmethod, classmethod)):
        kind = type(function).__name__
        raise TypeError(f"Write @{kind} above the memoizing decorator, not below it.")
    if not callable(function):
        raise TypeError(
            f"memoize takes a function, not {function!r:.100}. Its options are named: "
            "@cache.memoize(ttl=60)."
        )
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            f"{function.__qualname__}() is a generator function, and what it yields is gone after "
            "the first reader. Memoize a function that returns a list."
        )


def _is_small(values: Collection[Any]) -> bool:
    for value in values:
        kind = type(value)
        if kind is float:
            if value == 0:
                return False
        elif kind is int:
            if value.bit_length() > 64:
                return False
        elif (kind is str or kind is bytes) and len(value) > limits.MAX_REMEMBERED_TEXT:
            return False
    return True


def _are_plain(positional: tuple[Any, ...] | None, named: dict[str, Any] | None) -> bool:
    """Whether no default value can change."""
    return all(
        type(value) in _PLAIN for value in (*(positional or ()), *(named or {}).values())
    )
