"""The Django backend: its settings, both kinds of methods, and what it does without the service."""

from __future__ import annotations

import asyncio
import pickle
import threading
from typing import Any

import django
import pytest
from conftest import Service
from django.conf import settings
from django.core.cache import CacheHandler
from django.core.exceptions import ImproperlyConfigured

from reprise_client import Client, TransportError
from reprise_client.adapters.django import RepriseCache

SECRET = "a secret of 16 bytes or more"

if not settings.configured:
    settings.configure(SECRET_KEY=SECRET, INSTALLED_APPS=[])
    django.setup()


def make(service: Service, name: str, *, strict: bool = True, **options: Any) -> RepriseCache:
    params = options.pop("params", {})
    return RepriseCache(service.url, {
        **params, "OPTIONS": {"namespace": name, "strict": strict, **options}})


def test_the_settings(shared_service: Service, client: Client, name: str) -> None:
    caches = CacheHandler({"default": {
        "BACKEND": "reprise_client.adapters.django.RepriseCache",
        "LOCATION": shared_service.url, "TIMEOUT": 77, "KEY_PREFIX": "site", "VERSION": 3,
        "OPTIONS": {"namespace": name, "MAX_ENTRIES": 5, "call_timeout": 9, "retries": 0},
    }})
    cache = caches["default"]
    cache.set("k", (1, 2))
    assert cache.get("k") == (1, 2) and cache.get("k", version=2) is None
    assert client.get_metadata(name, "site:3:k")["ttl_seconds"] == 77
    assert cache._store.client.timeout == 9 and cache._store.client._policy.retries == 0
    with pytest.raises(ImproperlyConfigured, match="no tokn"):
        make(shared_service, name, tokn="x")


def test_a_timeout_of_none_and_a_policy(
    shared_service: Service, client: Client, name: str
) -> None:
    cache = make(shared_service, name, params={"TIMEOUT": None})
    client.set_policy(name, ttl_seconds=10)
    cache.set("k", 1)
    assert client.get_metadata(name, ":1:k")["expires_at"] is None
    cache.set("k", 1, timeout=2.5)
    assert client.get_metadata(name, ":1:k")["ttl_seconds"] == 2.5
    assert cache.touch("k", 99)
    assert client.get_metadata(name, ":1:k")["ttl_seconds"] == 99


