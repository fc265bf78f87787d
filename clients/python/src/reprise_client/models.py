"""The shapes of answers, as `openapi.yaml` describes them. Instants are RFC 3339 text in UTC."""

from __future__ import annotations

import sys
from typing import Any, Generic, Literal, TypedDict, TypeVar, Union

if sys.version_info >= (3, 11):
    from typing import NotRequired
else:  # pragma: no cover
    from typing_extensions import NotRequired

T = TypeVar("T")


class Page(Generic[T]):
    """One page of a list; `next_cursor` is None on the last one."""

    __slots__ = ("items", "next_cursor")

    def __init__(self, items: list[T], next_cursor: str | None) -> None:
        self.items = items
        self.next_cursor = next_cursor

    def __repr__(self) -> str:
        return f"Page({len(self.items)} items, next_cursor={self.next_cursor!r})"


class MissesByReason(TypedDict):
    """Misses by the `reason` of their answer. More reasons may be added."""

    absent: int
    expired: int
    evicted: int
    deleted: int
    cleared: int


class Namespace(TypedDict):
    """A namespace of the cache, with its policy and figures."""

    namespace: str
    policy: dict[str, Any]
    entry_count: int
    size_bytes: int
    hits: int
    misses: int
    hit_ratio: float | None
    expirations: int
    evictions: int
    misses_by_reason: MissesByReason


class Metadata(TypedDict):
    """What is known of an entry, without its value."""

    key: str
    namespace: str
    size_bytes: int
    content_type: str
    content_encoding: str | None
    etag: str
    created_at: str
    updated_at: str
    expires_at: str | None
    ttl_seconds: float | None
    expires_in_seconds: float | None
    hit_count: int
    last_accessed_at: str | None
    tags: list[str]
    compute_seconds: float | None


class OperationResult(TypedDict):
    """What became of one operation of a batch, with a status as if sent alone."""

    key: str | None
    status: Any
    etag: NotRequired[str]
    content_type: NotRequired[str]
    content_encoding: NotRequired[str]
    expires_at: NotRequired[str | None]
    json: NotRequired[Any]
    base64: NotRequired[str]
    value: NotRequired[int]
    removed: NotRequired[bool]
    problem: NotRequired[dict[str, Any]]


class MaintenanceRun(TypedDict):
    """One run of a background task."""

    id: int
    task: str
    trigger: Literal["startup", "interval", "deadline", "backlog", "demand"]
    started_at: str
    duration_seconds: float
    removed: int
    freed_bytes: int
    error: str | None


class Backup(TypedDict):
    """A snapshot of the database."""

    name: str
    created_at: str
    size_bytes: int
    sha256: str
    duration_seconds: float


class Finding(TypedDict):
    """Something that the operator should know, and what to do about it."""

    severity: Literal["info", "warning", "critical"]
    code: str
    title: str
    detail: str
    evidence: dict[str, Any]
    remedy: str


class Diagnosis(TypedDict):
    """How the service is."""

    status: Literal["ok", "warning", "critical"]
    findings: list[Finding]


class Setting(TypedDict):
    """One setting and where its value comes from."""

    name: str
    value: str | float | bool | None
    default: str | float | bool | None
    source: Literal["default", "file", "environment", "flag", "runtime"]
    unit: str | None
    description: str
    mutable: bool


class Token(TypedDict):
    """A token, without its secret."""

    id: str
    name: str
    scopes: list[Literal["read", "write", "admin"]]
    namespaces: list[str] | None
    created_at: str | None
    expires_at: str | None
    last_used_at: str | None


class Session(TypedDict):
    """A session, without its state and history."""

    id: str
    created_at: str
    last_active_at: str
    expires_at: str | None
    ttl_seconds: float | None
    version: int
    template: str | None
    metadata: dict[str, Any]
    state_key_count: int
    state_size_bytes: int
    history_count: int
    history_size_bytes: int


class HistoryItem(TypedDict):
    """One item of a history."""

    id: str
    session_id: str
    kind: str | None
    data: Any
    created_at: str
    updated_at: str
    size_bytes: int


class SessionTemplate(TypedDict):
    """What sessions that name it begin with."""

    name: str
    defaults: dict[str, Any]
    ttl_seconds: float | None
    max_history_items: int
    created_at: str
    updated_at: str


class Debounce(TypedDict):
    """Whether a debounced action may happen now."""

    allowed: bool
    retry_after_seconds: float
    last_allowed_at: str


class StoredSample(TypedDict):
    """A sample as it is stored; more keys by kind."""

    kind: Literal["timing", "memory", "gauge"]
    name: str
    recorded_at: str
    session_id: str | None
    labels: dict[str, Any]


class SampleReceipt(TypedDict):
    """How many samples were stored."""

    accepted: int
    monitoring: NotRequired[Literal["disabled"]]
    folded: NotRequired[int]
    folded_into: NotRequired[Literal["__other__"]]
    folded_names: NotRequired[list[str]]


