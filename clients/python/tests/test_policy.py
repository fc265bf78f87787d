"""What is repeated, when, and when nothing is tried, with a clock of the tests."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Generator
from typing import Any

import pytest

from reprise_client import (
    CircuitOpen,
    ConnectFailed,
    ConnectionLost,
    InvalidResponse,
    TimedOut,
    TransportError,
)
from reprise_client.http.message import Headers, Request, Response, retry_after
from reprise_client.http.policy import Breaker, Policy, Send, Sleep
from reprise_client.limits import (
    BACKOFF_SECONDS,
    BREAKER_FAILURES,
    MAX_BACKOFF_SECONDS,
    MAX_BREAKER_SECONDS,
)

GET = Request("GET", "/x")
POST = Request("POST", "/x")
KEYED = Request("POST", "/x", {"Idempotency-Key": "k"}, b"{}", repeatable=True)


class Clock:
    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


def answer(status: int, code: str = "", **fields: str) -> Response:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in fields.items()]
    raw.append((b"Content-Type", b"application/problem+json"))
    return Response(status, Headers(raw), b'{"code":"%s"}' % code.encode())


Outcome = Any


class World:
    """A policy with a clock, and calls whose attempts come out as the test says."""

    def __init__(self, *, retries: int = 2, jitter: float = 0.5, failures: int = 1000) -> None:
        self.clock = Clock()
        self.breaker = Breaker(now=self.clock, failures=failures)
        self.policy = Policy(retries=retries, breaker=self.breaker, now=self.clock,
                             jitter=lambda: jitter)

    def call(
        self, request: Request, *outcomes: Outcome, timeout: float = 10.0, each: float = 0.0
    ) -> tuple[Outcome, int, list[float]]:
        """What became of a call, its attempts and its waits; an attempt takes `each` seconds."""
        exchange = self.policy.exchange(request, timeout)
        end = self.clock.time + timeout
        left, sent, waits = list(outcomes), 0, []
        outcome: Any = None
        try:
            while True:
                step = exchange.send(outcome)
                if isinstance(step, Sleep):
                    waits.append(step.seconds)
                    self.clock.time += step.seconds
                    outcome = None
                else:
                    assert isinstance(step, Send) and step.request is request
                    assert step.deadline == end
                    sent += 1
                    self.clock.time += each
                    outcome = left.pop(0)
        except StopIteration as ended:
            return ended.value, sent, waits
        except TransportError as error:
            return error, sent, waits


REFUSED = ConnectFailed("refused")
LOST = ConnectionLost("lost")
UNSENT = ConnectionLost("lost", sent=False)
GARBAGE = InvalidResponse("garbage")
LATE = TimedOut("late")
OK = answer(200)


@pytest.mark.parametrize(("request_", "first", "attempts"), [
    (GET, REFUSED, 2), (GET, LOST, 2), (GET, GARBAGE, 2), (GET, LATE, 1),
    (POST, REFUSED, 2), (POST, UNSENT, 2), (POST, LOST, 1), (POST, GARBAGE, 1), (POST, LATE, 1),
    (KEYED, LOST, 2), (KEYED, LATE, 1),
    (GET, answer(500), 1), (GET, answer(502), 2), (GET, answer(503), 2), (GET, answer(504), 2),
    (GET, answer(507), 1), (GET, answer(404), 1), (GET, answer(401), 1), (GET, answer(409), 1),
    (GET, answer(429), 2), (POST, answer(429), 2), (POST, answer(503), 1), (POST, answer(500), 1),
    (KEYED, answer(503), 2), (KEYED, answer(409, "idempotency_key_in_use"), 2),
    (KEYED, answer(409, "idempotency_answer_lost"), 1), (KEYED, answer(409, "session_exists"), 1),
    (POST, answer(409, "idempotency_key_in_use"), 1),
    (Request("PUT", "/x"), LOST, 2), (Request("DELETE", "/x"), LOST, 2),
    (Request("HEAD", "/x"), LOST, 2), (Request("PATCH", "/x"), LOST, 1),
    (Request("PUT", "/x", repeatable=False), LOST, 1),
    (Request("PUT", "/x", None, iter([b"x"])), LOST, 1),
    (Request("PUT", "/x", None, iter([b"x"])), answer(503), 1),
])
def test_what_is_repeated(request_: Request, first: Outcome, attempts: int) -> None:
    outcome, sent, _ = World().call(request_, first, OK)
    assert sent == attempts
    assert outcome is (OK if attempts == 2 else first)


def test_it_is_repeated_so_often_and_no_more() -> None:
    for retries in (0, 1, 2, 5):
        world = World(retries=retries)
        outcome, sent, waits = world.call(GET, *[LOST] * 10)
        assert outcome is LOST and sent == retries + 1 and len(waits) == retries
        assert world.policy.statistics.retries == retries
    with pytest.raises(ValueError, match="retries"):
        Policy(retries=-1)


def test_the_waits_double_and_are_random() -> None:
    for jitter in (0.25, 0.999):
        _, _, waits = World(retries=8, jitter=jitter).call(GET, *[LOST] * 9, timeout=100)
        assert waits == [min(BACKOFF_SECONDS * 2**n, MAX_BACKOFF_SECONDS) * jitter
                         for n in range(8)]
    _, sent, waits = World(jitter=0).call(GET, LOST, LOST, LOST)
    assert sent == 3 and waits == []


def test_a_wait_that_the_service_asks_for() -> None:
    assert World().call(GET, answer(503, Retry_After="3"), OK)[2] == [3.0]
    assert World().call(GET, answer(429, Retry_After="0"), OK)[2] == [BACKOFF_SECONDS / 2]
    for nonsense in ("-1", "nan", "inf", "soon", "Wed, 21 Oct 2026 07:28:00 GMT", "1e99", ""):
        assert World().call(GET, answer(503, Retry_After=nonsense), OK)[2] == [BACKOFF_SECONDS / 2]
    # Longer than the call may take: the answer is given at once.
    busy = answer(503, Retry_After="30")
    assert World().call(GET, busy, OK, timeout=2) == (busy, 1, [])


def test_retry_after_as_a_number() -> None:
    assert retry_after(Headers([(b"Retry-After", b"1.5")])) == 1.5
    assert retry_after(Headers([])) is None


def test_nothing_is_repeated_beyond_the_budget() -> None:
    world = World(retries=50)
    outcome, sent, _ = world.call(GET, *[LOST] * 51, timeout=2.0, each=0.7)
    assert outcome is LOST and sent == 3 and world.clock.time <= 1000 + 2.2
    assert World().call(GET, LOST, OK, timeout=0.02)[1] == 1


def test_statistics() -> None:
    world = World()
    world.call(GET, OK)
    world.call(GET, LOST, OK)
    world.call(GET, answer(404))
    world.call(GET, LATE)
    counted = world.policy.statistics
    assert (counted.calls, counted.attempts, counted.retries) == (4, 5, 1)
    assert (counted.problems, counted.failures, counted.last_error) == (1, 1, "late")


# The circuit breaker.


def test_it_opens_after_three_failures_in_a_row() -> None:
    assert BREAKER_FAILURES == 3
    for kind in (REFUSED, LOST, LATE, GARBAGE, answer(503), answer(502), answer(504)):
        world = World(retries=0, failures=3)
        for _ in range(2):
            assert world.call(GET, kind)[0] is kind
        world.call(GET, answer(404))
        for _ in range(3):
            assert not world.breaker.is_open
            assert world.call(GET, kind)[0] is kind
        assert world.breaker.is_open and world.breaker.opened_count == 1
        refusal, sent, _ = world.call(GET, OK)
        assert isinstance(refusal, CircuitOpen) and sent == 0
        assert refusal.retry_after == 1.0 and not refusal.sent
        assert "3 times in a row" in str(refusal)
        statistics = world.policy.statistics
        assert statistics.last_error == str(refusal)
        assert statistics.calls == statistics.failures + statistics.problems


@pytest.mark.parametrize("status", [400, 401, 404, 409, 429, 500, 507])
def test_an_answer_closes_it(status: int) -> None:
    world = World(retries=0, failures=2)
    world.call(GET, LOST)
    world.call(GET, answer(status))
    world.call(GET, LOST)
    assert not world.breaker.is_open


def test_what_never_left_does_not_count() -> None:
    world = World(retries=0, failures=1)
    world.call(GET, TimedOut("no connection was free", sent=False))
    assert not world.breaker.is_open


def test_the_call_that_opens_it_says_what_it_saw() -> None:
    world = World(retries=5, failures=2)
    outcome, sent, _ = world.call(GET, LOST, LOST)
    assert outcome is LOST and sent == 2 and world.breaker.is_open
    world = World(retries=5, failures=2)
    busy = answer(503)
    assert world.call(GET, busy, busy)[0] is busy


def opened(seconds: float = 1.0) -> tuple[Breaker, Clock]:
    clock = Clock()
    breaker = Breaker(now=clock, seconds=seconds)
    for _ in range(3):
        breaker.failed()
    return breaker, clock


def is_refused(breaker: Breaker, deadline: float = 1e9) -> bool:
    try:
        breaker.admit(deadline)
    except CircuitOpen:
        return True
    return False


def test_half_open_lets_one_through() -> None:
    breaker, clock = opened()
    clock.time += 0.999
    assert is_refused(breaker)
    clock.time += 0.002
    assert not breaker.is_open
    assert breaker.admit(clock.time + 2)
    assert is_refused(breaker) and is_refused(breaker)
    breaker.succeeded()
    assert not breaker.admit(clock.time + 2) and not is_refused(breaker)


def test_the_time_doubles_up_to_a_limit() -> None:
    breaker, clock = opened()
    expected = 1.0
    for _ in range(8):
        with pytest.raises(CircuitOpen) as refusal:
            breaker.admit(1e9)
        assert refusal.value.retry_after == pytest.approx(expected)
        clock.time += expected
        breaker.failed(probing=breaker.admit(1e9))
        expected = min(expected * 2, MAX_BREAKER_SECONDS)
    clock.time += expected
    breaker.admit(1e9)
    breaker.succeeded()
    for _ in range(3):
        assert not is_refused(breaker)
        breaker.failed()
    with pytest.raises(CircuitOpen) as refusal:
        breaker.admit(1e9)
    assert refusal.value.retry_after == pytest.approx(1.0)


def test_calls_that_fail_together_count_as_one_outage() -> None:
    breaker, clock = opened()
    for _ in range(40):
        breaker.failed()
    clock.time += 1.0
    assert not is_refused(breaker)
    assert breaker.opened_count == 1


def test_an_attempt_that_is_given_up_leaves_its_place() -> None:
    breaker, clock = opened()
    clock.time += 1
    assert breaker.admit(clock.time + 100)
    breaker.abandoned(probing=True)
    assert breaker.admit(clock.time + 100)
    # Another one that began before has no place to leave.
    breaker.abandoned(probing=False)
    breaker.failed(probing=False)
    assert is_refused(breaker)


def test_a_cancelled_call_leaves_its_place() -> None:
    world = World(retries=0, failures=1)
    world.call(GET, LOST)
    world.clock.time += 1
    exchange: Generator[Any, Any, Any] = world.policy.exchange(GET, 60)
    next(exchange)
    assert isinstance(world.call(GET)[0], CircuitOpen)
    exchange.close()
    assert world.call(GET, OK)[0] is OK
    assert not world.breaker.is_open


def test_an_attempt_that_never_reports_loses_its_place() -> None:
    breaker, clock = opened()
    clock.time += 1
    breaker.admit(clock.time + 2)
    clock.time += 2.001
    assert not is_refused(breaker)
    # Nor does one that may take minutes hold it for so long.
    breaker, clock = opened()
    clock.time += 1
    breaker.admit(clock.time + 300)
    clock.time += MAX_BREAKER_SECONDS + 0.001
    assert not is_refused(breaker)


def test_threads_that_race_for_the_one_place() -> None:
    for _ in range(30):
        breaker, clock = opened()
        clock.time += 1
        admitted: list[bool] = []
        start = threading.Barrier(8)

        def race(breaker: Breaker = breaker, admitted: list[bool] = admitted,
                 start: threading.Barrier = start) -> None:
            start.wait(30)
            if not is_refused(breaker):
                admitted.append(True)

        threads = [threading.Thread(target=race) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert admitted == [True]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_lock_that_a_thread_held_during_fork() -> None:
    breaker, _ = opened()
    with breaker._lock:
        child = os.fork()
        if child == 0:
            signal.alarm(30)
            is_refused(breaker)
            os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
