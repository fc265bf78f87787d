"""Every operation of the service's API, one method each, named as in `openapi.yaml`.

The methods say what is sent and how the answer is read. `Client` runs them and blocks,
`AsyncClient` returns coroutines. What every method raises: `ProblemError` if the service refuses,
`TransportError` if no answer arrives in time, `ValueError` for what cannot be sent.
"""

from __future__ import annotations

import json
import math
import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, Literal, ParamSpec, TypeVar, Union
from urllib.parse import quote

from . import limits
from .errors import InvalidResponse
from .http.flow import Call, operation
from .http.message import Body, Headers, Progress, Request, Response
from .models import (
    Appended,
    Backup,
    BatchedResponse,
    CacheRange,
    Cleanup,
    Comparison,
    Debounce,
    Diagnosis,
    HistoryItem,
    MaintenanceRun,
    MemoryFigures,
    Metadata,
    Namespace,
    NewToken,
    OpenedSession,
    OperationResult,
    Optimized,
    Page,
    PatchedState,
    Removal,
    SampleReceipt,
    Session,
    SessionFigures,
    SessionTemplate,
    Setting,
    SQLRows,
    State,
    StoredSample,
    TimeSeries,
    Timings,
    Token,
)

P = ParamSpec("P")
T = TypeVar("T")


class _Absent:
    """Marks what is not sent; None is a value in most places."""

    def __repr__(self) -> str:
        return "…"


ABSENT = _Absent()
#: Seconds; None for "never expires"; absent for the default of the namespace or service.
TTL = Union[float, None, _Absent]
#: An entity tag as the service gave it, or the version of a state.
ETag = Union[str, int]
Instant = Union[str, datetime]


class Entry:
    """A cached value as the service keeps it."""

    __slots__ = ("_headers", "body", "is_modified", "status")

    def __init__(self, response: Response) -> None:
        self.status = response.status
        self.body = response.body
        self._headers = response.headers
        #: False if the value still is the one of `if_none_match`; the body is empty then.
        self.is_modified = response.status != 304

    @property
    def etag(self) -> str:
        """The strong entity tag, with its quotation marks."""
        return self._headers.get("etag") or ""

    @property
    def content_type(self) -> str:
        return self._headers.get("content-type") or "application/octet-stream"

    @property
    def content_encoding(self) -> str | None:
        return self._headers.get("content-encoding")

    @property
    def expires_at(self) -> str | None:
        """The instant, or None for never."""
        value = self._headers.get("reprise-expires-at")
        return None if value in (None, "never", "none") else value

    @property
    def expires_in_seconds(self) -> float | None:
        """Whole seconds left when it was sent; None for never."""
        for piece in (self._headers.get("cache-control") or "").split(","):
            name, _, value = piece.strip().partition("=")
            if name == "max-age" and value.isdigit():
                return float(value)
        return None

    @property
    def age_seconds(self) -> float:
        value = self._headers.get("age") or "0"
        return float(value) if value.isdigit() else 0.0

    @property
    def headers(self) -> Headers:
        return self._headers

    def __repr__(self) -> str:
        return f"Entry({len(self.body)} bytes, {self.content_type}, etag={self.etag})"


class Stored:
    """A value that was stored."""

    __slots__ = ("_headers", "created")

    def __init__(self, response: Response) -> None:
        #: Whether there was no live entry before.
        self.created = response.status == 201
        self._headers = response.headers

    @property
    def etag(self) -> str:
        return self._headers.get("etag") or ""

    @property
    def expires_at(self) -> str | None:
        value = self._headers.get("reprise-expires-at")
        return None if value in (None, "never", "none") else value


# How requests are made.


def segment(value: str) -> str:
    """A name or key as one segment of a path."""
    if not isinstance(value, str):
        raise TypeError(f"a name or key is text, not {type(value).__name__}")
    if value.isalnum() and value.isascii():
        return value
    if not value:
        raise ValueError("a name or key cannot be empty")
    if value in (".", ".."):
        # Proxies and clients resolve these; the service takes no such name, and keys are escaped.
        return value.replace(".", "%2E")
    return quote(value, safe="")


def _query(**fields: Any) -> str:
    parts = []
    for name, value in fields.items():
        if value is None or value is ABSENT:
            continue
        if value is True or value is False:
            value = "true" if value else "false"
        elif isinstance(value, datetime):
            value = instant(value)
        elif isinstance(value, float):
            value = decimal(value, name)
        parts.append(f"{name}={quote(str(value), safe='')}")
    return "?" + "&".join(parts) if parts else ""


def decimal(value: float, name: str) -> str:
    """A number of seconds without an exponent."""
    if not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, not {value}")
    text = f"{value:.9f}".rstrip("0").rstrip(".")
    return text or "0"


def instant(value: Instant) -> str:
    """RFC 3339 in UTC. A datetime without a time zone is local time."""
    if isinstance(value, str):
        return value
    text = value.astimezone(timezone.utc).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def _tag(value: ETag) -> str:
    if isinstance(value, int):
        return f'"{value}"'
    return value


def _conditions(
    if_match: ETag | None, if_none_match: ETag | None
) -> dict[str, str]:
    headers: dict[str, str] = {}
    if if_match is not None:
        headers["If-Match"] = _tag(if_match)
    if if_none_match is not None:
        headers["If-None-Match"] = _tag(if_none_match)
    return headers


def _add_range(
    headers: dict[str, str], byte_range: tuple[int, int | None] | None, if_range: str | None
) -> None:
    if byte_range is not None:
        first, last = byte_range
        headers["Range"] = f"bytes={first}-{'' if last is None else last}"
    if if_range is not None:
        headers["If-Range"] = if_range


