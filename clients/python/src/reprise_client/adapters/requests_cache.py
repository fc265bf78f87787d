"""A requests-cache backend that keeps responses in Reprise.

    from reprise_client.adapters.requests_cache import RepriseCache

    session = requests_cache.CachedSession(backend=RepriseCache(
        "github", url="http://127.0.0.1:8080", serializer="json"))

Needs the extra `reprise-client[requests]`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Any

from .. import limits
from ..client import Client
from ..codecs import BYTES_TYPE, JSON_TYPE, PICKLE_TYPE, Encoded, Undecodable
from ._store import (
    HASHED,
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
    from requests_cache.backends.base import BaseCache, BaseStorage
    from requests_cache.serializers import SerializerPipeline, pickle_serializer, utf8_encoder
except ImportError as error:
    raise missing_library("requests-cache", "requests", error) from error

__all__ = ["RepriseCache", "RepriseDict"]

#: Seconds for which the service keeps a response after it expired, so that it can be revalidated.
TTL_OFFSET = 3600
#: The serializers of requests-cache that read nothing but data, with what they write. The last
#: one has its own signature.
_PLAIN = {
    "json": JSON_TYPE, "ujson": JSON_TYPE, "orjson": JSON_TYPE, "utf8": "text/plain; charset=utf-8",
    "yaml": "application/yaml", "bson": "application/bson", "safe_pickle": BYTES_TYPE,
}  # fmt: skip
#: For redirects, which are keys of responses. The library has it since its version 1.3.
_UTF8 = SerializerPipeline([utf8_encoder], name="utf8", is_binary=True)
#: A value that is preceded by its key, because the stored key is a hash.
_NAMED_TYPE = "application/vnd.reprise.named-value"


class RepriseCache(BaseCache):
    """A cache of responses and redirects, in two namespaces of Reprise.

    When the service is gone or slow, nothing is found and nothing is saved, and requests are sent
    as without a cache. `failures` counts these. With `strict` they raise.
    """

    def __init__(
        self,
        cache_name: str = "http_cache",
        *,
        url: str | None = None,
        token: str | None = None,
        serializer: Any = None,
        pickle_secret: bytes | str | None = None,
        ttl: bool = True,
        ttl_offset: float = TTL_OFFSET,
        strict: bool = False,
        call_timeout: float | None = None,
        client: Client | None = None,
        **options: Any,
    ) -> None:
        """`cache_name` is the namespace of the responses; redirects are in
        `<cache_name>:redirects`.

        `serializer` is that of requests-cache, pickle by default. What can run code when it is
        read is signed with `pickle_secret`, by default `REPRISE_PICKLE_SECRET`. With `ttl`, the
        service forgets a response `ttl_offset` seconds after it expired. `call_timeout` is in
        seconds, for each call to the service. Other options are those of requests-cache.
        """
        super().__init__(cache_name=cache_name, **options)
        reach: dict[str, Any] = {
            "url": url, "token": token, "strict": strict, "call_timeout": call_timeout,
            "client": client,
        }
        self.responses = RepriseDict(
            cache_name, serializer=serializer, pickle_secret=pickle_secret, ttl=ttl,
            ttl_offset=ttl_offset, **reach, **options)
        self.redirects = RepriseDict(
            cache_name, "redirects", serializer=_UTF8, **reach, **options)

    @property
    def failures(self) -> int:
        """Calls that came to nothing, because of the service or of what it had stored."""
        storages: tuple[Any, Any] = (self.responses, self.redirects)
        return sum(storage.failures for storage in storages)


class RepriseDict(BaseStorage[str, Any]):
    """One namespace as a mapping: `namespace`, or `namespace:collection_name`."""

    def __init__(
        self,
        namespace: str,
        collection_name: str | None = None,
        *,
        url: str | None = None,
        token: str | None = None,
        serializer: Any = None,
        pickle_secret: bytes | str | None = None,
        ttl: bool = True,
        ttl_offset: float = TTL_OFFSET,
        strict: bool = False,
        call_timeout: float | None = None,
        client: Client | None = None,
        **options: Any,
    ) -> None:
        super().__init__(serializer=serializer or pickle_serializer, **options)
        name = f"{namespace}:{collection_name}" if collection_name else str(namespace)
        self._store = Store(name, client=client, call_timeout=call_timeout, strict=strict,
                            url=url, token=token)
        self.ttl = ttl
        self.ttl_offset = ttl_offset
        self._format: Format
        pipeline: Any = self.serializer
        if pipeline.name in _PLAIN:
            self._format = Plain(pipeline.dumps, pipeline.loads, _PLAIN[pipeline.name],
                                 is_text=not pipeline.is_binary)
        else:
            self._format = Sealed(
                signer(pickle_secret, "requests-cache",
                       'set pickle_secret=, or choose JSON with serializer="json".'),
                pipeline.dumps, pipeline.loads)

    @property
    def failures(self) -> int:
        """Calls that came to nothing, because of the service or of what it had stored."""
        return self._store.failures

    def __getitem__(self, key: str) -> Any:
        name = stored_key(key)
        value = self._store.run(self._store.read(name))
        if value is None:
            raise KeyError(key)
        return self._load(name, value)[1]

    def __setitem__(self, key: str, item: Any) -> None:
        name = stored_key(key)
        encoded = self._format.encode(item, self._store.context(name))
        if name.startswith(HASHED):
            raw = key.encode("utf-8", "surrogatepass")
            body = b"".join((struct.pack(">I", len(raw)), raw, encoded.body))
            encoded = Encoded(body, _NAMED_TYPE)
        self._store.run(self._store.write(name, encoded, self._ttl(item)))

    def _ttl(self, item: Any) -> float | None:
        left = getattr(item, "expires_delta", None)
        if not self.ttl or left is None:
            return None
        seconds = float(left) + self.ttl_offset
        return seconds if seconds > 0 else None

    def __delitem__(self, key: str) -> None:
        if not self._store.run(self._store.remove(stored_key(key))):
            raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._store.run(self._store.exists(stored_key(key)))

    def __len__(self) -> int:
        return self._store.run(self._store.count())

    def __iter__(self) -> Iterator[str]:
        for page in self._pages():
            hashed = [name for name, _ in page if name.startswith(HASHED)]
            found = self._store.run(self._store.read_many(hashed)) if hashed else {}
            for name, _ in page:
                if not name.startswith(HASHED):
                    yield name
                elif name in found:
                    yield self._load(name, found[name], key_only=True)[0]

    def keys(self) -> Any:
        """The keys, page by page."""
        return iter(self)

    def items(self) -> Any:
        """The keys with their values, page by page."""
        for page in self._pages():
            for names in _portions(page):
                found = self._store.run(self._store.read_many(names))
                for name in names:
                    if name in found:
                        yield self._load(name, found[name])

    def values(self) -> Any:
        """The values, page by page."""
        for _, value in self.items():
            yield value

    def bulk_delete(self, keys: Iterable[str]) -> None:
        """Removes several values; those that are not there do not matter."""
        self._store.run(self._store.remove_many([stored_key(key) for key in keys]))

    def clear(self) -> None:
        """Removes all values."""
        self._store.run(self._store.clear())

    def close(self) -> None:
        """Closes idle connections. The storage can be used again."""
        self._store.client.close()

    def _pages(self) -> Iterator[list[tuple[str, int]]]:
        cursor = None
        while True:
            page, cursor = self._store.run(self._store.page(cursor))
            yield page
            if cursor is None:
                return

    def _load(self, name: str, value: Value, *, key_only: bool = False) -> tuple[str, Any]:
        """The key and the value; None for a value that cannot be read, as in requests-cache."""
        key = name
        if name.startswith(HASHED):
            try:
                (size,) = struct.unpack_from(">I", value.body)
                key = value.body[4 : 4 + size].decode("utf-8", "surrogatepass")
            except (struct.error, UnicodeDecodeError):
                return name, None
            kind = (self._format.content_type if isinstance(self._format, Plain)
                    else PICKLE_TYPE)
            value = Value(value.body[4 + size :], kind, value.etag)
        if key_only:
            return key, None
        try:
            item = self._format.decode(value, self._store.context(name))
        except Undecodable as error:
            self._store.failed(error)
            return key, None
        try:
            item.cache_key = key
        except AttributeError:
            pass
        return key, item


def _portions(page: list[tuple[str, int]]) -> Iterator[list[str]]:
    """Names whose values fit into one answer."""
    names: list[str] = []
    total = 0
    for name, size in page:
        if names and total + size > limits.ADAPTER_PAGE_BYTES:
            yield names
            names, total = [], 0
        names.append(name)
        total += size
    if names:
        yield names
