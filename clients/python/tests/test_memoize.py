"""Memoized functions: keys, one computation for many callers, and going on without the service."""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Service

from reprise_client import AsyncClient, Cache, Client, TransportError, limits, memoize
from reprise_client.codecs import Raw, Unencodable
from reprise_client.keys import UnhashableArgument

SECONDS = 60.0


@pytest.fixture
def cache(client: Client, name: str) -> Cache:
    return client.cache(name, timeout=10)


def until(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + SECONDS
    while not (result := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.02)
    return result


def together(count: int, function: Callable[[int], Any]) -> list[Any]:
    """What so many threads get that begin at the same time."""
    results: list[Any] = [None] * count
    gate = threading.Barrier(count)

    def run(index: int) -> None:
        gate.wait()
        try:
            results[index] = function(index)
        except BaseException as error:
            results[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
        assert not thread.is_alive()
    return results


def hold(service: Service) -> None:
    """Stops the service, and waits until it has stopped."""
    assert service.process is not None
    service.hold()
    status = Path(f"/proc/{service.process.pid}/stat")
    deadline = time.monotonic() + 60
    while status.exists() and status.read_text().rpartition(")")[2].split()[0] != "T":
        assert time.monotonic() < deadline
        time.sleep(0.01)


# Results.


@pytest.mark.parametrize("single_flight", ["service", "process", None])
def test_a_function_is_called_once_for_equal_arguments(cache: Cache, single_flight: Any) -> None:
    calls: list[Any] = []

    @cache.memoize(ignore=["calls"], single_flight=single_flight)
    def score(a: Any, b: int = 2, *, c: str = "x") -> Any:
        """Scores."""
        calls.append((a, b, c))
        return {"a": a, "b": b, "c": c}

    assert score(1) == score(1, 2) == score(a=1, c="x") == {"a": 1, "b": 2, "c": "x"}
    assert len(calls) == 1
    assert [type(score(value)["a"]) for value in (1.0, True)] == [float, bool]
    assert score([1, 2], 3, c="y") == score([1, 2], c="y", b=3)
    assert len(calls) == 4
    assert score.__name__ == "score" and score.__doc__ == "Scores."
    assert score.__wrapped__(5)["a"] == 5
    statistics = score.statistics()
    assert statistics["computed"] == 4 and statistics["hits"] == 3
    assert cache.statistics()["computed"] == 4


def test_the_decorator_works_without_parentheses(cache: Cache) -> None:
    @cache.memoize
    def double(a: int) -> int:
        return a * 2

    assert double(2) == double(2) == 4
    assert double.statistics()["computed"] == 1


def test_none_is_a_result(cache: Cache) -> None:
    calls: list[int] = []

    @cache.memoize(ignore=["calls"])
    def nothing() -> None:
        calls.append(1)

    assert nothing() is None and nothing() is None
    assert len(calls) == 1


def test_an_exception_is_not_cached(cache: Cache) -> None:
    calls: list[int] = []

    @cache.memoize(ignore=["calls"])
    def fail(kind: str) -> int:
        calls.append(1)
        if kind == "stop":
            raise StopIteration("as it is")
        raise ValueError("no")

    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            fail("value")
        with pytest.raises(StopIteration, match="as it is"):
            fail("stop")
    assert len(calls) == 4
    assert cache.clear() == 0, "no result and no lock is left"


def test_what_cannot_be_stored_or_hashed_raises(cache: Cache) -> None:
    @cache.memoize
    def make() -> Any:
        return object()

    @cache.memoize
    def take(value: object) -> int:
        return 1

    with pytest.raises(Unencodable):
        make()
    assert cache.clear() == 0, "the lock is released"
    with pytest.raises(UnhashableArgument, match="value"):
        take(threading.Lock())
    assert cache.memoize(codec=Raw("audio/x"))(lambda: b"\1")() == b"\1"


def test_lifetime_tags_and_compute_seconds(client: Client, name: str) -> None:
    cache = client.cache(name, timeout=10, tags=["all"])

    @cache.memoize(ttl=500, tags=lambda user, size: [f"user-{user}"])
    def load(user: int, size: int) -> int:
        time.sleep(0.05)
        return size

    load(7, 1)
    load(7, 2)
    load(8, 1)
    metadata = client.get_metadata(name, load.key(7, 1))
    assert metadata["ttl_seconds"] == 500
    assert sorted(metadata["tags"]) == ["all", "user-7"]
    assert metadata["compute_seconds"] is not None and metadata["compute_seconds"] >= 0.05
    assert cache.clear(tag="user-7") == 2
    with pytest.raises(ValueError, match="ttl must be more than 0"):
        cache.memoize(ttl=0)


# Keys.


def test_clear_refresh_and_clear_all(cache: Cache) -> None:
    numbers = iter(range(100))

    @cache.memoize(ignore=["numbers"])
    def first(a: int) -> int:
        return next(numbers)

    @cache.memoize(ignore=["numbers"])
    def second(a: int) -> int:
        return next(numbers)

    assert [first(1), first(2), second(1)] == [0, 1, 2]
    assert first.clear(1) is True
    assert [first(1), first(2)] == [3, 1]
    assert first.refresh(2) == 4 and first(2) == 4
    assert first.clear_all() == 2
    assert [first(1), second(1)] == [5, 2]


def test_clear_all_leaves_functions_of_the_same_name(cache: Cache) -> None:
    def make(factor: int) -> Any:
        @cache.memoize
        def multiply(a: int) -> int:
            return a * factor

        return multiply

    double, triple = make(2), make(3)
    lambdas = [cache.memoize(lambda a: a + 1), cache.memoize(lambda a: a + 2)]
    assert [double(5), triple(5), lambdas[0](5), lambdas[1](5)] == [10, 15, 6, 7]
    assert double.clear_all() == 1
    assert lambdas[0].clear_all() == 1
    assert triple.statistics()["computed"] == 1
    triple(5), lambdas[1](5)
    assert triple.statistics()["hits"] == 1 and lambdas[1].statistics()["hits"] == 1


def test_keys_are_explained(cache: Cache) -> None:
    @cache.memoize(ignore=["session"], version=3)
    def score(path: str, session: object) -> int:
        return 1

    key = score.key("a.wav", object())
    explained = score.explain_key("a.wav", object())
    assert explained.startswith(f"key {key}\nversion 3\n")
    assert "path" in explained and "'a.wav'" in explained and "ignored" in explained
    assert score.key("a.wav", None) == key != score.key("b.wav", None)


def test_versions_and_own_keys(cache: Cache) -> None:
    def load(source: Any, limit: int = 5) -> int:
        return limit

    plain, one, two = cache.memoize(load), cache.memoize(version=1)(load), cache.memoize(
        version=2)(load)
    assert len({plain.key("a"), one.key("a"), two.key("a")}) == 3
    own = cache.memoize(key=lambda source, limit=5: f"{source}/{limit}")(load)
    assert own.key("a") == own.key("a", limit=5)
    assert own.key("a").endswith(":a/5")
    content = cache.memoize(key=lambda source, limit=5: (source["id"], limit))(load)
    assert content.key({"id": 1, "other": object()}) == content.key({"id": 1})
    assert content.key({"id": 1}) != content.key({"id": 2})
    long = cache.memoize(key=lambda source: source)(load)
    assert len(long.key("x" * 5000)) < 300
    assert long.key("a\nb") != long.key("a\0b")
    assert "key=" in own.explain_key("a")


def test_remembered_keys_tell_equal_numbers_apart(cache: Cache) -> None:
    @cache.memoize
    def f(a: Any = 1, **more: Any) -> Any:
        return a

    values: list[Any] = [1, 1.0, True, "1", b"1", 0, 0.0, -0.0, False, None, 2**80]
    keys = [f.key(value) for value in values]
    assert len(set(keys)) == len(values)
    assert [f.key(value) for value in values] == keys
    assert f.key() == f.key(1) == f.key(a=1)
    assert f.key(a=True) != f.key(a=1) and f.key(1, b=1) != f.key(1, b=True)
    assert f.key(b=1, c=2) == f.key(c=2, b=1)


def test_remembered_keys_are_bounded(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_REMEMBERED_KEYS", 10)

    @cache.memoize
    def f(a: Any) -> Any:
        return a

    for index in range(100):
        f.key(index)
    f.key("x" * 10_000)
    assert len(f._remembered[-1]) <= 10
    assert not any("x" * 10_000 in str(call) for call in f._remembered[-1])


def test_remembered_keys_follow_an_edit_of_the_function(cache: Cache) -> None:
    names: dict[str, Any] = {"cache": cache}
    text = "def used():\n    return {}\n@cache.memoize\ndef f(a, b=1):\n    return used()\n"
    exec(text.format(1), names)
    f = names["f"]
    before = f.key(1)
    assert f.key(1) == before
    exec("def used():\n    return 2\n", names)
    assert f.key(1) != before
    edited = f.key(1)
    f.__wrapped__.__defaults__ = (2,)
    assert f.key(1) != edited


def test_a_default_that_can_change_is_looked_at_each_time(cache: Cache) -> None:
    @cache.memoize
    def f(a: int, options: list[int] = []) -> int:  # noqa: B006
        return a

    before = f.key(1)
    assert f.key(1) == before
    f.__wrapped__.__defaults__[0].append(1)  # type: ignore[attr-defined]
    assert f.key(1) != before


# Kinds of functions.


class Model:
    def __init__(self, name: str, cache: Cache) -> None:
        self.name = name
        self.calls = 0

    def __reprise_key__(self) -> str:
        return self.name


def test_methods(cache: Cache) -> None:
    class Scorer(Model):
        @cache.memoize
        def by_content(self, a: int) -> str:
            self.calls += 1
            return f"{self.name} {a}"

        @cache.memoize(ignore=["self"])
        def for_all(self, a: int) -> str:
            self.calls += 1
            return f"{self.name} {a}"

        @staticmethod
        @cache.memoize
        def static(a: int) -> int:
            return a

        @classmethod
        @cache.memoize
        def of_class(cls, a: int) -> int:
            return a

    one, other, again = Scorer("one", cache), Scorer("other", cache), Scorer("one", cache)
    assert [one.by_content(1), other.by_content(1), again.by_content(1)] == [
        "one 1", "other 1", "one 1"]
    assert [one.for_all(1), other.for_all(1)] == ["one 1", "one 1"]
    assert [one.calls, other.calls, again.calls] == [2, 1, 0]
    assert one.by_content.key(1) == again.by_content.key(1) != other.by_content.key(1)
    assert Scorer.by_content.key(one, 1) == one.by_content.key(1)
    assert one.by_content.clear(1) is True
    assert again.by_content.refresh(1) == "one 1" and again.calls == 1
    assert "name" in one.by_content.explain_key(1) or "self" in one.by_content.explain_key(1)
    assert one.for_all.statistics()["computed"] == 1
    assert Scorer.static(3) == one.static(3) == 3
    assert Scorer.of_class(3) == 3
    with pytest.raises(TypeError, match="Write @staticmethod above"):
        cache.memoize(staticmethod(len))


def test_partials_and_builtins(cache: Cache) -> None:
    half = cache.memoize(functools.partial(lambda a, b: a + b, 1))
    assert half(2) == half(2) == 3
    assert half.statistics()["computed"] == 1


def at_module_level(a: int) -> int:
    return a


def test_a_memoized_function_is_pickled_by_its_name(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    memoized = cache.memoize(at_module_level)
    monkeypatch.setattr(sys.modules[__name__], "at_module_level", memoized)
    assert pickle.loads(pickle.dumps(memoized)) is memoized


def test_the_wrong_kind_of_function_is_refused(cache: Cache) -> None:
    async def coroutine() -> None: ...

    def generator() -> Any:
        yield 1

    asynchronous = AsyncClient(cache._client.url).cache("ns")
    with pytest.raises(TypeError, match="is a coroutine function, and this cache blocks"):
        cache.memoize(coroutine)
    with pytest.raises(TypeError, match="coroutine functions need AsyncCache"):
        cache.get_or_compute("a", coroutine)
    with pytest.raises(TypeError, match="is no coroutine function"):
        asynchronous.memoize(lambda: 1)  # type: ignore[arg-type, return-value]
    with pytest.raises(TypeError, match="generator function"):
        cache.memoize(generator)
    with pytest.raises(TypeError, match="Its options are named"):
        cache.memoize(60)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r'ignore=\["self"\]'):
        cache.memoize(ignore="self")
    with pytest.raises(ValueError, match='single_flight is "service"'):
        cache.memoize(single_flight="all")  # type: ignore[call-overload]


# One computation.


def test_threads_that_want_the_same_compute_once(cache: Cache) -> None:
    calls: list[int] = []
    release = threading.Event()

    @cache.memoize(ignore=["calls", "release"], single_flight="process")
    def slow(a: int) -> list[int]:
        calls.append(a)
        release.wait(SECONDS)
        return [a]

    def let_go() -> None:
        until(lambda: slow.statistics()["waited"] == 7, "seven threads wait")
        release.set()

    helper = threading.Thread(target=let_go)
    helper.start()
    results = together(8, lambda _: slow(1))
    helper.join()
    assert results == [[1]] * 8 and calls == [1]
    assert len({id(result) for result in results}) == 8, "each has a list of its own"
    assert len(cache._shared.flights) == 0


def test_caches_of_one_client_share_computations(client: Client, name: str) -> None:
    calls: list[int] = []

    def work() -> int:
        calls.append(1)
        time.sleep(0.2)
        return 1

    results = together(6, lambda _: client.cache(name, timeout=10).get_or_compute("k", work))
    assert results == [1] * 6 and len(calls) == 1


def test_those_who_wait_get_the_exception_but_not_an_interrupt(cache: Cache) -> None:
    calls: list[int] = []
    release = threading.Event()

    def work(error: type[BaseException]) -> Any:
        calls.append(1)
        if len(calls) == 1:
            release.wait(SECONDS)
            raise error("first")
        return "second"

    def race(key: str, error: type[BaseException]) -> list[Any]:
        calls.clear()
        release.clear()
        waited = cache.statistics()["waited"]

        def let_go() -> None:
            until(lambda: cache.statistics()["waited"] == waited + 2, "two threads wait")
            release.set()

        helper = threading.Thread(target=let_go)
        helper.start()
        results = together(3, lambda _: cache.get_or_compute(
            key, lambda: work(error), single_flight="process"))
        helper.join()
        return results

    results = race("a", ValueError)
    assert [str(result) for result in results] == ["first"] * 3 and len(calls) == 1
    results = race("b", KeyboardInterrupt)
    assert sorted(str(result) for result in results) == ["first", "second", "second"]
    assert len(calls) == 2


def test_waiting_is_bounded(cache: Cache) -> None:
    release = threading.Event()
    started = threading.Event()

    def slow() -> str:
        started.set()
        release.wait(SECONDS)
        return "slow"

    holder = threading.Thread(target=lambda: cache.get_or_compute("k", slow))
    holder.start()
    started.wait(SECONDS)
    assert cache.get_or_compute("k", lambda: "own", wait_seconds=0.1) == "own"
    with Client(cache._client.url, timeout=10) as elsewhere:
        # Another client has no table in common with this one: only the lock is in its way.
        other = elsewhere.cache(cache.namespace, timeout=10)
        cache.delete("k")
        assert other.get_or_compute("k", lambda: "other", wait_seconds=0.1) == "other"
        assert other.statistics()["waited"] == 1
    release.set()
    holder.join()


def test_a_function_that_calls_itself_does_not_wait_for_itself(cache: Cache) -> None:
    @cache.memoize
    def fibonacci(n: int) -> int:
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    assert fibonacci(12) == 144
    assert fibonacci.statistics()["computed"] == 13

    depth: list[int] = []

    @cache.memoize(ignore=["depth"])
    def same(a: int) -> int:
        depth.append(1)
        return 5 if len(depth) > 1 else same(a) + 1

    assert same(1) == 6 and len(depth) == 2


def test_threads_that_would_wait_for_each_other_compute(cache: Cache) -> None:
    both = threading.Barrier(2)

    def work(own: str, other: str) -> str:
        def inner() -> str:
            return f"inner {other}"

        def outer() -> str:
            both.wait(SECONDS)
            return cache.get_or_compute(other, inner, single_flight="process")

        return cache.get_or_compute(own, outer, single_flight="process")

    started = time.monotonic()
    results = together(2, lambda index: work("ab"[index], "ba"[index]))
    assert all(isinstance(result, str) and result.startswith("inner") for result in results)
    assert time.monotonic() - started < limits.WAIT_SECONDS


def test_a_result_that_was_cleared_meanwhile_is_not_stored(cache: Cache) -> None:
    for clear in (lambda: cache.delete("k"), cache.clear, lambda: cache.clear(prefix="k"),
                  lambda: cache.delete_many(["k"])):
        assert cache.get_or_compute("k", lambda: (clear(), "old")[1]) == "old"
        assert cache.get("k") is None
    assert cache.get_or_compute("k", lambda: (cache.delete("other"), "new")[1]) == "new"
    assert cache.get("k") == "new"


def test_a_lock_is_renewed_while_its_holder_computes(
    cache: Cache, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LOCK_RENEW_SECONDS", 0.1)

    def slow() -> Any:
        key = memoize.lock_key("k")
        first = client.get_metadata(cache.namespace, key)["expires_at"]
        until(lambda: client.get_metadata(cache.namespace, key)["expires_at"] != first,
              "the lock is renewed")
        return "done"

    assert cache.get_or_compute("k", slow) == "done"
    assert not cache.contains(memoize.lock_key("k")), "it is released"


def test_the_thread_that_renews_ends_when_nothing_is_left(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LOCK_THREAD_IDLE_SECONDS", 0.05)
    monkeypatch.setattr(limits, "LOCK_RENEW_SECONDS", 0.05)
    cache.get_or_compute("k", lambda: 1)
    until(lambda: memoize._renewals._thread is None, "the thread ends")
    cache.get_or_compute("l", lambda: time.sleep(0.2))
    until(lambda: memoize._renewals._thread is None, "the thread ends")


def test_only_the_own_lock_is_released(cache: Cache, client: Client) -> None:
    def slow() -> str:
        # As if it had expired and another process had taken it.
        client.put_entry(cache.namespace, memoize.lock_key("k"), b"of another")
        return "done"

    assert cache.get_or_compute("k", slow) == "done"
    assert client.get_entry(cache.namespace, memoize.lock_key("k")).body == b"of another"


def test_a_lock_fits_beside_any_key(cache: Cache) -> None:
    for key in ("x" * 512, "ü" * 256, "x"):
        assert len(memoize.lock_key(key).encode()) <= 512
        assert cache.get_or_compute(key, lambda: 1) == 1


def test_without_a_lock_a_miss_is_two_calls(cache: Cache, client: Client) -> None:
    calls = client.statistics()["calls"]
    cache.get_or_compute("a", lambda: 1, single_flight="process")
    assert client.statistics()["calls"] == calls + 2
    cache.get_or_compute("b", lambda: 1)
    assert client.statistics()["calls"] == calls + 7
    cache.get_or_compute("b", lambda: 1)
    assert client.statistics()["calls"] == calls + 8
    info = cache.info()
    assert info is not None and info["misses"] <= 2, "a computation is one miss"


# Processes.

SCRIPT = """
import os, sys, time
from reprise_client import Client, limits
url, namespace, log, kind = sys.argv[1:5]
limits.LOCK_SECONDS, limits.LOCK_RENEW_SECONDS = 4.0, 0.5
cache = Client(url, timeout=20).cache(namespace, timeout=20)

def note(text):
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, text.encode() + b"\\n")
    os.close(file)

@cache.memoize(ttl=600, ignore=["note"], key=lambda a: str(a))
def compute(a):
    note(str(os.getpid()))
    time.sleep(600 if kind == "forever" else 1)
    return os.getpid()

print("ready", flush=True)
sys.stdin.readline()
print(compute(1), flush=True)
"""


def process(url: str, name: str, log: Path, kind: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-B", "-c", SCRIPT, url, name, str(log), kind],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )


def begin(children: list[subprocess.Popen[str]]) -> None:
    for child in children:
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()


def test_processes_that_want_the_same_compute_once(
    shared_service: Service, name: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    children = [process(shared_service.url, name, log, "short") for _ in range(8)]
    try:
        begin(children)
        results = [child.communicate(timeout=SECONDS)[0].strip() for child in children]
    finally:
        for child in children:
            child.kill()
            child.wait()
    computed = log.read_text().split()
    assert len(computed) == 1
    assert results == computed * 8


def test_when_the_holder_is_killed_another_takes_over(
    shared_service: Service, name: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    holder = process(shared_service.url, name, log, "forever")
    others = [process(shared_service.url, name, log, "short") for _ in range(2)]
    try:
        begin([holder])
        until(lambda: log.exists() and log.read_text(), "the first one computes")
        begin(others)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        results = [child.communicate(timeout=SECONDS)[0].strip() for child in others]
    finally:
        for child in (holder, *others):
            child.kill()
            child.wait()
    computed = log.read_text().split()
    assert computed[0] == str(holder.pid) and len(computed) == 2
    assert results == [computed[1]] * 2


def test_a_forked_child_does_not_wait_for_threads_that_it_does_not_have(cache: Cache) -> None:
    release = threading.Event()
    started = threading.Event()

    def slow() -> str:
        started.set()
        release.wait(SECONDS)
        return "slow"

    thread = threading.Thread(
        target=lambda: cache.get_or_compute("k", slow, single_flight="process"))
    thread.start()
    started.wait(SECONDS)
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        value = cache.get_or_compute("k", lambda: "child", single_flight="process")
        os._exit(0 if value == "child" else 1)
    _, status = os.waitpid(child, 0)
    release.set()
    thread.join()
    assert os.waitstatus_to_exitcode(status) == 0


# Local values, and no service.


def test_local_hits_make_no_call(cache: Cache, client: Client) -> None:
    @cache.memoize(local_seconds=60)
    def f(a: int) -> dict[str, int]:
        return {"a": a}

    first = f(1)
    first["a"] = 5
    calls = client.statistics()["calls"]
    assert [f(1) for _ in range(10)] == [{"a": 1}] * 10
    assert client.statistics()["calls"] == calls
    assert f.statistics()["local_hits"] == 10
    assert cache.statistics()["staleness_bound_seconds"] == 60
    f.clear(1)
    assert f(1) == {"a": 1} and f.statistics()["computed"] == 2
    f.clear_all()
    assert f(1) == {"a": 1} and f.statistics()["computed"] == 3


def test_everybody_computes_when_the_service_is_gone(service: Service) -> None:
    with Client(service.url) as client:
        cache, strict = client.cache("ns"), client.cache("ns", strict=True)
        cache.set("warm", 1)
        service.kill()
        calls: list[int] = []

        @cache.memoize(ignore=["calls"])
        def f(a: int) -> int:
            calls.append(a)
            return a

        assert [f(1), f(1), f(2)] == [1, 1, 2] and calls == [1, 1, 2]
        assert f.refresh(1) == 1 and f.clear(1) is False and f.clear_all() == 0
        assert together(4, lambda index: f(index + 10)) == [10, 11, 12, 13]
        with pytest.raises(TransportError):
            strict.memoize(lambda: 1)()


def test_a_service_that_dies_during_the_computation_does_no_harm(service: Service) -> None:
    with Client(service.url) as client:
        cache = client.cache("ns", timeout=5)

        def work() -> str:
            service.kill()
            return "done"

        assert cache.get_or_compute("a", work) == "done"


def test_a_service_that_hangs_costs_little(service: Service) -> None:
    with Client(service.url, timeout=120) as client:
        cache = client.cache("ns")
        cache.set("warm", 1)
        hold(service)
        started = time.monotonic()
        assert cache.get_or_compute("a", lambda: "done") == "done"
        assert time.monotonic() - started < 60
        service.go_on()


def test_a_service_that_hangs_before_the_lock_is_taken_costs_little(service: Service) -> None:
    with Client(service.url, timeout=120) as client:
        cache: Any = client.cache("ns")
        cache.set("warm", 1)
        look = cache._look

        def look_and_hold(*arguments: Any) -> Any:
            found = yield from look(*arguments)
            hold(service)
            return found

        cache._look = look_and_hold
        started = time.monotonic()
        assert cache.get_or_compute("a", lambda: "done") == "done"
        assert time.monotonic() - started < 60
        service.go_on()


# asyncio.


async def test_coroutine_functions(shared_service: Service, name: str) -> None:
    client = AsyncClient(shared_service.url, timeout=10)
    cache = client.cache(name, timeout=10, local_seconds=60)
    calls: list[int] = []

    @cache.memoize(ignore=["calls"])
    async def slow(a: int) -> list[int]:
        calls.append(a)
        await asyncio.sleep(0.1)
        if a < 0:
            raise ValueError("negative")
        return [a]

    results = await asyncio.gather(*(slow(1) for _ in range(20)))
    assert results == [[1]] * 20 and calls == [1]
    assert len({id(result) for result in results}) == 20
    assert inspect.iscoroutinefunction(slow) or asyncio.iscoroutinefunction(slow)
    failed = await asyncio.gather(*(slow(-1) for _ in range(3)), return_exceptions=True)
    assert [str(error) for error in failed] == ["negative"] * 3 and calls == [1, -1]
    assert await slow.refresh(1) == [1] and len(calls) == 3
    assert await slow.clear(1) and await slow(1) == [1] and len(calls) == 4
    assert slow.statistics()["local_hits"] == 0
    assert await slow(1) == [1] and slow.statistics()["local_hits"] == 1
    assert await slow.clear_all() == 1

    class Service_:
        @cache.memoize(ignore=["self"])
        async def method(self, a: int) -> int:
            return a

    assert await Service_().method(4) == 4
    await client.close()


async def test_a_cancelled_computation_frees_those_who_wait(
    shared_service: Service, name: str
) -> None:
    client = AsyncClient(shared_service.url, timeout=10)
    cache = client.cache(name, timeout=10)
    calls: list[int] = []
    started = asyncio.Event()

    async def work() -> str:
        calls.append(1)
        if len(calls) == 1:
            started.set()
            await asyncio.sleep(SECONDS)
        return "second"

    first = asyncio.create_task(cache.get_or_compute("k", work))
    await started.wait()
    others = [asyncio.create_task(cache.get_or_compute("k", work)) for _ in range(3)]
    while cache.statistics()["waited"] < 3:
        await asyncio.sleep(0.01)
    others[0].cancel()
    await asyncio.sleep(0)
    first.cancel()
    results = await asyncio.gather(first, *others, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert isinstance(results[1], asyncio.CancelledError)
    assert results[2:] == ["second"] * 2 and len(calls) == 2
    assert not await cache.contains(memoize.lock_key("k"))
    await client.close()


async def test_a_lock_is_renewed_in_the_event_loop(
    shared_service: Service, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LOCK_RENEW_SECONDS", 0.1)
    client = AsyncClient(shared_service.url, timeout=10)
    cache = client.cache(name, timeout=10)

    async def work() -> bool:
        key = memoize.lock_key("k")
        first = (await client.get_metadata(name, key))["expires_at"]
        deadline = time.monotonic() + SECONDS
        while (await client.get_metadata(name, key))["expires_at"] == first:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        return True

    assert await cache.get_or_compute("k", work) is True
    await client.close()


async def test_tasks_and_processes_share_the_lock(shared_service: Service, name: str) -> None:
    # Two clients, as in two processes: only the lock of the service is between them.
    clients = [AsyncClient(shared_service.url, timeout=10) for _ in range(2)]
    calls: list[int] = []

    async def work() -> int:
        calls.append(1)
        await asyncio.sleep(0.3)
        return 1

    results = await asyncio.gather(*(
        client.cache(name, timeout=10).get_or_compute("k", work)
        for client in clients for _ in range(5)
    ))
    assert results == [1] * 10 and len(calls) == 1
    for client in clients:
        await client.close()
