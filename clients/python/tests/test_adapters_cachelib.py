"""The cachelib backend beyond what cachelib's own tests look at."""

from __future__ import annotations

import os
import threading
from datetime import timedelta
from typing import Any

import pytest
from cachelib.serializers import BaseSerializer, JSONSerializer, SimpleSerializer
from conftest import Service

from reprise_client import Client, TransportError
from reprise_client.adapters.cachelib import RepriseCache, SignedPickleSerializer

SECRET = "a secret of 16 bytes or more"


def make(client: Client, name: str, **options: Any) -> RepriseCache:
    options.setdefault("pickle_secret", SECRET)
    return RepriseCache(client=client, namespace=name, strict=True, **options)


def test_the_secret_or_json() -> None:
    with pytest.raises(ValueError, match='pickle_secret=.*serializer="json"'):
        RepriseCache()
    with pytest.raises(ValueError, match="at least 16"):
        RepriseCache(pickle_secret="short")
    with pytest.raises(ValueError, match="serializer is"):
        RepriseCache(serializer="yaml")
    # A serializer that possibly pickles needs one too.
    with pytest.raises(ValueError, match="pickle_secret="):
        RepriseCache(serializer=SimpleSerializer())
    assert isinstance(RepriseCache(serializer="json").serializer, JSONSerializer)
    assert isinstance(RepriseCache(serializer=JSONSerializer()).serializer, JSONSerializer)


def test_the_secret_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPRISE_PICKLE_SECRET", SECRET)
    assert isinstance(RepriseCache().serializer, SignedPickleSerializer)


def test_a_serializer_for_json_that_reads_something_else_is_signed(
    client: Client, name: str
) -> None:
    class Odd(JSONSerializer):
        def loads(self, bvalue: Any, *arguments: Any, **options: Any) -> Any:
            return eval(bvalue)

    cache = make(client, name)
    cache.serializer = Odd()
    assert cache.set("k", [1]) and cache.get("k") == [1]
    assert client.get_entry(name, "k").content_type == "application/vnd.reprise.signed-pickle"


def test_a_forged_value_is_a_miss(client: Client, name: str) -> None:
    cache = RepriseCache(client=client, namespace=name, pickle_secret=SECRET)
    cache.set("a", ("secret",))
    entry = client.get_entry(name, "a")
    client.put_entry(name, "b", entry.body, content_type=entry.content_type)
    assert cache.get("a") == ("secret",) and cache.get("b") is None
    assert cache.get_many("a", "b") == [("secret",), None]
    other = RepriseCache(client=client, namespace=name, pickle_secret="another" * 3)
    assert other.get("a") is None
    assert cache.failures == 2 and other.failures == 1


def test_json_is_readable_by_others(client: Client, name: str) -> None:
    cache = make(client, name, pickle_secret=None, serializer="json")
    assert cache.set("k", {"a": [1, None]})
    entry = client.get_entry(name, "k")
    assert (entry.content_type, entry.body) == ("application/json", b'{"a": [1, null]}')
    # What JSON cannot keep is not stored, as the serializer of cachelib says.
    assert not cache.set("k", {1, 2}) and cache.get("k") == {"a": [1, None]}
    assert cache.set_many({"x": 1, "y": {2}}) == ["x"]
    assert cache.inc("x") == 2 and cache.get("x") == 2


def test_timeouts(client: Client, name: str) -> None:
    cache = make(client, name, default_timeout=50)

    def left(key: str) -> float | None:
        return client.get_metadata(name, key)["ttl_seconds"]

    cache.set("default", 1)
    cache.set("never", 1, timeout=0)
    cache.set("exact", 1, timeout=timedelta(seconds=1500.5))
    cache.add("added", 1, timeout=7)
    cache.set_many({"many": 1}, timeout=8)
    cache.inc("counted")
    assert [left(key) for key in ("default", "never", "exact", "added", "many", "counted")] == [
        50, None, 1500.5, 7, 8, 50]
    assert cache.set("default", 2, timeout=-1) and cache.get("default") is None
    make(client, name, default_timeout=0).set("forever", 1)
    assert left("forever") is None


