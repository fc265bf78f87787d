"""A Django cache backend that keeps its values in Reprise.

    CACHES = {
        "default": {
            "BACKEND": "reprise_client.adapters.django.RepriseCache",
            "LOCATION": "http://127.0.0.1:8080",
        }
    }

| in `OPTIONS` | meaning |
| --- | --- |
| `token` | by default `REPRISE_TOKEN` in the environment |
| `namespace` | by default `django` |
| `serializer` | `"pickle"` (the default), `"json"`, or a class with `dumps` and `loads` |
| `pickle_secret` | by default `REPRISE_PICKLE_SECRET`, then the project's `SECRET_KEY` |
| `call_timeout` | seconds for a call to the service |
| `strict` | raise when the service is gone, instead of a miss |
| `retries`, `max_connections`, `ca_file`, `ssl_context` | those of `Client` |

`TIMEOUT`, `KEY_PREFIX`, `VERSION` and `KEY_FUNCTION` are Django's. `MAX_ENTRIES` and
`CULL_FREQUENCY` have no effect: the policy of the namespace limits it in the service. Without
`LOCATION`, the service is that of `REPRISE_URL`. Needs the extra `reprise-client[django]`.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterable, Mapping
from typing import Any

from ..codecs import JSON_TYPE, Encoded, Undecodable
from ..http.flow import Flow
from ._store import (
    SECRET_VARIABLE,
    Format,
    NotAnInteger,
    Pickled,
    Plain,
    Sealed,
    Store,
    Value,
    dump_json,
    missing_library,
    signer,
    stored_key,
)

try:
    from asgiref.sync import sync_to_async
    from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache
    from django.core.exceptions import ImproperlyConfigured, SynchronousOnlyOperation
    from django.utils.module_loading import import_string
except ImportError as error:
    raise missing_library("Django", "django", error) from error

__all__ = ["RepriseCache"]

_OPTIONS = frozenset({
    "token", "namespace", "serializer", "pickle_secret", "call_timeout", "strict", "retries",
    "max_connections", "ca_file", "ssl_context",
})  # fmt: skip
#: What Django's own backends take there.
_IGNORED = frozenset({"MAX_ENTRIES", "CULL_FREQUENCY"})


class RepriseCache(BaseCache):  # type: ignore[misc]
    """A Django cache in a namespace of Reprise.

    Timeouts are Django's: None never expires, 0 is not stored. `incr` and `decr` are atomic and
    keep the expiry. The `a…` methods use asyncio, no thread. `clear` empties the namespace, with
    all prefixes and versions in it.

    When the service is gone or slow, reads miss, `add`, `touch` and `delete` return False,
    `set_many` returns the keys that it did not store, and `incr` raises `ValueError` as for a key
    that does not exist. `failures` counts these. With `strict` they raise.
    """

    def __init__(self, location: str, params: Mapping[str, Any]) -> None:
        super().__init__(params)
        options = dict(params.get("OPTIONS") or {})
        wrong = sorted(set(options) - _OPTIONS - _IGNORED)
        if wrong:
            raise ImproperlyConfigured(
                f"OPTIONS of {type(self).__name__} has no {', '.join(wrong)}. There are "
                f"{', '.join(sorted(_OPTIONS))}."
            )
        for name in _IGNORED:
            options.pop(name, None)
        serializer = options.pop("serializer", None) or "pickle"
        self._format = _format(serializer, options.pop("pickle_secret", None))
        self._store = Store(options.pop("namespace", None) or "django", url=location or None,
                            **options)

    @property
    def failures(self) -> int:
        """Calls that came to nothing, because of the service or of what it had stored."""
        return self._store.failures

    def get_backend_timeout(self, timeout: Any = DEFAULT_TIMEOUT) -> float | None:
        """Seconds from now; None for ever; 0 or less for what is not stored."""
        seconds = self.default_timeout if timeout == DEFAULT_TIMEOUT else timeout
        return None if seconds is None else float(seconds)

    def _key(self, key: Any, version: Any) -> str:
        return stored_key(str(self.make_and_validate_key(key, version=version)))

    def _encode(self, name: str, value: Any) -> Encoded:
        return self._format.encode(value, self._store.context(name))

    def _decode(self, name: str, value: Value | None, default: Any) -> Any:
        if value is None:
            return default
        try:
            return self._format.decode(value, self._store.context(name))
        except Undecodable as error:
            self._store.failed(error)
            return default

    async def _aencode(self, name: str, value: Any) -> Encoded:
        try:
            return self._encode(name, value)
        except pickle.PicklingError as error:
            if not isinstance(error.__cause__, SynchronousOnlyOperation):
                raise
        # Pickling a query set that was not evaluated asks the database.
        return await sync_to_async(self._encode, thread_sensitive=True)(name, value)

    # Each operation is a flow, which the blocking method and the asyncio method run.

    def _get(self, key: Any, default: Any, version: Any) -> Flow[Any]:
        name = self._key(key, version)
        return self._decode(name, (yield from self._store.read(name)), default)

    def _put(self, name: str, encoded: Encoded, timeout: Any, only_new: bool) -> Flow[bool]:
        seconds = self.get_backend_timeout(timeout)
        return (yield from self._store.write(name, encoded, seconds, only_new=only_new))

    def _touch(self, key: Any, timeout: Any, version: Any) -> Flow[bool]:
        name = self._key(key, version)
        return (yield from self._store.touch(name, self.get_backend_timeout(timeout)))

    def _delete(self, key: Any, version: Any) -> Flow[bool]:
        return bool((yield from self._store.remove(self._key(key, version))))

    def _has(self, key: Any, version: Any) -> Flow[bool]:
        return (yield from self._store.exists(self._key(key, version)))

    def _get_many(self, keys: Iterable[Any], version: Any) -> Flow[dict[Any, Any]]:
        names = {key: self._key(key, version) for key in keys}
        found = yield from self._store.read_many(names.values())
        nothing = object()
        values = {key: self._decode(name, found.get(name), nothing)
                  for key, name in names.items()}
        return {key: value for key, value in values.items() if value is not nothing}

    def _set_many(
        self, names: Mapping[Any, str], encoded: Mapping[str, Encoded], timeout: Any
    ) -> Flow[list[Any]]:
        stored = yield from self._store.write_many(encoded, self.get_backend_timeout(timeout))
        return [key for key, name in names.items() if name not in stored]

    def _delete_many(self, keys: Iterable[Any], version: Any) -> Flow[None]:
        yield from self._store.remove_many([self._key(key, version) for key in keys])

    def _incr(self, key: Any, delta: Any, version: Any) -> Flow[Any]:
        name = self._key(key, version)
        total: Any = None

        def change(value: Value) -> Encoded:
            nonlocal total
            total = self._format.decode(value, self._store.context(name)) + delta
            return self._encode(name, total)

        try:
            try:
                total = yield from self._store.increment(name, delta)
            except NotAnInteger:
                # A float, or an integer beyond 64 bits, or what cannot be added to.
                if not (yield from self._store.change(name, change)):
                    total = None
        except KeyError:
            pass
        except Undecodable as error:
            self._store.failed(error)
        if total is None:
            raise ValueError(f"Key '{key}' not found")
        return total

    # What Django calls.

    def get(self, key: Any, default: Any = None, version: Any = None) -> Any:
        return self._store.run(self._get(key, default, version))

    async def aget(self, key: Any, default: Any = None, version: Any = None) -> Any:
        return await self._store.run_async(self._get(key, default, version))

    def set(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None
    ) -> None:
        name = self._key(key, version)
        self._store.run(self._put(name, self._encode(name, value), timeout, False))

    async def aset(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None
    ) -> None:
        name = self._key(key, version)
        encoded = await self._aencode(name, value)
        await self._store.run_async(self._put(name, encoded, timeout, False))

    def add(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None
    ) -> bool:
        name = self._key(key, version)
        return self._store.run(self._put(name, self._encode(name, value), timeout, True))

    async def aadd(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None
    ) -> bool:
        name = self._key(key, version)
        encoded = await self._aencode(name, value)
        return await self._store.run_async(self._put(name, encoded, timeout, True))

    def touch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> bool:
        return self._store.run(self._touch(key, timeout, version))

    async def atouch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> bool:
        return await self._store.run_async(self._touch(key, timeout, version))

    def delete(self, key: Any, version: Any = None) -> bool:
        return self._store.run(self._delete(key, version))

    async def adelete(self, key: Any, version: Any = None) -> bool:
        return await self._store.run_async(self._delete(key, version))

    def has_key(self, key: Any, version: Any = None) -> bool:
        return self._store.run(self._has(key, version))

    async def ahas_key(self, key: Any, version: Any = None) -> bool:
        return await self._store.run_async(self._has(key, version))

    def get_many(self, keys: Iterable[Any], version: Any = None) -> dict[Any, Any]:
        return self._store.run(self._get_many(keys, version))

    async def aget_many(self, keys: Iterable[Any], version: Any = None) -> dict[Any, Any]:
        return await self._store.run_async(self._get_many(keys, version))

    def set_many(
        self, data: Mapping[Any, Any], timeout: Any = DEFAULT_TIMEOUT, version: Any = None
    ) -> list[Any]:
        names = {key: self._key(key, version) for key in data}
        encoded = {names[key]: self._encode(names[key], value) for key, value in data.items()}
        return self._store.run(self._set_many(names, encoded, timeout))

    async def aset_many(
        self, data: Mapping[Any, Any], timeout: Any = DEFAULT_TIMEOUT, version: Any = None
    ) -> list[Any]:
        names = {key: self._key(key, version) for key in data}
        encoded = {names[key]: await self._aencode(names[key], value)
                   for key, value in data.items()}
        return await self._store.run_async(self._set_many(names, encoded, timeout))

    def delete_many(self, keys: Iterable[Any], version: Any = None) -> None:
        self._store.run(self._delete_many(keys, version))

    async def adelete_many(self, keys: Iterable[Any], version: Any = None) -> None:
        await self._store.run_async(self._delete_many(keys, version))

    def incr(self, key: Any, delta: Any = 1, version: Any = None) -> Any:
        return self._store.run(self._incr(key, delta, version))

    async def aincr(self, key: Any, delta: Any = 1, version: Any = None) -> Any:
        return await self._store.run_async(self._incr(key, delta, version))

    async def adecr(self, key: Any, delta: Any = 1, version: Any = None) -> Any:
        return await self.aincr(key, -delta, version=version)

    def clear(self) -> bool:
        return self._store.run(self._store.clear())

    async def aclear(self) -> bool:
        return await self._store.run_async(self._store.clear())


def _format(serializer: Any, secret: bytes | str | None) -> Format:
    if serializer == "json":
        import json

        return Plain(dump_json, json.loads, JSON_TYPE)
    if not secret and not os.environ.get(SECRET_VARIABLE):
        from django.conf import settings

        secret = settings.SECRET_KEY
    signing = signer(
        secret, "Django's cache",
        'set SECRET_KEY or OPTIONS["pickle_secret"], or choose JSON with '
        'OPTIONS["serializer"] = "json".')
    if serializer == "pickle":
        return Pickled(signing)
    if isinstance(serializer, str):
        serializer = import_string(serializer)
    if callable(serializer):
        serializer = serializer()
    return Sealed(signing, serializer.dumps, serializer.loads)
