"""Everything that can go wrong between the app and the service, for both clients.

Each fault raises the exception that it should, with a text that says what happened, within the
call's budget, and leaves nothing open.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from bad_server import (
    OK,
    BadServer,
    Behaviour,
    Visit,
    always,
    answer,
    in_order,
    once,
    problem,
    refusing_port,
)

from conftest import Service
from reprise_client import (
    AsyncClient,
    CircuitOpen,
    Client,
    ConnectFailed,
    ConnectionLost,
    Forbidden,
    InvalidRequest,
    InvalidResponse,
    NotFound,
    RepriseError,
    ServerError,
    StorageFull,
    TimedOut,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
    limits,
)
from reprise_client.errors import problem_error

#: Seconds for a call, and how much more is too much on a busy machine.
BUDGET = 0.6
FACTOR = 30


def hang(visit: Visit) -> None:
    visit.read_request()
    visit.hang()


def slow_head(visit: Visit) -> None:
    visit.read_request()
    visit.drip(OK)


def slow_body(visit: Visit) -> None:
    visit.read_request()
    visit.write(b"HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: 100000\r\n\r\n")
    visit.drip(b"x" * 100_000)


def slow_chunks(visit: Visit) -> None:
    visit.read_request()
    visit.write(b"HTTP/1.1 200 OK\r\nETag: \"1\"\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not visit.pause(0.02):
        visit.write(b"1\r\nx\r\n")


def slow_interim(visit: Visit) -> None:
    visit.read_request()
    while not visit.pause(0.02):
        visit.write(b"HTTP/1.1 102 Processing\r\n\r\n")


def endless_head(visit: Visit) -> None:
    visit.read_request()
    visit.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        visit.write(b"X-Field: and so on\r\n" * 100)


def endless_body(visit: Visit) -> None:
    visit.read_request()
    visit.write(b"HTTP/1.1 200 OK\r\nETag: \"1\"\r\n\r\n")
    while True:
        visit.write(b"x" * 65536)


def endless_chunks(visit: Visit) -> None:
    visit.read_request()
    visit.write(b"HTTP/1.1 200 OK\r\nETag: \"1\"\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        visit.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")


def reset(visit: Visit) -> None:
    visit.read_request()
    visit.reset()


def reset_in_the_body(visit: Visit) -> None:
    visit.read_request()
    visit.write(b"HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: 9\r\n\r\nabc")
    visit.pause(0.05)
    visit.reset()


class Fault(NamedTuple):
    name: str
    behaviour: Behaviour
    raises: type[Exception] | tuple[type[Exception], ...]
    text: str
    #: With two retries.
    attempts: int
    #: Whether it is a failure (no answer) or a problem.
    is_failure: bool = True


HTML = b"<html><body><h1>It works</h1></body></html>"
LOST_OR_RESET = "closed the connection before|connection broke|could not be sent"

FAULTS = [
    Fault("hangs", hang, TimedOut, "time was over before its answer", 1),
    Fault("accepts only", lambda visit: visit.hang(), TimedOut, "time was over", 1),
    Fault("slow head", slow_head, TimedOut, "time was over before its answer", 1),
    Fault("slow body", slow_body, TimedOut, "time was over before its answer", 1),
    Fault("slow chunks", slow_chunks, TimedOut, "time was over before its answer", 1),
    Fault("slow interim answers", slow_interim, TimedOut, "time was over before its answer", 1),
    Fault("closes at once", lambda visit: None, ConnectionLost, LOST_OR_RESET, 3),
    Fault("closes after the request", once(b""), ConnectionLost, "before it answered", 3),
    Fault("resets", reset, ConnectionLost, LOST_OR_RESET, 3),
    Fault("cut in the head", once(OK[:30]), ConnectionLost, "before it answered|middle", 3),
    Fault("cut in the body", once(OK[:-1]), ConnectionLost, "ended (after 1 of 2 bytes|in the mid)",
          3),
    Fault("reset in the body", reset_in_the_body, ConnectionLost, "broke|ended", 3),
    Fault("cut in a chunk", once(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"),
          ConnectionLost, "in the middle of an answer", 3),
    Fault("garbage", once(b"\x80\x01garbage\r\n\r\n"), InvalidResponse, "not HTTP", 3),
    Fault("another protocol", once(b"220 smtp.example.com ESMTP\r\n"), InvalidResponse,
          "not HTTP", 3),
    Fault("speaks first", lambda visit: visit.write(b"SSH-2.0-x\r\n"),
          (InvalidResponse, ConnectionLost), "not HTTP|broke|could not be sent", 3),
    Fault("changes the protocol",
          once(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
          InvalidResponse, "another protocol", 3),
    Fault("two lengths", once(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"),
          InvalidResponse, "Content-Length", 3),
    Fault("endless head", endless_head, InvalidResponse, "head has more than 65536 bytes", 3),
    Fault("promises too much",
          once(b"HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: 999999999999\r\n\r\n"),
          InvalidResponse, "999999999999 bytes, more than 268435456; read it as a stream", 3),
    Fault("wrong length", once(answer(b"12345").replace(b"Length: 5", b"Length: 9")),
          ConnectionLost, "ended (after 5 of 9 bytes|in the middle)", 3),
    # Answers.
    Fault("401", always(problem(401, "unauthenticated")), Unauthenticated,
          r"401 unauthenticated: It failed \(request r-1\)", 1, False),
    Fault("403", always(problem(403, "forbidden")), Forbidden, "forbidden", 1, False),
    Fault("404", always(problem(404, "cache_miss")), NotFound, "cache_miss", 1, False),
    Fault("413", always(problem(413, "payload_too_large")), InvalidRequest, "413", 1, False),
    Fault("429", always(problem(429, "slow_down")), TooManyRequests, "slow_down", 3, False),
    Fault("429 for long", always(problem(429, "slow_down", Retry_After="60")), TooManyRequests,
          "slow_down", 1, False),
    Fault("500", always(problem(500, "internal")), ServerError, "500 internal", 1, False),
    Fault("502 of a proxy", always(answer(HTML, 502, kind="text/html")), ServerError,
          "502: the answer is not a problem document: '<html>", 3, False),
    Fault("503", always(problem(503, "busy")), Unavailable, "503 busy", 3, False),
    Fault("503 for long", always(problem(503, "busy", Retry_After="60")), Unavailable, "busy", 1,
          False),
    Fault("507", always(problem(507, "disk_full")), StorageFull, "507 disk_full", 1, False),
    Fault("a problem that is no JSON",
          always(answer(b"[" * 200_000, 400, kind="application/problem+json")), InvalidRequest,
          "400: the answer is not a problem", 1, False),
    Fault("a problem of another shape", always(answer(
        b'{"code":[1],"errors":[1,{"field":2}],"status":"x"}', 422,
        kind="application/problem+json")), InvalidRequest, "422", 1, False),
]


async def call(client: Client | AsyncClient, method: str, *arguments: Any, **options: Any) -> Any:
    result = getattr(client, method)(*arguments, **options)
    return await result if inspect.isawaitable(result) else result


async def close(client: Client | AsyncClient) -> None:
    closing = client.close()
    if closing is not None:
        await closing


def places(client: Client | AsyncClient) -> int:
    if isinstance(client, Client):
        return client._pool._free.qsize()
    return client._pool._pool()._free


@contextlib.contextmanager
def in_time(budget: float = BUDGET) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < budget * FACTOR


KINDS = pytest.mark.parametrize("kind", [Client, AsyncClient])


@KINDS
@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
async def test_faults(kind: type[Client] | type[AsyncClient], fault: Fault) -> None:
    patient = fault.raises is not TimedOut
    budget = 30.0 if patient else BUDGET
    with BadServer(fault.behaviour) as server:
        client = kind(server.url, timeout=budget)
        with in_time(BUDGET), pytest.raises(fault.raises, match=fault.text) as raised:
            await call(client, "get_entry", "a", "b")
        assert isinstance(raised.value, RepriseError)
        counted = client.statistics()
        assert counted["calls"] == 1 and counted["attempts"] == fault.attempts
        assert counted["retries"] == fault.attempts - 1
        assert counted["failures"] == fault.is_failure
        assert counted["problems"] == (not fault.is_failure)
        assert bool(counted["last_error"]) == fault.is_failure
        assert places(client) == limits.MAX_CONNECTIONS
        await close(client)
        await asyncio.to_thread(server.wait_until_left)


@KINDS
@pytest.mark.parametrize("behaviour", [endless_body, endless_chunks])
async def test_an_endless_body(
    kind: type[Client] | type[AsyncClient], behaviour: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_BODY_BYTES", 5_000_000)
    with BadServer(behaviour) as server:
        client = kind(server.url, timeout=30, retries=0)
        with in_time(), pytest.raises(InvalidResponse, match="more than 5000000 bytes"):
            await call(client, "get_entry", "a", "b")
        await close(client)
        await asyncio.to_thread(server.wait_until_left)


@KINDS
async def test_nobody_listens(kind: type[Client] | type[AsyncClient]) -> None:
    with refusing_port() as port:
        client = kind(f"http://127.0.0.1:{port}", timeout=30)
        with in_time(), pytest.raises(
                ConnectFailed, match=f"cannot reach http://127.0.0.1:{port}: Connect") as refused:
            await call(client, "get_entry", "a", "b")
        assert not refused.value.sent
        assert client.statistics()["attempts"] == 3 and not client.is_available
        with pytest.raises(CircuitOpen, match=r"3 times in a row; the next attempt is made in"):
            await call(client, "get_entry", "a", "b")
        assert client.statistics()["circuit"] == "open"


@KINDS
async def test_no_such_host(kind: type[Client] | type[AsyncClient]) -> None:
    client = kind("http://reprise.invalid", timeout=30, retries=0)
    with pytest.raises(ConnectFailed, match="cannot reach http://reprise.invalid"):
        await call(client, "get_entry", "a", "b")


#: Answers that are no answers of the service, though they are good HTTP.
FOREIGN = [
    ("HTML", answer(HTML, kind="text/html").replace(b"ETag: \"1\"\r\n", b""), "no ETag",
     "is not JSON"),
    ("a redirect", answer(b"", 301, Location="https://elsewhere/").replace(b"ETag", b"X-ETag"),
     "redirect .301. to 'https://elsewhere/'", "redirect"),
    ("a redirect to nowhere", answer(b"", 302), "has status 302", "has status 302"),
    ("300", answer(b"", 300), "has status 300", "has status 300"),
    ("other JSON", answer(b"[1]").replace(b"ETag", b"X-ETag"), "no ETag", "is not a JSON object"),
    ("deep JSON", answer(b"[" * 200_000).replace(b"ETag", b"X-ETag"), "no ETag", "is not JSON"),
    ("nothing", answer(b"").replace(b"ETag", b"X-ETag"), "no ETag", "is not JSON"),
]


@KINDS
@pytest.mark.parametrize(("data", "entry", "listing"), [f[1:] for f in FOREIGN],
                         ids=[f[0] for f in FOREIGN])
async def test_foreign_answers(
    kind: type[Client] | type[AsyncClient], data: bytes, entry: str, listing: str
) -> None:
    with BadServer(always(data)) as server:
        client = kind(server.url, timeout=30)
        with pytest.raises(InvalidResponse, match=entry):
            await call(client, "get_entry", "a", "b")
        for method, arguments in (("list_namespaces", ()), ("list_settings", ()),
                                  ("increment_entry", ("a", "b")), ("clear_history", ("a",)),
                                  ("run_batch", ("a", [])), ("run_requests", ([],))):
            with pytest.raises(InvalidResponse, match=listing):
                await call(client, method, *arguments)
        await close(client)
        await asyncio.to_thread(server.wait_until_left)


@KINDS
@pytest.mark.parametrize("data", [
    answer(HTML, kind="text/html").replace(b"ETag: \"1\"\r\n", b""), answer(HTML, 202)])
async def test_nothing_is_taken_for_done_that_was_not(
    kind: type[Client] | type[AsyncClient], data: bytes
) -> None:
    with BadServer(always(data)) as server:
        client = kind(server.url, timeout=30)
        for method, arguments in (
                ("put_entry", ("a", "b", b"")), ("delete_entry", ("a", "b")),
                ("set_state_value", ("s", "k", 1)), ("remove_session", ("s",)),
                ("revoke_token", ("t",))):
            with pytest.raises(InvalidResponse, match="status 20[02], which does not belong"):
                await call(client, method, *arguments)
        await close(client)


@KINDS
async def test_a_count_that_is_no_number(kind: type[Client] | type[AsyncClient]) -> None:
    with BadServer(always(answer(b'{"value":"x","removed":null}'))) as server:
        client = kind(server.url, timeout=30)
        for method, arguments in (("increment_entry", ("a", "b")), ("clear_history", ("a",))):
            with pytest.raises(InvalidResponse, match="is not an integer"):
                await call(client, method, *arguments)
        await close(client)


#: Calls whose answer is an object, and what of it is relied on.
SHAPED: list[tuple[str, tuple[Any, ...], str]] = [
    ("clear_entries", ("a",), "removed"), ("clear_namespaces", (), "removed"),
    ("touch_entry", ("a", "b"), "key"), ("get_metadata", ("a", "b"), "key"),
    ("increment_entry", ("a", "b"), "value"), ("list_entries", ("a",), "items"),
    ("run_batch", ("a", [{"op": "get", "key": "k"}]), "results"),
    ("get_namespace", ("a",), "namespace"), ("set_policy", ("a",), "namespace"),
    ("create_session", (), "id"), ("open_session", ("s",), "id"), ("get_session", ("s",), "id"),
    ("touch_session", ("s",), "id"), ("optimize_session", ("s",), "keys_removed"),
    ("debounce", ("s", "d"), "allowed"), ("get_state", ("s",), "state"),
    ("patch_state", ("s",), "version"), ("append_history", ("s", 1), "item"),
    ("get_history_item", ("s", "i"), "id"), ("patch_history_item", ("s", "i", 1), "id"),
    ("clear_history", ("s",), "removed"), ("remove_inactive_sessions", (1,), "removed"),
    ("get_template", ("t",), "name"), ("set_template", ("t", {}), "name"),
    ("record_samples", ([],), "accepted"), ("get_timings", (), "items"),
    ("get_time_series", (), "buckets"), ("get_memory_figures", (), "items"),
    ("get_cache_figures", (), "totals"), ("get_session_figures", (), "session_count"),
    ("get_comparison", ("a", "b"), "items"), ("get_summary", (), "cache"),
    ("run_sql", ("SELECT 1",), "columns"), ("run_requests", ([],), "responses"),
    ("list_settings", (), "settings"), ("get_setting", ("x",), "name"),
    ("change_settings", (), "settings"), ("clean_up", (), "tasks"),
    ("get_diagnostics", (), "status"), ("create_token", ("t", ["read"]), "token"),
    ("get_own_token", (), "id"), ("create_backup", (), "name"),
    ("get_liveness", (), "status"), ("get_readiness", (), "status"),
]


@KINDS
@pytest.mark.parametrize("body", [b"null", b"[]", b"NaN", b"5", b"{}", b"field"])
async def test_answers_of_another_shape(
    kind: type[Client] | type[AsyncClient], body: bytes
) -> None:
    answers = [answer(b'{"%s":null}' % field.encode() if body == b"field" else body)
               for _, _, field in SHAPED]
    with BadServer(always(*answers)) as server:
        client = kind(server.url, timeout=30)
        for method, arguments, field in SHAPED:
            expected = {b"{}": f"lacks the field '{field}'", b"field": f"'{field}' of an answer"}
            with pytest.raises(InvalidResponse, match=expected.get(body, "is not a JSON object")):
                await call(client, method, *arguments)
        await close(client)


@KINDS
@pytest.mark.parametrize(("results", "text"), [
    (b"5", "'results' of an answer with status 200 is not a list"),
    (b"[]", "0 results of 1 operations"),
    (b"[1]", "an item of 'results' of an answer with status 200 is not a JSON object"),
    (b"[{}]", "lacks the field 'status'"),
    (b'[{"status":true}]', "'status' of an item of 'results' of .* is not an integer"),
    (b'[{"status":200}]', "a result of an answer lacks the field 'content_type'"),
    (b'[{"status":200,"content_type":"a/b","etag":"1","base64":1}]', "'base64' of .* not a text"),
    (b'[{"status":400,"problem":[1]}]', "'problem' of a result of an answer is not a JSON object"),
])
async def test_results_of_another_shape(
    kind: type[Client] | type[AsyncClient], results: bytes, text: str
) -> None:
    with BadServer(always(answer(b'{"results":%s}' % results))) as server:
        client = kind(server.url, timeout=30)
        with pytest.raises(InvalidResponse, match=text):
            await call(client, "run_batch", "a", [{"op": "get", "key": "k"}])
        cache: Any = client.cache("a")
        for method, nothing in (("get_many", {}), ("clear", 0)):
            answered = getattr(cache, method)(*([["k"]] if method == "get_many" else []))
            assert (await answered if inspect.isawaitable(answered) else answered) == nothing
        await close(client)


@KINDS
async def test_a_page_of_a_proxy_is_no_yes(kind: type[Client] | type[AsyncClient]) -> None:
    login = answer(HTML, kind="text/html").replace(b"ETag: \"1\"\r\n", b"")
    with BadServer(always(login)) as server:
        client = kind(server.url, timeout=30)
        with pytest.raises(InvalidResponse, match="no ETag"):
            await call(client, "head_entry", "a", "b")
        cache: Any = client.cache("a")
        for method, arguments in (("contains", ("k",)), ("touch", ("k",))):
            answered = getattr(cache, method)(*arguments)
            assert (await answered if inspect.isawaitable(answered) else answered) is False
        await close(client)


@KINDS
@pytest.mark.parametrize("behaviour", [
    endless_body, endless_chunks, always(answer(b" " * 3_000_000 + b"{}"))])
async def test_json_has_a_smaller_bound_than_values(
    kind: type[Client] | type[AsyncClient], behaviour: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_JSON_BYTES", 2_000_000)
    with BadServer(behaviour) as server:
        client = kind(server.url, timeout=30, retries=0)
        for method in ("get_state", "debounce"):
            arguments = ("s", "d") if method == "debounce" else ("s",)
            with in_time(), pytest.raises(
                    InvalidResponse, match="more than 2000000.*; if it is the service's"):
                await call(client, method, *arguments)
        await close(client)
        await asyncio.to_thread(server.wait_until_left)


@KINDS
async def test_values_may_be_larger_than_json(
    kind: type[Client] | type[AsyncClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_JSON_BYTES", 2_000_000)
    with BadServer(always(answer(b"x" * 3_000_000))) as server:
        client = kind(server.url, timeout=30)
        assert len((await call(client, "get_entry", "a", "b")).body) == 3_000_000
        assert len((await call(client, "get_backup", "b")).body) == 3_000_000
        assert len((await call(client, "request", "GET", "/")).body) == 3_000_000
        await close(client)


@KINDS
async def test_texts_of_problems_are_safe_to_show(kind: type[Client] | type[AsyncClient]) -> None:
    body = (b'{"code":"a\\u001b[2J","detail":"x\\r\\nERROR forged \\u009b31m\\u202e\\ud800",'
            b'"errors":[{"field":"f\\u0000","message":"m\\u001b]0;t\\u0007"}]}')
    with BadServer(always(answer(body, 422, kind="application/problem+json"))) as server:
        client = kind(server.url, timeout=30)
        with pytest.raises(InvalidRequest) as raised:
            await call(client, "get_entry", "a", "b")
        text = str(raised.value)
        assert text == "422 a?[2J: x  ERROR forged ?31m??\n  f?: m?]0;t?"
        assert raised.value.problem["code"] == "a\x1b[2J" and "\r\n" in raised.value.detail
        await close(client)


def test_texts_of_problems_say_everything_once() -> None:
    error = {"field": "limit", "message": "must be positive."}
    other = {"field": "key", "message": "is missing."}
    one = problem_error(422, {"detail": "limit: must be positive.", "errors": [error]})
    assert str(one) == "422: limit: must be positive." and one.errors == [error]
    two = problem_error(422, {"detail": "2 fields are invalid.", "errors": [error, other, error]})
    assert str(two) == ("422: 2 fields are invalid.\n  limit: must be positive."
                        "\n  key: is missing.")


@KINDS
async def test_a_failure_that_passes(kind: type[Client] | type[AsyncClient]) -> None:
    with BadServer(in_order(once(b""), once(problem(503, "starting")), always(OK))) as server:
        client = kind(server.url, timeout=30)
        assert (await call(client, "get_entry", "a", "b")).body == b"{}"
        counted = client.statistics()
        assert (counted["calls"], counted["attempts"], counted["retries"]) == (1, 3, 2)
        assert counted["failures"] == counted["problems"] == 0 and client.is_available
        await close(client)
        await asyncio.to_thread(server.wait_until_left)


@KINDS
async def test_a_post_is_not_sent_twice(kind: type[Client] | type[AsyncClient]) -> None:
    with BadServer(once(b"")) as server:
        client = kind(server.url, timeout=30)
        with pytest.raises(ConnectionLost):
            await call(client, "request", "POST", "/v1/x", json={})
        assert len(server.requests) == 1
        with pytest.raises(ConnectionLost):
            await call(client, "increment_entry", "a", "b")
        keys = {line for request in server.requests[1:]
                for line in request.split(b"\r\n") if line.startswith(b"Idempotency-Key: ")}
        assert len(server.requests) == 1 + 2 and len(keys) == 1, "the circuit opens at the third"
        await close(client)


@KINDS
async def test_a_service_that_is_killed_held_and_started_again(
    kind: type[Client] | type[AsyncClient], service: Service, name: str
) -> None:
    client = kind(service.url, timeout=BUDGET, retries=0)

    async def reached() -> None:
        """Calls until it is answered again, as an app would."""
        end = time.monotonic() + 30
        while True:
            try:
                await call(client, "get_liveness")
                return
            except RepriseError:
                assert time.monotonic() < end
                await asyncio.sleep(0.05)

    await reached()
    await call(client, "put_entry", name, "k", b"v", timeout=20)
    service.hold()
    try:
        for _ in range(5):
            with in_time(), pytest.raises((TimedOut, CircuitOpen)):
                await call(client, "get_entry", name, "k")
    finally:
        service.go_on()
    await reached()
    assert (await call(client, "get_entry", name, "k", timeout=20)).body == b"v"
    service.kill()
    for _ in range(5):
        with in_time(), pytest.raises((ConnectionLost, ConnectFailed, CircuitOpen)):
            await call(client, "get_entry", name, "k")
    service.start()
    await reached()
    assert (await call(client, "get_entry", name, "k", timeout=20)).body == b"v"
    assert client.statistics()["circuit"] == "closed"
    await close(client)


# What apps use goes on, whatever happens.

HIGH_LEVEL = [*FAULTS, Fault("HTML", always(
    answer(HTML, kind="text/html").replace(b"ETag: \"1\"\r\n", b"")), InvalidResponse, "", 1)]
OF_APPS = pytest.mark.parametrize("fault", HIGH_LEVEL, ids=[fault.name for fault in HIGH_LEVEL])
#: These raise, because the app itself is wrong.
WRONG_REQUESTS = ("413", "a problem that is no JSON", "a problem of another shape")


@KINDS
@OF_APPS
async def test_caches_go_on(kind: type[Client] | type[AsyncClient], fault: Fault) -> None:
    if fault.name in (*WRONG_REQUESTS, "404"):
        pytest.skip("it says what the app has wrong")
    with BadServer(fault.behaviour) as server:
        client = kind(server.url, timeout=0.3)
        cache: Any = client.cache("a")

        async def result(method: str, *arguments: Any) -> Any:
            with in_time():
                answered = getattr(cache, method)(*arguments)
                return await answered if inspect.isawaitable(answered) else answered

        assert await result("get", "k", "default") == "default"
        assert await result("get_many", ["k", "l"]) == {}
        assert await result("set", "k", 1) is False
        assert await result("delete", "k") is False

        async def compute_later() -> int:
            return 7

        compute: Any = (lambda: 7) if kind is Client else compute_later
        assert await result("get_or_compute", "k", compute) == 7
        counted = cache.statistics()
        assert counted["hits"] == 0 and counted["misses"] >= 1
        assert counted["errors"] >= 1 and counted["failed_sets"] >= 1
        await close(client)


@OF_APPS
def test_sessions_go_on(fault: Fault) -> None:
    if fault.name in WRONG_REQUESTS:
        pytest.skip("it says what the app has wrong")
    with BadServer(fault.behaviour) as server:
        client = Client(server.url, timeout=0.3)
        with in_time(2 * BUDGET), client.session("s", defaults={"a": 1}) as state:
            assert state["a"] == 1
            state["b"] = 2
            state.history.append({"n": 1})
            assert state["b"] == 2 and len(state.history) == 1
        # A refusal is an answer: what was refused is given up, and does not wait.
        is_refusal = fault.name in ("401", "403", "404")
        assert state["b"] == 2 and state.is_offline != is_refusal
        client.close()


@OF_APPS
def test_monitors_go_on(fault: Fault) -> None:
    with BadServer(fault.behaviour) as server:
        client = Client(server.url, timeout=0.3)
        monitor = client.monitor(flush_seconds=0.01)
        with in_time(2 * BUDGET):
            with monitor.measure("work"):
                pass
            monitor.close(timeout=0.5)
        counted = monitor.statistics()
        assert counted["recorded"] == 1 and counted["sent"] == 0 and counted["last_error"]
        assert 1 == sum(counted[name] for name in ("dropped", "failed", "disabled", "queued"))
        client.close()