class Timing(TypedDict):
    """The timings of one name."""

    name: str
    variant: NotRequired[str | None]
    cache: NotRequired[str | None]
    session_id: NotRequired[str | None]
    count: int
    error_count: int
    min_seconds: float
    max_seconds: float
    mean_seconds: float
    p50_seconds: float
    p90_seconds: float
    p95_seconds: float
    p99_seconds: float
    cache_hit_ratio: float | None


class TimeSeries(TypedDict):
    """One figure over time."""

    kind: Literal["timing", "memory", "gauge"]
    name: str
    metric: str
    stat: str
    unit: str | None
    since: str
    until: str
    resolution: Literal["raw", "minute", "hour", "six_hours"]
    step_seconds: float
    buckets: list[dict[str, Any]]


class Level(TypedDict):
    """A figure of memory over a range of time."""

    latest: float | None
    min: float | None
    max: float | None
    mean: float | None


class MemoryLevels(TypedDict):
    """The memory figures of one name."""

    name: str
    count: int
    rss_bytes: Level
    vms_bytes: Level
    percent: Level


class CacheTotals(TypedDict):
    """All namespaces together."""

    hits: int
    misses: int
    hit_ratio: float | None
    misses_by_reason: dict[str, Any]
    entry_count: int
    size_bytes: int
    expirations: int
    evictions: int


class CacheFigures(TypedDict):
    """The figures of one namespace over a range of time."""

    namespace: str
    hits: int
    misses: int
    hit_ratio: float | None
    misses_by_reason: MissesByReason
    entry_count: int
    size_bytes: int
    expirations: int
    evictions: int


class CacheRange(TypedDict):
    """The figures of the cache over a range of time."""

    since: str
    until: str
    resolution: Literal["minute", "hour"]
    namespace_count: int
    named_count: int
    totals: CacheTotals
    items: list[CacheFigures]


class SessionFigures(TypedDict):
    """How many sessions there are, and how large."""

    session_count: int
    state_key_count: int
    state_size_bytes: int
    largest: list[dict[str, Any]]


class ComparedVariant(TypedDict):
    """One side of a comparison."""

    count: int
    p50_seconds: float | None
    p95_seconds: float | None


class BatchedResponse(TypedDict):
    """The answer of one request of a batch."""

    id: str | None
    status: int
    headers: dict[str, Any]
    json: NotRequired[Any]
    base64: NotRequired[str]
    omitted: NotRequired[str]


class Removal(TypedDict):
    """What a removal removed, or would remove."""

    removed: int
    freed_bytes: int


class CleanedTask(TypedDict):
    """What one task of a cleanup did, or would do."""

    task: str
    removed: int
    freed_bytes: int
    duration_seconds: float
    error: NotRequired[str]


class Cleanup(TypedDict):
    """What a cleanup did, or would do."""

    dry_run: bool
    tasks: list[CleanedTask]


class NewToken(Token):
    """A new token, with its secret, which is shown only once."""

    token: str


class OpenedSession(Session):
    """A session that was opened, with what was asked to be included."""

    initialized_keys: list[str]
    state: NotRequired[dict[str, Any]]
    history: NotRequired[list[HistoryItem]]
    history_next_cursor: NotRequired[Union[str, None]]


class State(TypedDict):
    """A session's state and its version."""

    state: dict[str, Any]
    version: int


class PatchedState(TypedDict):
    """What a patch of a state did."""

    version: int
    initialized_keys: list[str]
    removed_keys: list[str]
    state_key_count: int
    state_size_bytes: int


class Optimized(TypedDict):
    """What went when a session was optimized."""

    history_removed: int
    keys_removed: list[str]
    freed_bytes: int


class Appended(TypedDict):
    """An item that was appended, and how many old ones went."""

    item: HistoryItem
    removed: int


class Timings(TypedDict):
    """Timings by name over a range of time."""

    since: str
    until: str
    resolution: str
    items: list[Timing]


class MemoryFigures(TypedDict):
    """Memory figures by name over a range of time."""

    since: str
    until: str
    resolution: str
    items: list[MemoryLevels]


class ComparedOperation(TypedDict):
    """One name, measured with both variants."""

    name: str
    baseline: ComparedVariant
    candidate: ComparedVariant
    change_percent: dict[str, Union[float, None]]
    confidence_interval_percent: dict[str, Union[list[float], None]]
    interval_reasons: dict[str, Union[str, None]]
    verdict: Literal["faster", "slower", "no_difference", "too_few_samples"]


class Comparison(TypedDict):
    """Two variants compared, name by name."""

    since: NotRequired[str]
    until: NotRequired[str]
    resolution: NotRequired[str]
    baseline: str
    candidate: str
    items: list[ComparedOperation]


class SQLRows(TypedDict):
    """The rows of a query."""

    columns: list[str]
    rows: list[list[Union[str, int, float, None]]]
    row_count: int
    truncated: bool
    elapsed_seconds: float
