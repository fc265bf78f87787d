"""A dogpile.cache backend that keeps its values, and its locks, in Reprise.

    region = make_region().configure("reprise", arguments={
        "url": "http://127.0.0.1:8080",
        "pickle_secret": os.environ["REPRISE_PICKLE_SECRET"],
    })

The backend is found by the name `reprise` where the package is installed; `register()` does the
same by hand. Needs the extra `reprise-client[dogpile]`.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import random
import secrets
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .. import limits
from ..codecs import BYTES_TYPE, Undecodable
from ..errors import NotFound, PreconditionFailed, RepriseError, TransportError
from ._store import (
    Format,
    Plain,
    Sealed,
    Store,
    Value,
    missing_library,
    signer,
    stored_key,
)

try:
    from dogpile.cache import register_backend
    from dogpile.cache.api import NO_VALUE, BytesBackend, CacheMutex, CantDeserializeException
except ImportError as error:
    raise missing_library("dogpile.cache", "dogpile", error) from error

__all__ = ["RepriseBackend", "register"]

log = logging.getLogger("reprise_client")


def register(name: str = "reprise") -> None:
    """Makes the backend known to dogpile.cache under a name."""
    register_backend(name, __name__, "RepriseBackend")  # type: ignore[no-untyped-call]


def _same(value: Any) -> Any:
    return value


class RepriseBackend(BytesBackend):
    """The backend. What a region's serializer writes is signed, together with its metadata.

    When the service is gone or slow, reads miss and writes are left out; `failures` counts these.
    """

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        """`arguments`, all optional:

        `url`, `token`: by default `REPRISE_URL` and `REPRISE_TOKEN`.
        `namespace`: of the values; by default `dogpile`.
        `pickle_secret`: at least 16 bytes; by default `REPRISE_PICKLE_SECRET`.
        `serializer`: "pickle" (the default), or "json": then nothing is signed, and a region must
        not be given a serializer that pickles.
        `ttl_seconds`: after which the service forgets a value; by default never. It should be
        more than the region's expiration time.
        `distributed_lock`: whether creation is locked across processes; True by default.
        `lock_timeout`: seconds after which a lock is free although nobody released it, and after
        which a waiter goes on without it; 60 by default.
        `lock_sleep`: seconds between two attempts to take a lock, at most; 0.1 by default.
        `lock_namespace`: by default the namespace followed by `:locks`.
        `call_timeout`: seconds for a call to the service.
        `strict`: raise when the service is gone.
        `client`: a `Client` to use instead of `url` and `token`.
        """
        given = arguments.get
        self._store = Store(
            str(given("namespace") or "dogpile"), client=given("client"),
            call_timeout=given("call_timeout"), strict=bool(given("strict", False)),
            url=given("url"), token=given("token"))
        self._ttl: float | None = given("ttl_seconds")
        if self._ttl is not None and not self._ttl > 0:
            raise ValueError(f"ttl_seconds must be more than 0 or None, not {self._ttl}")
        serializer = given("serializer") or "pickle"
        self._format: Format
        if serializer == "json":
            self._format = Plain(_same, _same, BYTES_TYPE)
            self.serializer = _dump_json
            self.deserializer = _load_json
        elif serializer == "pickle":
            self._format = Sealed(signer(
                given("pickle_secret"), "dogpile.cache",
                'set arguments["pickle_secret"], or choose JSON with '
                'arguments["serializer"] = "json".'), _same, _same)
            self.serializer = _dump_pickle
            self.deserializer = _load_pickle
        else:
            raise ValueError(f'serializer is "pickle" or "json", not {serializer!r}')
        self._locks: Store | None = None
        if given("distributed_lock", True):
            self._locks = self._store.beside(
                str(given("lock_namespace") or f"{self._store.namespace}:locks"))
        timeout, sleep = given("lock_timeout"), given("lock_sleep")
        self._lock_timeout = limits.MUTEX_SECONDS if timeout is None else float(timeout)
        self._lock_sleep = limits.MAX_LOCK_RETRY_SECONDS if sleep is None else float(sleep)
        if not self._lock_timeout > 0 or not self._lock_sleep > 0:
            raise ValueError("lock_timeout and lock_sleep must be more than 0 seconds")

    @property
    def failures(self) -> int:
        """Calls that came to nothing, because of the service or of what it had stored."""
        return self._store.failures + (self._locks.failures if self._locks else 0)

    def has_lock_timeout(self) -> bool:
        """True: a creator that takes longer than `lock_timeout` loses its lock."""
        return self._locks is not None

    def get_mutex(self, key: str) -> CacheMutex | None:
        """A lock for the creation of a key's value, in all processes; None without
        `distributed_lock`."""
        if self._locks is None:
            return None
        return _Mutex(self._locks, stored_key(key), self._lock_timeout, self._lock_sleep)

    def get_serialized(self, key: str) -> Any:
        """The bytes, or `NO_VALUE`."""
        name = stored_key(key)
        return self._decode(name, self._store.run(self._store.read(name)))

    def get_serialized_multi(self, keys: Iterable[str]) -> Sequence[Any]:
        """The bytes in order, `NO_VALUE` for each that misses."""
        names = [stored_key(key) for key in keys]
        found = self._store.run(self._store.read_many(names))
        return [self._decode(name, found.get(name)) for name in names]

    def set_serialized(self, key: str, value: bytes) -> None:
        """Stores bytes."""
        name = stored_key(key)
        encoded = self._format.encode(value, self._store.context(name))
        self._store.run(self._store.write(name, encoded, self._ttl))

    def set_serialized_multi(self, mapping: Mapping[str, bytes]) -> None:
        """Stores bytes under several keys."""
        encoded = {}
        for key, value in mapping.items():
            name = stored_key(key)
            encoded[name] = self._format.encode(value, self._store.context(name))
        self._store.run(self._store.write_many(encoded, self._ttl))

    def delete(self, key: str) -> None:
        """Removes a value, if there is one."""
        self._store.run(self._store.remove(stored_key(key)))

    def delete_multi(self, keys: Iterable[str]) -> None:
        """Removes values, those that there are."""
        self._store.run(self._store.remove_many([stored_key(key) for key in keys]))

    def _decode(self, name: str, value: Value | None) -> Any:
        if value is None:
            return NO_VALUE
        try:
            return self._format.decode(value, self._store.context(name))
        except Undecodable as error:
            self._store.failed(error)
            return NO_VALUE


def _dump_pickle(value: Any) -> bytes:
    return pickle.dumps(value, protocol=5)


def _load_pickle(value: bytes) -> Any:
    # Only what the backend's signature was right for comes here.
    try:
        return pickle.loads(value)
    except Exception as error:
        raise CantDeserializeException(str(error)) from error


def _dump_json(value: Any) -> bytes:
    return json.dumps(value).encode("ascii")


def _load_json(value: bytes) -> Any:
    try:
        return json.loads(value)
    except ValueError as error:
        raise CantDeserializeException(str(error)) from error


class _Mutex(CacheMutex):
    """A lock that all processes share: an entry that only one of them can add.

    The entry has a random token, so that nobody removes a lock that somebody else took over after
    its time. Threads that share this object first take a lock of the process. If the service is
    gone, that one is all there is, and the app goes on.
    """

    def __init__(self, store: Store, key: str, timeout: float, sleep: float) -> None:
        self._store = store
        self._key = key
        self._timeout = timeout
        self._sleep = sleep
        self._reset()

    def _reset(self) -> None:
        self._process = os.getpid()
        self._local = threading.Lock()
        #: What the entry has while this object holds the lock, and its entity tag, "" if the
        #: answer that had it did not arrive.
        self._held: tuple[bytes, str] | None = None

    def _here(self) -> threading.Lock:
        if self._process != os.getpid():
            # A forked child does not hold what its parent holds, and no thread of the parent
            # will release it here.
            self._reset()
        return self._local

    def acquire(self, wait: bool = True) -> bool:
        """Takes the lock. Without `wait`, False at once if another has it.

        A waiter goes on without the lock after `lock_timeout`, and when the service is gone.
        """
        if not self._here().acquire(blocking=wait):
            return False
        try:
            if self._take(wait):
                return True
        except BaseException:
            self._local.release()
            raise
        self._local.release()
        return False

    def _take(self, wait: bool) -> bool:
        token = secrets.token_hex(16).encode("ascii")
        until = time.monotonic() + self._timeout
        pause = min(limits.LOCK_RETRY_SECONDS, self._sleep)
        while True:
            try:
                stored = self._store.client.put_entry(
                    self._store.namespace, self._key, token, content_type="text/plain",
                    ttl_seconds=self._timeout, if_none_match="*")
            except PreconditionFailed:
                if not wait:
                    return False
            except RepriseError as error:
                is_unclear = isinstance(error, TransportError) and error.sent
                self._held = (token, "") if is_unclear else None
                self._store.failed(error)
                return True
            else:
                self._held = (token, stored.etag)
                return True
            left = until - time.monotonic()
            if left <= 0:
                log.warning("the lock for %s is taken since %g s; going on without it",
                            self._key, self._timeout)
                self._held = None
                return True
            time.sleep(min(left, pause * random.uniform(0.5, 1.0)))
            pause = min(pause * 1.5, self._sleep)

    def release(self) -> None:
        """Gives the lock back. `RuntimeError` if it is not taken."""
        local = self._here()
        held, self._held = self._held, None
        try:
            if held is not None:
                self._give_back(*held)
        finally:
            local.release()

    def _give_back(self, token: bytes, etag: str) -> None:
        client, namespace = self._store.client, self._store.namespace
        try:
            if not etag:
                entry = client.get_entry(namespace, self._key)
                if entry.body != token:
                    return
                etag = entry.etag
            client.delete_entry(namespace, self._key, if_match=etag)
        except (NotFound, PreconditionFailed):
            # Its time was over, and somebody else may have it now.
            log.debug("the lock for %s was lost before it was released", self._key)
        except RepriseError as error:
            self._store.failed(error)

    def locked(self) -> bool:
        """Whether this process or another has the lock."""
        return self._here().locked() or self._store.run(self._store.exists(self._key))