def encode_json(value: Any) -> bytes:
    """Compact JSON. Raises `ValueError` for NaN and infinities, `TypeError` for what JSON lacks."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode(
        "utf-8", "surrogatepass"
    )


def _guarded(if_match: ETag | None, if_none_match: ETag | None) -> dict[str, Any]:
    """Options of `_json` for a PUT with conditions: sent twice, it would refuse itself."""
    headers = _conditions(if_match, if_none_match)
    return {"headers": headers, "repeatable": not headers}


def _fields(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not ABSENT}


def _json(
    method: str,
    target: str,
    fields: Any,
    *,
    headers: dict[str, str] | None = None,
    content_type: str = "application/json",
    repeatable: bool | None = None,
    once: bool = False,
) -> Request:
    """A request with a JSON body. `once`: a key makes the service carry it out once, however
    often it is sent."""
    headers = dict(headers) if headers else {}
    headers["Content-Type"] = content_type
    if once:
        headers["Idempotency-Key"] = secrets.token_hex(16)
        repeatable = True
    return Request(method, target, headers, encode_json(fields), repeatable=repeatable)


#: Names of fields and methods (RFC 9110, section 5.6.2).
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: Fields that say where a message ends, or to whom it goes.
_FRAMING = ("connection", "content-length", "host", "transfer-encoding", "upgrade")


def new_id() -> str:
    """128 random bits as a name."""
    return secrets.token_hex(16)


# How answers are read.


def _checked(response: Response) -> Response:
    if response.status >= 300:
        raise response.unexpected()
    return response


def _read_json(response: Response) -> Any:
    return _checked(response).json()


#: What a value should be: a type, for `float` any number; an object with the fields of a dict; a
#: list of what is in a list.
Shape = Any
_NAMES = {bool: "true or false", dict: "a JSON object", float: "a number", int: "an integer",
          list: "a list", str: "a text"}


def _flaw(value: Any, shape: Shape) -> tuple[str, str] | None:
    """Where a value is not as it should be, and what it is there; None if it is."""
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return "", "is not a JSON object"
        for name, inner in shape.items():
            if name not in value:
                return "", f"lacks the field {name!r}"
            if inner is not object and (flaw := _flaw(value[name], inner)):
                return f"{flaw[0]}{name!r} of ", flaw[1]
        return None
    if isinstance(shape, list):
        if not isinstance(value, list):
            return "", "is not a list"
        for item in value:
            if flaw := _flaw(item, shape[0]):
                return f"{flaw[0]}an item of ", flaw[1]
        return None
    if shape is float:
        is_right = isinstance(value, (int, float))
    else:
        is_right = isinstance(value, shape)
    if not is_right or isinstance(value, bool) and shape is not bool:
        return "", f"is not {_NAMES[shape]}"
    return None


def _shaped(response: Response, shape: Shape) -> Any:
    """An answer that is JSON of this shape. Raises `InvalidResponse` for any other."""
    value = _read_json(response)
    flaw = _flaw(value, shape)
    if flaw is not None:
        raise InvalidResponse(f"{flaw[0]}an answer with status {response.status} {flaw[1]}")
    return value


def _object(**fields: Shape) -> Callable[[Response], Any]:
    """Reads an answer that is an object with these fields: those that callers rely on, because a
    newer service may leave out others."""
    return lambda response: _shaped(response, fields)


def _member(response: Response, name: str, shape: Shape) -> Any:
    """One field of an answer that is a JSON object."""
    return _shaped(response, {name: shape})[name]


_SESSION: dict[str, Shape] = {"id": str, "version": int}
_ITEM: dict[str, Shape] = {"id": str, "data": object}
_SETTING: dict[str, Shape] = {"name": str, "value": object}
_TEMPLATE: dict[str, Shape] = {"name": str, "defaults": dict}
_NAMED: dict[str, Shape] = {"name": str}
_TOKEN_FIELDS: dict[str, Shape] = {"id": str, "name": str}
_ENTRY: dict[str, Shape] = {"key": str, "size_bytes": int}


def _read_nothing(response: Response) -> None:
    if response.status not in (201, 204):
        # Whatever else a proxy says: nothing was done.
        raise response.unexpected()


def _read_text(response: Response) -> str:
    return _checked(response).body.decode("utf-8", "replace")


def _read_headers(response: Response) -> Headers:
    if response.status == 304:
        return response.headers
    return _checked(response).headers


def _read_raw(response: Response) -> Response:
    if response.status >= 400:
        raise response.problem()
    return response


def _read_value(response: Response) -> int:
    value: int = _member(response, "value", int)
    return value


def _read_removed(response: Response) -> int:
    removed: int = _member(response, "removed", int)
    return removed


def _get(target: str, **fields: Shape) -> Call[Any]:
    return Call(Request("GET", target), _object(**fields))


def _page(target: str, **fields: Shape) -> Call[Page[Any]]:
    """A page of items that have these fields."""

    def read(response: Response) -> Page[Any]:
        value = _shaped(response, {"items": [fields]})
        cursor = value.get("next_cursor")
        if cursor is not None and not isinstance(cursor, str):
            raise InvalidResponse("'next_cursor' of an answer is not a text")
        return Page(value["items"], cursor)

    return Call(Request("GET", target), read)


def _delete(target: str, if_match: ETag | None = None) -> Call[None]:
    return Call(
        Request("DELETE", target, _conditions(if_match, None), repeatable=if_match is None),
        _read_nothing,
    )


def _heading(
    getter: operation[P, Any], read: Callable[[Response], Headers] = _read_headers
) -> operation[P, Headers]:
    """The HEAD operation beside a GET: the same arguments; the answer's fields."""

    def build(self: Any, /, *arguments: P.args, **options: P.kwargs) -> Call[Headers]:
        call = getter.flow(self, *arguments, **options)
        assert isinstance(call, Call)
        call.request.method = "HEAD"
        return Call(call.request, read, call.timeout)

    build.__name__ = getter.__name__.replace("get_", "head_").replace("list_", "head_")
    build.__doc__ = f"The header fields that `{getter.__name__}` would answer with."
    return operation(build)


