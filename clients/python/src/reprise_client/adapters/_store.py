"""What the adapters share: one namespace of the cache as a store of bytes that does not fail.

`Store` speaks to the service. Its methods are flows, so that an adapter can run each of them
blocking or under asyncio. When the service does not answer, or refuses, they return what a miss
returns and count a failure; with `strict` they raise.

The formats turn values of the app into bytes. What can run code when it is read is signed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar

from .. import limits
from ..client import AsyncClient, Client
from ..codecs import JSON_TYPE, PICKLE_TYPE, Encoded, SignedPickle, Undecodable, Unencodable
from ..errors import (
    Conflict,
    NotFound,
    PreconditionFailed,
    ProblemError,
    RepriseError,
    problem_error,
)
from ..http.flow import Call, Flow, part
from ..models import OperationResult
from ..operations import Operations

T = TypeVar("T")

log = logging.getLogger("reprise_client")

#: The environment variable with the secret for pickles.
SECRET_VARIABLE = "REPRISE_PICKLE_SECRET"
#: Starts the stored key of a key that the service does not take as it is. A key of the app that
#: starts with it is hashed as well, so that no two keys share a stored key.
HASHED = "~sha256:"

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_NAMESPACE = re.compile(r"[A-Za-z0-9._~:-]{1,128}")
#: Added to what is signed: a value of the app, and bytes that a serializer made.
_VALUE, _BYTES = b"value", b"bytes"


class NotAnInteger(Exception):
    """The service cannot add to the stored value, or the sum does not have 64 bits."""


class MissingSecret(ValueError):
    """A backend that pickles needs a secret, and none was given."""


def missing_library(library: str, extra: str, error: ImportError) -> ImportError:
    """The error for an adapter whose library is not installed, or too old."""
    if isinstance(error, ModuleNotFoundError):
        return ImportError(
            f"{library} is not installed. Install it with: pip install 'reprise-client[{extra}]'"
        )
    return ImportError(
        f"This version of {library} does not fit ({error}). Upgrade it with: "
        f"pip install --upgrade 'reprise-client[{extra}]'"
    )


# Keys.


def stored_key(key: str, prefix: str = "") -> str:
    """The key under which the service keeps a key of the app.

    It is the key itself. If that is empty, longer than the service takes, or has control
    characters or halves of surrogate pairs, it is `~sha256:` and the SHA-256 of its UTF-8.
    """
    full = prefix + key
    if key and not key.startswith(HASHED) and not _CONTROL.search(full):
        if full.isascii():
            if len(full) <= limits.MAX_ENTRY_KEY_BYTES:
                return full
        else:
            try:
                if len(full.encode("utf-8")) <= limits.MAX_ENTRY_KEY_BYTES:
                    return full
            except UnicodeEncodeError:
                pass
    content = key.encode("utf-8", "surrogatepass")
    return f"{prefix}{HASHED}{hashlib.sha256(content).hexdigest()}"


def checked_prefix(prefix: str) -> str:
    """A prefix that can stand before every stored key."""
    size = len(prefix.encode("utf-8"))
    if size > limits.MAX_KEY_PREFIX_BYTES or _CONTROL.search(prefix):
        raise ValueError(
            f"A key prefix has at most {limits.MAX_KEY_PREFIX_BYTES} bytes and no control "
            f"characters, unlike {prefix!r:.80}."
        )
    return prefix


def checked_namespace(namespace: str) -> str:
    """A namespace that the service takes."""
    if not _NAMESPACE.fullmatch(namespace) or namespace in (".", ".."):
        raise ValueError(
            "A namespace has 1 to 128 letters, digits and . _ ~ : - (not only . or ..), "
            f"unlike {namespace!r:.150}."
        )
    return namespace


# Values.


class Value(NamedTuple):
    """A stored value."""

    body: bytes
    content_type: str
    etag: str


class Format(Protocol):
    """Turns values of the app into bytes and back.

    `context` is the value's place, to which a signature binds it.
    """

    def encode(self, value: Any, context: bytes) -> Encoded:
        """Raises what the serializer raises for values that it cannot write."""
        ...

    def decode(self, value: Value, context: bytes) -> Any:
        """Raises `Undecodable` for what it cannot or may not read."""
        ...


def signer(secret: bytes | str | None, library: str, how: str) -> SignedPickle:
    """What signs pickles. `how` says how to set a secret or how to choose JSON."""
    secret = secret or os.environ.get(SECRET_VARIABLE) or None
    if secret is None:
        raise MissingSecret(
            f"{library} pickles values, and whoever can write to the cache could run code in "
            "this app when a pickle is read. So pickles are signed with a secret of the app: "
            f"{how} The secret has at least 16 bytes and is the same in all processes of the "
            f"app; {SECRET_VARIABLE} in the environment sets it too. Make one with "
            "secrets.token_hex(32)."
        )
    return SignedPickle(secret)


def _integer(value: Value) -> int:
    try:
        return int(value.body)
    except ValueError:
        raise Undecodable("The stored JSON is not an integer.") from None


def is_integer(value: object) -> bool:
    """Whether the service can count with the value."""
    return type(value) is int and -(1 << 63) <= value < 1 << 63


class Pickled:
    """Integers of 64 bits as JSON, so that the service can add to them; all others as pickles
    with a signature."""

    def __init__(self, pickle: SignedPickle) -> None:
        self._pickle = pickle

    def encode(self, value: Any, context: bytes) -> Encoded:
        if is_integer(value):
            return Encoded(b"%d" % value, JSON_TYPE)
        try:
            return self._pickle.encode(value, context=_VALUE + context)
        except Unencodable as error:
            raise pickling_error(error) from error.__cause__

    def decode(self, value: Value, context: bytes) -> Any:
        if value.content_type == JSON_TYPE:
            return _integer(value)
        return self._pickle.decode(value.body, value.content_type, context=_VALUE + context)


def pickling_error(error: Unencodable) -> Exception:
    """What libraries expect for a value that cannot be pickled: a `PickleError`."""
    import pickle

    cause = error.__cause__
    return cause if isinstance(cause, pickle.PickleError) else pickle.PicklingError(str(error))


class Sealed:
    """What a serializer of the app writes, with a signature: it may run code when it is read."""

    def __init__(
        self, pickle: SignedPickle, dumps: Callable[[Any], Any], loads: Callable[[Any], Any]
    ) -> None:
        self._pickle = pickle
        self._dumps = dumps
        self._loads = loads

    def encode(self, value: Any, context: bytes) -> Encoded:
        return self._pickle.encode(self._dumps(value), context=_BYTES + context)

    def decode(self, value: Value, context: bytes) -> Any:
        # Counters are never read without a signature either: the service did not sign them.
        raw = self._pickle.decode(value.body, value.content_type, context=_BYTES + context)
        try:
            return self._loads(raw)
        except Exception as error:
            raise Undecodable(f"The serializer cannot read the value ({error!r}).") from error


class Plain:
    """What a serializer that only reads data writes, such as JSON, as it is."""

    def __init__(
        self, dumps: Callable[[Any], Any], loads: Callable[[Any], Any],
        content_type: str = JSON_TYPE, *, is_text: bool = False,
    ) -> None:
        self._dumps = dumps
        self._loads = loads
        self.content_type = content_type
        self._is_text = is_text

    def encode(self, value: Any, context: bytes) -> Encoded:
        raw = self._dumps(value)
        return Encoded(raw.encode("utf-8") if isinstance(raw, str) else raw, self.content_type)

    def decode(self, value: Value, context: bytes) -> Any:
        if value.content_type != self.content_type:
            raise Undecodable(
                f"The stored value is {value.content_type}, not {self.content_type}: it was "
                "written with another serializer."
            )
        try:
            return self._loads(str(value.body, "utf-8") if self._is_text else value.body)
        except Exception as error:
            raise Undecodable(f"The serializer cannot read the value ({error!r}).") from error


def dump_json(value: Any) -> bytes:
    """JSON that every reader takes: NaN and infinities raise `ValueError`."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode("ascii")


