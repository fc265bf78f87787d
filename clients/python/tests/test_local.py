"""The values that a process keeps in front of the service."""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy
import pandas
import pytest

from reprise_client import Client
from reprise_client.codecs import AutoCodec, Raw, Wav
from reprise_client.local import MISSING, Held, LocalTier

CODEC = AutoCodec()


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def held(value: Any, *, codec: Any = CODEC, etag: str = '"1"', decoded: bool = True) -> Held:
    encoded = codec.encode(value)
    return Held(value, encoded.body, encoded.content_type, codec=codec, etag=etag,
                is_decoded=decoded)


def keep(tier: LocalTier, key: str, value: Any, seconds_left: float | None = None) -> None:
    tier.keep(key, held(value), tier.mark(key), confirmed_at=tier.now(),
              seconds_left=seconds_left)


def test_a_value_is_given_out_until_it_is_as_old_as_its_reader_allows() -> None:
    clock = Clock()
    tier = LocalTier(now=clock)
    keep(tier, "a", "text")
    clock.seconds += 4.9
    assert tier.get("a", CODEC, 5) == "text"
    assert tier.get("a", CODEC, 4) is MISSING
    clock.seconds += 0.1
    assert tier.get("a", CODEC, 5) is MISSING


def test_a_value_is_never_given_out_beyond_its_own_expiry() -> None:
    clock = Clock()
    tier = LocalTier(now=clock)
    keep(tier, "a", "text", seconds_left=3)
    clock.seconds += 2.9
    assert tier.get("a", CODEC, 60) == "text"
    assert tier.to_revalidate("a", CODEC) is not None
    clock.seconds += 0.1
    assert tier.get("a", CODEC, 60) is MISSING
    assert tier.to_revalidate("a", CODEC) is None
    keep(tier, "b", "text", seconds_left=0)
    assert tier.get("b", CODEC, 60) is MISSING


def test_the_last_known_value_is_there_for_an_outage_and_only_so_long() -> None:
    clock = Clock()
    tier = LocalTier(now=clock)
    keep(tier, "a", "text", seconds_left=3)
    clock.seconds += 50
    assert tier.rescue("a", CODEC, 60) == "text"
    clock.seconds += 10
    assert tier.rescue("a", CODEC, 60) is MISSING
    assert tier.statistics()["stale_hits"] == 1


def test_the_least_recently_used_values_go_when_the_bytes_are_used_up() -> None:
    tier = LocalTier(max_bytes=10_000)
    for index in range(3):
        keep(tier, f"k{index}", b"x" * 2500)
    assert tier.get("k0", CODEC, 60) is not MISSING
    keep(tier, "k3", b"x" * 2500)
    assert tier.get("k1", CODEC, 60) is MISSING
    assert tier.get("k0", CODEC, 60) is not MISSING
    statistics = tier.statistics()
    assert statistics["size_bytes"] <= 10_000
    assert statistics["evictions"] == 1
    keep(tier, "k0", b"x" * 20_000)
    assert tier.get("k0", CODEC, 60) is MISSING, "neither the large value nor the old one"
    for key in ("k1", "k2", "k3"):
        tier.discard(key)
    assert tier.statistics()["size_bytes"] == 0


@pytest.mark.parametrize("value", [
    {"a": [1, 2.5, None, True, "ü"]}, [[], {}], {"deep": {"er": [1]}},
])
def test_nobody_gets_a_list_or_dict_that_somebody_else_can_change(value: Any) -> None:
    tier = LocalTier()
    keep(tier, "a", value)
    first = tier.get("a", CODEC, 60)
    assert first == value and type(first) is type(value)
    first.clear()
    assert tier.get("a", CODEC, 60) == value


def test_a_list_that_occurs_twice_comes_back_as_two_lists_as_it_does_from_json() -> None:
    tier = LocalTier()
    inner: list[int] = []
    keep(tier, "a", [inner, inner])
    first = tier.get("a", CODEC, 60)
    first[0].append(1)
    assert first == [[1], []]


