"""A cachelib backend that keeps its values in Reprise.

    from reprise_client.adapters.cachelib import RepriseCache

    cache = RepriseCache("http://127.0.0.1:8080", pickle_secret=os.environ["REPRISE_PICKLE_SECRET"])

Needs the extra `reprise-client[cachelib]`.
"""

from __future__ import annotations

import datetime
import threading
from collections.abc import Callable, Mapping
from typing import Any, Union

from ..client import Client
from ..codecs import JSON_TYPE, PICKLE_TYPE, Undecodable
from ._store import (
    Format,
    NotAnInteger,
    Pickled,
    Plain,
    Sealed,
    Store,
    Value,
    checked_prefix,
    missing_library,
    signer,
    stored_key,
)

try:
    from cachelib import serializers
    from cachelib.base import BaseCache
    from cachelib.serializers import BaseSerializer
except ImportError as error:
    raise missing_library("cachelib", "cachelib", error) from error

#: None before cachelib 0.14.
_JSON: Any = getattr(serializers, "JSONSerializer", None)

__all__ = ["RepriseCache", "SignedPickleSerializer"]

Timeout = Union[int, float, datetime.timedelta, None]

_HOW = "set pickle_secret=, or choose JSON with serializer=\"json\"."


class SignedPickleSerializer(BaseSerializer):
    """The default serializer: pickles with a signature.

    `RepriseCache` also binds each signature to the namespace and key of its value.
    """

    def __init__(self, secret: bytes | str | None = None) -> None:
        """`secret` has at least 16 bytes; by default it is `REPRISE_PICKLE_SECRET`."""
        self.signer = signer(secret, "cachelib", _HOW)

    def dumps(self, value: Any, *arguments: Any, **options: Any) -> bytes:
        return bytes(self.signer.encode(value).body)

    def loads(self, bvalue: Any, *arguments: Any, **options: Any) -> Any:
        try:
            return self.signer.decode(bvalue, PICKLE_TYPE)
        except Undecodable as error:
            self._warn(error)
            return None


class _JsonSerializer(BaseSerializer):
    """JSON for versions of cachelib that have no serializer for it."""

    def dumps(self, value: Any, *arguments: Any, **options: Any) -> bytes | None:
        import json

        try:
            return json.dumps(value).encode("ascii")
        except (TypeError, ValueError) as error:
            self._warn(error)
            return None

    def loads(self, bvalue: Any, *arguments: Any, **options: Any) -> Any:
        import json

        try:
            return json.loads(bvalue)
        except ValueError as error:
            self._warn(error)
            return None


