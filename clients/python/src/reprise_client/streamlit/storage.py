"""What `st.cache_data(persist="disk")` keeps, kept in the service and shared by all replicas.

A value is read from the service once and then from a copy in the process. A copy that was not
checked for `revalidate_seconds` is checked by its entity tag, which moves no value over the wire.
So a value that one replica cleared is used by another for that long, at most. A miss is remembered
for that long as well, unless the process computes the value itself.

Streamlit shows an exception on the page when a storage raises one. This storage raises none: if
the service does not answer, a get is a miss or uses the copy, and what was set or cleared waits
in the process and is sent by a thread when the service is back.
"""

from __future__ import annotations

import atexit
import hashlib
import hmac
import logging
import struct
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from streamlit.runtime.caching.storage import (
    CacheStorage,
    CacheStorageContext,
    CacheStorageKeyNotFoundError,
    CacheStorageManager,
)
from streamlit.runtime.caching.storage.dummy_cache_storage import MemoryCacheStorageManager

from .. import limits
from ..codecs import MIN_SECRET_BYTES
from ..errors import (
    NotFound,
    PreconditionFailed,
    ProblemError,
    RepriseError,
    ServerError,
    StorageFull,
    TooManyRequests,
    TransportError,
)

if TYPE_CHECKING:
    from ..client import Client

_LOGGER = logging.getLogger("reprise_client.streamlit")

CONTENT_TYPE = "application/vnd.reprise.streamlit-value"

_SIGNED = b"RPS1"
_UNSIGNED = b"RPS0"
_SIGNATURE_BYTES = 32
#: Keeps these signatures apart from others that the app makes with the same secret.
_LABEL = b"reprise streamlit value 1\0"


class Seal:
    """Marks values, so that only what this app wrote is read again.

    The signature is HMAC-SHA-256 over the place of a value and its bytes. Without a secret values
    are not signed, and only unsigned ones are read.
    """

    def __init__(self, secret: bytes | str | None) -> None:
        raw = secret.encode("utf-8") if isinstance(secret, str) else secret
        if raw is not None and len(raw) < MIN_SECRET_BYTES:
            raise ValueError(
                f"The secret has {len(raw)} bytes and needs at least {MIN_SECRET_BYTES}. "
                "Make one with secrets.token_hex(32)."
            )
        self._secret = raw

    @property
    def is_signing(self) -> bool:
        return self._secret is not None

    @property
    def fingerprint(self) -> str:
        """Tells whether two secrets are the same, without telling them."""
        if self._secret is None:
            return "unsigned"
        return hmac.new(self._secret, b"fingerprint", hashlib.sha256).hexdigest()[:16]

    def close(self, value: bytes, context: bytes) -> bytes:
        if self._secret is None:
            return _UNSIGNED + value
        return b"".join((_SIGNED, self._signature(value, context), value))

    def open(self, body: bytes, context: bytes) -> bytes | None:
        """The value, or None if it was not sealed with this secret for this place."""
        mark = body[: len(_SIGNED)]
        if self._secret is None:
            return body[len(_UNSIGNED) :] if mark == _UNSIGNED else None
        start = len(_SIGNED) + _SIGNATURE_BYTES
        if mark != _SIGNED or len(body) < start:
            return None
        value = memoryview(body)[start:]
        signature = self._signature(value, context)
        if not hmac.compare_digest(body[len(_SIGNED) : start], signature):
            return None
        return bytes(value)

    def _signature(self, value: bytes | memoryview, context: bytes) -> bytes:
        assert self._secret is not None
        mac = hmac.new(self._secret, _LABEL, hashlib.sha256)
        # The length keeps apart where the context ends and the value starts.
        mac.update(struct.pack(">Q", len(context)))
        mac.update(context)
        mac.update(value)
        return mac.digest()


class Figures:
    """What the storage did in this process. Counts are approximate while threads run."""

    def __init__(self) -> None:
        #: Values that were found, and how many of them without asking the service.
        self.hits = 0
        self.local_hits = 0
        self.misses = 0
        #: Hits whose copy could not be checked, because the service did not answer.
        self.unchecked_hits = 0
        #: Values that were sent to the service.
        self.stored = 0
        #: Calls that failed.
        self.errors = 0
        #: Values whose signature is missing or wrong.
        self.rejected = 0
        #: Values that stay in the process because they are too large or the service refuses them.
        self.not_shared = 0
        #: Values and removals that waited for the service and were given up.
        self.dropped = 0
        self.last_error = ""


