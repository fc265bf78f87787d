"""The requests-cache backend: keys, times to live, and what it does without the service."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import pytest
import requests
from conftest import Service
from requests.adapters import HTTPAdapter
from requests_cache import CachedSession, safe_pickle_serializer
from requests_cache.models import CachedResponse
from urllib3 import HTTPResponse

from reprise_client import Client, TransportError
from reprise_client.adapters.requests_cache import RepriseCache, RepriseDict

SECRET = "a secret of 16 bytes or more"


class Web(HTTPAdapter):
    """Answers every request with the number of the request."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        self.count += 1
        raw = HTTPResponse(
            BytesIO(str(self.count).encode()), {"Content-Type": "text/plain"}, status=200,
            preload_content=False, request_url=request.path_url)
        return self.build_response(request, raw)


def make_session(backend: RepriseCache, **options: Any) -> CachedSession:
    session = CachedSession(backend=backend, **options)
    session.mount("http://", Web())
    return session


def test_the_secret_or_json() -> None:
    with pytest.raises(ValueError, match='pickle_secret=.*serializer="json"'):
        RepriseCache()
    with pytest.raises(ValueError, match="pickle_secret="):
        RepriseCache(serializer="pickle")
    RepriseCache(serializer="json")
    RepriseCache(serializer=safe_pickle_serializer(secret_key=SECRET))
    with pytest.raises(ValueError, match="namespace"):
        RepriseCache("a/b", serializer="json")


@pytest.mark.parametrize("options", [
    {"pickle_secret": SECRET}, {"serializer": "json"}, {"serializer": "yaml"},
    {"serializer": safe_pickle_serializer(secret_key=SECRET)},
], ids=["pickle", "json", "yaml", "safe-pickle"])
def test_responses_come_back(client: Client, name: str, options: Any) -> None:
    session = make_session(RepriseCache(name, client=client, strict=True, **options))
    first = session.get("http://example.test/a")
    again = session.get("http://example.test/a")
    assert not first.from_cache and again.from_cache and again.text == first.text == "1"
    assert [response.url for response in session.cache.filter()] == ["http://example.test/a"]
    assert session.cache.contains(url="http://example.test/a")
    session.cache.delete(urls=["http://example.test/a"])
    assert session.get("http://example.test/a").text == "2"


def test_a_forged_response_is_sent_anew(client: Client, name: str) -> None:
    session = make_session(RepriseCache(name, client=client, pickle_secret=SECRET))
    session.get("http://example.test/a")
    session.get("http://example.test/b")
    one, two = [item["key"] for item in client.list_entries(name).items]
    entry = client.get_entry(name, one)
    client.put_entry(name, two, entry.body, content_type=entry.content_type)
    answers = [session.get(f"http://example.test/{path}").from_cache for path in "ab"]
    assert sorted(answers) == [False, True]
    assert session.cache.failures > 0


def test_what_cannot_be_read_can_be_deleted(client: Client, name: str) -> None:
    session = make_session(RepriseCache(name, client=client, pickle_secret=SECRET))
    session.get("http://example.test/a")
    other = RepriseCache(name, client=client, pickle_secret="another" * 3)
    other.delete(invalid=True)
    assert len(session.cache.responses) == 0


def test_times_to_live(client: Client, name: str) -> None:
    def left(expire_after: Any, **options: Any) -> float | None:
        backend = RepriseCache(name, client=client, serializer="json", strict=True, **options)
        backend.clear()
        make_session(backend, expire_after=expire_after).get("http://example.test/a")
        (item,) = client.list_entries(name).items
        return item["ttl_seconds"]

    assert left(-1) is None and left(60, ttl=False) is None
    assert left(60) in (3659, 3660) and left(60, ttl_offset=5) in (64, 65)


def test_keys_that_are_hashed_keep_their_names(client: Client, name: str) -> None:
    for options in ({"serializer": "json"}, {"pickle_secret": SECRET}):
        storage = RepriseDict(name, "c", client=client, strict=True, **options)
        storage.clear()
        keys = ["plain", "x" * 600, "line\nbreak", "", "~sha256:1", "\ud800"]
        for key in keys:
            storage[key] = CachedResponse(status_code=201)
        assert set(storage) == set(storage.keys()) == set(keys) and len(storage) == len(keys)
        assert {key: value.cache_key for key, value in storage.items()} == {
            key: key for key in keys}
        assert all(storage[key].status_code == 201 and key in storage for key in keys)
        del storage["x" * 600]
        storage.bulk_delete(["", "\ud800", "absent"])
        assert set(storage) == {"plain", "line\nbreak", "~sha256:1"}


def test_many_and_large_values_are_iterated(client: Client, name: str) -> None:
    storage = RepriseDict(name, client=client, strict=True, pickle_secret=SECRET)
    values = {f"k{i}": i for i in range(501)}
    values.update({f"large{i}": str(i) * 3_000_000 for i in range(1, 8)})
    for key, value in values.items():
        storage[key] = value
    assert dict(storage.items()) == values and sorted(storage) == sorted(values)


@pytest.mark.parametrize("how", ["killed", "held"])
def test_the_app_goes_on_without_the_service(service: Service, name: str, how: str) -> None:
    backend = RepriseCache(name, url=service.url, serializer="json", call_timeout=0.2)
    session = make_session(backend)
    assert session.get("http://example.test/a").text == "1"
    if how == "killed":
        service.kill()
    else:
        service.hold()
    try:
        assert session.get("http://example.test/a").text == "2"
        assert session.get("http://example.test/a").text == "3"
        assert list(backend.responses) == [] and len(backend.responses) == 0
        assert "k" not in backend.responses and backend.responses.get("k") is None
        backend.delete(expired=True)
        backend.clear()
        backend.close()
        assert backend.failures > 0
    finally:
        service.go_on()


def test_strict_backends_raise(service: Service, name: str) -> None:
    session = make_session(RepriseCache(name, url=service.url, serializer="json", strict=True))
    service.kill()
    with pytest.raises(TransportError):
        session.get("http://example.test/a")