@pytest.mark.parametrize("decoded", [True, False])
def test_arrays_and_frames_are_copies(decoded: bool) -> None:
    tier = LocalTier()
    array = numpy.arange(6, dtype="f4").reshape(2, 3)
    frame = pandas.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    for key, value in (("array", array), ("frame", frame)):
        tier.keep(key, held(value, decoded=decoded), tier.mark(key), confirmed_at=tier.now(),
                  seconds_left=None)
    array[0, 0] = 99
    frame.loc[0, "a"] = 99
    first = tier.get("array", CODEC, 60)
    assert first[0, 0] == 0
    first[0, 0] = 7
    assert tier.get("array", CODEC, 60)[0, 0] == 0
    first_frame = tier.get("frame", CODEC, 60)
    assert first_frame.loc[0, "a"] == 1
    first_frame.loc[0, "a"] = 7
    assert tier.get("frame", CODEC, 60).loc[0, "a"] == 1


def test_what_is_neither_is_decoded_anew() -> None:
    tier = LocalTier()
    sound = Wav(numpy.arange(4, dtype="i2"), 8000)
    keep(tier, "a", sound)
    first = tier.get("a", CODEC, 60)
    first.samples[0] = 9
    assert tier.get("a", CODEC, 60).samples[0] == 0


def test_text_and_bytes_are_shared() -> None:
    tier = LocalTier()
    value = b"x" * 1000
    keep(tier, "a", value)
    assert tier.get("a", CODEC, 60) is value


def test_a_reader_with_another_codec_does_not_get_the_value() -> None:
    tier = LocalTier()
    keep(tier, "a", "text")
    raw = Raw()
    assert tier.get("a", raw, 60) is MISSING
    assert tier.to_revalidate("a", raw) is None


def test_what_was_read_before_a_write_is_not_kept_after_it() -> None:
    tier = LocalTier()
    for write in (lambda: tier.discard("a"), tier.clear, lambda: tier.clear("other")):
        mark = tier.mark("a")
        write()
        tier.keep("a", held("old"), mark, confirmed_at=tier.now(), seconds_left=None)
        assert tier.get("a", CODEC, 60) is MISSING


def test_clearing_a_prefix_leaves_the_rest() -> None:
    tier = LocalTier()
    keep(tier, "a:1", 1)
    keep(tier, "b:1", 2)
    tier.clear("a:")
    assert tier.get("a:1", CODEC, 60) is MISSING
    assert tier.get("b:1", CODEC, 60) == 2


def test_threads_do_not_break_it() -> None:
    tier = LocalTier(max_bytes=20_000)
    errors: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for step in range(2000):
                key = f"k{(step * 7 + seed) % 40}"
                if step % 3 == 0:
                    keep(tier, key, key * 20)
                elif step % 50 == 1:
                    tier.discard(key)
                else:
                    value = tier.get(key, CODEC, 60)
                    assert value is MISSING or value == key * 20
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    statistics = tier.statistics()
    assert 0 <= statistics["size_bytes"] <= 20_000
    for index in range(40):
        tier.discard(f"k{index}")
    assert tier.statistics()["size_bytes"] == 0