class _Copy:
    """What is known of a value that this process has a copy of."""

    __slots__ = ("checked_at", "etag", "expires_at", "is_shared", "size")

    def __init__(self, etag: str, checked_at: float, expires_at: float | None, size: int,
                 is_shared: bool = True) -> None:
        self.etag = etag
        self.checked_at = checked_at
        self.expires_at = expires_at
        self.size = size
        #: False if the service cannot have the value, so that it is not asked.
        self.is_shared = is_shared


class _Copies:
    """The copies of all functions, the least recently used first, within bounds."""

    def __init__(self, max_bytes: int, max_entries: int) -> None:
        self._max_bytes = max_bytes
        self._max_entries = max_entries
        self._lock = threading.Lock()
        self._copies: OrderedDict[tuple[SharedStorage, str], _Copy] = OrderedDict()
        self._bytes = 0

    def get(self, storage: SharedStorage, key: str) -> _Copy | None:
        with self._lock:
            copy = self._copies.get((storage, key))
            if copy is not None:
                self._copies.move_to_end((storage, key))
            return copy

    def put(self, storage: SharedStorage, key: str, copy: _Copy) -> None:
        victims = []
        with self._lock:
            old = self._copies.pop((storage, key), None)
            if old is not None:
                self._bytes -= old.size
            self._copies[storage, key] = copy
            self._bytes += copy.size
            while len(self._copies) > 1 and (
                self._bytes > self._max_bytes or len(self._copies) > self._max_entries
            ):
                victim, gone = self._copies.popitem(last=False)
                self._bytes -= gone.size
                victims.append(victim)
        for owner, name in victims:
            owner.forget(name)

    def drop(self, storage: SharedStorage, key: str) -> None:
        with self._lock:
            old = self._copies.pop((storage, key), None)
            if old is not None:
                self._bytes -= old.size

    def drop_all(self, storage: SharedStorage) -> None:
        with self._lock:
            for place in [place for place in self._copies if place[0] is storage]:
                self._bytes -= self._copies.pop(place).size

    def clear(self) -> None:
        """Without a note here, what the storages have in memory is not used any more."""
        with self._lock:
            self._copies.clear()
            self._bytes = 0

    def figures(self) -> tuple[int, int]:
        """How many copies there are, and their bytes."""
        with self._lock:
            return len(self._copies), self._bytes


class _Put(NamedTuple):
    """A value that waits until the service is back."""

    storage: SharedStorage
    key: str
    value: bytes
    expires_at: float | None
    compute_seconds: float | None