# Clients.

_clients: dict[Any, Any] = {}


def shared_client(kind: Callable[..., T], **options: Any) -> T:
    """The client of this process with these options, so that backends that are created over and
    over (Django makes one for each thread) share connections and the circuit breaker."""
    environment = (os.environ.get("REPRISE_URL"), os.environ.get("REPRISE_TOKEN"))
    key = (kind, environment, tuple(sorted(options.items())))
    try:
        found = _clients.get(key)
    except TypeError:
        # An option that cannot be compared, such as a context for TLS.
        return kind(**options)
    if found is None:
        found = kind(**options)
        if len(_clients) < limits.MAX_SHARED_CLIENTS:
            # Of two threads at once, both get what the first one stored.
            found = _clients.setdefault(key, found)
    return found


# The store.


class Store:
    """One namespace, as bytes by stored keys.

    `client` is used if it is given; otherwise `options` are those of `Client`. Safe between
    threads and after fork, like the client.
    """

    def __init__(
        self, namespace: str, *, client: Client | None = None, call_timeout: float | None = None,
        strict: bool = False, **options: Any,
    ) -> None:
        self.namespace = checked_namespace(namespace)
        self.strict = strict
        self._options = {name: value for name, value in options.items() if value is not None}
        if client is not None and self._options:
            raise TypeError(
                f"{', '.join(sorted(self._options))} cannot be set beside client=: set them on "
                "the client."
            )
        if call_timeout is not None:
            if not call_timeout > 0:
                raise ValueError(f"call_timeout must be more than 0 seconds, not {call_timeout}")
            if client is None:
                self._options["timeout"] = float(call_timeout)
        self.client = client or shared_client(Client, **self._options)
        self._is_own = client is None
        self._seconds = call_timeout or self.client.timeout
        self._get_seconds = self._seconds
        if client is None and call_timeout is None:
            self._get_seconds = limits.CACHE_GET_SECONDS
        #: Calls that came to nothing, because of the service or of what it had stored.
        self.failures = 0
        self._warn_from = 0.0

    def beside(self, namespace: str) -> Store:
        """A store for another namespace, over the same client."""
        store = Store(namespace, client=self.client, strict=self.strict)
        store._seconds, store._get_seconds = self._seconds, self._get_seconds
        return store

    def run(self, flow: Flow[T]) -> T:
        """Runs a flow, and blocks."""
        return self.client._run(flow)

    def run_async(self, flow: Flow[T]) -> Coroutine[Any, Any, T]:
        """Runs a flow under asyncio."""
        if not self._is_own:
            raise TypeError("asyncio needs a store with its own client: give url= instead.")
        return shared_client(AsyncClient, **self._options)._run(flow)

    def context(self, key: str) -> bytes:
        """The place of a value, for its signature. Neither part can have a line break."""
        return b"\n%s\n%s" % (self.namespace.encode("ascii"), key.encode("utf-8"))

    def failed(self, error: Exception) -> None:
        """Notes that something came to nothing; raises it in strict stores."""
        if self.strict:
            raise error
        # Without a lock: the count is approximate, and a forked child cannot hang here.
        self.failures += 1
        now = time.monotonic()
        is_due = now >= self._warn_from
        if is_due:
            self._warn_from = now + limits.ADAPTER_WARNING_SECONDS
        log.log(
            logging.WARNING if is_due else logging.DEBUG,
            "cache %s: going on without a value: %s", self.namespace, error,
        )

    # Flows. `call` gives each of them its time.

    def _for(self, size: int) -> float:
        return self._seconds + size / limits.CACHE_BYTES_PER_SECOND

    def read(self, key: str) -> Flow[Value | None]:
        """A value, or None."""
        try:
            entry = yield from part(Operations.get_entry.flow(
                self.client, self.namespace, key, timeout=self._get_seconds))
        except RepriseError as error:
            if not _is_miss(error):
                self.failed(error)
            return None
        return Value(entry.body, entry.content_type, entry.etag)

    def read_many(self, keys: Iterable[str]) -> Flow[dict[str, Value]]:
        """The values that there are."""
        found: dict[str, Value] = {}
        wanted = list(dict.fromkeys(keys))
        size = limits.CACHE_BATCH_OPERATIONS
        for start in range(0, len(wanted), size):
            names = wanted[start : start + size]
            results = yield from self._batch([{"op": "get", "key": name} for name in names])
            if results is None:
                break
            for name, result in zip(names, results):
                if result["status"] == 200:
                    found[name] = _value(result)
                elif result["status"] == 413:
                    # The answer was full.
                    value = yield from self.read(name)
                    if value is not None:
                        found[name] = value
                elif result["status"] != 404:
                    self.failed(_problem(result))
        return found

    def write(
        self, key: str, value: Encoded, ttl: float | None, *, only_new: bool = False
    ) -> Flow[bool]:
        """Stores a value for `ttl` seconds, None for ever; whether it is stored.

        A `ttl` of 0 or less stores nothing and removes what there is. With `only_new` nothing is
        replaced.
        """
        if ttl is not None and ttl <= 0:
            if only_new:
                return not (yield from self.exists(key))
            return (yield from self.remove(key)) is not None
        try:
            yield from part(Operations.put_entry.flow(
                self.client, self.namespace, key, value.body, content_type=value.content_type,
                ttl_seconds=_bounded(ttl), if_none_match="*" if only_new else None,
                timeout=self._for(len(value.body))))
        except PreconditionFailed:
            return False
        except RepriseError as error:
            self.failed(error)
            return False
        return True

    def write_many(
        self, values: Mapping[str, Encoded], ttl: float | None
    ) -> Flow[Collection[str]]:
        """Stores values; the keys of those that are stored."""
        if ttl is not None and ttl <= 0:
            return (yield from self.remove_many(values))
        stored: set[str] = set()
        small = {}
        for key, value in values.items():
            if len(value.body) <= limits.CACHE_BATCH_VALUE_BYTES:
                small[key] = value
            elif (yield from self.write(key, value, ttl)):
                stored.add(key)
        for piece in _pieces(small):
            results = yield from self._batch([
                {"op": "set", "key": key, "base64": base64.b64encode(value.body).decode("ascii"),
                 "content_type": value.content_type, "ttl_seconds": _bounded(ttl)}
                for key, value in piece
            ], sum(len(value.body) for _, value in piece))
            if results is None:
                break
            for (key, _), result in zip(piece, results):
                if result["status"] in (201, 204):
                    stored.add(key)
                else:
                    self.failed(_problem(result))
        return stored

    def remove(self, key: str) -> Flow[bool | None]:
        """Removes a value; whether there was one, None if the service did not say."""
        results = yield from self._batch([{"op": "delete", "key": key}])
        if results is None:
            return None
        if results[0]["status"] != 204:
            self.failed(_problem(results[0]))
            return None
        return results[0].get("removed", True)

    def remove_many(self, keys: Iterable[str]) -> Flow[set[str]]:
        """Removes values; the keys that have none now."""
        gone: set[str] = set()
        names = list(dict.fromkeys(keys))
        size = limits.CACHE_BATCH_OPERATIONS
        for start in range(0, len(names), size):
            piece = names[start : start + size]
            results = yield from self._batch([{"op": "delete", "key": name} for name in piece])
            if results is None:
                break
            for name, result in zip(piece, results):
                if result["status"] == 204:
                    gone.add(name)
                else:
                    self.failed(_problem(result))
        return gone

    def exists(self, key: str) -> Flow[bool]:
        """Whether there is a value. It does not count as a hit."""
        call: Any = Operations.head_entry.flow(self.client, self.namespace, key)
        call.timeout = self._get_seconds
        try:
            yield from part(call)
        except NotFound:
            return False
        except RepriseError as error:
            self.failed(error)
            return False
        return True

    def touch(self, key: str, ttl: float | None) -> Flow[bool]:
        """Gives a value `ttl` seconds from now; whether there is one."""
        if ttl is not None and ttl <= 0:
            return bool((yield from self.remove(key)))
        call: Any = Operations.touch_entry.flow(
            self.client, self.namespace, key, ttl_seconds=_bounded(ttl))
        call.timeout = self._seconds
        try:
            yield from part(call)
        except RepriseError as error:
            if not _is_miss(error):
                self.failed(error)
            return False
        return True

    def increment(
        self, key: str, delta: int, *, start: Encoded | None = None, ttl: float | None = None
    ) -> Flow[int | None]:
        """Adds to a counter, and keeps its expiry; the new value, None if the service failed.

        If there is none, it begins with `start` and `ttl`; without `start`, `KeyError`. Raises
        `NotAnInteger` for values to which the service cannot add.
        """
        if not is_integer(delta):
            raise NotAnInteger
        addition: dict[str, Any] = {"op": "increment", "key": key, "delta": delta}
        operations = [addition]
        if start is None:
            addition["if_match"] = "*"
        elif ttl is not None and ttl <= 0:
            addition["ttl_seconds"] = 0.001
        else:
            operations.insert(0, {
                "op": "set", "key": key, "base64": base64.b64encode(start.body).decode("ascii"),
                "content_type": start.content_type, "ttl_seconds": _bounded(ttl),
                "if_none_match": "*",
            })
        results = yield from self._batch(operations)
        if results is None:
            return None
        result = results[-1]
        if result["status"] == 200:
            return result.get("value")
        if result["status"] == 412:
            raise KeyError(key)
        if result["status"] == 409:
            raise NotAnInteger
        self.failed(_problem(result))
        return None

    def change(self, key: str, change: Callable[[Value], Encoded]) -> Flow[bool]:
        """Replaces a value by what `change` makes of it, and keeps its expiry; whether it is
        done. Nobody's change is lost. `KeyError` if there is no value."""
        for _ in range(limits.ADAPTER_CHANGE_ATTEMPTS):
            try:
                entry = yield from part(
                    Operations.get_entry.flow(self.client, self.namespace, key))
                known = yield from part(
                    Operations.get_metadata.flow(self.client, self.namespace, key))
            except RepriseError as error:
                if _is_miss(error):
                    raise KeyError(key) from None
                self.failed(error)
                return False
            value = change(Value(entry.body, entry.content_type, entry.etag))
            try:
                yield from part(Operations.put_entry.flow(
                    self.client, self.namespace, key, value.body,
                    content_type=value.content_type, ttl_seconds=known["expires_in_seconds"],
                    if_match=entry.etag, timeout=self._for(len(value.body))))
            except PreconditionFailed:
                continue
            except RepriseError as error:
                self.failed(error)
                return False
            return True
        self.failed(Conflict(409, {
            "code": "changed_too_often",
            "detail": f"The value was changed by others {limits.ADAPTER_CHANGE_ATTEMPTS} times.",
        }))
        return False

    def clear(self, prefix: str | None = None) -> Flow[bool]:
        """Removes all values, or those whose key starts with `prefix`; whether it is done."""
        call: Any = Operations.clear_entries.flow(
            self.client, self.namespace, prefix=prefix or None)
        call.timeout = self._seconds
        try:
            yield from part(call)
        except RepriseError as error:
            self.failed(error)
            return False
        return True

    def count(self) -> Flow[int]:
        """The number of values."""
        try:
            known = yield from part(Operations.get_namespace.flow(self.client, self.namespace))
        except RepriseError as error:
            if not isinstance(error, NotFound):
                self.failed(error)
            return 0
        return known["entry_count"]

    def page(self, cursor: str | None) -> Flow[tuple[list[tuple[str, int]], str | None]]:
        """Keys with the sizes of their values, and where the next page starts."""
        try:
            page = yield from part(Operations.list_entries.flow(
                self.client, self.namespace, limit=500, cursor=cursor))
        except RepriseError as error:
            self.failed(error)
            return [], None
        return [(item["key"], item["size_bytes"]) for item in page.items], page.next_cursor

    def _batch(
        self, operations: list[dict[str, Any]], size: int = 0
    ) -> Flow[list[OperationResult] | None]:
        try:
            return (yield from part(Operations.run_batch.flow(
                self.client, self.namespace, operations, timeout=self._for(size))))
        except RepriseError as error:
            self.failed(error)
            return None