class RepriseCache(BaseCache):
    """A `cachelib.BaseCache` in a namespace of Reprise.

    Timeouts are those of cachelib: None is `default_timeout`, 0 never expires. `inc` and `dec`
    are atomic, and keep the expiry of a counter that exists.

    When the service is gone or slow, `get` and `has` miss, `set`, `add`, `delete` and `clear`
    return False, `inc` and `dec` None, and `set_many` and `delete_many` leave out the key.
    `failures` counts these. With `strict` they raise.
    """

    #: Turns values into bytes; another one may be assigned. What is not JSON is signed.
    serializer: Any = None

    def __init__(
        self,
        url: str | None = None,
        *,
        namespace: str = "cachelib",
        default_timeout: int | datetime.timedelta = 300,
        key_prefix: str | Callable[[], str] | None = None,
        pickle_secret: bytes | str | None = None,
        serializer: Any = None,
        ignore_delete_many_errors: bool = True,
        strict: bool = False,
        call_timeout: float | None = None,
        client: Client | None = None,
        **options: Any,
    ) -> None:
        """`url` is by default `REPRISE_URL`, `pickle_secret` `REPRISE_PICKLE_SECRET`.

        `serializer` is "pickle" (the default, needs a secret), "json" or a serializer of
        cachelib; one that is not for JSON needs a secret too. `call_timeout` is in seconds, for
        each call to the service. Further options are those of `Client`, such as `token`.
        """
        BaseCache.__init__(self, _seconds(default_timeout))
        self.ignore_delete_many_errors = ignore_delete_many_errors
        self.key_prefix = key_prefix or ""
        if isinstance(self.key_prefix, str):
            checked_prefix(self.key_prefix)
        self._store = Store(namespace, client=client, call_timeout=call_timeout, strict=strict,
                            url=url, **options)
        self._secret = pickle_secret
        if serializer is None or serializer == "pickle":
            if serializer or self.serializer is None:
                serializer = SignedPickleSerializer(pickle_secret)
        elif serializer == "json":
            serializer = (_JSON or _JsonSerializer)()
        elif isinstance(serializer, str):
            raise ValueError(
                f'serializer is "pickle", "json" or a serializer of cachelib, not {serializer!r}.'
            )
        if serializer is not None:
            self.serializer = serializer
        self._turns = threading.Lock()
        self._formats: tuple[Any, Format] | None = None
        self._format()

    @property
    def failures(self) -> int:
        """Calls that came to nothing, because of the service or of what it had stored."""
        return self._store.failures

    # How values are written.

    def _format(self) -> Format:
        serializer = self.serializer
        known = self._formats
        if known is None or known[0] is not serializer:
            known = self._formats = (serializer, self._format_of(serializer))
        return known[1]

    def _format_of(self, serializer: Any) -> Format:
        if isinstance(serializer, SignedPickleSerializer):
            return Pickled(serializer.signer)
        json_kinds = tuple(kind for kind in (_JSON, _JsonSerializer) if kind)
        loads = type(serializer).loads
        if isinstance(serializer, json_kinds) and loads in [kind.loads for kind in json_kinds]:
            return Plain(serializer.dumps, serializer.loads, JSON_TYPE)
        pickle = signer(self._secret, "A serializer that is not for JSON possibly", _HOW)
        return Sealed(pickle, serializer.dumps, serializer.loads)

    def _encode(self, key: str, value: Any) -> Any:
        """None for what the serializer refuses."""
        encoded = self._format().encode(value, self._store.context(key))
        return None if encoded.body is None else encoded

    def _decode(self, key: str, value: Value | None) -> Any:
        if value is None:
            return None
        try:
            return self._format().decode(value, self._store.context(key))
        except Undecodable as error:
            self._store.failed(error)
            return None

    def _prefix(self) -> str:
        prefix = self.key_prefix
        return prefix if isinstance(prefix, str) else checked_prefix(prefix())

    def _key(self, key: Any) -> str:
        return stored_key(f"{key}", self._prefix())

    def _ttl(self, timeout: Timeout) -> float | None:
        seconds = self.default_timeout if timeout is None else _seconds(timeout)
        return None if seconds == 0 else seconds

    # What cachelib calls.

    def get(self, key: str) -> Any:
        """The value, or None."""
        name = self._key(key)
        return self._decode(name, self._store.run(self._store.read(name)))

    def get_many(self, *keys: str) -> list[Any]:
        """The values in order, None for each that misses."""
        names = [self._key(key) for key in keys]
        found = self._store.run(self._store.read_many(names))
        return [self._decode(name, found.get(name)) for name in names]

    def set(self, key: str, value: Any, timeout: Timeout = None) -> bool:
        """Stores a value; whether it is stored."""
        return self._put(key, value, timeout, only_new=False)

    def add(self, key: str, value: Any, timeout: Timeout = None) -> bool:
        """Stores a value unless there is one; whether it is stored."""
        return self._put(key, value, timeout, only_new=True)

    def _put(self, key: str, value: Any, timeout: Timeout, only_new: bool) -> bool:
        name = self._key(key)
        encoded = self._encode(name, value)
        if encoded is None:
            return False
        return self._store.run(
            self._store.write(name, encoded, self._ttl(timeout), only_new=only_new))

    def set_many(self, mapping: Mapping[str, Any], timeout: Timeout = None) -> list[Any]:
        """Stores values; the keys of those that are stored."""
        names = {key: self._key(key) for key in mapping}
        encoded = {}
        for key, value in mapping.items():
            body = self._encode(names[key], value)
            if body is not None:
                encoded[names[key]] = body
        stored = self._store.run(self._store.write_many(encoded, self._ttl(timeout)))
        return [key for key, name in names.items() if name in stored]

    def delete(self, key: str) -> bool:
        """Removes a value; whether there was one."""
        return bool(self._store.run(self._store.remove(self._key(key))))

    def delete_many(self, *keys: str) -> list[Any]:
        """Removes values; the keys that have none now.

        With `ignore_delete_many_errors=False`, `RuntimeError` if others remain.
        """
        names = [self._key(key) for key in keys]
        gone = self._store.run(self._store.remove_many(names))
        deleted = [key for key, name in zip(keys, names) if name in gone]
        if not self.ignore_delete_many_errors and len(deleted) != len(keys):
            failed = [key for key, name in zip(keys, names) if name not in gone]
            raise RuntimeError(f"Failed to delete keys: {failed}")
        return deleted

    def has(self, key: str) -> bool:
        """Whether there is a value. It is not transferred."""
        return self._store.run(self._store.exists(self._key(key)))

    def clear(self) -> bool:
        """Removes all values of the namespace, or those with the key prefix if there is one."""
        return self._store.run(self._store.clear(self._prefix()))

    def inc(self, key: str, delta: int = 1) -> Any:
        """Adds to a number, which is 0 if there is none; the new one, None on failure."""
        name = self._key(key)
        zero = self._encode(name, 0)
        try:
            return self._store.run(self._store.increment(
                name, delta, start=zero, ttl=self._ttl(None)))
        except NotAnInteger:
            return self._add_here(name, delta)

    def dec(self, key: str, delta: int = 1) -> Any:
        """Subtracts from a number, as `inc` adds."""
        return self.inc(key, -delta)

    def _add_here(self, name: str, delta: Any) -> Any:
        """Adds to what the service cannot count with, such as a float or a signed number."""
        total: Any = None

        def change(value: Value) -> Any:
            nonlocal total
            total = (self._decode(name, value) or 0) + delta
            return self._encode(name, total)

        # Threads take turns, so that they do not have to try again because of each other. The
        # turn is a courtesy: after its time, or in a child forked meanwhile, one goes on without.
        is_turn = self._turns.acquire(timeout=self._store.client.timeout)
        try:
            return total if self._store.run(self._store.change(name, change)) else None
        except KeyError:
            # There was none, or it expired just now.
            encoded = self._encode(name, delta)
            added = self._store.run(
                self._store.write(name, encoded, self._ttl(None), only_new=True))
            return delta if added else None
        finally:
            if is_turn:
                self._turns.release()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._store.client.url!r}, {self._store.namespace!r})"


def _seconds(timeout: int | float | datetime.timedelta) -> Any:
    return timeout.total_seconds() if isinstance(timeout, datetime.timedelta) else timeout
