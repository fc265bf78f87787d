"""Adapts generated requests to rules that a schema cannot express."""

import base64
import itertools
import json

import requests
import schemathesis
from schemathesis.generation.meta import TestPhase

# Stored by scripts/check-contract.sh before the run, so that reads find a value and not only misses.
STORED = {"namespace": "scores", "key": "song.wav"}
STORED_SESSION = {"session_id": "tab-7", "item_id": "take-7", "key": "song.wav"}
# Settings with valid values that would make later requests fail, or remove data before it is requested.
TAKEN_BACK = {"max_entry_bytes", "max_database_bytes", "cache_ttl_seconds", "session_ttl_seconds", "max_history_items"}


@schemathesis.serializer("application/x-ndjson")
def lines(context, value):
    """A schema cannot describe lines of JSON: any generated string stands for them."""
    if not isinstance(value, str):
        return json.dumps(value).encode()
    return b'{"kind": "gauge", "name": "lines", "value": 1}\n{"kind": "gauge", "name": "lines", "value": 2}\n'


# What no request of a batch can have of its own.
FIXED_FIELDS = {
    "authorization", "origin", "sec-fetch-site", "connection", "content-length", "cookie", "expect", "te", "trailer",
    "transfer-encoding", "upgrade", "host", "keep-alive", "proxy-connection"}


def raise_to(bounds, body):
    """Raises members of the body that are numbers below their bound."""
    for name, least in bounds.items():
        if isinstance(body.get(name), (int, float)):
            body[name] = max(body[name], least)


@schemathesis.hook
def map_case(context, case):
    """Turns requests that are valid by their form into ones that are valid by their meaning."""
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return case
    if case.query.get("cursor"):
        # A cursor is opaque to clients: only one that the server might have returned is valid.
        position = str(case.query["cursor"])[:100]
        if case.operation.path == "/v1/maintenance/runs":
            position = str(len(position))
        if case.operation.path.startswith("/v1/sessions") or case.operation.path in (
                "/v1/history", "/v1/samples", "/v1/tokens"):
            position = f"{len(position)}.{len(position)}"
        case.query["cursor"] = base64.urlsafe_b64encode(position.encode()).decode().rstrip("=")
    if case.operation.path == "/v1/cache" and case.method == "DELETE" and case.query is not None:
        # Exactly one of the two must be sent.
        if "tag" in case.query:
            case.query.pop("all", None)
        else:
            case.query["all"] = "true"
    if case.operation.path.startswith("/v1/metrics") and case.query:
        # A range ends after it begins, and is no longer than the retention; a metric belongs to its kind.
        case.query.pop("since", None)
        case.query.pop("until", None)
        case.query.pop("metric", None)
        if "source" in case.query:
            case.query.pop("group_by", None)
        if case.query.get("step_seconds"):
            case.query["step_seconds"] = 60
        for pair in ("baseline", "candidate"):
            if case.operation.path.endswith("/summary"):
                case.query.pop(pair, None)
    if case.operation.path == "/v1/samples" and isinstance(case.body, dict):
        for sample in case.body.get("samples", [case.body]):
            # Any instant is valid by its form; those in the future are not.
            sample.pop("recorded_at", None)
    if case.operation.path == "/v1/sql" and isinstance(case.body, dict):
        # Any text is a query by its form; this one has the parameters that were generated.
        params, places = case.body.get("params"), []
        if isinstance(params, dict):
            case.body["params"] = {f"p{number}": value for number, value in enumerate(params.values())}
            places = [f":{name}" for name in case.body["params"]]
        elif params:
            places = ["?"] * len(params)
        case.body["query"] = f"SELECT {', '.join(['key', *places])} FROM cache_overview"
    if case.operation.path == "/v1/batch" and isinstance(case.body, dict):
        # One body for each request, and no fields that are those of the batch.
        for item in case.body.get("requests", []):
            if "json" in item:
                item.pop("base64", None)
            for name in list(item.get("headers") or {}):
                if name.lower() in FIXED_FIELDS:
                    del item["headers"][name]
        if case.body.get("mode") == "parallel":
            case.body.pop("stop_on_error", None)
    if case.operation.path.startswith("/v1/sessions") and isinstance(case.body, dict):
        # A template must exist to be used, and other requests may have removed any.
        case.body.pop("template", None)
    if case.meta.phase.name == TestPhase.STATEFUL:
        # Valid combinations were chosen already. What the next request refers to must still exist.
        if case.operation.path.startswith("/v1/sessions") and isinstance(case.body, dict):
            raise_to({"ttl_seconds": 3600, "max_history_items": 100}, case.body)
        return case
    if case.operation.path.startswith("/v1/sessions/{session_id}/"):
        # Every other request goes to the stored session.
        if len(str(case.path_parameters["session_id"])) % 2 == 0:
            stored = {name: value for name, value in STORED_SESSION.items() if name in case.path_parameters}
            case.path_parameters.update(stored)
        return case
    if "key" in (case.path_parameters or {}) and case.method in ("GET", "HEAD", "POST"):
        # Every other request goes to the stored value.
        if len(str(case.path_parameters["key"])) % 2 == 0:
            case.path_parameters.update(STORED)
    return case


# Makes each valid idempotency key a new one: with a used one, a request is another one's repetition.
SERIAL = itertools.count()


@schemathesis.hook
def before_call(context, case, kwargs):
    """The same for values that are known only once ids from earlier answers have been filled in."""
    positive = case.meta is None or case.meta.generation.mode.is_positive
    if positive and (case.headers or {}).get("Idempotency-Key"):
        case.headers["Idempotency-Key"] = f"{next(SERIAL)}-{case.headers['Idempotency-Key']}"[:128]
    if positive and case.operation.path == "/v1/sessions/{session_id}" and isinstance(case.body, dict):
        # The id in the body must be that in the path.
        case.body.pop("id", None)


@schemathesis.hook
def after_call(context, case, response):
    """Returns settings that other requests depend on to their defaults."""
    if case.method == "PATCH" and case.operation.path == "/v1/config" and response.status_code == 200:
        for setting in response.json()["settings"]:
            if setting["source"] == "runtime" and setting["name"] in TAKEN_BACK:
                requests.delete(f"{response.request.url}/{setting['name']}", timeout=10).raise_for_status()