class _Unsent:
    """What the service has not been told yet: removals, then the values set after them.

    Values are sent with "add only", so that none replaces what another replica stored later.
    """

    def __init__(self, shared: Shared, max_bytes: int, max_entries: int) -> None:
        self._shared = shared
        self._max_bytes = max_bytes
        self._max_entries = max_entries
        self._lock = threading.Lock()
        #: Functions to clear by their tag, "" for all; each with a mark of the latest request.
        self._cleared: dict[str, object] = {}
        #: Entries to delete: (tag, name).
        self._deleted: dict[tuple[str, str], object] = {}
        self._puts: OrderedDict[tuple[str, str], _Put] = OrderedDict()
        self._bytes = 0
        self._thread: threading.Thread | None = None
        self._idle = threading.Event()
        self._idle.set()
        self._wake = threading.Event()
        self._stopped = False
        self._is_registered = False

    def figures(self) -> tuple[int, int]:
        """How much waits, and the bytes of its values."""
        with self._lock:
            return len(self._cleared) + len(self._deleted) + len(self._puts), self._bytes

    def value(self, tag: str, name: str) -> bytes | None:
        """A value that waits, unless it has expired meanwhile."""
        put = self._puts.get((tag, name))
        if put is None or (put.expires_at is not None and put.expires_at <= self._shared.now()):
            return None
        return put.value

    def hides(self, tag: str, name: str) -> bool:
        """Whether what the service has is to be removed."""
        if not self._cleared and not self._deleted:
            return False
        return "" in self._cleared or tag in self._cleared or (tag, name) in self._deleted

    def clear(self, tag: str) -> None:
        """`tag` "" clears everything."""
        with self._lock:
            for place in [place for place in self._puts if tag in ("", place[0])]:
                self._bytes -= len(self._puts.pop(place).value)
            for place in [place for place in self._deleted if tag in ("", place[0])]:
                del self._deleted[place]
            if not tag:
                self._cleared.clear()
            self._cleared[tag] = object()
            if len(self._cleared) + len(self._deleted) > self._max_entries:
                # Too many to remember one by one. Clearing more than was asked for costs time
                # only, and clearing less would show old values.
                self._cleared = {"": object()}
                self._deleted.clear()
            self._start()

    def delete(self, tag: str, name: str) -> None:
        with self._lock:
            self._forget(tag, name)
            self._deleted[tag, name] = object()
            if len(self._cleared) + len(self._deleted) > self._max_entries:
                self._cleared[tag] = object()
                for place in [place for place in self._deleted if place[0] == tag]:
                    del self._deleted[place]
            self._start()

    def put(self, tag: str, name: str, put: _Put) -> None:
        with self._lock:
            self._forget(tag, name)
            self._puts[tag, name] = put
            self._bytes += len(put.value)
            while self._bytes > self._max_bytes or len(self._puts) > self._max_entries:
                _, dropped = self._puts.popitem(last=False)
                self._bytes -= len(dropped.value)
                self._shared.figures.dropped += 1
            self._start()

    def supersede(self, tag: str, name: str) -> None:
        """A newer value is with the service."""
        if self._puts:
            with self._lock:
                self._forget(tag, name)

    def _forget(self, tag: str, name: str) -> None:
        old = self._puts.pop((tag, name), None)
        if old is not None:
            self._bytes -= len(old.value)

    def stop(self, seconds: float) -> None:
        """Waits until everything is sent, for `seconds` at most, and ends the thread."""
        self._wake.set()
        self._idle.wait(seconds)
        with self._lock:
            self._stopped = True
        self._wake.set()
        atexit.unregister(self.stop)

    def _start(self) -> None:
        if self._stopped:
            return
        self._idle.clear()
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(
                target=self._send_all, name="reprise-streamlit-sender", daemon=True)
            self._thread.start()
        if not self._is_registered:
            self._is_registered = True
            atexit.register(self.stop, limits.STREAMLIT_EXIT_SECONDS)

    def _send_all(self) -> None:
        wait = limits.STREAMLIT_SEND_SECONDS
        while True:
            with self._lock:
                step = None if self._stopped else self._next()
                if step is None:
                    self._thread = None
                    self._idle.set()
                    return
            try:
                step()
                wait = limits.STREAMLIT_SEND_SECONDS
                self._shared.answered()
            except Exception as error:
                self._shared.failed(error)
                self._wake.wait(wait)
                self._wake.clear()
                wait = min(wait * 2, limits.MAX_STREAMLIT_SEND_SECONDS)

    def _next(self) -> Callable[[], None] | None:
        for tag, mark in self._cleared.items():
            return lambda: self._send_clear(tag, mark)
        for place, mark in self._deleted.items():
            return lambda: self._send_delete(place, mark)
        for place, put in self._puts.items():
            return lambda: self._send_put(place, put)
        return None

    def _send_clear(self, tag: str, mark: object) -> None:
        self._send(lambda: self._shared.clear_now(tag))
        with self._lock:
            if self._cleared.get(tag) is mark:
                del self._cleared[tag]

    def _send_delete(self, place: tuple[str, str], mark: object) -> None:
        shared = self._shared
        self._send(lambda: shared.client.delete_entry(shared.namespace, place[1]))
        with self._lock:
            if self._deleted.get(place) is mark:
                del self._deleted[place]

    def _send_put(self, place: tuple[str, str], put: _Put) -> None:
        self._send(lambda: put.storage.send(put))
        with self._lock:
            if self._puts.get(place) is put:
                self._forget(*place)

    def _send(self, call: Callable[[], None]) -> None:
        """Raises what may go better later, and counts what repeating would not help."""
        try:
            call()
        except Exception as error:
            if is_temporary(error):
                raise
            self._shared.failed(error)
            self._shared.figures.dropped += 1