def test_pickles_are_signed_with_the_secret_key(
    shared_service: Service, client: Client, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = make(shared_service, name, strict=False)
    cache.set("k", (1, 2))
    for forged in (pickle.dumps("forged"), client.get_entry(name, ":1:k").body):
        client.put_entry(name, ":1:f", forged,
                         content_type="application/vnd.reprise.signed-pickle")
        assert cache.get("f", "missed") == "missed"
        assert cache.get_many(["f", "k"]) == {"k": (1, 2)}
    assert cache.failures == 4
    assert make(shared_service, name, strict=False, pickle_secret="x" * 16).get("k") is None
    monkeypatch.setenv("REPRISE_PICKLE_SECRET", "x" * 16)
    assert make(shared_service, name, strict=False).get("k") is None


def test_serializers(shared_service: Service, client: Client, name: str) -> None:
    cache = make(shared_service, name, serializer="json")
    cache.set("k", {"a": [1]})
    assert client.get_entry(name, ":1:k").body == b'{"a":[1]}'
    assert cache.get("k") == {"a": [1]} and cache.get_many(["k"]) == {"k": {"a": [1]}}
    with pytest.raises(TypeError):
        cache.set("k", {1})

    class Hexadecimal:
        def dumps(self, value: Any) -> bytes:
            return pickle.dumps(value).hex().encode()

        def loads(self, data: bytes) -> Any:
            return pickle.loads(bytes.fromhex(data.decode()))

    for serializer in (Hexadecimal, Hexadecimal()):
        cache = make(shared_service, name, serializer=serializer)
        cache.set("k", 5)
        assert cache.get("k") == 5 and cache.incr("k", 3) == 8 and cache.get("k") == 8
        # It may run code, so it is signed.
        assert "signed-pickle" in client.get_entry(name, ":1:k").content_type


def test_counting(shared_service: Service, client: Client, name: str) -> None:
    cache = make(shared_service, name)
    cache.set("n", 1, timeout=30)
    threads = [threading.Thread(target=lambda: [cache.incr("n") for _ in range(20)])
               for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.get("n") == 101 and cache.decr("n", 100) == 1
    left = client.get_metadata(name, ":1:n")["expires_in_seconds"]
    assert left is not None and left <= 30
    cache.set("f", 0.5, timeout=30)
    assert cache.incr("f", 0.25) == 0.75
    cache.set("n", (1 << 63) - 1)
    assert cache.incr("n") == 1 << 63 and cache.incr("n") == (1 << 63) + 1
    for call in (cache.incr, cache.decr):
        with pytest.raises(ValueError, match="not found"):
            call("absent")


def test_asyncio_in_several_loops(shared_service: Service, name: str) -> None:
    cache = make(shared_service, name)

    async def use(number: int) -> None:
        key = f"k{number}"
        await cache.aset(key, 1)
        assert await cache.aget(key) == 1 and await cache.ahas_key(key)
        assert not await cache.aadd(key, 2) and await cache.aadd(key, 2, version=2)
        assert await cache.aincr(key, 4) == 5 and await cache.adecr(key) == 4
        assert await cache.atouch(key, 5) and await cache.aset_many({"x": 1}) == []
        assert await cache.aget_many([key, "x", "y"]) == {key: 4, "x": 1}
        assert await cache.aget_or_set(key + "new", lambda: 9) == 9
        assert await cache.aincr_version(key) == 2
        await cache.adelete_many([key, "x"])
        assert await cache.adelete(key, version=2) and not await cache.adelete(key)
        await asyncio.gather(*(cache.aget(f"g{i}") for i in range(20)))

    for number in range(3):
        asyncio.run(use(number))
    asyncio.run(cache.aclear())
    assert cache.get("k0new") is None


def test_threads_share_one_pool(shared_service: Service, name: str) -> None:
    caches = CacheHandler({"default": {
        "BACKEND": "reprise_client.adapters.django.RepriseCache",
        "LOCATION": shared_service.url, "OPTIONS": {"namespace": name}}})
    found: list[Any] = [caches["default"]]
    thread = threading.Thread(target=lambda: found.append(caches["default"]))
    thread.start()
    thread.join()
    assert found[0] is not found[1] and found[0]._store.client is found[1]._store.client


def check_missing(cache: RepriseCache) -> None:
    assert cache.get("k", "default") == "default" and cache.get_many(["k"]) == {}
    cache.set("k", 1)
    assert cache.add("k", 1) is False and cache.touch("k") is False
    assert cache.delete("k") is False and cache.has_key("k") is False and "k" not in cache
    assert cache.set_many({"k": 1, "l": 2}) == ["k", "l"]
    assert cache.delete_many(["k"]) is None  # type: ignore[func-returns-value]
    assert cache.get_or_set("k", lambda: 5) == 5
    assert cache.clear() is False
    with pytest.raises(ValueError, match="not found"):
        cache.incr("k")

    async def use() -> None:
        assert await cache.aget("k", "default") == "default"
        assert await cache.aset_many({"k": 1}) == ["k"] and not await cache.ahas_key("k")

    asyncio.run(use())
    assert cache.failures > 10


def test_the_app_goes_on_without_the_service(service: Service, name: str) -> None:
    cache = make(service, name, strict=False)
    cache.set("k", 1)
    service.kill()
    check_missing(cache)
    strict = make(service, name)
    with pytest.raises(TransportError):
        strict.get("k")
    with pytest.raises(TransportError):
        asyncio.run(strict.aget("k"))


def test_the_app_goes_on_with_a_service_that_hangs(service: Service, name: str) -> None:
    cache = make(service, name, strict=False, call_timeout=0.2)
    service.hold()
    try:
        check_missing(cache)
    finally:
        service.go_on()


def test_keys_of_any_text(shared_service: Service, name: str) -> None:
    cache = make(shared_service, name)
    keys = ["x" * 2000, "a b", "é", "line\nbreak", ""]
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert cache.set_many({key: key for key in keys}) == []
        assert cache.get_many(keys) == {key: key for key in keys}
