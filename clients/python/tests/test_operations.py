"""The operations against `openapi.yaml`, name by name, and each of them against the service."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import io
import re
import typing
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from conftest import ROOT, Service

from reprise_client import AsyncClient, Client, InvalidRequest, NotFound, PreconditionFailed, models
from reprise_client.operations import Operations

CONTRACT: dict[str, Any] = yaml.safe_load((ROOT / "openapi.yaml").read_text())
METHODS = ("get", "put", "post", "delete", "patch", "head")


def resolved(value: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in value:
        found: Any = CONTRACT
        for step in value["$ref"][2:].split("/"):
            found = found[step]
        value = found
    return value


def operations() -> list[tuple[str, str, dict[str, Any], list[dict[str, Any]]]]:
    found = []
    for path, item in CONTRACT["paths"].items():
        shared = item.get("parameters", [])
        for method, described in item.items():
            if method in METHODS:
                parameters = [resolved(p) for p in shared + described.get("parameters", [])]
                found.append((described["operationId"], method, described, parameters))
    return found


OPERATIONS = operations()
IDS = [id for id, *_ in OPERATIONS]


def snake(id: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", id).lower()


#: What the argument of a header field is called.
HEADER_ARGUMENTS = {
    "If-Match": "if_match",
    "If-None-Match": "if_none_match",
    "Range": "byte_range",
    "If-Range": "if_range",
    "Reprise-TTL": "ttl_seconds",
    "Reprise-Tags": "tags",
    "Reprise-Compute-Seconds": "compute_seconds",
    "Content-Encoding": "content_encoding",
}
#: Fields that are not arguments, and why. What is left out here can be sent with `request`.
LEFT_OUT = {
    "If-Modified-Since": "its seconds are coarser than the tag that every answer has",
    "If-Unmodified-Since": "the same",
    "Idempotency-Key": "made for each call, because a key that is used twice is a mistake",
}
#: Conditions that are arguments of a GET; on others the answer 304 would leave nothing to return.
CONDITIONAL_READS = {("getEntry", "If-Match"), ("getEntry", "If-None-Match"),
                     ("getBackup", "If-Match")}
#: Conditions of writes that are not arguments, and why.
CONDITIONS_LEFT_OUT = {
    ("removeNamespace", "If-None-Match"): "there is nothing to remove that is not there",
    ("deleteEntry", "If-None-Match"): "the same",
    ("removeStateValue", "If-None-Match"): "the same",
    ("removeTemplate", "If-None-Match"): "the same",
    ("removeHistoryItem", "If-None-Match"): "the same",
    ("deleteBackup", "If-None-Match"): "the same",
    ("deleteBackup", "If-Match"): "a backup never changes",
    ("touchEntry", "If-None-Match"): "only what is there can be touched",
    ("incrementEntry", "If-None-Match"): "`initial` says what a new counter begins with",
    ("changeSettings", "If-Match"): "settings are changed by name; others do not matter",
    ("changeSettings", "If-None-Match"): "there always are settings",
    ("openSession", "If-Match"): "it changes nothing that is there",
    ("openSession", "If-None-Match"): "`create_session` refuses what is there",
    ("patchState", "If-None-Match"): "there always is a state",
    ("patchHistoryItem", "If-None-Match"): "only what is there can be changed",
}
#: Arguments with another name than the parameter's or the field's, and why.
RENAMED = {
    ("openSession", "id"): ("session_id", "the path has it already"),
    ("revokeToken", "id"): ("id", ""),
}


def arguments(name: str) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(getattr(Operations, name).__wrapped__).parameters)


@pytest.mark.parametrize("id", IDS)
def test_every_operation_is_a_method_of_both_clients(id: str) -> None:
    for kind in (Client, AsyncClient):
        client = kind("http://127.0.0.1:9")
        method = getattr(client, snake(id))
        assert callable(method) and method.__name__ == snake(id) and method.__doc__


def test_every_method_is_an_operation() -> None:
    known = {snake(id) for id in IDS} | {"request"}
    public = {name for name in vars(Operations) if not name.startswith("_")}
    assert public == known


@pytest.mark.parametrize(("id", "method", "described", "parameters"), OPERATIONS, ids=IDS)
def test_everything_the_contract_names_can_be_passed(
    id: str, method: str, described: dict[str, Any], parameters: list[dict[str, Any]]
) -> None:
    if method == "head":
        getter = snake(id).replace("head_", "get_")
        if not hasattr(Operations, getter):
            getter = snake(id).replace("head_", "list_")
        assert hasattr(Operations, getter)
        return
    accepted = arguments(snake(id))
    for parameter in parameters:
        name = parameter["name"]
        if parameter["in"] == "header":
            if name in LEFT_OUT:
                continue
            if name in ("If-Match", "If-None-Match"):
                if method == "get" and (id, name) not in CONDITIONAL_READS:
                    assert HEADER_ARGUMENTS[name] not in accepted
                    continue
                if (id, name) in CONDITIONS_LEFT_OUT:
                    assert HEADER_ARGUMENTS[name] not in accepted, "the table is out of date"
                    continue
            name = HEADER_ARGUMENTS[name]
        name = RENAMED.get((id, name), (name, ""))[0]
        assert name in accepted, f"{id} cannot be given {parameter['name']}"
    if id == "changeSettings":
        assert accepted["changes"].kind is inspect.Parameter.VAR_KEYWORD
        return
    content = resolved(described.get("requestBody", {})).get("content", {})
    for form in content.values():
        for field in resolved(form.get("schema", {})).get("properties", {}):
            name = RENAMED.get((id, field), (field, ""))[0]
            assert name in accepted, f"{id} cannot be given {field}"


@pytest.mark.parametrize("name", [
    name for name, schema in CONTRACT["components"]["schemas"].items()
    if schema.get("properties") and hasattr(models, name)])
def test_models_have_the_fields_of_the_schemas(name: str) -> None:
    schema = CONTRACT["components"]["schemas"][name]
    model = getattr(models, name)
    assert set(model.__annotations__) == set(schema["properties"])
    required = set(schema.get("required", ()))
    if required:
        hints = {field for field, hint in model.__annotations__.items()
                 if "NotRequired" not in str(hint)}
        assert hints == required


#: Answers that the contract describes where they are used.
INLINE = {
    "runSQL": models.SQLRows, "cleanUp": models.Cleanup, "optimizeSession": models.Optimized,
    "getState": models.State, "patchState": models.PatchedState,
    "appendHistory": models.Appended, "getTimings": models.Timings,
    "getMemoryFigures": models.MemoryFigures, "clearEntries": models.Removal,
}


@pytest.mark.parametrize("id", INLINE)
def test_models_have_the_fields_of_answers(id: str) -> None:
    described = next(operation for name, _, operation, _ in OPERATIONS if name == id)
    answer = next(resolved(a) for status, a in described["responses"].items()
                  if str(status).startswith("2"))
    schema = resolved(answer["content"]["application/json"]["schema"])
    assert set(INLINE[id].__annotations__) == set(schema["properties"])


def test_models_with_a_secret_and_an_opening() -> None:
    token = set(typing.get_type_hints(models.NewToken))
    assert token == set(typing.get_type_hints(models.Token)) | {"token"}
    opened = set(typing.get_type_hints(models.OpenedSession))
    described: set[str] = set()
    for branch in CONTRACT["components"]["schemas"]["SessionOpening"]["allOf"]:
        described |= set(resolved(branch).get("properties", {}))
    assert opened == described


# Each operation against the service.


class Caller:
    """Calls operations by name, on either client, and notes which."""

    def __init__(self, client: Client | AsyncClient, called: set[str]) -> None:
        self.client, self.called = client, called

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def call(*arguments: Any, **options: Any) -> Any:
            self.called.add(name)
            result = getattr(self.client, name)(*arguments, **options)
            return await result if inspect.isawaitable(result) else result

        return call


async def tour(call: Caller, name: str) -> None:
    """Calls everything but what needs a token."""
    # The service itself.
    assert (await call.get_liveness())["status"]
    assert (await call.get_readiness())["schema_version"]
    assert "openapi: 3.1" in await call.get_contract()
    assert "<html" in await call.get_dashboard()
    assert "{" in await call.get_dashboard_style()
    assert "function" in await call.get_dashboard_script()
    for head in ("liveness", "readiness", "contract", "dashboard", "dashboard_style",
                 "dashboard_script", "namespaces", "settings", "maintenance_runs", "backups",
                 "diagnostics", "sessions", "templates", "all_history", "samples", "timings",
                 "memory_figures", "cache_figures", "session_figures", "summary",
                 "prometheus_metrics"):
        fields = await getattr(call, f"head_{head}")()
        assert fields.get("content-type"), head

    # Entries.
    stored = await call.put_entry(name, "a/ü?%", b"value", content_type="text/plain",
                                  ttl_seconds=60.5, tags=["one", "two"], compute_seconds=1.25)
    assert stored.created and stored.etag and stored.expires_at
    entry = await call.get_entry(name, "a/ü?%")
    assert entry.body == b"value" and entry.content_type == "text/plain"
    assert entry.etag == stored.etag and 55 < (entry.expires_in_seconds or 0) <= 61
    same = await call.get_entry(name, "a/ü?%", if_none_match=entry.etag)
    assert not same.is_modified and same.body == b""
    part = await call.get_entry(name, "a/ü?%", byte_range=(1, 2), if_match=entry.etag,
                                if_range=entry.etag)
    assert part.status == 206 and part.body == b"al"
    assert (await call.get_entry(name, "a/ü?%", byte_range=(3, None))).body == b"ue"
    assert (await call.head_entry(name, "a/ü?%"))["Content-Length"] == "5"
    assert (await call.head_entry(name, "a/ü?%", if_none_match=entry.etag))["etag"] == entry.etag
    with pytest.raises(NotFound) as missed:
        await call.get_entry(name, "absent")
    assert missed.value.code == "cache_miss" and missed.value.problem["reason"] == "absent"
    with pytest.raises(PreconditionFailed):
        await call.put_entry(name, "a/ü?%", b"other", if_none_match="*")
    with pytest.raises(PreconditionFailed):
        await call.put_entry(name, "a/ü?%", b"other", if_match='"another"')
    assert not (await call.put_entry(name, "a/ü?%", b"value", if_match=entry.etag)).created
    forever = await call.put_entry(name, "forever", b"", ttl_seconds=None)
    assert forever.expires_at is None
    assert (await call.get_entry(name, "forever")).expires_at is None
    await call.put_entry(name, "packed", b"z", content_encoding="zstd")
    assert (await call.get_entry(name, "packed")).content_encoding == "zstd"
    metadata = await call.get_metadata(name, "a/ü?%")
    assert metadata["key"] == "a/ü?%" and metadata["size_bytes"] == 5
    assert (await call.head_metadata(name, "a/ü?%"))["content-type"] == "application/json"
    assert (await call.touch_entry(name, "forever", ttl_seconds=9))["ttl_seconds"] == 9
    assert await call.increment_entry(name, "n", delta=2, initial=40) == 42
    page = await call.list_entries(name, limit=2)
    assert len(page.items) == 2 and page.next_cursor
    rest = await call.list_entries(name, limit=2, cursor=page.next_cursor)
    assert {e["key"] for e in page.items + rest.items} == {"a/ü?%", "forever", "packed", "n"}
    assert (await call.head_entries(name))["content-type"] == "application/json"
    results = await call.run_batch(name, [
        {"op": "set", "key": "b", "json": [1]}, {"op": "get", "key": "b"},
        {"op": "increment", "key": "n"}, {"op": "get", "key": "absent"}])
    assert [r["status"] for r in results] == [201, 200, 200, 404]
    await call.delete_entry(name, "b")
    await call.delete_entry(name, "b")
    would = await call.clear_entries(name, prefix="pack", dry_run=True)
    assert would["removed"] == 1
    assert (await call.clear_entries(name, prefix="pack"))["removed"] == 1

    # Namespaces.
    assert (await call.get_namespace(name))["entry_count"] >= 3
    assert (await call.head_namespace(name))["etag"]
    policy = (await call.set_policy(name, ttl_seconds=5, max_entries=9, eviction="lfu"))["policy"]
    assert policy["ttl_seconds"] == 5 and policy["eviction"] == "lfu"
    with pytest.raises(PreconditionFailed):
        await call.set_policy(name, ttl_seconds=5, if_match='"another"')
    assert any(n["namespace"] == name for n in (await call.list_namespaces(limit=500)).items)
    await call.put_entry(name, "tagged", b"1", tags=[name])
    assert (await call.clear_namespaces(tag=name))["removed"] == 1
    with pytest.raises(InvalidRequest):
        await call.clear_namespaces()
    await call.remove_namespace(name)

    # Templates and sessions.
    template = await call.set_template(name, {"page": 1}, max_history_items=3, ttl_seconds=3600,
                                       if_none_match="*")
    assert template["defaults"] == {"page": 1}
    assert (await call.get_template(name))["max_history_items"] == 3
    assert (await call.head_template(name))["etag"]
    assert any(t["name"] == name for t in (await call.list_templates(limit=500)).items)
    created = await call.create_session(ttl_seconds=None, template=name, metadata={"a": 1},
                                        state={"b": 2}, max_history_items=2)
    session = created["id"]
    assert created["ttl_seconds"] is None and created["template"] == name
    opened = await call.open_session(f"s-{name}", defaults={"page": 4, "x": None},
                                     ttl_seconds=500, include=["state", "history"])
    assert opened["state"] == {"page": 4, "x": None} and opened["history"] == []
    assert (await call.get_session(session))["id"] == session
    assert (await call.head_session(session))["etag"]
    listed = (await call.list_sessions(active_within_seconds=3600, limit=500)).items
    assert {session, f"s-{name}"} <= {s["id"] for s in listed}
    assert (await call.touch_session(session))["id"] == session

    # State.
    state = await call.get_state(session)
    assert state["state"] == {"page": 1, "b": 2}
    assert (await call.get_state(session, keys=["b"]))["state"] == {"b": 2}
    assert (await call.head_state(session))["etag"]
    patched = await call.patch_state(session, set={"c": [1], "temp_x": 1}, set_default={"b": 9},
                                     delete=["page"], if_match=state["version"])
    assert patched["version"] > state["version"]
    with pytest.raises(PreconditionFailed):
        await call.patch_state(session, set={"c": 2}, if_match=state["version"])
    assert (await call.patch_state(f"new-{name}", set={"a": 1}, create=True))["version"]
    await call.set_state_value(session, "ü/k", None)
    assert await call.get_state_value(session, "ü/k") is None
    assert (await call.head_state_value(session, "ü/k"))["etag"]
    with pytest.raises(PreconditionFailed):
        await call.set_state_value(session, "ü/k", 1, if_none_match="*")
    await call.remove_state_value(session, "ü/k")
    with pytest.raises(NotFound):
        await call.get_state_value(session, "ü/k")
    optimized = await call.optimize_session(session, keep=[])
    assert optimized["keys_removed"] == ["temp_x"]
    first = await call.debounce(session, "save", delay_seconds=60)
    second = await call.debounce(session, "save", delay_seconds=60)
    assert first["allowed"] and not second["allowed"]

    # History.
    appended = [await call.append_history(session, {"n": n}, kind="note") for n in range(3)]
    assert appended[2]["removed"] == 1
    item = appended[2]["item"]["id"]
    again = await call.append_history(session, {"n": 2}, id=item, kind="note")
    assert again["item"]["id"] == item and again["removed"] == 0
    page = await call.list_history(session, kind="note", order="oldest", limit=1)
    assert page.items[0]["data"] == {"n": 1} and page.next_cursor
    assert (await call.head_history(session))["content-type"] == "application/json"
    assert (await call.get_history_item(session, item))["data"] == {"n": 2}
    assert (await call.head_history_item(session, item))["etag"]
    changed = await call.patch_history_item(session, item, {"rating": 5, "n": None})
    assert changed["data"] == {"rating": 5}
    everywhere = await call.list_all_history(kind="note", limit=500)
    assert any(i["session_id"] == session for i in everywhere.items)
    await call.remove_history_item(session, item)
    assert await call.clear_history(session) == 1
    await call.remove_session(session)
    assert await call.remove_inactive_sessions(86_400, dry_run=True) == 0
    await call.remove_template(name)

    # Samples and figures.
    receipt = await call.record_samples(
        [{"kind": "timing", "name": name, "duration_seconds": 0.1 * n, "variant": "ab"[n % 2]}
         for n in range(1, 5)]
        + [{"kind": "memory", "name": name, "rss_bytes": 1, "vms_bytes": 2, "percent": 3.0}])
    assert receipt["accepted"] == 5
    assert len((await call.get_samples(kind="timing", name=name, limit=3)).items) == 3
    timings = await call.get_timings(name=name, group_by="variant")
    assert {t["variant"]: t["count"] for t in timings["items"]} == {"a": 2, "b": 2}
    series = await call.get_time_series(kind="timing", name=name, stat="count", step_seconds=60)
    assert sum(b["value"] or 0 for b in series["buckets"]) == 4
    assert (await call.head_time_series(kind="timing", name=name, stat="count"))["content-type"]
    assert (await call.get_memory_figures(name=name))["items"][0]["rss_bytes"]["max"] == 1
    assert "totals" in await call.get_cache_figures()
    assert (await call.get_session_figures())["session_count"] >= 1
    compared = await call.get_comparison("a", "b", name=name)
    assert compared["items"][0]["verdict"] == "too_few_samples"
    assert (await call.head_comparison("a", "b"))["content-type"]
    assert await call.get_summary()
    assert "# HELP" in await call.get_prometheus_metrics()
    rows = await call.run_sql("SELECT ? AS n", [7], limit=1)
    assert rows["columns"] == ["n"] and rows["rows"] == [[7]]

    # Many in one.
    answers = await call.run_requests(
        [{"id": "1", "method": "GET", "path": "/v1/cache"},
         {"method": "GET", "path": f"/v1/sessions/absent-{name}"}], mode="parallel")
    assert [a["status"] for a in answers] == [200, 404] and answers[0]["id"] == "1"

    # Configuration and operation.
    settings = await call.list_settings()
    assert any(s["name"] == "cache_ttl_seconds" for s in settings)
    await call.change_settings(cache_ttl_seconds=321)
    assert (await call.get_setting("cache_ttl_seconds"))["value"] == 321
    assert (await call.head_setting("cache_ttl_seconds"))["content-type"]
    await call.drop_setting("cache_ttl_seconds")
    assert (await call.get_setting("cache_ttl_seconds"))["source"] == "default"
    cleaned = await call.clean_up(tasks=["cache_expiry"], dry_run=True)
    assert cleaned["dry_run"] and cleaned["tasks"][0]["task"] == "cache_expiry"
    await call.clean_up(tasks=["cache_expiry"])
    assert (await call.list_maintenance_runs(limit=1)).items
    assert (await call.get_diagnostics())["status"] in ("ok", "warning", "critical")
    backup = await call.create_backup()
    assert any(b["name"] == backup["name"] for b in (await call.list_backups()).items)
    whole = await call.get_backup(backup["name"])
    assert hashlib.sha256(whole.body).hexdigest() == backup["sha256"]
    part = await call.get_backup(backup["name"], byte_range=(0, 15))
    assert part.body == b"SQLite format 3\0"
    assert int((await call.head_backup(backup["name"]))["content-length"]) == backup["size_bytes"]
    target = io.BytesIO()
    await call.download_backup(backup["name"], target)
    assert target.getvalue() == whole.body
    await call.delete_backup(backup["name"])
    with pytest.raises(NotFound):
        await call.delete_backup(backup["name"])

    # Anything else.
    raw = await call.request("POST", "/v1/sql", json={"query": "SELECT 1 AS one"},
                             headers={"Accept": "text/csv"})
    assert raw.body.split() == [b"one", b"1"]


async def tour_with_token(call: Caller, made: Callable[[str], Caller]) -> None:
    new = await call.create_token("all", ["admin"], expires_in_seconds=600)
    call = made(new["token"])
    assert (await call.get_own_token())["name"] == "all"
    assert (await call.head_own_token())["content-type"] == "application/json"
    limited = await call.create_token("some", ["read"], namespaces=["a*"])
    assert limited["namespaces"] == ["a*"]
    assert {t["name"] for t in (await call.list_tokens()).items} == {"all", "some"}
    assert (await call.head_tokens())["content-type"]
    await call.revoke_token(limited["id"])
    assert {t["name"] for t in (await call.list_tokens()).items} == {"all"}


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_every_operation_against_the_service(
    kind: type[Client] | type[AsyncClient], service: Service, name: str
) -> None:
    called: set[str] = set()

    async def whole() -> None:
        await tour(Caller(kind(service.url, timeout=30), called), name)
        await tour_with_token(
            Caller(kind(service.url, timeout=30), called),
            lambda token: Caller(kind(service.url, token=token, timeout=30), called))

    asyncio.run(whole())
    assert {snake(id) for id in IDS} - called == set()


# What the methods refuse, and how they send.


def test_arguments_that_cannot_be_sent() -> None:
    client = Client("http://127.0.0.1:9", retries=0)
    with pytest.raises(TypeError, match="a name or key is text"):
        client.get_entry("a", 1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="cannot be empty"):
        client.get_entry("", "a")
    with pytest.raises(ValueError, match="finite"):
        client.put_entry("a", "b", b"", ttl_seconds=float("inf"))
    with pytest.raises(TypeError, match="not one text"):
        client.put_entry("a", "b", b"", tags="one")
    with pytest.raises(ValueError, match="commas"):
        client.put_entry("a", "b", b"", tags=["a,b"])
    with pytest.raises(TypeError, match="not one text"):
        client.patch_state("s", delete="abc")
    with pytest.raises(ValueError):
        client.set_state_value("s", "k", float("nan"))
    with pytest.raises(TypeError):
        client.set_state_value("s", "k", object())
    with pytest.raises(ValueError, match="give json or body"):
        client.request("POST", "/", json=1, body=b"1")
    with pytest.raises(TypeError, match="encode it"):
        client.put_entry("a", "b", "text")
    assert client.statistics()["calls"] == 0


@pytest.mark.parametrize("body", [io.StringIO("text"), ["text"], iter(["a"])])
def test_bodies_that_are_not_bytes(client: Client, name: str, body: Any) -> None:
    with pytest.raises(TypeError, match="consists of bytes"):
        client.put_entry(name, "b", body)
    assert client.is_available


@pytest.mark.parametrize("key", ["a/b", ".", "..", "a b", "%2F", "ü", "?#", "a&b=c,d", "~", "🎵"])
def test_any_key_arrives_as_it_is(client: Client, name: str, key: str) -> None:
    client.put_entry(name, key, key.encode())
    assert client.get_entry(name, key).body == key.encode()
    assert [e["key"] for e in client.list_entries(name).items] == [key]
    client.patch_state(name, set={key: 1, "other": 2}, create=True)
    assert client.get_state(name, keys=[key])["state"] == {key: 1}


def test_what_is_not_repeatable_carries_a_key_or_is_sent_once() -> None:
    client = Client("http://127.0.0.1:9")

    def request(build: Any, *arguments: Any, **options: Any) -> Any:
        return build.flow(client, *arguments, **options).request

    for made in (
        request(Operations.increment_entry, "a", "b"),
        request(Operations.debounce, "a", "b"),
        request(Operations.create_session),
        request(Operations.record_samples, []),
        request(Operations.patch_state, "a", set={}, if_match=1),
        request(Operations.patch_history_item, "a", "b", {}, if_match=1),
        request(Operations.run_batch, "a", [{"op": "increment", "key": "k"}]),
        request(Operations.run_requests, [{"method": "POST", "path": "/"}]),
    ):
        assert made.repeatable and len(made.headers["Idempotency-Key"]) == 32
    for made in (
        request(Operations.put_entry, "a", "b", b"", if_match='"1"'),
        request(Operations.put_entry, "a", "b", b"", if_none_match="*"),
        request(Operations.delete_entry, "a", "b", if_match='"1"'),
        request(Operations.set_state_value, "a", "b", 1, if_match=1),
        request(Operations.set_policy, "a", if_match='"1"'),
        request(Operations.set_template, "a", {}, if_none_match="*"),
        request(Operations.create_token, "a", ["read"]),
        request(Operations.create_backup),
    ):
        assert not made.repeatable and "Idempotency-Key" not in (made.headers or {})
    for made in (
        request(Operations.get_entry, "a", "b"),
        request(Operations.put_entry, "a", "b", b""),
        request(Operations.delete_entry, "a", "b"),
        request(Operations.run_batch, "a", [{"op": "get", "key": "k"}]),
        request(Operations.append_history, "a", 1),
        request(Operations.run_sql, "SELECT 1"),
    ):
        assert made.repeatable and "Idempotency-Key" not in (made.headers or {})
    keys = {request(Operations.increment_entry, "a", "b").headers["Idempotency-Key"]
            for _ in range(100)}
    assert len(keys) == 100