def _is_miss(error: RepriseError) -> bool:
    # Another 404 comes from a proxy, or from a service that is not Reprise.
    return isinstance(error, NotFound) and error.code == "cache_miss"


def _bounded(ttl: float | None) -> float | None:
    return None if ttl is None else min(ttl, limits.MAX_TTL_SECONDS)


def _problem(result: OperationResult) -> ProblemError:
    return problem_error(result["status"], result.get("problem") or {})


def _value(result: OperationResult) -> Value:
    if "base64" in result:
        body = base64.b64decode(result["base64"])
    else:
        body = json.dumps(result.get("json")).encode("ascii")
    return Value(body, result.get("content_type") or "application/octet-stream",
                 result.get("etag") or "")


def _pieces(values: Mapping[str, Encoded]) -> Iterator[list[tuple[str, Encoded]]]:
    """Values for one batch each."""
    piece: list[tuple[str, Encoded]] = []
    size = 0
    for key, value in values.items():
        # Base64 has four characters for three bytes.
        bytes_sent = len(value.body) * 4 // 3
        if piece and (
            len(piece) >= limits.CACHE_BATCH_OPERATIONS
            or size + bytes_sent > limits.CACHE_BATCH_BYTES
        ):
            yield piece
            piece, size = [], 0
        piece.append((key, value))
        size += bytes_sent
    if piece:
        yield piece