class Operations:
    """The operations. See `openapi.yaml` for what each promises."""

    # Cache entries.

    @operation
    def get_entry(
        self,
        namespace: str,
        key: str,
        *,
        if_match: str | None = None,
        if_none_match: str | None = None,
        byte_range: tuple[int, int | None] | None = None,
        if_range: str | None = None,
        timeout: float | None = None,
    ) -> Call[Entry]:
        """A cached value. A miss raises `NotFound`, whose `problem["reason"]` says why.

        `byte_range` is (first, last), the last included, or None for the end.
        """
        headers = None
        if if_match or if_none_match or byte_range or if_range:
            headers = _conditions(if_match, if_none_match)
            _add_range(headers, byte_range, if_range)
        target = f"/v1/cache/{segment(namespace)}/entries/{segment(key)}"
        request = Request("GET", target, headers, max_bytes=limits.MAX_BODY_BYTES)
        return Call(request, _read_entry, timeout)

    @operation
    def put_entry(
        self,
        namespace: str,
        key: str,
        value: Body,
        *,
        content_type: str = "application/octet-stream",
        content_encoding: str | None = None,
        ttl_seconds: TTL = ABSENT,
        tags: Sequence[str] = (),
        compute_seconds: float | None = None,
        if_match: str | None = None,
        if_none_match: str | None = None,
        on_progress: Progress | None = None,
        timeout: float | None = None,
    ) -> Call[Stored]:
        """Stores a value: bytes, a file opened for reading, or an iterable of bytes.

        `if_none_match="*"` only adds, `if_match` only replaces what has that tag; otherwise
        `PreconditionFailed`.
        """
        headers = {"Content-Type": content_type}
        if content_encoding is not None:
            headers["Content-Encoding"] = content_encoding
        if ttl_seconds is None:
            headers["Reprise-TTL"] = "none"
        elif not isinstance(ttl_seconds, _Absent):
            headers["Reprise-TTL"] = decimal(ttl_seconds, "ttl_seconds")
        if tags:
            headers["Reprise-Tags"] = ",".join(_tags(tags))
        if compute_seconds is not None:
            headers["Reprise-Compute-Seconds"] = decimal(compute_seconds, "compute_seconds")
        if if_match is not None:
            headers["If-Match"] = if_match
        if if_none_match is not None:
            headers["If-None-Match"] = if_none_match
        target = f"/v1/cache/{segment(namespace)}/entries/{segment(key)}"
        is_conditional = if_match is not None or if_none_match is not None
        request = Request(
            "PUT", target, headers, b"" if value is None else value,
            repeatable=not is_conditional, on_progress=on_progress,
        )
        if timeout is None and not isinstance(value, (bytes, bytearray, memoryview)):
            timeout = limits.LONG_CALL_SECONDS
        return Call(request, _read_stored, timeout)

    @operation
    def delete_entry(
        self, namespace: str, key: str, *, if_match: str | None = None
    ) -> Call[None]:
        """Removes an entry; it is no error if there is none."""
        return _delete(f"/v1/cache/{segment(namespace)}/entries/{segment(key)}", if_match)

    @operation
    def get_metadata(self, namespace: str, key: str) -> Call[Metadata]:
        """What is known of an entry, without its value."""
        return _get(f"/v1/cache/{segment(namespace)}/entries/{segment(key)}/metadata",
                    **_ENTRY, expires_in_seconds=object)

    @operation
    def touch_entry(
        self, namespace: str, key: str, *, ttl_seconds: TTL = ABSENT,
        if_match: str | None = None,
    ) -> Call[Metadata]:
        """Lets an entry live as if it were stored now."""
        return Call(
            _json("POST", f"/v1/cache/{segment(namespace)}/entries/{segment(key)}/touch",
                  _fields(ttl_seconds=ttl_seconds), headers=_conditions(if_match, None),
                  repeatable=True),
            _object(key=str),
        )

    @operation
    def increment_entry(
        self, namespace: str, key: str, *, delta: int = 1, initial: int = 0,
        ttl_seconds: TTL = ABSENT, if_match: str | None = None,
    ) -> Call[int]:
        """Adds to a counter, once however often the request has to be sent; the new value."""
        return Call(
            _json("POST", f"/v1/cache/{segment(namespace)}/entries/{segment(key)}/increment",
                  _fields(delta=delta, initial=initial, ttl_seconds=ttl_seconds),
                  headers=_conditions(if_match, None), once=True),
            _read_value,
        )

    @operation
    def list_entries(
        self, namespace: str, *, prefix: str | None = None, tag: str | None = None,
        limit: int | None = None, cursor: str | None = None,
    ) -> Call[Page[Metadata]]:
        """A page of entries by key; `client.pages` and `client.items` follow the cursors."""
        return _page(f"/v1/cache/{segment(namespace)}/entries"
                     + _query(prefix=prefix, tag=tag, limit=limit, cursor=cursor), **_ENTRY)

    @operation
    def clear_entries(
        self, namespace: str, *, prefix: str | None = None, tag: str | None = None,
        older_than_seconds: float | None = None, dry_run: bool = False,
    ) -> Call[Removal]:
        """Removes all entries that match, or counts them with `dry_run`."""
        query = _query(prefix=prefix, tag=tag, older_than_seconds=older_than_seconds,
                       dry_run=dry_run or None)
        return Call(Request("DELETE", f"/v1/cache/{segment(namespace)}/entries{query}"),
                    _object(removed=int))

    @operation
    def run_batch(
        self, namespace: str, operations: Sequence[Mapping[str, Any]], *, atomic: bool = False,
        timeout: float | None = None,
    ) -> Call[list[OperationResult]]:
        """Up to 1,000 operations on one namespace; a result for each, in order."""
        repeats = all(operation.get("op") in ("get", "set", "delete", "touch")
                      and not operation.get("if_match") and not operation.get("if_none_match")
                      for operation in operations)
        request = _json("POST", f"/v1/cache/{segment(namespace)}/batch",
                        {"operations": list(operations), "atomic": atomic},
                        repeatable=repeats, once=not repeats)
        names = [operation.get("op") for operation in operations]
        return Call(request, lambda response: _read_results(response, names), timeout)

    # Namespaces.

    @operation
    def list_namespaces(
        self, *, limit: int | None = None, cursor: str | None = None
    ) -> Call[Page[Namespace]]:
        """A page of namespaces."""
        return _page("/v1/cache" + _query(limit=limit, cursor=cursor), namespace=str)

    @operation
    def get_namespace(self, namespace: str) -> Call[Namespace]:
        """A namespace, its policy and its figures."""
        return _get(f"/v1/cache/{segment(namespace)}", namespace=str, entry_count=int)

    @operation
    def set_policy(
        self, namespace: str, *, ttl_seconds: TTL = ABSENT,
        max_entries: int | None | _Absent = ABSENT, max_bytes: int | None | _Absent = ABSENT,
        max_entry_bytes: int | None | _Absent = ABSENT,
        eviction: Literal["lru", "lfu", "fifo"] | None | _Absent = ABSENT,
        if_match: ETag | None = None, if_none_match: ETag | None = None,
    ) -> Call[Namespace]:
        """Replaces a namespace's policy; what is absent gets its default."""
        return Call(
            _json("PUT", f"/v1/cache/{segment(namespace)}",
                  _fields(ttl_seconds=ttl_seconds, max_entries=max_entries, max_bytes=max_bytes,
                          max_entry_bytes=max_entry_bytes, eviction=eviction),
                  **_guarded(if_match, if_none_match)),
            _object(namespace=str),
        )

    @operation
    def remove_namespace(
        self, namespace: str, *, if_match: ETag | None = None
    ) -> Call[None]:
        """Removes a namespace with its entries and its policy."""
        return _delete(f"/v1/cache/{segment(namespace)}", if_match)

    @operation
    def clear_namespaces(
        self, *, tag: str | None = None, all: bool = False, dry_run: bool = False
    ) -> Call[Removal]:
        """Removes the entries with a tag from all namespaces, or all entries with `all`."""
        query = _query(tag=tag, all=all or None, dry_run=dry_run or None)
        return Call(Request("DELETE", f"/v1/cache{query}"), _object(removed=int))

    # Sessions.

    @operation
    def create_session(
        self, *, id: str | None = None, ttl_seconds: TTL = ABSENT, template: str | None = None,
        max_history_items: int | None = None, metadata: Mapping[str, Any] | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> Call[Session]:
        """Creates a session; without an id, the service chooses 128 random bits."""
        fields = _given(id=id, template=template, max_history_items=max_history_items,
                        metadata=metadata, state=state)
        return Call(_json("POST", "/v1/sessions",
                          {**fields, **_fields(ttl_seconds=ttl_seconds)}, once=True),
                    _object(**_SESSION))

    @operation
    def open_session(
        self, session_id: str, *, defaults: Mapping[str, Any] | None = None,
        ttl_seconds: TTL = ABSENT, template: str | None = None,
        max_history_items: int | None = None, metadata: Mapping[str, Any] | None = None,
        state: Mapping[str, Any] | None = None, include: Sequence[str] = (),
    ) -> Call[OpenedSession]:
        """Creates a session unless it exists, and answers it; `include` names `state`, `history`
        or both, so that one call reads all that a rerun needs."""
        fields = _given(template=template, max_history_items=max_history_items,
                        metadata=metadata, state=state, defaults=defaults)
        target = f"/v1/sessions/{segment(session_id)}"
        if include:
            target += "?include=" + ",".join(quote(part, safe="") for part in _list(include) or ())
        return Call(_json("PUT", target, {**fields, **_fields(ttl_seconds=ttl_seconds)}),
                    _object(**_SESSION, **({"state": dict} if "state" in include else {}),
                            **({"history": [_ITEM]} if "history" in include else {})))

    @operation
    def get_session(self, session_id: str) -> Call[Session]:
        """A session, without its state and history."""
        return _get(f"/v1/sessions/{segment(session_id)}", **_SESSION)

    @operation
    def list_sessions(
        self, *, active_within_seconds: float | None = None, limit: int | None = None,
        cursor: str | None = None,
    ) -> Call[Page[Session]]:
        """A page of sessions, by their last activity."""
        return _page("/v1/sessions" + _query(active_within_seconds=active_within_seconds,
                                              limit=limit, cursor=cursor), **_SESSION)

    @operation
    def remove_session(self, session_id: str) -> Call[None]:
        """Removes a session with its state and history."""
        return _delete(f"/v1/sessions/{segment(session_id)}")

    @operation
    def remove_inactive_sessions(
        self, inactive_for_seconds: float, *, dry_run: bool = False
    ) -> Call[int]:
        """Removes all sessions that were not used for so long; their number."""
        query = _query(inactive_for_seconds=float(inactive_for_seconds), dry_run=dry_run or None)
        return Call(Request("DELETE", f"/v1/sessions{query}"), _read_removed)

    @operation
    def touch_session(self, session_id: str) -> Call[Session]:
        """Extends a session's life, as any use of it does."""
        return Call(_json("POST", f"/v1/sessions/{segment(session_id)}/touch", {},
                          repeatable=True), _object(**_SESSION))

    @operation
    def optimize_session(
        self, session_id: str, *, keep: Sequence[str] | None = None
    ) -> Call[Optimized]:
        """Cuts the history to its limit and removes `temp_` and `cache_` keys but `keep`."""
        return Call(_json("POST", f"/v1/sessions/{segment(session_id)}/optimize",
                          _given(keep=None if keep is None else list(keep)), once=True),
                    _object(keys_removed=[str], history_removed=int))

    @operation
    def debounce(
        self, session_id: str, name: str, *, delay_seconds: float | None = None,
        create: bool = False,
    ) -> Call[Debounce]:
        """Asks whether an action may happen: once in `delay_seconds`, whoever asks."""
        target = f"/v1/sessions/{segment(session_id)}/debounce/{segment(name)}"
        return Call(_json("POST", target + _query(create=create or None),
                          _given(delay_seconds=delay_seconds), once=True),
                    _object(allowed=bool, retry_after_seconds=float))

    # State.

    @operation
    def get_state(
        self, session_id: str, *, keys: Sequence[str] | None = None
    ) -> Call[State]:
        """A session's state, or only some keys of it."""
        query = ""
        if keys:
            query = "?keys=" + ",".join(quote(key, safe="") for key in keys)
        return _get(f"/v1/sessions/{segment(session_id)}/state{query}", state=dict, version=int)

    @operation
    def patch_state(
        self, session_id: str, *, set: Mapping[str, Any] | None = None,
        set_default: Mapping[str, Any] | None = None, delete: Sequence[str] | None = None,
        delete_prefixes: Sequence[str] | None = None, keep: Sequence[str] | None = None,
        create: bool = False, if_match: ETag | None = None,
    ) -> Call[PatchedState]:
        """Changes a state in one transaction; `create` opens the session if it is gone."""
        fields = _given(set=set, set_default=set_default, delete=_list(delete),
                        delete_prefixes=_list(delete_prefixes), keep=_list(keep))
        return Call(
            _json("PATCH", f"/v1/sessions/{segment(session_id)}/state"
                  + _query(create=create or None), fields,
                  headers=_conditions(if_match, None), repeatable=if_match is None,
                  once=if_match is not None),
            _object(version=int),
        )

    @operation
    def get_state_value(self, session_id: str, key: str) -> Call[Any]:
        """One value of a state."""
        target = f"/v1/sessions/{segment(session_id)}/state/{segment(key)}"
        return Call(Request("GET", target), _read_json)

    @operation
    def set_state_value(
        self, session_id: str, key: str, value: Any, *, if_match: ETag | None = None,
        if_none_match: ETag | None = None,
    ) -> Call[None]:
        """Sets one value of a state to any JSON; None is a value."""
        return Call(_json("PUT", f"/v1/sessions/{segment(session_id)}/state/{segment(key)}",
                          value, **_guarded(if_match, if_none_match)), _read_nothing)

    @operation
    def remove_state_value(
        self, session_id: str, key: str, *, if_match: ETag | None = None
    ) -> Call[None]:
        """Removes one value of a state."""
        return _delete(f"/v1/sessions/{segment(session_id)}/state/{segment(key)}", if_match)

    # Templates.

    @operation
    def list_templates(
        self, *, limit: int | None = None, cursor: str | None = None
    ) -> Call[Page[SessionTemplate]]:
        """A page of session templates."""
        return _page("/v1/session-templates" + _query(limit=limit, cursor=cursor), **_TEMPLATE)

    @operation
    def get_template(self, name: str) -> Call[SessionTemplate]:
        """A session template."""
        return _get(f"/v1/session-templates/{segment(name)}", **_TEMPLATE)

    @operation
    def set_template(
        self, name: str, defaults: Mapping[str, Any], *, ttl_seconds: TTL = ABSENT,
        max_history_items: int | None = None, if_match: ETag | None = None,
        if_none_match: ETag | None = None,
    ) -> Call[SessionTemplate]:
        """Creates or replaces a session template."""
        return Call(
            _json("PUT", f"/v1/session-templates/{segment(name)}",
                  {"defaults": dict(defaults), **_given(max_history_items=max_history_items),
                   **_fields(ttl_seconds=ttl_seconds)},
                  **_guarded(if_match, if_none_match)),
            _object(**_TEMPLATE),
        )

    @operation
    def remove_template(self, name: str, *, if_match: ETag | None = None) -> Call[None]:
        """Removes a session template."""
        return _delete(f"/v1/session-templates/{segment(name)}", if_match)

    # History.

    @operation
    def append_history(
        self, session_id: str, data: Any, *, id: str | None = None, kind: str | None = None,
        create: bool = False,
    ) -> Call[Appended]:
        """Appends an item, once however often the request has to be sent; the oldest beyond the
        session's limit go in the same transaction."""
        fields = {"id": id or new_id(), "data": data, **_given(kind=kind)}
        return Call(_json("POST", f"/v1/sessions/{segment(session_id)}/history"
                          + _query(create=create or None), fields, repeatable=True),
                    _object(item=_ITEM, removed=int))

    @operation
    def list_history(
        self, session_id: str, *, kind: str | None = None,
        order: Literal["newest", "oldest"] | None = None, limit: int | None = None,
        cursor: str | None = None,
    ) -> Call[Page[HistoryItem]]:
        """A page of a session's history, the newest first by default."""
        return _page(f"/v1/sessions/{segment(session_id)}/history"
                     + _query(kind=kind, order=order, limit=limit, cursor=cursor), **_ITEM)

    @operation
    def clear_history(self, session_id: str) -> Call[int]:
        """Removes all items of a session's history; their number."""
        return Call(Request("DELETE", f"/v1/sessions/{segment(session_id)}/history"),
                    _read_removed)

    @operation
    def get_history_item(self, session_id: str, item_id: str) -> Call[HistoryItem]:
        """One item of a history."""
        return _get(f"/v1/sessions/{segment(session_id)}/history/{segment(item_id)}", **_ITEM)

    @operation
    def patch_history_item(
        self, session_id: str, item_id: str, patch: Any, *, if_match: ETag | None = None
    ) -> Call[HistoryItem]:
        """Merges into an item's data (RFC 7396): a rating, a favourite."""
        return Call(
            _json("PATCH", f"/v1/sessions/{segment(session_id)}/history/{segment(item_id)}",
                  patch, headers=_conditions(if_match, None),
                  content_type="application/merge-patch+json", repeatable=if_match is None,
                  once=if_match is not None),
            _object(**_ITEM),
        )

    @operation
    def remove_history_item(
        self, session_id: str, item_id: str, *, if_match: ETag | None = None
    ) -> Call[None]:
        """Removes one item of a history."""
        return _delete(f"/v1/sessions/{segment(session_id)}/history/{segment(item_id)}", if_match)

    @operation
    def list_all_history(
        self, *, kind: str | None = None, since: Instant | None = None,
        until: Instant | None = None, limit: int | None = None, cursor: str | None = None,
    ) -> Call[Page[HistoryItem]]:
        """A page of the histories of all sessions, the newest first."""
        return _page("/v1/history" + _query(kind=kind, since=since, until=until, limit=limit,
                                             cursor=cursor), **_ITEM)

    # Samples and figures.

    @operation
    def record_samples(
        self, samples: Iterable[Mapping[str, Any]], *, timeout: float | None = None
    ) -> Call[SampleReceipt]:
        """Stores up to 10,000 samples, all or none, once however often they have to be sent."""
        return Call(_json("POST", "/v1/samples", {"samples": list(samples)}, once=True),
                    _object(accepted=int), timeout)

    @operation
    def get_samples(
        self, *, kind: str | None = None, name: str | None = None,
        session_id: str | None = None, variant: str | None = None,
        since: Instant | None = None, until: Instant | None = None, limit: int | None = None,
        cursor: str | None = None,
    ) -> Call[Page[StoredSample]]:
        """A page of raw samples, the newest first."""
        return _page("/v1/samples" + _query(
            kind=kind, name=name, session_id=session_id, variant=variant, since=since,
            until=until, limit=limit, cursor=cursor))

    @operation
    def get_timings(
        self, *, name: str | None = None,
        group_by: Literal["variant", "cache", "session_id"] | None = None,
        source: Literal["app", "service"] | None = None, since: Instant | None = None,
        until: Instant | None = None,
    ) -> Call[Timings]:
        """Counts and percentiles of timings by name."""
        return _get("/v1/metrics/timings" + _query(
            name=name, group_by=group_by, source=source, since=since, until=until), items=[dict])

    @operation
    def get_time_series(
        self, *, kind: str | None = None, name: str | None = None, stat: str | None = None,
        variant: str | None = None, metric: str | None = None, source: str | None = None,
        step_seconds: float | None = None, since: Instant | None = None,
        until: Instant | None = None,
    ) -> Call[TimeSeries]:
        """One figure over time, in buckets of `step_seconds`."""
        return _get("/v1/metrics/timeseries" + _query(
            kind=kind, name=name, stat=stat, variant=variant, metric=metric, source=source,
            step_seconds=step_seconds, since=since, until=until), buckets=[dict])

    @operation
    def get_memory_figures(
        self, *, name: str | None = None, since: Instant | None = None,
        until: Instant | None = None,
    ) -> Call[MemoryFigures]:
        """Memory by name; the service's own process is among them."""
        return _get("/v1/metrics/memory" + _query(name=name, since=since, until=until),
                    items=[dict])

    @operation
    def get_cache_figures(
        self, *, since: Instant | None = None, until: Instant | None = None
    ) -> Call[CacheRange]:
        """Hits and misses by namespace."""
        return _get("/v1/metrics/cache" + _query(since=since, until=until),
                    totals=dict, items=[dict])

    @operation
    def get_session_figures(self) -> Call[SessionFigures]:
        """How many sessions there are, and how large."""
        return _get("/v1/metrics/sessions", session_count=int)

    @operation
    def get_comparison(
        self, baseline: str, candidate: str, *, name: str | None = None,
        since: Instant | None = None, until: Instant | None = None,
    ) -> Call[Comparison]:
        """Two variants compared, with confidence intervals."""
        return _get("/v1/metrics/comparison" + _query(
            baseline=baseline, candidate=candidate, name=name, since=since, until=until),
            items=[dict])

    @operation
    def get_summary(
        self, *, since: Instant | None = None, until: Instant | None = None,
        baseline: str | None = None, candidate: str | None = None,
    ) -> Call[dict[str, Any]]:
        """All that a dashboard needs."""
        return _get("/v1/metrics/summary" + _query(
            since=since, until=until, baseline=baseline, candidate=candidate),
            cache={"totals": dict}, sessions=dict, timings=[dict], memory=[dict])

    @operation
    def get_prometheus_metrics(self) -> Call[str]:
        """The metrics in Prometheus text format."""
        return Call(Request("GET", "/metrics"), _read_text)

    @operation
    def run_sql(
        self, query: str, params: Sequence[Any] | Mapping[str, Any] | None = None, *,
        limit: int | None = None, timeout: float | None = None,
    ) -> Call[SQLRows]:
        """Read-only SQL over the documented views."""
        request = _json("POST", "/v1/sql", {"query": query, **_given(params=params, limit=limit)},
                        repeatable=True)
        return Call(request, _object(columns=[str], rows=[list]), timeout)

    # Many requests in one.

    @operation
    def run_requests(
        self, requests: Sequence[Mapping[str, Any]], *,
        mode: Literal["sequence", "parallel"] = "sequence", stop_on_error: bool = False,
        timeout: float | None = None,
    ) -> Call[list[BatchedResponse]]:
        """Up to 100 requests in one; an answer for each, in order."""
        fields = {"requests": list(requests), "mode": mode, "stop_on_error": stop_on_error}
        repeats = all(str(request.get("method", "")).upper() in ("GET", "HEAD", "PUT", "DELETE")
                      for request in requests)
        request = _json("POST", "/v1/batch", fields, repeatable=repeats, once=not repeats)
        return Call(
            request, lambda response: _member(response, "responses", [{"status": int}]), timeout)

    # Configuration and operation.

    @operation
    def list_settings(self) -> Call[list[Setting]]:
        """All settings, and where their values come from."""
        return Call(Request("GET", "/v1/config"), _read_settings)

    @operation
    def get_setting(self, name: str) -> Call[Setting]:
        """One setting."""
        return _get(f"/v1/config/{segment(name)}", **_SETTING)

    @operation
    def change_settings(self, /, **changes: Any) -> Call[list[Setting]]:
        """Changes settings, all or none, at once and for good."""
        return Call(_json("PATCH", "/v1/config", changes, repeatable=True), _read_settings)

    @operation
    def drop_setting(self, name: str) -> Call[None]:
        """Drops a value that was set at run time."""
        return _delete(f"/v1/config/{segment(name)}")

    @operation
    def clean_up(
        self, *, tasks: Sequence[str] | None = None, dry_run: bool = False,
        timeout: float | None = limits.LONG_CALL_SECONDS,
    ) -> Call[Cleanup]:
        """Runs background tasks now."""
        return Call(_json("POST", "/v1/maintenance/cleanup",
                          {**_given(tasks=_list(tasks)), "dry_run": dry_run}),
                    _object(tasks=[dict]), timeout)

    @operation
    def list_maintenance_runs(
        self, *, limit: int | None = None, cursor: str | None = None
    ) -> Call[Page[MaintenanceRun]]:
        """A page of what background tasks did."""
        return _page("/v1/maintenance/runs" + _query(limit=limit, cursor=cursor))

    @operation
    def get_diagnostics(self, *, timeout: float | None = None) -> Call[Diagnosis]:
        """What is wrong with the service, and what to do about it."""
        return Call(Request("GET", "/v1/diagnostics"),
                    _object(status=str, findings=[{"severity": str}]), timeout)

    @operation
    def create_token(
        self, name: str, scopes: Sequence[Literal["read", "write", "admin"]], *,
        namespaces: Sequence[str] | None = None, expires_in_seconds: float | None = None,
    ) -> Call[NewToken]:
        """A new token. Its secret is in `token`, here and never again."""
        return Call(
            _json("POST", "/v1/tokens",
                  {"name": name, "scopes": list(scopes),
                   **_given(namespaces=_list(namespaces),
                            expires_in_seconds=expires_in_seconds)}),
            _object(token=str, **_TOKEN_FIELDS),
        )

    @operation
    def list_tokens(
        self, *, limit: int | None = None, cursor: str | None = None
    ) -> Call[Page[Token]]:
        """A page of tokens, without secrets."""
        return _page("/v1/tokens" + _query(limit=limit, cursor=cursor), **_TOKEN_FIELDS)

    @operation
    def get_own_token(self) -> Call[Token]:
        """The token that this client uses."""
        return _get("/v1/tokens/self", **_TOKEN_FIELDS)

    @operation
    def revoke_token(self, id: str) -> Call[None]:
        """Revokes a token at once."""
        return _delete(f"/v1/tokens/{segment(id)}")

    @operation
    def create_backup(self, *, timeout: float | None = limits.LONG_CALL_SECONDS) -> Call[Backup]:
        """Makes and verifies a snapshot of the database."""
        return Call(_json("POST", "/v1/backups", {}), _object(**_NAMED), timeout)

    @operation
    def list_backups(
        self, *, limit: int | None = None, cursor: str | None = None
    ) -> Call[Page[Backup]]:
        """A page of backups, the newest first."""
        return _page("/v1/backups" + _query(limit=limit, cursor=cursor), **_NAMED)

    @operation
    def get_backup(
        self, name: str, *, if_match: str | None = None,
        byte_range: tuple[int, int | None] | None = None, if_range: str | None = None,
        timeout: float | None = limits.LONG_CALL_SECONDS,
    ) -> Call[Response]:
        """A backup's bytes in memory; `download_backup` writes them to a file instead."""
        headers = _conditions(if_match, None)
        _add_range(headers, byte_range, if_range)
        request = Request("GET", f"/v1/backups/{segment(name)}", headers,
                          max_bytes=limits.MAX_BODY_BYTES)
        return Call(request, _read_raw, timeout)

    @operation
    def delete_backup(self, name: str) -> Call[None]:
        """Removes a backup."""
        return _delete(f"/v1/backups/{segment(name)}")

    # The service itself.

    @operation
    def get_liveness(self) -> Call[dict[str, Any]]:
        """Whether the process runs."""
        return _get("/health/live", status=str)

    @operation
    def get_readiness(self) -> Call[dict[str, Any]]:
        """Whether the service can work; raises `Unavailable` if it cannot."""
        return _get("/health/ready", status=str)

    @operation
    def get_contract(self) -> Call[str]:
        """The service's OpenAPI document, in YAML."""
        return Call(Request("GET", "/openapi.yaml"), _read_text)

    @operation
    def get_dashboard(self) -> Call[str]:
        """The dashboard's page."""
        return Call(Request("GET", "/dashboard/"), _read_text)

    @operation
    def get_dashboard_style(self) -> Call[str]:
        """The dashboard's style sheet."""
        return Call(Request("GET", "/dashboard/style.css"), _read_text)

    @operation
    def get_dashboard_script(self) -> Call[str]:
        """The dashboard's script."""
        return Call(Request("GET", "/dashboard/script.js"), _read_text)

    @operation
    def request(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None,
        json: Any = ABSENT, body: Body = None, timeout: float | None = None,
        repeatable: bool | None = None,
    ) -> Call[Response]:
        """Any other request, such as to a newer service. Raises `ProblemError` from 400 on."""
        if not _TOKEN.fullmatch(method):
            raise ValueError(f"{method!r} is not a method of HTTP")
        if not path.startswith("/"):
            raise ValueError(f"a path begins with /, unlike {path!r}")
        fields = dict(headers or {})
        for name in fields:
            if not _TOKEN.fullmatch(name):
                raise ValueError(f"{name!r} is not the name of a header field")
            if name.lower() in _FRAMING:
                raise ValueError(f"{name} is set by the client itself")
        if json is not ABSENT:
            if body is not None:
                raise ValueError("give json or body, not both")
            request = _json(method, path, json, headers=fields, repeatable=repeatable)
        else:
            request = Request(method, path, fields, body, repeatable=repeatable)
        request.max_bytes = limits.MAX_BODY_BYTES
        return Call(request, _read_raw, timeout)

    # HEAD beside each GET.

    head_liveness = _heading(get_liveness)
    head_readiness = _heading(get_readiness)
    head_contract = _heading(get_contract)
    head_namespaces = _heading(list_namespaces)
    head_namespace = _heading(get_namespace)
    head_entries = _heading(list_entries)
    head_entry = _heading(get_entry, lambda response: _read_entry(response).headers)
    head_metadata = _heading(get_metadata)
    head_settings = _heading(list_settings)
    head_setting = _heading(get_setting)
    head_maintenance_runs = _heading(list_maintenance_runs)
    head_tokens = _heading(list_tokens)
    head_own_token = _heading(get_own_token)
    head_backups = _heading(list_backups)
    head_backup = _heading(get_backup)
    head_diagnostics = _heading(get_diagnostics)
    head_sessions = _heading(list_sessions)
    head_session = _heading(get_session)
    head_state = _heading(get_state)
    head_state_value = _heading(get_state_value)
    head_templates = _heading(list_templates)
    head_template = _heading(get_template)
    head_history = _heading(list_history)
    head_history_item = _heading(get_history_item)
    head_all_history = _heading(list_all_history)
    head_samples = _heading(get_samples)
    head_timings = _heading(get_timings)
    head_time_series = _heading(get_time_series)
    head_memory_figures = _heading(get_memory_figures)
    head_cache_figures = _heading(get_cache_figures)
    head_session_figures = _heading(get_session_figures)
    head_comparison = _heading(get_comparison)
    head_summary = _heading(get_summary)
    head_prometheus_metrics = _heading(get_prometheus_metrics)
    head_dashboard = _heading(get_dashboard)
    head_dashboard_style = _heading(get_dashboard_style)
    head_dashboard_script = _heading(get_dashboard_script)


def _tags(tags: Sequence[str]) -> Sequence[str]:
    if isinstance(tags, str):
        raise TypeError("tags are a list of texts, not one text")
    for tag in tags:
        if not tag or "," in tag or not all("!" <= character <= "~" for character in tag):
            raise ValueError(
                f"a tag has 1 to 128 visible ASCII characters without commas, unlike {tag!r}"
            )
    return tags


def _read_entry(response: Response) -> Entry:
    status = response.status
    if status >= 300 and status != 304:
        raise response.unexpected()
    if not response.headers.has_etag:
        # A page of a proxy must not be taken for a value.
        raise InvalidResponse(
            f"an answer with status {status} has no ETag: it is not an entry of the service"
        )
    return Entry(response)


def _read_stored(response: Response) -> Stored:
    if response.status not in (201, 204) or not response.headers.has_etag:
        raise response.unexpected()
    return Stored(response)


def _read_results(response: Response, names: list[Any]) -> list[OperationResult]:
    """The results of the batch of these operations."""
    results: list[Any] = _member(response, "results", [{"status": int}])
    if len(results) != len(names):
        raise InvalidResponse(f"an answer has {len(results)} results of {len(names)} operations")
    for name, result in zip(names, results):
        shape: dict[str, Shape] = {} if result.get("problem") is None else {"problem": dict}
        if name == "get" and result["status"] == 200:
            shape = {"content_type": str, "etag": str,
                     **({} if "json" in result else {"base64": str})}
        elif name == "increment" and result["status"] == 200:
            shape = {"value": int}
        if flaw := _flaw(result, shape):
            raise InvalidResponse(f"{flaw[0]}a result of an answer {flaw[1]}")
    return results


def _read_settings(response: Response) -> list[Setting]:
    settings: list[Setting] = _member(response, "settings", [_SETTING])
    return settings


def _given(**fields: Any) -> dict[str, Any]:
    """The fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


def _list(values: Sequence[str] | None) -> list[str] | None:
    if isinstance(values, str):
        raise TypeError("a list of names is expected, not one text")
    return None if values is None else list(values)
