"""`Session` while the service is slow or gone: the app goes on, and nothing is lost or doubled."""

from __future__ import annotations

import gc
import json
import logging
import os
import subprocess
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from bad_server import BadServer, always
from conftest import Service

from reprise_client import (
    AsyncClient,
    Client,
    Conflict,
    ConnectFailed,
    ConnectionLost,
    InvalidResponse,
    ProblemError,
    RepriseError,
    ServerError,
    TimedOut,
    TransportError,
    Unauthenticated,
    limits,
)
from reprise_client.errors import problem_error
from reprise_client.http.message import Headers, Request, Response
from reprise_client.http.policy import Breaker, Policy, Send
from reprise_client.outbox import Known, store_of
from reprise_client.session_state import HistoryChange, StatePatch
from reprise_client.session_write import Deadline, Outcome, Refusal, Write, deliver

#: Seconds that something may take on a machine that is busy with other things.
PATIENCE = 60.0


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


@pytest.fixture
def app(service: Service) -> Iterator[Client]:
    """The app's client. Its breaker lets every call try, so that nothing has to wait for it."""
    with Client(service.url, timeout=2, breaker=Breaker(failures=10**9)) as client:
        yield client


@pytest.fixture
def probe(service: Service) -> Iterator[Client]:
    """Another client, to look at what the service has."""
    with Client(service.url, timeout=20, breaker=Breaker(failures=10**9)) as client:
        yield client


