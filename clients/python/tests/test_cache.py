"""`Cache` and `AsyncCache` against the service, present and away."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy
import pytest
from conftest import Service
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reprise_client import (
    AsyncCache,
    AsyncClient,
    Cache,
    Client,
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    TransportError,
    Unauthenticated,
    limits,
)
from reprise_client.codecs import Raw, Unencodable


@pytest.fixture
def cache(client: Client, name: str) -> Cache:
    # A generous time for each call, because the machine may be busy.
    return client.cache(name, timeout=10)


def hold(service: Service) -> None:
    """Stops the service, and waits until it has stopped."""
    assert service.process is not None
    service.hold()
    status = Path(f"/proc/{service.process.pid}/stat")
    deadline = time.monotonic() + 60
    while status.exists() and status.read_text().rpartition(")")[2].split()[0] != "T":
        assert time.monotonic() < deadline
        time.sleep(0.01)


# One value.


@pytest.mark.parametrize("value", [
    None, True, 0, -1.5, "", "ü", b"", b"\0\xff", [], {"a": [1, {"b": None}]},
])
def test_a_value_comes_back_as_it_was(cache: Cache, value: Any) -> None:
    assert cache.set("key", value) is True
    found = cache.get("key", "default")
    assert found == value and type(found) is type(value)


def test_arrays_and_objects_come_back(client: Client, name: str) -> None:
    cache = client.cache(name, timeout=10, pickle_secret="s" * 32)
    array = numpy.arange(12, dtype="f4").reshape(3, 4)
    assert cache.set("array", array) and cache.set("tuple", (1, {2}))
    assert (cache.get("array") == array).all()
    assert cache.get("tuple") == (1, {2})


@pytest.mark.parametrize("key", ["a/b", "ü ä", ".", "..", "%2F", "a?b#c", "x" * 512])
def test_keys_of_all_kinds(cache: Cache, key: str) -> None:
    assert cache.set(key, 1) and cache.get(key) == 1
    assert cache.set_many({key: 2, "other": 3}) == [] and cache.get_many([key]) == {key: 2}
    assert key in cache
    assert cache.delete(key) and cache.get(key) is None


def test_a_miss_is_the_default_and_counted(cache: Cache) -> None:
    assert cache.get("none") is None
    assert cache.get("none", 7) == 7
    assert cache.get_entry("none") is None
    statistics = cache.statistics()
    assert statistics["misses"] == 3 and statistics["hits"] == 0 and statistics["errors"] == 0


def test_get_entry_tells_tag_and_expiry(cache: Cache) -> None:
    cache.set("a", "text", ttl=1000)
    entry = cache.get_entry("a")
    assert entry is not None
    assert entry.value == "text" and entry.key == "a" and entry.etag.startswith('"')
    assert entry.content_type.startswith("text/plain")
    assert entry.expires_in_seconds is not None and 900 < entry.expires_in_seconds <= 1000
    assert entry.expires_at is not None
    cache.set("a", "text", ttl=None)
    entry = cache.get_entry("a")
    assert entry is not None and entry.expires_in_seconds is None and entry.expires_at is None


def test_lifetimes(client: Client, name: str) -> None:
    def left(key: str) -> float | None:
        ttl = client.get_metadata(name, key)["ttl_seconds"]
        return ttl

    client.set_policy(name, ttl_seconds=700)
    of_namespace = client.cache(name, timeout=10)
    own = client.cache(name, timeout=10, ttl=timedelta(minutes=2))
    never = client.cache(name, timeout=10, ttl=None)
    of_namespace.set("a", 1)
    own.set("b", 1)
    never.set("c", 1)
    own.set("d", 1, ttl=0.5 + 60)
    own.set("e", 1, ttl=None)
    assert own.set_many({"f": 1, "g": 1}) == []
    assert [left(key) for key in "abcdefg"] == [700, 120, None, 60.5, None, 120, 120]
    for ttl in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="ttl must be more than 0 seconds, or None"):
            own.set("a", 1, ttl=ttl)
        with pytest.raises(ValueError, match="ttl must be more than 0"):
            client.cache(name, ttl=ttl)
    with pytest.raises(TypeError, match="ttl is a number of seconds"):
        own.set("a", 1, ttl=True)
    with pytest.raises(TypeError, match="ttl is a number of seconds"):
        own.set("a", 1, ttl="60")  # type: ignore[arg-type]


def test_what_is_wrong_with_a_cache_is_told_when_it_is_made(client: Client) -> None:
    for namespace in ("", "a/b", "ü", ".", "..", "x" * 129):
        with pytest.raises(ValueError, match="a namespace has 1 to 128 characters"):
            client.cache(namespace)
    with pytest.raises(ValueError, match="timeout must be more than 0"):
        client.cache("a", timeout=0)
    with pytest.raises(ValueError, match="local_seconds must be 0 seconds or more"):
        client.cache("a", local_seconds=-1)
    with pytest.raises(ValueError, match="pickle_secret is for the codec"):
        client.cache("a", codec=Raw(), pickle_secret="s" * 32)
    with pytest.raises(TypeError, match=r"tags=\['x'\]"):
        client.cache("a", tags="x")


def test_tags_and_compute_seconds_are_stored(client: Client, name: str) -> None:
    cache = client.cache(name, timeout=10, tags=["all"])
    cache.set("a", 1, tags=["one", "all"], compute_seconds=2.5)
    cache.set_many({"b": 1, "c": 2}, tags=["two"])
    metadata = client.get_metadata(name, "a")
    assert sorted(metadata["tags"]) == ["all", "one"]
    assert metadata["compute_seconds"] == 2.5
    assert sorted(client.get_metadata(name, "b")["tags"]) == ["all", "two"]
    assert cache.clear(tag="two") == 2
    assert cache.get_many(["a", "b", "c"]) == {"a": 1}


def test_add_only_adds(cache: Cache) -> None:
    assert cache.add("a", 1) is True
    assert cache.add("a", 2) is False
    assert cache.get("a") == 1
    assert cache.statistics()["failed_sets"] == 0


def test_replace_only_replaces_what_did_not_change(cache: Cache) -> None:
    cache.set("a", 1)
    entry = cache.get_entry("a")
    assert entry is not None
    assert cache.replace("a", 2, if_match=entry.etag) is True
    assert cache.replace("a", 3, if_match=entry.etag) is False
    assert cache.get("a") == 2
    assert cache.replace("none", 1, if_match="*") is False


def test_update_loses_no_change_of_another_thread(cache: Cache) -> None:
    # As many attempts as it takes on a busy machine: each round lets one of them through.
    def add(index: int) -> None:
        while not cache.update("list", lambda values: [*values, index], default=[]):
            pass

    threads = [threading.Thread(target=add, args=(index,)) for index in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(cache.get("list")) == list(range(6))


def test_update_gives_up_after_a_bounded_number_of_attempts(cache: Cache) -> None:
    calls = []

    def change(value: int) -> int:
        calls.append(value)
        cache.set("a", len(calls) + 100)
        return 0

    assert cache.update("a", change, default=0) is False
    assert len(calls) == limits.CACHE_UPDATE_ATTEMPTS


def test_delete_touch_and_membership(cache: Cache, client: Client) -> None:
    assert cache.delete("none") is True
    assert cache.touch("none") is False
    cache["a"] = 1
    assert "a" in cache and cache["a"] == 1
    assert cache.touch("a", ttl=500) is True
    assert client.get_metadata(cache.namespace, "a")["ttl_seconds"] == 500
    del cache["a"]
    assert "a" not in cache and 5 not in cache
    with pytest.raises(KeyError):
        cache["a"]
    with pytest.raises(TypeError):
        iter(cache)


def test_a_stored_none_is_a_value(cache: Cache) -> None:
    cache["a"] = None
    assert cache["a"] is None and cache.get("a", 5) is None and "a" in cache


def test_counters(cache: Cache) -> None:
    assert cache.increment("n") == 1
    assert cache.increment("n", 5) == 6
    assert cache.decrement("n", 2) == 4
    assert cache.increment("m", 1, 10, ttl=60) == 11
    assert cache.decrement("d", 3, 10) == 7
    cache.set("text", "x")
    with pytest.raises(Conflict):
        cache.increment("text")


def test_info_and_policy(client: Client, name: str) -> None:
    cache = client.cache(name, timeout=10)
    assert cache.info() is None
    assert cache.set_policy(ttl=60, max_entries=5, eviction="lfu") is True
    info = cache.info()
    assert info is not None
    assert info["policy"]["ttl_seconds"] == 60 and info["policy"]["max_entries"] == 5


def test_clear(cache: Cache) -> None:
    cache.set_many({"a:1": 1, "a:2": 2, "b:1": 3})
    assert cache.clear(prefix="a:") == 2
    assert cache.clear(older_than_seconds=1000) == 0
    assert cache.clear() == 1


def test_membership_and_locks_are_not_counted_as_reads(cache: Cache) -> None:
    cache.set("a", 1)
    assert "a" in cache and "b" not in cache
    info = cache.info()
    assert info is not None and info["hits"] + info["misses"] == 0


# What cannot be stored or read.


def test_what_cannot_be_encoded_raises_always(cache: Cache) -> None:
    for store in (
        lambda: cache.set("a", (1, 2)),
        lambda: cache.add("a", object()),
        lambda: cache.set_many({"a": {1}}),
        lambda: cache.update("a", lambda _: object()),
    ):
        with pytest.raises(Unencodable):
            store()


def test_a_wrong_key_raises(cache: Cache) -> None:
    with pytest.raises(InvalidRequest):
        cache.get("x" * 513)
    with pytest.raises(InvalidRequest):
        cache.set_many({"x" * 513: 1, "y": 2})
    with pytest.raises(ValueError):
        cache.get("")
    with pytest.raises(TypeError):
        cache.get(5)  # type: ignore[arg-type]


def test_what_cannot_be_decoded_is_a_miss(
    client: Client, cache: Cache, caplog: pytest.LogCaptureFixture
) -> None:
    client.put_entry(cache.namespace, "a", b"{", content_type="application/json")
    client.put_entry(cache.namespace, "b", b"x", content_type="application/x-npy")
    client.put_entry(cache.namespace, "c", b"x", content_type="text/plain",
                     content_encoding="gzip")
    with caplog.at_level(logging.INFO, "reprise_client"):
        assert cache.get("a", 1) == 1
        assert cache.get("b", 1) == 1
        assert cache.get("c", 1) == 1
        assert cache.get_many(list("abc")) == {}
        assert cache.get_entry("a") is None
    assert len([r for r in caplog.records if r.levelno == logging.WARNING]) == 1
    statistics = cache.statistics()
    assert statistics["undecodable"] == 7 and statistics["misses"] == 7
    assert statistics["hits"] == 0 and statistics["errors"] == 0
    assert cache.get_or_compute("a", lambda: "anew") == "anew"
    assert cache.get("a") == "anew"
    assert cache.update("b", lambda value: [value]) and cache.get("b") == [None]


def test_a_signed_value_is_only_read_in_its_place(client: Client, name: str) -> None:
    cache = client.cache(name, timeout=10, pickle_secret="s" * 32)
    cache.set("a", {1, 2})
    entry = client.get_entry(name, "a")
    client.put_entry(name, "b", entry.body, content_type=entry.content_type)
    assert cache.get("b") is None and cache.get("a") == {1, 2}
    assert client.cache(name, timeout=10, pickle_secret="t" * 32).get("a") is None
    assert client.cache(name, timeout=10).get_many(["a"]) == {}
    assert cache.set_many({"c": {3}, "d": {4}}) == []
    assert cache.get_many(["c", "d"]) == {"c": {3}, "d": {4}}


def test_a_value_that_is_too_large_is_not_stored(
    client: Client, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    client.set_policy(name, max_entry_bytes=1000)
    cache = client.cache(name, timeout=10)
    with caplog.at_level(logging.WARNING, "reprise_client"):
        assert cache.set("a", b"x" * 2000) is False
        assert cache.set_many({"b": b"x", "c": b"x" * 2000}) == ["c"]
        assert cache.get_or_compute("d", lambda: b"x" * 2000) == b"x" * 2000
    assert len(caplog.records) == 1
    assert cache.statistics()["failed_sets"] == 3
    assert cache.get_many(list("abcd")) == {"b": b"x"}
    strict = client.cache(name, timeout=10, strict=True)
    with pytest.raises(InvalidRequest, match="413"):
        strict.set("a", b"x" * 2000)


# Many values.


def test_many_values_go_in_few_calls(client: Client, cache: Cache) -> None:
    values = {f"key {index}": {"n": index} for index in range(2500)}
    calls = client.statistics()["calls"]
    assert cache.set_many(values) == []
    assert client.statistics()["calls"] == calls + 3
    assert cache.get_many([*values, "none"]) == values
    assert client.statistics()["calls"] == calls + 6
    assert cache.delete_many([*values, "none"]) == 2500
    assert client.statistics()["calls"] == calls + 9
    statistics = cache.statistics()
    assert statistics["sets"] == 2500 and statistics["hits"] == 2500
    assert statistics["misses"] == 1


def test_large_values_go_alone_and_batches_are_bounded_in_bytes(
    client: Client, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CACHE_BATCH_BYTES", 10_000)
    monkeypatch.setattr(limits, "CACHE_BATCH_VALUE_BYTES", 2000)
    values: dict[str, bytes] = {f"small{index}": bytes([index]) * 1000 for index in range(20)}
    values["large"] = b"x" * 5000
    calls = client.statistics()["calls"]
    assert cache.set_many(values) == []
    assert client.statistics()["calls"] == calls + 4 + 1
    assert cache.get_many(values) == values


def test_more_than_one_answer_can_hold_is_read_alone(cache: Cache) -> None:
    values = {f"k{index}": bytes([index]) * 6_000_000 for index in range(4)}
    assert cache.set_many(values) == []
    assert cache.get_many(values) == values


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
KEYS = st.text(
    st.characters(blacklist_categories=("Cc", "Cs")), min_size=1, max_size=40
).filter(lambda key: key.isprintable())


@settings(max_examples=60, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(values=st.dictionaries(KEYS, JSON | st.binary(max_size=3000), max_size=12))
def test_what_is_set_as_many_comes_back(cache: Cache, values: dict[str, Any]) -> None:
    cache.clear()
    assert cache.set_many(values) == []
    found = cache.get_many(values)
    assert found == values
    assert list(found) == list(values)
    assert [type(value) for value in found.values()] == [type(v) for v in values.values()]
    for key, value in values.items():
        assert cache.get(key, KEYS) == value
    assert cache.delete_many(values) == len(values)


# The service is away.


@pytest.fixture
def away(service: Service) -> Iterator[tuple[Cache, Cache, Service]]:
    with Client(service.url) as client:
        yield client.cache("ns"), client.cache("ns", strict=True), service


def everything(cache: Cache) -> list[Any]:
    return [
        cache.get("a", "default"), cache.get_entry("a"), cache.set("a", 1), cache.add("a", 1),
        cache.replace("a", 1, if_match='"x"'), cache.update("a", lambda _: 1),
        cache.delete("a"), cache.touch("a"), cache.increment("n"), cache.decrement("n"),
        cache.get_many(["a", "b"]), cache.set_many({"a": 1, "b": 2}),
        cache.delete_many(["a"]), cache.clear(), cache.info(), cache.set_policy(ttl=5),
        "a" in cache, cache.get_or_compute("a", lambda: "computed"),
    ]


NOTHING = [
    "default", None, False, False, False, False, False, False, None, None, {}, ["a", "b"], 0, 0,
    None, False, False, "computed",
]


def test_the_app_goes_on_when_the_service_is_gone(
    away: tuple[Cache, Cache, Service], caplog: pytest.LogCaptureFixture
) -> None:
    cache, strict, service = away
    assert cache.set("a", 1)
    service.kill()
    with caplog.at_level(logging.INFO, "reprise_client"):
        assert everything(cache) == NOTHING
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    statistics = cache.statistics()
    assert statistics["errors"] >= 17 and statistics["failed_sets"] >= 5
    assert statistics["misses"] >= 4 and statistics["hits"] == 0
    assert statistics["is_available"] is False
    with pytest.raises(TransportError):
        strict.get("a")
    with pytest.raises(TransportError):
        strict.set("a", 1)
    with pytest.raises(TransportError):
        strict.get_many(["a"])
    with pytest.raises(TransportError):
        strict.get_or_compute("a", lambda: 1)


def test_one_line_for_each_outage_and_one_for_its_end(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    with Client(service.url) as client:
        cache = client.cache("ns", timeout=10)
        cache.set("a", 1)
        with caplog.at_level(logging.INFO, "reprise_client"):
            for _ in range(2):
                service.kill()
                for _ in range(5):
                    assert cache.get("a") is None
                service.start()
                deadline = time.monotonic() + 60
                while cache.get("a") != 1:
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
        assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"] * 2


def test_a_service_that_hangs_costs_no_more_than_the_time_of_a_read(service: Service) -> None:
    with Client(service.url, timeout=120) as client:
        cache = client.cache("ns")
        assert cache.set("a", 1)
        hold(service)
        started = time.monotonic()
        assert cache.get("a", "default") == "default"
        assert time.monotonic() - started < 30, "far from the client's time"
        impatient = client.cache("ns", timeout=0.2)
        assert impatient.set("a", 2) is False
        with pytest.raises(TransportError):
            client.cache("ns", timeout=0.2, strict=True).get("a")
        service.go_on()


def test_a_client_that_is_not_let_in_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service(tmp_path)
    try:
        with Client(service.url, timeout=10) as admin:
            admin.cache("ns", timeout=10).set("a", 1)
            token = admin.create_token("all", scopes=["admin"])["token"]
            with Client(service.url, token=token, timeout=10) as owner:
                reader = owner.create_token("reader", scopes=["read"])["token"]
        with caplog.at_level(logging.INFO, "reprise_client"):
            with Client(service.url, timeout=10) as client:
                assert everything(client.cache("ns")) == NOTHING
                assert len(caplog.records) == 1
                with pytest.raises(Unauthenticated):
                    client.cache("ns", strict=True).get("a")
            caplog.clear()
            with Client(service.url, token=reader, timeout=10) as client:
                cache = client.cache("ns", timeout=10)
                for index in range(3):
                    assert cache.get("a") == 1
                    assert cache.set("a", 2) is False
                    assert cache.get_or_compute(f"b{index}", lambda: 5) == 5
                assert len(caplog.records) == 1
                with pytest.raises(Forbidden):
                    client.cache("ns", timeout=10, strict=True).set("a", 2)
    finally:
        service.stop()


# asyncio.


async def test_the_same_with_asyncio(shared_service: Service, name: str) -> None:
    client = AsyncClient(shared_service.url, timeout=10)
    cache = client.cache(name, timeout=10, tags=["t"])
    assert isinstance(cache, AsyncCache)
    assert await cache.get("a", 5) == 5
    assert await cache.set("a", {"x": 1}, ttl=60)
    assert await cache.get("a") == {"x": 1}
    assert await cache.add("a", 1) is False
    entry = await cache.get_entry("a")
    assert entry is not None
    assert await cache.replace("a", 2, if_match=entry.etag)
    assert await cache.update("a", lambda value: value + 1)
    assert await cache.get("a") == 3
    assert await cache.contains("a")
    assert await cache.touch("a")
    assert await cache.increment("n") == 1 and await cache.decrement("n") == 0
    values = {f"k{index}": index for index in range(1200)}
    assert await cache.set_many(values) == []
    assert await cache.get_many(values) == values
    assert await cache.delete_many(values) == 1200
    assert await cache.clear(tag="t") == 1
    assert await cache.set_policy(ttl=5)
    info = await cache.info()
    assert info is not None and info["policy"]["ttl_seconds"] == 5
    assert await cache.delete("n")

    async def compute() -> int:
        await asyncio.sleep(0)
        return 7

    assert await cache.get_or_compute("c", compute) == 7
    assert await cache.get_or_compute("d", lambda: 8) == 8
    assert await cache.get("c") == 7
    await client.close()


async def test_an_asyncio_app_goes_on_without_the_service(service: Service) -> None:
    client = AsyncClient(service.url, timeout=10)
    cache = client.cache("ns", timeout=10)
    assert await cache.set("a", 1)
    service.kill()
    assert await cache.get("a", "default") == "default"
    assert await cache.set("a", 1) is False
    assert await cache.get_or_compute("a", lambda: "computed") == "computed"
    assert await cache.get_many(["a"]) == {}
    assert await cache.increment("a") is None
    with pytest.raises(TransportError):
        await client.cache("ns", strict=True).get("a")
    service.start()
    hold(service)
    hanging = AsyncClient(service.url, timeout=120)
    assert await hanging.cache("ns").get("a", "default") == "default"
    service.go_on()
    await client.close()
    await hanging.close()


def test_an_async_cache_works_in_one_loop_after_another(
    shared_service: Service, name: str
) -> None:
    client = AsyncClient(shared_service.url, timeout=10)
    cache = client.cache(name, timeout=10, local_seconds=60)

    async def go() -> Any:
        return await cache.get_or_compute("a", lambda: [1])

    assert [asyncio.run(go()) for _ in range(3)] == [[1]] * 3
    assert cache.statistics()["computed"] == 1


# What a look at it from outside found.


def test_a_filter_that_is_none_clears_nothing(client, name):
    cache = client.cache(name)
    cache.set("a", 1)
    for filter_ in ("prefix", "tag", "older_than_seconds"):
        with pytest.raises(TypeError, match="leave it out"):
            cache.clear(**{filter_: None})
    assert cache.get("a") == 1


def test_keys_are_no_text(client, name):
    cache = client.cache(name)
    for many in (cache.get_many, cache.delete_many):
        with pytest.raises(TypeError, match="list of texts"):
            many("abc")


@pytest.mark.parametrize("poison", [b"1e999", b"1" * 5000])
def test_a_number_that_python_does_not_read_hides_no_other_value(client, name, poison):
    cache = client.cache(name)
    cache.set("good", 1)
    client.put_entry(name, "bad", poison, content_type="application/json")
    assert cache.get_many(["good", "bad"])["good"] == 1
    assert cache.statistics()["errors"] == 0


def test_a_clear_keeps_to_the_budget(service, name):
    client = Client(service.url, timeout=0.5, retries=0)
    cache = client.cache(name)
    cache.set("a", 1)
    service.hold()
    began = time.monotonic()
    assert cache.clear(tag="x") == 0
    assert time.monotonic() - began < 20
    service.go_on()


def test_an_address_that_leads_elsewhere_is_a_service_that_is_away(shared_service, name):
    client = Client(shared_service.url + "/elsewhere", timeout=10)
    cache = client.cache(name)

    @cache.memoize
    def double(number):
        return number * 2

    assert cache.get("a") is None and cache.set("a", 1) is False and double(4) == 8
    assert cache.statistics()["errors"] > 0
    with pytest.raises(NotFound):
        client.cache(name, strict=True).get("a")