def is_temporary(error: Exception) -> bool:
    """Whether the same request may be answered later."""
    if isinstance(error, StorageFull):
        return False
    return isinstance(error, (TransportError, ServerError, TooManyRequests))


class Shared:
    """What the storages of all functions have in common: the service, the copies, the figures."""

    def __init__(
        self,
        client: Client,
        namespace: str,
        seal: Seal,
        *,
        revalidate_seconds: float = limits.STREAMLIT_REVALIDATE_SECONDS,
        keep_seconds: float | None = limits.STREAMLIT_KEEP_SECONDS,
        version: str = "",
        max_local_bytes: int = limits.MAX_STREAMLIT_LOCAL_BYTES,
        max_local_entries: int = limits.MAX_STREAMLIT_LOCAL_ENTRIES,
        max_unsent_bytes: int = limits.MAX_STREAMLIT_UNSENT_BYTES,
        max_unsent_entries: int = limits.MAX_STREAMLIT_UNSENT_ENTRIES,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.client = client
        self.namespace = namespace
        self.seal = seal
        self.revalidate_seconds = revalidate_seconds
        self.keep_seconds = keep_seconds
        #: Part of each key: what one version of Python or Streamlit pickled, another may not read.
        self.version = version
        self.now = now
        self.figures = Figures()
        self.copies = _Copies(max_local_bytes, max_local_entries)
        self.unsent = _Unsent(self, max_unsent_bytes, max_unsent_entries)
        self._paused_until = float("-inf")
        self._warned_at = float("-inf")

    @property
    def is_paused(self) -> bool:
        """The service did not answer a moment ago, so that it is not asked again yet."""
        return self.now() < self._paused_until

    def answered(self) -> None:
        self._paused_until = float("-inf")

    def failed(self, error: Exception) -> None:
        """Counts a failure, and tells it to the log from time to time."""
        figures = self.figures
        figures.errors += 1
        figures.last_error = f"{type(error).__name__}: {error}"
        now = self.now()
        if isinstance(error, TransportError):
            self._paused_until = now + limits.STREAMLIT_PAUSE_SECONDS
        if now - self._warned_at >= limits.STREAMLIT_WARNING_SECONDS:
            self._warned_at = now
            expected = isinstance(error, RepriseError)
            _LOGGER.warning(
                "Cached values are not shared at the moment, and the app goes on without: %s",
                figures.last_error, exc_info=None if expected else error)

    def clear_now(self, tag: str) -> None:
        self.client.clear_entries(self.namespace, tag=tag or None)

    def clear(self, tag: str) -> None:
        """Removes the entries of a function, or all of them; later, if that fails now."""
        if not self.is_paused and not self.unsent.figures()[0]:
            try:
                self.clear_now(tag)
                return
            except Exception as error:
                self.failed(error)
                if not is_temporary(error):
                    return
        self.unsent.clear(tag)

    def close(self, seconds: float) -> None:
        self.unsent.stop(seconds)


class SharedStorage(CacheStorage):
    """The values of one decorated function."""

    def __init__(self, shared: Shared, context: CacheStorageContext) -> None:
        self._shared = shared
        self._key = context.function_key
        self._tag = function_tag(context.function_key)
        self._ttl = _ttl(context.ttl_seconds, shared.keep_seconds)
        # Streamlit's own storage in memory has the bounds that the decorator and the
        # configuration ask for, and reports its size to Streamlit.
        self._memory = MemoryCacheStorageManager().create(context)
        self._lock = threading.Lock()
        self._generation = 0
        #: Misses: when the service was asked, and when Streamlit was told the last time.
        self._missed: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def name(self, key: str) -> str:
        """The key of an entry of the service."""
        return f"{self._key}.{key}{self._shared.version}"

    def has(self, key: str) -> bool:
        shared = self._shared
        if self._local(key) is not None:
            return True
        name = self.name(key)
        if shared.is_paused or shared.unsent.hides(self._tag, name):
            return False
        try:
            shared.client.head_entry(shared.namespace, name)
            return True
        except NotFound:
            return False
        except Exception as error:
            shared.failed(error)
            return False

    def get(self, key: str) -> bytes:
        shared = self._shared
        now = shared.now()
        with self._lock:
            missed = self._missed.get(key)
        # Streamlit asks twice: before and after it waits for others that compute the same.
        is_known_miss = missed is not None and now - missed[0] < shared.revalidate_seconds
        value = None if is_known_miss else self._get(key)
        if value is not None:
            shared.figures.hits += 1
            return value
        if not is_known_miss:
            shared.figures.misses += 1
        with self._lock:
            told = shared.now()
            self._missed[key] = (missed[0] if missed and is_known_miss else now, told)
            if len(self._missed) > limits.MAX_STREAMLIT_MISSES:
                self._missed.popitem(last=False)
        raise CacheStorageKeyNotFoundError("Neither this process nor the service has it.")

    def _get(self, key: str) -> bytes | None:
        shared = self._shared
        figures = shared.figures
        local = self._local(key)
        copy = shared.copies.get(self, key) if local is not None else None
        now = shared.now()
        if copy is not None and (
            not copy.is_shared or now - copy.checked_at < shared.revalidate_seconds
        ):
            figures.local_hits += 1
            return local
        name = self.name(key)
        waiting = shared.unsent.value(self._tag, name)
        if waiting is not None or shared.unsent.hides(self._tag, name):
            # The service has no value, or one that is to be removed.
            local = local if local is not None else waiting
            if local is not None:
                figures.local_hits += 1
            return local
        if shared.is_paused:
            if local is not None:
                figures.unchecked_hits += 1
            return local
        if copy is not None:
            # Others use the copy while this call finds out.
            copy.checked_at = now
        generation = self._generation
        try:
            entry = shared.client.get_entry(
                shared.namespace, name,
                if_none_match=copy.etag if copy is not None and copy.etag else None)
            shared.answered()
        except NotFound as error:
            if error.code != "cache_miss":
                return self._without(error, local)
            self._drop(key)
            return None
        except Exception as error:
            return self._without(error, local)
        expires_at = None
        if entry.expires_in_seconds is not None:
            expires_at = now + entry.expires_in_seconds
        if not entry.is_modified and copy is not None:
            copy.expires_at = expires_at
            return local
        value = shared.seal.open(entry.body, self._context(name))
        if value is None:
            figures.rejected += 1
            self._drop(key)
            return None
        self._keep(key, value, _Copy(entry.etag, now, expires_at, len(value)), generation)
        return value

    def _without(self, error: Exception, local: bytes | None) -> bytes | None:
        self._shared.failed(error)
        if local is not None:
            self._shared.figures.unchecked_hits += 1
        return local

    def set(self, key: str, value: bytes) -> None:
        shared = self._shared
        now = shared.now()
        with self._lock:
            missed = self._missed.pop(key, None)
            generation = self._generation
        expires_at = None if self._ttl is None else now + self._ttl
        copy = _Copy("", now, expires_at, len(value))
        self._keep(key, value, copy, generation)
        if len(value) > limits.MAX_STREAMLIT_VALUE_BYTES:
            copy.is_shared = False
            shared.figures.not_shared += 1
            return
        name = self.name(key)
        put = _Put(self, key, value, expires_at, None if missed is None else now - missed[1])
        if shared.is_paused or shared.unsent.hides(self._tag, name):
            shared.unsent.put(self._tag, name, put)
            return
        try:
            copy.etag = self._put(put, name)
            copy.checked_at = shared.now()
            shared.answered()
            shared.unsent.supersede(self._tag, name)
        except Exception as error:
            shared.failed(error)
            if is_temporary(error):
                shared.unsent.put(self._tag, name, put)
            else:
                copy.is_shared = False
                shared.figures.not_shared += 1

    def send(self, put: _Put) -> None:
        """Sends a value that waited, unless the service has a newer one."""
        shared = self._shared
        if put.expires_at is not None and put.expires_at <= shared.now():
            return
        copy = shared.copies.get(self, put.key)
        try:
            etag = self._put(put, self.name(put.key), waited=True)
        except PreconditionFailed:
            # Another replica was faster. What it stored is read the next time.
            self._drop(put.key)
            return
        except ProblemError as error:
            if copy is not None and not is_temporary(error):
                copy.is_shared = False
            raise
        if copy is not None:
            copy.etag = etag

    def _put(self, put: _Put, name: str, *, waited: bool = False) -> str:
        shared = self._shared
        ttl = self._ttl if put.expires_at is None else put.expires_at - shared.now()
        stored = shared.client.put_entry(
            shared.namespace, name, shared.seal.close(put.value, self._context(name)),
            content_type=CONTENT_TYPE, ttl_seconds=None if ttl is None else max(ttl, 0.001),
            tags=[self._tag], compute_seconds=put.compute_seconds,
            if_none_match="*" if waited else None,
            timeout=limits.STREAMLIT_SEND_CALL_SECONDS if waited else None)
        shared.figures.stored += 1
        return stored.etag

    def delete(self, key: str) -> None:
        shared = self._shared
        self._drop(key)
        name = self.name(key)
        if not shared.is_paused and not shared.unsent.figures()[0]:
            try:
                shared.client.delete_entry(shared.namespace, name)
                return
            except Exception as error:
                shared.failed(error)
                if not is_temporary(error):
                    return
        shared.unsent.delete(self._tag, name)

    def clear(self) -> None:
        with self._lock:
            self._generation += 1
            self._missed.clear()
        self._shared.copies.drop_all(self)
        self._memory.clear()
        self._shared.clear(self._tag)

    def close(self) -> None:
        self._shared.copies.drop_all(self)
        self._memory.close()

    def forget(self, key: str) -> None:
        """Drops the copy only."""
        self._memory.delete(key)

    def get_stats(self, *arguments: Any) -> Any:
        """What Streamlit's statistics say about the copies in memory."""
        return self._memory.get_stats(*arguments)  # type: ignore[attr-defined]

    @property
    def stats_families(self) -> Any:
        return self._memory.stats_families  # type: ignore[attr-defined]

    def _local(self, key: str) -> bytes | None:
        """The copy, if it has not expired."""
        try:
            value = self._memory.get(key)
        except CacheStorageKeyNotFoundError:
            return None
        copy = self._shared.copies.get(self, key)
        if copy is None or (
            copy.expires_at is not None and self._shared.now() >= copy.expires_at
        ):
            self._memory.delete(key)
            return None
        return value

    def _keep(self, key: str, value: bytes, copy: _Copy, generation: int) -> None:
        with self._lock:
            if generation != self._generation:
                # It was cleared while the value was on its way.
                return
            self._memory.set(key, value)
        self._shared.copies.put(self, key, copy)

    def _drop(self, key: str) -> None:
        with self._lock:
            self._generation += 1
        self._shared.copies.drop(self, key)
        self._memory.delete(key)

    def _context(self, name: str) -> bytes:
        return f"{self._shared.namespace}\0{name}".encode()


class SharedStorages(CacheStorageManager):
    """Makes the storages: shared ones for `persist="disk"`, Streamlit's own for all others."""

    def __init__(self, shared: Shared, own: CacheStorageManager, scope: str = "global") -> None:
        self._shared = shared
        self._own = own
        self._scope = scope

    def create(self, context: CacheStorageContext) -> CacheStorage:
        if context.persist != "disk":
            return self._own.create(context)
        if self._scope != "global":
            # The key of a function is the same for all sessions: one would see, and at its end
            # clear, the values of all others.
            return MemoryCacheStorageManager().create(context)
        return SharedStorage(self._shared, context)

    def clear_all(self) -> None:
        self._shared.copies.clear()
        self._shared.clear("")
        try:
            self._own.clear_all()
        except NotImplementedError:
            pass

    def check_context(self, context: CacheStorageContext) -> None:
        # Streamlit's own warns that a persisted function's `ttl` is ignored. Here it is not.
        if context.persist != "disk":
            self._own.check_context(context)


def function_tag(function_key: str) -> str:
    """The tag of all entries of a function: its key, or a hash of it if that cannot be a tag."""
    if 0 < len(function_key) <= 100 and function_key.isascii() and function_key.isalnum():
        return f"function:{function_key}"
    return f"function:{hashlib.sha256(function_key.encode('utf-8', 'replace')).hexdigest()}"


def _ttl(ttl_seconds: float | None, keep_seconds: float | None) -> float | None:
    if ttl_seconds is None or ttl_seconds == float("inf"):
        return keep_seconds
    return max(ttl_seconds, 0.001)