@pytest.fixture
def no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that sends what waits does so only when it is woken."""
    monkeypatch.setattr(limits, "OUTBOX_RETRY_SECONDS", 1000.0)


def history_of(client: Client, name: str) -> list[Any]:
    return [item["data"] for item in reversed(client.list_history(name).items)]


def test_the_service_is_killed_in_the_middle(app: Client, probe: Client, service: Service) -> None:
    session = app.session("tab", defaults={"n": 0, "list": []})
    session["n"] = 1
    session.history.append(0)
    assert session.save() is True
    service.kill()

    for number in range(1, 6):  # Reruns, each with a session of its own.
        with app.session("tab", defaults={"n": -1}) as state:
            assert state["n"] == number, "an older state was shown"
            assert state["list"] == list(range(1, number))
            assert [item["data"] for item in state.history] == list(range(number - 1, -1, -1))
            state["n"] = number + 1
            state["list"].append(number)
            state.history.append(number)
        assert state.is_offline and state.pending >= 1
    assert store_of(app).statistics()["waiting"] <= 2

    service.start()
    until(lambda: not session.pending)
    assert probe.get_state("tab")["state"] == {"n": 6, "list": [1, 2, 3, 4, 5]}
    assert history_of(probe, "tab") == [0, 1, 2, 3, 4, 5]
    figures = session.statistics()
    assert figures["dropped"] == figures["refused"] == figures["waiting_bytes"] == 0
    until(lambda: store_of(app)._thread is None)


def test_a_restarted_service_without_its_database(
    app: Client, probe: Client, service: Service
) -> None:
    session = app.session("tab", defaults={"kept": 1, "n": 0}, ttl=600)
    assert session["n"] == 0
    service.kill()
    for path in service.folder.glob("test.db*"):
        path.unlink()
    session["n"] = 1
    session.history.append("waits")
    assert session.save() is False
    service.start()
    until(lambda: not session.pending)
    assert probe.get_state("tab")["state"] == {"kept": 1, "n": 1}
    assert history_of(probe, "tab") == ["waits"]
    assert probe.get_session("tab")["ttl_seconds"] == 600


def test_a_service_that_is_held(service: Service, probe: Client) -> None:
    app = Client(service.url, timeout=1, breaker=Breaker(seconds=0.2, max_seconds=0.5))
    session = app.session("tab", defaults={"n": 0})
    assert session["n"] == 0
    service.hold()
    try:
        began = time.monotonic()
        session["n"] = 1
        item = session.history.append("once")
        assert session.save() is False
        assert session.save() is False  # Nothing new, but what was waits.
        with app.session("tab", defaults={"n": -1}) as again:
            assert again["n"] == 1 and again.history[0]["id"] == item["id"]
            assert again.debounce("go", 60) is True and again.debounce("go", 60) is False
            assert again.touch() is False and again.refresh() is False
            again["temp_x"] = 1
            assert again.optimize()["keys_removed"] == ["temp_x"]
            again.history.append("second", now=True)
        fresh = app.session("other", defaults={"mine": [1]})
        assert fresh["mine"] == [1] and list(fresh.history) == []
        fresh["mine"].append(2)
        fresh.save()
        # At most a dozen calls of 1 s; without a bound, each would wait for as long as the service
        # is held, which is for ever. The bound is generous, because the machine may be busy.
        assert time.monotonic() - began < 120
    finally:
        service.go_on()
    until(lambda: not store_of(app).waiting)
    assert probe.get_state("tab")["state"] == {"n": 1}
    assert history_of(probe, "tab") == ["once", "second"]
    assert probe.get_state("other")["state"] == {"mine": [1, 2]}
    assert app.session("tab").is_offline is False


def test_strict_raises_and_keeps_the_changes(app: Client, probe: Client, service: Service) -> None:
    session = app.session("tab", defaults={"n": 0}, strict=True)
    assert session["n"] == 0
    service.kill()
    session["n"] = 1
    session.history.append("once")
    with pytest.raises(TransportError):
        session.save()
    with pytest.raises(TransportError):
        app.session("tab", strict=True)["n"]
    for call in (session.touch, session.refresh, session.optimize, session.remove,
                 lambda: session.debounce("go")):
        with pytest.raises(TransportError):
            call()
    assert session.is_changed and not session.pending
    service.start()
    assert session.save() is True
    assert probe.get_state("tab")["state"] == {"n": 1} and history_of(probe, "tab") == ["once"]


def test_what_waits_is_seen_by_a_fresh_session(
    app: Client, probe: Client, service: Service, no_thread: None
) -> None:
    with app.session("tab", defaults={"n": 0, "gone": 1, "temp_a": 1}) as state:
        assert len(state) == 3
        state.history.append("old", id="old")
        state.history.append("removed", id="removed")
    service.kill()
    with app.session("tab") as state:
        state["n"] = 1
        del state["gone"]
        state.delete_prefix("temp_")
        state.history.append({"a": 1}, id="new")
        state.history.rate("new", 5)
        state.history.remove("removed")
    service.start()
    probe.patch_state("tab", set={"theirs": 1, "temp_b": 1})
    fresh = app.session("tab")
    assert dict(fresh) == {"n": 1, "theirs": 1}
    assert not fresh.is_offline
    assert [(item["id"], item["data"]) for item in fresh.history] == [
        ("new", {"a": 1, "rating": 5}), ("old", "old")]
    until(lambda: not fresh.pending)  # Opening has woken the thread.
    assert probe.get_state("tab")["state"] == {"n": 1, "theirs": 1}
    assert history_of(probe, "tab") == ["old", {"a": 1, "rating": 5}]


def test_the_next_save_sends_what_waits_first(
    app: Client, probe: Client, service: Service, no_thread: None
) -> None:
    session = app.session("tab", defaults={"n": 0})
    assert session["n"] == 0
    service.kill()
    session["n"] = 1
    session["first"] = 1
    session.history.append(1)
    assert session.save() is False
    service.start()
    session["n"] = 2
    session.history.append(2)
    assert session.save() is True
    assert probe.get_state("tab")["state"] == {"n": 2, "first": 1}
    assert history_of(probe, "tab") == [1, 2]


def test_other_tabs_are_not_undone_by_what_waited(
    app: Client, probe: Client, service: Service, no_thread: None
) -> None:
    session = app.session("tab", defaults={"mine": 0, "theirs": 0}, if_match=True)
    assert session["mine"] == 0
    service.kill()
    session["mine"] = 1
    assert session.save() is False
    service.start()
    probe.patch_state("tab", set={"theirs": 2})
    store_of(app).wake()
    until(lambda: not session.pending)
    assert probe.get_state("tab")["state"] == {"mine": 1, "theirs": 2}


def test_the_outbox_is_bounded(
    app: Client, probe: Client, service: Service, no_thread: None,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(limits, "MAX_OUTBOX_WRITES", 3)
    service.kill()
    store = store_of(app)
    for number in range(5):
        with app.session(f"tab-{number}") as state:
            state["n"] = number
    assert (store.waiting, store.dropped) == (3, 2)
    assert caplog.text.count("saves of sessions that were given up: 1") == 2
    monkeypatch.setattr(limits, "MAX_OUTBOX_BYTES", 100_000)
    with app.session("large") as state:
        state["x"] = "x" * 40_000
        state["y"] = "x" * 4_000
    assert 88_000 < store.statistics()["waiting_bytes"] <= 100_000
    assert (store.waiting, store.dropped) == (3, 3)
    with app.session("larger") as state:
        state["x"] = "x" * 45_000
    assert (store.waiting, store.dropped) == (1, 6)
    with app.session("huge") as state:
        state["x"] = "x" * 60_000  # Twice, because the session may have to be opened with it.
    assert (store.waiting, store.dropped, store.statistics()["waiting_bytes"]) == (0, 8, 0)
    with app.session("tab-9") as state:
        state["n"] = 9
    service.start()
    store.wake()
    until(lambda: not store.waiting)
    assert [session["id"] for session in probe.list_sessions().items] == ["tab-9"]
    assert store.delivered == 1


def test_what_waits_too_long_is_given_up(
    app: Client, service: Service, no_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.kill()
    session = app.session("tab")
    session["n"] = 1
    session.save()
    monkeypatch.setattr(limits, "MAX_OUTBOX_SECONDS", -1.0)
    store_of(app).wake()
    until(lambda: not session.pending)
    assert session.statistics()["dropped"] == 1


def test_a_refusal_is_counted_and_logged_and_stops_nothing(
    app: Client, probe: Client, service: Service, no_thread: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    service.kill()
    with app.session("wrong", template="absent") as state:
        state["n"] = 1
    with app.session("right") as state:
        state["n"] = 1
        state.history.rate("absent", 1)
        state.history.append("fine")
    service.start()
    store_of(app).wake()
    until(lambda: not store_of(app).waiting)
    figures = store_of(app).statistics()
    assert figures["refused"] >= 2 and figures["delivered"] == 2
    assert "'absent' is not a session template" in caplog.text
    assert "history patch absent" in caplog.text and "history patch" in figures["last_refusal"]
    assert probe.get_state("right")["state"] == {"n": 1}
    assert history_of(probe, "right") == ["fine"]


def test_a_client_without_its_token_goes_on(
    app: Client, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    token = app.create_token("admin", ["admin"])["token"]
    with app.session("tab", defaults={"n": 0}) as state:
        state["n"] += 1
    assert "401" in caplog.text and state.statistics()["refused"] == 1
    with pytest.raises(Unauthenticated):
        app.session("tab", strict=True)["n"]
    with Client(service.url, token=token).session("tab") as state:
        assert dict(state) == {}


def test_a_save_that_is_refused_is_sent_once(
    app: Client, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    app.create_token("admin", ["admin"])
    caplog.set_level(logging.INFO, "reprise_client")
    session = app.session("tab")
    session.history.append(1)
    before = app.statistics()["attempts"]
    assert session.save() is False
    assert app.statistics()["attempts"] == before + 1
    assert [record.getMessage().partition(": ")[0] for record in caplog.records] == [
        "a save of session tab was refused (save) and given up"]
    assert not session.pending and not session.is_changed


def test_the_end_of_waiting_is_told_as_it_is(
    app: Client, service: Service, no_thread: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "reprise_client")
    token = app.create_token("admin", ["admin"])["token"]
    with Client(service.url, token=token, breaker=Breaker(failures=10**9)) as client:
        service.kill()
        for number, change in enumerate((lambda s: s.history.rate("absent", 1),
                                         lambda s: s.history.append(1))):
            session = client.session("tab")
            assert len(session) == 0
            change(session)
            assert session.save() is False
            assert "does not answer" in caplog.text
            service.start()
            store_of(client).wake()
            until(lambda: "answers again" in caplog.text)
            assert ("everything that sessions saved was sent" in caplog.text) is (number == 1)
            assert ("some was given up: 1" in caplog.text) is (number == 0)
            caplog.clear()
            service.kill()


def test_what_the_service_said_is_logged_without_control_characters(
    app: Client, caplog: pytest.LogCaptureFixture
) -> None:
    outcome = Outcome()
    error = problem_error(403, {"detail": "no\x1b[31m\nFORGED LINE\x9b \u2028 \u202e"})
    outcome.refusals.append(Refusal("state", error))
    store_of(app).note_refusals("tab", outcome)
    assert caplog.messages == [
        "a save of session tab was refused (state) and given up: 403: no?[31m FORGED LINE? ? ?"]


def test_a_save_that_is_not_taken_for_now_is_not_called_unanswered(
    app: Client, no_thread: None, caplog: pytest.LogCaptureFixture
) -> None:
    store_of(app).enqueue(write(a=1), b"{}", problem_error(507, {"code": "storage_full"}))
    assert "took no save for now (507 storage_full)" in caplog.text
    assert "does not answer" not in caplog.text
    store_of(app).reset()


def test_history_that_cannot_be_read(
    app: Client, probe: Client, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with app.session("tab", defaults={"n": 0}) as state:
        state["n"] = 1
        state.history.append("unreadable")
    probe.patch_state("tab", set={"n": 7})
    read = Response.json

    def json_of(response: Response) -> Any:
        if b"unreadable" in response.body:
            raise InvalidResponse("an answer with status 200 is not JSON: a number is too long")
        return read(response)

    monkeypatch.setattr(Response, "json", json_of)
    session = app.session("tab", defaults={"n": 0})
    assert session["n"] == 7 and not session.is_offline and list(session.history) == []
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "history of session tab cannot be read" in caplog.text
    probe.patch_state("tab", set={"x": "unreadable"})
    caplog.clear()
    assert app.session("tab", history=False, defaults={"n": 0}).open() is False
    assert "could not be opened" in caplog.text


def test_numbers_that_are_too_long_stop_nothing(
    app: Client, probe: Client, service: Service, no_thread: None
) -> None:
    with app.session("tab", defaults={"n": 0}) as state:
        state.history.append(1)
    assert app.session("tab")["n"] == 0
    known = store_of(app)._known["tab"]
    known.answer = known.with_history = known.answer.replace(
        b'"n":0', b'"n":0,"long":' + b"9" * 5000)
    service.kill()
    session = app.session("tab", defaults={"n": 5})
    assert session["n"] == 0 and "long" in session
    session["n"] = 1
    session["long"] = "short"
    assert session.save() is False and session.pending == 1
    with app.session("tab") as again:
        assert again["n"] == 1
    service.start()
    store_of(app).wake()
    until(lambda: not session.pending)
    assert probe.get_state("tab")["state"] == {"n": 1, "long": "short"}


def test_a_session_that_goes_with_changes_says_so(app: Client) -> None:
    def warned(change: Callable[[Any], Any]) -> int:
        session = app.session("tab", defaults={"list": [], "n": 0})
        assert session["list"] == [] and session["n"] == 0
        change(session)
        before = app.statistics()["attempts"]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del session
            gc.collect()
        assert app.statistics()["attempts"] == before
        return sum("session tab has changes" in str(one.message) for one in caught
                   if one.category is ResourceWarning)

    assert warned(lambda session: None) == 0
    assert warned(lambda session: session.update(n=1)) == 1
    assert warned(lambda session: session["list"].append(1)) == 1
    assert warned(lambda session: session.pop("n")) == 1
    assert warned(lambda session: session.history.append(1)) == 1
    assert warned(lambda session: (session.update(n=1), session.discard())) == 0
    assert warned(lambda session: (session.update(n=1), session.save())) == 0


def test_removing_while_the_service_is_away(
    app: Client, probe: Client, service: Service, no_thread: None
) -> None:
    session = app.session("tab", defaults={"n": 0})
    session["n"] = 1
    session.save()
    service.kill()
    session["n"] = 2
    session.save()
    assert session.remove() is False
    assert session.pending == 1 and session["n"] == 0
    session["n"] = 3
    session.save()
    service.start()
    store_of(app).wake()
    until(lambda: not session.pending)
    assert probe.get_state("tab")["state"] == {"n": 3}
    assert probe.get_session("tab")["version"] < 100


def test_debouncing_without_the_service(app: Client, service: Service) -> None:
    session = app.session("tab")
    assert session.debounce("asked", 1000) is True
    service.kill()
    # The service said so just now.
    assert session.debounce("asked", 1000) is False
    assert session.debounce("local", 1000) is True
    assert session.debounce("local", 1000) is False
    now = time.monotonic()
    store = store_of(app)
    assert store.debounce("tab", "x", 0.5, now) is True
    assert store.debounce("tab", "x", 0.5, now + 0.4) is False
    assert store.debounce("tab", "x", 0.5, now + 0.5) is True
    for number in range(limits.MAX_LOCAL_DEBOUNCES + 10):
        store.debounce("tab", str(number), 1, now)
    assert len(store._debounces) == limits.MAX_LOCAL_DEBOUNCES
    allowed = []
    threads = [threading.Thread(target=lambda: allowed.append(
        store.debounce("tab", "threads", 10, now))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert allowed.count(True) == 1


def test_what_is_known_is_bounded(
    app: Client, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_KNOWN_SESSIONS", 3)
    for number in range(5):
        app.session(f"tab-{number}", defaults={"n": number}).open()
    figures = store_of(app).statistics()
    assert figures["known_sessions"] == 3 and figures["known_bytes"] > 0
    service.kill()
    assert app.session("tab-4")["n"] == 4
    assert app.session("tab-0").get("n") is None
    monkeypatch.setattr(limits, "MAX_KNOWN_BYTES", 0)
    store_of(app).know("tab-4", Known(b"{}"))
    figures = store_of(app).statistics()
    assert figures["known_sessions"] == figures["known_bytes"] == 0


def test_threads(app: Client, probe: Client, service: Service) -> None:
    """Tabs of one session in many threads, while the service is restarted."""
    errors: list[BaseException] = []
    halfway = threading.Barrier(9)

    def work(number: int) -> None:
        try:
            for rerun in range(10):
                if rerun == 5:
                    halfway.wait()
                with app.session("tab") as state:
                    state[f"k{number}"] = rerun
                    state.history.append([number, rerun])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    halfway.wait()
    service.kill()
    for thread in threads:
        thread.join(PATIENCE * 4)
    service.start()
    until(lambda: not store_of(app).waiting)
    assert errors == []
    assert probe.get_state("tab")["state"] == {f"k{number}": 9 for number in range(8)}
    items = history_of(probe, "tab")
    assert len(items) == 20  # The newest, as many as the service keeps.
    for number in range(8):
        mine = [rerun for who, rerun in items if who == number]
        assert mine == sorted(set(mine))
    assert store_of(app).statistics()["waiting_bytes"] == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_fork(app: Client, probe: Client, service: Service, no_thread: None) -> None:
    service.kill()
    session = app.session("tab")
    session["n"] = 1
    session.history.append("once")
    session.save()
    store = store_of(app)
    with store._lock:  # As another thread may hold it.
        child = os.fork()
    if child == 0:
        code = 1
        try:
            fine = store.waiting == 0 and store._thread is None
            with app.session("child") as state:
                state["n"] = 2
            fine = fine and store.waiting == 1 and store._thread is not None
            code = 0 if fine else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert session.pending == 1
    service.start()
    store.wake()
    until(lambda: not session.pending)
    assert history_of(probe, "tab") == ["once"]
    assert [item["id"] for item in probe.list_sessions().items] == ["tab"]


AT_EXIT = """
import sys
from reprise_client import Client, limits
limits.OUTBOX_RETRY_SECONDS = 1000.0
limits.OUTBOX_EXIT_SECONDS = float(sys.argv[2])
with Client(sys.argv[1], timeout=1).session("tab") as state:
    state["n"] = 1