def test_counting_keeps_the_expiry(client: Client, name: str) -> None:
    cache = make(client, name)
    cache.set("n", 1, timeout=30)
    assert cache.inc("n", 2) == 3 and cache.dec("n") == 2
    cache.set("f", 1.5, timeout=30)
    assert cache.inc("f", 2) == 3.5 and cache.get("f") == 3.5
    for key in "nf":
        remaining = client.get_metadata(name, key)["expires_in_seconds"]
        assert remaining is not None and remaining <= 30
    assert cache.inc("huge", 1 << 80) == 1 << 80 and cache.inc("huge") == (1 << 80) + 1
    cache.set("text", "a")
    with pytest.raises(TypeError):
        cache.inc("text")


@pytest.mark.parametrize("serializer", ["pickle", "json"])
def test_threads_count_together(client: Client, name: str, serializer: str) -> None:
    cache = make(client, name, serializer=serializer)

    def count() -> None:
        for _ in range(25):
            cache.inc("n")

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.get("n") == 200


def test_prefixes_share_a_namespace(client: Client, name: str) -> None:
    parts = [make(client, name, key_prefix=prefix) for prefix in ("a:", "b:", lambda: "c:")]
    for number, cache in enumerate(parts):
        assert cache.set("k", number) and cache.set("long" * 200, number)
    assert [cache.get("k") for cache in parts] == [0, 1, 2]
    assert parts[0].clear()
    assert [cache.get("k") for cache in parts] == [None, 1, 2]
    assert [cache.get("long" * 200) for cache in parts] == [None, 1, 2]
    with pytest.raises(ValueError, match="prefix"):
        make(client, name, key_prefix="p" * 500)


def test_keys_of_any_text(client: Client, name: str) -> None:
    cache = make(client, name)
    keys = ["", "a/b", "line\nbreak", "x" * 2000, "ключ", "\x00", "..", "~sha256:1"]
    assert cache.set_many({key: key for key in keys}) == keys
    assert cache.get_many(*keys) == keys and cache.get_dict(*keys) == dict(zip(keys, keys))
    assert all(cache.has(key) for key in keys)
    assert cache.delete_many(*keys) == keys and not any(cache.has(key) for key in keys)


def test_nothing_at_all(client: Client, name: str) -> None:
    cache = make(client, name)
    assert cache.get_many() == [] and cache.set_many({}) == [] and cache.delete_many() == []
    assert cache.delete("absent") is False and cache.clear() is True


def check_missing(cache: RepriseCache) -> None:
    assert cache.get("k") is None and cache.get_many("k") == [None]
    assert cache.set("k", 1) is False and cache.add("k", 1) is False
    assert cache.set_many({"k": 1}) == [] and cache.delete_many("k") == []
    assert cache.delete("k") is False and cache.has("k") is False and cache.clear() is False
    assert cache.inc("k") is None and cache.dec("k") is None
    assert cache.failures >= 11


def test_the_app_goes_on_without_the_service(service: Service, name: str) -> None:
    cache = RepriseCache(service.url, namespace=name, pickle_secret=SECRET)
    assert cache.set("k", 1)
    service.kill()
    check_missing(cache)
    with pytest.raises(RuntimeError, match="delete"):
        RepriseCache(service.url, namespace=name, pickle_secret=SECRET,
                     ignore_delete_many_errors=False).delete_many("k")
    with pytest.raises(TransportError):
        RepriseCache(service.url, namespace=name, pickle_secret=SECRET, strict=True).get("k")


def test_the_app_goes_on_with_a_service_that_hangs(service: Service, name: str) -> None:
    cache = RepriseCache(service.url, namespace=name, pickle_secret=SECRET, call_timeout=0.2)
    service.hold()
    try:
        check_missing(cache)
    finally:
        service.go_on()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_uses_the_cache(client: Client, name: str) -> None:
    cache = make(client, name)
    cache.set("parent", 1)
    child = os.fork()
    if child == 0:
        try:
            cache.set("child", cache.get("parent"))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert cache.get("child") == 1


def test_pickling_errors_are_those_of_pickle(client: Client, name: str) -> None:
    import pickle

    with pytest.raises(pickle.PickleError):
        make(client, name).set("k", lambda: None)


def test_a_custom_serializer_reads_what_it_wrote(client: Client, name: str) -> None:
    class Reversing(BaseSerializer):
        def dumps(self, value: Any, *arguments: Any) -> Any:
            return repr(value)[::-1].encode()

        def loads(self, bvalue: bytes) -> Any:
            return eval(bvalue.decode()[::-1])

    cache = make(client, name, serializer=Reversing())
    assert cache.set("k", 12) and cache.get("k") == 12
    assert cache.inc("k", 30) == 42 and cache.get("k") == 42
    assert b"21" not in client.get_entry(name, "k").body