def test_a_forked_child_begins_empty_even_if_a_thread_held_the_lock() -> None:
    tier = LocalTier()
    keep(tier, "a", "text")
    with tier._lock:
        child = os.fork()
        if child == 0:
            os._exit(0 if tier.get("a", CODEC, 60) is MISSING else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert tier.get("a", CODEC, 60) == "text"


# In a cache.


@pytest.fixture
def clock() -> Clock:
    return Clock()


def cache_with(client: Client, name: str, clock: Clock, **options: Any) -> Any:
    cache = client.cache(name, **{"timeout": 10, "local_seconds": 5, **options})
    cache._shared.tier.now = clock
    return cache


def test_repeated_reads_make_no_call(client: Client, name: str, clock: Clock) -> None:
    cache = cache_with(client, name, clock)
    client.put_entry(name, "a", b"1")
    calls = client.statistics()["calls"]
    assert [cache.get("a") for _ in range(5)] == [b"1"] * 5
    assert cache.get_many(["a"]) == {"a": b"1"}
    assert client.statistics()["calls"] == calls + 1
    statistics = cache.statistics()
    assert statistics["local_hits"] == 5 and statistics["hits"] == 6
    assert statistics["staleness_bound_seconds"] == 5


def test_after_its_time_a_value_is_revalidated_by_its_tag(
    client: Client, name: str, clock: Clock
) -> None:
    cache = cache_with(client, name, clock)
    client.put_entry(name, "a", b"1" * 100_000, ttl_seconds=None)
    cache.get("a")
    kept = cache._shared.tier._items["a"]
    clock.seconds += 6
    assert cache.get("a") == b"1" * 100_000
    assert cache._shared.tier._items["a"] is kept, "the value itself was not sent again"
    calls = client.statistics()["calls"]
    cache.get("a")
    assert client.statistics()["calls"] == calls
    client.put_entry(name, "a", b"2")
    assert cache.get("a") == b"1" * 100_000, "within the bound"
    clock.seconds += 6
    assert cache.get("a") == b"2"
    client.delete_entry(name, "a")
    clock.seconds += 6
    assert cache.get("a", "gone") == "gone"


def test_the_expiry_that_the_service_tells_ends_a_local_value(
    client: Client, name: str, clock: Clock
) -> None:
    cache = cache_with(client, name, clock, local_seconds=3000)
    client.put_entry(name, "a", b"1", ttl_seconds=1000)
    assert cache.get("a") == b"1"
    assert 900 < cache._shared.tier._items["a"].expires_at - clock.seconds <= 1000
    assert cache.set("b", "own", ttl=1000)
    assert cache._shared.tier._items["b"].expires_at - clock.seconds == 1000
    client.set_policy(name, ttl_seconds=500)
    assert cache.set("c", "own")
    assert 400 < cache._shared.tier._items["c"].expires_at - clock.seconds <= 500
    assert cache.set_many({"d": "own", "e": "own"}) == []
    assert 400 < cache._shared.tier._items["d"].expires_at - clock.seconds <= 500
    assert cache.set("n", "own", ttl=None)
    assert cache._shared.tier._items["n"].expires_at == float("inf")


def test_own_writes_are_seen_at_once_by_all_caches_of_the_client(
    client: Client, name: str, clock: Clock
) -> None:
    cache = cache_with(client, name, clock)
    other = client.cache(name, timeout=10)
    assert cache.set("a", 1) and cache.get("a") == 1
    calls = client.statistics()["calls"]
    assert cache.get("a") == 1
    assert client.statistics()["calls"] == calls, "an own write is kept"
    other.set("a", 2)
    assert cache.get("a") == 2
    other.delete("a")
    assert cache.get("a") is None
    other.set("a", 3)
    assert cache.get("a") == 3
    other.set_many({"a": 4, "b": 4})
    assert cache.get_many(["a", "b"]) == {"a": 4, "b": 4}
    assert other.increment("a") == 5
    assert cache.get("a") == 5
    other.delete_many(["a"])
    assert cache.get("a") is None
    other.set("a", 6)
    assert cache.get("a") == 6
    other.clear()
    assert cache.get("a") is None


def test_a_reader_without_local_values_always_asks(
    client: Client, name: str, clock: Clock
) -> None:
    cache = cache_with(client, name, clock)
    plain = client.cache(name, timeout=10)
    cache.set("a", 1)
    with Client(client.url, timeout=10) as elsewhere:
        elsewhere.cache(name, timeout=10).set("a", 2)
    assert cache.get("a") == 1
    assert plain.get("a") == 2


def test_local_bytes_bound_it(client: Client, name: str, clock: Clock) -> None:
    cache = cache_with(client, name, clock, local_bytes=5000)
    for index in range(10):
        cache.set(f"k{index}", b"x" * 1000)
    assert cache.statistics()["local"]["size_bytes"] <= 5000
    assert cache.get("k0") == b"x" * 1000


def test_last_known_values_while_the_service_is_away(service: Any, clock: Clock) -> None:
    client = Client(service.url)
    cache = cache_with(client, "ns", clock, local_seconds=1, serve_stale_seconds=60, timeout=10)
    assert cache.set("a", {"n": 1}) and cache.get("a") == {"n": 1}
    service.kill()
    clock.seconds += 30
    assert cache.get("a") == {"n": 1}
    assert cache.get_many(["a", "b"]) == {"a": {"n": 1}}
    assert cache.get("b", 0) == 0
    assert not cache.set("c", "computed meanwhile")
    assert cache.get("c") == "computed meanwhile"
    calls: list[int] = []
    assert [cache.get_or_compute("d", lambda: calls.append(1) or "d") for _ in range(3)] == (
        ["d"] * 3
    )
    assert len(calls) == 1
    clock.seconds += 31
    assert cache.get("a") is None
    assert cache.statistics()["outage_staleness_bound_seconds"] == 60
    assert cache.statistics()["stale_hits"] >= 4
    service.start()
    fresh = cache_with(Client(service.url), "ns", clock, serve_stale_seconds=60)
    assert fresh.get("c") is None, "what was not stored is not in the service"