print("saved", state.pending, flush=True)
sys.stdin.readline()
"""


def test_what_waits_is_sent_at_exit(service: Service, probe: Client) -> None:
    service.kill()
    command = [sys.executable, "-c", AT_EXIT, service.url]
    for budget, comes_back in (("1", False), (str(PATIENCE), True)):
        process = subprocess.Popen([*command, budget], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "saved 1\n"
        if comes_back:
            service.start()
        _, errors = process.communicate("\n", timeout=PATIENCE * 2)
        assert process.returncode == 0
        assert ("saves of sessions that were not sent: 1" in errors) is not comes_back
    assert probe.get_state("tab")["state"] == {"n": 1}


async def test_asyncio_without_the_service(service: Service, probe: Client) -> None:
    app = AsyncClient(service.url, timeout=2, breaker=Breaker(failures=10**9))
    async with app.session("tab", defaults={"n": 0}) as state:
        state["n"] = 1
    service.kill()
    async with app.session("tab") as state:
        assert state["n"] == 1 and state.is_offline
        state["n"] = 2
        state.history.append("once")
    assert state.pending == 1
    service.start()
    until(lambda: not state.pending)
    assert probe.get_state("tab")["state"] == {"n": 2} and history_of(probe, "tab") == ["once"]
    await app.close()


def test_history_pages_are_missing_while_the_service_is_away(
    app: Client, service: Service, tmp_path: Any
) -> None:
    with app.session("tab", max_history_items=600) as state:
        for number in range(550):
            state.history.append(number)
    until(lambda: not state.pending)
    session = app.session("tab")
    lazily = app.session("tab", history=False)
    assert len(session.history) == 550 and len(lazily) == 0
    service.kill()
    with pytest.raises(RepriseError):
        session.history.export(tmp_path / "all.json")
    assert [path.name for path in tmp_path.iterdir()] == ["service"]
    assert len(list(session.history)) == 500
    assert len(lazily.history) == 500  # Those that the process knows.
    strict = app.session("tab", strict=True)
    with pytest.raises(ConnectFailed):
        list(strict.history)


def test_a_client_is_not_kept_alive(service: Service) -> None:
    client = Client(service.url)
    with client.session("tab") as state:
        state["n"] = 1
    gone = weakref.ref(client)
    del client, state
    gc.collect()
    assert gone() is None


# Decisions, without a service.


def write(session_id: str = "tab", *, changes: int = 0, **values: int) -> Write:
    patch = StatePatch(set={key: str(value).encode() for key, value in values.items()})
    return Write(session_id, patch,
                 [HistoryChange("append", str(n), b"{}", {"id": str(n)}) for n in range(changes)])


def test_saves_are_put_together_only_where_that_makes_no_difference() -> None:
    first = write(a=1, b=1, changes=2)
    assert first.absorb(write(b=2, changes=3))
    assert first.patch is not None and first.patch.set == {"a": b"1", "b": b"2"}
    assert len(first.changes) == 5
    key = first.key
    first.was_sent = True
    assert not first.absorb(write(c=3)) and first.key == key
    conditional = write(a=1)
    conditional.if_match = 3
    assert not write(b=1).absorb(conditional) and not conditional.absorb(write(b=1))
    end = Write("tab", changes=[HistoryChange("end")])
    assert not write(a=1).absorb(end) and not end.absorb(write(a=1))
    keeping = Write("tab", StatePatch(prefixes=["a"], keep=["ab"]))
    assert not write(a=1).absorb(keeping) and not keeping.absorb(write(a=1))


def test_a_save_is_sent_in_as_many_requests_as_the_bounds_of_a_batch_ask_for() -> None:
    changes = [HistoryChange("append", str(n), b"{}", {"id": str(n)}) for n in range(250)]
    large = HistoryChange("append", "large", b"x" * 1_000_001, {"id": "large"})
    save = Write("tab", StatePatch(set={"a": b"1"}), [*changes, large, *changes[:2]])
    flow: Any = deliver(save, Deadline(1000))
    call, sizes, keys = next(flow), [], set()
    while True:
        keys.add(call.request.headers["Idempotency-Key"])
        if call.request.target == "/v1/batch":
            sizes.append(len(json.loads(call.request.body)["requests"]))
            answer = answered(*[{"status": 201, "json": {"removed": 1}}] * sizes[-1])
        else:
            sizes.append(1)
            answer = Response(201, Headers([]), b'{"removed": 1}')
        try:
            call = flow.send(call.parse(answer))
        except StopIteration as end:
            assert end.value.removed_items == 253
            break
    assert sizes == [100, 100, 51, 1, 2] and len(keys) == 5
    assert not save


def answered(*answers: dict[str, Any]) -> Response:
    return Response(200, Headers([]), json.dumps({"responses": answers}).encode())


def result_of(flow: Any, value: Any) -> Any:
    with pytest.raises(StopIteration) as end:
        flow.send(value)
    return end.value.value


def test_what_may_have_arrived_is_sent_again_as_it_is() -> None:
    save = write(a=1, changes=1)
    flow: Any = deliver(save, Deadline(10))
    first = next(flow).request
    with pytest.raises(TimedOut):
        flow.throw(TimedOut("late"))
    assert not save.absorb(write(b=1))
    again = next(deliver(save, Deadline(10))).request
    assert (again.headers, again.body) == (first.headers, first.body)
    assert again.headers["Idempotency-Key"] == save.key

    save = write(a=1, changes=1)
    flow = deliver(save, Deadline(10))
    next(flow)
    with pytest.raises(ConnectFailed):
        flow.throw(ConnectFailed("nothing was sent"))
    assert save.absorb(write(b=1))


def problem(status: int, code: str) -> Response:
    return Response(status, Headers([(b"Content-Type", b"application/problem+json")]),
                    json.dumps({"code": code}).encode())


@pytest.mark.parametrize("changes", [0, 1])
def test_a_save_that_is_under_way_is_repeated_as_it_is(changes: int) -> None:
    save = write(a=1, changes=changes)
    flow: Any = deliver(save, Deadline(10))
    call = next(flow)
    with pytest.raises(Conflict):
        try:
            answers = call.parse(problem(409, "idempotency_key_in_use"))
        except RepriseError as error:
            flow.throw(error)
        flow.send(answers)
    assert not save.absorb(write(b=1))
    again = next(deliver(save, Deadline(10))).request
    assert (again.headers, again.body) == (call.request.headers, call.request.body)


@pytest.mark.parametrize("changes", [0, 1])
def test_a_save_whose_answer_is_lost_was_sent(changes: int) -> None:
    save = write(a=1, changes=changes)
    flow: Any = deliver(save, Deadline(10))
    call = next(flow)
    answer = problem(409, "idempotency_answer_lost")
    try:
        value = call.parse(answer)
    except RepriseError as error:
        with pytest.raises(StopIteration) as end:
            flow.throw(error)
        outcome = end.value.value
    else:
        outcome = result_of(flow, value)
    assert outcome.refusals == [] and not save


def test_saves_that_are_put_together_get_a_key_of_their_own(
    app: Client, no_thread: None
) -> None:
    first, later = write(a=1), write(b=1)
    key = first.key
    assert first.absorb(later) and first.key not in (key, later.key)
    later = write(b=1)
    later.was_sent = True
    assert not first.absorb(later)
    # Without its condition it is another request, and it keeps the opening that was sent.
    conditional = write(a=1)
    conditional.if_match, key = 3, conditional.key
    opened = write("other", a=1)
    opened.was_sent, opened.is_opening, opened.opening = True, True, b'{"state":{"a":1}}'
    try:
        store_of(app).enqueue(conditional, b"{}")
        store_of(app).enqueue(opened, b"{}")
        assert conditional.if_match is None and conditional.key != key
        assert opened.opening == b'{"state":{"a":1}}'
    finally:
        store_of(app).reset()


def test_an_earlier_attempt_that_was_sent_is_not_forgotten() -> None:
    policy = Policy(retries=1, jitter=lambda: 0.0)
    flow: Any = policy.exchange(Request("PUT", "/"), 10)
    assert isinstance(next(flow), Send)
    step = flow.send(ConnectionLost("in the middle"))
    while not isinstance(step, Send):
        step = flow.send(None)
    with pytest.raises(ConnectFailed) as caught:
        flow.send(ConnectFailed("refused"))
    assert caught.value.sent


def test_only_what_failed_is_sent_again() -> None:
    save = write(a=1, changes=3)
    key = save.key
    flow: Any = deliver(save, Deadline(10))
    call = next(flow)
    with pytest.raises(ServerError):
        flow.send(call.parse(answered(
            {"status": 200, "json": {"version": 3}}, {"status": 503, "json": {"code": "busy"}},
            {"status": 201, "json": {}}, {"status": 422, "json": {"code": "wrong"}})))
    assert save.patch is None and [change.item_id for change in save.changes] == ["0"]
    assert save.key != key
    flow = deliver(save, Deadline(10))
    call = next(flow)
    assert (call.request.method, call.request.target) == ("POST", "/v1/sessions/tab/history")
    outcome = result_of(flow, call.parse(Response(201, Headers([]), b'{"removed": 2}')))
    assert outcome.removed_items == 2 and outcome.refusals == []


def test_a_session_that_is_gone_is_opened_once() -> None:
    gone = {"status": 404, "json": {"code": "session_not_found"}}
    invalid = {"status": 422, "json": {"code": "validation_failed"}}
    save = write(a=1, changes=1)
    save.opening = lambda: b'{"state":{"a":1}}'
    flow: Any = deliver(save, Deadline(10))
    call = next(flow)
    call = flow.send(call.parse(answered(gone, gone)))
    sent = json.loads(call.request.body)["requests"]
    assert [(part["method"], part["path"]) for part in sent] == [
        ("PUT", "/v1/sessions/tab"), ("PATCH", "/v1/sessions/tab/state"),
        ("POST", "/v1/sessions/tab/history")]
    assert sent[0]["json"] == {"state": {"a": 1}}
    # Busy: the same again later, the opening included.
    with pytest.raises(ServerError):
        flow.send(call.parse(answered({"status": 503, "json": {}}, gone, gone)))
    flow = deliver(save, Deadline(10))
    call = next(flow)
    assert json.loads(call.request.body)["requests"] == sent
    outcome = result_of(flow, call.parse(answered(invalid, gone, gone)))
    assert [refusal.what for refusal in outcome.refusals] == [
        "opening", "state", "history append 0"]


def test_time_that_is_over_sends_nothing(app: Client) -> None:
    with pytest.raises(TransportError, match="over"):
        Deadline(-1).left()
    before = app.statistics()["attempts"]
    session = app.session("tab", timeout=1e-9, defaults={"n": 0})
    assert session["n"] == 0 and session.is_offline
    assert app.statistics()["attempts"] == before
    logging.getLogger("reprise_client").debug("%s", session)


@pytest.mark.parametrize("status", [400, 404, 405, 413, 421])
def test_the_answer_of_a_proxy_is_no_answer(status: int) -> None:
    """It refuses nothing: the app goes on, and its saves wait."""
    answer = (f"HTTP/1.1 {status} Reason\r\nContent-Type: text/html\r\n"
              "Content-Length: 15\r\n\r\ndefault backend").encode()
    with BadServer(always(answer)) as server:
        client = Client(server.url, timeout=2)
        session = client.session("s", defaults={"a": 1})
        assert session["a"] == 1
        session["b"] = 2
        assert session.save() is False and session.pending == 1 and session.is_offline
        strict = client.session("s", strict=True)
        with pytest.raises(ProblemError):
            len(strict)
